"""HTTP/2: what is said over a connection, and who shares it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
import subprocess
import sys
from typing import Any

import httpx
import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from http2_parts import failure, ok, soon, until

from orchestratord.engine.transport import HttpClient, SendOptions
from orchestratord.errors import EgressDenied
from orchestratord.http.egress import Egress, parse_rule
from orchestratord.model.http_message import Request

CANCEL = int(ErrorCodes.CANCEL)


# -- what is spoken, and what is said ---------------------------------------------------------


async def test_spoken_where_both_know_it(send2: Any, serve2: Any) -> None:
    server = await serve2(ok)
    response = await send2("POST", f"{server.url}/a%2Fb//c?d=%zz", content=b"body")
    assert (response.status_code, response.content) == (200, b"ok")
    assert response.http_version == "HTTP/2"
    assert response.reason_phrase == "OK"
    assert response.extensions["truncated"] is False
    [request] = server.requests
    assert request.fields == [
        (b":method", b"POST"),
        (b":authority", f"127.0.0.1:{server.port}".encode()),
        (b":scheme", b"https"),
        (b":path", b"/a%2Fb//c?d=%zz"),
        (b"content-length", b"4"),
    ]
    assert request.body == b"body"


@pytest.mark.parametrize("offers", [["http/1.1"], None])
async def test_http1_is_spoken_with_those_who_know_nothing_else(
    send2: Any, serve: Any, certified: Any, offers: list[str] | None
) -> None:
    async def script(peer: Any) -> None:
        while True:
            await peer.request()
            await peer.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    context = certified("127.0.0.1")
    if offers:
        context.set_alpn_protocols(offers)
    server = await serve(script, tls=context)
    responses = await asyncio.gather(*(send2("POST", server.url) for _ in range(5)))
    assert {response.http_version for response in responses} == {"HTTP/1.1"}
    assert (server.connections, len(server.requests)) == (5, 5)
    await send2("POST", server.url)
    assert (server.connections, len(server.requests)) == (5, 6)


async def test_not_spoken_where_it_is_not_offered(
    send: Any, serve: Any, certified: Any, trusting: ssl.SSLContext
) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    context = certified("127.0.0.1")
    context.set_alpn_protocols(["h2", "http/1.1"])
    server = await serve(script, tls=context)
    response = await send("GET", server.url, options={"ssl_context": trusting})
    assert response.http_version == "HTTP/1.1"


async def test_headers_of_http1s_connection_are_left_out(send2: Any, serve2: Any) -> None:
    server = await serve2(ok)
    await send2(
        "POST",
        server.url,
        headers=[
            ("X-Twice", "1"),
            ("x-twice", "2"),
            ("Connection", "close, X-Hop"),
            ("X-Hop", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Transfer-Encoding", "chunked"),
            ("TE", "gzip"),
            ("Upgrade", "h2c"),
            ("Host", "other.example"),
            ("X-Empty", ""),
            ("Authorization", "Bearer x"),
        ],
        content=[b"chun", b"ked"],
    )
    [request] = server.requests
    assert request[":authority"] == b"other.example"
    assert request.fields[4:] == [
        (b"x-twice", b"1"),
        (b"x-twice", b"2"),
        (b"x-empty", b""),
        (b"authorization", b"Bearer x"),
    ]
    assert request.body == b"chunked"


async def test_what_may_be_secret_is_not_remembered_by_the_compression(
    send2: Any, serve2: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = await serve2(ok)
    with caplog.at_level("DEBUG"):
        for _ in range(2):
            await send2(
                "POST",
                f"{server.url}/hooks/hunter2",
                headers={"Authorization": "Bearer hunter2", "X-Key": "hunter2", "Accept": "*/*"},
            )
    table = server.peers[0].conn.decoder.header_table.dynamic_entries
    remembered = {bytes(name) for name, _ in table}
    assert {b"accept", b":authority"} <= remembered
    assert not {b"authorization", b"x-key", b":path"} & remembered
    assert "hunter2" not in caplog.text


async def test_a_request_that_cannot_be_sent_is_refused_as_over_http1(
    send2: Any, serve2: Any
) -> None:
    server = await serve2(ok)
    kind = await failure(send2("POST", server.url, headers={"X-A": "1\r\nX-Injected: 2"}))
    assert kind == ("protocol", False, False)
    assert server.connections == 0


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 404)]
)
async def test_answers_without_a_body(send2: Any, serve2: Any, method: str, status: int) -> None:
    async def script(exchange: Any) -> None:
        # Past h2, which takes a Content-Length without a body amiss.
        fields = [(":status", str(status)), ("content-length", "5")]
        exchange.peer.raw(exchange.block(fields, "END_STREAM"))

    server = await serve2(script)
    for _ in range(2):
        response = await send2(method, server.url)
        assert (response.status_code, response.content) == (status, b"")
    assert (server.connections, len(server.requests), server.resets) == (1, 2, [])


async def test_interim_answers_and_trailers(send2: Any, serve2: Any) -> None:
    async def script(exchange: Any) -> None:
        exchange.headers(100)
        exchange.headers(103, [("link", "x")])
        exchange.headers(202, [("x-twice", "1"), ("x-twice", "2")])
        await exchange.data(b"hello", end=False)
        exchange.trailers([("x-trailer", "t")])

    server = await serve2(script)
    response = await send2("GET", server.url)
    assert (response.status_code, response.content) == (202, b"hello")
    assert response.headers.raw == [(b"x-twice", b"1"), (b"x-twice", b"2")]


async def test_content_is_decoded(send2: Any, serve2: Any) -> None:
    async def script(exchange: Any) -> None:
        packed = gzip.compress(b"hello " * 1000)
        await exchange.answer(200, packed, [("content-encoding", "gzip")])

    server = await serve2(script)
    assert (await send2("GET", server.url)).content == b"hello " * 1000


async def test_a_peer_without_http2_is_never_a_reason_to_load_it() -> None:
    program = (
        "import sys, orchestratord.daemon, orchestratord.engine.transport\n"
        "assert 'orchestratord.engine.http1' in sys.modules\n"
        "print([name for name in ('hpack', 'h2', 'orchestratord.engine.http2') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


# -- one connection for many ------------------------------------------------------------------


async def test_all_at_once_over_one_connection(send2: Any, serve2: Any) -> None:
    async def script(exchange: Any) -> None:
        if len(server.requests) == 50:
            all_there.set()
        await all_there.wait()
        await exchange.answer(body=exchange[":path"])

    all_there = asyncio.Event()
    server = await serve2(script)
    responses = await asyncio.gather(*(send2("POST", f"{server.url}/{n}") for n in range(50)))
    assert [response.content for response in responses] == [b"/%d" % n for n in range(50)]
    assert (server.connections, len(server.requests)) == (1, 50)


async def test_no_more_than_the_peer_allows(send2: Any, serve2: Any) -> None:
    async def script(exchange: Any) -> None:
        if len(server.requests) == 25:
            all_there.set()
        await all_there.wait()
        await exchange.answer()

    all_there = asyncio.Event()
    # More of them than it allows are a fault for h2, and so for this server.
    server = await serve2(script, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 10})
    await asyncio.gather(*(send2("GET", server.url) for _ in range(25)))
    assert sorted(len(peer.exchanges) for peer in server.peers) == [5, 10, 10]
    await asyncio.gather(*(send2("GET", server.url) for _ in range(25)))
    assert (server.connections, len(server.requests)) == (3, 50)


async def test_a_peer_that_takes_no_request_at_all(send2: Any, serve2: Any) -> None:
    server = await serve2(ok, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 0})
    assert await failure(send2("POST", server.url)) == ("send", False, False)
    assert server.requests == []


async def test_fresh_has_a_connection_to_itself_and_leaves_it_to_others(
    send2: Any, serve2: Any
) -> None:
    async def script(exchange: Any) -> None:
        if exchange[":path"] == b"/fresh":
            there.set()
            await go_on.wait()
        await exchange.answer()

    there, go_on = asyncio.Event(), asyncio.Event()
    server = await serve2(script)
    await send2("GET", server.url)
    fresh = asyncio.create_task(send2("POST", f"{server.url}/fresh", options={"fresh": True}))
    await soon(there)
    await send2("GET", server.url)
    assert [len(peer.exchanges) for peer in server.peers] == [2, 1]
    go_on.set()
    await fresh
    await send2("GET", server.url)
    assert [len(peer.exchanges) for peer in server.peers] == [2, 2]


async def test_those_who_wait_for_a_connection_do_without_it_where_it_fails(
    client: HttpClient, offering: Any, serve2: Any, loopback: Egress
) -> None:
    server = await serve2(ok)

    async def send(egress: Egress) -> httpx.Response:
        options = SendOptions(timeout=10, egress=egress, ssl_context=offering)
        return await client.send(httpx.Request("GET", server.url), options=options)

    first, *others = await asyncio.gather(
        send(Egress()), *(send(loopback) for _ in range(3)), return_exceptions=True
    )
    assert isinstance(first, EgressDenied)
    assert [other.status_code for other in others] == [200] * 3
    assert len(server.requests) == 3


async def test_waiting_for_a_connection_is_part_of_the_deadline(
    send2: Any, serve: Any, certified: Any
) -> None:
    server = await serve(lambda peer: peer.eof())  # not even TLS
    url = f"https://127.0.0.1:{server.port}/"
    slow = asyncio.create_task(failure(send2("GET", url, options={"connect_timeout": 1.0})))
    await server_is_met(server)
    quick = await failure(send2("GET", url, options={"timeout": 0.1}))
    assert quick == ("timeout", False, False)
    assert server.connections == 1
    assert await slow == ("timeout", False, False)


async def server_is_met(server: Any) -> None:
    await until(lambda: server.connections)


async def test_a_caller_who_goes_away_while_connecting_leaves_the_others_to_it(
    send2: Any, serve2: Any
) -> None:
    server = await serve2(ok)
    first = asyncio.create_task(send2("GET", server.url))
    others = [asyncio.create_task(send2("GET", server.url)) for _ in range(3)]
    await server_is_met(server)
    first.cancel()
    assert [response.status_code for response in await asyncio.gather(*others)] == [200] * 3
    with contextlib.suppress(asyncio.CancelledError):
        await first
    assert len(server.requests) in (3, 4)


async def test_rules_that_were_tightened_hold_for_shared_connections(
    client: HttpClient, offering: Any, serve2: Any, loopback: Egress
) -> None:
    server = await serve2(ok)

    async def send(*rules: str) -> None:
        egress = Egress(tuple(parse_rule(rule) for rule in rules))
        options = SendOptions(timeout=10, egress=egress, ssl_context=offering)
        await client.send(httpx.Request("GET", server.url), options=options)

    await send("127.0.0.0/8")
    with pytest.raises(EgressDenied):
        await send("127.0.0.2")
    await send("127.0.0.1")
    assert (server.connections, len(server.requests)) == (1, 2)


async def test_idle_connections_are_closed_and_the_peer_is_told(
    serve2: Any, options: SendOptions, offering: Any
) -> None:
    server = await serve2(ok)
    for client, closing in ((HttpClient(idle_timeout=0.05), False), (HttpClient(), True)):
        server.hung_up.clear()
        settings = SendOptions(timeout=10, egress=options.egress, ssl_context=offering)
        await client.send(httpx.Request("GET", server.url), options=settings)
        if closing:
            await client.aclose()
        await soon(server.hung_up)
        await client.aclose()
    assert server.farewells == [0, 0]
    assert server.connections == 2


async def test_a_closed_client_ends_what_is_under_way_and_keeps_nothing(
    serve2: Any, options: SendOptions, offering: Any
) -> None:
    async def script(exchange: Any) -> None:
        there.set()
        await go_on.wait()
        await exchange.answer()

    there, go_on = asyncio.Event(), asyncio.Event()
    server = await serve2(script)
    client = HttpClient()
    settings = SendOptions(timeout=10, egress=options.egress, ssl_context=offering)
    sending = asyncio.create_task(client.send(httpx.Request("GET", server.url), options=settings))
    await soon(there)
    await client.aclose()
    go_on.set()
    assert (await sending).content == b"ok"
    await soon(server.hung_up)


async def test_connections_are_bounded_in_number(
    serve2: Any, options: SendOptions, offering: Any
) -> None:
    async def script(exchange: Any) -> None:
        if len(server.requests) == 6:
            all_there.set()
        await all_there.wait()
        await exchange.answer()

    all_there = asyncio.Event()
    server = await serve2(script, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    client = HttpClient(max_idle=4, max_idle_per_host=3)
    settings = SendOptions(timeout=10, egress=options.egress, ssl_context=offering)
    request = httpx.Request("GET", server.url)
    await asyncio.gather(*(client.send(request, options=settings) for _ in range(6)))
    await until(lambda: len(server.farewells) == 3)
    assert server.connections == 6
    await client.aclose()
    await until(lambda: len(server.farewells) == 6)


# -- windows ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 16_384, 16_385, 3_000_000])
async def test_large_bodies_both_ways(send2: Any, serve2: Any, size: int) -> None:
    async def script(exchange: Any) -> None:
        await exchange.answer(body=bytes(exchange.body))

    server = await serve2(script)
    body = (bytes(i * 11 & 0xFF for i in range(997)) * (size // 997 + 1))[:size]
    limit = {"max_response": size}
    first, second, third = await asyncio.gather(
        *(send2("POST", server.url, content=body, options=limit) for _ in range(3))
    )
    assert first.content == second.content == third.content == body
    assert (server.connections, server.resets) == (1, [])


async def test_a_body_waits_for_its_window_and_others_do_not(send2: Any, serve2: Any) -> None:
    async def script(exchange: Any) -> None:
        if exchange[":path"] == b"/small":
            await exchange.answer()
            return
        there.set()
        await go_on.wait()
        while len(exchange.body) < 50_000:
            seen.append(len(exchange.body))
            exchange.peer.conn.increment_flow_control_window(10_000, exchange.stream)
            exchange.peer.flush()
            await exchange.peer.moved()
        await exchange.answer()

    there, go_on = asyncio.Event(), asyncio.Event()
    seen: list[int] = []
    server = await serve2(
        script,
        settings={SettingCodes.INITIAL_WINDOW_SIZE: 10_000},
        at_once=True,
        holding=True,
    )
    large = asyncio.create_task(send2("POST", f"{server.url}/large", content=bytes(50_000)))
    await soon(there)
    assert (await send2("GET", f"{server.url}/small")).content == b"ok"
    assert len(server.requests[0].body) == 10_000
    go_on.set()
    assert (await large).content == b"ok"
    assert seen[0] == 10_000
    assert server.connections == 1


async def test_a_window_that_shrinks_below_nothing_while_a_body_is_sent(
    send2: Any, serve2: Any
) -> None:
    async def script(exchange: Any) -> None:
        peer = exchange.peer
        await until(lambda: len(exchange.body) == 10_000)
        peer.settled.clear()
        peer.conn.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 100})
        peer.flush()
        await peer.settled.wait()  # 9,900 over it now
        peer.conn.increment_flow_control_window(9_901, exchange.stream)
        peer.flush()
        await until(lambda: len(exchange.body) == 10_001)
        peer.conn.increment_flow_control_window(39_999, exchange.stream)
        peer.flush()
        await until(lambda: len(exchange.body) == 50_000)
        await exchange.answer()

    server = await serve2(
        script,
        settings={SettingCodes.INITIAL_WINDOW_SIZE: 10_000},
        at_once=True,
        holding=True,
    )
    assert (await send2("POST", server.url, content=bytes(50_000))).content == b"ok"


async def test_an_answer_counts_that_comes_before_the_body_is_sent(send2: Any, serve2: Any) -> None:
    async def script(exchange: Any) -> None:
        await exchange.answer(413, b"big")

    server = await serve2(script, at_once=True, holding=True)
    response = await send2("POST", server.url, content=bytes(1_000_000))
    assert (response.status_code, response.content) == (413, b"big")
    await until(lambda: server.resets)
    assert server.resets == [(1, 1, CANCEL)]
    server.at_once = False
    assert (await send2("GET", server.url)).status_code == 413
    assert server.connections == 1


async def test_requests_as_the_daemon_makes_them(
    client: HttpClient, serve2: Any, options: SendOptions, offering: Any
) -> None:
    server = await serve2(ok)
    settings = SendOptions(timeout=10, egress=options.egress, ssl_context=offering)
    for make in (Request, httpx.Request):
        request = make(
            "POST", f"{server.url}/a?b=c", headers={"X-A": "1", "Accept": "*/*"}, content=b"body"
        )
        assert (await client.send(request, options=settings)).content == b"ok"
    made, theirs = server.requests
    assert made.fields == theirs.fields
    assert made.body == theirs.body
