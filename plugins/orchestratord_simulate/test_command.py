"""`orchestratord test`: the tests that endpoints have in their YAML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from orchestratord import complete_endpoints, config_option, output_option, pretend_secrets_option

if TYPE_CHECKING:
    from orchestratord import OpenedConfig
    from orchestratord_simulate.test_runner import CaseResult

FAILED = 1


Result = dict[str, Any]
"""One test as `-o json` has it. `misses` are places (file:line:column), keys and messages."""


@click.command()
@config_option
@pretend_secrets_option
@click.argument("endpoints", metavar="[ENDPOINT]...", nargs=-1, shell_complete=complete_endpoints)
@output_option("text", "json", "junit", about="The format of the output.")
def test(
    config: str | None, pretend_secrets: bool, endpoints: tuple[str, ...], output: str
) -> None:
    """Run the `tests` of endpoints; nothing is sent.

    Exits with 0 if all passed, with 1 if one failed, with 78 if the configuration is not good.
    """
    from orchestratord import opened_config

    open_ = opened_config(config, pretend_secrets=pretend_secrets)
    names = endpoints or tuple(open_.config.endpoints)
    for name in names:
        open_.endpoint(name)
    results = _results(open_, names)
    write = {"text": _text, "json": _json, "junit": _junit}[output]
    for line in write(results):
        click.echo(line)
    raise SystemExit(0 if all(result["passed"] for result in results) else FAILED)


def _results(open_: OpenedConfig, names: Sequence[str]) -> list[Result]:
    import asyncio

    from orchestratord_simulate.test_runner import run_cases

    async def run() -> list[CaseResult]:
        found: list[CaseResult] = []
        for name in dict.fromkeys(names):
            found += await run_cases(open_, open_.config.endpoints[name])
        return found

    found = asyncio.run(run())
    _note_hooks(open_, found)
    return [_placed(open_, item) for item in found]


def _note_hooks(open_: OpenedConfig, results: Sequence[CaseResult]) -> None:
    """Say which plugins decide in the daemon, and were not asked here."""
    explainer = open_.explainer()
    found: dict[str, dict[str, None]] = {}
    for item in results:
        for phase, plugins in explainer.impure(item.endpoint).items():
            found.setdefault(phase, {}).update(dict.fromkeys(plugins))
    for phase, names in sorted(found.items()):
        if names:
            message = f"not run in tests: {phase} of {', '.join(names)}"
            click.echo(f"note: {message}, which may decide otherwise", err=True)


def _placed(open_: OpenedConfig, result: CaseResult) -> Result:
    """With the place of the test, and of each expectation that was not met."""
    here = ("tests", result.index)
    misses: list[dict[str, Any]] = []
    for path, message in result.misses:
        spot = open_.place(result.endpoint, *here, *path)
        misses.append(
            {
                "file": spot.file,
                "line": spot.line,
                "column": spot.column,
                "key": ".".join(map(str, (*here, *path))),
                "message": message,
            }
        )
    spot = open_.place(result.endpoint, *here)
    return {
        "endpoint": result.endpoint.id,
        "name": result.label,
        "file": spot.file,
        "line": spot.line,
        "passed": not misses,
        "misses": misses,
    }


def _sentence(miss: dict[str, Any]) -> str:
    from orchestratord import escape

    place = f"{miss['file']}:{miss['line']}:{miss['column']}"
    return escape(f"{place}: {miss['key']}: {miss['message']}")


def _failed(results: Sequence[Result]) -> int:
    return sum(not result["passed"] for result in results)


def _text(results: Sequence[Result]) -> Iterator[str]:
    from orchestratord import escape

    endpoint = ""
    for result in results:
        if result["endpoint"] != endpoint:
            endpoint = result["endpoint"]
            yield endpoint
        yield f"  {'ok  ' if result['passed'] else 'FAIL'}  {escape(result['name'])}"
        for miss in result["misses"]:
            yield f"        {_sentence(miss)}"
    failed = _failed(results)
    yield f"{len(results) - failed} passed, {failed} failed" if results else "there are no tests"


def _json(results: Sequence[Result]) -> Iterator[str]:
    import json

    failed = _failed(results)
    document = {"passed": len(results) - failed, "failed": failed, "tests": results}
    yield json.dumps(document, indent=2)


def _junit(results: Sequence[Result]) -> Iterator[str]:
    """The XML that CI systems read; a failure holds every miss, one a line."""
    from xml.etree import ElementTree as Xml

    from orchestratord import escape

    counts = {"tests": str(len(results)), "failures": str(_failed(results))}
    suite = Xml.Element("testsuite", {"name": "orchestratord", **counts})
    for result in results:
        case = Xml.SubElement(
            suite,
            "testcase",
            classname=result["endpoint"],
            name=escape(result["name"]),
            file=result["file"],
            line=str(result["line"]),
        )
        if misses := result["misses"]:
            failure = Xml.SubElement(case, "failure", message=_sentence(misses[0]))
            failure.text = "\n".join(map(_sentence, misses))
    yield Xml.tostring(suite, encoding="unicode", xml_declaration=False)
