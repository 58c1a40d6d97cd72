"""What keeps a PostgreSQL from cleaning up is told, by name and with what to do."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg import pq

from orchestratord.model.task import Status
from orchestratord.queue.housekeeping import prune
from tests.postgres import Postgres


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    made = postgres.create()
    yield made
    postgres.drop(made)


@pytest.fixture
async def queue(url: str, unopened: Callable[[], Any]) -> AsyncIterator[Any]:
    opened = unopened()
    await opened.open()
    yield opened
    await opened.store.close()


async def until(look: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not look():
            await asyncio.sleep(0.01)


async def words(queue: Any, longer_than: float) -> list[str]:
    found = await queue.store.read(prune.holding_back(longer_than))
    assert all(one.is_subject_of(one.words) for one in found)
    return [one.words for one in found]


async def test_an_old_transaction_is_told(queue: Any, url: str) -> None:
    with psycopg.connect(url) as person:
        person.execute("SET application_name = 'report'")
        person.commit()
        person.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        person.execute("SELECT count(*) FROM retry_schedule")
        assert await words(queue, 3600) == []
        # The server's own, which vacuum at this moment, may be among them.
        [told] = [line for line in await words(queue, -1) if "report" in line]
        assert f"pg_terminate_backend({person.info.backend_pid})" in told


async def test_vacuum_itself_is_in_nobodys_way(queue: Any, url: str) -> None:
    queue.run("CREATE TABLE large AS SELECT generate_series(1, 50000)")
    with psycopg.connect(url, autocommit=True) as person:
        person.execute("SET vacuum_cost_delay = 100; SET vacuum_cost_limit = 1")
        vacuum = asyncio.create_task(asyncio.to_thread(person.execute, "VACUUM large"))
        try:
            await until(
                lambda: queue.run(
                    "SELECT 1 FROM pg_stat_progress_vacuum JOIN pg_stat_activity USING (pid) "
                    f"WHERE pid = {person.info.backend_pid} AND backend_xmin IS NOT NULL"
                )
            )
            pid = f"pid {person.info.backend_pid},"  # the server's own may vacuum as well
            assert not [line for line in await words(queue, -1) if pid in line]
            assert not vacuum.done()
        finally:
            person.cancel()
            with pytest.raises(psycopg.errors.QueryCanceled):
                await vacuum


async def test_an_old_transaction_that_may_not_be_seen_is_told_by_what_it_does(
    postgres: Postgres, url: str, unopened: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestratord.queue.postgres.vacuum.MANY_DEAD", 0)
    name = url.rpartition("/")[2]
    owner, person = f"{name}_owner", f"{name}_person"
    for statement in (f"CREATE ROLE {owner} LOGIN", f"CREATE ROLE {person} LOGIN SUPERUSER",
                      f"ALTER SCHEMA public OWNER TO {owner}"):  # fmt: skip
        postgres.run(name, statement)
    queue = unopened()
    queue.url = url.replace("tester:s3cret@", f"{owner}@")
    await queue.open()
    try:
        with psycopg.connect(url.replace("tester:s3cret@", f"{person}@")) as report:
            report.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            report.execute("SELECT count(*) FROM retry_schedule")
            await queue.ended(Status.SUCCEEDED)
            async with asyncio.timeout(60):
                while not (told := await words(queue, -1)):
                    queue.run("VACUUM retry_schedule")
                    await asyncio.sleep(0.1)
            assert f"GRANT pg_read_all_stats TO {owner}" in told[0]
            postgres.run(name, f"GRANT pg_read_all_stats TO {owner}")
            [told] = await words(queue, -1)
            assert f"a transaction of {person}" in told
    finally:
        await queue.store.close()
        postgres.drop(url)
        postgres.run("postgres", f"DROP ROLE {owner}")
        postgres.run("postgres", f"DROP ROLE {person}")


# -- what takes a server of its own ----------------------------------------------------------------


@pytest.fixture(scope="module")
def followed() -> Iterator[Postgres]:
    """A server that others may follow, and where transactions may be prepared."""
    settings = {"wal_level": "logical", "max_wal_senders": "2", "max_prepared_transactions": "2"}
    with Postgres(**settings) as server:
        yield server


@pytest.fixture
async def followed_queue(
    followed: Postgres, unopened: Callable[[], Any]
) -> AsyncIterator[tuple[Any, str]]:
    """A queue there, and the name of its database."""
    queue = unopened()
    queue.url = followed.create()
    await queue.open()
    yield queue, queue.url.rpartition("/")[2]
    await queue.store.close()
    followed.drop(queue.url)


def prepare(url: str, gid: str) -> None:
    with psycopg.connect(url) as person:
        person.execute("SELECT pg_current_xact_id()")
        person.execute(f"PREPARE TRANSACTION {gid}")  # type: ignore[arg-type]


async def test_an_old_prepared_transaction_is_told(
    followed: Postgres, followed_queue: tuple[Any, str]
) -> None:
    queue, name = followed_queue
    prepare(queue.url, "'it''s one'")
    prepare(followed.url("postgres"), "'of another database'")
    try:
        assert await words(queue, 3600) == []
        [told] = await words(queue, -1)
        assert "the prepared transaction 'it''s one' of tester has been open for " in told
        assert "COMMIT PREPARED 'it''s one' or " in told
        followed.run(name, told[told.index("ROLLBACK PREPARED") :])
        assert await words(queue, -1) == []
    finally:
        followed.run("postgres", "ROLLBACK PREPARED 'of another database'")


class Follower:
    """A standby as far as the primary hears of it: the oldest transaction that it may still see."""

    def __init__(self, server: Postgres, slot: str) -> None:
        self._server = server
        self._raw = pq.PGconn.connect(f"{server.url('postgres')}?replication=true".encode())
        [(here,)] = server.run("postgres", "SELECT pg_current_wal_lsn()::text")
        started = self._raw.exec_(f"START_REPLICATION SLOT {slot} PHYSICAL {here}".encode())
        assert started.status == pq.ExecStatus.COPY_BOTH, started.error_message
        self.pid = self._raw.backend_pid

    def see(self) -> None:
        """From now on nothing that is older than now."""
        [(xid,)] = self._server.run("postgres", "SELECT pg_current_xact_id()::text::bigint")
        epoch, xid = divmod(xid, 1 << 32)
        self._raw.put_copy_data(b"h" + struct.pack("!qIIII", 0, xid, epoch, 0, 0))
        self._raw.flush()

    def close(self) -> None:
        self._raw.finish()


def at(server: Postgres) -> tuple[str, bool]:
    """The transaction that the slot is at, and whether a standby reads it."""
    [(xid, active)] = server.run("postgres", "SELECT xmin::text, active FROM pg_replication_slots")
    return xid, active


async def test_a_slot_that_is_left_behind_is_told(
    followed: Postgres, followed_queue: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, name = followed_queue
    followed.run(name, "SELECT pg_create_physical_replication_slot('standby_1')")
    try:
        assert await words(queue, -1) == []  # it keeps no rows
        with closing(Follower(followed, "standby_1")) as follower:
            follower.see()
            await until(lambda: at(followed)[0])
            assert await words(queue, 0.1) == []  # it may have come there just now
            await asyncio.sleep(0.2)
            [told] = await words(queue, 0.1)
            assert "the replication slot standby_1 has been left " in told
            assert "removing what the queue is done with" in told
            assert f"(pid {follower.pid} in pg_stat_replication)" in told
            before = at(followed)[0]
            follower.see()
            await until(lambda: at(followed)[0] != before)
            assert await words(queue, 0.1) == []
        await until(lambda: not at(followed)[1])
        assert await words(queue, 3600) == []
        # However lately it was seen for the first time.
        monkeypatch.setattr("orchestratord.queue.postgres.vacuum.FAR_BEHIND", 0)
        [told] = await words(queue, 3600)
        assert "nothing reads it" in told
        followed.run(name, told[told.index("SELECT pg_drop_replication_slot") :])
        assert await words(queue, -1) == []
    finally:
        followed.run(name, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


async def test_a_logical_slot_is_told_for_what_it_keeps(
    followed: Postgres, followed_queue: tuple[Any, str]
) -> None:
    queue, name = followed_queue
    followed.run(name, "SELECT pg_create_logical_replication_slot('feed', 'test_decoding')")
    assert await words(queue, 3600) == []
    [told] = await words(queue, -1)
    assert "the replication slot feed has been left " in told
    assert "removing its log, and what its own tables are done with" in told
    followed.run(name, told[told.index("SELECT pg_drop_replication_slot") :])
    assert await words(queue, -1) == []
