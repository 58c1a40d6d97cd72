"""Schedules, retention, and the tables of plugins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from orchestratord.errors import NotFound, PluginError
from orchestratord.model.settings import Retention
from orchestratord.model.task import Action, Key, Status, Table, TableStep, Upsert
from orchestratord.queue.housekeeping import prune
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations import effects, manual, plugin_rows, schedules, search
from orchestratord.queue.records import Insert, TaskFilter
from orchestratord.queue.store import Store
from orchestratord.testing import START

DAY = 86400.0
FIRST = [(100, 100)]
"""The slots that were taken, by the first one of a schedule."""
TABLE = Table("health", {"name": "TEXT NOT NULL", "seen": "INTEGER"}, ("name",))


async def test_what_people_did_is_kept_for_as_long_as_failures(queue: Any, store: Store) -> None:
    first = await store.write(manual.record_action("uid 0", Action("pause", "crm/get")))
    queue.clock.turn(3600)
    detail = {"diff": "- a\n+ b"}
    second = await store.write(
        manual.record_action("uid 0", Action("edit webhooks", "crm/get", "ops", detail=detail))
    )
    third = await store.write(manual.record_action("token", Action("retry many", task=4, bulk=7)))
    done = await store.read(manual.newest_actions(10))
    assert [one.id for one in done] == [third, second, first]
    assert done[1].action == Action("edit webhooks", "crm/get", "ops", detail=detail)
    assert (done[0].who, done[0].action.task, done[0].action.bulk) == ("token", 4, 7)
    assert done[2].at == queue.clock.now_ms() - 3600_000
    assert [one.id for one in await store.read(manual.newest_actions(1, third))] == [second]
    await prune.prune(store, Retention(failed=1800.0))
    assert [one.id for one in await store.read(manual.newest_actions(10))] == [third, second]


async def test_the_oldest_of_what_webhooks_miss_are_deleted(queue: Any, store: Store) -> None:
    ids: dict[str, list[int]] = {"ops": [], "chat": []}
    for number in range(6):
        for name, made in ids.items():
            made.append(await queue.add(Key("crm/get", name)))
            [task] = await queue.claim(Key("crm/get", name))
            await queue.settle(task, Status.FAILED, reason="webhook_disabled")
        queue.clock.turn(3600 if number == 2 else 1)
    other = await queue.ended(Status.FAILED)
    keeps = {"ops": (DAY, 4), "chat": (1800.0, 100)}
    gone = await prune.trim(store, "webhook_disabled", lambda key: keeps.get(key.webhook), 2)
    assert gone == {Key("crm/get", "ops"): 2, Key("crm/get", "chat"): 3}
    left = await store.read(search.page(TaskFilter(), 100))
    assert {task.id for task in left[0]} == {*ids["ops"][2:], *ids["chat"][3:], other}
    assert (await store.counts())["failed"] == 8
    assert await prune.trim(store, "webhook_disabled", lambda key: None) == {}
    assert await prune.trim(store, "webhook_disabled", lambda key: keeps.get(key.webhook)) == {}


class TestSlots:
    async def test_a_slot_makes_one_task(self, queue: Any, store: Store) -> None:
        assert await store.read(schedules.slots()) == {}
        insert = Insert(queue.new(scheduled_at=100))
        takes = [
            store.write(schedules.take_slot("crm/get", "every 15m", None, 100, FIRST, insert))
            for _ in range(5)
        ]
        taken = [item for item in await asyncio.gather(*takes) if item is not None]
        assert len(taken) == 1
        assert (await store.read(search.get(taken[0].inserted.id))).scheduled_at == 100
        [row] = (await store.read(schedules.slots())).values()
        assert (row.spec, row.last_slot, row.runs(200)) == ("every 15m", 100, FIRST)
        assert (await store.counts())["pending"] == 1

    async def test_it_moves_on_from_the_one_before(self, queue: Any, store: Store) -> None:
        insert, later = Insert(queue.new()), [(100, 200)]

        async def take(
            name: str, spec: str, previous: schedules.SlotRow | None, slot: int, runs: Any
        ) -> schedules.SlotRow | None:
            taken = await store.write(schedules.take_slot(name, spec, previous, slot, runs, insert))
            return await store.read(schedules.slot(name)) if taken else None

        first = await take("crm/get", "a", None, 100, FIRST)
        assert first is not None
        second = await take("crm/get", "b", first, 200, later)
        assert second == schedules.SlotRow("b", 200, "a", schedules.runs_text(later))
        assert await take("crm/get", "b", first._replace(spec="b"), 300, later) is None
        # Who does not know that another schedule is in force, which had a slot at that time, too.
        assert await take("crm/get", "a", second._replace(spec="a"), 300, later) is None
        # Nor which slots were taken.
        assert await take("crm/get", "b", second._replace(taken=first.taken), 300, later) is None
        assert await take("crm/get", "b", second._replace(taken=None), 300, later) is None
        assert await take("crm/new", "b", first, 300, later) is None
        assert await store.read(schedules.slots()) == {"crm/get": second}
        assert (await store.counts())["pending"] == 2

    async def test_a_slot_may_pass_without_a_task(self, queue: Any, store: Store) -> None:
        take = schedules.take_slot("crm/get", "a", None, 100, FIRST, None)
        assert await store.write(take) == (None, ())
        store = await queue.reopen()
        row = (await store.read(schedules.slots()))["crm/get"]
        assert (row.spec, row.runs(200)) == ("a", FIRST)
        assert (await store.counts())["pending"] == 0


class TestPrune:
    async def test_each_status_is_kept_as_long_as_it_says(self, queue: Any, store: Store) -> None:
        for status in (Status.SUCCEEDED, Status.CANCELLED, Status.FAILED):
            await queue.ended(status)
        pending = await queue.add()
        left = {"succeeded": 1, "cancelled": 1, "failed": 1, "pending": 1, "running": 0}
        for days, gone in ((1, "succeeded"), (7, "cancelled"), (30, "failed")):
            assert await prune.prune(store, Retention()) == 0
            # Half a millisecond more, so that no rounding takes away the one that it is over.
            queue.clock.turn(START + days * DAY + 0.0015 - queue.clock.now())
            assert await prune.prune(store, Retention()) == 1
            left[gone] = 0
            assert await store.counts() == left
        assert [task.id for task in (await store.read(search.page(TaskFilter(), 10)))[0]] == [
            pending
        ]

    async def test_in_slices_the_oldest_first(self, queue: Any, store: Store) -> None:
        ids = [await queue.ended(Status.SUCCEEDED) for _ in range(5)]
        queue.clock.turn(2 * DAY)
        assert await prune.prune(store, Retention(), 2) == 2
        assert [task.id for task in (await store.read(search.page(TaskFilter(), 9)))[0]] == ids[
            :1:-1
        ]
        assert await prune.prune(store, Retention(), 2) == 2
        assert await prune.prune(store, Retention(), 2) == 1
        assert await prune.prune(store, Retention(), 2) == 0

    async def test_attempts_go_with_their_task(self, queue: Any, store: Store) -> None:
        ids = []
        for _ in range(2):
            ids.append(await queue.add())
            [task] = await queue.claim()
            await queue.settle(task, attempt=queue.attempt(task))
            queue.clock.turn(DAY)
        assert await prune.prune(store, Retention()) == 1
        assert [len(await store.read(search.attempts(id_))) for id_ in ids] == [0, 1]

    async def test_a_key_that_still_counts_is_kept(self, queue: Any, store: Store) -> None:
        kept = await queue.ended(Status.SUCCEEDED, unique_key="k")
        await queue.ended(Status.SUCCEEDED)
        queue.clock.turn(DAY - 1)
        hour = Retention(succeeded=3600)
        assert await prune.prune(store, hour) == 1
        [again] = await queue.add_all([queue.new(unique_key="k")])
        assert (again.id, again.duplicate) == (kept, True)
        queue.clock.turn(1)
        assert await prune.prune(store, hour) == 1

    async def test_a_child_outlives_its_parent(self, queue: Any, store: Store) -> None:
        parent = await queue.ended(Status.SUCCEEDED)
        child = await queue.add(Key("crm/get", "ops"), parent_id=parent)
        queue.clock.turn(2 * DAY)
        assert await prune.prune(store, Retention()) == 1
        assert (await store.read(search.get(child))).parent_id == parent

    async def test_bulks_that_ended_long_ago_go_too(self, queue: Any, store: Store) -> None:
        bulk = await queue.bulk(TaskFilter())
        await bulks.step(store, bulk.id, 10)
        queue.clock.turn(29 * DAY)
        await prune.prune(store, Retention())
        assert await store.read(bulks.get(bulk.id))
        queue.clock.turn(2 * DAY)
        await prune.prune(store, Retention())
        store = await queue.reopen()
        assert await store.read(bulks.newest(9)) == []
        with pytest.raises(NotFound, match="there is no bulk"):
            await store.read(bulks.get(bulk.id))


class TestTablesOfPlugins:
    async def test_they_are_kept(self, unopened: Callable[[], Any]) -> None:
        queue = unopened()
        store = await queue.open(TABLE)
        await store.write(effects.write_effects([Upsert("health", {"name": "a"}, {"seen": 1})]))
        store = await queue.reopen(TABLE)
        assert await plugin_rows.rows(store, "health") == [{"name": "a", "seen": 1}]
        await store.close()

    async def test_new_columns_are_added(self, unopened: Callable[[], Any]) -> None:
        queue = unopened()
        store = await queue.open(TABLE)
        await store.write(effects.write_effects([Upsert("health", {"name": "a"}, {"seen": 1})]))
        columns = {
            **TABLE.columns,
            "url": "TEXT NOT NULL",
            "score": "REAL",
            "n": "INTEGER NOT NULL",
        }
        store = await queue.reopen(Table("health", columns, ("name",), version=2))
        await store.write(
            effects.write_effects([Upsert("health", {"name": "b"}, {"url": "u"}, {"n": 2})])
        )
        assert await plugin_rows.rows(store, "health") == [
            {"name": "a", "seen": 1, "url": "", "score": None, "n": 0},
            {"name": "b", "seen": None, "url": "u", "score": None, "n": 2},
        ]
        # An older plugin goes on with what it knows.
        store = await queue.reopen(TABLE)
        await store.write(effects.write_effects([Upsert("health", {"name": "a"}, {"seen": 9})]))
        assert (await plugin_rows.rows(store, "health"))[0] == {"name": "a", "seen": 9}
        await store.close()

    async def test_a_key_of_two_columns(self, unopened: Callable[[], Any]) -> None:
        queue = unopened()
        columns = {"a": "TEXT NOT NULL", "b": "TEXT NOT NULL", "n": "INTEGER"}
        store = await queue.open(Table("pairs", columns, ("a", "b")))
        for b in ("x", "y", "x"):
            await store.write(
                effects.write_effects([Upsert("pairs", {"b": b, "a": "1"}, {}, {"n": 1})])
            )
        assert sorted((row["b"], row["n"]) for row in await plugin_rows.rows(store, "pairs")) == [
            ("x", 2),
            ("y", 1),
        ]
        await store.close()

    @pytest.mark.parametrize(
        ("name", "columns", "key"),
        [
            ('x" (a TEXT); --', {"a": "TEXT"}, ("a",)),
            ("x", {"a b": "TEXT"}, ("a b",)),
            ("x", {"a": "BLOB"}, ("a",)),
            ("x", {"a": "TEXT, b TEXT"}, ("a",)),
            ("x", {"a": "TEXT", "A": "TEXT"}, ("a",)),
            ("x", {"a": "TEXT"}, ("b",)),
            ("x", {"a": "TEXT"}, ()),
        ],
    )
    def test_what_is_no_table_cannot_be_made(
        self, name: str, columns: dict[str, str], key: tuple[str, ...]
    ) -> None:
        with pytest.raises(ValueError, match="the table"):
            Table(name, columns, key)

    @pytest.mark.parametrize(
        ("other", "why"),
        [
            (Table("own", {"a": "TEXT", "b": "TEXT"}, ("a",)), "b is .*, and not TEXT"),
            (
                Table("own", {"a": "TEXT", "b": "INTEGER"}, ("a", "b")),
                r"the key is \['a'\], and not",
            ),
            (Table("own", {"a": "TEXT", "b": "INTEGER"}, ("a",)), "d is NOT NULL, .* not at all"),
            (
                Table("own", {"a": "TEXT", "b": "INTEGER", "d": "TEXT"}, ("a",)),
                "d is NOT NULL, and declared without it",
            ),
        ],
    )
    async def test_a_table_that_is_another_in_the_database_is_refused(
        self, unopened: Callable[[], Any], other: Table, why: str
    ) -> None:
        columns = {"a": "TEXT", "b": "INTEGER", "c": "REAL", "d": "TEXT NOT NULL"}
        own = Table("own", columns, ("a",))
        queue = unopened()
        await (await queue.open(own)).close()
        await (await queue.open(own)).close()
        with pytest.raises(PluginError, match=f"the table 'own' is another in the database.*{why}"):
            await queue.open(other)
        store = await queue.open()  # nothing stays open, and nothing locked
        await store.close()

    @pytest.mark.parametrize("is_new", [False, True], ids=["there before", "new"])
    async def test_steps_bring_a_table_on_once(
        self, unopened: Callable[[], Any], is_new: bool
    ) -> None:
        first = TableStep(
            ["CREATE TABLE own (a TEXT PRIMARY KEY, b INTEGER)"],
            ["CREATE TABLE {schema}.own (a text PRIMARY KEY, b bigint)"],
        )
        rename = ["ALTER TABLE own RENAME COLUMN b TO size", "UPDATE own SET size = size * 10"]
        index = ["CREATE INDEX own_size ON own (size)"]
        before = Table("own", {"a": "TEXT", "b": "INTEGER"}, ("a",))
        columns, steps = {"a": "TEXT", "size": "INTEGER"}, [first, TableStep(rename, rename)]
        now = Table("own", columns, ("a",), steps=steps)
        more = {**columns, "more": "TEXT"}
        later = Table("own", more, ("a",), steps=[*steps, TableStep(index, index)])
        queue = unopened()
        tables = [now, later] if is_new else [before, now, now, later]
        for number, table in enumerate(tables):
            store = await queue.open(table)
            if number == 0:
                row = Upsert("own", {"a": "x"}, {"size" if is_new else "b": 7})
                await store.write(effects.write_effects([row]))
            await store.close()
        store = await queue.open(later)
        size = 7 if is_new else 70
        assert await plugin_rows.rows(store, "own") == [{"a": "x", "size": size, "more": None}]
        await store.close()
        older = "'own' has had 3 steps in the database, and its plugin, which is older, declares"
        for table in (now, Table("own", more, ("a",))):
            with pytest.raises(PluginError, match=f"{older} {len(table.steps)}"):
                await queue.open(table)

    async def test_a_step_that_fails_changes_nothing(self, unopened: Callable[[], Any]) -> None:
        queue = unopened()
        before = Table("own", {"a": "TEXT", "b": "INTEGER"}, ("a",))
        await (await queue.open(before)).close()
        wrong = ["ALTER TABLE own RENAME COLUMN b TO c", "UPDATE nothing SET a = 1"]
        steps = [TableStep(), TableStep(wrong, wrong)]
        with pytest.raises(PluginError, match=r"step 2 of the table 'own' fails: .*nothing"):
            await queue.open(Table("own", {"a": "TEXT", "c": "INTEGER"}, ("a",), steps=steps))
        with pytest.raises(PluginError, match="of the table 'other' do not make it"):
            await queue.open(Table("other", {"a": "TEXT"}, ("a",), steps=[TableStep()]))
        await (await queue.open(before)).close()
