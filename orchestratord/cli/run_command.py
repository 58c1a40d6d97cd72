"""`orchestratord run`: the daemon, in the foreground."""

from __future__ import annotations

import click

from orchestratord.cli.options import config_option, folder_of


@click.command()
@config_option
@click.option(
    "--accept-removals",
    is_flag=True,
    help="Start without most of the endpoints that tasks wait for; those tasks fail.",
)
@click.option("--examine", is_flag=True, hidden=True, help="Only say which version this is.")
def run(config: str | None, accept_removals: bool, examine: bool) -> None:
    """Run the daemon in the foreground.

    HUP reloads the configuration; TERM and INT let it drain, a second one aborts.
    """
    from orchestratord.daemon.orphans import reap_orphans
    from orchestratord.daemon.quick_imports import quick_imports

    reap_orphans()
    with quick_imports():
        from orchestratord.daemon import run as daemon_run

    if examine:
        raise SystemExit(daemon_run.examine(folder_of(config)))
    raise SystemExit(daemon_run.run(folder_of(config), accept_removals=accept_removals))
