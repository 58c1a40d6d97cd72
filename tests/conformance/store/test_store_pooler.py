"""The queue behind a pooler that gives each transaction another session."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from orchestratord.model.task import Status
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations import search
from orchestratord.queue.postgres import notify
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
