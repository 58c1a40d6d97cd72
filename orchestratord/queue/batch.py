"""Operations: what can be done to the queue, as values, and how the writing thread batches them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import wraps
from itertools import groupby
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from orchestratord.queue.connection import Connection
from orchestratord.queue.session import Session

A = TypeVar("A")
P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


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


@dataclass(slots=True, eq=False)  # not frozen: one is made for each step, which is dearer then
class Write(Generic[R_co]):
    """An operation that writes: what is to be done, when, and together with what.

    It is made by a function in `operations`, and is done by `Store.write`. `writes` makes such a
    function; where operations of a kind come in numbers, it has a batch.
    """

    rank: Rank
    do: Callable[[Session], R_co] | None
    """What to do; None where it is a part of a batch."""
    batch: Batch[Any, R_co] | None = None
    item: Any = None
    """What the batch is to be done for."""
    patient: bool = False
    """Nobody needs it done at once; while there is much to do, it waits for more."""
    needs_room: bool = False
    """It is refused while the disk has no room for new work."""

    def run(self, session: Session) -> R_co:
        """Do it alone; raises what the operation raises."""
        if self.batch is not None:
            return self.batch.alone(session, self.item)
        assert self.do is not None
        return self.do(session)


@dataclass(frozen=True, slots=True)
class Read(Generic[R_co]):
    """An operation that only looks something up, for `Store.read`."""

    look: Callable[[Connection], R_co]


def writes(
    rank: Rank,
) -> Callable[[Callable[Concatenate[Session, P], R]], Callable[P, Write[R]]]:
    """Decorates what is done to a session: called without one, it makes the operation."""

    def decorate(do: Callable[Concatenate[Session, P], R]) -> Callable[P, Write[R]]:
        @wraps(do)
        def make(*args: P.args, **kwargs: P.kwargs) -> Write[R]:
            return Write(rank, lambda session: do(session, *args, **kwargs))

        return make

    return decorate


def reads(look: Callable[Concatenate[Connection, P], R]) -> Callable[P, Read[R]]:
    """Decorates what looks something up: called without a connection, it makes the operation."""

    @wraps(look)
    def make(*args: P.args, **kwargs: P.kwargs) -> Read[R]:
        return Read(lambda db: look(db, *args, **kwargs))

    return make


@dataclass(slots=True, eq=False)
class Job:
    """An operation on its way, and who waits for it."""

    operation: Write[Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


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
    return job.operation.rank


def _batch(job: Job) -> Batch[Any, Any] | None:
    return job.operation.batch
