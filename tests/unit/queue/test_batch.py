from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from orchestratord.queue.batch import Batch, Rank, Write, deliver, in_order
from orchestratord.queue.session import Session


def one(session: Session, items: Sequence[Any]) -> Sequence[Any]:
    return list(items)


def two(session: Session, items: Sequence[Any]) -> Sequence[Any]:
    return list(items)


def job(rank: Rank, item: Any, batch: Batch | None = None) -> Write[Any]:
    do = None if batch else (lambda session: item)
    made = Write(rank, do, batch, item)
    made.future = asyncio.get_running_loop().create_future()
    return made


async def test_ranks_come_in_their_order_and_batches_together() -> None:
    jobs = [
        job(Rank.NEW, "a", two),
        job(Rank.SETTLE, "b", one),
        job(Rank.CLAIM, "c"),
        job(Rank.SETTLE, "d", one),
        job(Rank.SETTLE, "e"),
        job(Rank.SETTLE, "f"),
        job(Rank.SETTLE, "g", one),
        job(Rank.NEW, "h", two),
    ]
    runs = [[each.item for each in run] for run in in_order(jobs)]
    assert runs == [["b", "d"], ["e"], ["f"], ["g"], ["a", "h"], ["c"]]


async def test_who_has_gone_is_passed_over() -> None:
    gone, good, bad = job(Rank.NEW, 1), job(Rank.NEW, 2), job(Rank.NEW, 3)
    gone.future.cancel()
    good.result, bad.error = "result", ValueError("no")
    deliver([gone, good, bad])
    assert gone.future.cancelled()
    assert good.future.result() == "result"
    assert isinstance(bad.future.exception(), ValueError)


async def test_what_is_told_together_is_told_once_and_futures_besides() -> None:
    calls: list[list[Write[Any]]] = []

    def told(operations: Sequence[Write[Any]]) -> None:
        calls.append(list(operations))

    first, waits, second = job(Rank.SETTLE, 1), job(Rank.NEW, 2), job(Rank.SETTLE, 3)
    first.on_committed = second.on_committed = told
    second.error, waits.result = ValueError("no"), "result"
    deliver([first, waits, second])
    assert calls == [[first, second]]
    assert waits.future.result() == "result"
