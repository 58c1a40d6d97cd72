"""HTTP/2: exchanges that end early, by us or by the peer, and what is known of them then."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import os
import socket
import tracemalloc
from typing import Any

import httpx
import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from http2_parts import failure, ok, soon, until
from hyperframe.frame import GoAwayFrame, PingFrame, WindowUpdateFrame

from orchestratord.engine.answer import HttpAnswer
from orchestratord.errors import SendError

CANCEL = int(ErrorCodes.CANCEL)


# -- exchanges that end early -----------------------------------------------------------------


@pytest.mark.parametrize("when", ["before the answer", "within the answer", "while sending"])
async def test_cancelling_breaks_off_one_exchange_and_no_other(
    send2: Any, serve2: Any, when: str
) -> None:
    async def script(exchange: Any) -> None:
        if exchange[":path"] == b"/other":
            await go_on.wait()
            await exchange.answer()
            return
        if when == "within the answer":
            exchange.headers(200)
            await exchange.data(b"hal", end=False)
        there.set()
        await exchange.broken_off.wait()

    there, go_on = asyncio.Event(), asyncio.Event()
    server = await serve2(script, at_once=True, holding=True)
    other = asyncio.create_task(send2("GET", f"{server.url}/other"))
    await until(lambda: server.requests)
    content = bytes(1_000_000) if when == "while sending" else b""
    sending = asyncio.create_task(send2("POST", server.url, content=content))
    await soon(there)
    await asyncio.sleep(0.01)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await until(lambda: server.resets)
    go_on.set()
    assert (await other).content == b"ok"
    assert server.resets == [(1, 3, CANCEL)]
    go_on.set()
    assert (await send2("GET", f"{server.url}/other")).content == b"ok"
    assert (server.connections, len(server.requests)) == (1, 3)


@pytest.mark.parametrize("drip", ["silence", "body"])
async def test_a_deadline_ends_one_exchange_and_no_other(
    send2: Any, serve2: Any, drip: str
) -> None:
    async def script(exchange: Any) -> None:
        if exchange[":path"] == b"/other":
            await exchange.answer()
            return
        if drip == "body":
            exchange.headers(200)
            while not exchange.broken_off.is_set():
                await exchange.data(b"x", end=False)
                await asyncio.sleep(0.02)
        await exchange.broken_off.wait()

    server = await serve2(script)
    slow = asyncio.create_task(failure(send2("POST", server.url, options={"timeout": 0.3})))
    await until(lambda: server.requests)
    assert (await send2("GET", f"{server.url}/other")).content == b"ok"
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await slow == ("timeout", True, False)
    assert loop.time() - began < 3
    await until(lambda: server.resets)
    assert (await send2("GET", f"{server.url}/other")).content == b"ok"
    assert server.resets == [(1, 1, CANCEL)]
    assert (server.connections, len(server.requests)) == (1, 3)


async def test_a_connection_that_is_silent_gets_no_other_request(send2: Any, serve2: Any) -> None:
    async def script(exchange: Any) -> None:
        if exchange.peer.number == 1 and len(exchange.peer.exchanges) > 1:
            await exchange.broken_off.wait()
        else:
            await exchange.answer()

    server = await serve2(script)
    await send2("GET", server.url)  # what both ends say at first has been said
    first = asyncio.create_task(failure(send2("GET", server.url, options={"timeout": 0.2})))
    await until(lambda: len(server.requests) == 2)
    patient = asyncio.create_task(failure(send2("GET", server.url, options={"timeout": 0.6})))
    assert await first == ("timeout", True, False)
    assert (await send2("GET", server.url)).content == b"ok"
    assert await patient == ("timeout", True, False)  # it went on there
    assert [len(peer.exchanges) for peer in server.peers] == [3, 1]


async def test_a_body_that_is_cut_costs_the_stream_and_not_the_connection(
    send2: Any, serve2: Any
) -> None:
    async def script(exchange: Any) -> None:
        exchange.headers(200)
        while not exchange.broken_off.is_set():
            await exchange.data(bytes(16_384), end=False)

    server = await serve2(script)
    for _ in range(3):
        response = await send2("GET", server.url, options={"max_response": 100_000})
        assert response.content == bytes(100_000)
        assert response.extensions["truncated"] is True
    await until(lambda: len(server.resets) == 3)
    assert [code for _, _, code in server.resets] == [CANCEL] * 3
    assert (server.connections, len(server.requests)) == (1, 3)


@pytest.mark.parametrize(("size", "cut"), [(999, False), (1000, False), (1001, True)])
@pytest.mark.parametrize("packed", [False, True])
async def test_the_limit_is_exact(
    send2: Any, serve2: Any, size: int, cut: bool, packed: bool
) -> None:
    body = bytes(i & 0xFF for i in range(size))

    async def script(exchange: Any) -> None:
        fields = [("content-encoding", "gzip")] if packed else []
        await exchange.answer(200, gzip.compress(body) if packed else body, fields)

    server = await serve2(script)
    response = await send2("GET", server.url, options={"max_response": 1000})
    assert response.content == body[:1000]
    assert response.extensions["truncated"] is cut


async def test_a_body_of_empty_frames_costs_no_more_than_it_may(send2: Any, serve2: Any) -> None:
    async def script(exchange: Any) -> None:
        exchange.headers(200)
        frame = b"\0\0\0\0\0\0\0\0\1"
        while not exchange.broken_off.is_set():
            exchange.peer.raw(frame * 1000)
            await asyncio.sleep(0)

    server = await serve2(script)
    kind = await failure(send2("GET", server.url, options={"max_response": 1000}))
    assert kind == ("protocol", True, False)
    await until(lambda: server.resets)


# -- a peer that breaks off -------------------------------------------------------------------


async def test_what_a_goaway_leaves_out_was_not_processed(send2: Any, serve2: Any) -> None:
    async def script(exchange: Any) -> None:
        if len(server.requests) == 4 and not said.is_set():
            said.set()
            # Streams 1 and 3 of the four are answered, whatever comes after.
            exchange.peer.raw(GoAwayFrame(last_stream_id=3, error_code=0))
        await said.wait()
        await asyncio.sleep(0.01)
        if exchange.stream <= 3:
            await exchange.answer()

    said = asyncio.Event()
    server = await serve2(script)
    outcomes = await asyncio.gather(
        *(send2("POST", f"{server.url}/{n}") for n in range(4)), return_exceptions=True
    )
    errors = [outcome for outcome in outcomes if isinstance(outcome, SendError)]
    assert [(error.kind, error.sent, error.stale) for error in errors] == [
        ("reset", False, True)
    ] * 2
    answers = [outcome for outcome in outcomes if isinstance(outcome, httpx.Response)]
    assert [answer.content for answer in answers] == [b"ok", b"ok"]
    await soon(server.hung_up)  # we hang up once the last answer is there
    assert len(server.requests) == 4
    assert (await send2("POST", server.url)).content == b"ok"
    assert (server.connections, len(server.requests)) == (2, 5)


async def test_a_graceful_goaway_takes_two_steps(send2: Any, serve2: Any) -> None:
    async def script(exchange: Any) -> None:
        if exchange.peer.number == 1:
            exchange.peer.raw(GoAwayFrame(last_stream_id=2**31 - 1, error_code=0))
            there.set()
            await go_on.wait()
            exchange.peer.raw(GoAwayFrame(last_stream_id=1, error_code=0))
        await exchange.answer()

    there, go_on = asyncio.Event(), asyncio.Event()
    server = await serve2(script)
    first = asyncio.create_task(send2("POST", server.url))
    await soon(there)
    await asyncio.sleep(0.02)
    await send2("POST", server.url)
    assert server.connections == 2
    go_on.set()
    assert (await first).content == b"ok"


async def test_a_refused_stream_was_not_processed(send2: Any, serve2: Any) -> None:
    async def script(exchange: Any) -> None:
        if exchange.stream in (1, 5):
            exchange.reset(int(ErrorCodes.REFUSED_STREAM))
        else:
            await exchange.answer()

    server = await serve2(script)
    assert await failure(send2("POST", server.url)) == ("reset", False, False)
    assert (await send2("POST", server.url)).content == b"ok"
    assert await failure(send2("POST", server.url)) == ("reset", False, True)
    assert (server.connections, len(server.requests)) == (1, 3)


@pytest.mark.parametrize("code", [0, 2, 8, 11, 13, 99])
@pytest.mark.parametrize("within", [False, True])
async def test_any_other_reset_leaves_it_open(
    send2: Any, serve2: Any, code: int, within: bool
) -> None:
    async def script(exchange: Any) -> None:
        if within:
            exchange.headers(200)
        exchange.reset(code)

    server = await serve2(script)
    for _ in range(2):
        assert await failure(send2("POST", server.url)) == ("reset", True, False)
    assert (server.connections, len(server.requests)) == (1, 2)


async def test_refusing_within_the_answer_is_no_refusal(send2: Any, serve2: Any) -> None:
    async def script(exchange: Any) -> None:
        exchange.headers(200)
        exchange.reset(int(ErrorCodes.REFUSED_STREAM))

    server = await serve2(script)
    assert await failure(send2("POST", server.url)) == ("reset", True, False)


async def test_a_connection_lost_says_nothing_of_what_was_on_it(send2: Any, serve2: Any) -> None:
    async def script(exchange: Any) -> None:
        if exchange[":path"] == b"/first":
            await exchange.answer()
            return
        if exchange[":path"] == b"/begun":
            exchange.headers(200)
        if len(server.requests) == 3:
            await asyncio.sleep(0.02)
            exchange.peer.close()

    server = await serve2(script)
    await send2("GET", f"{server.url}/first")
    kinds = await asyncio.gather(
        failure(send2("POST", f"{server.url}/begun")), failure(send2("POST", f"{server.url}/x"))
    )
    assert kinds == [("reset", True, False), ("reset", True, True)]
    assert (server.connections, len(server.requests)) == (1, 3)


async def test_a_new_connection_that_is_lost_is_not_stale(send2: Any, serve2: Any) -> None:
    async def script(exchange: Any) -> None:
        exchange.peer.close()

    server = await serve2(script)
    assert await failure(send2("POST", server.url)) == ("reset", True, False)
    assert len(server.requests) == 1


async def test_a_connection_that_is_lost_while_a_body_is_sent(send2: Any, serve2: Any) -> None:
    async def script(exchange: Any) -> None:
        if exchange[":method"] == b"POST":
            exchange.peer.close()
        await exchange.answer()

    server = await serve2(script, at_once=True, holding=True)
    large = bytes(1_000_000)
    assert await failure(send2("POST", server.url, content=large)) == ("send", True, False)
    await send2("GET", server.url)
    assert await failure(send2("POST", server.url, content=large)) == ("send", True, True)
    assert (server.connections, len(server.requests)) == (2, 3)


async def test_a_body_that_nobody_reads_is_not_piled_up(send2: Any, serve2: Any) -> None:
    async def script(exchange: Any) -> None:
        exchange.peer.writer.transport.pause_reading()
        exchange.peer.raw(WindowUpdateFrame(0, 2**31 - 1 - 65_535))
        await exchange.broken_off.wait()

    server = await serve2(
        script, settings={SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1}, at_once=True, holding=True
    )
    content = bytes(30_000_000)
    gc.collect()
    tracemalloc.start()
    try:
        sent = send2("POST", server.url, content=content, options={"timeout": 0.5})
        assert await failure(sent) == ("timeout", True, False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 15_000_000


@pytest.mark.parametrize("noticed", [True, False])
async def test_an_idle_connection_that_ended_is_dropped_before_use(
    send2: Any, serve2: Any, noticed: bool
) -> None:
    server = await serve2(ok)
    await send2("GET", server.url)
    if noticed:
        server.peers[0].close()
        await soon(server.hung_up)
        await asyncio.sleep(0.02)
    else:  # it has arrived, and the loop has had no turn to read it
        handle = os.dup(server.peers[0].writer.get_extra_info("socket").fileno())
        with socket.socket(fileno=handle) as beneath:
            beneath.shutdown(socket.SHUT_RDWR)
    assert (await send2("POST", server.url)).content == b"ok"
    assert (server.connections, len(server.requests)) == (2, 2)


async def test_pings_are_answered(send2: Any, serve2: Any) -> None:
    async def script(exchange: Any) -> None:
        exchange.peer.conn.ping(b"12345678")
        exchange.peer.flush()
        await until(lambda: server.pongs)
        await exchange.answer()

    server = await serve2(script)
    assert (await send2("GET", server.url)).content == b"ok"
    assert server.pongs == [b"12345678"]


@pytest.mark.parametrize("reads", [True, False])
async def test_pings_without_end_are_not(send2: Any, serve2: Any, reads: bool) -> None:
    async def script(exchange: Any) -> None:
        if not reads:
            exchange.peer.writer.transport.pause_reading()
        many = PingFrame(opaque_data=bytes(8)).serialize() * 1000
        with contextlib.suppress(OSError):
            while not server.hung_up.is_set() and not exchange.peer.writer.is_closing():
                exchange.peer.raw(many)
                await exchange.peer.writer.drain()
                await asyncio.sleep(0)  # draining may take no turn of the loop

    server = await serve2(script)
    assert await failure(send2("GET", server.url)) == ("protocol", True, False)


async def test_what_an_answer_held_is_free_once_it_is_handed_back(send2: Any, serve2: Any) -> None:
    async def script(exchange: Any) -> None:
        if exchange.stream % 4 == 1:
            await exchange.answer()
        else:
            exchange.reset(2)

    server = await serve2(script)
    await send2("GET", server.url)
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            with contextlib.suppress(SendError):
                await send2("GET", server.url)
        left = [thing for thing in gc.get_objects() if isinstance(thing, HttpAnswer)]
        assert len(left) <= 1  # the task may still hold its last error
    finally:
        gc.enable()
