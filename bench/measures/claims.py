"""What claiming and settling take in tables of several sizes, more or less of them in memory."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import psycopg

from bench.environment.postgres import folder_for_server, queue_url, server
from bench.environment.processes import disk_reads
from bench.environment.servers import Postgres
from bench.results.table import Table
from orchestratord.model.task import Attempt, Key, Task
from orchestratord.queue.operations import claim as claiming
from orchestratord.queue.operations import settle as settling
from orchestratord.queue.records import Pick, Settlement
from orchestratord.queue.store import Store

AT_ONCE = 100
ROUNDS, UNCOUNTED = 30, 3
SIZES = {"10 thousand": 10_000, "1 million": 1_000_000}
LARGE = {"10 million": 10_000_000}
WAITING_KEYS = 10_000
ALL, INDEXES, NOTHING = "all", "the indexes", "nothing"
"""What of a table is in the memory of the OS."""
READ = 4 * 2**20
NEXT_WEEK_MS = 7 * 24 * 3600 * 1000

SCATTERED, IN_ORDER = Key("full/scattered"), Key("full/queue")

FILL = """
INSERT INTO retry_schedule (kind, endpoint_id, webhook, status, attempts, max_attempts, next_try,
    payload, finished_at, last_status_code, created_at, updated_at, scheduled_at)
SELECT 'call',
    CASE i % 10 WHEN 0 THEN 'full/scattered' WHEN 1 THEN 'full/queue'
        ELSE 'waiting/key' || (i / 10 % {keys}) END, '',
    CASE WHEN i % 10 > 4 THEN 'succeeded' ELSE 'pending' END, 0, 15,
    CASE WHEN i % 10 > 4 THEN NULL WHEN i % 10 = 0 THEN {now} - 60000 + i % 1009
        WHEN i % 10 = 1 THEN {now} - 60000 + i / ({rows} / 1000) ELSE {now} + 86400000 + i END,
    repeat('x', 1000), CASE WHEN i % 10 > 4 THEN {now} END, '200', {now}, {now}, {now}
FROM generate_series(1, {rows}) AS i
"""
"""Half has succeeded, a tenth is due in one key, all over the table, and a tenth in another one, in
the order in which it was queued; the rest is due tomorrow, in 10,000 keys or as many as have 30."""
LOADING = {"fsync": "off", "shared_buffers": "2GB", "max_wal_size": "1GB", "min_wal_size": "1GB",
           "maintenance_work_mem": "1GB", "autovacuum": "off"}  # fmt: skip
"""How the server runs while rows are loaded. Its log is as long as the default has it, so that what
follows neither has to make its files first nor finds memory full of them."""


def sizes(large: bool, settings: Sequence[str]) -> Table:
    """A table of all that is measured; `settings`, NAME=VALUE, of the server with the largest."""
    table = Table((), [])
    for words, rows in {**SIZES, **(LARGE if large else {})}.items():
        with folder_for_server() as home:
            with server(home, **LOADING) as database:
                asyncio.run(make(queue_url(database)))
                fill(queue_url(database), rows)
                indexes = files_of_indexes(queue_url(database))
            for held, setting in tried(rows, settings):
                cache(home, held, indexes)
                name, _, value = setting.partition("=")
                with server(home, **({name: value} if name else {})) as database:
                    if held == ALL:
                        use_buffers(queue_url(database))
                    times = asyncio.run(claims(database, rows))
                table.head = ("ms, medians", "in memory", "beside the defaults", *times)
                medians = (f"{statistics.median(took):.1f}" for took in times.values())
                table.rows.append((words, held, setting, *medians))
    return table


def fill(url: str, rows: int) -> None:
    """Load so many rows; their indexes are built afterwards, which is quicker."""
    values = {"rows": rows, "now": int(time.time() * 1000), "keys": _keys(rows)}
    with psycopg.connect(url, autocommit=True) as session:
        indexes = session.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'retry_schedule' "
            "AND indexname NOT LIKE '%pkey'"
        ).fetchall()
        for name, _ in indexes:
            session.execute(f"DROP INDEX {name}")
        session.execute(FILL.format(**values))
        for _, definition in indexes:
            session.execute(definition)
        session.execute("VACUUM ANALYZE retry_schedule")
        session.execute("CHECKPOINT")


def _keys(rows: int) -> int:
    return min(WAITING_KEYS, rows // 100)


def tried(rows: int, settings: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What is measured with a table: what of it is in memory, and a setting of the server."""
    yield ALL, ""
    if rows > min(SIZES.values()):  # the smallest one is used up by then
        yield INDEXES, ""
        yield NOTHING, ""
    if rows in LARGE.values():
        for setting in settings:
            yield ALL, setting


async def make(url: str) -> None:
    """The tables, empty."""
    await (await Store.open(url)).close()


def cache(home: Path, what: str, indexes: Collection[str]) -> None:
    """Have the memory of the OS hold ALL files of a database whose server does not run, its
    INDEXES or NOTHING."""
    os.sync()  # what is not on the disk yet would stay
    for path in (home / "data" / "base").rglob("*"):
        if path.is_file():
            held = what == ALL or (what == INDEXES and path.name.split(".")[0] in indexes)
            with path.open("rb", buffering=0) as file:
                if not held:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                while held and file.read(READ):
                    pass


def use_buffers(url: str) -> None:
    """Have a server that has just started use each of its buffers once, which is slower than any
    later use."""
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("CREATE EXTENSION IF NOT EXISTS pg_prewarm")
        session.execute(
            "SELECT pg_prewarm('retry_schedule', 'buffer', 'main', 0, "
            "least(pg_relation_size('retry_schedule'), "
            "pg_size_bytes(current_setting('shared_buffers'))) / 8192 - 1)"
        )


def files_of_indexes(url: str) -> list[str]:
    """The names of the files with the indexes of the tasks."""
    with psycopg.connect(url) as session:
        found = session.execute(
            "SELECT pg_relation_filenode(indexrelid)::text FROM pg_index "
            "WHERE indrelid = 'retry_schedule'::regclass"
        )
        return [name for (name,) in found]


async def claims(database: Postgres, rows: int) -> dict[str, list[float]]:
    """What claiming and settling 100 takes (ms), in a table of so many rows; and of the claims all
    over the table, how much (KB) was read from the disk and written to the log for one."""
    store = await Store.open(queue_url(database))
    all_over, in_order, ten = "1 key, all over the table", "1 key, in order", "10 keys"
    settling, read, logged = "settle 100", "KB from the disk", "KB of log"
    times: dict[str, list[float]] = {
        name: [] for name in (all_over, in_order, ten, settling, read, logged)
    }
    # Of the 10 thousand a tenth is due.
    rounds = min(ROUNDS, rows // 10 // AT_ONCE - UNCOUNTED)
    session = psycopg.connect(queue_url(database), autocommit=True)
    try:
        for number in range(rounds + UNCOUNTED):
            first = 10 * number
            some = [Key(f"waiting/key{n % _keys(rows)}") for n in range(first, first + 10)]
            for step, keys, ahead in (
                (all_over, [SCATTERED], 1_000), (in_order, [IN_ORDER], 1_000),
                (ten, some, NEXT_WEEK_MS),
            ):  # fmt: skip
                before = _used(database, session)
                took, tasks = await claim(store, keys, ahead)
                after = _used(database, session)
                settled = await settle(store, tasks)
                if number >= UNCOUNTED:
                    times[step].append(took)
                    times[settling].append(settled)
                    if step == all_over:
                        times[read].append((after[0] - before[0]) / 1000)
                        times[logged].append((after[1] - before[1]) / 1000)
    finally:
        session.close()
        await store.close()
    return times


def _used(database: Postgres, session: psycopg.Connection) -> tuple[int, int]:
    """Bytes that a server has read from the disk so far, and those of its log."""
    row = session.execute("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").fetchone()
    assert row is not None
    return disk_reads(database.pid), row[0]


async def claim(store: Store, keys: Sequence[Key], ahead: int = 1_000) -> tuple[float, list[Task]]:
    """How long it takes to claim what is due, or will be in `ahead` milliseconds."""
    until = int(time.time() * 1000) + ahead
    picks = [Pick(key, AT_ONCE // len(keys), True, until) for key in keys]
    began = time.perf_counter()
    tasks = (await store.write(claiming.claim(picks))).tasks
    took = (time.perf_counter() - began) * 1000
    if len(tasks) != AT_ONCE:
        raise RuntimeError(f"{len(tasks)} were claimed")
    return took, tasks


async def settle(store: Store, tasks: Sequence[Task]) -> float:
    """How long it takes until all have succeeded."""
    now = int(time.time() * 1000)
    attempt = Attempt(1, now, 1.5, 200, None, None, "succeeded")
    done = [
        Settlement(task, "succeeded", now, status_code=200, attempt=attempt, last_success_at=now)
        for task in tasks
    ]
    began = time.perf_counter()
    settled = await asyncio.gather(*map(store.write, map(settling.settle, done)))
    if not all(item.accepted for item in settled):
        raise RuntimeError("a settlement was not accepted")
    return (time.perf_counter() - began) * 1000
