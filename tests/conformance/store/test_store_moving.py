"""A queue moves from SQLite to PostgreSQL: whole, once, and where it was broken off goes on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from orchestratord_outbox.outbox_tables import TAKEN

from orchestratord.errors import DatabaseInUse, QueueError, Unreachable
from orchestratord.model.event import RETRY_AFTER, StoredThrottle
from orchestratord.model.task import Key, Status, Upsert
from orchestratord.queue.admin import move
from orchestratord.queue.operations import (
    claim,
    daemons,
    effects,
    manual,
    schedules,
    search,
    stored_throttles,
)
from orchestratord.queue.records import Beat, TaskFilter
from orchestratord.queue.schema import HALF
from orchestratord.queue.store import Store
from orchestratord.values.rate_limit import RateLimit
from tests.conformance.store.conftest import HEALTH
from tests.postgres import Postgres

HOOK = Key("crm/get", "ops")
OF_PLUGINS = (HEALTH, TAKEN)
TABLES = (
    "retry_schedule", "attempts", "endpoint_state", "schedules", "bulks", "actions", "health",
    "outbox_taken", "throttles", "rates",
)  # fmt: skip


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/old/queue.db"


@pytest.fixture
def target(postgres: Postgres) -> Iterator[str]:
    made = postgres.create()
    yield made
    postgres.drop(made)


@pytest.fixture
async def old(unopened: Callable[[], Any]) -> Any:
    """A queue with something of everything, closed."""
    queue, chance = unopened(), random.Random(3)
    store = await queue.open(*OF_PLUGINS)
    for n in range(40):
        await queue.ended(chance.choice([Status.SUCCEEDED, Status.FAILED, Status.CANCELLED]))
        await queue.add(HOOK, payload=f"nul \x00 {n}", error="ř", delay=n, unique_key=f"k{n}")
    await queue.add()
    await queue.claim()
    [task] = await queue.claim(HOOK, limit=1)
    await queue.settle(task, attempt=queue.attempt(task, 503, error="e\x00", delay=1.5),
                       last_success_at=7)  # fmt: skip
    await store.write(manual.pause("crm/get", True))
    await store.write(schedules.take_slot("crm/get", "every 15m", None, 100, [(1, 9)], None))
    await queue.bulk(TaskFilter(status=("failed",)), 1.5)
    await store.write(
        effects.write_effects([Upsert("health", {"name": "ops"}, {"url": "u"}, {"seen": 3})])
    )
    queue.run("INSERT INTO outbox_taken (uid, at) VALUES ('6b8e', 7)")
    began = {"api:crm": (RateLimit(5000, "d"), [queue.clock.now_ms()] * 3)}
    await claim.charge_past(store, began)
    told = StoredThrottle("api:crm", RETRY_AFTER, "", 7, 1 << 41, "429 with Retry-After")
    await store.write(stored_throttles.note("here", [told], []))
    queue.last = ((await store.read(search.page(TaskFilter(), 1)))[0])[0].id
    await store.close()
    return queue


def tables(queue: Any, url: str) -> dict[str, list[dict[str, Any]]]:
    queue.url = url
    found = {}
    for table in TABLES:
        rows = queue.run(f"SELECT * FROM {table}")
        for row in rows:
            row.pop("lease_until", None)
        found[table] = sorted(rows, key=repr)
    return found


async def test_everything_is_there_and_goes_on(old: Any, url: str, target: str) -> None:
    before = tables(old, url)
    instance = old.run("SELECT value FROM meta WHERE name = 'instance'")
    moved = move.move(url, target, OF_PLUGINS)
    assert moved == len(before["retry_schedule"])
    assert tables(old, target) == before
    assert old.run("SELECT value FROM meta WHERE name = 'instance'") == instance
    store = await old.open(*OF_PLUGINS)
    assert await old.add() > old.last
    assert len((await claim.reclaim(store))[1]) == 1  # what its daemon had under way
    old.clock.turn(100)
    [payload] = {
        (await store.read(search.get(t.id))).payload for t in await old.claim(HOOK, limit=1)
    }
    assert "\x00" in (payload or "")
    await store.close()


@pytest.mark.parametrize("after", [1, 4, 9])
async def test_broken_off_it_goes_on(
    old: Any, url: str, target: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(move, "PAGE", 7)
    before, steps = tables(old, url), 0

    def moved(table: str, done: int, of: int) -> None:
        nonlocal steps
        steps += 1
        if steps == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        move.move(url, target, OF_PLUGINS, moved)
    written: list[tuple[str, int]] = []
    move.move(url, target, OF_PLUGINS, lambda table, done, of: written.append((table, done)))
    assert tables(old, target) == before
    assert len(written) + after >= sum(-(-len(rows) // 7) for rows in before.values())


def broken_off(url: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(move, "PAGE", 7)

    def moved(table: str, done: int, of: int) -> None:
        if done >= 14:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        move.move(url, target, OF_PLUGINS, moved)


async def test_nobody_works_on_a_part(
    old: Any, url: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether an endpoint is paused, for instance, is moved after its tasks."""
    broken_off(url, target, monkeypatch)
    with pytest.raises(DatabaseInUse, match=f"only a part of the queue in {url} is here"):
        await Store.open(target)
    move.move(url, target, OF_PLUGINS)
    await (await Store.open(target)).close()


async def test_who_works_on_the_file_again_ends_the_move(
    old: Any, url: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is changed there behind the move's back would be missing in the target."""
    broken_off(url, target, monkeypatch)
    await (await Store.open(url)).close()
    with pytest.raises(QueueError, match=r"queue\.db was used since this move was broken off"):
        move.move(url, target, OF_PLUGINS)
    await (await Store.open(url)).close()


async def test_broken_off_before_the_last_word_it_is_finished(
    old: Any, url: str, target: str
) -> None:
    before = tables(old, url)
    move.move(url, target, OF_PLUGINS)
    old.url = target
    old.run(f"INSERT INTO meta VALUES ('{HALF}', '{url}')")  # as if killed between two commits
    with pytest.raises(DatabaseInUse, match="only a part"):
        await Store.open(target)
    assert move.move(url, target, OF_PLUGINS) == len(before["retry_schedule"])
    assert tables(old, target) == before
    await (await Store.open(target)).close()


async def test_afterwards_nobody_opens_the_old_one(old: Any, url: str, target: str) -> None:
    move.move(url, target, OF_PLUGINS)
    with pytest.raises(DatabaseInUse, match=r"was moved to postgresql://tester:\*\*\*@"):
        await Store.open(url)
    with pytest.raises(DatabaseInUse, match="was moved to"):
        move.move(url, target, OF_PLUGINS)


async def test_what_is_refused(old: Any, url: str, target: str) -> None:
    old.url = url
    store = await old.open(*OF_PLUGINS)
    with pytest.raises(DatabaseInUse, match="is in use by"):
        move.move(url, target, OF_PLUGINS)
    await store.close()
    with pytest.raises(QueueError, match="from sqlite:///… to postgresql://…"):
        move.move(target, url, OF_PLUGINS)
    with pytest.raises(QueueError, match=r"there is no .*/mistyped\.db"):
        move.move(url.replace("queue.db", "mistyped.db"), target, OF_PLUGINS)
    assert not Path(url.removeprefix("sqlite:///")).with_name("mistyped.db").exists()
    old.url = target
    store = await old.open(*OF_PLUGINS)
    await old.add()
    await store.close()
    with pytest.raises(QueueError, match=r"rows of its own.* with TRUNCATE retry_schedule, "):
        move.move(url, target, OF_PLUGINS)


async def test_what_is_in_the_target_hides_nothing_of_the_source(
    old: Any, url: str, target: str
) -> None:
    """A daemon that ran there once has left rows, but no tasks: a pause of the source was lost."""
    before, old.url = tables(old, url), target
    store = await old.open(*OF_PLUGINS)
    await store.write(manual.pause("crm/get", True))
    await store.write(manual.pause("crm/get", False))
    row = Upsert("health", {"name": "ops"}, {"url": "of the try"}, {"seen": 1})
    await store.write(effects.write_effects([row]))
    await store.close()
    with pytest.raises(QueueError) as refused:
        move.move(url, target, OF_PLUGINS)
    remedy = f"TRUNCATE {str(refused.value).partition(' TRUNCATE ')[2]}"
    assert remedy == "TRUNCATE endpoint_state, health"
    old.run(remedy)
    move.move(url, target, OF_PLUGINS)
    assert tables(old, target) == before


async def test_what_was_told_and_accepted_is_not_told_and_asked_again(
    old: Any, url: str, target: str
) -> None:
    known = {
        "removed_endpoints": '["crm/old"]',
        "failing_told:crm/get": "7",
        "missed_slots:crm/a": "{}",
    }
    for name, value in known.items():
        old.url = url
        old.run(f"INSERT INTO meta VALUES ('{name}', '{value}')")
    old.url = target
    await (await old.open(*OF_PLUGINS)).close()
    old.run(
        "INSERT INTO meta VALUES ('failing_told:crm/of the try', '9'), ('missed_slots:crm/a', '')"
    )
    move.move(url, target, OF_PLUGINS)
    there = {row["name"]: row["value"] for row in old.run("SELECT * FROM meta")}
    assert {name: there[name] for name in there if name in known or "crm" in name} == known


async def test_rows_of_a_plugin_that_is_not_loaded_are_not_left_behind(
    old: Any, url: str, target: str
) -> None:
    with pytest.raises(
        QueueError, match=r"queue\.db has rows in health, outbox_taken, which no plug"
    ):
        move.move(url, target, ())
    await (await Store.open(url)).close()
    old.run("DELETE FROM health")
    assert move.move(url, target, [TAKEN])


async def test_bytes_where_a_text_should_be_are_moved_as_one(
    old: Any, url: str, target: str
) -> None:
    """As after an edit by a program; the row fails alone, and keeps no other from being moved."""
    old.run("UPDATE retry_schedule SET params = x'7b2263ff' WHERE id = 1")
    old.run("UPDATE retry_schedule SET params = x'7b7d' WHERE id = 2")
    assert move.move(url, target, OF_PLUGINS)
    old.url = target
    store = await old.open(*OF_PLUGINS)
    assert (await store.read(search.get(2))).params == {}
    assert "not JSON" in str((await store.read(search.get(1))).params.why)
    await store.close()


async def test_what_is_wrong_with_the_file_is_named_as_for_a_file(
    old: Any, url: str, target: str
) -> None:
    [found] = old.run("SELECT rootpage FROM sqlite_master WHERE name = 'attempts'")
    with Path(url.removeprefix("sqlite:///")).open("r+b") as file:
        file.seek((found["rootpage"] - 1) * 4096)
        file.write(bytes(4096))
    with pytest.raises(Unreachable, match="the database is damaged; keep a copy"):
        move.move(url, target, OF_PLUGINS)


async def test_a_row_that_another_program_writes_meanwhile_ends_the_move(
    old: Any, url: str, target: str
) -> None:
    """It may not take the place of one of the source without a word."""

    def moved(table: str, done: int, of: int) -> None:
        if table == "attempts":
            old.url = target
            old.run("INSERT INTO endpoint_state (endpoint_id, paused) VALUES ('crm/get', 0)")

    with pytest.raises(QueueError, match=r"duplicate key .*endpoint_state"):
        move.move(url, target, OF_PLUGINS, moved)
    with pytest.raises(DatabaseInUse, match="only a part"):
        await Store.open(target)
    old.run("DELETE FROM endpoint_state")
    move.move(url, target, OF_PLUGINS)
    assert old.run("SELECT paused FROM endpoint_state WHERE endpoint_id = 'crm/get'") == [
        {"paused": 1}
    ]


async def test_a_daemon_on_the_target_is_waited_for_until_its_lease_has_run_out(
    old: Any, url: str, target: str
) -> None:
    store = await Store.open(target, lease=60)
    await store.write(daemons.give_sign(Beat("alpha", 7, "1.0")))
    await store.close()  # as one that was killed, it has not taken leave
    with pytest.raises(DatabaseInUse, match="works on the target, pid 7 on alpha: stop it first"):
        move.move(url, target, OF_PLUGINS)
    old.url = target
    old.run("UPDATE daemons SET lease_until = lease_until - 60000")
    assert move.move(url, target, OF_PLUGINS)
