"""`orchestratord demo`: the example configuration at work."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

import orchestratord

_INTERRUPTED = 130


@click.command()
@click.option(
    "--config",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="An edited copy of the example configuration, to be run instead of it.",
)
@click.option("--keep", is_flag=True, help="Go on after the story, until Ctrl-C.")
def demo(config: str | None, keep: bool) -> None:
    """Show a daemon at work, for half a minute.

    Runs the example configuration in a temporary folder, with a receiver of its own on this
    machine: calls fail, wait, are retried and succeed, and webhooks arrive. Exits with 0 if
    everything that it promises happened.
    """
    from orchestratord_demo.player import DemoScreen, play

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    folder = Path(config) if config else _example()
    try:
        code = play(folder, DemoScreen(), keep=keep)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    raise SystemExit(code)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _example() -> Path:
    """The example configuration: in the package, or beside it in a clone."""
    package = Path(orchestratord.__file__).parent
    for folder in (package / "example", package.parent / "config"):
        if (folder / "orchestratord.yaml").is_file():
            return folder
    raise click.ClickException("the example configuration is not installed")
