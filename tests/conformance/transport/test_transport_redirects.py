"""Redirects are answers. Where they are followed: within the origin, three at most."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from orchestratord.errors import EgressDenied, SendError
from orchestratord.http.client import HttpClient, SendOptions
from orchestratord.http.egress import Egress, parse_rule

FOLLOW = {"follow_redirects": True}


def redirecting(*locations: str, status: int = 302) -> Any:
    """A script that sends each request to the next location, and answers the last with 200."""
    left = list(locations)

    async def script(peer: Any) -> None:
        while True:
            await peer.request()
            if left:
                location = left.pop(0).replace("ORIGIN", peer.server.url).encode()
                await peer.answer(
                    b"HTTP/1.1 %d Elsewhere\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n"
                    % (status, location)
                )
            else:
                await peer.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    return script


def targets(server: Any) -> list[bytes]:
    return [b" ".join(raw.split(b" ")[:2]) for raw in server.requests]


async def test_none_is_followed_by_default(send: Any, serve: Any) -> None:
    server = await serve(redirecting("/next"))
    response = await send("GET", f"{server.url}/")
    assert (response.status_code, response.headers["location"]) == (302, "/next")
    assert targets(server) == [b"GET /"]


@pytest.mark.parametrize("location", ["/next?a=b", "ORIGIN/next?a=b", "next?a=b#part"])
async def test_within_the_origin(send: Any, serve: Any, location: str) -> None:
    server = await serve(redirecting(location))
    response = await send("GET", f"{server.url}/first", headers={"X-Key": "k"}, options=FOLLOW)
    assert (response.status_code, response.content) == (200, b"ok")
    assert response.url.raw_path == b"/next?a=b"
    assert targets(server) == [b"GET /first", b"GET /next?a=b"]
    assert b"X-Key: k" in server.requests[1]
    assert server.connections == 1


async def test_three_and_not_a_fourth(send: Any, serve: Any) -> None:
    server = await serve(redirecting("/1", "/2", "/3", "/4"))
    response = await send("GET", f"{server.url}/0", options=FOLLOW)
    assert (response.status_code, response.headers["location"]) == (302, "/4")
    assert targets(server) == [b"GET /0", b"GET /1", b"GET /2", b"GET /3"]


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:OTHER/",
        "https://127.0.0.1:PORT/",
        "http://localhost:PORT/",
        "//localhost:PORT/",
        "http://127.0.0.1/",
        "http://user:pass@127.0.0.1:PORT/",
        "http://[::1/",
        "javascript:alert(1)",
        "",
    ],
)
async def test_nowhere_else(send: Any, serve: Any, location: str) -> None:
    other = await serve(redirecting())
    places: list[str] = []
    server = await serve(redirecting(""))
    location = location.replace("OTHER", str(other.port)).replace("PORT", str(server.port))
    places.append(location)
    server.script = redirecting(*places)
    response = await send("GET", f"{server.url}/", headers={"Authorization": "x"}, options=FOLLOW)
    assert response.status_code == 302
    assert (len(server.requests), other.connections) == (1, 0)


@pytest.mark.parametrize(
    ("status", "method", "follows"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (302, "PUT", "PUT"),
        (307, "POST", "POST"),
        (308, "PATCH", "PATCH"),
        (303, "HEAD", "HEAD"),
    ],
)
async def test_methods_and_bodies(
    send: Any, serve: Any, status: int, method: str, follows: str
) -> None:
    server = await serve(redirecting("/next", status=status))
    response = await send(
        method, f"{server.url}/", content=b"body", headers={"X-Key": "k"}, options=FOLLOW
    )
    assert response.status_code == 200
    assert targets(server)[1] == f"{follows} /next".encode()
    second = server.requests[1]
    assert second.endswith(b"body") == (follows == method)
    assert (b"ontent-" in second) == (follows == method)
    assert b"X-Key: k" in second


@pytest.mark.parametrize("status", [300, 304, 305, 399])
async def test_other_3xx_are_answers(send: Any, serve: Any, status: int) -> None:
    server = await serve(redirecting("/next", status=status))
    assert (await send("GET", server.url, options=FOLLOW)).status_code == status


async def test_each_is_checked_again(serve: Any) -> None:
    async def resolver(host: str, port: int) -> list[tuple[int, str]]:
        asked.append(host)
        return [(2, "127.0.0.1" if len(asked) == 1 else "127.0.0.2")]

    asked: list[str] = []
    server = await serve(redirecting("/next"))
    client = HttpClient(resolver)
    options = SendOptions(
        timeout=10, egress=Egress((parse_rule("127.0.0.1"),)), follow_redirects=True, fresh=True
    )
    request = httpx.Request("POST", f"http://moving.example:{server.port}/")
    with pytest.raises(EgressDenied) as caught:
        await client.send(request, options=options)
    assert caught.value.sent is True  # the first request was
    assert len(server.requests) == 1
    await client.aclose()


async def test_the_deadline_is_for_all_of_them(send: Any, serve: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer(b"HTTP/1.1 307 On\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n")
        await peer.request()
        await peer.eof()

    server = await serve(script)
    with pytest.raises(SendError) as caught:
        await send("POST", server.url, options={"timeout": 0.3, **FOLLOW})
    assert (caught.value.kind, caught.value.sent) == ("timeout", True)
    assert len(server.requests) == 2
