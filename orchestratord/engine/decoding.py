"""Decoding a body piece by piece, within a bound.

A few KiB of gzip can hold gigabytes. zlib is asked for no more than there is room for, so a bomb
costs what the limit allows and nothing beyond it.
"""

from __future__ import annotations

import zlib

ACCEPT_ENCODING = "gzip, deflate"
"""What is decoded here, for a request's Accept-Encoding. Anything else is handed on as it came."""

_GZIP = 16 + zlib.MAX_WBITS


class Inflater:
    """Decodes one body of content coding gzip or deflate.

    `zlib.error` comes out where the bytes are not what the coding promises.
    """

    __slots__ = ("_fed", "_held", "_zlib")

    def __init__(self, coding: bytes) -> None:
        self._fed = False
        self._held = b""
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
        # What follows the stream's end is padding. zlib would keep all of it.
        return b"" if self._zlib.eof else self._zlib.decompress(data, limit)
