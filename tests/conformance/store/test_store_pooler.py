"""The queue behind a pooler that gives each transaction another session."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import psycopg
import pytest

from orchestratord.model.task import Status
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations import search
from orchestratord.queue.postgres import notify
from orchestratord.queue.postgres.postgres_database import PostgresDatabase, PostgresServer
from orchestratord.queue.records import TaskFilter
from orchestratord.queue.reports import backlog
from tests.pooler import Pooler
from tests.postgres import Postgres


@pytest.fixture(params=[200, 0], ids=["statements-followed", "statements-lost"])
def url(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[str]:
    made = postgres.create()
    with Pooler(postgres, prepared=request.param) as pooler:
        yield pooler.url(made)
    postgres.drop(made)


@pytest.fixture
async def two(
    url: str, unopened: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[Any]]:
    """Two daemons' stores, which begin with an empty database at once."""
    monkeypatch.setattr(notify, "ECHO_WAIT", 0.5)
    queues = [unopened(), unopened()]
    await asyncio.gather(*(queue.open() for queue in queues))
    yield queues
    for queue in queues:
        await queue.store.close()


async def test_it_works_and_says_what_does_not(
    two: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    one, other = two
    with caplog.at_level(logging.WARNING):
        for turn in range(12):
            await asyncio.gather(*(queue.add_all([queue.new()] * 20) for queue in two))
            claims = await asyncio.gather(*(queue.claim() for queue in two))
            settled = await asyncio.gather(
                *(
                    queue.settle(task, Status.FAILED if turn % 2 else Status.SUCCEEDED)
                    for queue, tasks in zip(two, claims, strict=True)
                    for task in tasks
                )
            )
            assert all(item.accepted for item in settled)
            assert len((await other.store.read(search.page(TaskFilter(), 10)))[0]) == 10
        bulk = await one.bulk(TaskFilter(status=("failed",)))
        bulk, _ = await bulks.step(one.store, bulk.id, 1000)
        while await one.claim():
            pass
        async with asyncio.timeout(60):
            while "do not come through, as behind a pooler" not in caplog.text:
                await asyncio.sleep(0.05)
    assert bulk.moved == bulk.matched > 0
    assert (await other.store.read(backlog.due_tasks(10**14, 9))).tasks == 0
    attempts = one.run(
        "SELECT status, attempts, count(*) AS tasks FROM retry_schedule GROUP BY 1, 2"
    )
    assert sum(row["tasks"] for row in attempts) == 480
    assert [queue.store.listening for queue in two] == [False, False]


def test_what_was_prepared_in_another_session_does_no_harm(postgres: Postgres) -> None:
    """One carried out what another connection had prepared under that name, and a ROLLBACK that
    failed left others the session with an aborted transaction."""
    made = postgres.create()
    with Pooler(postgres, sessions=2, prepared=0) as pooler, ExitStack() as stack:
        database, server = PostgresDatabase(pooler.url(made)), PostgresServer(pooler.url(made))
        plus, times, back = (
            stack.enter_context(closing(database.connect(writes=True))) for _ in range(3)
        )
        first, second = (stack.enter_context(closing(server.dial())) for _ in range(2))
        first.execute("BEGIN")  # has one of the two sessions
        for _ in range(6):
            plus.begin()
            plus.value("SELECT ?::int + 1", (1,))
            plus.commit()
            back.begin()
            back.rollback()
        second.execute("BEGIN")  # has the other one
        first.execute("COMMIT")
        for _ in range(6):
            times.begin()
            times.value("SELECT ?::int * 100", (1,))
            times.commit()
        plus.begin()
        with pytest.raises(psycopg.errors.InvalidSqlStatementName):
            plus.value("SELECT ?::int + 1", (1,))
        plus.rollback()
        for connection in (back, plus, back):
            connection.begin()
            assert connection.value("SELECT ?::int + 1", (1,)) == 2
            connection.rollback()
    postgres.drop(made)
