"""Calls that send files, or save their answers: what is rendered of them, and how they go."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from mimetypes import MimeTypes
from typing import Any, NamedTuple

import httpx

from orchestratord.errors import InvalidPayload, SendError
from orchestratord.http.connect import is_shortage
from orchestratord.http.saved_answer import SAVED, TEMPORARY, SavedAnswer
from orchestratord.http.streamed_body import SENT, FileRefused, OpenedFile, StreamedBody, open_file
from orchestratord.model.declared import Model
from orchestratord.model.http_message import put_headers
from orchestratord.model.outcome import Outcome, Send, Verdict
from orchestratord.model.settings import FilesSettings
from orchestratord.plugin.executor import Target
from orchestratord.values.template import Template, to_text

BODY_PARTS = "orchestratord.body_parts"
"""The extension of a request whose body is read while it is sent: bytes and files, in order."""
SAVE_AS = "orchestratord.save_as"
"""The extension of a request whose answer is saved: the folder, and the name of the file."""
PRETENDED = "orchestratord.pretended"
"""The extension of a request that goes nowhere: no file is touched for it."""
_NAME = re.compile(r"[^/\x00-\x1f\x7f]{1,255}")
_ENDS_NAME = {'"': "%22", "\r": "%0D", "\n": "%0A"}
"""As browsers write them in the name of a field or file."""
_BACKGROUND: set[asyncio.Task[None]] = set()


class FilePart(Model):
    """A file in a form of type multipart."""

    path: Template
    """The path of the file, in a folder of files.read."""
    type: Template | None = None
    """Its media type; left out: by the end of its name."""
    name: Template | None = None
    """The name that the receiver is given; left out: that of the file."""

    def templates(self) -> Iterable[Template]:
        """All that is rendered for each request."""
        return [one for one in (self.path, self.type, self.name) if one is not None]


class SaveRule(Model):
    """Where the body of an answer is written to."""

    folder: str
    """One of the folders of files.write, as it is written there."""
    name: Template
    """The name of the file; another one of that name is replaced."""


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
        raise InvalidPayload(f"save.name: {name[:80]!r} is no name of a file in a folder")
    return rule.folder, name


async def with_files(
    request: httpx.Request,
    target: Target,
    files: FilesSettings,
    send: Send,
    call: Callable[[Send], Coroutine[Any, Any, Outcome]],
) -> Outcome:
    """Make a call whose request is sent from files, or whose answer is saved.

    Args:
        request: as it was prepared.
        target: whose call it is.
        files: the folders.
        send: sends a request.
        call: makes the call by what it is given to send with.
    """
    place = request.extensions.get(SAVE_AS)
    if PRETENDED in request.extensions:
        return await call(send if place is None else partial(_pretend, send, os.path.join(*place)))
    again: Verdict = "retry" if "error" in target.retry.when else "failure"
    saved: SavedAnswer | None = None
    try:
        if (parts := request.extensions.get(BODY_PARTS)) is not None:
            body = await asyncio.to_thread(_open, parts, files)
            request.extensions[SENT] = body
            put_headers(request, {"content-length": str(body.length)})
        if place is not None:
            folder, name = place
            if folder not in files.write:
                raise FileRefused(f"save.folder: {folder} is no folder of files.write")
            saved = request.extensions[SAVED] = SavedAnswer(folder, name, files.max_file)
            request.headers["Accept-Encoding"] = "identity"
            send = _Saving(send, saved)
        return await call(send)
    except FileRefused as error:
        return Outcome("failure", None, error=str(error), final_reason="rejected")
    except _TooLarge as error:
        answer = error.response
        what = f"{answer.status_code}, but the answer is larger than files.max_file"
        refused = Outcome("failure", answer.status_code, answer, error=what, answered=True)
        return replace(refused, final_reason="not_retryable")
    except OSError as error:
        lacks = is_shortage(error)
        after = isinstance(error, _NotSaved)
        return Outcome(again, None, error=str(error), maybe_done=after, shortage=lacks)
    finally:
        request.extensions.pop(SENT, None)
        if saved is not None:
            task = asyncio.get_running_loop().create_task(saved.close())
            _BACKGROUND.add(task)
            task.add_done_callback(_BACKGROUND.discard)


class _TooLarge(Exception):
    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        super().__init__()


class _NotSaved(OSError):
    """The request was carried out, and its answer is not on disk."""


class _Saving:
    """Sends a request, and puts the file that its answer went to in the place of its body."""

    def __init__(self, send: Send, saved: SavedAnswer) -> None:
        self._send, self._saved = send, saved

    async def __call__(self, request: httpx.Request, **options: Any) -> httpx.Response:
        saved = self._saved
        await saved.begin()
        try:
            response = await self._send(request, **options)
            if not response.is_success:
                return response
            if response.extensions.get("truncated"):
                raise _TooLarge(response)
            about = await saved.finish()
        except (OSError, SendError) as error:
            if saved.error is None and isinstance(error, SendError):
                raise
            raise _NotSaved(f"the answer cannot be saved: {saved.error or error}") from None
        return _instead(response, about)


async def _pretend(send: Send, path: str, request: httpx.Request, **options: Any) -> httpx.Response:
    response = await send(request, **options)
    if not response.is_success:
        return response
    digest = hashlib.sha256(response.content).hexdigest()
    return _instead(response, {"path": path, "size": len(response.content), "sha256": digest})


def _instead(response: httpx.Response, about: Mapping[str, Any]) -> httpx.Response:
    """An answer with what is known of the file in the place of its body."""
    response.extensions["saved"] = about
    response._content = json.dumps(about).encode()
    return response


def _open(parts: Sequence[bytes | FileToSend], files: FilesSettings) -> StreamedBody:
    opened: list[bytes | OpenedFile] = [
        open_file(part.path, files.read, files.max_file) if isinstance(part, FileToSend) else part
        for part in parts
    ]
    return StreamedBody(opened)


@lru_cache(maxsize=1024)
def media_type(name: str) -> str:
    """By the suffixes that Python knows by itself: no file of the machine adds to them."""
    return MimeTypes().guess_type(name)[0] or "application/octet-stream"


def _quoted(name: str) -> str:
    return "".join(_ENDS_NAME.get(character, character) for character in name)
