"""The command itself, which imports the rest only when it is used."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from orchestratord.cli.options import config_option, folder_of

if TYPE_CHECKING:
    from orchestratord.cli.doctor.case import Case
    from orchestratord.cli.doctor.finding import Finding, Findings

_INDENT = len("warn  open files  ")
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@config_option
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How the findings are written to stdout.",
)
def doctor(config: str | None, output: str) -> None:
    """Look for what is wrong with the daemon and on this machine.

    Configuration, files, plugins, certificates, the queue's database, disk, the databases of
    endpoints, control socket, API over TCP, clock and limits: each line says ok, warn or fail, what
    is so, and what to do. Exits with 1 if something fails. Nothing is changed, and nothing is sent
    but a question to the daemon and to the databases.
    """
    from orchestratord.cli.doctor.case import open_case

    case = open_case(folder_of(config))
    found = list(_look(case))
    failed = any(finding.status == "fail" for _, finding in found)
    if output == "json":
        rows = [{"check": about, **asdict(finding)} for about, finding in found]
        click.echo(json.dumps({"ok": not failed, "findings": rows}, indent=2))
    else:
        for about, finding in found:
            _print(about, finding)
    raise SystemExit(1 if failed else 0)


def _look(case: Case) -> Iterator[tuple[str, Finding]]:
    from orchestratord.cli.doctor import (
        certificates,
        configuration,
        control,
        database,
        machine,
        needs,
    )
    from orchestratord.cli.doctor.finding import fail

    checks: dict[str, Callable[[Case], Findings]] = {
        "program": machine.check_program,
        "config": configuration.check_config,
        "files": configuration.check_files,
        "plugins": configuration.check_plugins,
        "certs": certificates.check_certificates,
        "database": database.check_database,
        "disk": database.check_disk,
        "needs": needs.check_needs,
        "socket": control.check_socket,
        "http": control.check_http,
        "daemon": control.check_daemon,
        "clock": machine.check_clock,
        "open files": machine.check_files_limit,
        "inotify": machine.check_inotify,
    }
    for about, check in checks.items():
        try:
            for finding in check(case):
                yield about, finding
        except Exception as error:  # one that cannot be made does not keep the others
            yield about, fail(f"cannot be looked at: {error}", "look at it by hand")


def _print(about: str, finding: Finding) -> None:
    from orchestratord.log import escape

    colour = None if os.environ.get("NO_COLOR") else _COLOURS[finding.status]
    first, *rest = _lines(escape(finding.what))
    click.echo(f"{click.style(finding.status.ljust(4), fg=colour)}  {about:<10}  {first}")
    remedy = _lines(escape(finding.remedy)) if finding.remedy else []
    for line in rest + [("  " if number else "→ ") + text for number, text in enumerate(remedy)]:
        click.echo(" " * _INDENT + line)


def _lines(text: str) -> list[str]:
    """As wide as the terminal; where nobody counts, as in a pipe, a finding stays on its line."""
    if not sys.stdout.isatty():
        return [text]
    room = max(shutil.get_terminal_size().columns - _INDENT - 2, 30)
    return textwrap.wrap(text, room, break_on_hyphens=False) or [""]
