"""One answer: its status, headers and decoded body, each within its bounds."""

from __future__ import annotations

import zlib
from typing import NoReturn

from orchestratord.engine.decoding import Inflater
from orchestratord.errors import SendError

HEAD_LIMIT = 65_536  # bytes of all header lines, those of interim answers and trailers included
HEADER_COUNT = 200
_INTERIM_LIMIT = 10  # answers of status 1xx before the real one


class HttpAnswer:
    """What the bytes of one answer come to; how they are framed is for those who inherit from it.

    Everything that comes is consumed at once, into a body that `limit` bounds, so reading never
    has to be paused: what is over the bound ends the answer.

    Args:
        method: the request's; an answer to HEAD has no body.
        limit: how many bytes of decoded body are kept.
    """

    __slots__ = (
        "_fault",
        "_head",
        "_head_size",
        "_header_count",
        "_in_body",
        "_inflater",
        "_interim",
        "_limit",
        "_wire",
        "_wire_limit",
        "body",
        "done",
        "headers",
        "http_version",
        "reason",
        "status",
        "truncated",
    )

    def __init__(self, method: str, limit: int) -> None:
        self.status = 0
        self.reason: bytes | None = None  # HTTP/2 has none
        self.http_version = b"HTTP/1.1"
        self.headers: list[tuple[bytes, bytes]] = []
        # One buffer, not a list of pieces: a body of one-byte chunks would cost 40 times its size.
        self.body = bytearray()
        self.truncated = False
        self.done = False
        self._head = method == "HEAD"
        self._limit = limit
        # Framing can be far larger than content: chunk extensions, gzip blocks that hold nothing.
        self._wire_limit = 8 * limit + 262_144 + HEAD_LIMIT
        self._wire = 0
        self._head_size = 0
        self._header_count = 0
        self._interim = 0
        self._in_body = False
        self._inflater: Inflater | None = None
        self._fault = ""

    @property
    def started(self) -> bool:
        """True when at least one byte has come."""
        return self._wire > 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header of the answer, of an interim one before it, or one of its trailers."""
        self._head_size += len(name) + len(value) + 4
        self._header_count += 1
        if self._head_size > HEAD_LIMIT:
            self._refuse(HEAD_TOO_LARGE)
        if self._header_count > HEADER_COUNT:
            self._refuse(f"it has more than {HEADER_COUNT} headers")
        if not self._in_body:  # else a trailer
            self.headers.append((name, value.rstrip(b" \t")))

    def _is_interim(self, status: int) -> bool:
        """Whether the real answer is still to come."""
        if status >= 200:
            return False
        self._interim += 1
        if status < 100 or status == 101:
            self._refuse(f"its status is {status:03d}")
        if self._interim > _INTERIM_LIMIT:
            self._refuse(f"more than {_INTERIM_LIMIT} interim answers came before it")
        return True

    def _take(self, data: bytes) -> None:
        """Take the next bytes of the body; `done` is True when there is no room for more."""
        room = self._limit - len(self.body)
        if self._inflater is not None:
            try:
                data = self._inflater.decode(data, room + 1)
            except zlib.error:
                self._refuse("its body does not decode by its Content-Encoding")
        if len(data) > room:
            self.body += data[:room]
            self.truncated = self.done = True
        else:
            self.body += data

    def _finish(self) -> None:
        if self._inflater is not None and not self._inflater.finished:
            self._refuse("its body ends in the middle of its Content-Encoding")
        self.done = True

    def _check_framing(self) -> None:
        if not self._in_body:
            if self._wire > HEAD_LIMIT:
                self._refuse(HEAD_TOO_LARGE)
        elif self._wire > self._wire_limit:
            self._refuse("its framing is far larger than its content")

    def _refuse(self, why: str) -> NoReturn:
        self._fault = why
        raise unreadable(why)


HEAD_TOO_LARGE = f"its headers are larger than {HEAD_LIMIT // 1024} KiB"


def unreadable(why: str) -> SendError:
    """The error for an answer that cannot be used."""
    return SendError(f"the answer cannot be used: {why}", kind="protocol", sent=True)
