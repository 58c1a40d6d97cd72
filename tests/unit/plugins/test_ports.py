"""Ports of plugins: what answers there, and what a fault of its plugin is answered with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from orchestratord import Answer, Conflict, PortHandler, PortRequest, hookimpl
from orchestratord.api.server import received_body
from orchestratord.api.server.port_application import port_applications
from orchestratord.plugin.host import Host


class Bell:
    """Answers by what the path says."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @hookimpl
    def register_ports(self, control: Any) -> list[Any]:
        return [PortHandler("bell", self.admit, self.ring, self.refused), "nonsense"]

    @hookimpl
    def example_request(self, endpoint: Any, body: bytes | None) -> list[PortRequest]:
        return [PortRequest("POST", "/", (), (), "", body or b"ding")]

    def admit(self, request: PortRequest) -> int | Answer:
        if request.path == "/refused":
            return Answer({"no": True}, 418)
        if request.path == "/broken":
            raise RuntimeError("broken")
        return 10

    def refused(self, request: PortRequest, reason: str) -> None:
        self.told.append(reason)

    async def ring(self, request: PortRequest) -> Any:
        if request.path == "/conflict":
            raise Conflict("rings already")
        if request.path == "/nonsense":
            return "nonsense"
        if request.path == "/slow":
            await asyncio.sleep(60)
        said = {"body": request.body.decode(), "query": list(request.query)}
        return Answer({**said, "x": request.header("x-ring")})


@pytest.fixture
def host() -> Host:
    host = Host()
    host.timeout = 0.05
    host.register(Bell(), "bell")
    return host


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/", b"0123456789", 200),
        ("/", b"0123456789a", 413),
        ("/refused", b"", 418),
        ("/broken", b"", 500),
        ("/conflict", b"", 409),
        ("/nonsense", b"", 500),
        ("/slow", b"", 503),
    ],
)
async def test_register_ports(host: Host, path: str, body: bytes, status: int) -> None:
    applications = port_applications(host, None)  # type: ignore[arg-type]
    assert list(applications) == ["bell"]
    transport = httpx.ASGITransport(applications["bell"])
    async with httpx.AsyncClient(transport=transport, base_url="http://bell") as client:
        answer = await client.post(f"{path}?a=1&a=2", content=body, headers={"X-Ring": "twice"})
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    if status == 200:
        found = {"body": "0123456789", "query": [["a", "1"], ["a", "2"]], "x": "twice"}
        assert answer.json() == found
    faults = host.plugins["bell"].faults
    assert faults == (2 if status in (500, 503) else 1), "the nonsense among its ports is one"
    told = {413: ["too_large"], 503: ["unavailable"]}
    assert applications["bell"]._handler.handler.__self__.told == told.get(status, [])


async def test_bodies_have_so_much_room_together(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(received_body, "SMALL", 4)
    monkeypatch.setattr(received_body, "MAX_TOGETHER", 10)
    [application] = port_applications(host, None).values()  # type: ignore[arg-type]
    transport = httpx.ASGITransport(application)
    go_on = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"12345678"
        await go_on.wait()

    async with httpx.AsyncClient(transport=transport, base_url="http://bell") as client:
        slow = [asyncio.create_task(client.post("/", content=slowly())) for _ in range(3)]
        await asyncio.wait(slow, return_when=asyncio.FIRST_COMPLETED)
        assert (await client.post("/", content=b"1234")).status_code == 200
        go_on.set()
        answers = [answer.status_code for answer in await asyncio.gather(*slow)]
        assert sorted(answers) == [200, 200, 503]
        assert (await client.post("/", content=b"12345678")).status_code == 200


def test_example_request(host: Host) -> None:
    [(plugin, [made])] = host.ask("example_request", {"endpoint": None, "body": b"dong"})
    assert (plugin, made.body) == ("bell", b"dong")
