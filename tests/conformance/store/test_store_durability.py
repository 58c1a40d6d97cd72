"""What is acknowledged is on disk, whatever becomes of the process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestratord.errors import Conflict, DatabaseInUse, QueueError
from orchestratord.model.task import Key, Status
from orchestratord.queue.batch import Rank, Write
from orchestratord.queue.operations import effects, manual, search
from orchestratord.queue.records import Insert, TaskFilter
from orchestratord.queue.store import Store
from tests.conformance.store.shared_files import next_worker

pytestmark = pytest.mark.slow

WORKLOAD = """
import asyncio, sys
from orchestratord.model.task import Key, NewTask
from orchestratord.queue.operations.claim import claim
from orchestratord.queue.operations.effects import enqueue
from orchestratord.queue.operations.settle import settle
from orchestratord.queue.records import Insert, Pick, Settlement
from orchestratord.queue.store import Store
from tests.conformance.store.shared_files import next_worker

KEY, HOOK = Key("crm/get"), Key("crm/get", "ops")

async def bring(store):
    while True:
        tasks = [NewTask("call", "crm/get", {"x": "y" * 300}) for _ in range(3)]
        for item in await store.write(enqueue([Insert(task) for task in tasks])):
            print("accepted", item.id, flush=True)

async def work(store):
    while True:
        for task in (await store.write(claim([Pick(KEY, 5, True, 10**14)]))).tasks:
            hook = NewTask("webhook", "crm/get", webhook="ops", parent_id=task.id)
            done = Settlement(task, "succeeded", 1, status_code=200, effects=[Insert(hook)])
            settled = await store.write(settle(done))
            print("settled", task.id, settled.inserted[0].id, flush=True)

async def main():
    store = await Store.open(sys.argv[1])
    await asyncio.gather(*(bring(store) for _ in range(4)), *(work(store) for _ in range(4)))

asyncio.run(main())
"""


async def test_nothing_acknowledged_is_lost_by_kill(url: str, tmp_path: Path) -> None:
    if next_worker(url) is not None:
        pytest.skip("workers are killed in test_store_workers")
    script = tmp_path / "workload.py"
    script.write_text(WORKLOAD)
    accepted: set[int] = set()
    settled: dict[int, int] = {}
    for lines in (150, 400, 900):
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(script), url, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        number = 0
        async with asyncio.timeout(60):
            while line := await process.stdout.readline():
                number += 1
                if number == lines:
                    process.kill()
                if line.endswith(b"\n"):
                    word, *ids = line.split()
                    if word == b"accepted":
                        accepted.add(int(ids[0]))
                    else:
                        settled[int(ids[0])] = int(ids[1])
            assert await process.wait() == -signal.SIGKILL
    store = await Store.open(url)
    try:
        found: dict[int, Any] = {}
        after = None
        while page := (await store.read(search.page(TaskFilter(), 1000, after)))[0]:
            found |= {task.id: task for task in page}
            after = page[-1].id
        assert accepted <= set(found)
        assert len(settled) > 100
        for id_, hook in settled.items():
            assert found[id_].status == Status.SUCCEEDED
            assert found[hook].parent_id == id_
        # What was settled without having been told is whole as well: a task and its delivery.
        done = [task.id for task in found.values() if task.status == Status.SUCCEEDED]
        assert sorted(done) == sorted(t.parent_id for t in found.values() if t.webhook)
        counts = await store.counts()
        assert sum(counts.values()) == len(found)
    finally:
        await store.close()


async def test_one_daemon_at_a_time(queue: Any, store: Store, url: str) -> None:
    if store.several_daemons:
        pytest.skip("others may work on it")
    with pytest.raises(DatabaseInUse, match=f"is in use by the daemon with pid {os.getpid()}"):
        await Store.open(url)
    await queue.add()  # the first one is not disturbed


async def test_the_queue_keeps_its_name_and_changes_its_owner(queue: Any, store: Store) -> None:
    instance, owner = store.instance, store.owner
    store = await queue.reopen()
    assert store.instance == instance
    assert len(instance) >= 16
    assert store.owner != owner


async def test_two_queues_have_different_names(store: Store, new_url: Callable[[], str]) -> None:
    other = await Store.open(new_url())
    assert other.instance != store.instance
    await other.close()


async def test_closing_writes_what_waits(unopened: Callable[[], Any]) -> None:
    queue = unopened()
    store = await queue.open()
    waiting = [asyncio.ensure_future(queue.add()) for _ in range(50)]
    await asyncio.sleep(0)
    await store.close()
    ids = await asyncio.gather(*waiting)
    store = await queue.open()
    assert [task.id for task in (await store.read(search.page(TaskFilter(), 100)))[0]] == sorted(
        ids, reverse=True
    )
    await store.close()


async def test_a_closed_store_says_so(unopened: Callable[[], Any]) -> None:
    queue = unopened()
    store = await queue.open()
    await store.close()
    await store.close()
    with pytest.raises(QueueError, match="the queue is closed"):
        await queue.add()
    with pytest.raises(QueueError, match="the queue is closed"):
        await store.read(search.get(1))


async def test_what_a_cancelled_caller_asked_for_still_happens(queue: Any, store: Store) -> None:
    asked = asyncio.ensure_future(queue.add())
    await asyncio.sleep(0)
    asked.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asked
    await store.write(Write(Rank.KEEP, lambda session: None))
    assert (await store.counts())["pending"] == 1


async def test_a_bad_operation_fails_alone(queue: Any, store: Store) -> None:
    """In one transaction with others, half-way through what it writes."""
    await queue.add(unique_key="k", params={"a": 1})
    bad = [queue.new(Key("crm/bad")), queue.new(unique_key="k", params={"a": 2})]
    done = await queue.ended(Status.SUCCEEDED, Key("crm/done"))
    results = await asyncio.gather(
        *(queue.add() for _ in range(5)),
        queue.add_all(bad),
        store.write(manual.trigger(done)),
        *(queue.add() for _ in range(5)),
        return_exceptions=True,
    )
    failures = [str(item) for item in results if isinstance(item, Exception)]
    assert len(failures) == 2
    assert isinstance(results[6], Conflict)
    assert (await store.read(search.page(TaskFilter(endpoint="crm/bad"), 10)))[0] == []
    assert (await store.counts())["pending"] == 11


async def test_many_at_once(queue: Any, store: Store) -> None:
    inserted = await asyncio.gather(
        *(
            store.write(effects.enqueue([Insert(queue.new()) for _ in range(10)]))
            for _ in range(100)
        )
    )
    ids = [item.id for batch in inserted for item in batch]
    assert len(set(ids)) == 1000
    tasks = await queue.claim(limit=1000)
    settled = await asyncio.gather(*(queue.settle(task) for task in tasks))
    assert all(item.accepted for item in settled)
    assert (await store.counts())["succeeded"] == 1000


async def test_it_is_healthy_and_shows_it(store: Store) -> None:
    before = store.health.beat
    await store.write(Write(Rank.KEEP, lambda session: None))
    await asyncio.sleep(0.01)
    assert store.health.fatal is None
    assert not store.health.troubles
    assert store.health.beat > before
