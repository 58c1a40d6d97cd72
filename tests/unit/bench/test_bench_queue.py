"""Queues that are filled for a measurement, and the steps that are measured on them."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench import store
from bench.measures.fill import FULL, Filling, fill
from orchestratord.queue.store import Store

INDEXES = "SELECT name, sql FROM sqlite_master WHERE type = 'index' ORDER BY name"
ROWS = "SELECT endpoint_id, status, next_try IS NOT NULL FROM retry_schedule ORDER BY id"


async def filled(folder: Path, filling: Filling) -> list[tuple[Any, ...]]:
    """The rows of a queue that has been filled, in order; it has to be as whole as before."""
    file = folder / "queue.db"
    await (await Store.open(f"sqlite:///{file}")).close()
    indexes = read(file, INDEXES)
    fill(file, filling)
    assert read(file, INDEXES) == indexes
    reopened = await Store.open(f"sqlite:///{file}")
    try:
        assert sum((await reopened.counts()).values()) == filling.rows
    finally:
        await reopened.close()
    return read(file, ROWS)


def read(file: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(statement).fetchall()


@pytest.mark.parametrize("together", [True, False])
async def test_a_filled_queue_has_what_it_is_to_have(tmp_path: Path, together: bool) -> None:
    rows = await filled(tmp_path, Filling("", 10_000, due=600, together=together))
    apis = Counter(
        endpoint_id.split("/")[0] for endpoint_id, status, _ in rows if status == "pending"
    )
    assert {name: apis[name] for name in ("split1", "split10", "split100")} == {
        "split1": 200, "split10": 200, "split100": 200,
    }  # fmt: skip
    assert apis["full"] == 940
    assert sum(status == "succeeded" for _, status, _ in rows) == 4700
    assert all(due == (status == "pending") for _, status, due in rows)
    due = [i for i, (endpoint_id, *_) in enumerate(rows) if endpoint_id.startswith("split")]
    if together:
        assert due == list(range(9_400, 10_000))
    else:
        assert {b - a for a, b in pairwise(due)} == {16, 17}


async def test_all_but_what_shall_be_claimed_can_be_due_in_one_key(tmp_path: Path) -> None:
    rows = await filled(tmp_path, Filling("", 1_000, due=30, all_full=True))
    assert sum(endpoint_id == FULL.endpoint_id for endpoint_id, *_ in rows) == 970


async def test_each_step_is_measured(tmp_path: Path) -> None:
    filling = next(store.fillings(large=False))
    times = await store.measure(tmp_path, filling)
    assert list(times.wall) == list(times.cpu)
    assert {name: len(values) for name, values in times.wall.items()} == {
        "open": 1,
        "first due of each key": 1,
        "claim 100 of 1 key": store.ROUNDS,
        "settle 100": 3 * store.ROUNDS + store.ROUNDS_OF_FULL,
        "claim 100 of 10 keys": store.ROUNDS,
        "claim 100 of 100 keys": store.ROUNDS,
        "claim 100 of the full key": store.ROUNDS_OF_FULL,
    }
