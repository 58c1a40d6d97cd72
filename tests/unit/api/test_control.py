"""What `Control` offers to services that make calls of rows, by a real store and worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestratord import (
    Conflict,
    Control,
    Delete,
    InvalidParams,
    NewTask,
    NotFound,
    OutboxEvent,
    Refusal,
    RoleLost,
    StatusPart,
    Table,
    UniqueKeyReused,
    Unstorable,
    Upsert,
    hookimpl,
)
from orchestratord.model.event import EventType
from orchestratord.plugin.background_service import ROLE
from orchestratord.plugin.host import Host
from orchestratord.queue.operations.roles import hold_role
from tests.unit.api.control_parts import Parts

UNFIT = "of which nothing can be written"
EVENT = OutboxEvent(EventType.OUTBOX_REFUSED, 1, 6, "demo/get", "conflict", "no")


class Extra:
    """A plugin with a table, and one that returns something of each event."""

    @hookimpl
    def register_tables(self) -> list[Table]:
        columns = {"name": "TEXT NOT NULL", "n": "INTEGER"}
        return [Table("taken", columns, ("name",)), Table("told", columns, ("name",))]

    @hookimpl
    def register_routes(self, control: Control) -> list[Any]:
        self.control = control
        return []

    @hookimpl
    def on_event(self, event: Any) -> list[Any]:
        name = "\udc80" if event.reason == UNFIT else str(event.type)
        return [Upsert("told", {"name": name}, {}, {"n": 1})]


@pytest.fixture
async def extra(tmp_path: Path) -> AsyncIterator[tuple[Parts, Control]]:
    parts, plugin = Parts(tmp_path), Extra()
    await parts.start(plugin)
    yield parts, plugin.control
    await parts.stop()


async def test_a_call_is_checked_as_the_api_does_and_made_with_others(extra: Any) -> None:
    parts, control = extra

    async def call(id_: str, **more: Any) -> NewTask:
        return await control.checked_call("demo/get", {"id": id_}, **more)

    once = Upsert("taken", {"name": "x"}, {"n": 1})
    first = replace(await call("a", key="k"), once=once)
    other = await call("b", key="k")
    parsed = await control.checked_call("demo/get", b'{"id": "c"}', delay=60)
    made, refused, later, again = await control.accept_each([first, other, parsed, first])
    assert (made.repeated, later.status, again) == (False, "pending", None)
    assert isinstance(refused, UniqueKeyReused)
    assert (await parts.ended(made.id))["status"] == "succeeded"
    assert (await control.retry(later.id))["params"]["id"] == "c"
    assert await control.rows("taken") == [{"name": "x", "n": 1}]


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"endpoint_id": "demo/none"}, NotFound, "no endpoint demo/none"),
        ({"endpoint_id": "demo/off"}, Conflict, "is disabled"),
        ({"params": {"colour": "red"}}, InvalidParams, "colour: there is no such parameter"),
        ({"params": b"[]"}, InvalidParams, "params: expected a JSON object"),
        ({"params": b"{"}, Refusal, "the body is not JSON"),
        ({"key": ""}, InvalidParams, "key: must have 1 to 255"),
        ({"delay": 1e12}, InvalidParams, "delay: is more than ten years"),
        ({"at": float("inf")}, InvalidParams, "at: is more than ten years ahead"),
        ({"at": 1.0, "delay": 5.0}, InvalidParams, "at: is beside delay"),
    ],
)
async def test_what_the_api_refuses_is_refused(
    extra: Any, given: dict[str, Any], kind: type[Exception], words: str
) -> None:
    endpoint, params = given.pop("endpoint_id", "demo/get"), given.pop("params", {"id": "a"})
    with pytest.raises(kind) as raised:
        await extra[1].checked_call(endpoint, params, **given)
    refusal = raised.value if isinstance(raised.value, Refusal) else Refusal.of(raised.value)
    assert words in str(raised.value)
    assert refusal.document()["code"] == refusal.code


async def test_a_service_that_another_daemon_runs_by_now_writes_nothing(extra: Any) -> None:
    parts, control = extra
    call = await control.checked_call("demo/get", {"id": "a"}, delay=60)
    row = Upsert("taken", {"name": "x"}, {"n": 1})
    token = ROLE.set("service:extra/relay")
    for refused in (
        lambda: control.accept_each([call]),
        lambda: control.accept("demo/get", {"id": "a"}),
        lambda: control.write([row]),
    ):
        with pytest.raises(RoleLost):
            await refused()
    assert await control.rows("taken") == []
    assert await control.waiting("demo/get", 10) == 0
    await parts.store.write(hold_role("service:extra/relay"))
    await control.write([row])
    assert len(await control.accept_each([call])) == 1
    ROLE.reset(token)
    await control.write([row])


async def test_what_hooks_return_of_an_event_is_written_with_rows(extra: Any) -> None:
    _, control = extra
    rows = [Upsert("taken", {"name": name}, {"n": n}) for name, n in (("x", 3), ("y", 2))]
    call = NewTask("call", "demo/get", {"id": "a"}, delay=60)
    ids = await control.write([*rows, call], [EVENT, EVENT])
    assert len(ids) == 1
    assert await control.rows("told") == [{"name": "outbox.refused", "n": 2}]
    assert [row["name"] for row in await control.rows("taken", order="n", limit=1)] == ["y"]
    assert [row["name"] for row in await control.rows("taken", limit=1)] == ["x"]
    with pytest.raises(Exception, match="taken has no column colour"):
        await control.rows("taken", order="colour")


@pytest.mark.parametrize(
    "unfit",
    [
        Upsert("taken", {"name": "x"}, {"n": 2**70}),
        Upsert("taken", {"name": "x"}, {"colour": "red"}),
        Upsert("taken", {"name": "a\0"}, {"n": 1}),
        Delete("taken", {"n": 1}),
        NewTask("call", "demo/get", {"id": "a"}, delay=float("nan")),
    ],
)
async def test_what_cannot_be_written_is_told_to_who_asked_for_it(extra: Any, unfit: Any) -> None:
    _, control = extra
    good = Upsert("taken", {"name": "good"}, {"n": 1})
    others = [control.write([Upsert("taken", {"name": name}, {"n": 1})]) for name in "ab"]
    refused, *written = await asyncio.gather(
        control.write([good, unfit], [EVENT]), *others, return_exceptions=True
    )
    assert isinstance(refused, InvalidParams | Unstorable | ValueError | OverflowError)
    assert written == [[], []]
    assert [row["name"] for row in await control.rows("taken")] == ["a", "b"]
    assert await control.rows("told") == []


async def test_what_a_hook_cannot_have_written_is_left_out(
    extra: Any, caplog: pytest.LogCaptureFixture
) -> None:
    _, control = extra
    # As a hook of a row's table: of another column's type, which only the database finds out.
    event = EVENT._replace(type=EventType.OUTBOX_REFUSED, reason=UNFIT)
    await control.write([Upsert("taken", {"name": "x"}, {"n": 3})], [event])
    assert await control.rows("taken") == [{"name": "x", "n": 3}]
    assert await control.rows("told") == []
    assert "skipped a plugin's write to told" in caplog.text


async def test_a_trouble_makes_the_daemon_unready(extra: Any) -> None:
    parts, control = extra
    control.begin_trouble("relay_failing", f"cannot use {parts.SECRET}")
    control.begin_trouble("relay_failing", "is known")
    ready = await parts.client.get("/readyz")
    [error] = ready.json()["errors"]
    assert (ready.status_code, error["key"]) == (503, "relay_failing")
    assert error["message"].startswith("cannot use ***")
    control.end_trouble("relay_failing")
    control.end_trouble("relay_failing")
    assert (await parts.client.get("/readyz")).status_code == 200


class Parted:
    """A plugin with parts of the status, good ones and bad ones."""

    def raises(self) -> Any:
        raise SystemExit

    @hookimpl
    def register_status(self, control: Control) -> list[Any]:
        return [
            StatusPart("stock", lambda: {"endpoints": len(control.config.endpoints)}),
            StatusPart("raises", self.raises),
            StatusPart("no_json", lambda: {1, 2}),
            StatusPart("queue", lambda: "of the core"),
            StatusPart("stock", lambda: "again"),
            StatusPart("No Key", lambda: 1),
            "no part",
        ]


async def test_register_status_has_parts_of_plugins(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    await parts.start(Parted())
    try:
        status = (await parts.client.get("/v1/status")).json()
        assert status["stock"] == {"endpoints": 3}
        assert (status["raises"], status["no_json"], status["outbox"]) == (None, None, None)
        assert status["queue"]["pending"] == 0
        faults = parts.host.plugins["extra"].faults
        assert faults == 6
        assert (await parts.client.get("/v1/outbox")).status_code == 404
        with pytest.raises(NotFound, match="no plugin that is loaded has an outbox"):
            await parts.service.outbox()
    finally:
        await parts.stop()


async def test_what_a_disabled_plugin_would_answer_is_said(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    start = parts.start
    register = Host.register

    def disabled(self: Host, plugin: object, name: str, **how: Any) -> None:
        register(self, plugin, name, **how)
        if name == "extra":
            self.plugins[name].status = "disabled"

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Host, "register", disabled)
        await start(Extra())
    answer = await parts.client.get("/v1/nothing")
    await parts.stop()
    told = "there is nothing at this path; disabled is the plugin extra"
    assert (answer.status_code, answer.json()["detail"]) == (404, told)
