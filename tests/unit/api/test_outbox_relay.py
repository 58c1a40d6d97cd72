"""Rows of the outbox that cannot be read, together or alone."""

from __future__ import annotations

from collections.abc import Collection
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchestratord.api import outbox_relay as module
from orchestratord.api.outbox_relay import ALONE, PAGE, OutboxRelay
from orchestratord.config.outbox_database import Outbox as OutboxPlace
from orchestratord.errors import OutboxUnusable, RowsUnreadable, SchemaTooCostly, Unreachable
from orchestratord.model.endpoint import ParamRules
from orchestratord.model.event import TroubleEvent
from orchestratord.queue.daemon_health import DaemonHealth
from orchestratord.queue.outbox.outbox_connection import OutboxRow
from orchestratord.queue.postgres.outbox_schema import MISSING
from orchestratord.testing import FakeClock
from orchestratord.values.redact import Redactor


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


def worker(**parts: Any) -> Any:
    """One that has these parts."""
    pipe = SimpleNamespace(new_tasks=None)
    given = {"store": None, "host": None, "clock": None, "enqueue": None, "pipe": pipe, **parts}
    return SimpleNamespace(**given)


async def test_a_row_that_cannot_be_read_holds_up_no_other() -> None:
    outbox, found, failures = Outbox(1000, 700), list[OutboxRow](), 0
    nothing = cast("Any", None)
    relay = OutboxRelay(worker(), nothing, "")
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
    outbox, nothing = Outbox(1, 1), cast("Any", None)
    relay = OutboxRelay(worker(), nothing, "")
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

    async def write(what: Any) -> int:
        course.append(what)
        return 0

    async def checked(*_: Any) -> tuple[list[Any], list[Any]]:
        course.append("check")
        return [], []

    async def holds() -> bool:
        return True

    config = SimpleNamespace(endpoints={"a/b": SimpleNamespace(spec=Rules())})
    store = cast("Any", SimpleNamespace(write=write))
    reloader = cast("Any", SimpleNamespace(config=config))
    relay = OutboxRelay(worker(store=store), reloader, "")
    monkeypatch.setattr(relay, "_checked", checked)
    monkeypatch.setattr(relay, "_hold", holds)
    monkeypatch.setattr(module, "note_look", lambda *_, ends=False: "forget" if ends else "note")
    rows = [OutboxRow(1, "1", "a/b", "{}", None, 0.0), OutboxRow(2, "2", "gone", "{}", None, 0.0)]
    await relay._checked_singly(OutboxPlace("postgresql://x", None), rows)
    assert course == ["0 events", *["note", "check", "forget"] * 2]


def test_an_outbox_that_cannot_be_relayed_is_told_of_once() -> None:
    told: list[TroubleEvent] = []
    reloader = SimpleNamespace(config=SimpleNamespace(redactor=Redactor(["s3cret"])))
    host = SimpleNamespace(events=SimpleNamespace(publish=told.append))
    health = DaemonHealth()
    store = cast("Any", SimpleNamespace(health=health))
    made_for = worker(store=store, clock=FakeClock(), host=host)
    relay = OutboxRelay(made_for, cast("Any", reloader), "")
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
    assert list(health.troubles) == ["outbox_failing"]
    relay._works()
    assert not health.troubles
    assert [(one.type, one.why) for one in told] == [
        ("trouble.began", "*** is away"), ("trouble.ended", "*** is away"),
        ("trouble.began", "permission denied"), ("trouble.ended", "permission denied"),
    ]  # fmt: skip
