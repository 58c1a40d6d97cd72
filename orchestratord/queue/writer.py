"""Group commit: one thread that writes everything that waits in one transaction.

It takes what there is and does not linger for more: while one transaction reaches the disk, the
next one gathers. Within it settlements come first, then claims, then what people and clients bring,
then housekeeping. An operation that fails, fails alone; a COMMIT that fails, fails for all.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar, cast

from orchestratord.errors import QueueError
from orchestratord.queue.database import ERRORS, Database, is_full, named
from orchestratord.queue.session import Session
from orchestratord.task import Status

log = logging.getLogger("orchestratord.queue")

T = TypeVar("T")

IDLE = 1.0
"""Seconds between two looks at the disk, and signs of life, while nothing is written."""

PROBE_BYTES = 64 * 1024
"""What has to fit on a disk that was full before new work is accepted again."""

PROBE = """
INSERT INTO meta (name, value) VALUES ('probe', ?)
ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""


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


@dataclass(slots=True, eq=False)
class _Job:
    rank: Rank
    operation: Callable[[Session], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class _Refused(Exception):
    """The database lost or refused the whole transaction."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause
        super().__init__(str(cause))


class Writer:
    """The writing thread of one store."""

    def __init__(self, database: Database, setup: Callable[[], Session]) -> None:
        """`setup` runs first, on the thread: it opens the database and may raise."""
        self.beat = time.monotonic()
        """When the thread last went round (`time.monotonic`)."""
        self.accepting = True
        """False while the disk has no room for new work."""
        self.counts: dict[str, int] = {}
        """How many tasks each status has, as of the last transaction."""
        self._database = database
        self._setup = setup
        self._inbox: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._in_hand: list[_Job] = []
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[Session] = self._loop.create_future()
        self._failure: BaseException | None = None
        self._closed = False
        self._full = False
        self._next_look = 0.0
        self._foreign = 0
        self._thread = threading.Thread(target=self._main, name="orchestratord-writer", daemon=True)

    # -- the loop's side -----------------------------------------------------------------------

    async def start(self) -> Session:
        """Start the thread and wait until the database is open. Raises what `setup` raises."""
        self._thread.start()
        return await self._ready

    @property
    def healthy(self) -> bool:
        """False once the thread has died of a bug: nothing is written any more."""
        return self._failure is None and (self._closed or self._thread.is_alive())

    async def submit(self, rank: Rank, operation: Callable[[Session], T]) -> T:
        """Run `operation` in the next transaction and return its result after the COMMIT.

        It runs although the caller is cancelled. Raises what it raises, StorageFull, or QueueError
        where the database refused.
        """
        self._check_alive()
        if self._closed:
            raise QueueError("the queue is closed")
        job = _Job(rank, operation, self._loop.create_future())
        self._inbox.put(job)
        try:
            self._check_alive()  # it may have died in this moment, without having seen the job
        except QueueError:
            job.future.cancel()
            raise
        return cast("T", await job.future)

    def _check_alive(self) -> None:
        if self._failure is not None:
            raise QueueError(f"the writing thread has died: {self._failure}")

    async def close(self) -> None:
        """Write what waits, then end the thread, which closes the connection."""
        if not self._closed:
            self._closed = True
            self._inbox.put(None)
        while self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    # -- the thread's side ---------------------------------------------------------------------

    def _main(self) -> None:
        session: Session | None = None
        try:
            session = self._setup()
            self._recount(session)
        except BaseException as error:
            if session is not None:
                session.db.close()
            self._closed = True
            self._tell(self._ready.set_exception, error)
            return
        self._tell(self._ready.set_result, session)
        try:
            while self._round(session):
                self.beat = time.monotonic()
        except BaseException as error:
            self._died(error)
        finally:
            session.db.close()

    def _round(self, session: Session) -> bool:
        jobs, last = self._take()
        if jobs:
            self._in_hand = jobs
            self._write(session, jobs)
            self._in_hand = []
            self._tell(_deliver, jobs)
        try:
            if last:
                session.db.checkpoint()
            elif time.monotonic() >= self._next_look:
                self._next_look = time.monotonic() + IDLE
                self._look(session)
        except (*ERRORS, OSError) as error:
            log.warning("the database cannot be looked after: %s", error)
        return not last

    def _take(self) -> tuple[list[_Job], bool]:
        jobs: list[_Job] = []
        try:
            job = self._inbox.get(timeout=IDLE)
            while job is not None:
                jobs.append(job)
                job = self._inbox.get_nowait()
        except queue.Empty:
            return jobs, False
        return jobs, True

    def _write(self, session: Session, jobs: list[_Job]) -> None:
        jobs.sort(key=lambda job: job.rank)
        try:
            if not self._together(session, jobs):
                self._one_by_one(session, jobs)
        except _Refused as refused:
            self._refuse(session, jobs, refused.cause)

    def _together(self, session: Session, jobs: Sequence[_Job]) -> bool:
        """All in one transaction; False, and nothing written, where one fails half-way."""
        self._begin(session)
        for job in jobs:
            before = session.db.written
            try:
                job.result, job.error = job.operation(session), None
            except Exception as error:
                if isinstance(error, ERRORS) or session.db.written != before:
                    session.db.rollback()
                    return False
                job.error = error  # it had written nothing: there is nothing to undo
        self._commit(session)
        return True

    def _one_by_one(self, session: Session, jobs: Sequence[_Job]) -> None:
        """Each in a savepoint of its own, so that the one that fails can be undone."""
        self._begin(session)
        try:
            for job in jobs:
                self._alone(session, job)
        except ERRORS as error:
            session.db.rollback()
            raise _Refused(error) from error
        self._commit(session)

    def _alone(self, session: Session, job: _Job) -> None:
        moves = Counter(session.moves)
        session.db.savepoint()
        try:
            job.result, job.error = job.operation(session), None
        except Exception as error:
            if is_full(error) or not session.db.in_transaction:
                raise  # the savepoint is gone, and what the others wrote with it
            session.db.undo()
            session.moves = moves
            job.error = named(error) if isinstance(error, ERRORS) else error
        else:
            session.db.keep()

    def _begin(self, session: Session) -> None:
        session.moves = Counter()
        try:
            session.db.begin()
        except ERRORS as error:
            raise _Refused(error) from error

    def _commit(self, session: Session) -> None:
        try:
            session.db.commit()
        except ERRORS as error:
            session.db.rollback()
            raise _Refused(error) from error
        if session.moves:
            total = Counter(self.counts)
            total.update(session.moves)
            self.counts = dict(total)

    def _refuse(self, session: Session, jobs: Sequence[_Job], cause: Exception) -> None:
        """A full disk refuses new work first: what is queued may still fit, and goes on."""
        for job in jobs:
            job.error = named(cause)
        if not is_full(cause):
            return
        if self.accepting:
            log.error("%s; no new work is accepted until there is some", named(cause))
        self._full, self.accepting = True, False
        rest = [job for job in jobs if job.rank != Rank.NEW]
        if rest and len(rest) < len(jobs):
            try:
                self._one_by_one(session, rest)
            except _Refused as again:
                for job in rest:
                    job.error = named(again.cause)

    def _look(self, session: Session) -> None:
        """Look at the disk, and for another program that has written."""
        crowded = self._database.crowded()
        if self._full and not crowded:
            self._full = not self._probe(session)
        accepting = not (crowded or self._full)
        if accepting != self.accepting:
            self.accepting = accepting
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
        except ERRORS:
            session.db.rollback()
            return False
        return True

    def _recount(self, session: Session) -> None:
        self._foreign = session.db.foreign_changes()
        rows = session.db.all("SELECT status, count(*) FROM retry_schedule GROUP BY status")
        self.counts = {str(status): 0 for status in Status} | dict(rows)

    def _died(self, error: BaseException) -> None:
        """A bug: fail everything that waits, and everything that will come."""
        self._failure = error
        log.critical("the writing thread has died", exc_info=error)
        jobs = self._in_hand
        try:
            while True:
                if (job := self._inbox.get_nowait()) is not None:
                    jobs.append(job)
        except queue.Empty:
            pass
        for job in jobs:
            job.error = QueueError(f"the writing thread has died: {error}")
        self._tell(_deliver, jobs)

    def _tell(self, call: Callable[..., Any], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            log.debug("the loop has ended; nobody waits for the answer")


def _deliver(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue  # whoever waited was cancelled
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)
