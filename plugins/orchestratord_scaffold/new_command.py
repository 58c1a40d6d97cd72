"""`orchestratord new`: an endpoint, or a plugin, to begin with."""

from __future__ import annotations

from pathlib import Path

import click

from orchestratord import config_option


@click.group()
def new() -> None:
    """Write an endpoint, or a plugin, to begin with."""


@new.command()
@config_option
@click.argument("endpoint_id", metavar="API/NAME")
@click.option(
    "--method",
    type=click.Choice(["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"], False),
    default="GET",
    show_default=True,
    help="The method of its requests; POST, PUT and PATCH have a body.",
)
@click.option("--sql", is_flag=True, help="A statement on a database, instead of a request.")
@click.option("--event", is_flag=True, help="An event, for all its webhooks.")
def endpoint(config: str | None, endpoint_id: str, method: str, sql: bool, event: bool) -> None:
    """Write the file of a new endpoint, and the api.yaml of an API that is new.

    They hold the keys that one needs, and others in comments. An endpoint that is there already is
    left alone.
    """
    from orchestratord_scaffold.new_endpoint import write_endpoint

    if sql and event:
        raise click.UsageError("give one of --sql and --event")
    write_endpoint(config, endpoint_id, None if sql or event else method, event=event)


@new.command()
@config_option
@click.argument("name", metavar="NAME")
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(file_okay=False))
def plugin(config: str | None, name: str, folder: str | None) -> None:
    """Write a package with a plugin that works, and its test.

    NAME is what orchestratord calls it; the package is named orchestratord-NAME, and so is its
    folder where DIR is left out. A name that a plugin of the config folder has is refused.
    """
    from orchestratord_scaffold.new_plugin import write_plugin

    write_plugin(config, name, Path(folder) if folder else None)
