"""One exchange on a connection of HTTP/2."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable

from orchestratord.engine.answer import HttpAnswer
from orchestratord.engine.decoding import Inflater
from orchestratord.errors import SendError

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"[^\x00\r\n]*")
_STATUS = re.compile(rb"[0-9]{3}")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_OF_HTTP1 = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
_HEADER_SIZE = 9  # of a frame


class StreamAnswer(HttpAnswer):
    """The answer on one stream. `ended` is True when the peer has sent its last frame of it."""

    __slots__ = ("_bodiless", "_length", "_received", "ended")

    def __init__(self, method: str, limit: int) -> None:
        super().__init__(method, limit)
        self.http_version = b"HTTP/2"
        self.ended = False
        self._length: int | None = None  # by Content-Length
        self._received = 0  # bytes of the body as they came
        self._bodiless = False

    def take_headers(self, fields: Iterable[tuple[bytes, bytes]], size: int, end: bool) -> None:
        """Take a block of headers: an interim answer, the answer itself, or its trailers.

        Args:
            fields: names and values.
            size: bytes of the block on the wire.
            end: whether nothing follows.

        Raises:
            SendError: this is no answer, or one beyond the bounds.
        """
        self._wire += size + _HEADER_SIZE
        self.ended = end
        trailers = self._in_body
        status = b""
        plain = False
        for name, value in fields:
            if name.startswith(b":"):
                if plain or trailers or status or name != b":status":
                    self._refuse("its pseudo-headers are not those of an answer")
                if not _STATUS.fullmatch(value):
                    self._refuse("its status is no number")
                status = value
                continue
            plain = True
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                self._refuse("a header holds characters that it must not hold")
            if name in _OF_HTTP1:
                self._refuse(f"its header {name.decode()} is one of HTTP/1.1 alone")
            self.on_header(name, value.lstrip(b" \t"))
        if trailers:
            if not end:
                self._refuse("it goes on after its trailers")
            self._complete()
        elif not status:
            self._refuse("it has no status")
        elif self._is_interim(int(status)):
            if end:
                self._refuse("it ends with an interim answer")
            self._check_framing()
            self.headers.clear()
        else:
            self._begin(int(status))
            if end or self._bodiless:
                self._complete()

    def take_data(self, data: bytes, size: int, end: bool) -> None:
        """Take a frame of the body; `size` is that of its payload on the wire, padding included.

        Raises:
            SendError: this is no answer, or one beyond the bounds.
        """
        self._wire += size + _HEADER_SIZE
        self.ended = end
        if not self._in_body:
            self._refuse("its body comes before its headers")
        self._received += len(data)
        self._take(data)
        if self.done:
            return
        if end:
            self._complete()
        else:
            self._check_framing()

    def _begin(self, status: int) -> None:
        self.status = status
        self._in_body = True
        self._bodiless = self._head or status in (204, 304)
        codings: list[bytes] = []
        for name, value in self.headers:
            if name == b"content-length":
                if not _LENGTH.fullmatch(value) or self._length not in (None, int(value)):
                    self._refuse("its Content-Length is not one number")
                self._length = int(value)
            elif name == b"content-encoding":
                codings.append(value.lower())
        if len(codings) == 1:
            self._inflater = Inflater.for_coding(codings[0])

    def _complete(self) -> None:
        if not self._bodiless and self._length not in (None, self._received):
            self._refuse("its body has not the length that its Content-Length says")
        self._finish()


class Stream:
    """A request under way, and its answer.

    Args:
        number: its identifier on the connection.
        answer: takes what comes.
        waiter: is told when the answer is done, or that there will be none.
        body: what is to be sent after the headers.
        heard: how often the connection had received something when the request was sent.
    """

    __slots__ = ("answer", "heard", "number", "received", "unsent", "waiter", "window")

    def __init__(
        self,
        number: int,
        answer: StreamAnswer,
        waiter: asyncio.Future[None],
        body: bytes,
        heard: int,
    ) -> None:
        self.number = number
        self.answer = answer
        self.waiter = waiter
        self.unsent: memoryview | None = memoryview(body) if body else None
        self.window = 0  # bytes of the body that the peer takes for now
        self.heard = heard
        self.received = 0  # bytes of the answer since its window was last opened

    @property
    def first(self) -> bool:
        """True for the connection's first exchange."""
        return self.number == 1

    def settle(self, error: SendError | None = None) -> None:
        """The exchange has come to its end: with a complete answer, or with an error."""
        if self.waiter.done():
            return
        if error is None:
            self.waiter.set_result(None)
        else:
            self.waiter.set_exception(error)
            self.waiter.exception()  # whoever waits for it may be cancelled at this moment

    # What there is to say of an exchange without an answer.

    def late(self) -> SendError:
        """Its time is over."""
        if self.answer.started:
            what = "the answer did not come to its end in time"
        elif self.unsent is not None:
            what = "the request could not be sent in time"
        else:
            what = "no answer came in time"
        return SendError(what, kind="timeout", sent=True)

    def lost(self, error: Exception | None) -> SendError:
        """The connection is gone, for this reason if one is known."""
        if self.answer.started:
            how = "closed" if error is None else "reset"
            what = f"the connection was {how} in the middle of the answer"
            return SendError(what, kind="reset", sent=True)
        if self.unsent is not None:
            what = "the connection was closed while the request was being sent"
            return SendError(what, kind="send", sent=True, stale=not self.first)
        what = "the connection was closed without an answer"
        return SendError(what, kind="reset", sent=True, stale=not self.first)

    def unprocessed(self, how: str) -> SendError:
        """HTTP/2 itself says that nothing was done with the request. On a connection that has
        served before this is how one ends; on a new one the peer wants no more of it."""
        what = f"the peer {how} before it looked at the request"
        return SendError(what, kind="reset", sent=False, stale=not self.first)
