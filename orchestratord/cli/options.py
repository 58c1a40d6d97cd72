"""What the commands have in common: their options, and how a bad configuration ends them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from orchestratord.errors import Problem
    from orchestratord.model.settings import Config

BAD_CONFIG = 78
"""EX_CONFIG of sysexits.h; systemd does not restart the daemon after it."""

config_option = click.option(
    "--config",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="The config folder; else $ORCHESTRATORD_CONFIG, $CONFIGURATION_DIRECTORY or "
    "/etc/orchestratord.",
)


pretend_secrets_option = click.option(
    "--pretend-secrets",
    is_flag=True,
    help="Accept secrets that are not on this machine, to check a pull request.",
)


def output_option(*formats: str, about: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option `--output` with these formats, of which the first is the default."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        help=about,
    )


def folder_of(option: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The folder to read: `option` (--config), else the environment's, else /etc/orchestratord."""
    for candidate in (
        option,
        environ.get("ORCHESTRATORD_CONFIG"),
        # systemd gives a list where a unit has several ConfigurationDirectory=.
        (environ.get("CONFIGURATION_DIRECTORY") or "").split(":")[0],
    ):
        if candidate:
            return Path(candidate).absolute()
    return Path("/etc/orchestratord")


def complain(problems: Iterable[Problem]) -> None:
    """Write each problem as one line to stderr, errors as an editor reads them."""
    from orchestratord.log import escape

    for problem in problems:
        prefix = "warning: " if problem.severity == "warning" else ""
        click.echo(prefix + escape(str(problem)), err=True)


@contextmanager
def bad_config_ends() -> Iterator[None]:
    """A ConfigError ends the command: its errors go to stderr, the exit code is 78."""
    from orchestratord.errors import ConfigError

    try:
        yield
    except ConfigError as error:
        complain(error.problems)
        raise SystemExit(BAD_CONFIG) from None


def unwritable(path: Path, error: OSError) -> click.ClickException:
    """What to raise where `path` cannot be written."""
    return click.ClickException(f"{path} cannot be written: {error.strerror or error}")


def counted(count: int, noun: str) -> str:
    """`1 folder`, `2 folders`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def summary(config: Config) -> str:
    """`config is good: 1 API, 2 endpoints`."""
    apis, endpoints = counted(len(config.apis), "API"), counted(len(config.endpoints), "endpoint")
    return f"{config.folder} is good: {apis}, {endpoints}"
