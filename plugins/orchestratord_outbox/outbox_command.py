"""`orchestratord outbox schema` and `orchestratord grant-producer`: the outbox, for a database."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from orchestratord import config_option
from orchestratord_outbox import outbox_schema

if TYPE_CHECKING:
    from orchestratord_outbox.declaration import Outbox

_schema_option = click.option(
    "--schema",
    default="public",
    show_default=True,
    metavar="NAME",
    help="The schema of PostgreSQL that the outbox is in.",
)
_apply_option = click.option(
    "--apply",
    is_flag=True,
    help="Run the statements in the database that the configuration names, instead of printing.",
)


@click.group()
def outbox() -> None:
    """Make the table for calls that applications commit."""


@outbox.command()
@_schema_option
@click.option(
    "--notify",
    is_flag=True,
    help="With a trigger that wakes the relay: sooner, and one more lock for each commit.",
)
@_apply_option
@config_option
def schema(schema: str, notify: bool, apply: bool, config: str | None) -> None:
    """Print the SQL that makes the outbox in an application's PostgreSQL.

    Where it is there already, it changes nothing. The queue's own PostgreSQL has the outbox from
    the first start on, without the trigger of --notify.
    """
    _say(lambda: outbox_schema.outbox_schema(schema, notify=notify), config, apply)


@click.command()
@click.argument("role")
@_schema_option
@_apply_option
@config_option
def grant_producer(role: str, schema: str, apply: bool, config: str | None) -> None:
    """Print the SQL that lets a role enqueue calls.

    It may call orchestratord_enqueue and orchestratord_enqueue_at, and insert what these insert. It
    sees no row.
    """
    _say(lambda: outbox_schema.grant_producer(role, schema), config, apply)


def _say(statements: Callable[[], str], config: str | None, apply: bool) -> None:
    from orchestratord import OutboxUnusable

    try:
        text = statements()
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if not apply:
        click.echo(text, nl=False)
        return
    found = _place(config)
    from orchestratord_outbox.outbox_connection import run_statements

    try:
        run_statements(found.url, text)
    except OutboxUnusable as error:
        click.echo(f"nothing is changed in {found}: {error}", err=True)
        raise SystemExit(1) from None
    click.echo(f"done in {found}")


def _place(option: str | None) -> Outbox:
    """Where the outbox is by the config folder. Ends the command where there is none."""
    from orchestratord import opened_config, queue_url
    from orchestratord_outbox.declaration import outbox_of

    config = opened_config(option).config
    found = outbox_of(config, queue_url(config))
    if found is None:
        raise click.ClickException(
            "the queue is in a file, which has no outbox: name a PostgreSQL under `databases`, and "
            "write outbox: {database: NAME} in orchestratord.yaml"
        )
    return found
