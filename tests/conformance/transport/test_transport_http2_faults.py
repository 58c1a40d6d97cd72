"""HTTP/2 from peers that get it wrong: one answer costs one exchange, wherever that can be."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from hyperframe.frame import DataFrame, PushPromiseFrame, RstStreamFrame, WindowUpdateFrame

from orchestratord.engine import frames
from orchestratord.errors import SendError

OK = (":status", "200")

ANSWERS: dict[str, list[tuple[str, str]]] = {
    "no status": [("server", "x")],
    "two statuses": [OK, OK],
    "status after a header": [("server", "x"), OK],
    "status of four digits": [(":status", "2000")],
    "status of letters": [(":status", "abc")],
    "status below 100": [(":status", "099")],
    "switching protocols": [(":status", "101")],
    "pseudo-header of requests": [OK, (":method", "GET")],
    "name in upper case": [OK, ("Server", "x")],
    "name with a space": [OK, ("a b", "x")],
    "name with a line break": [OK, ("a\r\nb", "x")],
    "no name": [OK, ("", "x")],
    "value with a line break": [OK, ("a", "x\r\nb: y")],
    "value with a nul": [OK, ("a", "x\0")],
    "connection": [OK, ("connection", "keep-alive")],
    "transfer coding": [OK, ("transfer-encoding", "chunked")],
    "length of another body": [OK, ("content-length", "7")],
    "negative length": [OK, ("content-length", "-1")],
    "endless length": [OK, ("content-length", "9" * 5000)],
    "two lengths": [OK, ("content-length", "2"), ("content-length", "3")],
    "too many headers": [OK, *((f"x-{n}", "y") for n in range(300))],
    "too large headers": [OK, ("x", "y" * 70_000)],
    "not gzip": [OK, ("content-encoding", "gzip")],
}


@pytest.fixture
def beside(send2: Any, serve2: Any) -> Any:
    """`beside(script)` has one request answered by the script, and another one after it over the
    same connection as it should be; gives the first one's error and the server."""

    async def run(script: Any) -> tuple[SendError, Any]:
        async def both(exchange: Any) -> None:
            if exchange[":path"] == b"/wrong":
                await script(exchange)
                broken.set()
            else:
                await broken.wait()
                await exchange.answer()

        broken = asyncio.Event()
        server = await serve2(both)
        outcomes = await asyncio.gather(
            send2("POST", f"{server.url}/right"),
            send2("POST", f"{server.url}/wrong", options={"timeout": 2.0}),
            return_exceptions=True,
        )
        error = outcomes[1]
        assert isinstance(error, SendError)
        assert not isinstance(outcomes[0], BaseException)
        assert outcomes[0].content == b"ok"
        assert (await send2("POST", f"{server.url}/right")).content == b"ok"
        assert (server.connections, len(server.requests), server.farewells) == (1, 3, [])
        return error, server

    return run


@pytest.mark.parametrize("fields", ANSWERS.values(), ids=ANSWERS.keys())
async def test_an_answer_that_is_none(beside: Any, fields: list[tuple[str, str]]) -> None:
    async def script(exchange: Any) -> None:
        block = exchange.block(fields)
        raw, size = block.data, 16_000
        exchange.peer.raw(frames.headers(exchange.stream, raw, False, size))
        exchange.peer.raw(DataFrame(exchange.stream, b"ok", flags=["END_STREAM"]))

    error, _ = await beside(script)
    assert (error.kind, error.sent, error.stale) == ("protocol", True, False)


@pytest.mark.parametrize(
    "how",
    [
        "body first",
        "ends with an interim answer",
        "goes on after trailers",
        "status in trailers",
        "no window",
        "a window beyond all",
    ],
)
async def test_an_answer_out_of_order(beside: Any, how: str) -> None:
    async def script(exchange: Any) -> None:
        stream, raw = exchange.stream, exchange.peer.raw
        if how == "body first":
            raw(DataFrame(stream, b"ok"), exchange.block([OK], "END_STREAM"))
        elif how == "ends with an interim answer":
            raw(exchange.block([(":status", "103")], "END_STREAM"))
        elif how == "goes on after trailers":
            raw(exchange.block([OK]), exchange.block([("x", "y")]))
        elif how == "status in trailers":
            raw(exchange.block([OK]), exchange.block([OK], "END_STREAM"))
        elif how == "no window":
            raw(WindowUpdateFrame(stream, 1).serialize()[:-4] + bytes(4))
        else:
            raw(WindowUpdateFrame(stream, 2**31 - 1))

    error, _ = await beside(script)
    assert (error.kind, error.sent, error.stale) == ("protocol", True, False)


def numbered(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return frames.header(len(payload), kind, flags, stream) + payload


CONNECTION_FAULTS: dict[str, bytes] = {
    "a frame that is too large": numbered(frames.DATA, 0, 1, bytes(16_385)),
    "a body of no stream": numbered(frames.DATA, 0, 0),
    "a body of a stream never opened": numbered(frames.DATA, 0, 99),
    "headers of the peer's own stream": numbered(frames.HEADERS, 4, 2, b"\x88"),
    "headers that cannot be unpacked": numbered(frames.HEADERS, 4, 1, b"\xff\xff\xff\xff\xff"),
    # One header of 4,000 bytes that is remembered, and then named a thousand times.
    "headers that unpack to megabytes": numbered(
        frames.HEADERS, 4, 1, b"\x88\x40\x01a\x7f\xa1\x1e" + b"y" * 4000 + b"\xbe" * 1000
    ),
    "settings that are cut": numbered(frames.SETTINGS, 0, 0, bytes(5)),
    "a window beyond all": WindowUpdateFrame(0, 2**31 - 1).serialize(),
    "initial windows beyond all": frames.settings({4: 2**31}),
    "frames of no size": frames.settings({5: 1}),
    "nothing to continue": numbered(frames.CONTINUATION, 4, 1),
    "a push": PushPromiseFrame(1, 2, b"\x88", flags=["END_HEADERS"]).serialize(),
    "a reset of a stream never opened": RstStreamFrame(77, 8).serialize(),
    "another protocol": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "noise": os.urandom(20_000).replace(b"\0", b"x"),
}


@pytest.mark.parametrize("raw", CONNECTION_FAULTS.values(), ids=CONNECTION_FAULTS.keys())
async def test_a_connection_that_cannot_be_understood(send2: Any, serve2: Any, raw: bytes) -> None:
    async def script(exchange: Any) -> None:
        if exchange.peer.number > 1:
            await exchange.answer()
        elif len(server.requests) == 2:
            exchange.peer.raw(raw)

    server = await serve2(script)
    outcomes = await asyncio.gather(
        *(send2("POST", server.url) for _ in range(2)), return_exceptions=True
    )
    for error in outcomes:
        assert isinstance(error, SendError), error
        assert (error.kind, error.sent, error.stale) == ("protocol", True, False)
    async with asyncio.timeout(5):
        await server.hung_up.wait()
    assert server.farewells[0] != 0
    assert (await send2("POST", server.url)).content == b"ok"
    assert (server.connections, len(server.requests)) == (2, 3)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "protocol"),
        (numbered(frames.PING, 0, 0, bytes(8)), "protocol"),
        (numbered(frames.SETTINGS, 1, 0), "protocol"),
        (b"", "connect"),
        (None, "timeout"),
    ],
)
async def test_a_peer_that_does_not_begin_as_http2_does(
    send2: Any, serve: Any, certified: Any, said: bytes | None, kind: str
) -> None:
    async def script(peer: Any) -> None:
        if said:
            await peer.answer(said)
        if said is None or said:
            await peer.eof()
        peer.close()

    context = certified("127.0.0.1")
    context.set_alpn_protocols(["h2"])
    server = await serve(script, tls=context)
    with pytest.raises(SendError) as caught:
        await send2("POST", server.url, content=b"x", options={"connect_timeout": 0.5})
    error = caught.value
    assert (error.kind, error.sent, error.stale) == (kind, False, False)
    async with asyncio.timeout(5):
        await server.hung_up.wait()
    assert server.connections == 1
