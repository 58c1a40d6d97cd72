"""Operations: what can be done to the queue, as values, and how the writing thread batches them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import wraps
from itertools import groupby
from operator import attrgetter
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from orchestratord.queue.connection import Connection
from orchestratord.queue.session import Session

log = logging.getLogger("orchestratord.queue")

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Rank(IntEnum):
    """The order within a transaction."""

    SETTLE = 0
    NEW = 1
    """New work, the one thing that is refused while the disk is full."""
    CLAIM = 2
    """Behind new work, which is claimed in the transaction that writes it."""
    HAND = 3
    """What people ask for."""
    MOVE = 4
    """What bulks move: tasks are locked before it, and bulks from here on."""
    KEEP = 5
    """Housekeeping, and what changes bulks alone."""
    THROTTLE = 6
    """What throttles, under one lock of all daemons."""


Batch = Callable[[Session, Sequence[Any]], Sequence[Any]]
"""Does an operation for several, in their order, in a few statements over many rows: for each its
result, or what is wrong with it, having written nothing. Where it raises, `Singly` for instance,
whatever it wrote is undone and each is done alone: for that one, and written `singly`.

What one row costs SQLite is a few microseconds; each statement besides gives the interpreter up to
the busy event loop and has to wait until it gets it back.
"""


@dataclass(slots=True, eq=False)  # not frozen: one is made for each step, which is dearer then
class Write(Generic[R_co]):
    """An operation that writes: what is to be done, when, and together with what.

    It is made by a function in `operations`, and is done by `Store.write`. `writes` makes such a
    function; where operations of a kind come in numbers, it has a batch.
    """

    rank: Rank
    do: Callable[[Session], R_co] | None
    """What to do; None where it is a part of a batch."""
    batch: Batch | None = None
    item: Any = None
    """What the batch is to be done for."""
    needs_room: bool = False
    """It is refused while the disk has no room for new work."""
    less: Callable[[Session], R_co] | None = None
    """Does less of it instead, where the disk has no room for all."""
    future: asyncio.Future[R_co] = field(init=False)
    """What its caller waits for, once it is on its way; it goes there once."""
    on_committed: OnCommitted | None = field(init=False, default=None)
    """What is called instead, once for all operations of a transaction that have the same and
    follow each other."""
    about: Any = field(init=False, default=None)
    """What it is done for, which `on_committed` finds here."""
    result: R_co | None = field(init=False, default=None)
    error: Exception | None = field(init=False, default=None)

    def run(self, session: Session) -> R_co:
        """Do it alone; raises what the operation raises."""
        if self.do is not None:
            return self.do(session)
        assert self.batch is not None
        with session.db.one_by_one():
            result: Any = self.batch(session, [self.item])[0]
        if isinstance(result, Exception):
            raise result
        return result  # type: ignore[no-any-return]


OnCommitted = Callable[[Sequence[Write[Any]]], None]
"""Is called on the loop with operations that were done, or refused, in one transaction."""


@dataclass(frozen=True, slots=True)
class Read(Generic[R_co]):
    """An operation that only looks something up, for `Store.read`."""

    look: Callable[[Connection], R_co]
    long: bool = False
    """Whether it may go through a million rows; what is short does not wait for it."""

    def map(self, make: Callable[[R_co], R]) -> Read[R]:
        """This read, whose result `make` turns into another on the reading thread."""
        look = self.look
        return Read(lambda db: make(look(db)), self.long)


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


def reads(
    look: Callable[Concatenate[Connection, P], R], *, long: bool = False
) -> Callable[P, Read[R]]:
    """Decorates what looks something up: called without a connection, it makes the operation.
    `long` as in `Read`."""

    @wraps(look)
    def make(*args: P.args, **kwargs: P.kwargs) -> Read[R]:
        return Read(lambda db: look(db, *args, **kwargs), long)

    return make


def long_reads(look: Callable[Concatenate[Connection, P], R]) -> Callable[P, Read[R]]:
    """Decorates what looks something up, and may go through a million rows."""
    return reads(look, long=True)


def in_order(operations: Sequence[Write[Any]]) -> list[list[Write[Any]]]:
    """The operations by rank, those together that can be done at once."""
    ranked = sorted(operations, key=attrgetter("rank"))
    return [list(found) for _, found in groupby(ranked, key=lambda one: one.batch or one)]


def do_all(session: Session, operations: Sequence[Write[Any]]) -> bool:
    """Do those of a run of `in_order` at once; False where each has to be done alone."""
    first, db = operations[0], session.db
    results: Sequence[Any]
    before = db.written
    try:
        if first.do is not None:
            results = [first.do(session)]
        else:
            assert first.batch is not None
            results = first.batch(session, [operation.item for operation in operations])
    except Exception as error:
        written = db.written != before or not db.in_transaction
        if first.do is None or written or isinstance(error, db.failures.errors):
            log.debug("done one by one: %s", error)
            return False
        results = [error]  # it had written nothing: there is nothing to undo
    if len(results) != len(operations):
        raise RuntimeError(f"{len(results)} results of {len(operations)} operations")
    for operation, found in zip(operations, results, strict=True):
        if isinstance(found, Exception):
            operation.result, operation.error = None, found
        else:
            operation.result, operation.error = found, None
    return True


def deliver(operations: Sequence[Write[Any]]) -> None:
    """Tell the callers that still wait; on the loop."""
    # First those of ends and of new tasks: a task is told of before its claim is.
    called = [operation for operation in operations if operation.on_committed is not None]
    for call, mine in groupby(called, attrgetter("on_committed")):  # nearly all have the same
        call(list(mine))
    for operation in operations:
        if operation.on_committed is not None or operation.future.done():
            continue  # the caller that waited was cancelled
        if operation.error is not None:
            operation.future.set_exception(operation.error)
        else:
            operation.future.set_result(operation.result)
