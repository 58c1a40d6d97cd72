"""Requests and answers as the daemon makes them: httpx's objects, whose URL and headers are made
when they are looked at.

Hooks and plugins see `httpx.Request` and `httpx.Response`. Making these in full takes longer than
sending the bytes, and most attempts meet no hook that looks: what the client and the store need
is kept as it goes over the wire.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import httpx

MAX_RESPONSE = 1 << 20
"""Bytes of an answer's body that are read where nothing else is said; the rest is cut off."""

Fields = list[tuple[bytes, bytes]]
"""Names and values of headers, in the order of the wire."""

BODY_FILE = "orchestratord.body_file"
"""The extension of a request that names the file its content was read from."""

# Less than what httpx leaves as it is in a path and in a query: of these, nothing is changed. The
# target begins with its slash, so that no end of a host can be taken for one.
_PLAIN = re.compile(
    r"(https?://[^/?#\\@:][^/?#\\@]*)(/(?:[A-Za-z0-9\-._~!$&()*+,;=:@/]|%[0-9A-Fa-f]{2})*"
    r"(?:\?(?:[A-Za-z0-9\-._~!$&()*+,;=:@/?]|%[0-9A-Fa-f]{2})*)?)"
)
TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
"""As a regular expression: a method, and the name of a header."""
REQUEST_LINE = TOKEN + rb" [\x21-\x7e]+"
"""As a regular expression: a request's line, but for the version."""
HEADER_LINES = rb"(?:" + TOKEN + rb": [^\x00\r\n]*\r\n)*"
"""As a regular expression: headers that can be sent."""
_SENDABLE = re.compile(REQUEST_LINE + rb" HTTP/1.1\r\n" + HEADER_LINES)
_LONGEST = 65_536
"""Characters of a URL; httpx takes no longer one."""
FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding"})
"""Headers that say where a request goes and where it ends."""
PORTS = {"http": 80, "https": 443}
"""Of the schemes, where a URL names none."""
_CONNECTION = len(b"connection")
_USUAL = 64
"""Bytes of a header's name; a longer one is not worth to be remembered."""
NO_HEADERS: Mapping[str, str] = {}


class Origin(NamedTuple):
    """What the first part of a URL says."""

    scheme: bytes
    name: str
    """The host, without the brackets of an address."""
    port: int | None
    """None for the scheme's own."""
    netloc: bytes
    """As the Host header has it."""
    text: str

    @classmethod
    def of(cls, url: httpx.URL) -> Origin:
        """The origin of a URL that names a host."""
        # In a URL the zone of an IPv6 address stands behind an encoded percent sign.
        name = url.raw_host.decode("ascii").replace("%25", "%")
        text = f"{url.scheme}://{url.netloc.decode('ascii')}"
        return cls(url.raw_scheme, name, url.port, url.netloc, text)


class Plain(NamedTuple):
    """A request as it goes out, whose URL and headers have not been looked at."""

    origin: Origin
    target: bytes
    fields: Fields
    method: str = ""
    """The method that stands in `head`."""
    ready: int = 0
    """How many of the fields, from the first one, are in `head`."""
    head: bytes = b""
    """The request line and these fields, as bytes that can be sent; empty where there are none."""
    closes: bool = False
    """Whether one of these fields asks for the connection to be closed."""


class Form:
    """What many requests have in common, worked out once; content and some headers differ.

    Args:
        method: in capital letters.
        url: absolute.
        headers: values go out as UTF-8.

    Raises:
        httpx.InvalidURL: `url` is none.
        ValueError: a header cannot be encoded.
    """

    def __init__(self, method: str, url: str, headers: Mapping[str, str]) -> None:
        self._whole = method, url, headers
        self._names = FRAMING | {name.encode("ascii").lower() for name in headers}
        plain = Request(method, url, headers=headers, content=b"-").plain
        self._plain: Plain | None = None
        if plain is not None:
            fields = plain.fields[:-1]  # all but the length of the content
            line = b"%b %b HTTP/1.1\r\n" % (method.encode(), plain.target)
            rows = b"".join([b"%b: %b\r\n" % field for field in fields])
            if _SENDABLE.fullmatch(line + rows) and rows.count(b"\n") == len(fields):
                plain = plain._replace(
                    method=method, ready=len(fields), head=line + rows, closes=asks_to_close(fields)
                )
            self._plain = plain._replace(fields=fields)

    def request(self, content: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Request:
        """A request with `content` and these `headers` besides; one takes the place of its like.

        Raises ValueError for a header that cannot be encoded.
        """
        plain, own = self._plain, []
        if headers:
            own = [(name.encode("ascii"), value.encode()) for name, value in headers.items()]
        if plain is None or not content or any(name.lower() in self._names for name, _ in own):
            method, url, common = self._whole
            names = {name.lower() for name in headers}
            kept = {name: value for name, value in common.items() if name.lower() not in names}
            return Request(method, url, headers={**kept, **headers}, content=content)
        fields = [*plain.fields, *own]
        fields.append((b"Content-Length", b"%d" % len(content)))
        origin, target, _, method, ready, head, closes = plain
        request = Request.__new__(Request)
        request.method = self._whole[0]
        request.extensions = {}
        request._content = content
        request._plain = Plain(origin, target, fields, method, ready, head, closes)
        return request


def asks_to_close(fields: Fields) -> bool:
    """Whether a header says that the connection is to be closed afterwards."""
    closes = False
    for name, value in fields:
        if len(name) == _CONNECTION and name.lower() == b"connection":
            closes = b"close" in value.lower()
    return closes


class Request(httpx.Request):
    """A request with all its content.

    Args:
        method: goes out in capital letters.
        url: absolute.
        headers: values go out as UTF-8.
        content: None for no body.

    Raises:
        httpx.InvalidURL: `url` is none.
        ValueError: a header cannot be encoded.
    """

    def __init__(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> None:
        method = method.upper()
        given = [(n.encode("ascii"), v.encode()) for n, v in headers.items()] if headers else []
        parts = _PLAIN.fullmatch(url) if len(url) <= _LONGEST else None
        target = parts[2] if parts else "/."
        # httpx resolves dots in a path, and keeps to lengths and hosts that are given.
        framed = any(name.lower() in FRAMING for name, _ in given)
        if parts is None or "/." in target or framed:
            super().__init__(method, url, headers=given, content=content)
            return
        origin = _origin(parts[1])
        fields: Fields = [(b"Host", origin.netloc)]
        if not content and method in ("POST", "PUT", "PATCH"):
            fields.append((b"Content-Length", b"0"))
        fields += given
        if content:
            fields.append((b"Content-Length", b"%d" % len(content)))
        self.method = method
        self.extensions = {}
        self._content = content or b""
        self._plain = Plain(origin, target.encode("ascii"), fields)

    @cached_property
    def url(self) -> httpx.URL:  # type: ignore[override]
        """Made where it is looked at, as are those below."""
        return httpx.URL(self._plain.origin.text + self._plain.target.decode("ascii"))

    @cached_property
    def headers(self) -> httpx.Headers:  # type: ignore[override]
        return httpx.Headers(self._plain.fields)

    @cached_property
    def stream(self) -> httpx.ByteStream:  # type: ignore[override]
        return httpx.ByteStream(self._content)

    @property
    def plain(self) -> Plain | None:
        """The request as it goes out; None where it may have been changed."""
        seen = self.__dict__
        if "url" in seen or "headers" in seen or "stream" in seen:
            return None
        plain: Plain | None = seen.get("_plain")
        return plain


class Response(httpx.Response):
    """An answer that has been read to its end, or to where it was cut.

    Args:
        status_code: its status.
        fields: its headers, as they came.
        content: its decoded body.
        request: what it answers.
        extensions: `http_version`, `reason_phrase`, and `truncated` where the body was cut.
    """

    def __init__(
        self,
        status_code: int,
        fields: Fields,
        content: bytes,
        request: httpx.Request,
        extensions: dict[str, Any],
    ) -> None:
        self.status_code = status_code
        self._fields = fields
        self._content = content
        self._request = request
        self.next_request = None
        self.extensions = extensions
        self.history = []
        self.is_closed = True
        self.is_stream_consumed = True
        self.default_encoding = "utf-8"
        self._num_bytes_downloaded = len(content)

    @cached_property
    def headers(self) -> httpx.Headers:  # type: ignore[override]
        """Made where it is looked at, as is `stream`."""
        return httpx.Headers(self._fields)

    @cached_property
    def stream(self) -> httpx.ByteStream:  # type: ignore[override]
        return httpx.ByteStream(self._content)


def url_text(request: httpx.Request) -> str:
    """The URL of a request as a text."""
    plain = request.plain if isinstance(request, Request) else None
    return plain.origin.text + plain.target.decode("ascii") if plain else str(request.url)


def request_header(request: httpx.Request, name: str) -> str | None:
    """The value of a header, None where it is not there. `name` is in small letters."""
    plain = request.plain if isinstance(request, Request) else None
    if plain is None:
        found: str | None = request.headers.get(name)
        return found
    wanted = name.encode("ascii")
    for field, value in plain.fields:
        if len(field) == len(wanted) and field.lower() == wanted:
            return value.decode(errors="replace")
    return None


def put_headers(
    request: httpx.Request, headers: Mapping[str, str], instead_of: Iterable[str] = ()
) -> None:
    """Set headers of a request.

    Args:
        request: is changed.
        headers: names, in small letters, and values; one replaces all that have its name.
        instead_of: names, in small letters, that go as well.
    """
    gone = _encoded((*headers, *instead_of))
    # What frames a request is looked at again before it goes out.
    plain = None
    if isinstance(request, Request) and gone.isdisjoint(FRAMING):
        plain = request.plain
    fields = plain.fields if plain else request.headers.raw
    new = [(name.encode("ascii"), value.encode()) for name, value in headers.items()]
    kept = fields
    if not gone.isdisjoint([name.lower() for name, _ in fields]):
        kept = [field for field in fields if field[0].lower() not in gone]
        if plain and kept[: plain.ready] != fields[: plain.ready]:
            plain = plain._replace(ready=0, head=b"", closes=False)  # it holds one that is gone
    if plain and isinstance(request, Request):
        origin, target, _, method, ready, head, closes = plain
        request._plain = Plain(origin, target, [*kept, *new], method, ready, head, closes)
    else:
        request.headers = httpx.Headers([*kept, *new])


@lru_cache(maxsize=256)
def _encoded(names: tuple[str, ...]) -> frozenset[bytes]:
    return frozenset(name.encode("ascii") for name in names)


def header(response: httpx.Response, name: str) -> str | None:
    """The value of a header, None where it is not there. `name` is in small letters."""
    fields = _untouched(response)
    if fields is None:
        found: str | None = response.headers.get(name)
        return found
    wanted = name.encode("ascii")
    for field, _ in fields:
        if len(field) == len(wanted) and field.lower() == wanted:
            value: str | None = response.headers.get(name)
            return value
    return None


def header_items(response: httpx.Response) -> Iterable[tuple[str, str]]:
    """Every header, its name in small letters."""
    fields = _untouched(response)
    if fields is not None:
        try:
            return [
                (
                    _lowered(name) if len(name) < _USUAL else name.decode("ascii").lower(),
                    value.decode("ascii"),
                )
                for name, value in fields
            ]
        except UnicodeDecodeError:
            pass
    return response.headers.multi_items()


@lru_cache(maxsize=1024)
def _lowered(name: bytes) -> str:
    return name.decode("ascii").lower()


def _untouched(response: httpx.Response) -> Fields | None:
    if isinstance(response, Response) and "headers" not in response.__dict__:
        return response._fields
    return None


@lru_cache(maxsize=4096)
def _origin(text: str) -> Origin:
    url = httpx.URL(text + "/")
    return Origin.of(url)
