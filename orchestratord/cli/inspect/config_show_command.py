"""`orchestratord config show`: what an endpoint is, and where each value was written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from orchestratord.cli import argument_completion
from orchestratord.cli.options import config_option, output_option

if TYPE_CHECKING:
    from orchestratord.config.show.origins import Traced

DEFAULT = "default"

_COMMENTS_AT = 48
"""The column of comments, unless a value is longer."""

_Comment = Callable[["Traced"], str]
_Line = tuple[str, str | None]
"""A line of YAML, and the comment behind it."""


@click.group()
def config() -> None:
    """Look into the configuration."""


@config.command()
@config_option
@click.argument("endpoint", metavar="ENDPOINT", shell_complete=argument_completion.endpoints)
@output_option("yaml", "json", about="How it is written to stdout.")
def show(config: str | None, endpoint: str, output: str) -> None:
    """Show an endpoint as it is after merging, each value with its file and line.

    A value that is not written is the default, and marked so. Secrets are masked.
    """
    from orchestratord.cli.opened_config import opened_config
    from orchestratord.config.show.origins import Origins, trace

    open_ = opened_config(config)
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


def annotated(traced: Mapping[str, Traced], comment: _Comment) -> str:
    """The YAML of a mapping with a comment behind each value, without an end of line at its end."""
    lines: list[str] = []
    for line, origin in _mapping(traced, "", comment):
        text = f"{line.ljust(_COMMENTS_AT)}  # {origin}" if origin else line
        lines.append(text)
    return "\n".join(lines)


def _mapping(items: Mapping[str, Traced], indent: str, comment: _Comment) -> Iterator[_Line]:
    from orchestratord.config.edit.render_yaml import flow

    for key, item in items.items():
        yield from _entry(f"{indent}{flow(key)}:", f"{indent}  ", item, comment)


def _entry(head: str, indent: str, item: Traced, comment: _Comment) -> Iterator[_Line]:
    """What stands behind `head`, and below it with `indent`."""
    from orchestratord.config.edit.render_yaml import flow

    value = item.value
    if isinstance(value, dict) and value:
        yield head, None
        yield from _mapping(value, indent, comment)
    elif isinstance(value, list) and value:
        words = [flow(child.value) for child in value if not _nested(child)]
        if len(words) == len(value) and len({comment(child) for child in value}) == 1:
            yield f"{head} [{', '.join(words)}]", comment(value[0])
            return
        yield head, None
        for child in value:
            yield from _item(indent, child, comment)
    else:
        yield f"{head} {flow(item.value)}", comment(item)


def _item(indent: str, item: Traced, comment: _Comment) -> Iterator[_Line]:
    """An item of a list: its first line begins with a dash."""
    from orchestratord.config.edit.render_yaml import flow

    if not _nested(item):
        yield f"{indent}- {flow(item.value)}", comment(item)
        return
    inner = f"{indent}  "
    if isinstance(item.value, dict):
        lines = _mapping(item.value, inner, comment)
    else:
        assert isinstance(item.value, list)
        lines = (line for child in item.value for line in _item(inner, child, comment))
    for number, (line, origin) in enumerate(lines):
        yield (f"{indent}- {line[len(inner) :]}" if number == 0 else line), origin


def _nested(item: Traced) -> bool:
    return isinstance(item.value, dict | list) and bool(item.value)
