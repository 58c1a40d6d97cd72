"""`orchestratord config show`: what an endpoint or the daemon is set to, and where that stands."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from orchestratord.cli.argument_completion import complete_endpoints
from orchestratord.cli.options import config_option, output_option

if TYPE_CHECKING:
    from orchestratord.cli.opened_config import OpenedConfig
    from orchestratord.config.show.origins import Traced

DEFAULT = "default"

_COMMENTS_AT = 48
"""The column of comments, unless a value is longer."""

_Line = tuple[str, str | None]
"""A line of YAML, and the comment behind it."""


@click.group()
def config() -> None:
    """Show values after merging, with their places."""


@config.command()
@config_option
@click.argument("endpoint", metavar="[ENDPOINT]", required=False, shell_complete=complete_endpoints)
@output_option("yaml", "json", about="The format of the output.")
def show(config: str | None, endpoint: str | None, output: str) -> None:
    """Show an endpoint after merging, or the settings.

    Each value stands with its file and line. One that is not written is the default, and marked so.
    Secrets are masked.
    """
    from orchestratord.cli.opened_config import opened_config
    from orchestratord.config.show.origins import trace

    open_ = opened_config(config)
    registry = open_.host.registry
    about: dict[str, Any]
    if endpoint is None:
        about = {"source": "orchestratord.yaml"}
        traced = _daemon(open_)
    else:
        declared = open_.endpoint(endpoint)
        about = {"endpoint": declared.id, "source": declared.source}
        traced = trace(open_.folder, declared, registry, open_.config.redactor)
    if output == "yaml":
        click.echo(f"# {', '.join(about.values())}")
        click.echo(annotated(traced))
        return
    places: dict[str, str] = {}
    for key, item in traced.items():
        _collect(item, key, places)
    values = {key: _plain(item) for key, item in traced.items()}
    click.echo(json.dumps({**about, "values": values, "origins": places}, indent=2))


def _daemon(open_: OpenedConfig) -> dict[str, Traced]:
    """The daemon's settings, and where the database and the socket are if nothing says so."""
    import os

    from orchestratord.config.database_url import database_url
    from orchestratord.config.show.origins import Traced, trace_daemon
    from orchestratord.config.validate.socket_path import socket_path

    config, folder = open_.config, open_.folder
    socket = socket_path(config.daemon.control_socket, folder, os.environ)
    url = database_url(config.daemon.database, folder, os.environ)
    usual = {"database": url, "control_socket": str(socket)}
    placed = {key: Traced(config.redactor.text(value)) for key, value in usual.items()}
    return {**placed, **trace_daemon(config, open_.host.registry)}


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
    if isinstance(item.value, dict | list) and item.value:
        children = item.value.items() if isinstance(item.value, dict) else enumerate(item.value)
        for key, child in children:
            _collect(child, f"{path}.{key}", places)
    else:
        places[path] = _place(item)


def annotated(traced: Mapping[str, Traced]) -> str:
    """The YAML of a mapping with a comment behind each value, without an end of line at its end."""
    return "\n".join(
        f"{line.ljust(_COMMENTS_AT)}  # {origin}" if origin else line
        for line, origin in _mapping(traced, "")
    )


def _mapping(items: Mapping[str, Traced], indent: str) -> Iterator[_Line]:
    from orchestratord.config.yaml.flow_yaml import flow

    for key, item in items.items():
        yield from _entry(f"{indent}{flow(key)}:", f"{indent}  ", item)


def _entry(head: str, indent: str, item: Traced) -> Iterator[_Line]:
    """What stands behind `head`, and below it with `indent`."""
    from orchestratord.config.yaml.flow_yaml import flow

    value = item.value
    if isinstance(value, dict) and value:
        yield head, None
        yield from _mapping(value, indent)
    elif isinstance(value, list) and value:
        words = [flow(child.value) for child in value if not _nested(child)]
        if len(words) == len(value) and len({_place(child) for child in value}) == 1:
            yield f"{head} [{', '.join(words)}]", _place(value[0])
            return
        yield head, None
        for child in value:
            yield from _item(indent, child)
    else:
        yield f"{head} {flow(item.value)}", _place(item)


def _item(indent: str, item: Traced) -> Iterator[_Line]:
    """An item of a list: its first line begins with a dash."""
    from orchestratord.config.yaml.flow_yaml import flow

    if not _nested(item):
        yield f"{indent}- {flow(item.value)}", _place(item)
        return
    inner = f"{indent}  "
    if isinstance(item.value, dict):
        lines = _mapping(item.value, inner)
    else:
        assert isinstance(item.value, list)
        lines = (line for child in item.value for line in _item(inner, child))
    for number, (line, origin) in enumerate(lines):
        yield (f"{indent}- {line[len(inner) :]}" if number == 0 else line), origin


def _nested(item: Traced) -> bool:
    return isinstance(item.value, dict | list) and bool(item.value)
