"""What is written together is what would have been written one by one."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestratord.errors import UniqueKeyReused
from orchestratord.model.recurring_rows import DECIDED_AT, RecurringRows
from orchestratord.model.task import Delete, Key, NewTask, Reason, Status, Task, Upsert
from orchestratord.queue.batch import Write
from orchestratord.queue.operations import claim, manual, plugin_rows, search, settle
from orchestratord.queue.records import Insert, Pick, Settlement, Start
from orchestratord.queue.store import Store

HOOK = Key("crm/get", "ops")
KEYS = [Key("crm/get"), Key("crm/put"), HOOK]
RECURRING = [
    RecurringRows([Upsert("health", {"name": "ops"}, {"url": "again"}, {"seen": 3})], 1),
    RecurringRows([Upsert("health", {"name": "dev"}, {"url": "u", "seen": DECIDED_AT})], 1),
    RecurringRows([Upsert("health", {"name": "ops"}, {"url": "and again"}, {"seen": 1})], 1),
]


async def claimed(queue: Any, count: int, key: Key = KEYS[0]) -> list[Task]:
    await queue.add_all([queue.new(key, params={"n": n}) for n in range(count)])
    return await queue.claim(key, limit=count, idempotent=False)  # type: ignore[no-any-return]


def step(chance: random.Random, queue: Any, task: Task, number: int) -> Start | Settlement:
    """Anything that may become of a claimed task, which is the one of this number."""
    effects: list[Any] = []
    for _ in range(chance.randrange(4)):
        name = {"name": chance.choice(["ops", "dev"])}
        row = Upsert("health", name, {"url": f"u{number}"}, chance.choice([{}, {"seen": 1}]))
        hook = queue.new(HOOK, payload=f"čau {number}", parent_id=task.id)
        keyed = queue.new(unique_key=str(chance.randrange(3)), params={"n": chance.randrange(2)})
        nonsense = chance.choice([Upsert("none", name, {}), Insert(NewTask("call", "x", {1: {2}}))])
        everyday = [row, row, Insert(hook), Insert(replace(hook, delay=chance.random()))]
        rare = [Insert(keyed), Delete("health", name), nonsense]
        effects.append(chance.choice(everyday * 5 + rare))
    if chance.random() < 0.2:
        return Start(task, queue.clock.now_ms(), effects)
    status = chance.choice([Status.SUCCEEDED] * 3 + [Status.FAILED, Status.PENDING])
    waits = status == Status.PENDING
    return queue.settlement(  # type: ignore[no-any-return]
        task,
        status,
        reason=Reason.EXHAUSTED if status == Status.FAILED else None,
        next_try=queue.clock.now_ms() + chance.randrange(1000) if waits else None,
        status_code=chance.choice([200, 503, "error", None]),
        error=chance.choice([None, "bad", "bad \udc80"]),
        response=chance.choice([None, {"body": "ř"}, {"body": "\udc80"}]),
        attempt=chance.choice([None, queue.attempt(task, 503, error="čau \udc80", delay=1.5)]),
        uncounted=waits and chance.random() < 0.3,
        max_attempts=chance.choice([None, 3]),
        deaths=chance.choice([None, 2]),
        effects=effects,
        last_success_at=chance.choice([None, number]),
        recurring=(RECURRING[:1], RECURRING[2:], RECURRING[:2], (), ())[number % 5],
    )


async def take(store: Store, what: Start | Settlement) -> Any:
    if isinstance(what, Start):
        return await store.write(settle.start(what.task, what.at, what.effects))
    return await store.write(settle.settle(what))


def shown(result: Any) -> str:
    """A result in words, without what is random; a status is as good as its name."""
    words = re.sub(r"<Status\.\w+: ('\w+')>", r"\1", repr(result))
    return re.sub(r"nonce='\w+'", "nonce", words)


class Ranks:
    """Numbers tasks in the order of their ids: not every id that is taken is used."""

    def __init__(self, queue: Any) -> None:
        ids = queue.run("SELECT id FROM retry_schedule ORDER BY id")
        self._ranks = {row["id"]: rank for rank, row in enumerate(ids, 1)}

    def of(self, id_: int | None) -> int | None:
        return self._ranks.get(id_, 0) if id_ is not None else None

    def told(self, text: str) -> str:
        return re.sub(r"\b(\w*id=)(\d+)", lambda found: f"{found[1]}{self.of(int(found[2]))}", text)


def dumped(queue: Any, ranks: Ranks) -> list[str]:
    """Every row of every table, but for what is random."""
    lines: list[str] = []
    for table in ("retry_schedule", "attempts", "health", "endpoint_state"):
        order = {"health": "name", "endpoint_state": "endpoint_id"}.get(table, "id")
        for row in queue.run(f"SELECT * FROM {table} ORDER BY {order}"):
            if table == "attempts":
                del row["id"]
            for name in {"id", "parent_id", "task_id"} & row.keys():
                row[name] = ranks.of(row[name])
            for name in ("locked_by", "lease_until", "nonce"):
                if row.get(name):
                    row[name] = "somebody"
            lines.append(f"{table} {row}")
    return lines


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
async def test_many_steps_at_once_are_the_same_as_one_after_the_other(
    unopened: Callable[[], Any], new_url: Callable[[], str], seed: int
) -> None:
    states: list[Any] = []
    for at_once in (True, False):
        queue = unopened()
        if queue.workers is not None and seed > 1:
            pytest.skip("workers take the same steps as one daemon")
        queue.url = new_url()
        store = await queue.open()
        chance = random.Random(seed)
        results_in_words: list[list[str]] = []
        for _ in range(4):
            tasks = [task for key in KEYS for task in await claimed(queue, 12, key)]
            for task in chance.sample(tasks, chance.choice([0, 0, 3])):
                await store.write(manual.cancel(task.id))
            for task in chance.sample(tasks, chance.choice([0, 0, 3])):
                await queue.settle(task)  # what follows is a late result
            steps = [step(chance, queue, task, n) for n, task in enumerate(tasks)]
            if at_once:
                results = await asyncio.gather(*(take(store, each) for each in steps))
            else:
                results = [await take(store, each) for each in steps]
            results_in_words.append([shown(result).replace(store.owner, "") for result in results])
            queue.clock.turn(1)
        states.append(await store.counts())
        await store.close()
        ranks = Ranks(queue)
        states += [[ranks.told(text) for text in texts] for texts in results_in_words]
        states.append(dumped(queue, ranks))
    half = len(states) // 2
    for together, alone in zip(states[:half], states[half:], strict=True):
        assert together == alone


async def test_what_is_in_order_is_never_done_one_by_one(
    queue: Any, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """It would be right, and slow."""
    caplog.set_level("DEBUG", "orchestratord.queue")
    for waits in (True, False):
        tasks = [task for key in KEYS for task in await claimed(queue, 20, key)]
        effects = [
            Insert(queue.new(HOOK, payload="{}")),
            Insert(queue.new(KEYS[1], params={"a": 1})),
            Upsert("health", {"name": "ops"}, {"url": "u"}, {"seen": 1}),
            Upsert("health", {"name": "dev"}, {"url": "u", "note": None}),
        ]
        await asyncio.gather(
            *(store.write(settle.start(task, queue.clock.now_ms(), effects)) for task in tasks)
        )
        end = {"status": Status.PENDING, "next_try": 1} if waits else {"last_success_at": 7}
        await asyncio.gather(
            *(queue.settle(task, attempt=queue.attempt(task, 503, error="e", delay=0.5),
                           response={"body": "b"}, effects=effects, **end) for task in tasks)
        )  # fmt: skip
    assert "one by one" not in caplog.text


async def test_the_ends_of_a_group_are_told_as_each_alone(queue: Any, store: Store) -> None:
    """Some claims no longer stand, and of some tasks a cancel was asked for."""
    chance = random.Random(5)
    tasks = await claimed(queue, 60)
    late = set(chance.sample([task.id for task in tasks], 4))
    cancelled = set(chance.sample([task.id for task in tasks], 8))
    for id_ in cancelled:
        await store.write(manual.cancel(id_))
    ends = []
    for task in tasks:
        status = chance.choice([Status.SUCCEEDED, Status.SUCCEEDED, Status.FAILED, Status.PENDING])
        waits = status == Status.PENDING
        ends.append(queue.settlement(
            replace(task, claims=task.claims + 1) if task.id in late else task, status,
            next_try=queue.clock.now_ms() + 1000 if waits else None,
            attempt=queue.attempt(task), error=chance.choice([None, None, "bad"]),
        ))  # fmt: skip
    told: dict[int, Any] = {}
    all_told = asyncio.Event()

    def tell(operations: Sequence[Write[Any]]) -> None:
        for operation in operations:
            assert operation.error is None
            told[operation.about] = operation.result
        if len(told) == len(ends):
            all_told.set()

    for end in ends:
        operation = settle.settle(end)
        operation.about = end.task.id
        store.write_told([operation], tell)
    await asyncio.wait_for(all_told.wait(), 30)
    counted = "SELECT task_id, count(*) AS attempts FROM attempts GROUP BY task_id"
    attempts = {row["task_id"]: row["attempts"] for row in queue.run(counted)}
    rows = {row["id"]: row for row in queue.run("SELECT id, status FROM retry_schedule")}
    for end in ends:
        id_ = end.task.id
        stands = id_ not in late and not (id_ in cancelled and end.status == Status.PENDING)
        assert told[id_].accepted is stands
        assert rows[id_]["status"] == (end.status if stands else Status.RUNNING)
        assert attempts.get(id_, 0) == int(stands)
    found = Counter(row["status"] for row in rows.values())
    assert {status: n for status, n in (await store.counts()).items() if n} == found


async def test_a_late_result_among_others_is_refused_alone(queue: Any, store: Store) -> None:
    tasks = await claimed(queue, 20)
    await queue.settle(tasks[7])
    settled = await asyncio.gather(
        *(queue.settle(task, attempt=queue.attempt(task)) for task in tasks)
    )
    assert [item.accepted for item in settled] == [n != 7 for n in range(20)]
    assert await store.read(search.attempts(tasks[7].id)) == []
    assert len(await store.read(search.attempts(tasks[8].id))) == 1
    assert (await store.counts())["succeeded"] == 20


async def test_one_result_given_twice_at_once_counts_once(queue: Any, store: Store) -> None:
    tasks = await claimed(queue, 5)
    twice = [task for task in tasks for _ in range(2)]
    effects = [Insert(queue.new(HOOK))]
    settled = await asyncio.gather(*(queue.settle(task, effects=effects) for task in twice))
    assert [item.accepted for item in settled] == [True, False] * 5
    assert (await store.counts())["pending"] == 5


async def test_what_a_plugin_cannot_write_costs_the_others_nothing(
    queue: Any, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = await claimed(queue, 10)
    bad = [Upsert("health", {"name": "bad"}, {"url": {"a": 1}}), Insert(queue.new(HOOK))]
    good = [Upsert("health", {"name": "good"}, {"url": "u"}, {"seen": 1}), Insert(queue.new(HOOK))]
    settled = await asyncio.gather(
        *(queue.settle(task, effects=bad if n == 4 else good) for n, task in enumerate(tasks))
    )
    assert all(item.accepted and len(item.inserted) == 1 for item in settled)
    assert caplog.text.count("skipped a plugin's write") == 1
    [row] = await plugin_rows.rows(store, "health")
    assert (row["name"], row["seen"]) == ("good", 9)


async def test_new_tasks_of_many_clients_have_ids_in_their_order(queue: Any, store: Store) -> None:
    for first in range(0, 300, 100):
        waiting = [
            queue.add_all([queue.new(params={"n": n})] * 3) for n in range(first, first + 100)
        ]
        answers = await asyncio.gather(*waiting)
        ids = [item.id for items in answers for item in items]
        assert ids == sorted(set(ids))
        for n, items in enumerate(answers, first):
            assert (await store.read(search.get(items[0].id))).params == {"n": n}
    # Never used twice, even after the newest are gone.
    newest = max(ids)
    await store.close()
    queue.run(f"DELETE FROM retry_schedule WHERE id > {newest - 50}")
    await queue.open()
    answers = await asyncio.gather(*(queue.add_all([queue.new()] * 2) for _ in range(3)))
    later = [item.id for items in answers for item in items]
    assert later == sorted(set(later))
    assert later[0] > newest


async def test_idempotency_keys_that_come_at_once(queue: Any, store: Store) -> None:
    def bring(key: str, n: int, first: str | None = None) -> Any:
        tasks = [queue.new(unique_key=key, params={"n": n})]
        return queue.add_all([queue.new(params={"first": first})] * (first is not None) + tasks)

    results = await asyncio.gather(
        bring("a", 1), bring("b", 1), bring("a", 1), bring("a", 2, "of a"), bring("b", 1, "of b"),
        bring("c", 1), return_exceptions=True,
    )  # fmt: skip
    [a], [b], [again], reused, [before, b_again], [c] = results
    assert (a.duplicate, b.duplicate, c.duplicate, before.duplicate) == (False,) * 4
    assert (again.id, again.duplicate) == (a.id, True)
    assert (b_again.id, b_again.duplicate) == (b.id, True)
    assert isinstance(reused, UniqueKeyReused)
    assert (await store.counts())["pending"] == 4


async def test_many_keys_are_claimed_at_once(queue: Any, store: Store) -> None:
    keys = [Key(f"crm/e{n}", "ops" * (n % 2)) for n in range(300)]
    await queue.add_all([queue.new(key, delay=d) for d in (0, 0, 7) for key in keys])
    picks = [Pick(key, n % 4, bool(n % 3), queue.clock.now_ms()) for n, key in enumerate(keys)]
    taken = await store.write(claim.claim(picks))
    by_key: dict[Key, list[Task]] = {key: [] for key in keys}
    for task in taken.tasks:
        by_key[task.key].append(task)
    for n, key in enumerate(keys):
        tasks = by_key[key]
        assert [task.idempotent for task in tasks] == [bool(n % 3)] * min(n % 4, 2)
        assert [task.started_at for task in tasks] == [
            queue.clock.now_ms() if n % 3 else None
        ] * len(tasks)
        assert taken.earliest[key] == queue.clock.now_ms() + (7000 if len(tasks) == 2 else 0)
    assert [task.id for task in taken.tasks] != []
    assert {task.id: task for task in taken.tasks} == {
        task.id: await store.read(search.get(task.id)) for task in taken.tasks
    }
    assert (await store.counts())["running"] == len(taken.tasks)


async def test_a_key_that_is_named_twice_is_claimed_once(queue: Any, store: Store) -> None:
    await queue.add()
    pick = Pick(Key("crm/get"), 5, True, queue.clock.now_ms())
    assert len((await store.write(claim.claim([pick, pick]))).tasks) == 1
    assert (await store.counts())["running"] == 1


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "plain",
        '{"a": "\\"b\\"\\n\\u0000"}',
        "čau 🦀",
        "a\x00b\x1f\n\t\x7f",
        "\\",
        "x" * 300_000,
    ],
)
async def test_a_payload_comes_out_as_it_went_in(
    queue: Any, store: Store, text: str | None
) -> None:
    texts = ["before", text, None, text, "after ř"]
    params = {"text": text, "ř": [1, 2.5, None, True]}
    await queue.add_all(
        [queue.new(HOOK, payload=each, params=params, error=each) for each in texts]
    )
    tasks = await queue.claim(HOOK)
    assert [task.payload for task in tasks] == texts
    assert [task.last_error for task in tasks] == texts
    assert [task.params for task in tasks] == [params] * 5
    assert tasks[1] == await store.read(search.get(tasks[1].id))


async def test_more_are_claimed_than_are_read_at_once(queue: Any, store: Store) -> None:
    await queue.add_all([queue.new(HOOK, payload=f"payload {n}", delay=-n) for n in range(1000)])
    tasks = await queue.claim(HOOK, limit=777)
    assert [task.payload for task in tasks] == [f"payload {n}" for n in range(777)]
    assert (await store.counts())["pending"] == 223
