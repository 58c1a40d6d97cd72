"""The address that is checked is the address that is dialled."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import httpx
import pytest

from orchestratord.errors import EgressDenied, SendError
from orchestratord.http.client import HttpClient, SendOptions
from orchestratord.http.egress import Egress, parse_rule

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def serving(peer: Any) -> None:
    while True:
        await peer.request()
        await peer.answer(OK)


def opening(*rules: str) -> Egress:
    return Egress(tuple(parse_rule(rule) for rule in rules))


class Resolver:
    """Answers with one list of addresses after the other; the last one stays."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> list[tuple[int, str]]:
        self.asked.append((host, port))
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, address)
            for address in addresses
        ]


async def send(client: HttpClient, url: str, egress: Egress, **options: Any) -> httpx.Response:
    settings = SendOptions(**{"timeout": 10.0, "egress": egress, **options})
    async with asyncio.timeout(60):
        return await client.send(httpx.Request("GET", url), options=settings)


async def test_loopback_is_denied_without_a_rule(client: HttpClient, serve: Any) -> None:
    server = await serve(serving)
    with pytest.raises(EgressDenied) as caught:
        await send(client, server.url, opening())
    assert f"egress: {{allow: [127.0.0.1:{server.port}]}}" in caught.value.message
    assert (caught.value.kind, caught.value.sent) == ("egress", False)
    assert server.connections == 0


async def test_another_address_than_the_rules_is_refused_without_connecting(
    client: HttpClient, serve: Any
) -> None:
    server = await serve(serving, host="127.0.0.2")
    with pytest.raises(EgressDenied) as caught:
        await send(client, server.url, opening("127.0.0.1"))
    assert "127.0.0.2" in caught.value.message
    await asyncio.sleep(0.02)
    assert server.connections == 0
    assert (await send(client, server.url, opening("127.0.0.0/30"))).content == b"ok"


@pytest.mark.parametrize("host", ["0x7f.1", "2130706433", "127.1", "localhost"])
async def test_other_spellings_are_the_same_address(
    client: HttpClient, serve: Any, host: str
) -> None:
    server = await serve(serving)
    url = f"http://{host}:{server.port}/"
    with pytest.raises(EgressDenied):
        await send(client, url, opening("10.0.0.0/8"))
    assert server.connections == 0
    assert (await send(client, url, opening("127.0.0.1"))).content == b"ok"
    assert f"Host: {host}:{server.port}\r\n".encode() in server.requests[0]


async def test_a_name_that_is_rebound_is_dialled_where_it_was_checked(serve: Any) -> None:
    allowed = await serve(serving)
    forbidden = await serve(serving, host="127.0.0.2", port=allowed.port)
    resolver = Resolver(["127.0.0.1"], ["127.0.0.2"])
    client = HttpClient(resolver)
    url = f"http://rebound.example:{allowed.port}/"
    assert (await send(client, url, opening("127.0.0.1"), fresh=True)).content == b"ok"
    assert resolver.asked == [("rebound.example", allowed.port)]
    with pytest.raises(EgressDenied):
        await send(client, url, opening("127.0.0.1"), fresh=True)
    assert len(resolver.asked) == 2
    assert (allowed.connections, forbidden.connections) == (1, 0)
    await client.aclose()


async def test_denied_addresses_are_left_out_of_several(serve: Any) -> None:
    server = await serve(serving)
    forbidden = await serve(serving, host="127.0.0.2", port=server.port)
    client = HttpClient(Resolver(["127.0.0.2", "169.254.169.254", "127.0.0.1"]))
    url = f"http://several.example:{server.port}/"
    assert (await send(client, url, opening("127.0.0.1"))).content == b"ok"
    assert (server.connections, forbidden.connections) == (1, 0)
    await client.aclose()


async def test_the_next_address_is_tried_where_one_refuses(serve: Any) -> None:
    server = await serve(serving)
    client = HttpClient(Resolver(["127.0.0.3", "127.0.0.3", "127.0.0.1"]))
    url = f"http://several.example:{server.port}/"
    assert (await send(client, url, opening("127.0.0.0/8"))).content == b"ok"
    await client.aclose()


async def test_the_next_address_is_tried_where_one_is_silent(serve: Any) -> None:
    server = await serve(serving)
    client = HttpClient(Resolver(["127.0.0.2", "127.0.0.1"]))
    with socket.socket() as silent:
        silent.bind(("127.0.0.2", server.port))
        silent.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(silent.getsockname())
        url = f"http://several.example:{server.port}/"
        response = await send(client, url, opening("127.0.0.0/8"), connect_timeout=3.0)
        assert response.content == b"ok"
        for filler in fillers:
            filler.close()
    await client.aclose()


async def test_rules_that_were_tightened_hold_for_kept_connections(serve: Any) -> None:
    server = await serve(serving)
    resolver = Resolver(["127.0.0.1"])
    client = HttpClient(resolver)
    url = f"http://tight.example:{server.port}/"
    wide, narrow = opening("127.0.0.0/8"), opening("127.0.0.2")
    await send(client, url, wide)
    with pytest.raises(EgressDenied):
        await send(client, url, narrow)
    await send(client, url, wide)  # it was kept for those whose rules allow it
    await send(client, url, opening("127.0.0.1"))
    assert (server.connections, len(server.requests)) == (1, 3)
    await client.aclose()


async def test_the_daemons_own_listeners_are_denied(client: HttpClient, serve: Any) -> None:
    server = await serve(serving)
    for listening in ("127.0.0.1", "0.0.0.0", "::"):
        egress = Egress((parse_rule("127.0.0.1"),), frozenset({(listening, server.port)}))
        with pytest.raises(EgressDenied, match="own listener"):
            await send(client, server.url, egress)
    assert server.connections == 0


async def test_a_resolver_that_answers_nonsense_is_not_dialled() -> None:
    client = HttpClient(Resolver(["localhost"]))
    with pytest.raises(EgressDenied):
        await send(client, "http://odd.example:9/", opening("127.0.0.1"))
    await client.aclose()


async def test_ipv6(client: HttpClient, serve: Any) -> None:
    try:
        server = await serve(serving, host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    url = f"http://[::1]:{server.port}/"
    with pytest.raises(EgressDenied) as caught:
        await send(client, url, opening("127.0.0.1"))
    assert f'egress: {{allow: ["[::1]:{server.port}"]}}' in caught.value.message
    assert (await send(client, url, opening(f"[::1]:{server.port}"))).content == b"ok"


async def test_a_port_that_nobody_listens_on_does_not_answer_itself() -> None:
    # Connecting to a port of the range that clients are given out of can meet itself; as the
    # kernel picks, it takes many tries to happen, so the socket is bound to it here.
    egress = opening("127.0.0.1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    class Bound(socket.socket):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.bind(("127.0.0.1", port))

    client = HttpClient(Resolver(["127.0.0.1"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", Bound)
        with pytest.raises(SendError) as caught:
            await send(client, f"http://self.example:{port}/", egress)
    assert (caught.value.kind, caught.value.sent) == ("connect", False)
    await client.aclose()
