"""The worker over a real store and a real receiver: draining, cancelling, removing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import worker_parts as parts

from orchestratord.engine.http_executor import HttpPlugin, HttpSpec
from orchestratord.engine.worker import Worker
from orchestratord.http.client import HttpClient
from orchestratord.model.backoff import Fixed
from orchestratord.model.endpoint import Api, Endpoint
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.model.settings import Config, DaemonSettings
from orchestratord.model.task import Delete, Effect, Key, NewTask, Status, Task, Upsert
from orchestratord.plugin.hook_marks import hookimpl
from orchestratord.plugin.host import Host
from orchestratord.queue.batch import Rank, Write
from orchestratord.queue.connection import Connection
from orchestratord.queue.daemon_health import CLAIMS_FAILING
from orchestratord.queue.operations import manual, search
from orchestratord.queue.records import TaskFilter
from orchestratord.queue.rows import tasks_of
from orchestratord.queue.sqlite import claim_sqlite
from orchestratord.queue.store import Store
from orchestratord.values.clock import Clock
from orchestratord.values.redact import Redactor


@dataclass
class Bench:
    """One worker, its store, a receiver, and what a telling plugin was told."""

    store: Store
    worker: Worker
    config: Config
    requests: int = 0
    status: int = 200
    answer: asyncio.Event = field(default_factory=asyncio.Event)
    told: list[tuple[str, int]] = field(default_factory=list)
    loop: asyncio.Task[None] | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                await self.answer.wait()
                head = f"HTTP/1.1 {self.status} X\r\nContent-Length: 0\r\n\r\n"
                writer.write(head.encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not done():
                await asyncio.sleep(0.01)

    async def task(self, task_id: int) -> Task:
        return await self.store.read(search.get(task_id))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    told: list[tuple[str, int]] = []

    def on_retry(task: Task) -> list[Effect]:
        told.append(("on_retry", task.id))
        return [replace(CALL, delay=3600)]

    def on_final_failure(task: Task) -> list[Effect]:
        told.append(("on_final_failure", task.id))
        return []

    host = Host()
    host.register(HttpPlugin(), "http")
    plugin: Any = SimpleNamespace(
        on_retry=hookimpl(on_retry), on_final_failure=hookimpl(on_final_failure)
    )
    host.register(plugin, "teller")
    store = await Store.open(f"sqlite:///{tmp_path}/q.db")
    client = HttpClient()
    worker = Worker(store, host, client, Clock())
    holder: list[Bench] = []
    server = await asyncio.start_server(lambda r, w: holder[0].serve(r, w), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    api = Api(name="a", base_url=f"http://127.0.0.1:{port}", egress=("127.0.0.1",), concurrency=2)
    retry = RetryPolicy(backoff=Fixed(delay=60), jitter=0)
    spec = HttpSpec.model_validate({"path": "/x", "method": "POST"})
    endpoint = Endpoint("a/post", api, "http", spec, retry, 30.0, False)
    config = Config(
        tmp_path, DaemonSettings(), {"a": api}, {endpoint.id: endpoint}, Redactor(), "d"
    )
    worker.placement.adopt(config)
    made = Bench(store, worker, config, told=told)
    holder.append(made)
    made.loop = asyncio.create_task(worker.run())
    yield made
    made.answer.set()
    await worker.drain(5)
    if made.loop is not None:
        await made.loop
    server.close()
    await client.aclose()
    await store.close()


CALL = NewTask("call", "a/post")


async def test_what_is_accepted_while_the_daemon_drains_goes_back(bench: Bench) -> None:
    # The slot is taken before the drain begins, the row is written after it.
    accepting = asyncio.create_task(bench.worker.enqueue.accept([CALL, CALL]))
    await asyncio.sleep(0)
    await bench.worker.drain(5)
    tasks = [await bench.task(item.id) for item in await accepting]
    assert [(task.status, task.attempts) for task in tasks] == [("pending", 0)] * 2
    assert bench.requests == 0
    assert bench.worker.lanes.in_flight == 0


async def test_what_runs_beside_the_worker_does_not_end_unseen(bench: Bench) -> None:
    broken: Any = object()
    bench.store.elected.put(broken)
    assert bench.loop is not None
    with pytest.raises(ExceptionGroup) as raised:  # as a part of the daemon it ends that
        async with asyncio.timeout(60):
            await bench.loop
    assert raised.group_contains(AttributeError)
    bench.loop = None


async def test_a_drain_interrupts_what_does_not_end(bench: Bench) -> None:
    [item] = await bench.worker.enqueue.accept([CALL])
    await bench.until(lambda: bench.requests == 1)
    await bench.worker.drain(0.05)
    task = await bench.task(item.id)
    assert (task.status, task.reason) == ("failed", "ambiguous")


async def test_whoever_asked_may_go_away(bench: Bench) -> None:
    accepting = asyncio.create_task(bench.worker.enqueue.accept([CALL]))
    await asyncio.sleep(0)
    accepting.cancel()
    bench.answer.set()
    await bench.until(lambda: bench.requests == 1)
    await bench.until(lambda: not bench.worker.claims.running)
    assert (await bench.task(1)).status == "succeeded"


async def test_a_task_that_is_cancelled_while_it_runs_tells_of_no_retry(bench: Bench) -> None:
    bench.status = 503
    [item] = await bench.worker.enqueue.accept([CALL])
    await bench.until(lambda: bench.requests == 1)
    await bench.store.write(manual.cancel(item.id))
    bench.answer.set()
    await bench.worker.waiters.wait(item.id, 5)
    task = await bench.task(item.id)
    [attempt] = await bench.store.read(search.attempts(item.id))
    assert (task.status, task.next_try, task.last_status_code) == ("cancelled", None, 503)
    assert (attempt.status_code, attempt.delay) == (503, None)
    # It was asked before the cancel was seen; what it wanted written is not.
    assert (await bench.store.read(search.page(TaskFilter(), 10)))[0] == [task]


async def test_a_database_that_refuses_claims_makes_the_daemon_unready(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rename(before: str, after: str) -> None:
        statement = f"ALTER TABLE {before} RENAME TO {after}"
        await bench.store.write(Write(Rank.KEEP, lambda session: session.db.run(statement)))

    monkeypatch.setattr("orchestratord.engine.worker.CLAIMS_FAIL_AFTER", 0.0)
    bench.answer.set()
    await bench.worker.enqueue.accept([replace(CALL, delay=0.3)])
    await rename("retry_schedule", "away")
    await bench.until(lambda: CLAIMS_FAILING in bench.store.health.troubles)
    assert "nothing can be claimed" in bench.store.health.troubles[CLAIMS_FAILING].why
    await rename("away", "retry_schedule")
    await bench.until(lambda: bench.requests == 1)
    await bench.until(lambda: not bench.store.health.troubles)


async def test_what_was_claimed_and_cannot_be_read_is_released(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where no memory is left; else it would run for as long as its daemon lives."""
    fails = [MemoryError(), MemoryError()]

    def once_there_is_room(db: Connection, ids: Sequence[int]) -> list[Task]:
        if fails:
            raise fails.pop()
        return tasks_of(db, ids)

    monkeypatch.setattr(claim_sqlite, "tasks_of", once_there_is_room)
    bench.answer.set()
    made = await bench.worker.enqueue.accept([replace(CALL, delay=0.1) for _ in range(2)])
    async with asyncio.timeout(30):
        while (await bench.store.counts()).get(Status.SUCCEEDED) != 2:
            await asyncio.sleep(0.01)
    found = [await bench.task(one.id) for one in made]
    assert [task.attempts for task in found] == [1, 1], "what was released does not count"
    assert not fails


@pytest.mark.parametrize("ends", [False, True])
async def test_what_cannot_be_read_is_released_with_nothing_else_to_claim(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    """Its endpoint is paused meanwhile, or the daemon ends."""
    worker, drained = bench.worker, asyncio.Event()

    def fail(db: Connection, ids: Sequence[int]) -> list[Task]:
        worker.placement.adopt(replace(bench.config, endpoints={}))
        worker.lanes.draining = ends
        drained.set()
        raise MemoryError

    monkeypatch.setattr(claim_sqlite, "tasks_of", fail)
    [made] = await worker.enqueue.accept([replace(CALL, delay=0.1)])
    await drained.wait()
    if ends:
        await worker.drain(10)
    async with asyncio.timeout(60):
        while (task := await bench.task(made.id)).status != Status.PENDING:
            await asyncio.sleep(0.01)
    assert (task.attempts, task.deaths) == (0, 0)


async def test_what_is_back_is_not_failed_any_more(bench: Bench) -> None:
    tasks = [replace(CALL, delay=3600)] * 120
    ids = [item.id for item in await bench.worker.enqueue.accept(tasks)]
    gone = replace(bench.config, endpoints={})
    clock = bench.worker.clock
    bench.worker.placement.adopt(gone)
    # As if it had been gone for a minute.
    standings = bench.worker.placement
    standings._ripe[Key("a/post")] = ("endpoint_removed", clock.steady() - 1)
    bench.worker.placement.standing_changed(None)
    await bench.until(lambda: len(bench.told) >= 20)
    bench.worker.placement.adopt(bench.config)
    await bench.until(lambda: not standings._sweeping)
    states = [(await bench.task(id_)).status for id_ in ids]
    assert 20 <= states.count("failed") < 120
    assert states.count("pending") == 120 - states.count("failed")
    assert bench.told == [
        ("on_final_failure", id_) for id_, s in zip(ids, states, strict=True) if s == "failed"
    ]


# -- what is wrong with a request or a plugin, and whose it is -------------------------------------


async def test_a_header_that_cannot_be_one_fails_its_calls_and_sends_nothing(
    tmp_path: Path,
) -> None:
    async with parts.working(tmp_path) as bench:
        bench.receiver.open.set()
        bench.adopt(spec={"headers": {"X-Task": "1", "X-A": "a\nb"}})
        ids = await bench.put([parts.CALL] * 3)
        await bench.idle(ids)
        for task in await bench.tasks(ids):
            assert (task.status, task.reason, task.attempts) == ("failed", "invalid_payload", 1)
            assert "X-A would hold a control character" in str(task.last_error)
            [attempt] = await bench.store.read(search.attempts(task.id))
            assert attempt.status_code is None
        # A reload that mends it, and they can be tried again.
        bench.adopt()
        for task_id in ids:
            task = await bench.store.write(manual.trigger(task_id))
            bench.worker.placement.touched(task.key, task.next_try or 0)
        await bench.idle(ids)
        assert sorted(bench.receiver.tasks) == ids


class Unlikely:
    """What it returns cannot be compared, counted or gone through."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("no")

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise ValueError("no")


@pytest.mark.parametrize(
    "nonsense",
    [Unlikely(), [Upsert("mine", None, {})], [Delete({}, {})], 5],  # type: ignore[arg-type]
    ids=["unlikely", "no key", "no name", "a number"],
)
async def test_nonsense_of_a_telling_hook_is_not_the_tasks(tmp_path: Path, nonsense: Any) -> None:
    """Each is sent once and succeeds, and what others want written is."""

    class Nonsense:
        @hookimpl
        def announce(self, phase: str) -> Any:
            return nonsense

        @hookimpl
        def on_success(self) -> Any:
            return nonsense

    class Sensible:
        @hookimpl
        def on_success(self, task: Task) -> Any:
            later = replace(parts.CALL, delay=3600, parent_id=task.id)
            return [later] if task.parent_id is None else None

    async with parts.working(tmp_path, Nonsense(), Sensible()) as bench:
        bench.receiver.open.set()
        ids = await bench.put([parts.CALL] * 2)
        await bench.idle(ids)
        assert bench.receiver.tasks == ids
        assert await bench.states(ids) == [("succeeded", 1)] * 2
        written = (await bench.store.read(search.page(TaskFilter(status=("pending",)), 10)))[0]
        assert sorted(task.parent_id or 0 for task in written) == ids
        assert bench.worker.host.plugins["plugin_0"].faults >= 4


async def test_a_drain_waits_for_what_is_quick_and_takes_nothing_new(tmp_path: Path) -> None:
    async with parts.working(tmp_path) as bench:
        bench.receiver.open.set()
        bench.adopt(concurrency=5)
        ids = await bench.put([parts.CALL] * 300)
        await bench.until(lambda: len(bench.receiver.tasks) >= 20)
        await bench.worker.drain(10)
        states = await bench.states(ids)
        assert states.count(("succeeded", 1)) == len(bench.receiver.tasks) < 300
        assert states.count(("pending", 0)) == 300 - len(bench.receiver.tasks)
        assert bench.receiver.counts == {1}
        assert bench.worker.lanes.claimed == 0


async def test_a_start_counts_what_endpoints_began_that_are_gone(tmp_path: Path) -> None:
    """The rate is their API's, whatever became of them."""
    async with parts.working(tmp_path, rate="5/h") as bench:
        bench.receiver.open.set()
        await bench.idle(await bench.put([parts.CALL] * 2))
        bench.config = replace(bench.config, endpoints={})
        bench.worker.placement.adopt(bench.config)
        past = await bench.worker._past()
        limit, times = past["api:a"]
        assert (str(limit), len(times)) == ("5/h", 2)


async def test_a_start_counts_what_a_clock_that_was_ahead_began_as_of_now(tmp_path: Path) -> None:
    """Later ones would count beside it, for as long as that clock had been ahead."""
    async with parts.working(tmp_path, rate="5/h") as bench:
        bench.receiver.open.set()
        await bench.idle(await bench.put([parts.CALL]))
        ahead = "UPDATE attempts SET started_at = started_at + 90000"
        await bench.store.write(Write(Rank.HAND, lambda session: session.db.run(ahead)))
        past = await bench.worker._past()
        assert past["api:a"][1] <= [bench.worker.clock.now_ms()]


async def test_a_start_counts_what_was_under_way_as_a_daemon_died(tmp_path: Path) -> None:
    async with parts.working(tmp_path, rate="5/h") as bench:
        [id_] = await bench.put([parts.CALL])
        await bench.until(lambda: bench.receiver.in_flight == 1)
        task = await bench.store.read(search.get(id_))
        past = await bench.worker._past()
        assert past["api:a"][1] == [task.started_at]
