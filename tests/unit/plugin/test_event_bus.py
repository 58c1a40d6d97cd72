"""The hub: batches for observers, numbered events for followers, and bounds on all of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from orchestratord import Event, EventType, hookimpl
from orchestratord.model.event import EndpointEvent, PluginEvent
from orchestratord.plugin import event_bus
from orchestratord.plugin.event_bus import EventBus, Follower, Missed
from orchestratord.plugin.host import Host
from orchestratord.testing import Rig
from orchestratord.values.clock import Clock
from orchestratord.values.redact import Redactor

PAUSED = EventType.ENDPOINT_PAUSED


def event(number: int) -> EndpointEvent:
    return EndpointEvent(PAUSED, number, f"a/e{number}")


def everything(_: Event) -> bool:
    return True


def opened(observe: Callable[[Sequence[Event]], None] | None = None) -> EventBus:
    made = EventBus()
    made.open(Clock(), observe)
    return made


async def told(follower: Follower) -> list[Any]:
    """What a follower gets next: the times of events, and how many are missed."""
    taken = await follower.take(10_000, 1.0)
    return [item if isinstance(item, Missed) else item.at for _, item in taken]


async def test_nobody_listens_until_somebody_does() -> None:
    made = EventBus()
    made.publish(event(1))  # before it is open nothing happens
    made.open(Clock(), None)
    assert not made.listening
    follower = made.follow(everything)
    assert made.listening
    made.publish(event(2))
    assert await told(follower) == [2]


async def test_observers_get_batches_in_order() -> None:
    batches: list[Sequence[Event]] = []
    made = opened(batches.append)
    assert made.listening
    for number in range(5):
        made.publish(event(number))
    assert batches == []
    await asyncio.sleep(3 * event_bus.EVERY)
    made.publish(event(5))
    await asyncio.sleep(3 * event_bus.EVERY)
    assert [[item.at for item in batch] for batch in batches] == [[0, 1, 2, 3, 4], [5]]


async def test_a_crowd_of_events_comes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_bus, "BATCH", 10)
    sizes: list[int] = []
    made = opened(lambda events: sizes.append(len(events)))
    for number in range(25):
        made.publish(event(number))
    await asyncio.sleep(3 * event_bus.EVERY)
    assert sizes == [10, 10, 5]


async def test_too_many_are_dropped_counted_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(event_bus, "WAITING", 3)
    made = opened()
    follower = made.follow(everything)
    with caplog.at_level(logging.WARNING, "orchestratord.events"):
        for number in range(5):
            made.publish(event(number))
    assert made.dropped == 2
    assert len(caplog.records) == 1
    await asyncio.sleep(3 * event_bus.EVERY)
    assert await told(follower) == [Missed(2), 0, 1, 2]


async def test_a_follower_gets_what_it_wants_with_growing_numbers() -> None:
    made = opened()
    follower = made.follow(lambda item: item.at % 2 == 0)
    for number in range(1, 7):
        made.publish(event(number))
    taken = await follower.take(10, 1.0)
    assert [item.at for _, item in taken if not isinstance(item, Missed)] == [2, 4, 6]
    assert [number - follower.number for number, _ in taken] == [2, 4, 6]


async def test_who_comes_back_misses_nothing() -> None:
    made = opened()
    first = made.follow(everything)
    made.publish(event(1))
    ((number, _),) = await first.take(1, 1.0)
    made.leave(first)
    made.publish(event(2))
    made.publish(event(3))
    await asyncio.sleep(3 * event_bus.EVERY)
    again = made.follow(everything, after=number)
    made.publish(event(4))
    assert await told(again) == [2, 3]
    assert await told(again) == [4]


async def test_who_comes_back_too_late_is_told_how_much_it_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_bus, "REMEMBERED", 2)
    made = opened(lambda events: None)
    follower = made.follow(everything)
    for number in range(5):
        made.publish(event(number))
    await asyncio.sleep(3 * event_bus.EVERY)
    assert await told(made.follow(everything, after=follower.number)) == [Missed(3), 3, 4]
    assert await told(made.follow(everything, after=follower.number + 3)) == [3, 4]
    assert await made.follow(everything, after=follower.number + 5).take(9, 0.01) == []


@pytest.mark.parametrize("after", [-1, 0, 5, 1 << 62])
async def test_a_number_of_another_daemon_leads_to_everything_that_is_there(after: int) -> None:
    made = opened(lambda events: None)
    made.publish(event(1))
    await asyncio.sleep(3 * event_bus.EVERY)
    assert await told(made.follow(everything, after=after)) == [Missed(None), 1]


async def test_after_a_pause_of_listening_nobody_knows_what_was_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_bus, "LINGER", 0.05)
    made = opened()
    first = made.follow(everything)
    made.publish(event(1))
    ((number, _),) = await first.take(1, 1.0)
    made.leave(first)
    assert made.listening
    await asyncio.sleep(0.2)
    assert not made.listening
    again = made.follow(everything, after=number)
    assert made.listening
    assert await told(again) == [Missed(None)]


async def test_who_is_back_in_time_is_listened_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_bus, "LINGER", 0.05)
    made = opened()
    made.leave(made.follow(everything))
    made.follow(everything)
    await asyncio.sleep(0.2)
    assert made.listening


async def test_a_slow_follower_is_bounded_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_bus, "UNREAD", 3)
    made = opened()
    follower = made.follow(everything)
    for number in range(10):
        made.publish(event(number))
    await asyncio.sleep(3 * event_bus.EVERY)
    assert await told(follower) == [0, 1, 2, Missed(7)]
    made.publish(event(10))
    assert await told(follower) == [10]


async def test_waiting_for_nothing_ends() -> None:
    follower = opened().follow(everything)
    assert await follower.take(10, 0.01) == []
    assert not follower.ended


async def test_closing_hands_on_what_is_there_and_ends_followers() -> None:
    batches: list[Sequence[Event]] = []
    made = opened(batches.append)
    follower = made.follow(everything)
    waiting = asyncio.create_task(opened().follow(everything).take(1, 0.01))
    made.publish(event(1))
    made.close()
    assert [item.at for batch in batches for item in batch] == [1]
    assert not follower.ended
    assert await told(follower) == [1]
    assert follower.ended
    assert await follower.take(1, 60.0) == []
    made.publish(event(2))
    await waiting
    await asyncio.sleep(2 * event_bus.EVERY)
    assert len(batches) == 1


async def test_closing_wakes_who_waits() -> None:
    made = opened()
    follower = made.follow(everything)
    waiting = asyncio.create_task(follower.take(1, 60.0))
    await asyncio.sleep(0)
    made.close()
    assert await asyncio.wait_for(waiting, 60) == []
    assert follower.ended


# -- the hook ------------------------------------------------------------------------------------


class Observer:
    def __init__(self) -> None:
        self.seen: list[Event] = []
        self.fails = False

    @hookimpl
    def observe(self, events: Sequence[Event]) -> None:
        self.seen += events
        if self.fails:
            raise ValueError("the secret is hunter2-hunter2")


def host_of(*plugins: Any) -> Host:
    host = Rig(*plugins[:1], beside=plugins[1:]).host
    host.events.open(Clock(), host.observer())
    return host


async def test_observe_gets_events() -> None:
    observer = Observer()
    host = host_of(observer)
    host.events.publish(event(1))
    host.events.close()
    assert observer.seen == [event(1)]
    assert host.compiled("observe") is not None


async def test_without_observe_nobody_listens() -> None:
    assert not host_of(object()).events.listening


async def test_observe_that_raises_harms_nobody_and_is_not_told_of_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad, good = Observer(), Observer()
    bad.fails = True
    host = host_of(bad, good)
    follower = host.events.follow(everything)
    for number in range(3):
        host.events.publish(event(number))
        await asyncio.sleep(2 * event_bus.EVERY)
    assert good.seen == bad.seen == [event(0), event(1), event(2)]
    assert host.plugins["plugin"].faults == 3
    assert "plugin plugin: observe ValueError" in caplog.text
    followed = [item for _, item in await follower.take(100, 0.1)]
    faults = [item for item in followed if isinstance(item, PluginEvent)]
    assert [(fault.plugin, fault.hook) for fault in faults] == [("plugin", "observe")] * 3


async def test_observe_that_returns_a_coroutine_is_a_fault() -> None:
    async def waits() -> None: ...

    class Wrong:
        @hookimpl
        def observe(self, events: Sequence[Event]) -> Any:
            return waits()

    host = host_of(Wrong())
    host.events.publish(event(1))
    host.events.close()
    assert host.plugins["plugin"].last_fault == (
        "observe: TypeError: it is an `async def`; write a `def`"
    )


async def test_observe_cannot_change_what_others_see() -> None:
    class Greedy:
        @hookimpl
        def observe(self, events: Any) -> None:
            events.clear()

    good = Observer()
    host = host_of(Greedy(), good)
    host.events.publish(event(1))
    host.events.close()
    assert good.seen == [event(1)]


async def test_a_fault_of_another_hook_is_told_of_from_any_thread_without_secrets() -> None:
    observer = Observer()
    host = host_of(observer)
    host.redactor = Redactor(["hunter2-hunter2"])
    error = ValueError("two\nlines with hunter2-hunter2")
    await asyncio.to_thread(host.fault, "plugin", "after_request", error)
    await asyncio.sleep(3 * event_bus.EVERY)
    (fault,) = observer.seen
    assert isinstance(fault, PluginEvent)
    assert (fault.type, fault.plugin, fault.hook) == ("plugin.fault", "plugin", "after_request")
    assert fault.error == "ValueError: two lines with ***"


def test_a_fault_without_a_loop_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    host = Rig(object()).host
    host.fault("plugin", "check_endpoint", ValueError("no"))
    assert "check_endpoint ValueError: no" in caplog.text
