"""What is submitted to the writing thread, and waits for its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby
from typing import Any, Generic, TypeVar

from orchestratord.queue.database import Connection
from orchestratord.queue.session import Session

A = TypeVar("A")
R = TypeVar("R")


class Rank(IntEnum):
    """The order within a transaction."""

    SETTLE = 0
    CLAIM = 1
    HAND = 2
    """What people ask for."""
    NEW = 3
    """New work, the one thing that is refused while the disk is full."""
    KEEP = 4
    """Housekeeping."""


@dataclass(frozen=True, slots=True)
class Batch(Generic[A, R]):
    """An operation that is cheaper for many at once, in a few statements over many rows.

    What one row costs SQLite is a few microseconds; each statement besides gives the interpreter
    up to the busy event loop and has to wait until it gets it back.
    """

    alone: Callable[[Session, A], R]
    """Does it for one."""
    together: Callable[[Session, Sequence[A]], Sequence[R | Exception]]
    """Does it for several, in their order: for each its result, or what `alone` would raise, having
    written nothing. Where it raises itself, `Singly` for instance, whatever it wrote is undone and
    each is done alone."""


class Singly(Exception):
    """One of them is not as it usually is: each has to be looked at by itself."""


@dataclass(slots=True, eq=False)
class Job:
    """One thing to do, and who waits for it."""

    rank: Rank
    operation: Callable[[Session], Any] | None
    """What to do; None where it is a part of a batch."""
    future: asyncio.Future[Any]
    batch: Batch[Any, Any] | None = None
    item: Any = None
    """What the batch is to be done for."""
    result: Any = None
    error: Exception | None = None

    def run(self, session: Session) -> Any:
        """Do it alone; raises what the operation raises."""
        if self.batch is not None:
            return self.batch.alone(session, self.item)
        assert self.operation is not None
        return self.operation(session)


def in_order(jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs by rank, those together that can be done at once."""
    ranked = sorted(jobs, key=_rank)
    return [
        run
        for batch, found in groupby(ranked, key=_batch)
        for run in ([list(found)] if batch is not None else [[job] for job in found])
    ]


def deliver(jobs: Sequence[Job]) -> None:
    """Tell everybody who still waits; on the loop."""
    for job in jobs:
        if job.future.done():
            continue  # whoever waited was cancelled
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)


def _rank(job: Job) -> int:
    return job.rank


def _batch(job: Job) -> Batch[Any, Any] | None:
    return job.batch


# -- One statement over many rows ------------------------------------------------------------------


class ManyRows:
    """A statement with `VALUES {rows}` where its rows go."""

    def __init__(self, sql: str, *types: str) -> None:
        """`types`: of the columns of a row, which are called `column1` and so on: bigint, text or
        float8."""
        self.sql = sql
        self.types = types

    def run(self, db: Connection, rows: Sequence[Sequence[Any]]) -> int:
        """Run it for all of them, in their order; the number of rows that were changed.

        Raises Singly where the database does not take one of them; what it did is undone then, or
        is for the caller to undo.
        """
        if not rows:
            return 0
        try:
            return db.many(self.sql, self.types, rows)
        except Exception as error:
            raise Singly(str(error)) from error
