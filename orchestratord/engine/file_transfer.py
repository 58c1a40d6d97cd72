"""Calls that send files, or save their answers, in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import httpx

from orchestratord.engine.answer_saving import SAVE_AS, NotSaved, Saving, pretended
from orchestratord.engine.file_keys import FileToSend
from orchestratord.http.connect import is_shortage
from orchestratord.http.streamed_body import SENT, FileRefused, OpenedFile, StreamedBody, open_file
from orchestratord.model.http_message import put_headers
from orchestratord.model.outcome import Outcome, Send, Verdict
from orchestratord.model.settings import FilesSettings
from orchestratord.plugin.executor import Target

BODY_PARTS = "orchestratord.body_parts"
"""The extension of a request whose body is read while it is sent: bytes and files, in order."""
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
    if PRETENDED in request.extensions:
        return await call(pretended(request, send))
    again: Verdict = "retry" if "error" in target.retry.when else "failure"
    saving: Saving | None = None
    try:
        if (parts := request.extensions.get(BODY_PARTS)) is not None:
            body = await asyncio.to_thread(_open, parts, files)
            request.extensions[SENT] = body
            put_headers(request, {"content-length": str(body.length)})
        if SAVE_AS in request.extensions:
            saving = Saving(request, files, send)
        outcome = await call(saving or send)
        if saving is not None and not outcome.look:
            await saving.keep(outcome)
        return outcome
    except FileRefused as error:
        return Outcome("failure", None, error=str(error), final_reason="rejected")
    except NotSaved as error:
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
        if saving is not None:
            task = asyncio.get_running_loop().create_task(saving.saved.close())
            _BACKGROUND.add(task)
            task.add_done_callback(_BACKGROUND.discard)


def _open(parts: Sequence[bytes | FileToSend], files: FilesSettings) -> StreamedBody:
    opened: list[bytes | OpenedFile] = [
        open_file(part.path, files.read, files.max_file) if isinstance(part, FileToSend) else part
        for part in parts
    ]
    return StreamedBody(opened)
