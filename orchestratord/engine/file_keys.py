"""The files that a request sends and the one that its answer goes to: what the YAML says of them,
rendered."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from mimetypes import MimeTypes
from typing import Any, NamedTuple

from orchestratord.errors import InvalidPayload
from orchestratord.http.saved_answer import TEMPORARY
from orchestratord.model.declared import Model
from orchestratord.values.template import Template, to_text

_NAME = re.compile(r"[^/\x00-\x1f\x7f]{1,255}")
_ENDS_NAME = {'"': "%22", "\r": "%0D", "\n": "%0A"}
"""As browsers write them in the name of a field or file."""


class FilePart(Model):
    """A file in a form of type multipart."""

    path: Template
    """The path of the file, in a folder of files.read."""
    type: Template | None = None
    """Its media type; by default from the end of its name."""
    name: Template | None = None
    """The file name for the receiver; by default the file's own."""

    def templates(self) -> Iterable[Template]:
        """All that is rendered for each request."""
        return [one for one in (self.path, self.type, self.name) if one is not None]


class SaveRule(Model):
    """The file for an answer's body."""

    folder: str
    """One of the folders of files.write, as written there."""
    name: Template
    """The name of the file; the daemon replaces an older one of that name."""


class FileToSend(NamedTuple):
    """A file as a request names it, by its path."""

    path: str


def multipart(
    fields: Mapping[str, Template | FilePart], context: Mapping[str, Any], boundary: str
) -> list[bytes | FileToSend]:
    """The parts of a form; a list gives its name once for each item, null none."""
    parts: list[bytes | FileToSend] = []
    for name, field in fields.items():
        about = f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"'
        if isinstance(field, FilePart):
            path = to_text(field.path.render(context))
            shown = os.path.basename(path) if field.name is None else field.name.render(context)
            kind = media_type(path) if field.type is None else to_text(field.type.render(context))
            if not kind.isprintable():
                raise InvalidPayload(f"the type of {name} would hold a control character")
            head = f'{about}; filename="{_quoted(to_text(shown))}"\r\nContent-Type: {kind}\r\n\r\n'
            parts += (head.encode(), FileToSend(path), b"\r\n")
            continue
        value = field.render(context)
        for item in value if isinstance(value, list | tuple) else (value,):
            if item is not None:
                parts.append(f"{about}\r\n\r\n{to_text(item)}\r\n".encode())
    return [*parts, f"--{boundary}--\r\n".encode()]


def save_as(rule: SaveRule, context: Mapping[str, Any]) -> tuple[str, str]:
    """The folder and the name of a file. Raises InvalidPayload for what is no name of one."""
    name = to_text(rule.name.render(context))
    fits = _NAME.fullmatch(name) and len(name.encode()) <= 255 and name not in (".", "..")
    if not fits or TEMPORARY.fullmatch(name):
        raise InvalidPayload(f"save.name: {name[:80]!r} is not the name of a file in a folder")
    return rule.folder, name


@lru_cache(maxsize=1024)
def media_type(name: str) -> str:
    """By the suffixes that Python knows by itself: no file of the machine adds to them."""
    return MimeTypes().guess_type(name)[0] or "application/octet-stream"


def _quoted(name: str) -> str:
    return "".join(_ENDS_NAME.get(character, character) for character in name)
