"""The command itself, which imports the rest only when it is used."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

import click

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
    from pathlib import Path

    from orchestratord.cli.demo.play import play
    from orchestratord.cli.demo.screen import Screen
    from orchestratord.cli.example import find_example

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    folder = Path(config) if config else find_example()
    try:
        code = play(folder, Screen(sys.stdout), keep=keep)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    raise SystemExit(code)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
