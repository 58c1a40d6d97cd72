"""What is said of all tasks at once: who fails now, what there is of what, what waits."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchestratord.errors import Unreachable
from orchestratord.model.event import Event, FailingEvent
from orchestratord.model.partition_turn import Partition
from orchestratord.model.task import Key, NewTask, Status, Task
from orchestratord.plugin.event_bus import EventBus
from orchestratord.queue.connection import RUNNING, Connection
from orchestratord.queue.housekeeping import failing_told, future_times
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations import manual, schedules, search
from orchestratord.queue.operations.schedules import MissedSlots
from orchestratord.queue.records import Insert, StoredEffect, TaskFilter
from orchestratord.queue.reports import backlog, failing, grouped
from orchestratord.queue.reports.failing import FailingKey
from orchestratord.queue.store import Store
from orchestratord.runtime.health_events import HealthEvents

GET, PUT, HOOK = Key("crm/get"), Key("crm/put"), Key("crm/get", "ops")


async def fails(store: Store) -> dict[str, FailingKey]:
    return {item.key.name: item for item in (await store.read(failing.failing())).keys}


async def attempt(queue: Any, key: Key, status: str, **fields: Any) -> Task:
    """One attempt of a new task, or of the one of this key that is due: it took 12.5 ms."""
    if not (tasks := await queue.claim(key, 1)):
        await queue.add(key)
        tasks = await queue.claim(key, 1)
    [task] = tasks
    ok = status == Status.SUCCEEDED
    code = fields.setdefault("status_code", 200 if ok else 503)
    fields.setdefault("error", None if ok else f"{code} of {key.name}")
    if ok:
        fields["last_success_at"] = queue.clock.now_ms()
    if status == Status.FAILED:
        fields.setdefault("reason", "exhausted")
    made = queue.attempt(task, code, error=fields["error"])
    await queue.settle(task, status, attempt=made, **fields)
    return task


class Published(EventBus):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[Event] = []

    def publish(self, event: Event) -> None:
        self.told.append(event)


def watch(store: Store, events: EventBus, clock: Any) -> HealthEvents:
    async def of_event(event: Event) -> list[StoredEffect]:
        return [Insert(NewTask("webhook", "ops/told", webhook="ops", payload="{}"))]

    async def written(items: object, inserted: object) -> None:
        pass

    pipe = SimpleNamespace(new_tasks=SimpleNamespace(of_event=of_event, written=written))
    host = SimpleNamespace(events=events)
    worker = SimpleNamespace(store=store, host=host, clock=clock, pipe=pipe)
    return HealthEvents(cast("Any", worker), cast("Any", None))


async def test_an_endpoint_that_fails_for_ten_minutes_is_told_of_once(
    queue: Any, store: Store
) -> None:
    clock, events = queue.clock, Published()
    health = watch(store, events, clock)

    async def look() -> int:
        await health.look_at_endpoints()
        return len(events.told)

    await attempt(queue, GET, Status.FAILED)
    clock.turn(599)
    await attempt(queue, GET, Status.FAILED)
    assert await look() == 0
    clock.turn(10)
    await attempt(queue, GET, Status.FAILED)
    assert await look() == 1
    assert await look() == 1
    store = await queue.reopen()  # as after a restart, or by another daemon
    health = watch(store, events, clock)
    assert await look() == 1
    [event] = events.told
    assert isinstance(event, FailingEvent)
    assert (event.endpoint, event.failures, event.status_code) == ("crm/get", 3, 503)
    clock.turn(60)
    await attempt(queue, GET, Status.SUCCEEDED)
    assert await look() == 1
    for _ in range(2):
        clock.turn(601)
        await attempt(queue, GET, Status.FAILED)
    assert await look() == 2


async def test_one_is_told_of_once_though_daemons_die_and_others_look(
    queue: Any, store: Store
) -> None:
    """What follows from the event is written with the note that it was told of."""
    events = Published()
    await attempt(queue, GET, Status.FAILED)
    queue.clock.turn(601)
    await attempt(queue, GET, Status.FAILED)
    both = [watch(store, events, queue.clock) for _ in range(2)]
    await asyncio.gather(*(health.look_at_endpoints() for health in both))
    [told] = events.told
    for _ in range(2):
        store = await queue.reopen()
        await watch(store, events, queue.clock).look_at_endpoints()
        queue.clock.turn(60)
    assert events.told == [told]
    page, _ = await store.read(search.page(TaskFilter(endpoint="ops/told"), 9))
    assert len(page) == 1


async def test_what_could_not_be_noted_is_told_of_later(
    queue: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = Published()
    health = watch(store, events, queue.clock)
    await attempt(queue, GET, Status.FAILED)
    queue.clock.turn(601)
    await attempt(queue, GET, Status.FAILED)

    async def away(write: object) -> Any:
        raise Unreachable("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(store, "write", away)
        with pytest.raises(Unreachable):
            await health.look_at_endpoints()
    assert (await store.read(failing_told.told()), events.told) == ({}, [])
    queue.clock.turn(60)
    await health.look_at_endpoints()
    assert await store.read(failing_told.told()) == {"crm/get": queue.clock.now_ms()}
    assert len(events.told) == 1


async def test_one_that_is_not_looked_at_has_not_recovered(
    queue: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More endpoints fail than are looked at: they are not told of in turns."""
    monkeypatch.setattr(failing, "MOST_ENDPOINTS", 1)
    events = Published()
    health = watch(store, events, queue.clock)

    async def look() -> list[str]:
        await health.look_at_endpoints()
        return [one.endpoint for one in events.told if isinstance(one, FailingEvent)]

    async def round_of_both() -> list[str]:
        for key in (GET, PUT):
            await attempt(queue, key, Status.FAILED)
            await look()
            queue.clock.turn(601)
        return await look()

    await round_of_both()
    assert await round_of_both() == ["crm/get", "crm/put"]
    assert await round_of_both() == ["crm/get", "crm/put"]
    assert not (await store.read(failing.failing())).complete
    # One that succeeded is forgotten, whether or not others are looked at.
    await attempt(queue, GET, Status.SUCCEEDED)
    await look()
    assert (await store.read(failing_told.told())).keys() == {"crm/put"}
    queue.clock.turn(60)
    await round_of_both()
    assert await round_of_both() == ["crm/get", "crm/put", "crm/get"]


async def test_one_of_which_nothing_is_left_is_forgotten(queue: Any, store: Store) -> None:
    """By a look at all there is, though it never succeeded."""
    health = watch(store, Published(), queue.clock)
    tasks = [await attempt(queue, GET, Status.FAILED)]
    queue.clock.turn(601)
    tasks.append(await attempt(queue, GET, Status.FAILED))
    for _ in range(2):
        await health.look_at_endpoints()
    assert (await store.read(failing_told.told())).keys() == {"crm/get"}
    for task in tasks:
        await store.write(manual.cancel(task.id))
    await health.look_at_endpoints()
    assert await store.read(failing_told.told()) == {}


async def test_who_fails_now_calls_and_deliveries_apart(queue: Any, store: Store) -> None:
    clock = queue.clock
    await attempt(queue, GET, Status.FAILED)
    clock.turn(60)
    await attempt(queue, GET, Status.SUCCEEDED)
    assert await fails(store) == {}
    clock.turn(60)
    since = clock.now_ms()
    for _ in range(3):
        await attempt(queue, GET, Status.FAILED)
        clock.turn(1)
    await attempt(queue, HOOK, Status.FAILED, status_code=410, reason="webhook_disabled")
    await attempt(queue, PUT, Status.PENDING, next_try=clock.now_ms() + 60_000)
    store = await queue.reopen()  # as a restart does
    found = await fails(store)
    assert found.keys() == {"crm/get", "crm/get#ops", "crm/put"}
    calls, deliveries, waits = found["crm/get"], found["crm/get#ops"], found["crm/put"]
    assert (calls.failed, calls.waiting, calls.failures, calls.complete) == (3, 0, 3, True)
    assert (calls.since, calls.last) == (since, since + 2012)
    assert (calls.reason, calls.status_code, calls.error) == ("exhausted", 503, "503 of crm/get")
    assert (deliveries.failed, deliveries.reason) == (1, "webhook_disabled")
    assert (waits.failed, waits.waiting, waits.reason) == (0, 1, None)
    # Each ends as soon as it succeeds, the others do not.
    clock.turn(60)
    await attempt(queue, HOOK, Status.SUCCEEDED)
    assert (await fails(store)).keys() == {"crm/get", "crm/put"}
    await attempt(queue, PUT, Status.SUCCEEDED)
    assert (await fails(store)).keys() == {"crm/get"}
    await attempt(queue, GET, Status.SUCCEEDED)
    assert await fails(store) == {}


async def test_what_a_disabled_webhook_misses_is_counted_apart(queue: Any, store: Store) -> None:
    await attempt(queue, HOOK, Status.FAILED, reason="webhook_disabled")
    await attempt(queue, HOOK, Status.FAILED)
    assert (await store.read(failing.no_failures()))["missed"] == 0, "these were tried"
    queue.run("UPDATE retry_schedule SET attempts = 0")
    assert (await store.read(failing.no_failures()))["missed"] == 1
    [row] = queue.run("SELECT id FROM retry_schedule WHERE reason = 'webhook_disabled'")
    await store.write(manual.cancel(row["id"]))
    assert (await store.read(failing.no_failures()))["missed"] == 0


async def test_what_a_person_has_resolved_fails_no_more(queue: Any, store: Store) -> None:
    await attempt(queue, GET, Status.FAILED)
    assert (await fails(store)).keys() == {"crm/get"}
    queue.run("UPDATE retry_schedule SET reason = 'resolved'")
    assert await fails(store) == {}
    assert await store.read(failing.no_failures()) == {"missed": 0, "resolved": 1}


async def test_what_was_retried_or_cancelled_fails_no_more(queue: Any, store: Store) -> None:
    one, two = [(await attempt(queue, key, Status.FAILED)).id for key in (GET, PUT)]
    queue.clock.turn(10)
    await store.write(manual.cancel(two))
    await store.write(manual.trigger(one))
    assert await fails(store) == {}  # its retry says nothing yet
    queue.clock.turn(1)
    await attempt(queue, GET, Status.PENDING, next_try=queue.clock.now_ms() + 1)
    queue.clock.turn(1)
    assert (await fails(store))["crm/get"].waiting == 1
    await queue.claim(GET)  # and is being tried again
    assert (await fails(store))["crm/get"].waiting == 1


async def test_an_attempt_that_began_before_a_success_says_nothing(
    queue: Any, store: Store
) -> None:
    await queue.add(GET)
    await queue.add(GET)
    slow, quick = await queue.claim(GET)
    began = queue.attempt(slow, 503, error="503")
    queue.clock.turn(5)
    await queue.settle(quick, last_success_at=queue.clock.now_ms())
    queue.clock.turn(5)
    await queue.settle(slow, Status.FAILED, attempt=began, reason="exhausted", error="503")
    assert await fails(store) == {}


async def test_of_many_failed_ones_only_so_many_are_looked_at(
    queue: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failing, "LOOKED", 4)
    monkeypatch.setattr(failing, "LEAST_LOOKED", 4)
    for _ in range(6):
        await attempt(queue, GET, Status.FAILED)
        queue.clock.turn(1)
    await attempt(queue, PUT, Status.FAILED)
    found = await fails(store)
    assert (found["crm/get"].failed, found["crm/get"].complete) == (4, False)
    assert (found["crm/put"].failed, found["crm/put"].complete) == (1, True)
    assert not (await store.read(failing.failing())).complete


async def test_whether_all_was_looked_at(
    queue: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def complete(limit: str, value: int) -> bool:
        with monkeypatch.context() as patch:
            patch.setattr(failing, limit, value)
            return (await store.read(failing.failing())).complete

    for key in (GET, PUT):
        await attempt(queue, key, Status.FAILED)
        await queue.add(key)
    for limit in ("MOST_ENDPOINTS", "MOST_KEYS"):
        assert [await complete(limit, value) for value in (1, 2)] == [False, True]


async def test_what_there_is_by_endpoint_reason_and_code(
    queue: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for code, reason, count in ((503, "exhausted", 3), (404, "not_retryable", 2)):
        for _ in range(count):
            await attempt(queue, GET, Status.FAILED, status_code=code, reason=reason)
    await attempt(queue, HOOK, Status.SUCCEEDED)

    async def count(*by: str, **wanted: Any) -> tuple[list[tuple[Any, ...]], bool]:
        found = await store.read(grouped.grouped(TaskFilter(**wanted), by))
        return [(*group.values, group.tasks) for group in found.groups], found.complete

    assert await count("endpoint", "reason", "status_code", status=("failed",)) == (
        [("crm/get", "exhausted", 503, 3), ("crm/get", "not_retryable", 404, 2)],
        True,
    )
    assert (await count("webhook", "status"))[0] == [(None, "failed", 5), ("ops", "succeeded", 1)]
    assert (await count("kind", endpoint="crm/*", text="404 OF"))[0] == [("call", 2)]
    monkeypatch.setattr(grouped, "LOOKED", 4)
    assert await count("endpoint", status=("failed",)) == ([("crm/get", 4)], False)


async def test_a_text_is_found_in_answers(queue: Any, store: Store) -> None:
    answer = {"status_code": 422, "headers": {}, "body": '{"why": "no sku Ünal-7"}\n100 %'}
    task = await attempt(queue, GET, Status.FAILED, response=answer)
    await attempt(queue, GET, Status.FAILED)
    for text in ("SKU Ünal-7", '"why": "no', '7"}\n100', "100 %"):
        found, _ = await store.read(search.page(TaskFilter(text=text), 10))
        assert [one.id for one in found] == [task.id], text
    survey = await store.read(bulks.survey(TaskFilter(text="ünal-7", status=("failed",))))
    assert survey.matched == 0  # only ASCII letters have two cases


async def test_what_waits_for_its_turn_is_not_due(queue: Any, store: Store) -> None:
    first = queue.clock.now_ms()
    order = Partition("p1", ordered=True, hold=True)
    for _ in range(3):
        await queue.add(GET, partition=order)
    queue.clock.turn(1)
    await queue.add(PUT)
    now = queue.clock.now_ms()
    assert (await store.read(backlog.due_tasks(now, 9)))[:2] == (2, first)
    assert (await store.read(backlog.due_tasks(now, 9))).held == 2
    await attempt(queue, GET, Status.FAILED)
    # The failed one holds the others: nothing of them is due.
    assert (await store.read(backlog.due_tasks(now, 9)))[:2] == (1, now)
    assert (await store.read(backlog.due_tasks(now, 9))).held == 2
    found = await store.read(backlog.backlog([GET, PUT, HOOK]))
    assert found == {GET: (2, first), PUT: (1, now), HOOK: (0, None)}


async def test_how_far_schedules_have_come(queue: Any, store: Store) -> None:
    missed = MissedSlots(3, 1000, 3000, 3500, ran=False)
    take = schedules.take_slot("crm/get", "1s", None, 3000, [(0, 3000)], None, missed)
    assert await store.write(take) is not None
    again = schedules.take_slot("crm/get", "1s", None, 4000, [(0, 4000)], None, MissedSlots(
        9, 1, 2, 3, ran=True
    ))  # fmt: skip
    assert await store.write(again) is None  # another daemon was first: nothing is noted of it
    assert await store.read(backlog.missed_slots()) == {"crm/get": missed}
    assert await store.read(backlog.schedule_runs()) == {
        "crm/get": (3000, None, None, None, None, None, None)
    }


@pytest.mark.parametrize("new_url", ["postgres"], indirect=True)
async def test_no_look_goes_through_the_table(queue: Any, store: Store) -> None:
    """On PostgreSQL; of SQLite, `test_queue_plans` says it."""
    await queue.add_all([queue.new(Key(f"crm/{n % 7}", "ops" * (n % 2))) for n in range(3000)])
    queue.run("UPDATE retry_schedule SET status = 'failed', next_try = NULL WHERE id % 3 = 0")
    queue.run("ANALYZE")

    def plan(db: Connection, statement: str, values: tuple[Any, ...]) -> str:
        return "\n".join(row[0] for row in db.all(f"EXPLAIN {statement}", values))

    reason = search.NEWEST.format(hint="", where="status = ? AND reason IN (?)", order="id")
    for statement, values, index in (
        (failing.ENDPOINTS, (), "endpoint"),
        (failing.FAILED, ("crm/1", 10), "endpoint"),
        (failing.WAITING, ("crm/1", "ops", 10, 1), "ready"),
        (failing.RUNNING, (), "running"),
        (search.NEWEST.format(hint="", where=RUNNING, order="id + 0"), (10,), "running"),
        (search.SINCE, (1 << 50, 1 << 50), "created"),
        (search.SINCE, (1 << 50, 1 << 50), "running"),
        (search.UNTIL, (10, 10), "created"),
        (search.UNTIL, (10, 10), "running"),
        (future_times.MADE, (1 << 50, 5, 1 << 50, 5), "created"),
        (future_times.MADE, (1 << 50, 5, 1 << 50, 5), "running"),
        (reason, ("failed", "expired", 10), "reason"),
        (backlog.READY_ONES, ("crm/1", "ops", 10), "ready"),
        (backlog.HELD_ONES, ("crm/1", "ops", 10), "held"),
    ):
        steps = await store._reader.run(lambda db, s=statement, v=values: plan(db, s, v))  # type: ignore[misc]
        assert f"using retry_schedule_{index} " in steps, steps
        assert "Seq Scan on retry_schedule" not in steps, steps
