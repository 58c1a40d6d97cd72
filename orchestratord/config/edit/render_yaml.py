"""Values as YAML, written so that every reader takes them for what they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from orchestratord.config.edit.item_matching import same
from orchestratord.config.yaml.nodes import MapNode, Node, Scalar, items_of
from orchestratord.config.yaml.scalars import resolve

_PLAIN = re.compile(r"[A-Za-z0-9/$_.][A-Za-z0-9/$_.{}@%+=?&~;:\- ]*")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
_WORD = re.compile(r"[A-Za-z0-9_.\-]+")
_FLOW_WORD = re.compile(r"[A-Za-z0-9/_.][A-Za-z0-9/_.@%+=&~;:\- ]*")
_WORDS_11 = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"})
"""What some reader of YAML takes for something else than a text."""
_SPECIAL = re.compile("[\x7f-\xa0\ud800-\udfff\u2028\u2029\ufeff\ufffe\uffff]")
STEP = 2
"""Columns by which what is nested is indented."""
_LINE = 80
"""Columns up to which a list of words stays in one line."""
_STR = "tag:yaml.org,2002:str"
_RESOLVER: Any = yaml.SafeLoader("")


def list_lines(
    values: Sequence[Any], column: int, before: Sequence[Node | None] = ()
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
            yield from list_lines(value, column + STEP, items_of(old))
        else:
            yield f"{pad}- {scalar(value, old)}"


def mapping_lines(
    values: Mapping[str, Any], column: int, before: Node | None = None
) -> Iterator[str]:
    """The lines of a mapping; the arguments are those of `list_lines`."""
    entries = before.entries if isinstance(before, MapNode) else {}
    for key, value in values.items():
        old = entries[key][1] if key in entries else None
        yield from entry_lines(key, value, column, old)


def entry_lines(key: str, value: Any, column: int, before: Node | None = None) -> Iterator[str]:
    """The lines of one key with its value; the arguments are those of `list_lines`."""
    pad = " " * column
    first, *rest = value_lines(f"{_key(key)}:", value, column, before)
    yield pad + first
    yield from rest


def value_lines(head: str, value: Any, column: int, before: Node | None = None) -> Iterator[str]:
    """The lines of a value behind `head`, its key and colon; the first one is not indented."""
    if isinstance(value, Mapping) and value:
        yield head
        yield from mapping_lines(value, column + STEP, before)
    elif isinstance(value, list) and value:
        old = items_of(before)
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


def scalar(value: Any, before: Node | None = None) -> str:
    """A value in one line; where `before` holds the same number, as that is written."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(before, Scalar) and same(before.value, value) and before.text:
        return before.text
    return json_text(value) if isinstance(value, Mapping | list) else json.dumps(value)


def flow(value: Any) -> str:
    """A value in one line, as it may stand within brackets."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_key(key)}: {flow(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(flow, value))}]"
    if isinstance(value, str):
        word = _FLOW_WORD.fullmatch(value) and _is_plain(value)
        return value if word and _means_itself(value) else visible(json_text(value))
    return json.dumps(value)


def json_text(value: Any, indent: str = "") -> str:
    """A value as JSON that is YAML as well; the indent is that of `json.dumps`."""
    text = json.dumps(value, ensure_ascii=False, indent=indent or None)
    return _SPECIAL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def visible(text: str) -> str:
    """With what cannot be seen, or turns the line around, written out as YAML reads it."""
    return "".join(
        c if c.isprintable() else f"\\u{ord(c):04x}" if c <= "\uffff" else f"\\U{ord(c):08x}"
        for c in text
    )


def _key(key: str) -> str:
    return key if _KEY.fullmatch(key) and _means_itself(key) else json_text(key)


def _text(text: str) -> str:
    if _PLAIN.fullmatch(text) and _is_plain(text):
        return text if _means_itself(text) else json_text(text)
    awkward = ('"' in text or "\\" in text) and "'" not in text
    if awkward and text.isprintable() and not _SPECIAL.search(text):
        return f"'{text}'"
    return json_text(text)


def _is_plain(text: str) -> bool:
    return text[-1] not in " :" and ": " not in text


def _is_text_of_lines(text: str) -> bool:
    """Whether it can be written as it stands, line by line."""
    lines = text.removesuffix("\n").split("\n")
    return (
        len(lines) > 1
        and all(line.isprintable() and line == line.rstrip() for line in lines)
        and bool(lines[0] and lines[-1] and lines[0] == lines[0].lstrip())
        and not _SPECIAL.search(text)
    )


def _means_itself(text: str) -> bool:
    """True where a plain scalar is a text, for readers of YAML 1.2 and for those of 1.1."""
    if text.lower() in _WORDS_11:
        return False
    try:
        if resolve(text) != text:
            return False
    except ValueError:
        return False
    return bool(_RESOLVER.resolve(yaml.ScalarNode, text, (True, False)) == _STR)
