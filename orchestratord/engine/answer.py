"""Reading one answer: status, headers and decoded body, each within its bounds."""

from __future__ import annotations

import zlib

import httptools

from orchestratord.engine.decoding import Inflater
from orchestratord.errors import SendError

HEAD_LIMIT = 65_536  # bytes of all header lines, those of interim answers and trailers included
HEADER_COUNT = 200
_INTERIM_LIMIT = 10  # answers of status 1xx before the real one


class _RefusedError(Exception):
    """Stops the parser in the middle of a callback; never leaves this module."""


class Answer:
    """What the bytes of one answer come to.

    Everything that is fed is consumed at once, into a body that `limit` bounds, so reading never
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
        "_parser",
        "_until_close",
        "_wire",
        "_wire_limit",
        "body",
        "done",
        "headers",
        "http_version",
        "reason",
        "reusable",
        "status",
        "truncated",
    )

    def __init__(self, method: str, limit: int) -> None:
        self.status = 0
        self.reason = b""
        self.http_version = "1.1"
        self.headers: list[tuple[bytes, bytes]] = []
        # One buffer, not a list of pieces: a body of one-byte chunks would cost 40 times its size.
        self.body = bytearray()
        self.truncated = False
        self.done = False
        self.reusable = False  # the connection can carry another request
        self._head = method == "HEAD"
        self._limit = limit
        # Framing can be far larger than content: chunk extensions, gzip blocks that hold nothing.
        self._wire_limit = 8 * limit + 262_144 + HEAD_LIMIT
        self._wire = 0
        self._head_size = 0
        self._header_count = 0
        self._interim = 0
        self._in_body = False
        self._until_close = False
        self._inflater: Inflater | None = None
        self._fault = ""
        self._parser = httptools.HttpResponseParser(self)
        # One answer a connection at a time: neither leniency can be used to smuggle a second one,
        # and old servers need them.
        self._parser.set_dangerous_leniencies(
            lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    @property
    def started(self) -> bool:
        """True when at least one byte has come."""
        return self._wire > 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes; `done` is True when they were the last ones that are wanted.

        Raises:
            SendError: this is no answer, or one beyond the bounds.
        """
        self._wire += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self.done:  # it is what came after the answer that cannot be read
                self.reusable = False
                return
            raise _unreadable(self._fault or f"it is not HTTP/1.1: {error}") from None
        if self.done:
            return
        if not self._in_body:
            if self._wire > HEAD_LIMIT:
                raise _unreadable(_HEAD_TOO_LARGE)
        elif self._wire > self._wire_limit:
            raise _unreadable("its framing is far larger than its content")

    def end(self) -> None:
        """The peer has sent its last byte, and the answer is not done yet.

        Raises:
            SendError: something is missing.
        """
        if not self._until_close:
            where = "body" if self._in_body else "headers"
            raise SendError(
                f"the connection was closed in the middle of the answer's {where}",
                kind="reset",
                sent=True,
            )
        try:
            self._finish()
        except _RefusedError:
            raise _unreadable(self._fault) from None

    def release(self) -> None:
        """Let go of the parser. It and the answer hold each other, and would wait for a
        collection of cycles with a body of a megabyte each."""
        del self._parser

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        if self.done:
            self.reusable = False  # a second answer that nobody asked for

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value) + 4
        self._header_count += 1
        if self._head_size > HEAD_LIMIT:
            self._refuse(_HEAD_TOO_LARGE)
        if self._header_count > HEADER_COUNT:
            self._refuse(f"it has more than {HEADER_COUNT} headers")
        if not self._in_body:  # else a trailer
            self.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self._interim += 1
            if status < 100 or status == 101:
                self._refuse(f"its status is {status:03d}")
            if self._interim > _INTERIM_LIMIT:
                self._refuse(f"more than {_INTERIM_LIMIT} interim answers came before it")
            return
        self.http_version = self._parser.get_http_version()
        if self.http_version not in ("1.1", "1.0"):
            self._refuse(f"its version is HTTP/{self.http_version}")
        self.status = status
        self._in_body = True
        self._until_close = True
        codings: list[bytes] = []
        for name, value in self.headers:
            lowered = name.lower()
            if lowered == b"content-length":
                self._until_close = False
            elif lowered == b"transfer-encoding":
                if value.lower() != b"chunked":
                    self._refuse("its transfer coding is not chunked alone")
                self._until_close = False
            elif lowered == b"content-encoding":
                codings.append(value.lower())
        if len(codings) == 1:
            self._inflater = Inflater.for_coding(codings[0])
        if self._head:  # the parser knows of 204 and 304 by itself
            self._finish()

    def on_chunk_header(self) -> None:
        if self.done:
            self.reusable = False  # a body after HEAD

    def on_body(self, data: bytes) -> None:
        if self.done:
            self.reusable = False
            return
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

    def on_message_complete(self) -> None:
        if not self._in_body:  # an interim answer; the real one follows
            self.headers.clear()
            self.reason = b""
        elif not self.done:
            self._finish()

    def _finish(self) -> None:
        if self._inflater is not None and not self._inflater.finished:
            self._refuse("its body ends in the middle of its Content-Encoding")
        self.done = True
        self.reusable = self._parser.should_keep_alive()

    def _refuse(self, why: str) -> None:
        self._fault = why
        raise _RefusedError


_HEAD_TOO_LARGE = f"its headers are larger than {HEAD_LIMIT // 1024} KiB"


def _unreadable(why: str) -> SendError:
    return SendError(f"the answer cannot be used: {why}", kind="protocol", sent=True)
