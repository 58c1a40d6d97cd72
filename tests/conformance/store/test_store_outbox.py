"""What the queue does for the relay of the outbox: one relay, and one task for each row."""

from __future__ import annotations

import asyncio
import uuid
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest

from orchestratord.api.outbox_relay import UNFIT, OutboxRelay
from orchestratord.errors import OutboxUnusable, QueueError, RowsUnreadable, UniqueKeyReused
from orchestratord.model.task import BatchMember, Upsert
from orchestratord.queue.operations import search
from orchestratord.queue.operations.roles import held_elsewhere, hold_role, release_role
from orchestratord.queue.outbox import outbox_take
from orchestratord.queue.outbox.outbox_connection import (
    OutboxConnection,
    OutboxRow,
    run_statements,
)
from orchestratord.queue.outbox.outbox_take import (
    RELAY,
    OutboxTask,
    RelayMoved,
    forget_taken,
    note_look,
    taken_before,
    taken_of,
)
from orchestratord.queue.postgres.outbox_schema import outbox_schema
from orchestratord.queue.records import Happened, Insert, Inserted, TaskFilter
from orchestratord.queue.store import Store
from orchestratord.values.redact import Redactor

RELAYS = "SELECT value FROM meta WHERE name = 'outbox_relay'"


def row(queue: Any, number: int, **fields: Any) -> OutboxTask:
    task = queue.new(params={"n": number}, **fields)
    return OutboxTask(number, str(uuid.UUID(int=number)), task)


async def take(store: Store, *rows: OutboxTask, own: bool = False) -> list[Any]:
    inserts = [Insert(row.task) for row in rows]
    return await store.write(outbox_take.take(rows, inserts, same_database=own))


async def made(store: Store) -> list[Any]:
    found, _ = await store.read(search.page(TaskFilter(), 100))
    return sorted(task.params["n"] for task in found)


async def test_a_row_makes_one_task_however_often_it_is_taken(queue: Any, store: Store) -> None:
    assert await store.write(hold_role(RELAY))
    rows = [row(queue, n) for n in range(3)]
    first = await take(store, *rows)
    assert all(isinstance(result, Inserted) for result in first)
    *before, new = await take(store, *rows, row(queue, 3))
    assert before == [None] * 3
    assert isinstance(new, Inserted)
    store = await queue.successor()
    queue.run("UPDATE meta SET value = 'dead 1' WHERE name = 'outbox_relay'")
    assert await store.write(hold_role(RELAY))
    assert await take(store, *rows) == [None] * 3
    assert await made(store) == [0, 1, 2, 3]


async def test_the_deaths_of_looks_at_a_row_are_counted(queue: Any, store: Store) -> None:
    """Of other daemons: one that looks again because the database was away has not died."""
    assert await store.write(hold_role(RELAY)) == store.owner
    for _ in range(3):
        assert await store.write(note_look(None, "a")) == 0
    assert await store.write(note_look("shop", "a")) == 0
    await store.write(note_look(None, "b"))
    await store.write(note_look(None, "b", ends=True))
    before = store.owner
    store = await queue.successor()
    queue.run("UPDATE meta SET value = 'dead 1' WHERE name = 'outbox_relay'")
    assert await store.write(hold_role(RELAY)) == "dead"
    assert before != store.owner
    assert await store.write(note_look(None, "b")) == 0
    assert await store.write(note_look(None, "a")) == 1
    await store.write(note_look(None, "a", ends=True))
    assert await store.write(note_look(None, "a")) == 0


async def test_a_key_is_that_of_a_call(queue: Any, store: Store) -> None:
    """Within one transaction and over several; a row that is refused was not taken."""
    await store.write(hold_role(RELAY))
    same = {"unique_key": "k"}
    one, two, other = (
        OutboxTask(1, str(uuid.uuid4()), queue.new(params={"n": 1}, **same)),
        OutboxTask(2, str(uuid.uuid4()), queue.new(params={"n": 1}, **same)),
        OutboxTask(3, str(uuid.uuid4()), queue.new(params={"n": 2}, **same)),
    )
    first, second, third = await take(store, one, two, other)
    assert (second.id, second.duplicate, first.duplicate) == (first.id, True, False)
    assert isinstance(third, UniqueKeyReused)
    assert await made(store) == [1]
    mended = OutboxTask(3, other.uid, queue.new(params={"n": 2}, unique_key="another"))
    [result] = await take(store, mended)
    assert isinstance(result, Inserted)


async def test_what_cannot_be_stored_is_told_from_other_trouble(queue: Any, store: Store) -> None:
    """So that the relay leaves out this row alone, though another value would take its place."""
    await store.write(hold_role(RELAY))
    texts = [
        Upsert("health", {"name": "n"}, {"url": text}, {"seen": 1}) for text in ("\udc80", "active")
    ]
    one = row(queue, 1)
    happened = Insert(one.task, happened=Happened(1_000, texts))
    with pytest.raises(UNFIT):
        await store.write(outbox_take.take([one], [happened], same_database=False))


async def test_many_keys_are_looked_up_at_once(queue: Any, store: Store) -> None:
    await store.write(hold_role(RELAY))
    known = [queue.new(params={"n": n}, unique_key=f"k{n}") for n in range(0, 500, 7)]
    ids = {item.id for item in await queue.add_all(known)}
    rows = [row(queue, n, unique_key=f"k{n}") for n in range(500)]
    results = await take(store, *rows)
    assert {result.id for result in results if result.duplicate} == ids
    assert len({result.id for result in results}) == 500
    assert await take(store, *rows) == [None] * 500


async def test_who_does_not_relay_writes_nothing(queue: Any, store: Store) -> None:
    with pytest.raises(RelayMoved):
        await take(store, row(queue, 1))
    await store.write(hold_role(RELAY))
    await store.write(release_role(RELAY))
    with pytest.raises(RelayMoved):
        await take(store, row(queue, 1))
    assert await made(store) == []
    assert queue.run("SELECT * FROM outbox_taken") == []


async def test_what_is_gone_is_forgotten(queue: Any, store: Store) -> None:
    await store.write(hold_role(RELAY))
    rows = [row(queue, n) for n in range(3)]
    await take(store, *rows)
    now = queue.clock.now_ms()
    assert await store.read(taken_before(now, 10)) == []
    found = await store.read(taken_before(now + 1, 10))
    assert sorted(found) == sorted(row.uid for row in rows)
    await store.write(forget_taken(found[:2]))
    assert await store.read(taken_before(now + 1, 10)) == found[2:]


@pytest.mark.parametrize("new_url", ["postgres"], indirect=True)
async def test_one_daemon_relays_and_another_one_once_it_is_dead(two: Any) -> None:
    one, other = two
    assert await one.store.write(hold_role(RELAY))
    assert await one.store.write(hold_role(RELAY))
    assert await other.store.read(held_elsewhere(RELAY, other.store.owner))
    assert not await one.store.read(held_elsewhere(RELAY, one.store.owner))
    assert not await other.store.write(hold_role(RELAY))
    # It is silent for too long.
    one.run(f"UPDATE meta SET value = '{one.store.owner} 1' WHERE name = 'outbox_relay'")
    assert not await other.store.read(held_elsewhere(RELAY, other.store.owner))
    assert await other.store.write(hold_role(RELAY))
    assert await take(other.store, row(other, 1))
    # It was only cut off, and comes back in the middle of a round.
    with pytest.raises(RelayMoved):
        await take(one.store, row(one, 1), row(one, 2))
    assert await made(one.store) == [1]
    await one.store.write(release_role(RELAY))
    assert one.run(RELAYS)[0]["value"].startswith(other.store.owner)
    await other.store.write(release_role(RELAY))
    assert await one.store.write(hold_role(RELAY))


@pytest.mark.parametrize("new_url", ["postgres"], indirect=True)
async def test_in_the_queues_database_the_row_goes_with_its_task(queue: Any, store: Store) -> None:
    await store.write(hold_role(RELAY))
    for n in range(4):
        queue.run(f"""SELECT orchestratord_enqueue('crm/get', '{{"n": {n}}}')""")
    async with OutboxConnection.connect(queue.url) as connection:
        rows = await connection.look(100)
        assert [found.id for found in rows] == [1, 2, 3, 4]
        tasks = [of_row(queue, found) for found in rows]
        with psycopg.connect(queue.url) as session:
            # Others change a row just now: it waits, and the other ones do not.
            session.execute("SELECT 1 FROM orchestratord_outbox WHERE id = 2 FOR UPDATE")
            results = await take(store, *tasks, own=True)
        assert [result is None for result in results] == [False, True, False, False]
        assert [found.id for found in await connection.look(100)] == [2]
        await connection.refuse(2, rows[1].uid, "invalid_params", {"detail": "nul \0 ☃"})
        assert await connection.look(100) == []
        assert await take(store, tasks[1], own=True) == [None]
        assert await connection.count() == (0, 1)
        [listed] = await connection.rows(10, 1 << 62, None)
        assert (listed.id, listed.reason, listed.problem) == (
            2, "invalid_params", '{"detail": "nul  ☃"}',
        )  # fmt: skip
        await connection.forget(3600)
        assert await connection.count() == (0, 1)
        await connection.forget(0)
        assert await connection.count() == (0, 0)
    assert await made(store) == [0, 2, 3]


@pytest.mark.parametrize("new_url", ["postgres"], indirect=True)
async def test_no_row_keeps_others_from_being_looked_at(queue: Any, store: Store) -> None:
    """Whatever its columns hold."""
    for delay in ("1000000 years", "-5 minutes", "1.5 seconds"):
        queue.run(f"SELECT orchestratord_enqueue('a/b', '{{}}', delay => '{delay}')")
    queue.run("INSERT INTO orchestratord_outbox (endpoint, created_at) VALUES ('a/b', 'infinity')")
    queue.run("SELECT orchestratord_enqueue('a/b', to_jsonb(repeat('x', 9000000)))")
    queue.run("SELECT orchestratord_enqueue('', 'null', delay => NULL)")
    async with OutboxConnection.connect(queue.url) as connection:
        found = await connection.look(100)
        # So much at once, and the first one of all however large it is.
        assert [row.id for row in found] == [1, 2, 3, 4, 5]
        await connection.remove([row.id for row in found])
        assert [row.endpoint for row in await connection.look(100)] == [""]
    ages = [found.delay for found in found]
    assert ages[0] > 1e13
    assert -400 < ages[1] <= -300
    assert -30 < ages[2] <= 1.5
    assert ages[3] == float("inf")


@pytest.mark.parametrize("new_url", ["postgres"], indirect=True)
async def test_a_row_says_when_it_is_due(queue: Any, store: Store) -> None:
    for at in ("2030-11-24 22:00:00.25+00", "infinity", "-infinity"):
        queue.run(f"SELECT orchestratord_enqueue_at('a/b', '{at}')")
    queue.run("INSERT INTO orchestratord_outbox (endpoint, at, delay) VALUES ('a/b', now(), '5s')")
    queue.run("SELECT orchestratord_enqueue('a/b')")
    async with OutboxConnection.connect(queue.url) as connection:
        found = await connection.look(100)
        assert [row.at for row in found[:3]] == [1_921_788_000_250, float("inf"), float("-inf")]
        assert [row.delay for row in found[:4]] == [0, 0, 0, 5]
        assert found[4].at is None
        # An outbox that an application made before has no such column, and gets it beneath.
        queue.run("ALTER TABLE orchestratord_outbox DROP COLUMN at")
        assert [row.at for row in await connection.look(100)] == [None] * 5
        for statement in ("", "ALTER TABLE orchestratord_outbox ALTER at TYPE timestamptz"):
            queue.run(outbox_schema("public") + statement)
        queue.run("SELECT orchestratord_enqueue_at('a/b', '2030-11-24 22:00:00+00', '{}', 'k')")
        assert [row.at for row in await connection.look(100)] == [None] * 5 + [1_921_788_000_000]


@pytest.mark.parametrize("new_url", ["postgres"], indirect=True)
async def test_rows_that_take_a_server_too_long_can_be_read_by_fewer(
    queue: Any, store: Store
) -> None:
    enqueue = "SELECT orchestratord_enqueue('a/b', {}, key => repeat('k', 1000))"
    queue.run(enqueue.format("(SELECT jsonb_agg(n) FROM generate_series(1, 1500000) AS n)"))
    queue.run(enqueue.format("'{}'"))
    async with OutboxConnection.connect(f"{queue.url}?options=-cstatement_timeout%3D50") as quick:
        with pytest.raises(RowsUnreadable, match="statement timeout"):
            await quick.look(100)
        first = await quick.first()
        assert first is not None
        assert (first.id, first.params, len(first.key or "")) == (1, None, 300)
        with pytest.raises(RowsUnreadable):
            await quick.look(1, first.id)
        assert [row.id for row in await quick.look(1, 2)] == [2]
        # Whatever a row's owner writes into it, it can be listed.
        large = "(SELECT jsonb_agg(n) FROM generate_series(1, 500000) AS n)"
        queue.run("UPDATE orchestratord_outbox SET refused_at = now(), "
                  f"reason = repeat('r', 1000), problem = {large}")  # fmt: skip
        for listed in await quick.rows(10, 1 << 62, True):
            assert (len(listed.reason or ""), listed.problem) == (100, None)
            assert len(listed.key or "") == 300


@pytest.mark.parametrize("new_url", ["postgres"], indirect=True)
async def test_a_table_of_the_same_name_is_left_as_it_is(queue: Any, store: Store) -> None:
    made = "CREATE TABLE other.orchestratord_outbox (id bigint, refused_at date, mine text)"
    queue.run("CREATE SCHEMA other")
    queue.run(made)
    with pytest.raises(QueueError, match="another table is called orchestratord_outbox here: rena"):
        run_statements(queue.url, outbox_schema("other"))
    find = "SELECT count(*) AS n FROM pg_proc WHERE proname = 'orchestratord_enqueue'"
    assert queue.run(find)[0]["n"] == 1, "that of the queue's own schema"
    url = f"{queue.url}?options=-csearch_path%3Dother"
    async with OutboxConnection.connect(url) as connection:
        with pytest.raises(OutboxUnusable, match="is another one, of the same name"):
            await connection.look(1)


async def test_which_rows_have_made_their_task_is_known(queue: Any, store: Store) -> None:
    await store.write(hold_role(RELAY))
    rows = [row(queue, n) for n in range(3)]
    await take(store, *rows[:2])
    assert await store.read(taken_of([one.uid for one in rows])) == {rows[0].uid, rows[1].uid}


@pytest.mark.parametrize("new_url", ["sqlite", "postgres"], indirect=True)
async def test_a_row_that_is_refused_is_told_of_once_whatever_ends_the_daemon(
    queue: Any, store: Store, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the row is marked and after that; in the queue's own database and in another one."""
    own = store.several_daemons
    url = queue.url if own else postgres.create()
    if not own:
        run_statements(url, outbox_schema("public"))
    named = {"shop": SimpleNamespace(url=SimpleNamespace(text=url))}
    declared = None if own else SimpleNamespace(database="shop")
    daemon = SimpleNamespace(outbox=declared, retention=SimpleNamespace(failed=3600.0))
    config = SimpleNamespace(
        daemon=daemon, settings={"databases": named}, redactor=Redactor(()), endpoints={}
    )
    member = BatchMember("ops", "orchestratord", "ops", "operational", 30.0, 100)
    published: list[Any] = []
    host = SimpleNamespace(events=SimpleNamespace(publish=published.append))

    async def of_event(event: Any) -> list[BatchMember]:
        return [member]

    async def written(items: Any, inserted: Any) -> None:
        assert (items, inserted) == ([member], [])

    pipe = SimpleNamespace(new_tasks=SimpleNamespace(of_event=of_event, written=written))
    refuse, passes = OutboxConnection.refuse, asyncio.Event()

    async def hang(self: OutboxConnection, *given: Any) -> bool:
        if ends == "after":
            await refuse(self, *given)
        passes.set()
        await asyncio.Event().wait()
        return False

    def relay() -> asyncio.Task[None]:
        parts = {"store": store, "host": host, "clock": queue.clock, "enqueue": None, "pipe": pipe}
        worker = SimpleNamespace(**parts)
        reloader = SimpleNamespace(config=config)
        made = OutboxRelay(cast("Any", worker), cast("Any", reloader), queue.url)
        return asyncio.create_task(made.run())

    def told() -> int:
        return len(queue.run("SELECT id FROM batch_members"))

    async with OutboxConnection.connect(url) as connection:
        run_statements(url, "SELECT orchestratord_enqueue('shop/gone')")
        for ends in ("before", "after"):
            with monkeypatch.context() as patched:
                patched.setattr(OutboxConnection, "refuse", hang)
                dies = relay()
                await asyncio.wait_for(passes.wait(), 10)
                passes.clear()
                dies.cancel()
            assert (await connection.count(), told()) == (((ends == "before"), ends == "after"), 1)
        for times in (1, 2):
            lives = relay()
            async with asyncio.timeout(10):
                while told() < times or await connection.count() != (0, 1):
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            assert (told(), len(published)) == (times, times - 1)
            if times == 1:  # its owner has it taken again, and that is refused as well
                run_statements(url, "UPDATE orchestratord_outbox SET refused_at = NULL")
            lives.cancel()
    assert queue.run("SELECT name FROM meta WHERE name LIKE 'outbox_refusal%'") == []
    if not own:
        postgres.drop(url)


def of_row(queue: Any, found: OutboxRow) -> OutboxTask:
    return OutboxTask(found.id, found.uid, queue.new(params={"n": found.id - 1}))
