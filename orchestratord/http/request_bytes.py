"""A request as it goes out: its line, its headers, its body."""

from __future__ import annotations

import re
from typing import NamedTuple

import httpx

from orchestratord.errors import SendError
from orchestratord.http.saved_answer import SAVED, SavedAnswer
from orchestratord.http.streamed_body import SENT, StreamedBody
from orchestratord.model.http_message import (
    FRAMING,
    HEADER_LINES,
    REQUEST_LINE,
    Plain,
    Request,
    asks_to_close,
    header_lines,
)

_LINE = re.compile(REQUEST_LINE)
_FIELDS = re.compile(HEADER_LINES)
_LOOKED_AT = FRAMING | {b"connection"}


class Encoded(NamedTuple):
    """A request in HTTP/1.1. `closes` is True when it asks for the connection to be closed; `sent`
    is the body where that is read while it is sent, and `saved` where that of the answer goes."""

    request: httpx.Request
    head: bytes
    body: bytes
    closes: bool
    sent: StreamedBody | None = None
    saved: SavedAnswer | None = None


def encode(request: httpx.Request) -> Encoded:
    """Put a request whose content has been read into bytes, its URL and headers as they are.

    Nothing is added to it, and Host goes first. What could not be framed, or would be read as
    something else than what it says, is refused: a header with a line break, a length that is not
    the body's.

    Raises:
        SendError: the request cannot be sent; nothing of it was.
    """
    if isinstance(request, Request) and (plain := request.plain) is not None:
        return encode_plain(request, plain)
    try:
        body = request.content
    except httpx.RequestNotRead:
        raise unsendable("its content has not been read") from None
    line = b"%b %b" % (request.method.encode(), request.url.raw_path)
    if not _LINE.fullmatch(line):
        raise unsendable("its method or its URL holds characters that cannot be sent")
    headers = request.headers.raw
    lengths: list[bytes] = []
    codings: list[bytes] = []
    hosts = 0
    closes = False
    for name, value in headers:
        lowered = name.lower()
        if lowered not in _LOOKED_AT:
            continue
        if lowered == b"host":
            hosts += 1
        elif lowered == b"content-length":
            lengths.append(value)
        elif lowered == b"transfer-encoding":
            codings.append(value.lower())
        else:
            closes = b"close" in value.lower()
    if hosts != 1:
        raise unsendable("it needs one Host header")
    if headers[0][0].lower() != b"host":  # the first one, by RFC 9112 and for some old servers
        headers = sorted(headers, key=lambda field: field[0].lower() != b"host")
    fields = header_lines(headers)
    # One line a header: a line break within a value would match as a header of its own.
    if fields.count(b"\n") != len(headers) or not _FIELDS.fullmatch(fields):
        raise unsendable("a header holds characters that cannot be sent")
    head = b"%b HTTP/1.1\r\n%b\r\n" % (line, fields)
    sent: StreamedBody | None = request.extensions.get(SENT)
    if sent is not None:
        if codings or lengths != [b"%d" % sent.length]:
            raise unsendable("its Content-Length is not the length of its body")
    elif codings or lengths or body:
        body = _framed(body, lengths, codings)
    return Encoded(request, head, body, closes, sent, request.extensions.get(SAVED))


def encode_plain(request: Request, plain: Plain) -> Encoded:
    """Encode one of ours, whose Host and length are right by the way in which it was made."""
    lines = request._lines
    if lines is not None and request.method == plain.method:  # as of nearly all
        head = b"%b%b\r\n" % (plain.head, lines)
        return Encoded(request, head, request._content, plain.closes)
    head, closes, fields = plain.head, plain.closes, request._own_fields()
    if not head or request.method != plain.method:
        line = b"%b %b" % (request.method.encode(), plain.target)
        if not _LINE.fullmatch(line):
            raise unsendable("its method or its URL holds characters that cannot be sent")
        head, closes, fields = line + b" HTTP/1.1\r\n", False, request.fields
    rows = header_lines(fields)
    if rows.count(b"\n") != len(fields) or not _FIELDS.fullmatch(rows):
        raise unsendable("a header holds characters that cannot be sent")
    names = request._names
    if names is None or b"connection" in names:
        closes = closes or asks_to_close(fields)
    return Encoded(request, b"%b%b\r\n" % (head, rows), request._content, closes)


def _framed(body: bytes, lengths: list[bytes], codings: list[bytes]) -> bytes:
    """The body as the headers announce it."""
    if codings:
        if codings != [b"chunked"] or lengths:
            raise unsendable("its Transfer-Encoding is not chunked, and that alone")
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return chunk + b"0\r\n\r\n"
    if lengths != [b"%d" % len(body)] and (lengths or body):
        raise unsendable("its Content-Length is not the length of its body")
    return body


def unsendable(why: str) -> SendError:
    """The error for a request of which nothing was sent, because of what it is."""
    return SendError(f"the request cannot be sent: {why}", kind="protocol", sent=False)
