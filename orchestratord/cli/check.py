"""`orchestratord check`: is the configuration good?"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from orchestratord.cli.options import BAD_CONFIG, complain, config_option, folder_of

if TYPE_CHECKING:
    from orchestratord.settings import Config


@click.command()
@config_option
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How the result is written to stdout.",
)
def check(config: str | None, output: str) -> None:
    """Read the whole configuration and report every error in it.

    Exits with 0, or with 78 and all errors on stderr. Nothing is called or written.
    """
    from orchestratord.cli.loading import load
    from orchestratord.errors import ConfigError

    try:
        loaded, problems = load(folder_of(config))
    except ConfigError as error:
        loaded, problems = None, list(error.problems)
    problems.sort(key=lambda problem: problem.severity == "warning")
    complain(problems)
    if output == "json":
        document: dict[str, Any] = {
            "ok": loaded is not None,
            "problems": [asdict(problem) for problem in problems],
        }
        if loaded is not None:
            document |= _counts(loaded)
        click.echo(json.dumps(document, indent=2))
    elif loaded is not None:
        counts = _counts(loaded)
        apis, endpoints = counts["apis"], counts["endpoints"]
        click.echo(
            f"{loaded.folder} is good: {_many(apis, 'API')}, {_many(endpoints, 'endpoint')}"
            + (f"; {_many(len(problems), 'warning')}" if problems else "")
        )
    else:
        errors = sum(1 for problem in problems if problem.severity == "error")
        click.echo(f"{_many(errors, 'error')}", err=True)
    raise SystemExit(0 if loaded is not None else BAD_CONFIG)


def _counts(config: Config) -> dict[str, int]:
    return {"apis": len(config.apis), "endpoints": len(config.endpoints)}


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
