"""What routes of plugins may answer besides JSON, and the status that they are given."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from orchestratord import Answer, Control, Route, hookimpl
from orchestratord.api import status as status_module
from tests.unit.api.control_parts import UNLIMITED, Parts

TEXT = "text/plain; version=0.0.4"


class Plain:
    """A plugin whose routes answer texts."""

    @hookimpl
    def register_routes(self, control: Control) -> list[Any]:
        self.control = control

        async def text(path: Any, query: Any, body: Any) -> Answer:
            return Answer("größer\n", 202, {"X-A": "b"}, TEXT)

        async def raw(path: Any, query: Any, body: Any) -> Answer:
            return Answer(b"\x00\xff", media_type="application/octet-stream")

        async def wrong(path: Any, query: Any, body: Any) -> Answer:
            return Answer({"a": 1}, media_type="text/plain")

        return [
            Route("GET", "/text", text),
            Route("GET", "/raw", raw),
            Route("GET", "/wrong", wrong),
        ]


@pytest.fixture
async def plain(tmp_path: Path) -> AsyncIterator[Parts]:
    parts = Parts(tmp_path)
    parts.plugin = Plain()
    await parts.start(parts.plugin)
    yield parts
    await parts.stop()


async def test_a_text(plain: Parts) -> None:
    answer = await plain.client.get("/text")
    assert (answer.status_code, answer.headers["x-a"]) == (202, "b")
    assert answer.headers["content-type"] == f"{TEXT}; charset=utf-8"
    assert answer.content == "größer\n".encode()
    head = await plain.client.head("/text")
    assert (head.status_code, head.content) == (202, b"")


async def test_bytes(plain: Parts) -> None:
    answer = await plain.client.get("/raw")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.content == b"\x00\xff"


async def test_what_is_no_text_is_its_plugins_fault(plain: Parts) -> None:
    answer = await plain.client.get("/wrong")
    assert (answer.status_code, answer.json()["code"]) == (500, "plugin_fault")
    assert plain.host.plugins["extra"].faults == 1
    assert "a dict as text/plain" in str(plain.host.plugins["extra"].last_fault)


async def test_plugins_see_the_status_and_all_lanes(
    plain: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = status_module.MAX_LANES + 5
    lanes = [
        {"name": f"lane-{n}", "in_flight": 0, "concurrency": 10, "due": 0, **UNLIMITED}
        for n in range(count)
    ]
    snapshot = {**plain.worker.snapshot(), "lanes": lanes}
    monkeypatch.setattr(plain.worker, "snapshot", lambda: snapshot)
    control: Control = plain.plugin.control
    assert len((await control.status())["lanes"]) == status_module.MAX_LANES
    everything = await control.status(all_lanes=True)
    assert {lane["name"] for lane in everything["lanes"]} == {lane["name"] for lane in lanes}
    assert everything["version"]
