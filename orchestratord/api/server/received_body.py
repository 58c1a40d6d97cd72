"""The bytes of requests' bodies: bounded each by itself, and all that are at hand together."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from orchestratord.api.server.problem_json import Refusal

SMALL = 64 << 10
"""Bytes of a body that is read wherever there is room for a connection."""
MAX_TOGETHER = 32 << 20
"""Bytes of all larger ones that are at hand at once, in one room; as JSON, parsed, they take ten
times as much."""


class BodyRoom:
    """Room for the bodies at one place.

    Args:
        again: seconds after which a client that found none is to ask again.
    """

    def __init__(self, again: int) -> None:
        self.again = again
        self.taken = 0
        """Bytes of all of them, but for the first `SMALL` of each."""


class ReceivedBody:
    """The body of one request, from its first byte until the request is answered."""

    def __init__(self, room: BodyRoom) -> None:
        self._room, self._taken = room, 0

    async def read(
        self, receive: Receive, most: int, read_on: int, too_large: Callable[[], Refusal]
    ) -> bytes:
        """All of it.

        Args:
            receive: what the server hands the application.
            most: how many bytes it may have.
            read_on: so many are read all the same, as who is still sending does not read.
            too_large: what is raised for more than `most`.

        Raises:
            ClientDisconnect, and Refusal; 503 where others take all the room there is.
        """
        chunks: list[bytes] = []
        size, more = 0, True
        while more and size <= read_on:
            message = await receive()
            if message["type"] != "http.request":
                raise ClientDisconnect
            chunk, more = message.get("body", b""), message.get("more_body", False)
            size += len(chunk)
            if size > most:
                chunks.clear()
                self.forget()
            else:
                chunks.append(chunk)
                self._take(max(size - SMALL, 0))
        if size > most:
            raise too_large()
        return b"".join(chunks)

    def forget(self) -> None:
        """Nothing holds it any more: others may have its room."""
        self._take(0)

    def _take(self, size: int) -> None:
        more, room = size - self._taken, self._room
        if more > 0 and room.taken + more > MAX_TOGETHER:
            detail = "other large bodies are being read; send it again in a moment"
            raise Refusal("busy", detail, headers={"Retry-After": str(room.again)})
        room.taken += more
        self._taken = size
