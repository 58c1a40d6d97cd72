"""One answer, parsed from the bytes of its connection: status, headers, decoded body, each bounded.

A few KiB of gzip can hold gigabytes. zlib is asked for no more than there is room for, so a bomb
costs what the limit allows and nothing beyond it.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple, NoReturn

import httptools

from orchestratord.errors import SendError
from orchestratord.http.saved_answer import SavedAnswer
from orchestratord.model.http_message import Fields, names_of

ACCEPT_ENCODING = "gzip, deflate"
"""What is decoded here, for a request's Accept-Encoding. Anything else is handed on as it came."""

HEAD_LIMIT = 65_536  # bytes of all header lines, those of interim answers and trailers included
HEADER_COUNT = 200
_INTERIM_LIMIT = 10  # answers of status 1xx before the real one
_HEAD_TOO_LARGE = f"its headers are larger than {HEAD_LIMIT // 1024} KiB"
_TOO_MANY_HEADERS = f"it has more than {HEADER_COUNT} headers"
_VERSIONS = {"1.1": b"HTTP/1.1", "1.0": b"HTTP/1.0"}
_GZIP = 16 + zlib.MAX_WBITS
_MEMBER = b"\x1f\x8b"
"""What each member of a body of gzip begins with."""
MEMBERS = 4096  # that a body may have


class ReceivedAnswer(NamedTuple):
    """An answer that has been read to its end, or to where its body was cut."""

    status: int
    reason: bytes
    http_version: bytes
    headers: Fields
    names: tuple[str, ...]
    """Those of the headers, by `names_of`."""
    content: bytes
    """The decoded body."""
    truncated: bool


class ResponseParser:
    """An answer, from the status line to the body's last byte.

    Everything that comes is consumed at once, into a body that `limit` bounds, so reading never
    has to be paused: what is over the bound ends the answer.

    Args:
        method: the request's; an answer to HEAD has no body.
        limit: how many bytes of decoded body are kept.
    """

    # What an answer begins with: one is made for each request, and most of this stays as it is.
    status = 0
    reason = b""
    http_version = b"HTTP/1.1"
    names: tuple[str, ...] = ()  # of the headers, by `names_of`
    truncated = False
    done = False
    reusable = False  # the connection can carry another request
    _wire = 0
    _earlier: Sequence[tuple[bytes, bytes]] = ()  # headers of interim answers
    _interim = 0
    _in_body = False
    _until_close = False
    _inflater: Inflater | None = None
    _fault = ""

    def __init__(self, method: str, limit: int) -> None:
        self.headers: Fields = []
        # One buffer, not a list of pieces: a body of one-byte chunks would cost 40 times its size.
        self.body = bytearray()
        self._head = method == "HEAD"
        self._limit = limit
        self._fields = self.headers  # where those go that come: headers, and trailers later
        self._parser = parser = httptools.HttpResponseParser(self)
        # One answer a connection at a time: neither leniency can be used to smuggle a second one,
        # and old servers need them.
        parser.set_dangerous_leniencies(
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
            if self.done:  # it is what came after the answer that is refused
                self.reusable = False
                return
            raise _unreadable(self._fault or f"it is not HTTP/1.1: {error}") from None
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

    def answer(self) -> ReceivedAnswer:
        """What has come, once it is `done`."""
        body, cut = bytes(self.body), self.truncated
        status, reason, version = self.status, self.reason, self.http_version
        return ReceivedAnswer(status, reason, version, self.headers, self.names, body, cut)

    def release(self) -> None:
        """Let go of the parser. It and what it calls hold each other, and would wait for a
        collection of cycles with a body of a megabyte each."""
        del self._parser

    # The parser's callbacks.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header of the answer, of an interim one before it, or one of its trailers."""
        self._fields.append((name, value.rstrip(b" \t")))

    def on_message_begin(self) -> None:
        if self.done:
            self._refuse("a second answer came, which was not asked for")

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_headers_complete(self) -> None:
        # Most heads are too short to be beyond the bounds.
        if self._wire > HEAD_LIMIT or len(self.headers) > HEADER_COUNT or self._interim:
            self._check_head()
        status = self._parser.get_status_code()
        if status < 200:
            self._check_interim(status)
            return
        version = self._parser.get_http_version()
        if version != "1.1":
            if version not in _VERSIONS:
                self._refuse(f"its version is HTTP/{version}")
            self.http_version = _VERSIONS[version]
        self.status = status
        self._in_body = True
        self._fields = []
        self.names = names = names_of(self.headers)
        if "transfer-encoding" in names:
            if any(value.lower() != b"chunked" for value in self._values(b"transfer-encoding")):
                self._refuse("its transfer coding is not chunked alone")
        elif "content-length" not in names:
            self._until_close = True
        if "content-encoding" in names:
            codings = self._values(b"content-encoding")
            if len(codings) == 1:
                self._inflater = Inflater.for_coding(codings[0].lower())
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
            self._earlier = [*self._earlier, *self.headers]
            self.headers.clear()
            self.reason = b""
            return
        if self._fields:
            self._check_head()
        if not self.done:
            self._finish()

    # What they have in common.

    def _values(self, wanted: bytes) -> list[bytes]:
        return [value for name, value in self.headers if name.lower() == wanted]

    def _check_head(self) -> None:
        """Headers, those of interim answers and trailers, as far as they have come."""
        fields = [*self._earlier, *self.headers]
        if self._in_body:
            fields += self._fields
        if len(fields) > HEADER_COUNT:
            self._refuse(_TOO_MANY_HEADERS)
        if sum(map(len, chain.from_iterable(fields))) + 4 * len(fields) > HEAD_LIMIT:
            self._refuse(_HEAD_TOO_LARGE)

    def _check_interim(self, status: int) -> None:
        self._interim += 1
        if status < 100 or status == 101:
            self._refuse(f"its status is {status:03d}")
        if self._interim > _INTERIM_LIMIT:
            self._refuse(f"more than {_INTERIM_LIMIT} interim answers came before it")

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
        self.reusable = self._parser.should_keep_alive()

    def _check_framing(self) -> None:
        if len(self._fields) > HEADER_COUNT:
            self._refuse(_TOO_MANY_HEADERS)
        if not self._in_body:
            if self._wire > HEAD_LIMIT:
                self._refuse(_HEAD_TOO_LARGE)
        # Framing can be far larger than content: chunk extensions, gzip blocks that hold nothing.
        elif self._wire > 8 * self._limit + 262_144 + HEAD_LIMIT:
            self._refuse("its framing is far larger than its content")

    def _refuse(self, why: str) -> NoReturn:
        self._fault = why
        raise _unreadable(why)


class SavingParser(ResponseParser):
    """One of which the body of an answer with a code of 2xx goes to a file, as it comes: encoded as
    it is, for what it would be decoded to has no bound.

    Args:
        method: of the request, as is `limit` for any other answer.
        saved: the file.
        transport: is not read from while the file is not written as quickly.
    """

    def __init__(
        self, method: str, limit: int, saved: SavedAnswer, transport: asyncio.ReadTransport
    ) -> None:
        super().__init__(method, limit)
        self._saved = saved
        self._transport = transport
        self._saves = False

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if 200 <= self.status < 300:
            self._saves, self._inflater, self._limit = True, None, self._saved.most

    def _take(self, data: bytes) -> None:
        if not self._saves:
            super()._take(data)
            return
        room = self._limit - self._saved.size
        if len(data) > room or self._saved.error is not None:  # its reader finds out which
            self.truncated = self.done = True
            data = data[:room]
        if not self._saved.take(data, self._transport.resume_reading):
            self._transport.pause_reading()


def _unreadable(why: str) -> SendError:
    """The error for an answer that cannot be used."""
    return SendError(f"the answer cannot be used: {why}", kind="protocol", sent=True)


class Inflater:
    """Decodes one body of content coding gzip or deflate.

    `zlib.error` comes out where the bytes are not what the coding promises.
    """

    __slots__ = ("_fed", "_held", "_members", "_zlib")

    def __init__(self, coding: bytes) -> None:
        self._fed = False
        self._held = b""
        self._members = 0 if coding == b"deflate" else MEMBERS
        """How many may be there still; 0 where only padding may follow."""
        self._zlib = None if coding == b"deflate" else zlib.decompressobj(_GZIP)

    @classmethod
    def for_coding(cls, coding: bytes) -> Inflater | None:
        """The decoder for a Content-Encoding in lower case; None where it is left as it is."""
        return cls(coding) if coding in (b"gzip", b"x-gzip", b"deflate") else None

    @property
    def finished(self) -> bool:
        """True when the stream has come to its own end, or nothing has come at all."""
        return not self._fed or (self._zlib is not None and self._zlib.eof)

    def decode(self, data: bytes, limit: int) -> bytes:
        """Decode the next piece.

        Args:
            data: bytes as they came.
            limit: how many bytes to make at most, at least 1. Where the result has this length
                there may be more of it, which is lost.
        """
        self._fed = True
        if self._zlib is None:
            # "deflate" is sent both with zlib's two bytes of header, as it should be, and bare.
            data = self._held + data
            self._held = data if len(data) < 2 else b""
            if self._held or not data:
                return b""
            wrapped = data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
            self._zlib = zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
        made = b""
        while data and len(made) < limit:
            if self._zlib.eof:  # another member (RFC 1952, 2.2), or padding, which zlib would keep
                data = self._held + data
                self._held = data if data == _MEMBER[:1] and self._members else b""
                if self._held or not self._members:
                    break
                if not data.startswith(_MEMBER):
                    self._members = 0
                    break
                self._members -= 1
                if not self._members:  # each one copies what is left
                    raise zlib.error
                self._zlib = zlib.decompressobj(_GZIP)
            made += self._zlib.decompress(data, limit - len(made))
            data = self._zlib.unused_data
        return made
