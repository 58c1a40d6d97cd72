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
from operator import itemgetter, methodcaller
from typing import Any, NamedTuple, TypeGuard

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
_CONNECTION = b"connection"
_USUAL = 512
"""Bytes of the names of all headers; longer ones are not worth to be remembered."""
# Called for each field, and each name, of a message, by what is written in C.
_name, _value = itemgetter(0), itemgetter(1)
_text, _line = methodcaller("decode", "ascii"), b"%b: %b\r\n".__mod__
_PARTS = frozenset({"url", "headers", "stream"})
"""Of a request, made where they are looked at."""
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
    names: frozenset[bytes] | None = None
    """In small letters, the names of all fields and maybe others; None where they are not known."""

    def with_fields(self, fields: Fields, names: frozenset[bytes] | None) -> Plain:
        """The same with other fields behind those that are ready."""
        origin, target, _, method, ready, head, closes, _ = self
        return Plain(origin, target, fields, method, ready, head, closes, names)

    def lacks(self, names: frozenset[bytes]) -> bool:
        """Whether no field has one of these names, in small letters."""
        known = self.names
        if known is None:
            known = frozenset([name.lower() for name, _ in self.fields])
        return known.isdisjoint(names)


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
            rows = header_lines(fields)
            if _SENDABLE.fullmatch(line + rows) and rows.count(b"\n") == len(fields):
                plain = plain._replace(
                    method=method, ready=len(fields), head=line + rows, closes=asks_to_close(fields)
                )
            self._plain = plain._replace(fields=fields)

    def request(self, content: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Request:
        """A request with `content` and these `headers` besides; one takes the place of its like.

        Raises ValueError for a header that cannot be encoded.
        """
        plain, names = self._plain, self._names
        if plain is None or not content:
            return self._other(content, headers)
        fields = plain.fields.copy()
        if headers:
            new = _new_names(tuple(headers))
            if not names.isdisjoint(new.lowered):
                return self._other(content, headers)
            fields += zip(new.sent, map(str.encode, headers.values()), strict=True)
            names |= new.lowered
        fields.append((b"Content-Length", b"%d" % len(content)))
        request = Request.__new__(Request)
        request.method = self._whole[0]
        request.extensions = {}
        request._content = content
        request._plain = plain.with_fields(fields, names)
        return request

    def _other(self, content: bytes, headers: Mapping[str, str]) -> Request:
        method, url, common = self._whole
        names = {name.lower() for name in headers}
        kept = {name: value for name, value in common.items() if name.lower() not in names}
        return Request(method, url, headers={**kept, **headers}, content=content)


def header_lines(fields: Fields) -> bytes:
    """Headers as they go over the wire; what could not be sent is for others to find."""
    return b"".join(map(_line, fields))


def asks_to_close(fields: Fields) -> bool:
    """Whether a header says that the connection is to be closed afterwards."""
    closes = False
    for name, value in fields:
        if len(name) == len(_CONNECTION) and name.lower() == _CONNECTION:
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
        made = self.__dict__
        plain: Plain | None = made.get("_plain") if _PARTS.isdisjoint(made) else None
        return plain


class Response(httpx.Response):
    """An answer that has been read to its end, or to where it was cut.

    Args:
        status_code: its status.
        fields: its headers, as they came.
        content: its decoded body.
        request: what it answers.
        extensions: `http_version`, `reason_phrase`, and `truncated` where the body was cut.
        names: those of the headers, by `names_of`; worked out where left out.
    """

    next_request = None
    is_closed = True
    is_stream_consumed = True
    default_encoding = "utf-8"

    def __init__(
        self,
        status_code: int,
        fields: Fields,
        content: bytes,
        request: httpx.Request,
        extensions: dict[str, Any],
        names: tuple[str, ...] | None = None,
    ) -> None:
        self.status_code = status_code
        self._fields = fields
        self._names = names_of(fields) if names is None else names
        self._content = content
        self._request = request
        self.extensions = extensions
        self.history = []
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
    names = _new_names(tuple(headers), tuple(instead_of))
    new = zip(names.sent, map(str.encode, headers.values()), strict=True)
    # What frames a request is looked at again before it goes out.
    if not isinstance(request, Request) or names.frame or (plain := request.plain) is None:
        kept = [field for field in request.headers.raw if field[0].lower() not in names.lowered]
        request.headers = httpx.Headers([*kept, *new])
        return
    fields, known = plain.fields, plain.names
    if plain.lacks(names.lowered):  # as of all requests that come from a form
        fields = [*fields, *new]
    else:
        kept = [field for field in fields if field[0].lower() not in names.lowered]
        if kept[: plain.ready] != fields[: plain.ready]:
            plain = plain._replace(ready=0, head=b"", closes=False)  # it holds one that is gone
        fields = [*kept, *new]
    if known is not None:
        known |= names.lowered
    request._plain = plain.with_fields(fields, known)


class _NewNames(NamedTuple):
    """Names of headers that are set: as they are sent, these and those that go in small letters,
    and whether one of them frames a request."""

    sent: tuple[bytes, ...]
    lowered: frozenset[bytes]
    frame: bool


@lru_cache(maxsize=256)
def _new_names(names: tuple[str, ...], others: tuple[str, ...] = ()) -> _NewNames:
    sent = tuple([name.encode("ascii") for name in names])
    lowered = frozenset([name.encode("ascii").lower() for name in (*names, *others)])
    return _NewNames(sent, lowered, not lowered.isdisjoint(FRAMING))


def header(response: httpx.Response, name: str) -> str | None:
    """The value of a header, None where it is not there. `name` is in small letters."""
    if _untouched(response) and name not in response._names:
        return None
    found: str | None = response.headers.get(name)
    return found


def header_items(response: httpx.Response) -> Iterable[tuple[str, str]]:
    """Every header, its name in small letters."""
    if _untouched(response):
        names, fields = response._names, response._fields
        try:
            return list(zip(names, map(_text, map(_value, fields)), strict=True))
        except ValueError:  # one of them is no ASCII
            pass
    return response.headers.multi_items()


def headers_as_they_came(
    response: httpx.Response,
) -> tuple[tuple[str, ...], Fields] | None:
    """Names in small letters, and the fields; None where a hook may have changed them."""
    return (response._names, response._fields) if _untouched(response) else None


def names_of(fields: Fields) -> tuple[str, ...]:
    """The names of headers in small letters, in their order; what is no ASCII is left out."""
    names = tuple(map(_name, fields))
    usual = sum(map(len, names)) <= _USUAL
    return _lowered(names) if usual else _lowered.__wrapped__(names)


@lru_cache(maxsize=512)
def _lowered(names: tuple[bytes, ...]) -> tuple[str, ...]:
    """Most servers give all of their answers the same headers."""
    return tuple([name.decode("ascii").lower() for name in names if name.isascii()])


def _untouched(response: httpx.Response) -> TypeGuard[Response]:
    """Whether an answer's headers are as they came."""
    return isinstance(response, Response) and "headers" not in response.__dict__


@lru_cache(maxsize=4096)
def _origin(text: str) -> Origin:
    url = httpx.URL(text + "/")
    return Origin.of(url)
