"""`orchestratord config show`: what an endpoint is, and where each value was written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestratord.cli import completion
from orchestratord.cli.options import config_option

if TYPE_CHECKING:
    from orchestratord.config.show.origins import Traced

DEFAULT = "default"


@click.group()
def config() -> None:
    """Look into the configuration."""


@config.command()
@config_option
@click.argument("endpoint", metavar="ENDPOINT", shell_complete=completion.endpoints)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="How it is written to stdout.",
)
def show(config: str | None, endpoint: str, output: str) -> None:
    """Show an endpoint as it is after merging, each value with its file and line.

    What nobody wrote is the default, and says so. Secrets are masked.
    """
    import json

    from orchestratord.cli.annotated import annotated
    from orchestratord.cli.opened import opened
    from orchestratord.config.show.origins import Origins, trace

    open_ = opened(config)
    declared = open_.endpoint(endpoint)
    registry = open_.host.registry
    origins = Origins(open_.folder, declared, registry)
    traced = trace(declared, origins, registry, open_.config.redactor)
    if output == "yaml":
        click.echo(f"# {declared.id}, {declared.source}")
        click.echo(annotated(traced, _place))
        return
    places: dict[str, str] = {}
    for key, item in traced.items():
        _collect(item, key, places)
    document = {
        "endpoint": declared.id,
        "source": declared.source,
        "values": {key: _plain(item) for key, item in traced.items()},
        "origins": places,
    }
    click.echo(json.dumps(document, indent=2))


def _place(item: Traced) -> str:
    return f"{item.origin.file}:{item.origin.line}" if item.origin else DEFAULT


def _plain(item: Traced) -> Any:
    if isinstance(item.value, dict):
        return {key: _plain(child) for key, child in item.value.items()}
    if isinstance(item.value, list):
        return [_plain(child) for child in item.value]
    return item.value


def _collect(item: Traced, path: str, places: dict[str, str]) -> None:
    """The place of each value that is not made of others, by its dotted path."""
    if isinstance(item.value, dict) and item.value:
        for key, child in item.value.items():
            _collect(child, f"{path}.{key}", places)
    elif isinstance(item.value, list) and item.value:
        for index, child in enumerate(item.value):
            _collect(child, f"{path}.{index}", places)
    else:
        places[path] = _place(item)
