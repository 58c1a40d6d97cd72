"""Services of plugins: begun again, stopped at the drain, once for all, and told of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest

from orchestratord import Service, hookimpl
from orchestratord.errors import Unreachable
from orchestratord.plugin.background_service import ROLE, ServiceState
from orchestratord.plugin.host import Host
from orchestratord.queue.store import Store
from orchestratord.runtime import plugin_services as module
from orchestratord.runtime.plugin_services import PluginServices

Run = Callable[[asyncio.Event], Awaitable[None]]


class FakeStore:
    """Who holds the role is what the test says."""

    owner = "this"

    def __init__(self) -> None:
        self.elsewhere = False
        self.unreachable = False
        self.written: list[Any] = []

    async def read(self, operation: Any) -> Any:
        if self.unreachable:
            raise Unreachable("away")
        return self.elsewhere

    async def write(self, operation: Any) -> Any:
        if self.unreachable:
            raise Unreachable("away")
        self.written.append(operation)
        return None if self.elsewhere else self.owner


class Rig:
    """Services of one plugin, in a worker."""

    def __init__(self) -> None:
        self.host = Host()
        self.store = FakeStore()
        self.services = PluginServices(self.host, cast("Store", self.store))
        self.first = True
        self.given: list[Any] = []

    def begin(self, *services: Any) -> None:
        class Plugin:
            @hookimpl
            def register_services(self, control: Any) -> Any:
                rig.given.append(control)
                return services

        rig = self
        self.host.register(Plugin(), "mine")
        self.services.begin(cast("Any", "the control"), first=self.first)

    @property
    def state(self) -> ServiceState:
        (state,) = self.host.plugins["mine"].services.values()
        return state

    @property
    def faults(self) -> int:
        return self.host.plugins["mine"].faults


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(module, "HOLD", 0.01)
    monkeypatch.setattr(module, "LEFT", 0.05)
    monkeypatch.setattr(module, "CANCELLED", 0.05)
    monkeypatch.setattr(module, "AGAIN", (0.02, 0.04, 60.0))
    rig = Rig()
    yield rig
    await rig.services.ended(1.0)


async def until(wanted: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not wanted():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("where", ["one", "each"])
async def test_register_services_run_until_the_daemon_stops(rig: Rig, where: Any) -> None:
    seen = []

    async def run(stop: asyncio.Event) -> None:
        seen.append("began")
        await stop.wait()
        seen.append("ended")

    rig.begin(Service("ticker", run, where))
    await until(lambda: seen == ["began"])
    assert (rig.state.state, rig.state.where, rig.given) == ("running", where, ["the control"])
    await rig.services.ended(5.0)
    assert seen == ["began", "ended"]
    assert rig.faults == 0


@pytest.mark.parametrize(("where", "role"), [("one", "service:mine/ticker"), ("each", None)])
async def test_what_runs_once_writes_by_its_role(rig: Rig, where: Any, role: str | None) -> None:
    """Also what it begins beside itself."""
    seen: list[str | None] = []

    async def beside() -> None:
        seen.append(ROLE.get())

    async def run(stop: asyncio.Event) -> None:
        seen.append(ROLE.get())
        await asyncio.create_task(beside())
        await stop.wait()

    rig.begin(Service("ticker", run, where))
    await until(lambda: len(seen) == 2)
    assert seen == [role, role]
    assert ROLE.get() is None


async def test_one_that_ends_or_raises_is_begun_again_later_and_later(rig: Rig) -> None:
    began: list[float] = []

    async def run(stop: asyncio.Event) -> None:
        began.append(asyncio.get_running_loop().time())
        if len(began) == 1:
            return
        raise SystemExit("no more")

    rig.begin(Service("ticker", run, "each"))
    await until(lambda: len(began) == 3)
    assert began[1] - began[0] >= 0.02
    assert began[2] - began[1] >= 0.04
    await until(lambda: rig.faults == 3)
    assert rig.state.state == "waiting"
    assert rig.state.error == "service ticker: SystemExit: no more"


async def test_that_the_database_is_away_is_no_fault_of_the_plugin(rig: Rig) -> None:
    async def run(stop: asyncio.Event) -> None:
        raise Unreachable("the server is away")

    rig.begin(Service("looks", run, where="each"))
    async with asyncio.timeout(30):
        while rig.state.state != "waiting":
            await asyncio.sleep(0.001)
    assert rig.state.error == module.AWAY
    assert rig.faults == 0


async def test_one_of_all_runs_where_its_role_is_held(rig: Rig) -> None:
    running = asyncio.Event()

    async def run(stop: asyncio.Event) -> None:
        running.set()
        try:
            await stop.wait()
        finally:
            running.clear()

    rig.store.elsewhere = True
    rig.begin(Service("ticker", run))
    await asyncio.sleep(0.05)
    assert not running.is_set()
    assert rig.state.state == "elsewhere"
    rig.store.elsewhere = False
    await until(running.is_set)
    rig.store.elsewhere = True  # this daemon stood still for too long
    await until(lambda: rig.state.state == "elsewhere")
    assert not running.is_set()
    assert rig.faults == 0


async def test_one_that_ends_late_after_its_role_was_lost_begins_again(rig: Rig) -> None:
    began, ended = [], asyncio.Event()

    async def run(stop: asyncio.Event) -> None:
        began.append(1)
        while not ended.is_set():  # as a driver that waits for a server which is away
            try:
                await ended.wait()
            except asyncio.CancelledError:
                continue
        await stop.wait()

    rig.begin(Service("relay", run))
    await until(lambda: began == [1])
    rig.store.elsewhere = True
    await until(lambda: rig.faults == 1)
    assert rig.host.plugins["mine"].last_fault == "service relay: goes on although it was cancelled"
    rig.store.elsewhere = False
    await asyncio.sleep(0.05)
    assert began == [1]  # never twice at once
    ended.set()
    await until(lambda: began == [1, 1])


async def test_without_the_database_it_goes_on_until_another_may_have_the_role(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HELD", 0.5)
    running = asyncio.Event()

    async def run(stop: asyncio.Event) -> None:
        running.set()
        await stop.wait()

    rig.begin(Service("ticker", run))
    await until(running.is_set)
    rig.store.unreachable = True
    await asyncio.sleep(0.05)
    assert rig.state.state == "running"
    await until(lambda: rig.state.state == "elsewhere")
    rig.store.unreachable = False
    await until(lambda: rig.state.state == "running")


async def test_in_other_workers_only_those_of_each_run(rig: Rig) -> None:
    async def run(stop: asyncio.Event) -> None:
        await stop.wait()

    rig.first = False
    rig.begin(Service("one", run), Service("each", run, "each"))
    await asyncio.sleep(0.02)
    states = {name: one.state for name, one in rig.host.plugins["mine"].services.items()}
    assert states == {"one": "elsewhere", "each": "running"}
    assert rig.store.written == []


async def test_one_that_does_not_end_is_cancelled_and_named(rig: Rig) -> None:
    ended = asyncio.Event()

    async def hangs(stop: asyncio.Event) -> None:
        await asyncio.sleep(60)

    async def swallows(stop: asyncio.Event) -> None:
        while not ended.is_set():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    async def cancels_itself(stop: asyncio.Event) -> None:
        raise asyncio.CancelledError

    rig.begin(
        Service("hangs", hangs, "each"),
        Service("swallows", swallows, "each"),
        Service("cancels itself", cancels_itself, "each"),
    )
    await until(lambda: rig.faults == 1)
    await rig.services.ended(0.1)
    states = {name: one.state for name, one in rig.host.plugins["mine"].services.items()}
    assert states == {"hangs": "elsewhere", "swallows": "running", "cancels itself": "waiting"}
    ended.set()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.sleep(0)


async def _run(stop: asyncio.Event) -> None: ...


@pytest.mark.parametrize(
    ("service", "why"),
    [
        (7, "returned 7, which is not a Service"),
        (Service("", _run), "whose name is ''"),
        (Service("a", _run, cast("Any", "first")), "where='first'; write one or each"),
        (Service("a", cast("Any", lambda stop: None)), "a whose run is no `async def`"),
    ],
)
async def test_what_is_no_service_is_told(rig: Rig, service: Any, why: str) -> None:
    rig.begin(service)
    assert why in (rig.host.plugins["mine"].last_fault or "")
    assert rig.host.plugins["mine"].services == {}


async def test_two_of_one_name(rig: Rig) -> None:
    rig.begin(Service("a", _run, "each"), Service("a", _run, "each"))
    assert "two services named a" in (rig.host.plugins["mine"].last_fault or "")
