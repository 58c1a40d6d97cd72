"""Values as YAML in block style, written so that every reader takes them for what they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from orchestratord.config.positions import ListNode, MapNode, Node, Scalar
from orchestratord.config.scalars import resolve

_PLAIN = re.compile(r"[A-Za-z0-9/$_.][A-Za-z0-9/$_.{}@%+=?&~;:\- ]*")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
_WORD = re.compile(r"[A-Za-z0-9_.\-]+")
_WORDS_11 = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"})
"""What some reader of YAML takes for something else than a text."""
_SPECIAL = re.compile("[\x7f-\xa0\ud800-\udfff\u2028\u2029\ufeff\ufffe\uffff]")
_LINE = 80
"""Columns up to which a list of words stays in one line."""
_STR = "tag:yaml.org,2002:str"
_RESOLVER: Any = yaml.SafeLoader("")


def data_of(node: Node) -> Any:
    """A node as JSON-like data; texts as they stand in the file, references unresolved."""
    if isinstance(node, Scalar):
        return node.text if isinstance(node.value, str) else node.value
    if isinstance(node, ListNode):
        return [data_of(item) for _, item in node.items]
    return {key: data_of(item) for key, (_, item) in node.entries.items()}


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types; the order of keys does not matter."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


def list_lines(
    values: Sequence[Any], column: int, step: int, before: Sequence[Node | None] = ()
) -> Iterator[str]:
    """The lines of a list.

    Args:
        values: its items.
        column: of its dashes, from 0.
        step: columns by which what is nested is indented.
        before: the nodes that stood there, for numbers and words to stay as they are written.
    """
    pad = " " * column
    for number, value in enumerate(values):
        old = before[number] if number < len(before) else None
        if isinstance(value, Mapping) and value:
            first, *rest = mapping_lines(value, column + 2, step, old)
            yield f"{pad}- {first.lstrip(' ')}"
            yield from rest
        elif isinstance(value, list) and value:
            yield f"{pad}-"
            yield from list_lines(value, column + step, step, _items(old))
        else:
            yield f"{pad}- {scalar(value, old)}"


def mapping_lines(
    values: Mapping[str, Any], column: int, step: int, before: Node | None = None
) -> Iterator[str]:
    """The lines of a mapping; the arguments are those of `list_lines`."""
    entries = before.entries if isinstance(before, MapNode) else {}
    for key, value in values.items():
        old = entries[key][1] if key in entries else None
        yield from entry_lines(key, value, column, step, old)


def entry_lines(
    key: str, value: Any, column: int, step: int, before: Node | None = None
) -> Iterator[str]:
    """The lines of one key with its value; the arguments are those of `list_lines`."""
    head = f"{' ' * column}{_key(key)}:"
    if isinstance(value, Mapping) and value:
        yield head
        yield from mapping_lines(value, column + step, step, before)
    elif isinstance(value, list) and value:
        old = _items(before)
        words = [scalar(item, old[i] if i < len(old) else None) for i, item in enumerate(value)]
        line = f"{head} [{', '.join(words)}]"
        if len(line) <= _LINE and all(_WORD.fullmatch(word) for word in words):
            yield line
        else:
            yield head
            yield from list_lines(value, column + step, step, old)
    else:
        yield f"{head} {scalar(value, before)}"


def scalar(value: Any, before: Node | None = None) -> str:
    """A value in one line; where `before` holds the same number, as that is written."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(before, Scalar) and same(before.value, value) and before.text:
        return before.text
    if isinstance(value, list):
        return f"[{', '.join(scalar(item) for item in value)}]"
    return json.dumps(value)


def quoted(text: str) -> str:
    """A text in double quotes, as JSON and YAML both read it."""
    return _SPECIAL.sub(
        lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False)
    )


def _items(node: Node | None) -> list[Node]:
    return [item for _, item in node.items] if isinstance(node, ListNode) else []


def _key(key: str) -> str:
    return key if _KEY.fullmatch(key) and _means_itself(key) else quoted(key)


def _text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text[-1] not in " :" and ": " not in text:
        return text if _means_itself(text) else quoted(text)
    awkward = ('"' in text or "\\" in text) and "'" not in text
    if awkward and text.isprintable() and not _SPECIAL.search(text):
        return f"'{text}'"
    return quoted(text)


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
