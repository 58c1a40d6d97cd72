"""What the commands have in common: `--config`, and how a bad configuration ends them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from orchestratord.errors import Problem

BAD_CONFIG = 78
"""EX_CONFIG of sysexits.h; systemd does not restart the daemon after it."""

config_option = click.option(
    "--config",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="The config folder; else $ORCHESTRATORD_CONFIG, $CONFIGURATION_DIRECTORY or "
    "/etc/orchestratord.",
)


def folder_of(option: str | None) -> Path:
    """The config folder that `--config` or the environment names."""
    from orchestratord.config.folder import config_folder

    return config_folder(option)


def complain(problems: Iterable[Problem]) -> None:
    """Write each problem as one line to stderr, errors as an editor reads them."""
    from orchestratord.log import escape

    for problem in problems:
        prefix = "warning: " if problem.severity == "warning" else ""
        click.echo(prefix + escape(str(problem)), err=True)
