"""The outbox in a real PostgreSQL: what the relay reads, and that each row is taken once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import MappingProxyType, SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from orchestratord_outbox.declaration import OUTBOX, OutboxSettings, RowsUnreadable
from orchestratord_outbox.outbox_connection import (
    OutboxConnection,
    OutboxRow,
    run_statements,
)
from orchestratord_outbox.outbox_relay import OutboxRelay
from orchestratord_outbox.outbox_schema import outbox_schema
from orchestratord_outbox.outbox_tables import LOOKS, OWN_ROWS, REFUSALS, TAKEN

from orchestratord.errors import NotFound, OutboxUnusable
from orchestratord.model.settings import Config, DaemonSettings
from orchestratord.model.task import BatchMember, NewTask, Table
from orchestratord.queue.operations import effects, plugin_rows, search
from orchestratord.queue.operations.enqueue_each import enqueue_each
from orchestratord.queue.records import Insert, TaskFilter
from orchestratord.queue.store import Store
from orchestratord.values.redact import Redactor
from tests.conformance.store.conftest import HEALTH

OF_PLUGIN: tuple[Table, ...] = (HEALTH, TAKEN, REFUSALS, LOOKS)


@pytest.fixture
async def store(queue: Any) -> Store:
    """With the plugin's tables, of which one makes the outbox."""
    await queue.store.close()
    opened: Store = await queue.open(*OF_PLUGIN)
    return opened


async def take(store: Store, *rows: tuple[OutboxRow, NewTask]) -> list[Any]:
    """Make calls of rows in the queue's own database."""
    inserts, keys = [Insert(task) for _, task in rows], [str(row.id) for row, _ in rows]
    return await store.write(enqueue_each(inserts, OWN_ROWS, keys))


async def made(store: Store) -> list[Any]:
    found, _ = await store.read(search.page(TaskFilter(), 100))
    return sorted(task.params["n"] for task in found)


@pytest.mark.parametrize("new_url", ["postgres"], indirect=True)
async def test_in_the_queues_database_the_row_goes_with_its_task(queue: Any, store: Store) -> None:
    for n in range(4):
        queue.run(f"""SELECT orchestratord_enqueue('crm/get', '{{"n": {n}}}')""")
    async with OutboxConnection.connect(queue.url) as connection:
        rows = await connection.look(100)
        assert [found.id for found in rows] == [1, 2, 3, 4]
        tasks = [of_row(queue, found) for found in rows]
        with psycopg.connect(queue.url) as session:
            # Others change a row just now: it waits, and the other ones do not.
            session.execute("SELECT 1 FROM orchestratord_outbox WHERE id = 2 FOR UPDATE")
            results = await take(store, *tasks)
        assert [result is None for result in results] == [False, True, False, False]
        assert [found.id for found in await connection.look(100)] == [2]
        await connection.refuse(2, rows[1].uid, "invalid_params", {"detail": "nul \0 ☃"})
        assert await connection.look(100) == []
        assert await take(store, tasks[1]) == [None]
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
    with pytest.raises(OutboxUnusable, match="another table is called orchestratord_outbox"):
        run_statements(queue.url, outbox_schema("other"))
    find = "SELECT count(*) AS n FROM pg_proc WHERE proname = 'orchestratord_enqueue'"
    assert queue.run(find)[0]["n"] == 1, "that of the queue's own schema"
    url = f"{queue.url}?options=-csearch_path%3Dother"
    async with OutboxConnection.connect(url) as connection:
        with pytest.raises(OutboxUnusable, match="is another one, of the same name"):
            await connection.look(1)


@pytest.mark.parametrize("new_url", ["sqlite", "postgres"], indirect=True)
async def test_a_row_that_is_refused_is_told_of_once_whatever_ends_the_daemon(
    queue: Any, store: Store, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the row is marked and after that; in the queue's own database and in another one."""
    own = store.several_daemons
    url = queue.url if own else postgres.create()
    if not own:
        run_statements(url, outbox_schema("public"))
    control = StoreControl(queue, store, url, own=own)
    refuse, passes = OutboxConnection.refuse, asyncio.Event()

    async def hang(self: OutboxConnection, *given: Any) -> bool:
        if ends == "after":
            await refuse(self, *given)
        passes.set()
        await asyncio.Event().wait()
        return False

    def relay() -> asyncio.Task[None]:
        control.me = OutboxRelay(cast("Any", control))
        return asyncio.create_task(control.me.run(asyncio.Event()))

    def told() -> int:
        return len(queue.run("SELECT id FROM batch_members"))

    def noted() -> int:
        return len(queue.run("SELECT uid FROM outbox_refusals"))

    async with OutboxConnection.connect(url) as connection:
        run_statements(url, "SELECT orchestratord_enqueue('shop/gone')")
        for ends in ("before", "after"):
            with monkeypatch.context() as patched:
                patched.setattr(OutboxConnection, "refuse", hang)
                dies = relay()
                await asyncio.wait_for(passes.wait(), 60)
                passes.clear()
                dies.cancel()
            assert (await connection.count(), told()) == (((ends == "before"), ends == "after"), 1)
        for times in (1, 2):
            lives = relay()
            async with asyncio.timeout(60):
                while told() < times or await connection.count() != (0, 1) or noted():
                    await asyncio.sleep(0.01)
            assert (told(), len(control.published)) == (times, times - 1)
            if times == 1:  # its owner has it taken again, and that is refused as well
                run_statements(url, "UPDATE orchestratord_outbox SET refused_at = NULL")
            lives.cancel()
    if not own:
        postgres.drop(url)


def of_row(queue: Any, found: OutboxRow) -> tuple[OutboxRow, NewTask]:
    return found, queue.new(params={"n": found.id - 1})


MEMBER = BatchMember("ops", "orchestratord", "ops", "operational", 30.0, 100)


class StoreControl:
    """What the relay asks of a daemon, answered by the store alone; all events are told of."""

    def __init__(self, queue: Any, store: Store, url: str, *, own: bool) -> None:
        self.queue, self.store, self.published = queue, store, list[Any]()
        shop = {"databases": {"shop": SimpleNamespace(url=SimpleNamespace(text=url))}}
        named = {} if own else {OUTBOX.key: OutboxSettings(database="shop")}
        self.config = Config(
            folder=cast("Any", None),
            daemon=DaemonSettings(database=queue.url),
            apis={},
            endpoints={},
            redactor=Redactor(()),
            digest="",
            settings={**shop, **named},
        )

    def ago(self, seconds: float) -> int:
        return int(self.queue.clock.now_ms() - seconds * 1000)

    def publish(self, event: Any) -> None:
        self.published.append(event)

    def end_trouble(self, code: str) -> None:
        pass

    async def checked_call(self, *given: Any, **named: Any) -> Any:
        raise NotFound.of("endpoint", given[0])

    async def rows(self, table: str, where: Any = MappingProxyType({}), **how: Any) -> Any:
        return await plugin_rows.rows(self.store, table, where, **how)

    async def write(self, rows: Sequence[Any], events: Sequence[Any] = ()) -> list[int]:
        await self.store.write(effects.write_effects([*rows, *([MEMBER] * len(events))]))
        return []
