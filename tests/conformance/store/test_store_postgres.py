"""What only a PostgreSQL shows that daemons share."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg
import pytest

from orchestratord.errors import DatabaseInUse, QueueError, Unreachable
from orchestratord.model.partition_turn import Partition
from orchestratord.model.recurring_rows import DECIDED_ABOUT, RecurringRows
from orchestratord.model.task import Key, NewTask, Status, Task, Upsert
from orchestratord.queue.batch import Rank, Write
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations import (
    claim,
    daemons,
    effects,
    partitions,
    search,
    settle,
)
from orchestratord.queue.records import Beat, Insert, Inserted, Pick, Settlement, TaskFilter
from orchestratord.queue.reports import backlog
from orchestratord.queue.shared_rates import BUSY_MS
from orchestratord.queue.store import Store
from orchestratord.values.rate_limit import RateLimit
from tests.postgres import Line, Postgres, Standby

pytestmark = pytest.mark.slow

KEY = Key("crm/get")


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    made = postgres.create()
    yield made
    postgres.drop(made)


async def test_a_result_that_comes_after_the_lease_is_refused(two: list[Any]) -> None:
    one, other = two
    await one.add()
    [task] = await one.claim()
    assert await claim.reclaim(other.store) == (0, [])  # its lease stands
    one.run("UPDATE retry_schedule SET lease_until = lease_until - 90000")
    assert await claim.reclaim(one.store, {task.id}) == (
        0,
        [],
    )  # what we know to hold we do not take
    count, [taken] = await claim.reclaim(other.store)
    assert (count, taken.id, taken.locked_by) == (0, task.id, other.store.owner)
    hook = Insert(one.new(Key("crm/get", "ops")))
    late = await one.settle(task, effects=[hook], attempt=one.attempt(task))
    assert not late.accepted
    assert await one.store.read(search.attempts(task.id)) == []
    assert (await other.settle(taken, Status.FAILED)).accepted
    assert (await one.store.read(search.get(task.id))).status == Status.FAILED
    # Nor was anything written that follows from it.
    assert (await one.store.read(backlog.due_tasks(10**14, 9))).tasks == 0


async def test_leases_are_renewed_for_what_is_held(two: list[Any]) -> None:
    one, other = two
    await one.add_all([one.new() for _ in range(3)])
    tasks = await one.claim()
    one.run("UPDATE retry_schedule SET lease_until = lease_until - 90000")
    held = {tasks[0].id, tasks[1].id}
    assert await one.store.write(claim.renew(held)) == 2
    assert await one.store.write(claim.renew(held)) == 0  # most of the lease is left
    _, taken = await claim.reclaim(other.store)
    assert [task.id for task in taken] == [tasks[2].id]  # nobody knew of that one any more


async def test_a_database_that_isolates_others_more_makes_no_difference(two: list[Any]) -> None:
    """There who waited for a row would fail, and with it the leases of all that a daemon holds."""

    async def run(sql: str) -> list[Any]:
        found: list[Any] = await two[0].store.write(
            Write(Rank.KEEP, lambda session: session.db.all(sql))
        )
        return found

    await run("SET default_transaction_isolation = 'repeatable read'")
    assert await run("SHOW default_transaction_isolation") == [("repeatable read",)]
    assert await run("SHOW transaction_isolation") == [("read committed",)]


async def test_a_claim_begins_where_the_last_one_ended(two: list[Any]) -> None:
    """What was claimed before lies in the index for as long as an old transaction holds it back."""
    one, _ = two

    async def floor() -> int:
        take = Write(1, lambda session: session.take_floor(KEY))
        found: int = await one.store._writer.submit(take)
        return found

    assert await floor() < 0
    await one.add_all([one.new() for _ in range(3)])
    first = one.clock.now_ms()
    one.clock.turn(60)
    await one.add()
    assert len(await one.claim(limit=3)) == 3
    assert one.clock.now_ms() - 1000 < await floor() <= one.clock.now_ms()
    await one.add_all([one.new(delay=1)])
    assert len(await one.claim()) == 1
    one.clock.turn(60)
    assert [task.next_try for task in await one.claim()] == [first + 61_000]
    assert one.clock.now_ms() - 1000 < await floor() <= one.clock.now_ms()
    one.store.expect({KEY: first})
    assert await floor() == first


async def test_a_rate_that_somebody_holds_who_is_cut_off_holds_up_nobody_else(
    two: list[Any], url: str
) -> None:
    one, _ = two
    await one.add_all([one.new() for _ in range(9)])
    await one.add(Key("other/get"))
    picks = [
        Pick(KEY, 3, True, one.clock.now_ms(), "api:crm", RateLimit(30, "min")),
        Pick(Key("other/get"), 3, True, one.clock.now_ms(), "api:other"),
    ]
    assert len((await one.store.write(claim.claim(picks))).tasks) == 4
    with psycopg.connect(url) as cut_off:
        cut_off.execute("SELECT stamps FROM rates FOR UPDATE")
        await one.add(Key("other/get"))
        claimed = await one.store.write(claim.claim(picks))
        assert [task.key for task in claimed.tasks] == [Key("other/get")]
        assert claimed.used_up == {"api:crm": BUSY_MS}
    assert len((await one.store.write(claim.claim(picks))).tasks) == 3


async def test_no_settlement_waits_for_a_row_that_says_the_same(two: list[Any], url: str) -> None:
    """Of one webhook, to which two daemons deliver."""
    one, other = two
    row = Upsert("health", {"name": "ops"}, {"url": "u", "seen": DECIDED_ABOUT})
    same = [RecurringRows([row], 0)]
    await one.add()
    [first] = await one.claim()
    await one.add()
    [second] = await other.claim()
    end = other.settlement(second, recurring=same)
    await one.store.write(settle.settle(replace(end, task=first)))
    with psycopg.connect(url) as held:
        held.execute("SELECT 1 FROM health FOR UPDATE")
        async with asyncio.timeout(60):
            assert (await other.store.write(settle.settle(end))).accepted


async def test_a_turn_is_given_though_the_connection_is_lost_before_it_is_tried_again(
    two: list[Any],
) -> None:
    """Another session was changing the task whose turn it was, and then did not."""
    one, _ = two
    _, following = [await one.add(partition=Partition("acme", ordered=True)) for _ in range(2)]
    [task] = await one.claim()
    with psycopg.connect(one.url) as other:
        other.execute("SELECT 1 FROM retry_schedule WHERE id = %s FOR UPDATE", (following,))
        await one.settle(task)
        ours = f"pid NOT IN (pg_backend_pid(), {other.info.backend_pid})"
        one.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = current_database() AND {ours}"
        )
    await one.add(Key("other/get"))  # BEGIN fails at first
    assert [task.id for task in await one.claim()] == [following]


async def test_steps_of_a_bulk_are_taken_by_one(two: list[Any]) -> None:
    one, other = two
    for _ in range(6):
        await one.ended(Status.FAILED)
    bulk = await one.bulk(TaskFilter(status=("failed",)))
    [chore] = await one.chores()
    assert await other.chores() == []
    await bulks.step(one.store, bulk.id, 2)
    one.run("UPDATE chores SET lease_until = 1")
    assert await other.chores() == [chore._replace(deaths=1)]
    seen, keys = await bulks.step(other.store, bulk.id, 100)
    assert (seen.moved, len(keys[KEY])) == (6, 4)
    assert await one.store.write(effects.end_chore(chore, [Insert(one.new())])) == [
        Inserted(0, KEY, None, duplicate=True)
    ]


async def test_who_has_lost_the_connection_that_listens_hears_again(
    two: list[Any], listen: Callable[[Store], list[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """A store by itself looks for nothing: what it hears has come as a message."""
    one, other = two
    heard = listen(other.store)

    def listeners() -> set[int]:
        rows = one.run(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            "AND query ~ '^(LISTEN|SELECT pg_notify)'"
        )
        return {row["pid"] for row in rows}

    async def until(look: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not look():
                await asyncio.sleep(0.01)

    def listening() -> bool:
        return bool(one.store.listening and other.store.listening)

    await until(listening)
    before = listeners()
    assert len(before) == 2
    for pid in before:
        one.run(f"SELECT pg_terminate_backend({pid})")
    # Those who listen by now did not before, and say so only once a message has come back to them.
    await until(lambda: len(listeners()) == 2 and not listeners() & before)
    await until(listening)
    assert caplog.text.count("lost the LISTEN connection for a moment") == 2
    await one.add()
    await until(lambda: any(KEY in (wakeup.due or ()) for wakeup in heard))


async def test_signs_of_life(two: list[Any]) -> None:
    one, other = two
    lanes = [{"lane": "api:crm", "breaker": None, "retry_after": {"until": 5, "why": "429"}}]
    beat = Beat(
        "host", 7, "1.0", 1, 5000, "abc", {"crm/get": "d"}, {"crm/get": "every"}, {"x": "1"}, lanes
    )
    now = await one.store.write(daemons.give_sign(beat))
    assert abs(now - time.time() * 1000) < 5000
    await other.store.write(daemons.give_sign(Beat("second", 8, "1.0", fingerprint="other")))
    [first, second] = await other.store.read(daemons.seen())
    assert (first.owner, first.host, first.pid) == (one.store.owner, "host", 7)
    assert first.lease_until > now
    assert second.owner == other.store.owner
    assert (first.lanes, second.lanes) == (lanes, [])
    said = await other.store.read(daemons.declared([first.owner, "nobody"]))
    assert said[first.owner].endpoints == {"crm/get": "d"}
    assert list(said) == [first.owner]
    await one.store.write(daemons.leave())
    assert [daemon.owner for daemon in await other.store.read(daemons.seen())] == [
        other.store.owner
    ]


@pytest.fixture
def line(postgres: Postgres) -> Iterator[Line]:
    made = Line(postgres.port)
    yield made
    made.close()


@pytest.fixture
async def far(url: str, line: Line, postgres: Postgres) -> AsyncIterator[Store]:
    """A store that reaches its database over that line."""
    store = await Store.open(url.replace(f":{postgres.port}/", f":{line.port}/"))
    yield store
    line.down = False
    await store.close()


async def test_a_commit_whose_answer_is_lost_counts_once(far: Store, line: Line) -> None:
    for _ in range(3):
        line.cut_at = b"COMMIT"
        before = len((await far.read(search.page(TaskFilter(), 100)))[0])
        inserted = await far.write(
            effects.enqueue([Insert(NewTask("call", "crm/get", {"x": 1}))] * 3)
        )
        assert line.cut_at is None
        found = (await far.read(search.page(TaskFilter(), 100)))[0]
        assert sorted(task.id for task in found)[before:] == [item.id for item in inserted]
        assert (await far.counts())["pending"] == before + 3
    tasks: list[Task] = (await far.write(claim.claim([Pick(KEY, 9, True, 10**14)]))).tasks
    assert len(tasks) == 9
    line.cut_at = b"COMMIT"
    hook = [Insert(NewTask("webhook", "crm/get", webhook="ops"))]
    settled = await asyncio.gather(
        *(
            far.write(settle.settle(Settlement(task, "succeeded", 1, effects=hook)))
            for task in tasks
        )
    )
    assert all(item.accepted and len(item.inserted) == 1 for item in settled)
    assert (await far.counts())["pending"] == 9


async def test_a_commit_that_a_crash_swallowed_is_done_again(
    far: Store, line: Line, url: str, postgres: Postgres
) -> None:
    """Though the server gives its number again, to somebody who commits."""
    await far.write(effects.enqueue([Insert(NewTask("call", "crm/get"))]))
    line.cut_at, line.delivers = b"COMMIT", False
    lost = asyncio.create_task(
        far.write(effects.enqueue([Insert(NewTask("call", "crm/put", {"x": 1}))]))
    )
    async with asyncio.timeout(60):
        while not line.down:
            await asyncio.sleep(0.01)
    await asyncio.to_thread(postgres.stop, signal.SIGQUIT)
    await asyncio.to_thread(postgres.start)
    name = url.rpartition("/")[2]
    for _ in range(20):
        postgres.run(name, "UPDATE meta SET value = value WHERE name = 'instance'")
    line.down = False
    [inserted] = await lost
    assert (await far.read(search.get(inserted.id))).params == {"x": 1}
    assert (await far.counts())["pending"] == 2


async def test_a_transaction_that_is_lost_before_its_commit_is_done_again(
    far: Store, line: Line
) -> None:
    await far.write(effects.enqueue([Insert(NewTask("call", "crm/get"))]))
    line.cut_at = b"INTO retry_schedule"
    [inserted] = await far.write(
        effects.enqueue([Insert(NewTask("call", "crm/get", {"again": True}))])
    )
    assert (
        next(task.id for task in (await far.read(search.page(TaskFilter(), 9)))[0]) == inserted.id
    )
    assert (await far.counts())["pending"] == 2


async def test_what_cannot_be_written_is_refused_and_the_store_recovers(
    far: Store, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("queue.writer", "queue.daemon_health"):
        monkeypatch.setattr(f"orchestratord.{module}.RECONNECT_WAIT", 1.0)
    line.down, line.cut_at = True, b"BEGIN"
    with pytest.raises(Unreachable, match="the database cannot be reached"):
        await far.write(effects.enqueue([Insert(NewTask("call", "crm/get"))]))
    assert far.health.unreachable is not None
    assert far.health.fatal is None
    await asyncio.sleep(1.1)
    began = time.monotonic()
    with pytest.raises(Unreachable):
        await far.write(effects.enqueue([Insert(NewTask("call", "crm/get"))]))
    with pytest.raises(Unreachable):
        (await far.read(search.page(TaskFilter(), 1)))[0]
    assert time.monotonic() - began < 1.0  # nobody waits any more
    line.down = False
    async with asyncio.timeout(60):
        while far.health.unreachable is not None:
            await asyncio.sleep(0.02)
    await far.write(effects.enqueue([Insert(NewTask("call", "crm/get"))]))
    assert (await far.counts())["pending"] == 1


@pytest.mark.parametrize(
    ("statement", "values", "error"),
    [
        ("SELECT $1::int, $2::int", (1,), "requires 2"),
        ("SELECT pg_terminate_backend(pg_backend_pid())", (), "administrator"),
    ],
)
async def test_what_the_server_refuses_each_time_is_not_tried_for_ever(
    far: Store, statement: str, values: tuple[int, ...], error: str
) -> None:
    def refused(session: Any) -> None:
        session.db._raw.execute(statement, values)

    async with asyncio.timeout(30):
        with pytest.raises(QueueError, match=error):
            await far._writer.submit(Write(1, refused))
        while far.health.unreachable is not None:
            await asyncio.sleep(0.02)
    await far.write(effects.enqueue([Insert(NewTask("call", "crm/get"))]))
    assert (await far.counts())["pending"] == 1


@pytest.fixture
def followed() -> Iterator[tuple[Postgres, Standby]]:
    """A server, and a standby that follows it."""
    settings = {"wal_level": "replica", "max_wal_senders": "4"}
    with Postgres(**settings) as primary, Standby(primary, **settings) as standby:
        yield primary, standby


async def test_a_standby_is_not_asked_and_not_written_to(
    followed: tuple[Postgres, Standby],
) -> None:
    """Though the way to the server leads there for a while, and it is behind."""
    primary, standby = followed
    line = Line(primary.port)
    url = primary.create().replace(f":{primary.port}/", f":{line.port}/")
    store = await Store.open(url)
    await store.write(effects.enqueue([Insert(NewTask("call", "crm/get"))]))
    await there(standby, url.rpartition("/")[2])
    standby.run("postgres", "SELECT pg_wal_replay_pause()")
    line.target, line.cut_at = standby.port, b"COMMIT"
    committed = asyncio.create_task(
        store.write(effects.enqueue([Insert(NewTask("call", "crm/get", {"x": 1}))]))
    )
    async with asyncio.timeout(60):
        while (why := store.health.unreachable) is None:
            await asyncio.sleep(0.05)
    assert "standby" in why
    await asyncio.sleep(2)
    assert not committed.done()
    line.target = primary.port
    back = time.monotonic()
    [inserted] = await committed
    assert time.monotonic() - back < 30
    tasks = (await store.read(search.page(TaskFilter(), 9)))[0]
    assert [task.params for task in tasks] == [{"x": 1}, {}]
    assert tasks[0].id == inserted.id
    await store.close()
    line.close()


async def there(standby: Postgres, database: str) -> None:
    """Wait until a standby has heard of a database."""
    async with asyncio.timeout(60):
        while not standby.run("postgres", "SELECT 1 FROM pg_database WHERE datname = %s", database):
            await asyncio.sleep(0.05)


async def test_of_several_hosts_the_primary_is_looked_for(
    followed: tuple[Postgres, Standby],
) -> None:
    primary, standby = followed
    name = primary.create().rpartition("/")[2]
    await there(standby, name)
    hosts = f"127.0.0.1:{standby.port},127.0.0.1:{primary.port}"
    store = await Store.open(f"postgresql://tester:s3cret@{hosts}/{name}")
    await store.write(effects.enqueue([Insert(NewTask("call", "crm/get"))]))
    assert (await store.counts())["pending"] == 1
    primary.run("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'")  # fmt: skip
    await store.write(effects.enqueue([Insert(NewTask("call", "crm/get"))]))
    assert len((await store.read(search.page(TaskFilter(), 9)))[0]) == 2
    await store.close()


async def test_a_server_that_is_not_there(postgres: Postgres, line: Line) -> None:
    line.down = True
    with pytest.raises(Unreachable, match="cannot be reached"):
        await Store.open(f"postgresql://tester:s3cret@127.0.0.1:{line.port}/none")
    with pytest.raises(QueueError) as caught:
        await Store.open("postgresql://tester:s3cret@127.0.0.1/none?nonsense=1")
    assert "s3cret" not in str(caught.value)


async def test_a_database_that_does_not_take_every_text_is_refused(postgres: Postgres) -> None:
    url = postgres.create(encoding="'latin1'", lc_collate="'C'", lc_ctype="'C'")
    try:
        with pytest.raises(DatabaseInUse, match=r"has the encoding LATIN1.* ENCODING 'UTF8'"):
            await Store.open(url)
    finally:
        postgres.drop(url)


@pytest.mark.parametrize("password", ["s3cr%t", "s3/cret", "s3@cret", "s3:cret"])
async def test_a_password_that_is_not_encoded_is_not_shown(line: Line, password: str) -> None:
    line.down = True
    for host in (f"127.0.0.1:{line.port}/x", "127.0.0.1/x?nonsense=1", "[::1/x"):
        with pytest.raises(QueueError) as caught:
            await Store.open(f"postgresql://tester:{password}@{host}")
        assert "s3" not in str(caught.value)


async def test_whose_turn_it_is_follows_its_indexes(two: list[Any]) -> None:
    from orchestratord.queue.postgres import claim_postgres
    from orchestratord.queue.postgres import postgres_database as dialect

    queue = two[0]
    rules: list[dict[str, Any]] = [{}, {"concurrency": 2}, {"ordered": True}]
    for rule in rules:
        new = [queue.new(partition=Partition(f"p{n % 30}", **rule)) for n in range(90)]
        await queue.add_all(new)

    def plan(statement: str, values: Any, session: claim_postgres.PostgresSession) -> str:
        text, _ = dialect._translated(f"EXPLAIN {statement}")
        rows = session.db._raw.execute(text, values).fetchall()  # type: ignore[attr-defined]
        return "\n".join(row[0] for row in rows)

    line = json.dumps([(0, "crm/get", "", "p1", 10**14, 5, 1, 0)])
    for statement, values, indexes in (
        (claim_postgres.FAIR_TURNS, (line,), ("held", "head")),
        (claim_postgres.ORDERED_TURNS, (line,), ("blocks", "ordered")),
        (claim_postgres.TAKE_ON, (line, "me", 1, 1, 1), ("held", "pkey")),
        (claim_postgres.STEP_BACK, ([1],), ("pkey",)),
        (claim_postgres.STEP_FORWARD, ([1], 1, 1, 1), ("pkey",)),
        (partitions.RELEASE_PARTITIONS, (1, "crm/get", "", 500), ("stopped", "pkey")),
        (claim.CLAIMS_OF, ("me",), ("running",)),
        (search.FAMILY.format(ids="?, ?"), (1, 2), ("parent", "pkey")),
    ):
        steps = await queue.store._writer.submit(Write(1, partial(plan, statement, values)))
        for index in indexes:
            assert re.search(rf"Scan (using|on) retry_schedule_{index} ", steps), steps
        assert "Seq Scan" not in steps


async def test_a_claim_follows_its_index(two: list[Any]) -> None:
    from orchestratord.queue.postgres import claim_postgres
    from orchestratord.queue.postgres import postgres_database as dialect

    await two[0].add_all([two[0].new() for _ in range(100)])

    def plan(session: claim_postgres.PostgresSession) -> str:
        text, _ = dialect._translated(f"EXPLAIN {claim_postgres.CLAIM}")
        picked = claim_postgres._picked([Pick(KEY, 5, True, 10**14)], [claim_postgres.FRONT])
        rows = session.db._raw.execute(text, (picked, "me", 1, 1, 1)).fetchall()  # type: ignore[attr-defined]
        return "\n".join(row[0] for row in rows)

    steps = await two[0].store._writer.submit(Write(1, plan))
    assert "Index Scan using retry_schedule_ready" in steps, steps
    assert "Index Scan using retry_schedule_pkey" in steps, steps
    assert "Seq Scan" not in steps
    # Each key's tasks come in their order, by the index alone.
    inside = steps[: steps.index("Nested Loop")] if "Sort" in steps else ""
    assert "Sort" not in inside


async def test_a_daemon_that_stands_still_in_a_transaction_holds_nothing_for_long(
    two: list[Any], url: str
) -> None:
    """The server ends its transaction after five seconds; what it was to do is done again then."""
    one, other = two
    await one.add()
    [task] = await one.claim()
    tries, began = [], threading.Event()

    def stand_still(session: Any) -> None:
        tries.append(time.monotonic())
        session.db.run("UPDATE retry_schedule SET last_error = 'x' WHERE id = ?", (task.id,))
        if len(tries) == 1:
            began.set()
            time.sleep(7)

    stands = asyncio.ensure_future(one.store.write(Write(Rank.KEEP, stand_still)))
    assert await asyncio.to_thread(began.wait, 10)
    wants = asyncio.ensure_future(
        other.store.write(
            Write(
                Rank.KEEP,
                lambda session: session.db.run(
                    "UPDATE retry_schedule SET last_error = 'y' WHERE id = ?", (task.id,)
                ),
            )
        )
    )
    await other.add()  # all else goes on
    assert not wants.done()
    assert await wants == 1
    assert time.monotonic() - tries[0] < 6.5
    await stands
    assert len(tries) == 2
