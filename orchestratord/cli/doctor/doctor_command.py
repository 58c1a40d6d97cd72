"""`orchestratord doctor`: looks for what is wrong, and prints it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

import click

from orchestratord.cli.options import config_option, folder_of, output_option

if TYPE_CHECKING:
    from orchestratord.cli.doctor.installation import Finding, Findings, Installation
    from orchestratord.model.settings import Config
    from orchestratord.plugin.doctor_check import Check

    _DoctorCheck = Callable[[Installation], Findings]

_INDENT = len("warn  open files  ")
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@config_option
@output_option("text", "json", about="The format of the output.")
def doctor(config: str | None, output: str) -> None:
    """Find what is wrong with the daemon or this machine.

    Configuration, files, plugins, certificates, the queue's database, disk, the folders of
    `files`, the databases of endpoints, control socket, API over TCP, endpoints and webhooks that
    fail now, clock and limits: each line says ok, warn or fail, what is so, what to do, and where
    the documentation says more.
    Exits with 1 if something fails.
    Nothing is changed, and nothing is sent but a question to the daemon and to the databases.
    """
    from orchestratord.cli.doctor.installation import look_at

    found = list(_check(look_at(folder_of(config))))
    failed = any(finding.status == "fail" for _, finding in found)
    if output == "json":
        rows = [{"check": about, **asdict(finding)} for about, finding in found]
        click.echo(json.dumps({"ok": not failed, "findings": rows}, indent=2))
    else:
        for about, finding in found:
            _print(about, finding)
    raise SystemExit(1 if failed else 0)


def _check(installed: Installation) -> Iterator[tuple[str, Finding]]:
    from orchestratord.values import doc_links

    for about, check in checks().items():
        yield from _made(about, check, installed, doc_links.finding(about))
    if installed.host is not None and installed.config is not None:
        for plugin, own in installed.host.registry.checks:
            look = partial(_look, own, installed.config)
            yield from _made(own.name, look, installed, doc_links.finding("plugins"), plugin)


def _made(
    about: str, check: _DoctorCheck, installed: Installation, more: str, plugin: str = ""
) -> Iterator[tuple[str, Finding]]:
    from orchestratord.cli.doctor.installation import fail

    try:
        for found in check(installed):
            bare = found.status == "ok" or found.help
            yield about, found if bare else replace(found, help=more)
    except (Exception, SystemExit) as error:  # one that cannot be made does not keep the others
        whose = f" by the plugin {plugin}" if plugin else ""
        text = f"cannot be checked{whose}: {error}"
        yield about, replace(fail(text, "check it manually"), help=more)


def _look(check: Check, config: Config, installed: Installation) -> Findings:
    from orchestratord.cli.doctor.config_checks import findings_of
    from orchestratord.plugin.registry import plain

    return findings_of(plain(check.look(config, installed.status)))


def checks() -> dict[str, _DoctorCheck]:
    """What is looked at, in this order, by the name that each line has."""
    from orchestratord.cli.doctor import (
        config_checks,
        daemon_checks,
        failing_checks,
        folder_checks,
        machine_checks,
        queue_checks,
    )

    return {
        "program": machine_checks.check_program,
        "config": config_checks.check_config,
        "files": config_checks.check_files,
        "plugins": config_checks.check_plugins,
        "certs": config_checks.check_certificates,
        "database": queue_checks.check_database,
        "disk": queue_checks.check_disk,
        "folders": folder_checks.check_folders,
        "needs": config_checks.check_needs,
        "socket": daemon_checks.check_socket,
        "http": daemon_checks.check_http,
        "daemon": daemon_checks.check_daemon,
        "failing": failing_checks.check_failing,
        "clock": machine_checks.check_clock,
        "open files": machine_checks.check_files_limit,
        "inotify": machine_checks.check_inotify,
    }


def _print(about: str, finding: Finding) -> None:
    from orchestratord.log import escape
    from orchestratord.values import doc_links

    colour = None if os.environ.get("NO_COLOR") else _COLOURS[finding.status]
    first, *rest = _lines(escape(finding.what))
    click.echo(f"{click.style(finding.status.ljust(4), fg=colour)}  {about:<10}  {first}")
    remedy = _lines(escape(finding.remedy)) if finding.remedy else []
    for line in rest + [("  " if number else "→ ") + text for number, text in enumerate(remedy)]:
        click.echo(" " * _INDENT + line)
    if finding.help:
        more = doc_links.installed(finding.help)
        click.echo(" " * _INDENT + click.style(more, dim=colour is not None))


def _lines(text: str) -> list[str]:
    """The text in lines that fit beside the status on the terminal."""
    if not sys.stdout.isatty():
        return [text]
    room = max(shutil.get_terminal_size().columns - _INDENT - 2, 30)
    return textwrap.wrap(text, room, break_on_hyphens=False) or [""]
