"""What only a database shows that several daemons share: PostgreSQL."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from orchestratord.errors import DatabaseInUse, QueueError, UniqueKeyReused, Unreachable
from orchestratord.model.task import Key, NewTask, Status, Task, Upsert
from orchestratord.queue.batch import Write
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations import claim, daemons, insert, plugin_rows, search, settle
from orchestratord.queue.postgres.shared_rates import BUSY_MS
from orchestratord.queue.records import Beat, Insert, Pick, Settlement, TaskFilter, Wakeup
from orchestratord.queue.store import Store
from orchestratord.values.rate_limit import RateLimit
from tests.postgres import Postgres

KEY = Key("crm/get")


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    made = postgres.create()
    yield made
    postgres.drop(made)


@pytest.fixture
async def two(url: str, unopened: Callable[[], Any]) -> AsyncIterator[list[Any]]:
    """Two daemons' stores on one database."""
    queues = [unopened(), unopened()]
    for queue in queues:
        await queue.open()
    yield queues
    for queue in queues:
        await queue.store.close()


async def test_many_that_begin_with_an_empty_database_at_once(url: str) -> None:
    stores = await asyncio.gather(*(Store.open(url) for _ in range(4)))
    assert len({store.instance for store in stores}) == 1
    await asyncio.gather(*(store.close() for store in stores))


async def test_no_task_is_claimed_by_two(two: list[Any]) -> None:
    one, other = two
    for _ in range(5):
        await one.add_all([one.new() for _ in range(200)])
    claims = await asyncio.gather(*(queue.claim(limit=37) for _ in range(20) for queue in two))
    ids = [task.id for tasks in claims for task in tasks]
    assert len(ids) == len(set(ids)) == 1000
    owners = {task.locked_by for tasks in claims for task in tasks}
    assert owners == {one.store.owner, other.store.owner}


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
    assert (await one.store.read(claim.due(10**14)))[
        0
    ] == 0  # nor was anything written that follows from it


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


async def test_an_idempotency_key_counts_for_all(two: list[Any]) -> None:
    one, other = two
    for n in range(20):
        [[a], [b]] = await asyncio.gather(
            *(queue.add_all([queue.new(unique_key=f"k{n}", params={"n": n})]) for queue in two)
        )
        assert a.id == b.id
        assert [a.duplicate, b.duplicate].count(True) == 1
    with pytest.raises(UniqueKeyReused):
        await other.add_all([other.new(unique_key="k1", params={"n": 0})])
    assert len((await one.store.read(search.page(TaskFilter(), 100)))[0]) == 20


async def test_rows_that_all_write_to_do_not_deadlock(two: list[Any]) -> None:
    """Webhooks' health, for instance: each group of each daemon writes many of the same rows."""
    names = [f"hook{n}" for n in range(40)]

    async def write(queue: Any, turn: int) -> None:
        rows = names[::-1] if turn % 2 else names
        await asyncio.gather(
            *(
                queue.store.write(
                    settle.write_effects(
                        [Upsert("health", {"name": name}, {"url": "u"}, {"seen": 1})]
                    )
                )
                for name in rows
            )
        )

    await asyncio.gather(*(write(queue, n + t) for n, queue in enumerate(two) for t in range(10)))
    assert {row["seen"] for row in await plugin_rows.rows(two[0].store, "health")} == {20}


async def test_what_comes_from_a_clock_that_is_behind_is_found(two: list[Any]) -> None:
    """A claim begins where the last one of its key ended, which is no reason to miss that."""
    one, other = two
    await one.add_all([one.new() for _ in range(3)])
    assert len(await one.claim()) == 3
    other.clock.turn(-60)
    await other.add()
    due = await one.store.read(claim.earliest())
    one.store.expect(due)
    assert len(await one.claim()) == 1


async def test_a_claim_begins_where_the_last_one_ended(two: list[Any]) -> None:
    """What was claimed before lies in the index for as long as an old transaction holds it back."""
    one, _ = two

    async def floor() -> int:
        found: int = await one.store._writer.submit(Write(1, lambda session: session.floor(KEY)))
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


async def test_a_rate_is_for_all_together(two: list[Any]) -> None:
    one, _ = two
    limit, other_key = RateLimit(30, "min"), Key("crm/put")
    for key in (KEY, other_key):
        await one.add_all([one.new(key) for _ in range(100)])
    picks = [Pick(key, 20, True, one.clock.now_ms(), "api:crm", limit) for key in (KEY, other_key)]
    claims = await asyncio.gather(
        *(queue.store.write(claim.claim(picks)) for _ in range(4) for queue in two)
    )
    assert sum(len(claimed.tasks) for claimed in claims) == 30
    waits = [claimed.used_up["api:crm"] for claimed in claims if claimed.used_up]
    assert len(waits) >= 7
    # Whoever came while the other one was claiming looks again at once.
    assert all(wait == BUSY_MS or 50_000 < wait <= 62_000 for wait in waits)
    free = Pick(Key("crm/get"), 7, True, one.clock.now_ms(), "api:crm", None)
    assert len((await one.store.write(claim.claim([free]))).tasks) == 7  # a lane without a limit


async def test_what_began_before_rates_were_kept_together_is_charged_once(two: list[Any]) -> None:
    one, _ = two
    limit = RateLimit(30, "min")
    await one.add_all([one.new() for _ in range(100)])
    pick = Pick(KEY, 50, True, one.clock.now_ms(), "api:crm", limit)
    now = round(time.time() * 1000)  # about what the database's clock says
    past = {"api:crm": (limit, [now - 200_000, *(now - 20_000 + n for n in range(20))])}
    await asyncio.gather(*(queue.store.write(claim.charge_past(past)) for queue in two))
    await one.store.write(claim.charge_past(past))  # as one that is started again
    assert len((await one.store.write(claim.claim([pick]))).tasks) == 10
    [(_, stamps)] = (await one.store.read(claim.rates())).values()
    assert sum(count for _, count in stamps) == 30


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


async def test_steps_of_a_bulk_are_taken_by_one(two: list[Any]) -> None:
    one, other = two
    for _ in range(6):
        await one.ended(Status.FAILED)
    bulk = await bulks.create(one.store, TaskFilter(status=("failed",)), None, False)
    seen, keys = await bulks.step(other.store, bulk.id, 2)
    assert (seen.moved, keys, seen.owner) == (0, {}, one.store.owner)
    await bulks.step(one.store, bulk.id, 2)
    one.run("UPDATE bulks SET lease_until = 1")
    seen, keys = await bulks.step(other.store, bulk.id, 100)
    assert (seen.moved, len(keys[KEY]), seen.owner) == (6, 4, other.store.owner)


async def test_a_bulk_that_is_released_need_not_be_waited_for(two: list[Any]) -> None:
    one, other = two
    for _ in range(4):
        await one.ended(Status.FAILED)
    bulk = await bulks.create(one.store, TaskFilter(status=("failed",)), None, False)
    await bulks.step(one.store, bulk.id, 2)
    await one.store.write(bulks.release())
    seen, _ = await bulks.step(other.store, bulk.id, 100)
    assert (seen.moved, seen.owner) == (4, other.store.owner)


async def test_what_is_due_is_told_to_others(two: list[Any]) -> None:
    one, other = two
    heard: list[Wakeup] = []
    other.store.heard = heard.append
    async with asyncio.timeout(10):
        while not (one.store.listening and other.store.listening):
            await asyncio.sleep(0.01)
    own: list[Wakeup] = []
    one.store.heard = own.append
    began = time.monotonic()
    for _ in range(50):
        await one.add()
    await one.add(Key("crm/later"), delay=60)
    one.store.tell("paused")
    async with asyncio.timeout(10):
        while not any(wakeup.paused for wakeup in heard):
            await asyncio.sleep(0.01)
    told = {key for wakeup in heard for key in wakeup.due or ()}
    assert told == {KEY}
    assert own == []
    assert len(heard) <= (time.monotonic() - began) / 0.05 + 2


async def test_who_has_lost_the_connection_that_listens_hears_again(
    two: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A store by itself looks for nothing: what it hears has come as a message."""
    one, other = two
    heard: list[Wakeup] = []
    other.store.heard = heard.append

    def listeners() -> set[int]:
        rows = one.run(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            "AND query ~ '^(LISTEN|SELECT pg_notify)'"
        )
        return {row["pid"] for row in rows}

    async def until(look: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
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
    assert caplog.text.count("others are not heard of at once, for now") == 2
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


class Line:
    """The way to the server, which a test can cut at a chosen moment.

    With `cut_at`, the next message to the server that holds this is delivered, and whatever the
    server answers is lost together with the connection. Unless it `delivers`, the message is lost
    as well, and the line is down.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self.cut_at: bytes | None = None
        self.delivers = True
        self.down = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.down:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._target))
                for pair in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, up: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if up and self.cut_at is not None and self.cut_at in data:
                    self.cut_at = None
                    source.close()  # no answer comes back
                    if not self.delivers:
                        self.down = True
                        break
                    target.sendall(data)
                    time.sleep(0.1)
                    break
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def close(self) -> None:
        self._listener.close()


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
            insert.enqueue([Insert(NewTask("call", "crm/get", {"x": 1}))] * 3)
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
    await far.write(insert.enqueue([Insert(NewTask("call", "crm/get"))]))
    line.cut_at, line.delivers = b"COMMIT", False
    lost = asyncio.create_task(
        far.write(insert.enqueue([Insert(NewTask("call", "crm/put", {"x": 1}))]))
    )
    async with asyncio.timeout(10):
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
    await far.write(insert.enqueue([Insert(NewTask("call", "crm/get"))]))
    line.cut_at = b"INTO retry_schedule"
    [inserted] = await far.write(
        insert.enqueue([Insert(NewTask("call", "crm/get", {"again": True}))])
    )
    assert (
        next(task.id for task in (await far.read(search.page(TaskFilter(), 9)))[0]) == inserted.id
    )
    assert (await far.counts())["pending"] == 2


async def test_what_cannot_be_written_is_refused_and_the_store_recovers(
    far: Store, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestratord.queue.writer.RECONNECT_WAIT", 0.3)
    line.down, line.cut_at = True, b"BEGIN"
    with pytest.raises(Unreachable, match="the database cannot be reached"):
        await far.write(insert.enqueue([Insert(NewTask("call", "crm/get"))]))
    assert far.health.unreachable is not None
    assert far.health.healthy
    await asyncio.sleep(0.4)
    began = time.monotonic()
    with pytest.raises(Unreachable):
        await far.write(insert.enqueue([Insert(NewTask("call", "crm/get"))]))
    with pytest.raises(Unreachable):
        (await far.read(search.page(TaskFilter(), 1)))[0]
    assert time.monotonic() - began < 0.1  # nobody waits any more
    line.down = False
    async with asyncio.timeout(10):
        while far.health.unreachable is not None:
            await asyncio.sleep(0.02)
    await far.write(insert.enqueue([Insert(NewTask("call", "crm/get"))]))
    assert (await far.counts())["pending"] == 1


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


async def test_a_claim_follows_its_index(two: list[Any]) -> None:
    from orchestratord.queue.postgres import claim_postgres
    from orchestratord.queue.postgres import postgres_database as dialect

    await two[0].add_all([two[0].new() for _ in range(100)])

    def plan(session: claim_postgres.PostgresSession) -> str:
        text, _ = dialect._translated(f"EXPLAIN {claim_postgres.CLAIM}")
        picked = session._picked([Pick(KEY, 5, True, 10**14)])
        rows = session.db._raw.execute(text, (picked, "me", 1, 1, 1)).fetchall()  # type: ignore[attr-defined]
        return "\n".join(row[0] for row in rows)

    steps = await two[0].store._writer.submit(Write(1, plan))
    assert "Index Scan using retry_schedule_due" in steps, steps
    assert "Index Scan using retry_schedule_pkey" in steps, steps
    assert "Seq Scan" not in steps
    # Each key's tasks come in their order, by the index alone.
    inside = steps[: steps.index("Nested Loop")] if "Sort" in steps else ""
    assert "Sort" not in inside
