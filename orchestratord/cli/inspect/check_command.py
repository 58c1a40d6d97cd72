"""`orchestratord check`: is the configuration good?"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestratorctl.formats import excerpt
from orchestratord.cli.options import (
    BAD_CONFIG,
    config_option,
    counted,
    folder_of,
    output_option,
    pretend_secrets_option,
    summary,
)

if TYPE_CHECKING:
    from orchestratord.errors import Problem
    from orchestratord.model.settings import Config

_COLOURS = {"error": "red", "warning": "yellow", "source": None, "caret": "green", "hint": "cyan"}


@click.command()
@config_option
@pretend_secrets_option
@output_option(
    "text",
    "json",
    "github",
    about="The format of the output; github makes annotations in GitHub Actions.",
)
def check(config: str | None, pretend_secrets: bool, output: str) -> None:
    """Read the whole configuration and report every error in it.

    Exits with 0, or with 78 and all errors on stderr. Nothing is called or written.
    """
    from orchestratord.cli.inspect.plugin_check import ask_once, plugin_faults
    from orchestratord.cli.opened_config import config_of, host_of
    from orchestratord.errors import ConfigError

    folder = folder_of(config)
    loaded: Config | None = None
    problems: list[Problem] = []
    with plugin_faults(folder) as faults:
        try:
            host = host_of(folder)
            loaded = config_of(folder, host, pretend_secrets=pretend_secrets)
            problems = [*loaded.warnings]
            ask_once(host, loaded)
        except ConfigError as error:
            problems = [*error.problems]
    if loaded is not None and faults.problems:
        loaded = None
        problems += faults.problems
    problems += _changeable(folder)
    problems.sort(key=lambda problem: problem.severity == "warning")
    _complain(problems)
    if output == "json":
        document: dict[str, Any] = {
            "ok": loaded is not None,
            "problems": [
                {
                    key: value
                    for key, value in asdict(problem).items()
                    if key not in ("offset", "own", "unread")
                }
                for problem in problems
            ],
        }
        if loaded is not None:
            document |= {"apis": len(loaded.apis), "endpoints": len(loaded.endpoints)}
        click.echo(json.dumps(document, indent=2))
    elif output == "github":
        for problem in problems:
            click.echo(_annotation(problem, folder))
    elif loaded is not None:
        warnings = f"; {counted(len(problems), 'warning')}" if problems else ""
        click.echo(summary(loaded) + warnings)
    if loaded is None:
        errors = sum(1 for problem in problems if problem.severity == "error")
        click.echo(f"{counted(errors, 'error')}", err=True)
    raise SystemExit(0 if loaded is not None else BAD_CONFIG)


def _changeable(folder: Path) -> Iterator[Problem]:
    """A warning for each file and folder that other users of this machine may change."""
    from orchestratord.cli.file_modes import changed_by_others
    from orchestratord.config.load import read_plugins
    from orchestratord.errors import ConfigError, Problem

    try:
        dirs = read_plugins(folder).dirs
    except ConfigError:
        dirs = ()  # the file that names them has errors, which are shown
    for path in changed_by_others(folder, dirs):
        name = str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
        message = f"every user can change it; chmod o-w {path}"
        yield Problem(message, file=name, severity="warning")


def _complain(problems: Iterable[Problem]) -> None:
    """Each problem on stderr: first the line that editors read, then where and what to do."""
    from orchestratord.log import escape

    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")

    def say(text: str, colour_: str | None = None, *, bold: bool = False) -> None:
        click.echo(click.style(text, colour_, bold=bold) if colour else text, err=True)

    for problem in problems:
        prefix = "warning: " if problem.severity == "warning" else ""
        say(prefix + escape(str(problem)), _COLOURS[problem.severity], bold=True)
        found = excerpt(problem.source, problem.line, problem.column, problem.hint)
        for kind, line in found:
            say(line, _COLOURS[kind])


def _annotation(problem: Problem, folder: Path) -> str:
    """A workflow command that GitHub shows beside the line of the file in a pull request."""
    properties = {}
    if problem.file:
        # GitHub knows a file by its path in the checkout, where such a step runs.
        path = os.path.relpath(folder / problem.file)
        properties["file"] = str(folder / problem.file) if path.startswith("..") else path
    if problem.line is not None:
        properties |= {"line": str(problem.line), "col": str(problem.column or 1)}
    if problem.key:
        properties["title"] = problem.key
    given = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in properties.items())
    message = f"{problem.key}: {problem.message}" if problem.key else problem.message
    if problem.hint:
        message += f"\n{problem.hint}"
    return f"::{problem.severity}{' ' if given else ''}{given}::{_escaped(message)}"


def _escaped(text: str, more: str = "") -> str:
    """A text of a workflow command; `more` are characters that mean something where it stands."""
    return "".join(f"%{ord(c):02X}" if c in f"%\r\n{more}" else c for c in text)
