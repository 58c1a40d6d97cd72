"""Group commit: one thread that writes everything that waits in one transaction.

It takes what there is and does not linger for more: while one transaction reaches the disk, the
next one gathers. Only where transactions are dear, and while there is much to do, settlements wait
a moment for each other. Within it settlements come first, then claims, then what people and clients
bring, then housekeeping. What comes in numbers is done in few statements (`Batch`). An
operation that fails, fails alone; a COMMIT that fails, fails for all. One that is not answered,
since the server or the way to it is lost, has done neither: the thread connects again and asks what
became of it.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from orchestratord.errors import QueueError
from orchestratord.model.task import Status
from orchestratord.queue.batch import Batch, Rank, Write, deliver, in_order
from orchestratord.queue.connection import BY_STATUS, Connection
from orchestratord.queue.database import Database
from orchestratord.queue.session import Session

log = logging.getLogger("orchestratord.queue")

T = TypeVar("T")

IDLE = 1.0
"""Seconds between two looks at the disk, and signs of life, while nothing is written."""

# Each status by itself: to group them by their status would compare the texts of all rows.
COUNT = f"SELECT count(*) FROM retry_schedule {BY_STATUS} WHERE status = ?"  # noqa: S608

RECONNECT_WAIT = 5.0
"""Seconds for which what waits to be written waits for the database to be back."""

PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)
"""Seconds between two tries to connect again; the last one is repeated."""

TOGETHER = 16
"""A transaction of so many operations shows that there is much to do: what can wait for others
does so then, where transactions are dear (`Database.gather`)."""
ENOUGH = 600
"""When so many wait, they wait no longer."""

REPEATS = 5
"""How often a transaction is done again that others stood in the way of."""

PROBE_BYTES = 64 * 1024
"""What has to fit on a disk that was full before new work is accepted again."""

PROBE = """
INSERT INTO meta (name, value) VALUES ('probe', ?)
ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""


class _Refused(Exception):
    """The database lost or refused the whole transaction."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause
        super().__init__(str(cause))


@dataclass(slots=True)
class DatabaseHealth:
    """How the writing thread and its database are. What is wrong with the database, or its disk,
    recovers by itself."""

    healthy: bool = True
    """False once the thread has died of a bug: nothing is written any more."""
    beat: float = field(default_factory=time.monotonic)
    """When the thread last went round (`time.monotonic`); at least once a second."""
    accepting: bool = True
    """False while the disk has no room for new work: it is over 95 %, or was full."""
    unreachable: str | None = None
    """Why the database cannot be reached; None while it can."""
    lost_at: float = 0.0
    """Since when (`time.monotonic`)."""
    back_at: float = float("-inf")
    """Since when it can be reached again (`time.monotonic`)."""

    @property
    def refusing(self) -> str | None:
        """Why nobody need wait for the database; None where it may be back in a moment."""
        lost = self.unreachable is not None and time.monotonic() - self.lost_at > RECONNECT_WAIT
        return self.unreachable if lost else None


class Writer:
    """The writing thread of one store."""

    def __init__(self, database: Database, setup: Callable[[], Session]) -> None:
        """`setup` runs first, on the thread: it opens the database and may raise."""
        self.health = DatabaseHealth()
        self.counts: dict[str, int] = {}
        """How many tasks each status has, as of the last transaction."""
        self.committed: Callable[[Session], None] = lambda session: None
        """Called on the thread after each COMMIT that wrote something."""
        self._database = database
        self._failures = database.failures
        self._troubles: tuple[type[Exception], ...] = (*database.failures.errors, OSError)
        self._setup = setup
        self._inbox: queue.SimpleQueue[Write[Any] | None] = queue.SimpleQueue()
        self._in_hand: list[Write[Any]] = []
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[Session] = self._loop.create_future()
        self._failure: BaseException | None = None
        self._closed = False
        self._full = False
        self._open = False
        """A transaction was begun and did not come to its COMMIT."""
        self._next_look = 0.0
        self._foreign = 0
        self._gather = database.gather
        self._began = 0.0
        """When the last transaction began, if it was of many."""
        self._hurry = threading.Event()
        """There is something that does not wait for others."""
        self._thread = threading.Thread(target=self._main, name="orchestratord-writer", daemon=True)

    # -- the loop's side -----------------------------------------------------------------------

    async def start(self) -> Session:
        """Start the thread and wait until the database is open. Raises what `setup` raises."""
        self._thread.start()
        return await self._ready

    def submit(self, operation: Write[T]) -> asyncio.Future[T]:
        """Do it in the next transaction; the future has its result after the COMMIT.

        It is done although who waits for it is cancelled. The future has what it raises,
        StorageFull, or QueueError where the database refused.
        """
        self._check_alive()
        if self._closed:
            raise QueueError("the queue is closed")
        operation.future = self._loop.create_future()
        self._inbox.put(operation)
        if self._gather and (not operation.patient or self._inbox.qsize() >= ENOUGH):
            self._hurry.set()
        try:
            self._check_alive()  # it may have died in this moment, without having seen it
        except QueueError:
            operation.future.cancel()
            raise
        return operation.future

    def _check_alive(self) -> None:
        if self._failure is not None:
            raise QueueError(f"the writing thread has died: {self._failure}")

    async def close(self) -> None:
        """Write what waits, then end the thread, which closes the connection."""
        if not self._closed:
            self._closed = True
            self._inbox.put(None)
            self._hurry.set()
        while self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    # -- the thread's side ---------------------------------------------------------------------

    def _main(self) -> None:
        session: Session | None = None
        try:
            session = self._setup()
            self._recount(session)
            session.db.shrink()  # a million rows were counted, and are not needed again
        except BaseException as error:
            if session is not None:
                session.db.close()
            self._closed = True
            self._tell(self._ready.set_exception, error)
            return
        self._tell(self._ready.set_result, session)
        try:
            while self._round(session):
                self.health.beat = time.monotonic()
        except BaseException as error:
            self._died(error)
        finally:
            session.db.close()

    def _round(self, session: Session) -> bool:
        operations, last = self._take()
        if operations:
            self._began = time.monotonic() if len(operations) >= TOGETHER else 0.0
            self._in_hand = operations
            self._write(session, operations)
            self._in_hand = []
            self._tell(deliver, operations)
        try:
            if last:
                session.db.checkpoint()
            elif time.monotonic() >= self._next_look:
                self._next_look = time.monotonic() + IDLE
                self._look(session)
        except self._troubles as error:
            log.warning("the database cannot be looked after: %s", error)
        return not last

    def _take(self) -> tuple[list[Write[Any]], bool]:
        operations: list[Write[Any]] = []
        try:
            operation = self._inbox.get(timeout=IDLE)
            if self._gather:
                self._wait_for_more()
            while operation is not None:
                operations.append(operation)
                operation = self._inbox.get_nowait()
        except queue.Empty:
            return operations, False
        return operations, True

    def _wait_for_more(self) -> None:
        rest = self._began + self._gather - time.monotonic()
        if rest > 0:
            self._hurry.wait(rest)
        self._hurry.clear()

    def _write(self, session: Session, operations: list[Write[Any]]) -> None:
        runs = in_order(operations)
        deadline, tries = time.monotonic(), 0
        if self.health.unreachable is None:
            deadline += RECONNECT_WAIT
        while True:
            try:
                if not self._together(session, runs):
                    self._one_by_one(session, [operation for run in runs for operation in run])
                return
            except _Refused as refused:
                cause, tries = refused.cause, tries + 1
                if self._failures.is_passing(cause) and tries <= REPEATS:
                    log.debug("the transaction is done again: %s", cause)
                    self.health.beat = time.monotonic()
                    time.sleep(PAUSES[0] * tries * random.random())  # noqa: S311  # no secret
                    continue
                if self._failures.is_lost(cause):
                    committed = self._mend(session, cause, deadline)
                    if committed:
                        self._done(session)
                        return
                    if committed is False:
                        continue
                self._refuse(session, operations, cause)
                return

    def _mend(self, session: Session, cause: Exception, deadline: float) -> bool | None:
        """Connect again. Whether the transaction was committed; None where the database was not
        back before the deadline, and the transaction was not.

        While nobody knows what became of a COMMIT, everything waits: to do it again could do it
        twice, and to refuse it would be wrong of what was done.
        """
        tries = 0
        while True:
            if self.health.unreachable is None and tries:
                log.error("%s; trying again", self._failures.named(cause))
                self.health.unreachable = str(self._failures.named(cause))
                self.health.lost_at = time.monotonic()
            time.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
            self.health.beat = time.monotonic()
            try:
                committed = session.db.mend()
            except self._failures.errors as error:
                if not self._failures.is_lost(error):
                    raise
                cause, tries = error, tries + 1
            else:
                self._back()
                return bool(committed)
            if not session.db.in_doubt and (time.monotonic() > deadline or self._closed):
                return None
            if self._closed and time.monotonic() > deadline:
                return None  # the daemon ends; whoever finds the claims later takes them over

    def _back(self) -> None:
        if self.health.unreachable is not None:
            log.warning("the database is back")
            self.health.back_at, self.health.unreachable = time.monotonic(), None

    def _together(self, session: Session, runs: Sequence[Sequence[Write[Any]]]) -> bool:
        """All in one transaction; False, and nothing written, where one fails half-way."""
        self._begin(session)
        for run in runs:
            batch = run[0].batch
            if not (self._single(session, run[0]) if batch is None else _all(session, batch, run)):
                session.db.rollback()
                return False
        try:
            session.write_successes()
        except Exception as error:
            log.debug("done one by one: %s", error)
            session.db.rollback()
            return False
        self._commit(session)
        return True

    def _single(self, session: Session, operation: Write[Any]) -> bool:
        """One by itself; False where it fails and has to be undone."""
        before = session.db.written
        try:
            operation.result, operation.error = operation.run(session), None
        except Exception as error:
            if isinstance(error, self._failures.errors) or session.db.written != before:
                return False
            operation.error = error  # it had written nothing: there is nothing to undo
        return True

    def _one_by_one(self, session: Session, operations: Sequence[Write[Any]]) -> None:
        """Each in a savepoint of its own, so that the one that fails can be undone."""
        self._begin(session)
        try:
            for operation in operations:
                self._alone(session, operation)
        except self._failures.errors as error:
            session.db.rollback()
            raise _Refused(error) from error
        self._commit(session)

    def _alone(self, session: Session, operation: Write[Any]) -> None:
        moves, due = Counter(session.moves), dict(session.due)
        session.db.savepoint()
        try:
            operation.result, operation.error = operation.run(session), None
        except Exception as error:
            if self._for_all(error) or not session.db.in_transaction:
                raise  # the savepoint is gone, and what the others wrote with it
            session.db.undo()
            session.moves, session.due = moves, due
            ours = isinstance(error, self._failures.errors)
            operation.error = self._failures.named(error) if ours else error
        else:
            session.db.keep()

    def _for_all(self, error: Exception) -> bool:
        """Whether it is no fault of the operation's."""
        f = self._failures
        return f.is_full(error) or f.is_lost(error) or f.is_passing(error)

    def _begin(self, session: Session) -> None:
        session.begin(not self._open)
        try:
            session.db.begin()
        except self._failures.errors as error:
            raise _Refused(error) from error
        self._open = True

    def _commit(self, session: Session) -> None:
        try:
            session.db.commit()
        except self._failures.errors as error:
            session.db.rollback()
            raise _Refused(error) from error
        self._done(session)

    def _done(self, session: Session) -> None:
        """It is committed."""
        self._open = False
        self._back()
        if session.moves:
            total = Counter(self.counts)
            total.update(session.moves)
            self.counts = dict(total)
        self.committed(session)

    def _refuse(self, session: Session, operations: Sequence[Write[Any]], cause: Exception) -> None:
        """A full disk refuses new work first: what is queued may still fit, and goes on."""
        for operation in operations:
            operation.error = self._failures.named(cause)
        if not self._failures.is_full(cause):
            return
        if self.health.accepting:
            named = self._failures.named(cause)
            log.error("%s; no new work is accepted until there is some", named)
        self._full, self.health.accepting = True, False
        rest = [operation for operation in operations if operation.rank != Rank.NEW]
        if rest and len(rest) < len(operations):
            try:
                self._one_by_one(session, rest)
            except _Refused as again:
                for operation in rest:
                    operation.error = self._failures.named(again.cause)

    def _look(self, session: Session) -> None:
        """Look at the disk, and for another program that has written; or for the server."""
        if self.health.unreachable is not None:
            try:
                session.db.mend()
            except self._failures.errors:
                return
            self._back()
        crowded = self._database.crowded()
        if self._full and not crowded:
            self._full = not self._probe(session)
        accepting = not (crowded or self._full)
        if accepting != self.health.accepting:
            self.health.accepting = accepting
            if accepting:
                log.warning("the disk has room: new work is accepted again")
            else:
                log.error("the disk is nearly full: no new work is accepted until there is room")
        if self._foreign != session.db.foreign_changes():
            self._recount(session)

    def _probe(self, session: Session) -> bool:
        """True where something of a size worth having can be written."""
        try:
            for sql, values in (
                (PROBE, ("0" * PROBE_BYTES,)),
                ("DELETE FROM meta WHERE name = 'probe'", ()),
            ):
                session.db.begin()
                session.db.run(sql, values)
                session.db.commit()
        except self._failures.errors:
            session.db.rollback()
            return False
        return True

    def _recount(self, session: Session) -> None:
        self._foreign = session.db.foreign_changes()
        self.counts = counted(session.db)

    def _died(self, error: BaseException) -> None:
        """A bug: fail everything that waits, and everything that will come."""
        self._failure = error
        self.health.healthy = False
        log.critical("the writing thread has died", exc_info=error)
        operations = self._in_hand
        try:
            while True:
                if (operation := self._inbox.get_nowait()) is not None:
                    operations.append(operation)
        except queue.Empty:
            pass
        for operation in operations:
            operation.error = QueueError(f"the writing thread has died: {error}")
        self._tell(deliver, operations)

    def _tell(self, call: Callable[..., Any], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            log.debug("the loop has ended; nobody waits for the answer")


def counted(db: Connection) -> dict[str, int]:
    """How many tasks each status has."""
    return {str(status): db.all(COUNT, (str(status),))[0][0] for status in Status}


def _all(session: Session, batch: Batch[Any, Any], operations: Sequence[Write[Any]]) -> bool:
    """All of a batch at once; False where each has to be done alone."""
    try:
        results = batch.together(session, [operation.item for operation in operations])
    except Exception as error:
        log.debug("done one by one: %s", error)
        return False
    for operation, result in zip(operations, results, strict=True):
        failed = isinstance(result, Exception)
        operation.result, operation.error = (None, result) if failed else (result, None)
    return True
