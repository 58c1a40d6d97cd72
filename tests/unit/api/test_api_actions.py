"""The action log: what people did, written down before they are answered."""

from __future__ import annotations

import logging
import os
import pwd
from typing import Any

import pytest

from orchestratord.api.server import handler
from orchestratord.errors import QueueError
from orchestratord.queue.batch import Write
from orchestratord.queue.operations import manual
from tests.unit.api.control_parts import Parts


async def done(parts: Parts, query: str = "") -> list[dict[str, Any]]:
    answer = await parts.client.get(f"/v1/actions{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["actions"]
    return found


async def test_each_thing_done_by_hand_has_its_entry(parts: Parts) -> None:
    [failed] = await parts.failed()
    [waits] = await parts.later(1)
    for path in (
        f"/v1/retries/{failed}/trigger",
        f"/v1/retries/{waits}/cancel",
        "/v1/endpoints/demo/get/pause",
        "/v1/endpoints/demo/get/resume",
        "/v1/reload",
    ):
        assert (await parts.post(path)).status_code in (200, 202), path
    wanted = {"filter": {"text": "no such text", "endpoint": "demo/*"}, "rate": "5/s"}
    bulk = (await parts.post("/v1/retries/trigger", wanted)).json()["bulk"]
    entries = (await done(parts))[::-1]
    assert [entry["action"] for entry in entries] == [
        "retry", "cancel", "pause", "resume", "reload", "retry many",
    ]  # fmt: skip
    user = pwd.getpwuid(os.getuid()).pw_name
    who = f"{user} (uid {os.getuid()}, pid {os.getpid()})"
    assert all(entry["who"] == who and entry["at"] for entry in entries)
    assert (entries[0]["endpoint"], entries[0]["task"]) == ("demo/get", failed)
    assert entries[5]["bulk"] == bulk
    assert entries[5]["detail"] == {
        "matched": 0, "filter": {"text": "no such text", "endpoint": "demo/*"},
    }  # fmt: skip


async def test_looking_counting_and_what_is_refused_leave_none(parts: Parts) -> None:
    await parts.client.get("/v1/status")
    await parts.post("/v1/retries/trigger", {"filter": {"kind": "call"}, "dry_run": True})
    assert (await parts.post("/v1/retries/99/trigger")).status_code == 404
    assert (await parts.post("/v1/endpoints/demo/none/pause")).status_code == 404
    await parts.made()  # a program's call is a task, and no entry
    assert await done(parts) == []


async def test_pages_of_it(parts: Parts) -> None:
    for _ in range(3):
        await parts.post("/v1/endpoints/demo/get/pause")
    page = (await parts.client.get("/v1/actions?limit=2")).json()
    assert len(page["actions"]) == 2
    assert page["next"] == page["actions"][-1]["id"]
    last = (await parts.client.get(f"/v1/actions?limit=2&after={page['next']}")).json()
    assert (len(last["actions"]), last["next"]) == (1, None)
    for query in ("limit=0", "limit=1001", "after=x", "since=1h"):
        assert (await parts.client.get(f"/v1/actions?{query}")).status_code == 422


async def test_what_is_done_is_not_said_to_have_failed(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(who: str, action: Any) -> Write[int]:
        raise QueueError("the disk is full")

    monkeypatch.setattr(manual, "record_action", full)
    with caplog.at_level(logging.ERROR):
        answer = await parts.post("/v1/endpoints/demo/get/pause")
    assert (answer.status_code, answer.json()["paused"]) == (200, True)
    assert "action log" in caplog.text


def test_a_user_without_a_name_is_a_number() -> None:
    assert handler._user(os.getuid()) == pwd.getpwuid(os.getuid()).pw_name
    assert handler._user(4_123_456_789) is None
