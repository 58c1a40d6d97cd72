"""Values as YAML, written so that every reader takes them for what they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestratord import flow_yaml, nodes
from orchestratord_editor.item_matching import same

_PLAIN = re.compile(r"[A-Za-z0-9/$_.][A-Za-z0-9/$_.{}@%+=?&~;:\- ]*")
_WORD = re.compile(r"[A-Za-z0-9_.\-]+")
STEP = 2
"""Columns by which what is nested is indented."""
_LINE = 80
"""Columns up to which a list of words stays in one line."""


def list_lines(
    values: Sequence[Any], column: int, before: Sequence[nodes.Node | None] = ()
) -> Iterator[str]:
    """The lines of a list in block style.

    Args:
        values: its items.
        column: of its dashes, from 0.
        before: the nodes that stood there, for numbers and words to stay as they are written.
    """
    pad = " " * column
    for number, value in enumerate(values):
        old = before[number] if number < len(before) else None
        if isinstance(value, Mapping) and value:
            first, *rest = mapping_lines(value, column + 2, old)
            yield f"{pad}- {first.lstrip(' ')}"
            yield from rest
        elif isinstance(value, list) and value:
            yield f"{pad}-"
            yield from list_lines(value, column + STEP, nodes.items_of(old))
        else:
            yield f"{pad}- {scalar(value, old)}"


def mapping_lines(
    values: Mapping[str, Any], column: int, before: nodes.Node | None = None
) -> Iterator[str]:
    """The lines of a mapping; the arguments are those of `list_lines`."""
    entries = before.entries if isinstance(before, nodes.MapNode) else {}
    for key, value in values.items():
        old = entries[key][1] if key in entries else None
        yield from entry_lines(key, value, column, old)


def entry_lines(
    key: str, value: Any, column: int, before: nodes.Node | None = None
) -> Iterator[str]:
    """The lines of one key with its value; the arguments are those of `list_lines`."""
    pad = " " * column
    first, *rest = value_lines(f"{flow_yaml.key_text(key)}:", value, column, before)
    yield pad + first
    yield from rest


def value_lines(
    head: str, value: Any, column: int, before: nodes.Node | None = None
) -> Iterator[str]:
    """The lines of a value behind `head`, its key and colon; the first one is not indented."""
    if isinstance(value, Mapping) and value:
        yield head
        yield from mapping_lines(value, column + STEP, before)
    elif isinstance(value, list) and value:
        old = nodes.items_of(before)
        words = [scalar(item, old[i] if i < len(old) else None) for i, item in enumerate(value)]
        line = f"{head} [{', '.join(words)}]"
        if column + len(line) <= _LINE and all(_WORD.fullmatch(word) for word in words):
            yield line
        else:
            yield head
            yield from list_lines(value, column + STEP, old)
    elif isinstance(value, str) and _is_text_of_lines(value):
        yield f"{head} {'|' if value.endswith(chr(10)) else '|-'}"
        pad = " " * (column + STEP)
        yield from (pad + line if line else "" for line in value.removesuffix("\n").split("\n"))
    else:
        yield f"{head} {scalar(value, before)}"


def scalar(value: Any, before: nodes.Node | None = None) -> str:
    """A value in one line; where `before` holds the same number, as that is written."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(before, nodes.Scalar) and same(before.value, value) and before.text:
        return before.text
    return flow_yaml.json_text(value) if isinstance(value, Mapping | list) else json.dumps(value)


def _text(text: str) -> str:
    if _PLAIN.fullmatch(text) and flow_yaml.is_plain(text):
        return text if flow_yaml.means_itself(text) else flow_yaml.json_text(text)
    awkward = ('"' in text or "\\" in text) and "'" not in text
    if awkward and text.isprintable() and not flow_yaml.SPECIAL.search(text):
        return f"'{text}'"
    return flow_yaml.json_text(text)


def _is_text_of_lines(text: str) -> bool:
    """Whether it can be written as it stands, line by line."""
    lines = text.removesuffix("\n").split("\n")
    return (
        len(lines) > 1
        and all(line.isprintable() and line == line.rstrip() for line in lines)
        and bool(lines[0] and lines[-1] and lines[0] == lines[0].lstrip())
        and not flow_yaml.SPECIAL.search(text)
    )
