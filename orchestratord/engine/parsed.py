"""An answer of HTTP/1.1, parsed from the bytes of its connection."""

from __future__ import annotations

import httptools

from orchestratord.engine.answer import HttpAnswer, unreadable
from orchestratord.engine.decoding import Inflater
from orchestratord.errors import SendError

_VERSIONS = {"1.1": b"HTTP/1.1", "1.0": b"HTTP/1.0"}


class ParsedAnswer(HttpAnswer):
    """What comes over a connection of HTTP/1.1, from the status line to the body's last byte."""

    __slots__ = ("_parser", "_until_close", "reusable")

    def __init__(self, method: str, limit: int) -> None:
        super().__init__(method, limit)
        self.reusable = False  # the connection can carry another request
        self._until_close = False
        self._parser = httptools.HttpResponseParser(self)
        # One answer a connection at a time: neither leniency can be used to smuggle a second one,
        # and old servers need them.
        self._parser.set_dangerous_leniencies(
            lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

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
            raise unreadable(self._fault or f"it is not HTTP/1.1: {error}") from None
        if not self.done:
            self._check_framing()

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
        self._finish()

    def release(self) -> None:
        """Let go of the parser. It and the answer hold each other, and would wait for a
        collection of cycles with a body of a megabyte each."""
        del self._parser

    # The parser's callbacks, beside `on_header`.

    def on_message_begin(self) -> None:
        if self.done:
            self.reusable = False  # a second answer that nobody asked for

    def on_status(self, reason: bytes) -> None:
        self.reason = (self.reason or b"") + reason

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._is_interim(status):
            return
        version = self._parser.get_http_version()
        if version not in _VERSIONS:
            self._refuse(f"its version is HTTP/{version}")
        self.http_version = _VERSIONS[version]
        self.status = status
        self.reason = self.reason or b""
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
        else:
            self._take(data)

    def on_message_complete(self) -> None:
        if not self._in_body:  # an interim answer; the real one follows
            self.headers.clear()
            self.reason = None
        elif not self.done:
            self._finish()

    def _finish(self) -> None:
        super()._finish()
        self.reusable = self._parser.should_keep_alive()
