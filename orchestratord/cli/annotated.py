"""YAML with a comment behind each value, which says where it comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping

import yaml

from orchestratord.config.show.origins import Traced
from orchestratord.config.yaml.scalars import resolve

_PLAIN = re.compile(r"[A-Za-z0-9/_.$](?:[\w./$%@+=~-]|:(?=\S)| (?=[^\s#]))*", re.ASCII)
"""Texts that no rule of YAML sees anything else in."""
_COMMENTS_AT = 48
"""The column of comments, unless a value is longer."""

Comment = Callable[[Traced], str]


def annotated(traced: Mapping[str, Traced], comment: Comment) -> str:
    """The YAML of a mapping, without an end of line at its end."""
    lines: list[str] = []
    for line, origin in _mapping(traced, "", comment):
        text = f"{line.ljust(_COMMENTS_AT)}  # {origin}" if origin else line
        lines.append(text)
    return "\n".join(lines)


_Line = tuple[str, str | None]


def _mapping(items: Mapping[str, Traced], indent: str, comment: Comment) -> Iterator[_Line]:
    for key, item in items.items():
        yield from _entry(f"{indent}{_scalar(key)}:", f"{indent}  ", item, comment)


def _entry(head: str, indent: str, item: Traced, comment: Comment) -> Iterator[_Line]:
    """What stands behind `head`, and below it with `indent`."""
    value = item.value
    if isinstance(value, dict) and value:
        yield head, None
        yield from _mapping(value, indent, comment)
    elif isinstance(value, list) and value:
        words = [_scalar(child.value) for child in value if not _nested(child)]
        if len(words) == len(value) and len({comment(child) for child in value}) == 1:
            yield f"{head} [{', '.join(words)}]", comment(value[0])
            return
        yield head, None
        for child in value:
            yield from _item(indent, child, comment)
    else:
        yield f"{head} {_empty_or_scalar(item)}", comment(item)


def _item(indent: str, item: Traced, comment: Comment) -> Iterator[_Line]:
    """An item of a list: its first line begins with a dash."""
    if not _nested(item):
        yield f"{indent}- {_empty_or_scalar(item)}", comment(item)
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


def _empty_or_scalar(item: Traced) -> str:
    if isinstance(item.value, dict):
        return "{}"
    return "[]" if isinstance(item.value, list) else _scalar(item.value)


def _scalar(value: object) -> str:
    """A scalar as YAML 1.2 reads it back, and 1.1 too; quoted where it could be taken for more."""
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) and resolve(value) == value == yaml.safe_load(value):
        return value
    # A text in JSON is one in YAML, too; but not its escapes of what takes two of them.
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    return character if character.isprintable() else f"\\U{ord(character):08x}"
