"""One suite for every database that the queue can live in. Only the store's interface is used."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from orchestratord.model.task import Attempt, Key, NewTask, RunSummary, Status, Table, Task
from orchestratord.queue import run_counts
from orchestratord.queue.housekeeping import run_ends
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations import chores, claim, daemons, effects, manual, settle
from orchestratord.queue.records import (
    RETRY,
    Beat,
    Bulk,
    Chore,
    Insert,
    Inserted,
    Pick,
    Settled,
    Settlement,
    TaskFilter,
    Wakeup,
)
from orchestratord.queue.rows import response_text
from orchestratord.queue.store import Store
from orchestratord.testing import FakeClock
from tests.conformance.store.shared_files import next_worker, shared_files
from tests.postgres import Postgres

KEY = Key("crm/get")
QUICK = frozenset({"acme", "other", "fair", "third"})
"""Partitions of which more than one task is claimed at a time."""

HEALTH = Table(
    "health",
    {"name": "TEXT NOT NULL", "url": "TEXT NOT NULL", "seen": "INTEGER", "note": "TEXT"},
    ("name",),
)


class Queue:
    """A store with the few moves that most tests begin with."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = FakeClock()
        self.store: Store
        self.workers = next_worker(url)

    async def open(self, *tables: Table) -> Store:
        before = getattr(self, "store", None)
        self.store = await Store.open(
            self.url, tables=tables or (HEALTH,), clock=self.clock, workers=self.workers
        )
        if self.workers is not None:
            await self.give_sign()
            if before is not None:  # its supervisor says that it has died
                self.run(f"DELETE FROM daemons WHERE owner = '{before.owner}'")
        return self.store

    async def give_sign(self) -> int:
        """Give a sign of life; the time by the clock of the database."""
        group = self.workers.group if self.workers is not None else ""
        return await self.store.write(daemons.give_sign(Beat(process_group=group)))

    async def reopen(self, *tables: Table) -> Store:
        await self.store.close()
        return await self.open(*tables)

    async def successor(self, *tables: Table) -> Store:
        """The store of a daemon that comes after one that has died, and may take over from it."""
        store = await self.reopen(*tables)
        if store.several_daemons:
            self.run("UPDATE retry_schedule SET lease_until = 1 WHERE status = 'running'")
        return store

    def run(self, statement: str) -> list[dict[str, Any]]:
        """Run a statement from outside, as an administrator would."""
        if self.url.startswith("sqlite"):
            with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"))) as connection:
                cursor = connection.execute(statement)
                rows = cursor.fetchall()
                connection.commit()
        else:
            with psycopg.connect(self.url, autocommit=True) as session:
                found = session.execute(statement)  # type: ignore[arg-type]
                cursor, rows = found, found.fetchall() if found.description else []
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in rows]

    async def add(self, key: Key = KEY, **fields: Any) -> int:
        """One pending task, due now unless `delay` is given; its id."""
        return (await self.add_all([self.new(key, **fields)]))[0].id

    async def add_all(self, tasks: list[NewTask]) -> list[Inserted]:
        return await self.store.write(effects.enqueue([Insert(task) for task in tasks]))

    def new(self, key: Key = KEY, **fields: Any) -> NewTask:
        kind = "webhook" if key.webhook else "call"
        return NewTask(kind=kind, endpoint_id=key.endpoint_id, webhook=key.webhook, **fields)

    async def claim(
        self, key: Key = KEY, limit: int = 100, *, idempotent: bool = True
    ) -> list[Task]:
        """Claim what is due of one key, of whose partitions these are known to be quick."""
        pick = Pick(key, limit, idempotent, self.clock.now_ms(), quick=QUICK)
        return (await self.store.write(claim.claim([pick]))).tasks

    async def settle(self, task: Task, status: str = Status.SUCCEEDED, **fields: Any) -> Settled:
        """Settle a claimed task, now."""
        return await self.store.write(settle.settle(self.settlement(task, status, **fields)))

    def settlement(self, task: Task, status: str = Status.SUCCEEDED, **fields: Any) -> Settlement:
        if "response" in fields:
            fields["response"] = response_text(fields["response"])
        return Settlement(task=task, status=status, at=self.clock.now_ms(), **fields)

    def attempt(self, task: Task, status_code: int | str | None = 200, **fields: Any) -> Attempt:
        """The row of an attempt of `task`."""
        values: dict[str, Any] = {"error": None, "delay": None, "why": "it succeeded"} | fields
        return Attempt(task.attempts, self.clock.now_ms(), 12.5, status_code, **values)

    async def chores(self) -> list[Chore]:
        """Claim the chores that are due."""
        now = self.clock.now_ms()
        ids = await self.store.read(chores.due(self.store.owner, now, (), 20))
        return await self.store.write(chores.claim(ids)) if ids else []

    async def untold(self) -> list[RunSummary]:
        """The runs that have ended, and whose end a chore is to tell."""
        of_ends = [one for one in await self.chores() if one.kind == run_counts.CHORE]
        ids = [run_ends.subject_of(chore)[0] for chore in of_ends]
        found = [await self.store.read(run_ends.row_of(id_)) for id_ in ids]
        return [run for run in found if run is not None and not run.open]

    async def ended(self, status: str, key: Key = KEY, **fields: Any) -> int:
        """A task that has gone all the way to `status`; its id."""
        id_ = await self.add(key, **fields)
        if status == Status.CANCELLED:
            await self.store.write(manual.cancel(id_))
        else:
            code = 200 if status == Status.SUCCEEDED else 503
            for task in await self.claim(key):
                await self.settle(task, status, status_code=code)
        return id_

    async def bulk(
        self,
        wanted: TaskFilter,
        rate: float | None = None,
        action: str = RETRY,
        stop_after: int = 0,
    ) -> Bulk:
        """Begin a retry or cancel of many, as the service does; nothing is moved yet."""
        survey = await self.store.read(bulks.survey(bulks.with_default(action, wanted)))
        return await self.store.write(bulks.create(action, survey, rate, stop_after))


NewUrl = Callable[[], str]


@pytest.fixture(scope="session")
def opened_database(postgres: Postgres) -> str:
    """The name of a database of PostgreSQL in which a queue has been opened and closed."""

    async def open_once() -> None:
        queue = Queue(url)
        await queue.open()
        await queue.store.close()

    url = postgres.create()
    with asyncio.Runner() as runner:
        runner.run(open_once())
    return url.rpartition("/")[2]


@pytest.fixture(
    params=["sqlite", pytest.param("workers", marks=pytest.mark.slow), "postgres"],
)
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewUrl]:
    """Names databases that are not there yet, or are empty."""
    numbers = itertools.count(1)
    if request.param == "sqlite":
        yield lambda: f"sqlite:///{tmp_path}/queue{next(numbers)}/orchestratord.db"
        return
    if request.param == "workers":
        with shared_files(tmp_path) as create_shared:
            yield create_shared
        return
    server: Postgres = request.getfixturevalue("postgres")
    made: list[str] = []
    # What begins with an open queue gets a copy of one: that takes a third of making all tables.
    template = "template0"
    if "queue" in request.fixturenames:
        template = request.getfixturevalue("opened_database")

    def create() -> str:
        made.append(server.create(template if not made else "template0"))
        return made[-1]

    yield create
    for url in made:
        server.drop(url)


@pytest.fixture
def url(new_url: NewUrl) -> str:
    """One of them."""
    return new_url()


@pytest.fixture
async def queue(url: str) -> AsyncIterator[Queue]:
    opened = Queue(url)
    await opened.open()
    yield opened
    await opened.store.close()


@pytest.fixture
def store(queue: Queue) -> Store:
    return queue.store


@pytest.fixture
def clock(queue: Queue) -> FakeClock:
    return queue.clock


@pytest.fixture
def unopened(url: str) -> Callable[[], Queue]:
    """For tests that open and close by themselves."""
    return lambda: Queue(url)


@pytest.fixture
async def two(url: str, unopened: Callable[[], Any]) -> AsyncIterator[list[Any]]:
    """Two stores on one database."""
    queues = [unopened(), unopened()]
    for queue in queues:
        await queue.open()
    yield queues
    for queue in queues:
        await queue.store.close()


Listen = Callable[[Store], list[Wakeup]]


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    """Gathers what a store hears from others, from now on."""
    following: list[asyncio.Task[None]] = []

    async def follow(store: Store, heard: list[Wakeup]) -> None:
        while True:
            heard.append(await store.wakeups.take())

    def begin(store: Store) -> list[Wakeup]:
        heard: list[Wakeup] = []
        following.append(asyncio.create_task(follow(store, heard)))
        return heard

    yield begin
    for task in following:
        task.cancel()
