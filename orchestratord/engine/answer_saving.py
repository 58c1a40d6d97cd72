"""Answers that go to a file: what is known of the file stands in the place of their body."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import httpx

from orchestratord.http.saved_answer import SAVED, SavedAnswer
from orchestratord.http.streamed_body import FileRefused
from orchestratord.model.outcome import Outcome, Send
from orchestratord.model.settings import FilesSettings

SAVE_AS = "orchestratord.save_as"
"""The extension of a request whose answer is saved: the folder, and the name of the file."""


def pretended(request: httpx.Request, send: Send) -> Send:
    """What answers as if the answer had been saved, and touches no file."""
    place = request.extensions.get(SAVE_AS)
    return send if place is None else partial(_pretend, send, os.path.join(*place))


class NotSaved(Exception):
    """The request was carried out, and its answer is not on disk: none of its body is kept."""

    def __init__(self, response: httpx.Response, error: OSError | None = None) -> None:
        self.response, self.too_large = response, error is None
        response._content = b""
        response.extensions.pop("saved", None)
        response.extensions["truncated"] = True
        super().__init__(
            "is larger than files.max_file" if error is None else f"cannot be saved: {error}"
        )


class Saving:
    """Sends a request, and puts the file that its answer went to in the place of its body."""

    def __init__(self, request: httpx.Request, files: FilesSettings, send: Send) -> None:
        """`request`: has `SAVE_AS`. Raises FileRefused for a folder that is not declared."""
        folder, name = request.extensions[SAVE_AS]
        if folder not in files.write:
            raise FileRefused(f"save.folder: {folder} is no folder of files.write")
        self.saved = request.extensions[SAVED] = SavedAnswer(folder, name, files.max_file)
        request.headers["Accept-Encoding"] = "identity"
        self._send = send

    async def __call__(self, request: httpx.Request, **options: Any) -> httpx.Response:
        await self.saved.begin()
        response = await self._send(request, **options)
        if not response.is_success:
            return response
        try:
            about = await self.saved.written()
        except OSError as error:
            raise NotSaved(response, error) from None
        if response.extensions.get("truncated"):
            raise NotSaved(response)
        return _instead(response, about)

    async def keep(self, outcome: Outcome) -> None:
        """Bring the file to the disk under its name, if its answer is that of this outcome."""
        if outcome.response is None or "saved" not in outcome.response.extensions:
            return
        try:
            await self.saved.finish()
        except OSError as error:
            raise NotSaved(outcome.response, error) from None


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
