"""Rows of the outbox that cannot be read, together or alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any, cast

import pytest
from orchestratord_event.event_executor import EventSpec
from orchestratord_outbox.declaration import Outbox as OutboxPlace
from orchestratord_outbox.declaration import RowsUnreadable
from orchestratord_outbox.outbox_connection import OutboxRow
from orchestratord_outbox.outbox_relay import ALONE, PAGE, OutboxRelay
from orchestratord_outbox.outbox_schema import MISSING
from orchestratord_outbox.routes import OutboxQuery

from orchestratord import (
    InvalidParams,
    OutboxUnusable,
    ParamRules,
    SchemaTooCostly,
    TroubleEvent,
    Unreachable,
)
from orchestratord.testing import FakeControl, Rig


class Outbox:
    """Rows of which one cannot be read."""

    def __init__(self, count: int, bad: int) -> None:
        self.ids, self.bad = list(range(1, count + 1)), bad

    async def look(
        self, limit: int, id_: int | None = None, passed: Collection[int] = ()
    ) -> list[OutboxRow]:
        ids = self.ids[:limit] if id_ is None else [id_]
        if self.bad in ids:
            raise RowsUnreadable("out of memory")
        return [self._row(number, "{}") for number in ids]

    async def first(self) -> OutboxRow | None:
        return self._row(self.ids[0], None) if self.ids else None

    def _row(self, number: int, params: str | None) -> OutboxRow:
        return OutboxRow(number, str(number), "a/b", params, None, 0.0)


def relay_of(*endpoints: Any, **config: Any) -> tuple[OutboxRelay, FakeControl]:
    rig = Rig(SimpleNamespace())
    control = FakeControl(rig.config(*endpoints, **config))
    return OutboxRelay(cast("Any", control)), control


async def test_a_row_that_cannot_be_read_holds_up_no_other() -> None:
    outbox, found, failures = Outbox(1000, 700), list[OutboxRow](), 0
    relay, _ = relay_of()
    assert not relay._shrink(Unreachable("the server is away"))
    while outbox.ids:
        try:
            rows = await relay._look(cast("Any", outbox))
        except RowsUnreadable as error:
            relay._shrink(error)
            failures += 1
            assert failures < 30
            continue
        found += rows
        outbox.ids = outbox.ids[len(rows) :]
    assert [row.id for row in found] == list(range(1, 1001))
    assert [row.id for row in found if row.params is None] == [700]
    assert failures >= ALONE
    assert relay._page == PAGE


@pytest.mark.parametrize("page", [500, 3])
async def test_one_that_can_be_read_again_is_not_refused(page: int) -> None:
    outbox, (relay, _) = Outbox(1, 1), relay_of()
    relay._page = page
    while relay._unread != (1, ALONE - 1):
        with pytest.raises(RowsUnreadable) as raised:
            await relay._look(cast("Any", outbox))
        relay._shrink(raised.value)
    outbox.bad = 0
    [row] = await relay._look(cast("Any", outbox))
    assert row.params == "{}"


async def test_what_a_check_needs_is_started_before_a_row_is_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A daemon that is ended while that starts has not died of the row."""
    course: list[str] = []

    class Rules(ParamRules):
        @property
        def apart(self) -> bool:
            return True

        async def problems_apart(self, calls: Any) -> list[dict[str, str]]:
            course.append(f"{len(calls)} events")
            raise SchemaTooCostly("which is for the check to say")

    async def write(effects: Any) -> list[int]:
        course.extend("note" if hasattr(effect, "values") else "forget" for effect in effects)
        return []

    async def checked(*_: Any) -> tuple[list[Any], list[Any]]:
        course.append("check")
        return [], []

    relay, control = relay_of(Rig(object()).endpoint("a/b", spec=Rules()))
    monkeypatch.setattr(relay, "_checked", checked)
    monkeypatch.setattr(control, "write", write)
    rows = [OutboxRow(1, "1", "a/b", "{}", None, 0.0), OutboxRow(2, "2", "gone", "{}", None, 0.0)]
    await relay._checked_singly(rows)
    assert course == ["0 events", *["note", "check", "forget"] * 2]


async def test_an_event_without_a_schema_is_checked_alone_as_well() -> None:
    """Nothing has to be started for it."""
    relay, _ = relay_of(Rig(object()).endpoint("a/b", type="event", spec=EventSpec()))
    fit, refused = await look_at(relay, "a")()
    assert ([row.uid for row in fit], refused) == (["a"], [])


async def test_whatever_stops_the_relay_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    relay, control = relay_of()
    monkeypatch.setattr(relay, "place", lambda: OutboxPlace("postgresql://x", "shop"))

    async def fails(_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(relay, "_relay", fails)
    running = asyncio.create_task(relay.run(stop := asyncio.Event()))
    await asyncio.sleep(0.01)
    status = relay.status()
    assert status is not None
    assert status["error"] == "AssertionError"
    assert [(one.type, one.why) for one in cast("list[TroubleEvent]", control.published)] == [
        ("trouble.began", "AssertionError")
    ]
    stop.set()
    await running


def test_an_outbox_that_cannot_be_relayed_is_told_of_once() -> None:
    relay, control = relay_of(secrets=["s3cret"])
    told = cast("list[TroubleEvent]", control.published)
    own, other = OutboxPlace("postgresql://x", None), OutboxPlace("postgresql://y", "shop")
    relay._failed(own, Unreachable("which is told of as the database"))
    assert told == []
    for _ in range(2):
        relay._failed(other, Unreachable("s3cret is away"))
    relay._works()
    relay._works()
    relay._failed(own, OutboxUnusable("permission denied"))
    relay._works(here=False)
    # It is the daemon's own, and told of as that.
    relay._failed(own, OutboxUnusable(MISSING))
    assert list(control.troubles) == ["outbox_failing"]
    relay._works()
    assert not control.troubles
    assert [(one.type, one.why) for one in told] == [
        ("trouble.began", "*** is away"), ("trouble.ended", "*** is away"),
        ("trouble.began", "permission denied"), ("trouble.ended", "permission denied"),
    ]  # fmt: skip


def look_at(relay: OutboxRelay, *uids: str, ends: str = "") -> Callable[[], Any]:
    """Look at rows one by one; the relay dies where it looks at `ends`."""

    async def checked(rows: Any) -> tuple[list[Any], list[Any]]:
        if rows[0].uid == ends:
            raise SystemExit
        return list(rows), []

    relay._checked = checked  # type: ignore[method-assign]
    rows = [OutboxRow(n, uid, "a/b", "{}", None, 0.0) for n, uid in enumerate(uids)]
    return lambda: relay._checked_singly(rows)


async def test_the_deaths_of_looks_at_a_row_are_counted() -> None:
    """Of other daemons: one that looks again because the database was away has not died."""
    relay, control = relay_of()
    for _ in range(3):
        with pytest.raises(SystemExit):
            await look_at(relay, "b", "a", ends="a")()
        assert [(row["uid"], row["deaths"]) for row in await control.rows("outbox_looks")] == [
            ("a", 0)
        ]
    for deaths in (1, 2):
        other = OutboxRelay(cast("Any", control))
        if deaths == 1:
            with pytest.raises(SystemExit):
                await look_at(other, "b", "a", ends="a")()
            [row] = await control.rows("outbox_looks")
            assert row["deaths"] == 1
    fit, refused = await look_at(other, "b", "a", ends="a")()
    assert [row.uid for row in fit] == ["b"]
    assert [(one.row.uid, one.refusal.code) for one in refused] == [("a", "invalid_params")]
    assert await control.rows("outbox_looks") == []


async def test_rows_are_looked_at_one_by_one_after_a_death_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    relay, control = relay_of()
    place = OutboxPlace("postgresql://x", None)
    monkeypatch.setattr(OutboxRelay, "place", lambda self: place)

    async def relays(self: OutboxRelay, outbox: Any) -> None:
        assert self.status()["relays"]  # type: ignore[index]
        await asyncio.Event().wait()

    monkeypatch.setattr(OutboxRelay, "_relay", relays)

    async def run(relay: OutboxRelay, *, dies: bool = False) -> bool:
        """Whether it looks at rows one by one."""
        stop = asyncio.Event()
        running = asyncio.create_task(relay.run(stop))
        await asyncio.sleep(0.01)
        if dies:
            running.cancel()
        stop.set()
        await asyncio.wait((running,))
        assert not relay.status()["relays"]  # type: ignore[index]
        return relay._singly

    assert not await run(relay)
    assert not await run(relay, dies=True)
    assert not await run(relay), "it is the same"
    assert not await run(OutboxRelay(cast("Any", control)), dies=True)
    assert await run(OutboxRelay(cast("Any", control)))
    assert not await run(OutboxRelay(cast("Any", control)))


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ({"limit": "0"}, "must be at least 1, not '0'"),
        ({"limit": "x"}, "expected a whole number, not 'x'"),
        ({"after": "-"}, "expected a whole number, not '-'"),
        ({"status": "lost"}, "unknown value 'lost'; known are refused, waiting"),
        ({"size": "1"}, "unknown key; known are after, limit, status"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(query: dict[str, str], why: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        OutboxQuery.read(query)
    assert list(caught.value.problems.items()) == [(next(iter(query)), why)]
