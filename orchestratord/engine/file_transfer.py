"""Calls that send files, or save their answers, in pieces."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import httpx

from orchestratord.engine.file_keys import FileToSend
from orchestratord.http.connect import is_shortage
from orchestratord.http.saved_answer import SAVED, SavedAnswer
from orchestratord.http.streamed_body import SENT, FileRefused, OpenedFile, StreamedBody, open_file
from orchestratord.model.http_message import put_headers
from orchestratord.model.outcome import Outcome, Send, Verdict
from orchestratord.model.settings import FilesSettings
from orchestratord.plugin.executor import Target

BODY_PARTS = "orchestratord.body_parts"
"""The extension of a request whose body is read while it is sent: bytes and files, in order."""
SAVE_AS = "orchestratord.save_as"
"""The extension of a request whose answer is saved: the folder, and the name of the file."""
PRETENDED = "orchestratord.pretended"
"""The extension of a request that goes nowhere: no file is touched for it."""
_BACKGROUND: set[asyncio.Task[None]] = set()


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
        outcome = await call(send)
        if isinstance(send, _Saving) and not outcome.look:
            await send.keep(outcome)
        return outcome
    except FileRefused as error:
        return Outcome("failure", None, error=str(error), final_reason="rejected")
    except _NotSaved as error:
        answer, code = error.response, error.response.status_code
        what = f"{code}, but the answer {error}"
        if error.too_large:
            refused = Outcome("failure", code, answer, error=what, answered=True)
            return replace(refused, final_reason="not_retryable")
        return Outcome(again, code, answer, error=what, maybe_done=True)
    except OSError as error:
        return Outcome(again, None, error=str(error), shortage=is_shortage(error))
    finally:
        request.extensions.pop(SENT, None)
        if saved is not None:
            task = asyncio.get_running_loop().create_task(saved.close())
            _BACKGROUND.add(task)
            task.add_done_callback(_BACKGROUND.discard)


class _NotSaved(Exception):
    """The request was carried out, and its answer is not on disk: none of its body is kept."""

    def __init__(self, response: httpx.Response, error: OSError | None = None) -> None:
        self.response, self.too_large = response, error is None
        response._content = b""
        response.extensions.pop("saved", None)
        response.extensions["truncated"] = True
        super().__init__(
            "is larger than files.max_file" if error is None else f"cannot be saved: {error}"
        )


class _Saving:
    """Sends a request, and puts the file that its answer went to in the place of its body."""

    def __init__(self, send: Send, saved: SavedAnswer) -> None:
        self._send, self._saved = send, saved

    async def __call__(self, request: httpx.Request, **options: Any) -> httpx.Response:
        saved = self._saved
        await saved.begin()
        response = await self._send(request, **options)
        if not response.is_success:
            return response
        try:
            about = await saved.written()
        except OSError as error:
            raise _NotSaved(response, error) from None
        if response.extensions.get("truncated"):
            raise _NotSaved(response)
        return _instead(response, about)

    async def keep(self, outcome: Outcome) -> None:
        """Bring the file to the disk under its name, if its answer is that of this outcome."""
        if outcome.response is None or "saved" not in outcome.response.extensions:
            return
        try:
            await self._saved.finish()
        except OSError as error:
            raise _NotSaved(outcome.response, error) from None


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
