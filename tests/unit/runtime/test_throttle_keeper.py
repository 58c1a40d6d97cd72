"""What is written of throttles where the database, or the daemon, is away in between."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchestratord.engine import feedback
from orchestratord.engine.feedback import Feedback
from orchestratord.errors import Unreachable
from orchestratord.model.event import RETRY_AFTER, BreakerEvent, EventType, StoredThrottle
from orchestratord.runtime.throttle_keeper import ThrottleKeeper
from orchestratord.testing import FakeClock
from orchestratord.values.redact import Redactor

NOTHING = cast("Any", None)
CLOCK = FakeClock()
NOW = CLOCK.now_ms()
OPENED = BreakerEvent(EventType.BREAKER_OPENED, NOW + 1, "api:a", 20, "503")
CLOSED = BreakerEvent(EventType.BREAKER_CLOSED, NOW + 20, "api:a", opened_at=NOW + 1)


class Kept:
    """A keeper, with what plugins were asked and what was written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.writes: list[list[tuple[bool, int]]] = []
        self.away = False
        self.answers = asyncio.Event()
        self.answers.set()
        events = SimpleNamespace(publish=lambda event: None)
        lanes = SimpleNamespace(scopes=None, lanes={})
        self.feedback = Feedback(cast("Any", lanes), NOTHING, cast("Any", events), CLOCK)
        monkeypatch.setattr(Feedback, "rows", lambda *_: [])
        monkeypatch.setattr(
            "orchestratord.runtime.throttle_keeper.stored_throttles.note",
            lambda host, put, drop, changes: [(one.began, one.after) for one in changes],
        )
        placement = SimpleNamespace(config=SimpleNamespace(redactor=Redactor()))
        worker = SimpleNamespace(
            store=SimpleNamespace(owner="me", write=self.write, tell=self.asked.append),
            pipe=SimpleNamespace(new_tasks=self),
            clock=CLOCK,
            feedback=self.feedback,
            placement=placement,
        )
        self.keeper = ThrottleKeeper(cast("Any", worker))

    async def of_event(self, event: BreakerEvent) -> list[Any]:
        self.asked.append(event.type)
        return []

    async def written(self, items: list[Any], inserted: object) -> None:
        assert items == []

    async def write(self, changes: list[tuple[bool, int]]) -> None:
        if self.away:
            raise Unreachable("away")
        self.writes.append(changes)
        await self.answers.wait()


async def test_what_could_not_be_written_is_asked_for_once_and_tried_again_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its own end, which was not written, once made the other daemon's breaker another one."""
    kept = Kept(monkeypatch)
    for event in (OPENED, CLOSED):
        kept.feedback._publish(event)
    kept.away = True
    with pytest.raises(Unreachable):
        await kept.keeper.keep()
    kept.feedback._publish(OPENED._replace(at=NOW + 30))
    kept.away = False
    await kept.keeper.keep()
    assert kept.keeper.behind
    await kept.keeper.leave()
    assert kept.writes == [[(True, 0), (False, 0)], [(True, NOW + 20)]]
    assert kept.asked == ["breaker.opened", "breaker.closed", "lanes", "breaker.opened", "lanes"]


async def test_the_end_of_the_daemon_writes_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(monkeypatch)
    kept.answers.clear()
    kept.feedback._publish(OPENED)
    keeping = asyncio.create_task(kept.keeper.keep())
    while not kept.writes:
        await asyncio.sleep(0)
    keeping.cancel()
    leaving = asyncio.create_task(kept.keeper.leave())
    await asyncio.sleep(0)
    kept.feedback._publish(CLOSED)
    kept.answers.set()
    await leaving
    assert kept.writes == [[(True, 0)], [(False, 0)]]


async def test_an_end_is_forgotten_when_the_clocks_are_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept, hour = Kept(monkeypatch), 3_600_000
    for event in (CLOSED, OPENED._replace(at=NOW - hour)):
        kept.feedback._publish(event)
    await kept.keeper.keep()
    assert kept.writes == [[(False, 0), (True, 0)]]


async def test_what_a_clock_that_was_ahead_has_written_lasts_as_long_as_it_was_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A daemon that started then held a lane for as long as the clock had been ahead."""
    kept, month, found = Kept(monkeypatch), 30 * 86_400_000, list[StoredThrottle]()
    ahead = StoredThrottle("api:a", RETRY_AFTER, "", NOW + month, NOW + month + 20_000, "429")
    before = ahead._replace(name="api:b", since=NOW - 5, until=NOW + month)

    async def read(_: object) -> list[StoredThrottle]:
        return [ahead, before]

    monkeypatch.setattr(kept.keeper._store, "read", read, raising=False)
    monkeypatch.setattr(kept.feedback, "restore", lambda rows, _: found.extend(rows))
    await kept.keeper.learn()
    assert found == [ahead._replace(since=NOW, until=NOW + 20_000), before]


async def test_what_is_told_of_no_more_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feedback, "MOST_CHANGES", 1)
    kept = Kept(monkeypatch)
    with caplog.at_level(logging.ERROR):
        for event in (OPENED, CLOSED):
            kept.feedback._publish(event)
    assert list(kept.feedback.changes) == [CLOSED]
    assert "dropped the event breaker.opened of api:a" in caplog.text
