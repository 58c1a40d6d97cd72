"""The command `orchestratord`."""

from __future__ import annotations

import sys

import click

from orchestratord.cli.commands import PLACES, Commands


@click.group(
    commands=Commands(PLACES),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="orchestratord", prog_name="orchestratord")
def main() -> None:
    """Calls the APIs that YAML files declare, retries what fails, and sends webhooks.

    A running daemon is spoken to with orchestratorctl.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # What a narrow encoding cannot write is escaped rather than an error.
            stream.reconfigure(errors="backslashreplace")
