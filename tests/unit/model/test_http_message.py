"""Requests and answers are httpx's own in all that can be seen of them, whoever looks first."""

from __future__ import annotations

import asyncio
import copy
import pickle
import re
import string
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestratord.errors import SendError
from orchestratord.http.client import HttpClient, SendOptions
from orchestratord.http.egress import Egress, parse_rule
from orchestratord.http.request_bytes import encode
from orchestratord.model.http_message import (
    Fields,
    Form,
    Request,
    Response,
    header,
    header_items,
    put_headers,
    url_text,
)

# -- what is made ---------------------------------------------------------------------------------

FRAMING = {"host", "content-length", "transfer-encoding"}
HEADERS: dict[str, str] = {"User-Agent": "me", "x-a": "1", "X-Text": "é€"}


def theirs(
    method: str, url: str, headers: Mapping[str, str] | None, content: bytes | None
) -> httpx.Request:
    """The same request as httpx makes it, with its headers as UTF-8."""
    raw = [(name.encode("ascii"), value.encode()) for name, value in (headers or {}).items()]
    return httpx.Request(method, url, headers=raw, content=content)


def ours(
    method: str, url: str, headers: Mapping[str, str] | None, content: bytes | None
) -> Request:
    return Request(method, url, headers=headers, content=content)


def seen(request: httpx.Request) -> dict[str, Any]:
    """All that can be read from a request."""
    url = request.url
    assert isinstance(request.stream, httpx.ByteStream)
    return {
        "method": request.method,
        "url": str(url),
        "parts": (url.raw_scheme, url.raw_host, url.port, url.netloc, url.raw_path),
        "rest": (url.userinfo, url.fragment, url.is_absolute_url),
        "headers": request.headers.raw,
        "encoding": request.headers.encoding,
        "content": request.content,
        "stream": b"".join(request.stream),
        "extensions": request.extensions,
        "repr": repr(request),
    }


Made = dict[str, Any] | type[Exception]


def made(make: Callable[..., httpx.Request], *arguments: Any) -> Made:
    """What a request looks like, or the kind of error that came instead."""
    try:
        request = make(*arguments)
    except Exception as error:
        return type(error)
    return seen(request)


METHODS = st.sampled_from(["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "post", "X"])
CONTENTS = st.none() | st.binary(max_size=40)
TOKENS = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
NAMES = (
    st.sampled_from(
        ["Host", "host", "Content-Length", "transfer-encoding", "Content-Type", "X-A", "x-a"]
    )
    | st.text(TOKENS, min_size=1, max_size=12)
    | st.text(max_size=3)
)
VALUES = st.text(string.printable, max_size=20) | st.text(max_size=20)
SOME_HEADERS = st.none() | st.dictionaries(NAMES, VALUES, max_size=4)

UNCHANGED = string.ascii_letters + string.digits + "-_~!$&()*+,;=:@"
ESCAPES = st.sampled_from(["%2F", "%2f", "%C3%A9", "%00", "%25", "%2e%2E"])
PIECES = st.lists(st.text(UNCHANGED + ".", max_size=6) | ESCAPES, max_size=3).map("".join)
SEGMENTS = st.lists(PIECES.filter(lambda piece: not piece.startswith(".")), max_size=4)
PLAIN_HOSTS = ["h", "api.example", "API.Example", "127.0.0.1", "[::1]", "[fe80::1%25eth0]",
               "bücher.example", "a_b"]  # fmt: skip
PLAIN_URLS = st.builds(
    lambda scheme, host, port, path, query: f"{scheme}://{host}{port}/{'/'.join(path)}{query}",
    st.sampled_from(["http", "https"]),
    st.sampled_from(PLAIN_HOSTS),
    st.sampled_from(["", ":80", ":443", ":8080", ":"]),
    SEGMENTS,
    st.just("") | PIECES.filter(lambda query: "/." not in query).map("?{}".format),
)

ODD = st.sampled_from(
    ["", "a", ".", "..", "...", ".a", "%2F", "%2e", "%", "%zz", "%é", "é", " ", "'", '"', "<>",
     "{}", "|", "^", "`", "[", "]", "\\", ";v=1", ":", "@", "~", "\t", "\x7f", "\x85", "\ud800",
     "𝒳"]
)  # fmt: skip
ODD_TEXTS = st.lists(ODD, max_size=4).map("".join)
ODD_URLS = st.builds(
    lambda scheme, user, host, port, path, query, fragment: (
        f"{scheme}{user}{host}{port}{path}{query}{fragment}"
    ),
    st.sampled_from(["http://", "https://", "HTTP://", "http:/", "http:", "//", "ftp://", "x", ""]),
    st.sampled_from(["", "", "", "u@", "u:p@", "@", "a@b@", "ü:@"]),
    st.sampled_from(
        [*PLAIN_HOSTS, "", "256.1.1.1", "1.2.3", "[::1%25eth0]", "[::1", "[]", "%41", "a b", "*",
         "h\\x", "a..b", "ＡＢ.example", "xn--bcher-kva.example", "\u200b", "-", "\n"]
    ),
    st.sampled_from(
        ["", "", ":", ":80", ":443", ":8080", ":0", ":99999", ":x", ":-1", ":+80", ":８0", ":8:0"]
    ),
    st.lists(ODD_TEXTS, max_size=4).map(lambda parts: "/".join(["", *parts])),
    st.just("") | ODD_TEXTS.map("?{}".format) | st.just("?a=1&b=/../x&b=%20+'"),
    st.just("") | ODD_TEXTS.map("#{}".format),
)  # fmt: skip
ANY_URLS = st.text(max_size=30) | st.text(max_size=30).map("http://{}".format)


@given(METHODS, PLAIN_URLS, SOME_HEADERS, CONTENTS)
def test_a_plain_request_is_what_httpx_makes(
    method: str, url: str, headers: dict[str, str] | None, content: bytes | None
) -> None:
    expected = made(theirs, method, url, headers, content)
    assert made(ours, method, url, headers, content) == expected
    if not isinstance(expected, dict):
        return
    request = ours(method, url, headers, content)
    plain = request.plain
    if {name.lower() for name in headers or ()} & FRAMING or "/." in url.split("://", 1)[1]:
        return
    assert plain is not None
    origin, (scheme, host, port, netloc, target) = plain.origin, expected["parts"]
    assert (origin.scheme, origin.port, origin.netloc) == (scheme, port, netloc)
    assert origin.name.replace("%", "%25").encode() == host
    assert plain.target == target
    assert origin.text + target.decode() == expected["url"]
    assert request.fields == expected["headers"]


@settings(max_examples=400)
@given(METHODS, ODD_URLS | ANY_URLS, SOME_HEADERS, CONTENTS)
@example("POST", "http://host", None, None)
@example("POST", "https://ops.example.com", None, b"{}")
@example("GET", "http://host:8080", None, None)
@example("GET", "http://host?x=/y", None, None)
@example("GET", "http://user@host/", None, None)
@example("GET", "http://user:secret@host/", None, None)
@example("GET", "http://host@", None, None)
@example("GET", "http://:80/", None, None)
@example("PUT", "http:///x", None, None)
@example("GET", "http://a/b/../c", None, None)
@example("GET", "http://a/" + "x" * 65_600, None, None)
@example("patch", "http://a/", {}, b"")
def test_an_odd_request_is_what_httpx_makes(
    method: str, url: str, headers: dict[str, str] | None, content: bytes | None
) -> None:
    assert made(ours, method, url, headers, content) == made(theirs, method, url, headers, content)


@pytest.mark.parametrize(
    "url",
    ["http://host", "https://host.example", "http://host:8080", "http://host?x=1",
     "http://user@host/x", "http://host@evil/", "http://host:pass@evil/", "http://host\\@evil/"],
)  # fmt: skip
def test_a_request_goes_where_its_url_says(url: str) -> None:
    """What is kept of the host, and what the Host header says, is the host that is dialled."""
    request, expected = ours("POST", url, None, b"x"), httpx.URL(url)
    assert request.plain is None
    assert (request.url.host, request.url.port) == (expected.host, expected.port)
    assert request.headers.get("Host") == expected.netloc.decode()
    assert url_text(request) == str(expected)


@given(PLAIN_URLS | ODD_URLS)
def test_the_text_of_a_url_is_httpxs(url: str) -> None:
    try:
        expected = str(httpx.URL(url))
        request = ours("GET", url, None, None)
    except Exception:
        return
    assert url_text(request) == expected
    assert url_text(httpx.Request("GET", url)) == expected


def test_a_request_is_one_of_httpxs() -> None:
    request = ours("GET", "http://h/a", HEADERS, None)
    assert isinstance(request, httpx.Request)
    assert request.plain is not None  # and nobody has looked
    for name in ("nothing", "_url", "plain_", "__wrapped__"):
        assert not hasattr(request, name)
        with pytest.raises(AttributeError, match=name):
            getattr(request, name)


async def test_its_content_can_be_read_as_with_httpx() -> None:
    for content in (None, b"", b"body"):
        request = ours("POST", "http://h/", None, content)
        assert request.content == request.read() == await request.aread() == (content or b"")
        assert request.plain is not None
        assert isinstance(request.stream, httpx.ByteStream)
        assert b"".join([part async for part in request.stream]) == (content or b"")


def looked_at(request: Request) -> bool:
    return request.plain is None


# -- what hooks do to it --------------------------------------------------------------------------


def on_the_wire(request: httpx.Request) -> bytes:
    encoded = encode(request)
    return encoded.head + encoded.body


def sent(make: Callable[..., httpx.Request], *arguments: Any) -> bytes | type[Exception]:
    try:
        return on_the_wire(make(*arguments))
    except Exception as error:
        return type(error)


@given(
    METHODS | st.text(max_size=5), PLAIN_URLS | ODD_URLS,
    st.dictionaries(NAMES | st.just("Connection"), VALUES | st.sampled_from(["close", "4"])),
    CONTENTS,
)  # fmt: skip
@example("GET", "http://h/", {"X-A": "a\r\nEvil: 1"}, None)
@example("GET", "http://h/", {"X-A\r\nEvil": "1"}, None)
@example("GET / HTTP/1.1\r\nX: ", "http://h/", {}, None)
@example("GET", "http://h/", {"": "x"}, None)
@example("GET", "http://h/", {"x-a": "\x00"}, None)
@example("G\u0130T", "http://h/", {}, None)
def test_it_goes_out_as_httpxs_would_or_is_refused_like_it(
    method: str, url: str, headers: dict[str, str], content: bytes | None
) -> None:
    mine = sent(ours, method, url, headers, content)
    assert mine == sent(theirs, method, url, headers, content)
    assert isinstance(mine, type) or b"\nEvil" not in mine


def change_a_header(request: httpx.Request) -> None:
    request.headers["X-Signature"] = "abc"


def change_a_header_that_is_there(request: httpx.Request) -> None:
    request.headers["X-A"] = "2"


def remove_a_header(request: httpx.Request) -> None:
    del request.headers["user-agent"]


def replace_the_headers(request: httpx.Request) -> None:
    request.headers = httpx.Headers({"Host": "elsewhere", "Content-Length": "4"})


def change_the_url(request: httpx.Request) -> None:
    request.url = request.url.copy_with(path="/other", query=b"q=1")


def replace_the_url(request: httpx.Request) -> None:
    request.url = httpx.URL("https://elsewhere.example/new?x=%2F")


def change_the_method(request: httpx.Request) -> None:
    request.method = "PUT"


def look(request: httpx.Request) -> None:
    assert request.url
    assert request.headers
    assert request.stream
    assert repr(request)


def do_nothing(request: httpx.Request) -> None:
    assert request.content == b"body"


CHANGES = [
    change_a_header, change_a_header_that_is_there, remove_a_header, replace_the_headers,
    change_the_url, replace_the_url, change_the_method, look, do_nothing,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_is_changed_goes_out(change: Callable[[httpx.Request], None]) -> None:
    arguments = ("POST", "http://h:8080/a%2Fb?c=d", HEADERS, b"body")
    request, expected = ours(*arguments), theirs(*arguments)
    before = on_the_wire(expected)
    change(request)
    change(expected)
    assert on_the_wire(request) == on_the_wire(expected)
    assert seen(request) == seen(expected)
    untouched = change in (look, do_nothing)
    assert (on_the_wire(request) == before) is untouched


@pytest.mark.parametrize(
    "change",
    [change for change in CHANGES if change not in (do_nothing, change_the_method)],
    ids=lambda change: change.__name__,
)
def test_nothing_is_kept_of_what_somebody_has_looked_at(
    change: Callable[[httpx.Request], None],
) -> None:
    request = ours("POST", "http://h/a", HEADERS, b"body")
    assert not looked_at(request)
    change(request)
    assert looked_at(request)
    assert url_text(request) == str(request.url)


@pytest.mark.parametrize("name", ["url", "headers", "stream"])
def test_who_looks_may_change_it_later(name: str) -> None:
    request = ours("GET", "http://h/a", HEADERS, None)
    value = getattr(request, name)
    assert getattr(request, name) is value
    assert request.plain is None


async def test_the_bytes_that_reach_a_server() -> None:
    received: list[bytes] = []
    serving: list[asyncio.Task[Any] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                received.append(head + await reader.readexactly(4))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except asyncio.IncompleteReadError:
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = HttpClient()
    options = SendOptions(timeout=10, egress=Egress((parse_rule("127.0.0.1"),)))
    arguments = ("POST", f"http://127.0.0.1:{port}/a%2Fb?c=/d", HEADERS, b"body")
    try:
        for change in CHANGES:
            if change in (replace_the_url, replace_the_headers):
                continue
            for make in (ours, theirs):
                request = make(*arguments)
                change(request)
                response = await client.send(request, options=options)
                assert (response.status_code, response.content) == (200, b"ok")
                assert response.request is request
    finally:
        await client.aclose()
        server.close()
        await asyncio.gather(*(task for task in serving if task is not None))
    assert len(received) == 2 * (len(CHANGES) - 2)
    assert received[::2] == received[1::2]
    assert received[-1].startswith(b"POST /a%2Fb?c=/d HTTP/1.1\r\nHost: 127.0.0.1:")
    assert "X-Text: é€\r\n".encode() in received[-1]


# -- copies ---------------------------------------------------------------------------------------

COPIES: list[Callable[[Any], Any]] = [
    copy.copy, copy.deepcopy, lambda request: pickle.loads(pickle.dumps(request)),
]  # fmt: skip


@pytest.mark.parametrize("looked", [False, True])
@pytest.mark.parametrize("copied", COPIES, ids=["copy", "deepcopy", "pickle"])
def test_a_copy_goes_out_the_same(copied: Callable[[Any], Any], looked: bool) -> None:
    request = ours("POST", "http://h/a?b", HEADERS, b"body")
    if looked:
        look(request)
    other = copied(request)
    assert type(other) is Request
    assert on_the_wire(other) == on_the_wire(theirs("POST", "http://h/a?b", HEADERS, b"body"))
    assert (other.content, other.read(), other.extensions) == (b"body", b"body", {})
    # httpx gives copies no stream; what was read of it is there.
    assert isinstance(other.stream, httpx.SyncByteStream)
    with pytest.raises(httpx.StreamClosed):
        list(other.stream)


@pytest.mark.parametrize("copied", COPIES, ids=["copy", "deepcopy", "pickle"])
def test_what_is_done_to_a_copy_is_not_done_to_the_first(copied: Callable[[Any], Any]) -> None:
    request = ours("POST", "http://h/a", HEADERS, b"body")
    before = on_the_wire(theirs("POST", "http://h/a", HEADERS, b"body"))
    other = copied(request)
    change_a_header(other)
    replace_the_url(other)
    put_headers(other, {"x-more": "1"})
    assert request.plain is not None
    assert on_the_wire(request) == before
    assert on_the_wire(other).startswith(b"POST /new?x=%2F HTTP/1.1\r\nHost: h\r\n")
    assert b"x-more: 1\r\n" in on_the_wire(other)


def wire_or_why(request: httpx.Request) -> bytes | str:
    """Its bytes, or why it cannot be sent."""
    try:
        return on_the_wire(request)
    except SendError as error:
        return str(error)


# -- setting headers ------------------------------------------------------------------------------

LOW_NAMES = st.sampled_from(["x-a", "x-text", "user-agent", "webhook-id", "content-type", "host"])


@given(
    first=SOME_HEADERS,
    new=st.dictionaries(
        LOW_NAMES, st.text(string.printable, max_size=9) | st.just("é"), max_size=4
    ),
    gone=st.lists(LOW_NAMES, max_size=3),
)
def test_headers_are_set_alike_whoever_has_looked(
    first: dict[str, str] | None, new: dict[str, str], gone: list[str]
) -> None:
    arguments = ("POST", "http://h/a", first, b"body")
    try:
        expected = theirs(*arguments).headers.raw
    except ValueError:
        return
    names = {*new, *gone}
    expected = [pair for pair in expected if pair[0].lower().decode("latin-1") not in names]
    expected += [(name.encode(), value.encode()) for name, value in new.items()]
    untouched, touched, httpxs = ours(*arguments), ours(*arguments), theirs(*arguments)
    formed = Form("POST", "http://h/a", first or {}).request(b"body")
    look(touched)
    plain = untouched.plain
    for request in (untouched, formed, touched, httpxs):
        put_headers(request, new, instead_of=gone)
    if not names & FRAMING:
        assert (untouched.plain is None) is (plain is None)  # nobody has looked
    assert url_text(untouched) == "http://h/a"
    if formed.plain is not None and untouched.plain is not None:
        assert wire_or_why(formed) == wire_or_why(untouched)
    for request in (untouched, formed, touched, httpxs):
        assert request.headers.raw == expected
        for name, value in new.items():
            assert request.headers[name] == value


def test_one_header_replaces_all_of_its_name() -> None:
    for kind in (Request, httpx.Request):
        request = kind("POST", "http://h/", headers={"X-A": "1", "x-b": "2", "WEBHOOK-ID": "old"})
        put_headers(request, {"x-a": "3"}, instead_of=("webhook-id", "x-none"))
        assert request.headers.raw == [
            (b"Host", b"h"), (b"Content-Length", b"0"), (b"x-b", b"2"), (b"x-a", b"3"),
        ]  # fmt: skip
        put_headers(request, {})
        assert request.headers["x-a"] == "3"


@pytest.mark.parametrize("name", ["user-agent", "x-a", "webhook-id"])
def test_a_header_that_goes_leaves_nothing_half_made_behind(name: str) -> None:
    headers = {"User-Agent": "us", "X-A": "1"}
    request = Form("POST", "http://h/a", headers).request(b"body")
    touched, httpxs = (make("POST", "http://h/a", headers, b"body") for make in (ours, theirs))
    look(touched)
    for one in (request, touched, httpxs):
        put_headers(one, {name: "new"})
        put_headers(one, {"x-last": "2"}, instead_of=("x-a",))
    assert request.plain is not None
    assert on_the_wire(request) == on_the_wire(touched) == on_the_wire(httpxs)


@pytest.mark.parametrize("content", [b"body", b""])
@pytest.mark.parametrize("common", [{"User-Agent": "us"}, {"Connection": "close"}])
@pytest.mark.parametrize(
    "own",
    [
        {},
        {"X-A": "ä"},
        {"Host": "other"},
        {"connection": "close"},
        {"X-A": "1\r\nX-B: 2"},
        {"X-%s": "%b", "user-agent": ""},
        {"X-A": "", "X-B": "\t"},
        {"X A": "1"},
        {"X-A": "\0"},
    ],
)
def test_a_request_of_a_form_goes_out_as_one_of_its_own(
    content: bytes, common: dict[str, str], own: dict[str, str]
) -> None:
    kept = {name: value for name, value in common.items() if name.lower() not in own}
    made = Form("POST", "http://h/a", common, tuple(own)).request(content, tuple(own.values()))
    whole = Request("POST", "http://h/a", headers={**kept, **own}, content=content)
    assert made.headers.raw == whole.headers.raw
    made = Form("POST", "http://h/a", common, tuple(own)).request(content, tuple(own.values()))
    whole = Request("POST", "http://h/a", headers={**kept, **own}, content=content)
    try:
        expected = encode(whole)
    except SendError as error:
        with pytest.raises(SendError, match=re.escape(str(error))):
            encode(made)
    else:
        assert encode(made)[1:] == expected[1:]


@pytest.mark.parametrize(
    ("new", "gone"),
    [({"content-length": "3"}, ()), ({"transfer-encoding": "chunked"}, ()), ({}, ("host",)),
     ({}, ("content-length",))],
    ids=["length", "chunked", "no host", "no length"],
)  # fmt: skip
def test_what_frames_a_request_is_looked_at_before_it_goes_out(
    new: dict[str, str], gone: tuple[str, ...]
) -> None:
    for kind in (Request, httpx.Request):
        request = kind("POST", "http://h/", content=b"body")
        put_headers(request, new, instead_of=gone)
        with pytest.raises(SendError, match="the request cannot be sent"):
            encode(request)


def test_a_host_that_is_set_goes_first() -> None:
    for kind in (Request, httpx.Request):
        request = kind("GET", "http://h/", headers={"A": "1"})
        put_headers(request, {"host": "other", "b": "2"})
        assert on_the_wire(request) == b"GET / HTTP/1.1\r\nhost: other\r\nA: 1\r\nb: 2\r\n\r\n"


# -- answers --------------------------------------------------------------------------------------

SENT = httpx.Request("GET", "http://h/a")
FIELD_NAMES = st.sampled_from(
    [b"Content-Type", b"X-A", b"x-a", b"X-a", b"Retry-After", b"Set-Cookie", b"Link", b"Location",
     b"ETag"]
)  # fmt: skip
FIELD_VALUES = st.sampled_from(
    [b"", b"1", b"text/html; charset=latin-1", b"text/plain; charset=nothing", b"application/json",
     b"a=b; Path=/", b"c=d; Domain=h; Max-Age=5", b'<http://h/2>; rel="next"', "é".encode(),
     "ü".encode("latin-1"), b"\xff\xfe", b"/elsewhere", b"120"]
)  # fmt: skip
SOME_FIELDS = st.lists(st.tuples(FIELD_NAMES, FIELD_VALUES), max_size=5)
BODIES = st.sampled_from(
    [b"", b"{}", b'{"a": [1, null]}', b"[", "é".encode(), b"\xe9", b"one\ntwo\r\nthree", b"x" * 99]
)
EXTENSIONS = st.sampled_from(
    [{}, {"http_version": b"HTTP/2"}, {"reason_phrase": b"Fine", "truncated": False},
     {"reason_phrase": b"", "http_version": b"HTTP/1.0"}, {"reason_phrase": b"\xff"}]
)  # fmt: skip


def their_answer(
    status: int, fields: Fields, content: bytes, extensions: dict[str, Any]
) -> httpx.Response:
    stream = httpx.ByteStream(content)
    response = httpx.Response(
        status, headers=fields, stream=stream, request=SENT, extensions=extensions
    )
    response.read()
    response.close()
    return response


def our_answer(
    status: int, fields: Fields, content: bytes, extensions: dict[str, Any]
) -> httpx.Response:
    return Response(status, fields, content, SENT, extensions)


def outcome_of(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except Exception as error:
        return type(error), str(error)


READERS: dict[str, Callable[[httpx.Response], Any]] = {
    "status": lambda r: (r.status_code, r.reason_phrase, r.http_version, repr(r), r.extensions),
    "kinds": lambda r: (r.is_informational, r.is_success, r.is_redirect, r.is_client_error,
                        r.is_server_error, r.is_error, r.has_redirect_location),
    "headers": lambda r: (r.headers.raw, r.headers.multi_items(), repr(r.headers)),
    "lists": lambda r: (r.headers.get_list("x-a"), r.headers.get("X-A"), "etag" in r.headers),
    "encoding": lambda r: (r.charset_encoding, r.encoding),
    "text": lambda r: r.text,
    "json": lambda r: r.json(),
    "content": lambda r: (r.content, r.read(), b"".join(r.iter_bytes()), r.num_bytes_downloaded),
    "chunks": lambda r: list(r.iter_bytes(7)),
    "texts": lambda r: list(r.iter_text(5)),
    "lines": lambda r: list(r.iter_lines()),
    "raw": lambda r: list(r.iter_raw()),
    "links": lambda r: r.links,
    "cookies": lambda r: sorted((c.name, c.value, c.domain, c.path) for c in r.cookies.jar),
    "raised": lambda r: r.raise_for_status() is r,
    "elapsed": lambda r: r.elapsed,
    "request": lambda r: (r.request is SENT, r.url, r.history, r.next_request),
    "closed": lambda r: (r.is_closed, r.is_stream_consumed, r.close()),  # type: ignore[func-returns-value]
    "pickled": lambda r: (pickle.loads(pickle.dumps(r)).headers.raw,
                          pickle.loads(pickle.dumps(r)).content),
    "copied": lambda r: (copy.copy(r).text, copy.deepcopy(r).headers.multi_items()),
    "nothing": lambda r: r.nothing is None,  # type: ignore[attr-defined]
}  # fmt: skip


@given(
    st.sampled_from([200, 204, 301, 404, 410, 503, 100, 299, 599, 777]), SOME_FIELDS, BODIES,
    EXTENSIONS, st.permutations(sorted(READERS)),
)  # fmt: skip
def test_an_answer_is_httpxs_whatever_is_read_first(
    status: int, fields: Fields, content: bytes, extensions: dict[str, Any], order: list[str]
) -> None:
    # One of httpx's that it made itself lacks `truncated`, and nothing else.
    mine = our_answer(status, fields, content, dict(extensions))
    other = their_answer(status, fields, content, dict(extensions))
    for name in order:
        got = outcome_of(lambda name=name: READERS[name](mine))  # type: ignore[misc]
        expected = outcome_of(lambda name=name: READERS[name](other))  # type: ignore[misc]
        if name == "nothing":  # only the words of the error differ
            assert got[0] is expected[0] is AttributeError
        else:
            assert got == expected, name


async def test_an_answer_is_read_without_a_network() -> None:
    response = our_answer(200, [(b"Content-Type", b"text/plain")], b"one\ntwo", {})
    assert isinstance(response, httpx.Response)
    assert await response.aread() == b"one\ntwo"
    assert b"".join([part async for part in response.aiter_bytes(2)]) == b"one\ntwo"
    assert [line async for line in response.aiter_lines()] == ["one", "two"]
    await response.aclose()
    assert isinstance(response.stream, httpx.ByteStream)
    assert b"".join(response.stream) == b"one\ntwo"
    with pytest.raises(httpx.StreamConsumed):
        [part async for part in response.aiter_raw()]


def test_what_is_set_on_an_answer_stays() -> None:
    for response in (
        our_answer(200, [(b"A", b"1")], b"\xe9", {}),
        their_answer(200, [(b"A", b"1")], b"\xe9", {}),
    ):
        with pytest.raises(RuntimeError, match="elapsed"):
            _ = response.elapsed
        response.elapsed = timedelta(seconds=2)
        assert response.elapsed.total_seconds() == 2
        response.encoding = "latin-1"
        assert response.text == "é"
        with pytest.raises(ValueError, match="encoding"):
            response.encoding = "utf-8"
        response.headers["A"] = "2"
        assert header(response, "a") == "2"
        assert list(header_items(response)) == [("a", "2")]
        response.request = other = httpx.Request("GET", "http://b/")
        assert response.request is other
        assert response.url == "http://b/"


def test_a_decoded_body_is_not_decoded_again() -> None:
    """Its headers are those of the wire, its content is what the client made of it."""
    fields = [(b"Content-Encoding", b"gzip"), (b"Content-Length", b"9999")]
    response = our_answer(200, fields, b"decoded", {"truncated": False})
    assert (response.text, response.read(), response.content) == ("decoded", b"decoded", b"decoded")
    assert list(response.iter_bytes()) == [b"decoded"]
    assert response.headers["content-encoding"] == "gzip"


@given(SOME_FIELDS, st.sampled_from(["x-a", "retry-after", "etag", "x-none"]), st.booleans())
def test_single_headers_are_read_as_httpx_reads_them(
    fields: Fields, name: str, looked: bool
) -> None:
    expected = httpx.Headers(fields)
    mine, other = (make(200, fields, b"", {}) for make in (our_answer, their_answer))
    if looked:
        assert mine.headers.raw == fields
    for response in (mine, other):
        assert list(header_items(response)) == expected.multi_items()
        assert header(response, name) == expected.get(name)
        assert list(header_items(response)) == expected.multi_items()
