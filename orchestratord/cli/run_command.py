"""`orchestratord run`: the daemon, in the foreground."""

from __future__ import annotations

import click

from orchestratord.cli.options import config_option, folder_of


@click.command()
@config_option
def run(config: str | None) -> None:
    """Run the daemon in the foreground.

    HUP reloads the configuration; TERM and INT let it drain, a second one aborts.
    """
    from orchestratord.daemon.daemon import run as run_daemon

    raise SystemExit(run_daemon(folder_of(config)))
