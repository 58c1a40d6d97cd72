"""`orchestratord explain`: what an attempt would send, and what would follow from its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestratord.cli import completion
from orchestratord.cli.options import config_option

if TYPE_CHECKING:
    from orchestratord.model.endpoint import Endpoint
    from orchestratord.model.test_case import FakeAnswer


@click.command()
@config_option
@click.argument("endpoint", metavar="ENDPOINT", shell_complete=completion.endpoints)
@click.option(
    "--phase",
    metavar="PHASE",
    help="What follows from this phase alone.",
    shell_complete=completion.phases,
)
@click.option("--status-code", metavar="CODE", help="The answer: a number, or error for none.")
@click.option("--body", metavar="TEXT|@FILE", help="The body of the answer; @- for stdin.")
@click.option(
    "--error",
    metavar="KIND",
    help="In which way no answer comes, such as connect.",
    shell_complete=completion.errors,
)
@click.option(
    "--attempt",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Which attempt it is.",
)
@click.option(
    "-p",
    "text_params",
    metavar="KEY=VALUE",
    multiple=True,
    help="A parameter; its text becomes what the endpoint declares.",
)
@click.option("--params", metavar="JSON|@FILE", help="Parameters as a JSON object; @- stdin.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How it is written to stdout.",
)
def explain(
    config: str | None,
    endpoint: str,
    phase: str | None,
    status_code: str | None,
    body: str | None,
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
    import json

    from orchestratord.cli.explain_text import explain_text
    from orchestratord.cli.opened import opened
    from orchestratord.errors import Conflict
    from orchestratord.simulate.explain import Explainer
    from orchestratord.simulate.report import report_json
    from orchestratord.values.clock import Clock

    answer = _answer(status_code, error, _body(body))
    _check_phase(phase, answer)
    open_ = opened(config)
    declared = open_.endpoint(endpoint)
    values = _params(declared, text_params, params)
    explainer = Explainer(open_.host, open_.config, Clock())
    try:
        report = asyncio.run(
            explainer.explain(declared, values, attempt=attempt, answer=answer, phase=phase)
        )
    except Conflict as conflict:
        raise click.ClickException(f"{endpoint}: {conflict}") from None
    document = report_json(report, open_.config.redactor)
    if output == "json":
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(explain_text(document))


def _answer(status_code: str | None, error: str | None, body: str | None) -> FakeAnswer | None:
    """The answer that is supposed to come. Raises UsageError."""
    from orchestratord.model.test_case import ERRORS, FakeAnswer, parse_code
    from orchestratord.values.suggest import suggest

    if error is not None and error not in ERRORS:
        raise click.UsageError(f"--error: unknown kind {error!r}{suggest(error, ERRORS)}")
    if status_code is None:
        if body is not None:
            raise click.UsageError("--body is that of an answer: say which with --status-code")
        return None if error is None else FakeAnswer.model_validate({"error": error})
    try:
        code = parse_code(status_code)
    except ValueError as wrong:
        raise click.UsageError(f"--status-code: {wrong}") from None
    if error is not None and code != "error":
        raise click.UsageError(f"--error says that no answer comes, --status-code that {code} does")
    if body is not None and (error or code == "error"):
        raise click.UsageError("--body is that of an answer, and there is none")
    given = {"error": error} if error else {"status_code": code, "body": body}
    return FakeAnswer.model_validate(given)


def _check_phase(phase: str | None, answer: FakeAnswer | None) -> None:
    from orchestratord.plugin.hookspecs import PHASES
    from orchestratord.values.suggest import suggest

    if phase is None:
        return
    if phase not in PHASES:
        raise click.UsageError(f"--phase: unknown phase {phase!r}{suggest(phase, PHASES)}")
    if answer is None and not phase.startswith("before_"):
        raise click.UsageError(f"{phase} comes after an answer: say which with --status-code")


def _params(endpoint: Endpoint, texts: tuple[str, ...], document: str | None) -> dict[str, Any]:
    """The parameters of the call, defaults filled in. Raises UsageError."""
    from orchestratord.config.params import check_params
    from orchestratord.errors import InvalidParams

    text: dict[str, str] = {}
    for pair in texts:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.UsageError(f"-p {pair}: write KEY=VALUE")
        if name in text:
            raise click.UsageError(f"-p {name}: is given twice")
        text[name] = value
    given = _object(document) if document is not None else {}
    if twice := given.keys() & text.keys():
        raise click.UsageError(f"{', '.join(sorted(twice))}: is given twice")
    try:
        return check_params(endpoint, given, text=text)
    except InvalidParams as invalid:
        lines = [f"-p {name}: {message}" for name, message in invalid.problems.items()]
        raise click.UsageError("\n".join(lines)) from None


def _object(text: str) -> dict[str, Any]:
    """The JSON object of `--params`. Raises UsageError."""
    import json

    try:
        value = json.loads(_content(text))
    except (OSError, ValueError, RecursionError) as error:
        raise click.UsageError(f"--params: {error}") from None
    if not isinstance(value, dict):
        raise click.UsageError('--params: expected a JSON object, such as {"id": 7}')
    return value


def _body(text: str | None) -> str | None:
    """What `--body` names. Raises UsageError."""
    try:
        return text if text is None else _content(text)
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--body: {error}") from None


def _content(text: str) -> str:
    """A text as it is given, `@FILE` or `@-` for stdin. Raises OSError and ValueError."""
    import sys
    from pathlib import Path

    if text == "@-":
        return sys.stdin.read()
    return Path(text[1:]).read_text() if text.startswith("@") else text
