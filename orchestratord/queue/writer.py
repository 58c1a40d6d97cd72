"""Group commit: one thread that writes everything that waits in one transaction.

It takes what there is and does not linger for more: while one transaction reaches the disk, the
next one gathers. Within it settlements come first, then new work, then claims, which so have what
is new, then what people ask for, then housekeeping. What comes in numbers is done in few statements
(`Batch`). An operation that fails, fails alone; a COMMIT that fails, fails for all. One
that is not answered, since the server or the way to it is lost, has done neither: the thread
connects again and asks what became of it. An operation that wants a row which others have locked
waits alone: it is set aside, and tried again apart from the others.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar

from orchestratord.errors import QueueError, StorageFull, Unreachable
from orchestratord.queue.batch import OnCommitted, Rank, Write, deliver, do_all, in_order
from orchestratord.queue.connection import Singly
from orchestratord.queue.daemon_health import DISK, FATAL, RECONNECT_WAIT, Code, DaemonHealth
from orchestratord.queue.database import Database, Messenger, Wakeups
from orchestratord.queue.records import Wakeup
from orchestratord.queue.session import Session
from orchestratord.values import doc_links, world

log = logging.getLogger("orchestratord.queue")

T = TypeVar("T")

IDLE = 1.0
"""Seconds between two looks at the disk, and signs of life, while nothing is written."""

PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)
"""Seconds between two tries to connect again; the last one is repeated."""

TOGETHER_WAITS = 0.5
"""Seconds that a transaction waits for what others have locked."""
ALONE_WAITS = 0.001
"""Seconds that an operation which is done alone waits for them."""
WARY_WAITS = 0.005
"""Seconds that a transaction waits, once one was locked within the last `WARY` seconds."""
WARY = 10.0
LOCKED_AGAIN = 0.25
"""Seconds between two tries of what others have locked."""
LOCKED_TRIES = 0.05
"""For how many seconds operations are tried, each alone, once one of them was locked; the rest has
to wait for the next time: what comes meanwhile goes on."""
LOCKED_TOLD = 5.0
"""Seconds after which the daemon is not ready for what others have locked."""
LOCKED_AT_END = 0.5
"""Seconds for which the end waits for it."""

DIED = "the writing thread has died"

REPEATS = 5
"""How often a transaction is done again that others stood in the way of."""

MOST_UNFIT = 8
"""Operations of a round for which there is no room, after which the others wait, too: each takes a
transaction."""
NO_ROOM = "the disk has no room for new work; what is queued goes on"
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


class _Hopeless(QueueError):
    """What is committed cannot be trusted to be there: the daemon has to end."""


class Writer:
    """The writing thread of one store."""

    def __init__(
        self,
        database: Database,
        setup: Callable[[], Session],
        messenger: Messenger,
        elected: Wakeups,
    ) -> None:
        """
        Args:
            database: where the queue is.
            setup: runs first, on the thread, once the database is open, and may raise.
            messenger: is told of each COMMIT that wrote something.
            elected: is told of partitions in which the turn of another task has come.
        """
        self.health = DaemonHealth()
        self.chore_added = asyncio.Event()
        self._database = database
        self._failures = database.failures
        self._setup = setup
        self._messenger = messenger
        self._elected = elected
        self._inbox: world.SimpleQueue[Write[Any] | None] = world.SimpleQueue()
        self._in_hand: list[Write[Any]] = []
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[Session] = self._loop.create_future()
        self._closed = False
        self._last = False
        """Nothing comes any more."""
        self._open = False
        """A transaction was begun and did not come to its COMMIT."""
        self._next_look = 0.0
        self._unfit = 0
        """Operations of this round for which there is no room, not even alone."""
        self.foreign_changes = 0
        """Changes when another program has written into a file that is this daemon's."""
        self.locked: dict[Write[Any], float] = {}
        """Operations that want what others have locked, and since when (`world.monotonic`)."""
        self._waited: dict[Write[Any], float] = {}
        """Those of them that are being tried again."""
        self._locked_now: list[Write[Any]] = []
        """What the transaction leaves to be tried again."""
        self._locked_again = self._wary_until = 0.0
        """When what is locked is tried again; until when it is known that others lock rows."""
        self._ends_at = 0.0
        """When what is locked is refused, since nothing else comes any more."""
        self._thread = world.Thread(target=self._main, name="orchestratord-writer", daemon=True)

    # -- the loop's side -----------------------------------------------------------------------

    async def start(self) -> Session:
        """Start the thread and wait until the database is open. Raises what `setup` raises."""
        self._thread.start()
        return await self._ready

    def submit(self, operation: Write[T]) -> asyncio.Future[T]:
        """Do it in the next transaction; the future has its result after the COMMIT.

        It is done although who waits for it is cancelled. The future has what it raises,
        StorageFull, Unreachable, or QueueError where the database refused.
        """
        self._check_open()
        operation.future = self._loop.create_future()
        self._put(operation)
        return operation.future

    def submit_all(self, operations: Sequence[Write[Any]], on_committed: OnCommitted) -> None:
        """Write operations and call `on_committed` once for all those of a transaction that
        came with it; each has its result, or the error that a future would have."""
        self._check_open()
        for operation in operations:
            operation.on_committed = on_committed
            self._put(operation)

    def _put(self, operation: Write[Any]) -> None:
        self._inbox.put(operation)
        if self.health.fatal is not None:  # the thread may have died without having seen this one
            self._refuse_rest([])

    def _check_open(self) -> None:
        if self.health.fatal is not None:
            raise Unreachable(self.health.fatal, FATAL)
        if self._closed:
            raise QueueError("the queue is closed")

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
        self.health.writer = threading.get_native_id()
        try:
            self._database.open()
            session = self._failures.twice(self._setup)
            self.foreign_changes = session.db.foreign_changes()
            self._check_kept()
        except BaseException as error:
            if session is not None:
                session.db.close()
            self._closed = True
            if isinstance(error, self._failures.errors):
                error = self._failures.named(error)
            self._call_on_loop(self._ready.set_exception, error)
            return
        self._call_on_loop(self._ready.set_result, session)
        try:
            while self._round(session):
                self.health.beat = world.monotonic()
        except BaseException as error:
            self._died(error)
        finally:
            session.db.close()

    def _round(self, session: Session) -> bool:
        if operations := self._take():
            self._serve(session, operations)
        if self.locked and world.monotonic() >= self._locked_again:
            self._try_locked(session)
        try:
            if self._last:
                session.db.checkpoint()
            elif world.monotonic() >= self._next_look:
                self._next_look = world.monotonic() + IDLE
                self._failures.twice(partial(self._look, session))
        except self._failures.errors as error:
            if not self._note(error):
                log.warning("cannot look after the database: %s", error)
        except OSError as error:
            log.warning("cannot look after the database: %s", error)
        return not self._last or self._waits_at_end()

    def _try_locked(self, session: Session) -> None:
        """Try what is locked again."""
        self._waited, self.locked = self.locked, {}
        self._serve(session, list(self._waited))
        free = len(self.locked) < len(self._waited)
        self._waited = {}
        self._locked_again = world.monotonic() + (0 if free else LOCKED_AGAIN)

    def _serve(self, session: Session, operations: list[Write[Any]]) -> None:
        self._in_hand = operations
        fitting = self._fitting(session, operations)
        if fitting or not operations:
            self._unfit = 0
            self._write(session, fitting)
        # A new task is told of before its claim is.
        done = [one for one in self._in_hand if one not in self.locked]
        done.sort(key=_rank_of)
        self._in_hand = []
        self._call_on_loop(deliver, done)

    def _waits_at_end(self) -> bool:
        """Whether the end waits for what others have locked; after a while that is refused."""
        self._ends_at = self._ends_at or world.monotonic() + LOCKED_AT_END
        if self.locked and world.monotonic() < self._ends_at:
            return True
        for operation in self.locked:
            operation.error = Unreachable("another program has locked a row", Code.LOCKED)
        self._call_on_loop(deliver, list(self.locked))
        return False

    def _fitting(self, session: Session, operations: list[Write[Any]]) -> list[Write[Any]]:
        """Those for which there is room: within the second between two looks a small disk fills."""
        if not any(map(_needs_room, operations)) or not self._is_crowded(session):
            return operations
        for operation in operations:
            if operation.needs_room:
                operation.error = StorageFull(NO_ROOM)
        return [operation for operation in operations if not operation.needs_room]

    def _take(self) -> list[Write[Any]]:
        operations: list[Write[Any]] = []
        with suppress(queue.Empty):
            operation = self._inbox.get(timeout=LOCKED_AGAIN if self.locked else IDLE)
            if operation is not None:
                operations.append(operation)
                # It has those that came before there were no more.
                operations.extend(iter(self._inbox.get_nowait, None))
            self._last = True
        return operations

    def _take_more(self, session: Session) -> list[Write[Any]]:
        """What has come while we waited for others who wrote: one transaction more would have it
        wait for them once more."""
        operations: list[Write[Any]] = []
        while not (self._last or self._inbox.empty()):
            operation = self._inbox.get_nowait()
            if operation is None:
                self._last = True
            else:
                operations.append(operation)
        self._in_hand = [*self._in_hand, *operations]
        return self._fitting(session, operations)

    def _write(self, session: Session, operations: list[Write[Any]]) -> bool:
        """False where those behind them need not be tried: they were refused, or some of them, and
        not only new work, or a few for which there is no room, on a full disk."""
        deadline, tries = world.monotonic(), 0
        if self.health.unreachable is None:
            deadline += RECONNECT_WAIT
        while True:
            try:
                if not self._together(session, operations):
                    if not self._waited:  # else those are first that were not tried the last time
                        operations.sort(key=_rank_of)
                    self._one_by_one(session, operations)
                return True
            except _Refused as refused:
                cause, tries = refused.cause, tries + 1
                if self._failures.is_passing(cause) and tries <= REPEATS:
                    log.debug("the transaction is done again: %s", cause)
                    self.health.beat = world.monotonic()
                    world.sleep(PAUSES[0] * tries * world.uniform(0, 1))  # no secret
                    continue
                if self._failures.is_lost(cause):
                    committed = self._mend(session, cause, deadline)
                    if committed:
                        self._done(session)
                        return True
                    # What ends each new connection, too, is not tried for ever.
                    if committed is False and tries <= REPEATS:
                        continue
                return self._refuse(session, operations, cause)

    def _mend(self, session: Session, cause: Exception, deadline: float) -> bool | None:
        """Connect again. Whether the transaction was committed; None where the database was not
        back before the deadline, and the transaction was not.

        While it is not known what became of a COMMIT, everything waits: to do it again could do it
        twice, and to refuse it would be wrong of what was done.
        """
        tries = 0
        while True:
            if self.health.unreachable is None and tries:
                self.health.lost_at = world.monotonic()
                self._note(cause)
            world.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
            self.health.beat = world.monotonic()
            try:
                committed = session.db.mend()
            except self._failures.errors as error:
                if not self._failures.is_lost(error):
                    raise
                cause, tries = error, tries + 1
            else:
                self._back()
                return bool(committed)
            if not session.db.in_doubt and (world.monotonic() > deadline or self._closed):
                return None
            if self._closed and world.monotonic() > deadline:
                return None  # the daemon ends; the next daemon takes the claims over

    def _back(self) -> None:
        if self.health.unreachable is not None:
            self.health.back_at = world.monotonic()
            self.health.end(Code.UNREACHABLE)
            log.warning("the database is back")

    def _together(self, session: Session, operations: list[Write[Any]]) -> bool:
        """All in one transaction, and what has come by the time that it begins; False, and nothing
        written, where one fails half-way."""
        wary = world.monotonic() < self._wary_until
        self._begin(session, WARY_WAITS if wary else TOGETHER_WAITS)
        if session.db.queues:
            operations += self._take_more(session)
        for run in in_order(operations):
            if not do_all(session, run):
                session.db.rollback()
                return False
        try:
            session.revisit()
            session.elect()
            session.write_noted()
        except Exception as error:
            log.debug("done one by one: %s", error)
            session.db.rollback()
            return False
        self._commit(session)
        return True

    def _one_by_one(self, session: Session, operations: Sequence[Write[Any]]) -> None:
        """Each in a savepoint of its own, so that the one that fails can be undone."""
        self._begin(session, ALONE_WAITS)
        until = float("inf")
        try:
            for place, operation in enumerate(operations):
                if world.monotonic() > until:
                    self._locked_now = [*operations[place:], *self._locked_now]
                    break
                self._alone(session, operation)
                if self._locked_now:
                    until = min(until, world.monotonic() + LOCKED_TRIES)
        except self._failures.errors as error:
            session.db.rollback()
            raise _Refused(error) from error
        self._commit(session)

    def _alone(self, session: Session, operation: Write[Any]) -> None:
        forget = session.noted()
        session.db.savepoint()
        try:
            operation.result, operation.error = operation.run(session), None
            session.elect()
            session.write_noted()
        except Exception as raised:
            cause = raised.__cause__ if isinstance(raised, Singly) else None
            error = cause if isinstance(cause, Exception) else raised
            not_its_own = self._failures.trouble(error) or self._failures.is_passing(error)
            if not_its_own or not session.db.in_transaction:
                raise error from None  # the savepoint is gone, and what the others wrote with it
            session.db.undo()
            forget()
            if self._failures.is_locked(error):
                now = world.monotonic()
                self._wary_until, since = now + WARY, self._waited.get(operation, now)
                if not operation.needs_room or now < since + LOCKED_TOLD:
                    self._locked_now.append(operation)
                    return
            ours = isinstance(error, self._failures.errors)
            operation.error = self._failures.named(error, of_one=True) if ours else error
        else:
            session.db.keep()

    def _begin(self, session: Session, lock_wait: float) -> None:
        session.begin(not self._open)
        self._open = True  # also where BEGIN fails: the one before was committed once
        self._locked_now = []
        try:
            session.db.begin(lock_wait)
        except self._failures.errors as error:
            raise _Refused(error) from error

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
        for operation in self._locked_now:
            self.locked[operation] = self._waited.get(operation) or world.monotonic()
        self._check_kept()
        self._back()
        self._messenger.committed(session)
        if session.elected:
            self._elected.put(Wakeup(due=session.elected))
        if session.chore_added:
            self._call_on_loop(self.chore_added.set)

    def _refuse(self, session: Session, operations: list[Write[Any]], cause: Exception) -> bool:
        """Refuse them. A full disk refuses new work first: what is queued may still fit, and goes
        on, if need be in smaller transactions, which the journal has room for one after the other.

        False where not all of that fits.
        """
        named = self._failures.named(cause)
        for operation in operations:
            operation.error = copy(named)
        if self._note(cause) is not Code.FULL:
            return False
        self.health.beat = world.monotonic()
        with suppress(*self._failures.errors):
            session.db.checkpoint(wait=False)  # what did not fit has made the journal large
        rest = [one for run in in_order(operations) for one in run if one.rank != Rank.NEW]
        if len(rest) > 1 and len(rest) == len(operations):
            half = len(rest) // 2
            return self._write(session, rest[:half]) and self._write(session, rest[half:])
        if len(rest) == len(operations):
            if rest[0].less is None:  # others may fit all the same
                self._unfit += 1
                return self._unfit < MOST_UNFIT
            rest[0].do, rest[0].less = rest[0].less, None
        return not rest or self._write(session, rest)

    def _note(self, cause: Exception) -> Code | None:
        """Note what is wrong with the database, if `cause` says that, until it is over."""
        code = self._failures.trouble(cause)
        if code is None:
            return None
        words = str(self._failures.named(cause))
        if code is Code.DAMAGED:
            raise _Hopeless(words)
        if self.health.begin(code, NO_ROOM if code is Code.FULL else words):
            full = "no new work is accepted until there is room"
            ending = full if code is Code.FULL else "trying again"
            level = logging.WARNING if code is Code.UNREACHABLE else logging.ERROR
            log.log(level, "%s; %s", words, ending, extra={"help": doc_links.trouble(code)})
        return code

    def _check_kept(self) -> None:
        if (why := self._database.gone()) is not None:
            raise _Hopeless(why)

    def _look(self, session: Session) -> None:
        """Look at the disk, and for another program that has written; or for the server."""
        self._check_kept()
        if self.health.unreachable is not None:
            try:
                session.db.mend()
            except self._failures.errors:
                return
            self._back()
        session.db.tend()
        crowded = self._is_crowded(session)
        if not self.health.accepting:
            with suppress(*self._failures.errors):  # the next probe says it
                session.db.checkpoint(wait=False)
        locked = self._look_for_locks(session)
        self._try_again(session, locked if not crowded else {Code.FULL, *locked})
        self.foreign_changes = session.db.foreign_changes()

    def _look_for_locks(self, session: Session) -> set[Code]:
        """Do what others kept from being done, and note whether they do so for long."""
        if session.late or session.unsure:
            self._serve(session, [])
        now, known = world.monotonic(), self.health.troubles.get(Code.LOCKED)
        since = min((*self.locked.values(), *(at for _, at in session.late.values()), now))
        if now - max(since, self.health.back_at) >= LOCKED_TOLD:
            if known is None:
                self._log_who_locks(session)
            return {Code.LOCKED}
        if known is not None and not known.refuses and self.health.end(Code.LOCKED):
            log.warning("no row of the database is locked by others any more")
        return set()

    def _log_who_locks(self, session: Session) -> None:
        session.begin(not self._open)
        self._open, who = True, list[str]()
        with suppress(*self._failures.errors):
            who = session.db.blockers(lambda: self._want(session))
        why = f"rows are locked by {'; '.join(who) or 'an unknown session'}"
        if self.health.begin(Code.LOCKED, why, refuses=False):
            help_ = {"help": doc_links.trouble(Code.LOCKED)}
            log.error("cannot write rows that others lock, all else goes on: %s", why, extra=help_)

    def _want(self, session: Session) -> None:
        """Wait for a row that others have locked."""
        if not self.locked:
            session.write_late()
            return
        next(iter(self.locked)).run(session)
        session.elect()
        session.write_noted()

    def _is_crowded(self, session: Session) -> bool:
        try:
            crowded = self._database.crowded(session.db)
        except self._failures.errors + (OSError,):  # noqa: RUF005  # mypy cannot unpack it
            self._check_kept()  # it is gone, or whatever is written next says what is wrong
            return False
        if crowded and self.health.begin(Code.FULL, NO_ROOM):
            log.error("the disk is nearly full: no new work is accepted until there is room")
        return crowded

    def _try_again(self, session: Session, known: set[Code]) -> None:
        """Whether what was wrong with the disk is over, but for what is `known` not to be."""
        tried = [code for code in DISK if code in self.health.troubles and code not in known]
        if not tried:
            return
        # A read that failed once is no damage.
        cause = self._probe(session) and self._probe(session)
        found = self._note(cause) if cause is not None else None
        for code in tried:
            if code is not found and found is not Code.UNREACHABLE and self.health.end(code):
                if code is Code.FULL:
                    log.warning("the disk has room: new work is accepted again")
                else:
                    log.warning("the database takes new work again")

    def _probe(self, session: Session) -> Exception | None:
        """Write something of a size worth having; why that cannot be done."""
        try:
            for sql, values in (
                (PROBE, ("0" * PROBE_BYTES,)),
                ("DELETE FROM meta WHERE name = 'probe'", ()),
            ):
                session.db.begin()
                session.db.run(sql, values)
                session.db.commit()
        except self._failures.errors as error:
            session.db.rollback()
            return error
        return None

    def _died(self, error: BaseException) -> None:
        """Fail everything that waits, and everything that will come: the daemon ends."""
        # First: all that follows may want memory that there is none of.
        self.health.fatal = DIED
        hopeless = isinstance(error, _Hopeless)
        why = f"{DIED}: {str(error) or type(error).__name__}"
        self.health.fatal = why = str(error) if hopeless else why
        self._refuse_rest([*self._in_hand, *self.locked])
        if not hopeless:
            log.critical("%s", why, exc_info=error, extra={"help": doc_links.trouble(FATAL)})

    def _refuse_rest(self, operations: list[Write[Any]]) -> None:
        """Refuse these, and all that waits, once each: on the thread as it dies, and on the loop
        what it puts into the inbox at that moment."""
        with suppress(queue.Empty):
            while True:
                if (operation := self._inbox.get_nowait()) is not None:
                    operations.append(operation)
        for operation in operations:
            operation.error = Unreachable(self.health.fatal or DIED, FATAL)
        self._call_on_loop(deliver, operations)

    def _call_on_loop(self, call: Callable[..., Any], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            log.debug("the loop has ended; no caller waits for the answer")


_needs_room, _rank_of = attrgetter("needs_room"), attrgetter("rank")
