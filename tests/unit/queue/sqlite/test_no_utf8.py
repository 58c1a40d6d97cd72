"""Bytes that are no text, as others may have written them, harm no other row."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestratord.model.task import Key, NewTask, Task, UnreadableParams
from orchestratord.queue.operations import claim, effects, search
from orchestratord.queue.records import Insert, Pick, TaskFilter
from orchestratord.queue.store import Store

KEY = Key("crm/get")
BAD = "CAST(x'7b2261223a22c3ff227d' AS TEXT)"
"""JSON but for two bytes in a string."""


def write(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


async def two(store: Store) -> tuple[int, int]:
    new = [Insert(NewTask("call", "crm/get", {"n": n})) for n in (1, 2)]
    bad, good = await store.write(effects.enqueue(new))
    return bad.id, good.id


async def claimed(store: Store) -> list[Task]:
    return (await store.write(claim.claim([Pick(KEY, 9, True, 1 << 60)]))).tasks


@pytest.mark.parametrize("value", [BAD, "CAST(x'7b22ff7d' AS TEXT)"])
async def test_params_fail_alone(path: Path, store: Store, value: str) -> None:
    bad, good = await two(store)
    write(path, f"UPDATE retry_schedule SET params = {value} WHERE id = {bad}")
    assert isinstance((await store.read(search.get(bad))).params, UnreadableParams)
    found, _ = await store.read(search.page(TaskFilter(), 9))
    assert {task.id for task in found} == {bad, good}
    tasks = await claimed(store)
    assert [task.id for task in tasks] == [bad, good]
    assert isinstance(tasks[0].params, UnreadableParams)
    assert tasks[1].params == {"n": 2}


async def test_long_params_in_a_list(path: Path, store: Store) -> None:
    bad, _ = await two(store)
    long = f"CAST(x'7b2261223a22ff{'61' * 3000}227d' AS TEXT)"
    write(path, f"UPDATE retry_schedule SET params = {long} WHERE id = {bad}")
    found, _ = await store.read(search.page(TaskFilter(), 9))
    assert [isinstance(one.params, UnreadableParams) for one in found if one.id == bad] == [True]


@pytest.mark.parametrize("column", ["payload", "last_error"])
async def test_other_texts_are_shown_as_far_as_they_go(
    path: Path, store: Store, column: str
) -> None:
    bad, good = await two(store)
    write(path, f"UPDATE retry_schedule SET {column} = {BAD} WHERE id = {bad}")
    assert getattr(await store.read(search.get(bad)), column) == '{"a":"\ufffd\ufffd"}'
    found, _ = await store.read(search.page(TaskFilter(), 9))
    assert {task.id for task in found} == {bad, good}
    tasks = await claimed(store)
    assert [task.id for task in tasks] == [bad, good]
    assert getattr(tasks[0], column) == '{"a":"\ufffd\ufffd"}'


async def test_a_response(path: Path, store: Store) -> None:
    bad, good = await two(store)
    write(path, f"UPDATE retry_schedule SET response = {BAD} WHERE id = {bad}")
    assert (await store.read(search.whole(bad))).response == {"a": "\ufffd\ufffd"}
    assert [task.id for task in await claimed(store)] == [bad, good]


async def test_one_that_died_with_its_daemon_is_taken_over(path: Path, store: Store) -> None:
    bad, good = await two(store)
    await claimed(store)
    write(path, "UPDATE retry_schedule SET locked_by = 'dead'")
    write(path, f"UPDATE retry_schedule SET params = {BAD} WHERE id = {bad}")
    _, tasks = await claim.reclaim(store)
    assert sorted(task.id for task in tasks) == [bad, good]
