"""`orchestratord move-queue`: from a file of SQLite to a PostgreSQL that daemons share."""

from __future__ import annotations

import click

from orchestratord.cli.options import config_option


@click.command("move-queue")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@config_option
def move_queue(source: str, target: str, config: str | None) -> None:
    """Move a queue from SQLite to PostgreSQL.

    FROM is sqlite:////path, TO is postgresql://…

    No daemon may run on FROM, and TO has to be empty. A move that was broken off is taken up again
    where it was by the same command; nothing is moved twice. Afterwards FROM is kept, and no daemon
    opens it any more. The tables of plugins are moved for those that the config folder has loaded.

    A password need not stand on the command line: libpq reads $PGPASSWORD and ~/.pgpass as well.
    """
    from orchestratord.cli.opened_config import opened_host
    from orchestratord.errors import QueueError
    from orchestratord.queue.admin.move import move

    host = opened_host(config)

    def moved(table: str, done: int, of: int) -> None:
        click.echo(f"{table}: {done:,} of {of:,}", err=True)

    try:
        tasks = move(source, target, tuple(host.registry.tables.values()), moved)
    except QueueError as error:
        click.echo(f"not moved: {error}", err=True)
        raise SystemExit(1) from None
    click.echo(f"{tasks:,} tasks are moved; set `database` to the new one")
