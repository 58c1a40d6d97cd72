"""`orchestratord explain`: what an attempt would send, and what would follow from its answer."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from orchestratord import complete_endpoints, config_option, output_option

if TYPE_CHECKING:
    from orchestratord import Endpoint, FakeAnswer

T = TypeVar("T")

_WIDTH = 80
_VERBS = {"webhook": ("fires", "does not fire")}
_FOLLOWS = "follows", "does not follow"
_ALIKE = 3
"""Things of one name that are shown; of a thousand calls the first few say it all."""


def _phases(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from orchestratord import PHASES

    return [CompletionItem(word) for word in PHASES if word.startswith(incomplete)]


def _errors(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from orchestratord import SendError

    return [CompletionItem(word) for word in SendError.KINDS if word.startswith(incomplete)]


@click.command()
@config_option
@click.argument("endpoint", metavar="ENDPOINT", shell_complete=complete_endpoints)
@click.option(
    "--phase",
    metavar="PHASE",
    help="Only what follows from this phase.",
    shell_complete=_phases,
)
@click.option("--status-code", metavar="CODE", help="The answer: a number, or error for none.")
@click.option("--body", metavar="TEXT|@FILE", help="The body of the answer; @- for stdin.")
@click.option(
    "--header",
    "headers",
    metavar="NAME:VALUE",
    multiple=True,
    help="A header of the answer, such as content-type:text/xml.",
)
@click.option(
    "--error",
    metavar="KIND",
    help="Why no answer comes, such as connect.",
    shell_complete=_errors,
)
@click.option(
    "--attempt",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="The number of the attempt.",
)
@click.option(
    "-p",
    "text_params",
    metavar="KEY=VALUE",
    multiple=True,
    help="A parameter; its text becomes the type that the endpoint declares.",
)
@click.option("--params", metavar="JSON|@FILE", help="Parameters as a JSON object; @- stdin.")
@output_option("text", "json", about="The format of the output.")
def explain(
    config: str | None,
    endpoint: str,
    phase: str | None,
    status_code: str | None,
    body: str | None,
    headers: tuple[str, ...],
    error: str | None,
    attempt: int,
    text_params: tuple[str, ...],
    params: str | None,
    output: str,
) -> None:
    """Explain one attempt of a call, without sending anything.

    Shows the request as it would go out, also as a command line of curl; with --status-code what
    becomes of the call and when it is tried again; and which webhooks fire and which calls follow,
    which do not and why, each with what it would send. Secrets are masked.
    """
    import asyncio

    from orchestratord import Conflict, opened_config, text_or_file

    content = None if body is None else _read("--body", text_or_file, body)
    answer = _answer(status_code, error, content, headers)
    open_ = opened_config(config)
    declared = open_.endpoint(endpoint)
    if not open_.host.registry.is_immediate(declared.type):
        _check_phase(phase, answer)
    values = _params(declared, text_params, params)
    explainer = open_.explainer()
    try:
        report = asyncio.run(
            explainer.explain(declared, values, attempt=attempt, answer=answer, phase=phase)
        )
    except Conflict as conflict:
        raise click.ClickException(f"{endpoint}: {conflict}") from None
    document = report.document(open_.config.redactor)
    if output == "json":
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(explain_text(document))


def _answer(
    status_code: str | None, error: str | None, body: str | None, headers: tuple[str, ...]
) -> FakeAnswer | None:
    """The answer that is supposed to come. Raises UsageError."""
    from pydantic import ValidationError

    from orchestratord import FakeAnswer, SendError, parse_code, suggest

    if error is not None and error not in SendError.KINDS:
        raise click.UsageError(f"--error: unknown kind {error!r}{suggest(error, SendError.KINDS)}")
    if status_code is None:
        if body is not None or headers:
            option = "--header" if body is None else "--body"
            raise click.UsageError(f"{option} is that of an answer: say which with --status-code")
        return None if error is None else FakeAnswer.model_validate({"error": error})
    try:
        code = parse_code(status_code)
    except ValueError as wrong:
        raise click.UsageError(f"--status-code: {wrong}") from None
    if error is not None and code != "error":
        raise click.UsageError(f"--error says that no answer comes, --status-code that {code} does")
    if (body is not None or headers) and (error or code == "error"):
        option = "--header" if body is None else "--body"
        raise click.UsageError(f"{option} is that of an answer, and there is none")
    if error:
        return FakeAnswer.model_validate({"error": error})
    pairs = [header.partition(":") for header in headers]
    named = {name.strip(): value.strip() for name, _, value in pairs}
    try:
        return FakeAnswer.model_validate({"status_code": code, "body": body, "headers": named})
    except ValidationError as wrong:  # headers of an answer that is none by HTTP
        raise click.UsageError(f"--header: {wrong.errors()[0]['msg']}") from None


def _check_phase(phase: str | None, answer: FakeAnswer | None) -> None:
    from orchestratord import PHASES, suggest

    if phase is None:
        return
    if phase not in PHASES:
        raise click.UsageError(f"--phase: unknown phase {phase!r}{suggest(phase, PHASES)}")
    if answer is None and not phase.startswith("before_"):
        raise click.UsageError(f"{phase} comes after an answer: say which with --status-code")


def _params(endpoint: Endpoint, texts: tuple[str, ...], document: str | None) -> dict[str, Any]:
    """The parameters of the call, defaults filled in. Raises UsageError."""
    from orchestratord import InvalidParams, check_params, json_object, key_value

    pairs = [_read("-p", key_value, pair) for pair in texts]
    text = dict(pairs)
    for name, times in Counter(name for name, _ in pairs).items():
        if times > 1:
            raise click.UsageError(f"-p {name}: is given twice")
    given = _read("--params", json_object, document) if document is not None else {}
    if twice := given.keys() & text.keys():
        raise click.UsageError(f"{', '.join(sorted(twice))}: is given twice")
    try:
        return check_params(endpoint, given, text=text)
    except InvalidParams as invalid:
        lines = [f"-p {name}: {message}" for name, message in invalid.problems.items()]
        raise click.UsageError("\n".join(lines)) from None


def _read(option: str, read: Callable[[str], T], word: str) -> T:
    """What stands behind an option, read as `orchestratorctl` does. Raises UsageError."""
    from argparse import ArgumentTypeError

    try:
        return read(word)
    except ArgumentTypeError as wrong:
        raise click.UsageError(f"{option}: {wrong}") from None


def explain_text(document: Mapping[str, Any]) -> str:
    """The text for the document of a report."""
    from orchestratord import escape

    lines = [*_head(document), "", *_request(document)]
    if document["decision"] is not None:
        lines += ["", "What becomes of it", *_expressions(document), *_decision(document)]
    lines += ["", *_consequences(document)]
    lines += _wrapped("Note: ", document["notes"])
    return "\n".join(escape(line) for line in lines)


def _head(document: Mapping[str, Any]) -> Iterator[str]:
    title = f"{document['endpoint']}, attempt {document['attempt']}"
    title += f" of {document['max_attempts']}"
    if document["status_code"] is not None:
        title += f", status code {document['status_code']}"
    yield title
    if not document["enabled"]:
        yield "Its calls are refused, and tasks wait: enabled is false."


def _request(document: Mapping[str, Any]) -> Iterator[str]:
    request = document["request"]
    yield "The request"
    if request is None:
        why = f"cannot be made: {document['error']}"
        if document["status_code"] == "ok":
            why = "there is none: an event has happened once it is accepted"
        yield from _wrapped("  ", [why])
        return
    yield from _sent(request, "  ")
    if document["partition"] is not None:
        yield from _wrapped("  ", [f"in the partition {document['partition']!r}"])
    if document["rate_limit"] is not None:
        limit = f"rate_limit {document['rate_limit']}: before it is claimed it waits until the "
        yield from _wrapped("  ", [f"{limit}calls of its API in all daemons leave room for it."])
    before = next(iter(document["hooks"]))
    plugins = document["hooks"][before]
    if plugins:
        yield from _wrapped(
            "  ", [f"{_and(plugins)} may still change or refuse it ({before}); that is not shown."]
        )
    if "curl" in request:
        yield ""
        # Within quotes a line of the body stays what it is.
        indent = "" if "\n" in (request["body"] or "") else "  "
        yield from (f"{indent}{line}" for line in request["curl"].split("\n"))


def _expressions(document: Mapping[str, Any]) -> Iterator[str]:
    from orchestratord_simulate.found_text import found_text

    for one in document["expressions"]:
        yield from _wrapped("  ", [found_text(one)])


def _sent(request: Mapping[str, Any], indent: str) -> Iterator[str]:
    if "statement" in request:
        if "database" in request:
            yield f"{indent}in the database {request['database']}:"
        yield from _lines(request["statement"], indent)
        for name, value in request.get("params", {}).items():
            yield f"{indent}:{name} = {json.dumps(value, ensure_ascii=False)}"
        return
    yield f"{indent}{request['method']} {request['url']}"
    for name, value in request["headers"].items():
        yield f"{indent}{name}: {value}"
    for name in request.get("added", ()):
        yield f"{indent}{name}: (made when it is sent)"
    if "body_file" in request:
        yield ""
        yield f"{indent}(what is in {request['body_file']})"
    if request["body"] is not None:
        yield ""
        yield from _lines(request["body"], indent)


def _lines(text: str, indent: str) -> Iterator[str]:
    for line in text.splitlines():
        yield f"{indent}{line}"


def _decision(document: Mapping[str, Any]) -> Iterator[str]:
    from orchestratord import rough_duration

    decision = document["decision"]
    if decision["outcome"] == "succeeded":
        yield "  succeeded"
    elif decision["outcome"] == "retry":
        code = document["status_code"]
        why = f": retry.when covers {code}" if decision["covered"] else ": it can be repeated"
        if document["expressions"] and not decision["covered"]:
            why = ""  # the error names the expression
        yield from _wrapped("  ", [f"{document['error']}{why}, so it is tried again"])
        yield f"  in {rough_duration(decision['delay'])}{_range(decision)}: {decision['why']}"
    else:
        said = f"{document['error']}: " if document["error"] else ""
        yield from _wrapped("  ", [f"{said}it failed for good, {decision['reason']}"])
        if decision["why"] != decision["reason"]:
            yield from _wrapped("  ", [decision["why"]])
    after = list(document["hooks"])[-1]
    plugins = document["hooks"][after]
    if plugins and after in document["reached"]:
        yield from _wrapped("  ", [f"{_and(plugins)} may decide otherwise ({after})."])


def _range(decision: Mapping[str, Any]) -> str:
    from orchestratord import rough_duration

    if decision["shortest"] == decision["longest"]:
        return ""
    return f" ({rough_duration(decision['shortest'], decision['longest'])} with jitter)"


def _consequences(document: Mapping[str, Any]) -> Iterator[str]:
    phases = document["phases"]
    yield f"What follows in {_and(phases)}"
    unreached = [phase for phase in phases if phase not in document["reached"]]
    if unreached:
        reached = f"this goes through {_and(document['reached'])}"
        yield from _wrapped("  ", [f"{_and(unreached)} is not reached: {reached}."])
    items = document["consequences"]
    if not items:
        yield "  nothing"
    happening = [item for item in items if item["happens"]]
    shown: Counter[tuple[str, str]] = Counter()
    for item in [*happening, *(item for item in items if not item["happens"])]:
        named = item["kind"], item["name"]
        shown[named] += 1
        if shown[named] > _ALIKE:
            continue
        yes, no = _VERBS.get(item["kind"], _FOLLOWS)
        verb = yes if item["happens"] else no
        yield from _wrapped("  ", [f"{item['kind']} {item['name']} {verb}: {item['why']}"])
        if item["error"] is not None:
            yield from _wrapped("    ", [f"it will fail: {item['error']}"])
        if item["request"] is not None:
            yield from _sent(item["request"], "    ")
            if item["partition"] is not None:
                yield from _wrapped("    ", [f"in the partition {item['partition']!r}"])
            yield ""
    for (kind, name), count in shown.items():
        if count > _ALIKE:
            yield f"  and {count - _ALIKE} more of {kind} {name}"


def _wrapped(indent: str, texts: list[str]) -> Iterator[str]:
    for text in texts:
        yield from textwrap.wrap(
            text, _WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent)
        )


def _and(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
