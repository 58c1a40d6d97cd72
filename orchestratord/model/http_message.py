"""Requests and answers as the daemon makes them: httpx's objects, whose URL and headers are made
when they are looked at.

Hooks and plugins see `httpx.Request` and `httpx.Response`. Making these in full takes longer than
sending the bytes, and most attempts meet no hook that looks: what the client and the store need
is kept as it goes over the wire.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property, lru_cache
from operator import itemgetter, methodcaller
from typing import Any, Generic, NamedTuple, TypeVar

import httpx

T = TypeVar("T")

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
_NAME = re.compile(TOKEN)
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
    """Where a request goes, and how its bytes begin: what all requests of a form have in common."""

    origin: Origin
    target: bytes
    first: Fields
    """Its first headers; the others are those of the request alone."""
    method: str = ""
    """The method that stands in `head`."""
    head: bytes = b""
    """The request line and the first headers, as bytes that can be sent; empty where these have not
    been looked at."""
    closes: bool = False
    """Whether one of the first headers asks for the connection to be closed."""


class Form:
    """What many requests have in common, worked out once; content and some headers differ.

    Args:
        method: in capital letters.
        url: absolute.
        headers: values go out as UTF-8.
        own: names of the headers of which each request has its own value.

    Raises:
        httpx.InvalidURL: `url` is none.
        ValueError: a header cannot be encoded.
    """

    def __init__(
        self, method: str, url: str, headers: Mapping[str, str], own: Sequence[str] = ()
    ) -> None:
        self._whole = method, url, headers, own
        self._plain: Plain | None = None
        """None where requests cannot be made of lines alone."""
        common = FRAMING | {name.encode("ascii").lower() for name in headers}
        new = _new_names(common, tuple(own), ())
        self._lines = new.lines
        self._names = new.together or common
        request = Request(method, url, headers=headers, content=b"-")
        plain = request.plain
        if plain is not None and new.together is not None:
            fields = request.fields[:-1]  # all but the length of the content
            head = b"%b %b HTTP/1.1\r\n" % (method.encode(), plain.target) + header_lines(fields)
            if _SENDABLE.fullmatch(head) and head.count(b"\n") == len(fields) + 1:
                self._plain = Plain(
                    plain.origin, plain.target, fields, method, head, asks_to_close(fields)
                )

    def request(self, content: bytes, headers: tuple[str, ...] | Mapping[str, str] = ()) -> Request:
        """A request with `content` and with `headers` of its own: the values of those that the form
        names, in their order; or any others by their names, which takes longer.

        Raises ValueError for a header that cannot be encoded.
        """
        if not isinstance(headers, tuple):
            method, url, common, _ = self._whole
            form = Form(method, url, common, tuple(headers))
            return form.request(content, tuple(headers.values()))
        plain, own = self._plain, b""
        if plain is None or not content:
            return self._other(content, headers)
        if headers:
            if not "".join(headers).isprintable():
                return self._other(content, headers)
            own = (self._lines % headers).encode()
        request: Request = _new_request(Request)
        request.method = plain.method
        request.extensions = {}
        request._content = content
        request.plain = request._plain = plain
        request._lines = b"%bContent-Length: %d\r\n" % (own, len(content))
        request._names = self._names
        return request

    def _other(self, content: bytes, values: Sequence[str]) -> Request:
        method, url, common, own = self._whole
        names = {name.lower() for name in own}
        headers = {name: value for name, value in common.items() if name.lower() not in names}
        headers |= zip(own, values, strict=True)
        return Request(method, url, headers=headers, content=content)


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


class _Part(Generic[T]):
    """A part of a message that is made when it is looked at: it may be changed from then on, so
    that the message is `plain` no longer."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self._name = f"_made_{make.__name__}"
        self.__doc__ = make.__doc__

    def __get__(self, message: Any, owner: type | None = None) -> T:
        if message is None:
            return self  # type: ignore[return-value]  # of the class
        made: dict[str, T] = message.__dict__
        if self._name not in made:
            self.__set__(message, self._make(message))
        return made[self._name]

    def __set__(self, message: Any, value: T) -> None:
        message.plain = None
        message.__dict__[self._name] = value


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

    plain: Plain | None = None
    """How it begins as it goes out, where its URL and headers have not been looked at; None where
    they may have been changed."""
    _lines: bytes | None = None
    """Its own headers as they go out, where they are known to be ones that can be sent; None where
    they stand in `_fields`."""

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
        self.plain = self._plain = Plain(origin, target.encode("ascii"), [])
        self._fields = fields
        self._names: frozenset[bytes] | None = None
        """Those of all fields and maybe others, in small letters; None where they are not known."""

    @_Part
    def url(self) -> httpx.URL:
        """Made where it is looked at, as are those below."""
        return httpx.URL(self._plain.origin.text + self._plain.target.decode("ascii"))

    @_Part
    def headers(self) -> httpx.Headers:
        return httpx.Headers(self.fields)

    @_Part
    def stream(self) -> httpx.ByteStream:
        return httpx.ByteStream(self._content)

    @property
    def fields(self) -> Fields:
        """All of its headers as they go out, where it is `plain`."""
        return [*self._plain.first, *self._own_fields()]

    def _own_fields(self) -> Fields:
        """Those of its headers that are not of all requests of its form."""
        if self._lines is None:
            return self._fields
        parts = [line.partition(b": ") for line in self._lines.split(b"\r\n")]
        return [(name, value) for name, _, value in parts[:-1]]


_new_request = Request.__new__


class Response(httpx.Response):
    """An answer that has been read to its end, or to where it was cut.

    Args:
        status_code: its status.
        fields: its headers, as they came.
        content: its decoded body.
        request: what it answers.
        extensions: `http_version`, `reason_phrase`, and `truncated` where the body was cut.
        names: those of the headers, by `names_of`; worked out where left out.
        took: seconds from its request to its last byte, where that is known.
    """

    plain: tuple[str, ...] | None = None
    """The names of its headers, by `names_of`, where these have not been looked at."""
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
        took: float | None = None,
    ) -> None:
        self.status_code = status_code
        self._fields = fields
        self.plain = names_of(fields) if names is None else names
        self._content = content
        self._request = request
        self.extensions = extensions
        self._took = took

    @_Part
    def headers(self) -> httpx.Headers:
        """Made where it is looked at, as are those below."""
        return httpx.Headers(self._fields)

    @cached_property
    def elapsed(self) -> timedelta:
        return super().elapsed if self._took is None else timedelta(seconds=self._took)

    @cached_property
    def history(self) -> list[httpx.Response]:  # type: ignore[override]
        return []

    @cached_property
    def _num_bytes_downloaded(self) -> int:  # type: ignore[override]
        return len(self._content)

    @cached_property
    def stream(self) -> httpx.ByteStream:  # type: ignore[override]
        return httpx.ByteStream(self._content)


def url_text(request: httpx.Request) -> str:
    """The URL of a request as a text."""
    plain = request.plain if isinstance(request, Request) else None
    return plain.origin.text + plain.target.decode("ascii") if plain else str(request.url)


def origin_of(url: httpx.URL) -> tuple[bytes, bytes, int]:
    """Scheme, host and port of an http or https URL, the port also where it is the default."""
    scheme = url.raw_scheme
    return scheme, url.raw_host, url.port or (443 if scheme == b"https" else 80)


def request_header(request: httpx.Request, name: str) -> str | None:
    """The value of a header, None where it is not there. `name` is in small letters."""
    if not isinstance(request, Request) or request.plain is None:
        found: str | None = request.headers.get(name)
        return found
    wanted = name.encode("ascii")
    for field, value in request.fields:
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
    names = None
    if isinstance(request, Request) and (plain := request.plain) is not None:
        names = _new_names(request._names, tuple(headers), tuple(instead_of))
        if names.together is not None:  # as of all requests that come from a form
            values = tuple(headers.values())
            if request._lines is not None and "".join(values).isprintable():
                request._lines += (names.lines % values).encode()
            else:
                new = zip(names.sent, map(str.encode, values), strict=True)
                request._fields, request._lines = [*request._own_fields(), *new], None
            request._names = names.together
            return
        if not names.frame:
            _replace_fields(request, plain, names, headers.values())
            return
    # What frames a request is looked at again before it goes out.
    if names is None:
        names = _new_names(None, tuple(headers), tuple(instead_of))
    new = zip(names.sent, map(str.encode, headers.values()), strict=True)
    kept = [field for field in request.headers.raw if field[0].lower() not in names.lowered]
    request.headers = httpx.Headers([*kept, *new])


def _replace_fields(
    request: Request, plain: Plain, names: _NewNames, values: Iterable[str]
) -> None:
    first = [field for field in plain.first if field[0].lower() not in names.lowered]
    kept = [field for field in request._own_fields() if field[0].lower() not in names.lowered]
    request._fields = [*kept, *zip(names.sent, map(str.encode, values), strict=True)]
    request._lines = None
    if len(first) < len(plain.first):  # the head holds one that is gone
        request.plain = request._plain = Plain(plain.origin, plain.target, first)
    if request._names is not None:
        request._names |= names.lowered


class _NewNames(NamedTuple):
    """Names of headers that are set.

    Args:
        sent: as they are sent.
        lowered: these and those that go, in small letters.
        frame: whether one of them frames a request.
        together: with those that were known before; None where that does not do, as one is among
            these already, says what becomes of the connection, or is not the name of a header.
        lines: the headers as they go out, with `%s` for each value.
    """

    sent: tuple[bytes, ...]
    lowered: frozenset[bytes]
    frame: bool
    together: frozenset[bytes] | None
    lines: str


@lru_cache(maxsize=256)
def _new_names(
    known: frozenset[bytes] | None, names: tuple[str, ...], others: tuple[str, ...]
) -> _NewNames:
    sent = tuple([name.encode("ascii") for name in names])
    lowered = frozenset([name.encode("ascii").lower() for name in (*names, *others)])
    frame = not lowered.isdisjoint(FRAMING)
    together = None
    if known is not None and known.isdisjoint(lowered) and not frame and _CONNECTION not in lowered:
        together = known | lowered if all(map(_NAME.fullmatch, sent)) else None
    lines = "".join([name.replace("%", "%%") + ": %s\r\n" for name in names])
    return _NewNames(sent, lowered, frame, together, lines)


def header(response: httpx.Response, name: str) -> str | None:
    """The value of a header, None where it is not there. `name` is in small letters."""
    if isinstance(response, Response):
        names = response.plain
        if names is not None and name not in names:
            return None
    found: str | None = response.headers.get(name)
    return found


def header_items(response: httpx.Response) -> Iterable[tuple[str, str]]:
    """Every header, its name in small letters."""
    if isinstance(response, Response) and (names := response.plain) is not None:
        try:
            return list(zip(names, map(_text, map(_value, response._fields)), strict=True))
        except ValueError:  # one of them is no ASCII
            pass
    return response.headers.multi_items()


def headers_as_they_came(
    response: httpx.Response,
) -> tuple[tuple[str, ...], Fields] | None:
    """Names in small letters, and the fields; None where a hook may have changed them."""
    if not isinstance(response, Response) or response.plain is None:
        return None
    return response.plain, response._fields


def names_of(fields: Fields) -> tuple[str, ...]:
    """The names of headers in small letters, in their order; what is no ASCII is left out."""
    names = tuple(map(_name, fields))
    usual = sum(map(len, names)) <= _USUAL
    return _lowered(names) if usual else _lowered.__wrapped__(names)


@lru_cache(maxsize=512)
def _lowered(names: tuple[bytes, ...]) -> tuple[str, ...]:
    """Most servers give all of their answers the same headers."""
    return tuple([name.decode("ascii").lower() for name in names if name.isascii()])


@lru_cache(maxsize=4096)
def _origin(text: str) -> Origin:
    return Origin.of(httpx.URL(text + "/"))
