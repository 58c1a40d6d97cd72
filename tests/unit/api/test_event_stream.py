"""Events over the API: as server-sent events, filtered, resumed, bounded, and ended in order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import pytest

from orchestratord import NewTask
from orchestratord.api import event_stream
from orchestratord.errors import InvalidParams
from orchestratord.model.event import (
    ConfigEvent,
    DaemonEvent,
    EndpointEvent,
    Event,
    EventType,
    PluginEvent,
    ScheduleEvent,
    TaskEvent,
    WebhookEvent,
)
from orchestratord.plugin import event_bus
from tests.unit.api.control_parts import Parts, until

TASK = TaskEvent(EventType.TASK_FAILED, 1, 2, "webhook", "demo/get", "ops", "failed")
RELOAD = ConfigEvent(
    EventType.CONFIG_ADOPTED, 1, 4, "SIGHUP", 3, tuple("abcdefghijklmnopqrstuvwxyz")
)


class Stream:
    """A client that follows, block by block."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def block(self) -> dict[str, str]:
        """The next block: its fields by name; a comment stands under the empty one."""
        found: dict[str, str] = {}
        async with asyncio.timeout(60):
            async for line in self._lines:
                if not line:
                    return found
                name, _, value = line.partition(":")
                found[name] = value.strip()
        return {}

    async def event(self) -> dict[str, Any]:
        """The data of the next event."""
        while "data" not in (block := await self.block()):
            assert block, "the stream has ended"
        data: dict[str, Any] = json.loads(block["data"])
        assert data["type"] == block["event"]
        return data


@asynccontextmanager
async def following(parts: Parts, last: str | None = None, **query: str) -> AsyncIterator[Stream]:
    headers = {} if last is None else {"Last-Event-ID": last}
    async with parts.client.stream(
        "GET", "/v1/events", params=query, headers=headers, timeout=10
    ) as response:
        assert response.status_code == 200
        yield Stream(response)


async def begun(stream: Stream) -> int:
    """Wait for the block that says where the stream begins."""
    block = await stream.block()
    assert block.keys() == {"id"}
    return int(block["id"])


async def test_the_life_of_a_call(parts: Parts) -> None:
    async with following(parts) as stream:
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        assert stream.response.headers["cache-control"] == "no-store"
        await begun(stream)
        task_id = await parts.made(id="x")
        created, started, succeeded = [await stream.event() for _ in range(3)]
    assert [created["type"], started["type"], succeeded["type"]] == [
        "task.created", "task.started", "task.succeeded",
    ]  # fmt: skip
    assert {item["id"] for item in (created, started, succeeded)} == {task_id}
    assert (created["status"], started["status"]) == ("pending", "running")
    assert (succeeded["endpoint"], succeeded["webhook"]) == ("demo/get", None)
    assert (succeeded["status_code"], succeeded["attempt"]) == (200, 1)
    assert succeeded["duration_ms"] > 0
    assert started["lateness_ms"] >= 0
    assert succeeded["at"].endswith("Z")
    assert succeeded["started_at"].endswith("Z")
    await until(lambda: not parts.host.events.followers)


async def test_events_are_told_after_they_are_written(parts: Parts) -> None:
    async with following(parts, type="task.failed") as stream:
        await begun(stream)
        parts.receiver.codes = [404]
        await parts.made()
        event = await stream.event()
        task = (await parts.client.get(f"/v1/retries/{event['id']}")).json()
    assert task["status"] == event["status"] == "failed"
    assert task["reason"] == event["reason"] == "not_retryable"


async def test_what_people_do_is_told(parts: Parts) -> None:
    (waiting,) = await parts.later(1)
    (failed,) = await parts.failed()
    async with following(parts, type="task.triggered,task.cancelled,endpoint.*") as stream:
        await begun(stream)
        await parts.post(f"/v1/retries/{waiting}/cancel")
        await parts.post(f"/v1/retries/{waiting}/cancel")  # the second one changes nothing
        for _ in range(2):
            await parts.post("/v1/endpoints/demo/get/pause")
        await parts.post(f"/v1/retries/{failed}/trigger")
        await parts.post("/v1/endpoints/demo/get/resume")
        seen = [await stream.event() for _ in range(4)]
    assert [(item["type"], item.get("id")) for item in seen] == [
        ("task.cancelled", waiting), ("endpoint.paused", None), ("task.triggered", failed),
        ("endpoint.resumed", None),
    ]  # fmt: skip
    assert seen[1]["endpoint"] == "demo/get"


async def test_a_bulk_tells_of_each_task(parts: Parts) -> None:
    failed = await parts.failed(3)
    await parts.post("/v1/endpoints/demo/get/pause")
    async with following(parts, type="task.triggered") as stream:
        await begun(stream)
        await parts.post("/v1/retries/trigger", {"filter": {"status": "failed"}})
        seen = [await stream.event() for _ in range(3)]
    assert {item["id"] for item in seen} == set(failed)
    assert {(item["kind"], item["endpoint"]) for item in seen} == {("call", "demo/get")}


async def test_a_plugins_fault_is_told(parts: Parts) -> None:
    async with following(parts, type="plugin.fault") as stream:
        await begun(stream)
        parts.host.redactor = parts.loader.config.redactor
        parts.host.fault("extra", "after_request", ValueError(f"with {parts.SECRET}"))
        event = await stream.event()
    assert (event["plugin"], event["hook"]) == ("extra", "after_request")
    assert event["error"] == "ValueError: with ***"


async def test_who_comes_back_goes_on_where_it_was(parts: Parts) -> None:
    async with following(parts) as stream:
        number = await begun(stream)
    first = await parts.made()
    await parts.ended(first)
    await asyncio.sleep(3 * event_bus.EVERY)
    async with following(parts, last=str(number)) as stream:
        assert "" in await stream.block()
        seen = [await stream.block() for _ in range(3)]
        assert [int(block["id"]) for block in seen] == [number + 1, number + 2, number + 3]
    async with following(parts, last=seen[1]["id"]) as stream:
        assert (await stream.event())["type"] == "task.succeeded"


@pytest.mark.parametrize("last", ["nonsense", "1", "9" * 30, "-3"])
async def test_who_comes_from_elsewhere_is_told_that_something_is_missing(
    parts: Parts, last: str
) -> None:
    async with following(parts, last=last) as stream:
        assert "" in await stream.block()
        block = await stream.block()
    assert block == {"event": "missed", "data": '{"missed":null}'}


async def test_silence_is_broken_by_comments(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT", 0.05)
    async with following(parts) as stream:
        await begun(stream)
        assert [await stream.block() for _ in range(2)] == [{"": "nothing happened"}] * 2


async def test_a_slow_client_is_told_what_it_missed(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_bus, "UNREAD", 50)
    async with following(parts) as stream:
        await begun(stream)
        for _ in range(5):
            # More than fits into the socket's buffers while nobody reads.
            await parts.later(2_000)
            await asyncio.sleep(2 * event_bus.EVERY)
        numbers, missed = [], 0
        async with asyncio.timeout(60):
            while len(numbers) + missed < 10_000:
                block = await stream.block()
                if block.get("event") == "missed":
                    missed += json.loads(block["data"])["missed"]
                elif "data" in block:
                    numbers.append(int(block["id"]))
    assert missed > 0
    assert numbers == sorted(set(numbers))


async def test_there_are_not_more_followers_than_the_server_can_take(parts: Parts) -> None:
    async with aclosing(Many(parts)) as many:
        for _ in range(event_stream.MAX_FOLLOWERS):
            await many.add()
        answer = await parts.client.get("/v1/events")
        assert answer.status_code == 503
        assert answer.json()["code"] == "too_many_followers"
        assert answer.headers["retry-after"]
        assert (await parts.client.get("/healthz")).status_code == 200
    await until(lambda: not parts.host.events.followers)
    async with following(parts) as stream:
        await begun(stream)


class Many:
    """Many clients at once."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._open: list[tuple[Any, Stream]] = []

    async def add(self) -> None:
        context = following(self._parts)
        stream = await context.__aenter__()
        self._open.append((context, stream))  # a stream that nobody holds is closed
        await begun(stream)

    async def aclose(self) -> None:
        for context, _ in self._open:
            await context.__aexit__(None, None, None)


async def test_a_head_request_follows_nothing(parts: Parts) -> None:
    answer = await parts.client.head("/v1/events")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert not parts.host.events.followers


async def test_the_stream_ends_in_order_when_the_daemon_stops(parts: Parts) -> None:
    async with following(parts) as stream:
        await begun(stream)
        await parts.worker.enqueue.write([NewTask("call", "demo/off")])
        parts.host.events.close()
        assert (await stream.event())["type"] == "task.created"
        assert await stream.block() == {}  # and no error: the last chunk was there


async def test_what_cannot_be_asked_for(parts: Parts) -> None:
    answer = await parts.client.get(
        "/v1/events?endpoint=x&status=lost&type=task.suceeded,planet.*&kind=call"
    )
    assert answer.status_code == 422
    problems = {item["key"]: item["message"] for item in answer.json()["errors"]}
    assert problems.keys() == {"endpoint", "status", "type"}
    assert problems["type"] == (
        "'task.suceeded' is not a type of event, did you mean 'task.succeeded'?"
    )
    assert (await parts.client.get("/v1/events?since=2h")).status_code == 422


EVENTS: list[Event] = [
    TASK,
    RELOAD,
    EndpointEvent(EventType.ENDPOINT_PAUSED, 1, "demo/other"),
    WebhookEvent(EventType.WEBHOOK_DISABLED, 1, "shop/get", "ops", "410"),
    PluginEvent(EventType.PLUGIN_FAULT, 1, "p", "h", "e"),
    DaemonEvent(EventType.DAEMON_STARTED, 1, "1"),
]


@pytest.mark.parametrize(
    ("given", "types"),
    [
        ({}, [event.type for event in EVENTS]),
        ({"endpoint": "demo/get"}, ["task.failed"]),
        ({"endpoint": "demo/*"}, ["task.failed", "endpoint.paused"]),
        ({"kind": "webhook"}, ["task.failed"]),
        ({"kind": "call,webhook"}, ["task.failed"]),
        ({"kind": "call"}, []),
        ({"status": "failed,cancelled"}, ["task.failed"]),
        ({"status": "pending"}, []),
        ({"type": "config.*, daemon.started"}, ["config.adopted", "daemon.started"]),
        ({"type": "", "endpoint": "shop/*"}, ["webhook.disabled"]),
        ({"type": "task.*", "endpoint": "demo/other"}, []),
    ],
)
def test_filters(given: dict[str, str], types: list[str]) -> None:
    wanted = event_stream.read_wanted(given)
    assert [event.type for event in EVENTS if wanted(event)] == types


@pytest.mark.parametrize("type_", ["task", "task.", "*", ".*", "Task.failed"])
def test_no_types(type_: str) -> None:
    with pytest.raises(InvalidParams):
        event_stream.read_wanted({"type": type_})


def test_a_kind_that_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidParams, match="'calls' is not a kind, did you mean 'call'"):
        event_stream.read_wanted({"kind": "calls"})


def test_slots_that_were_missed_are_times() -> None:
    missed = ScheduleEvent(EventType.SCHEDULE_MISSED, 3, "demo/get", 2, False, 1, 2)
    shown = event_stream.event_json(missed)
    assert (shown["first_slot"], shown["slot"]) == (
        "1970-01-01T00:00:00.001Z", "1970-01-01T00:00:00.002Z",
    )  # fmt: skip


def test_a_reload_names_only_some_of_many_endpoints() -> None:
    shown = event_stream.event_json(RELOAD)
    assert shown["counts"] == {"added": 26, "changed": 0, "removed": 0}
    assert len(shown["added"]) == event_stream.MAX_IDS
    assert shown["at"] == "1970-01-01T00:00:00.001Z"
