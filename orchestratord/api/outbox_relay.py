"""The relay: takes what applications have committed into the outbox, and makes a task of each row.

One round: look at the rows (`OutboxConnection.look`), check each as the API checks a call, make
tasks of those that fit in one transaction of the queue (`Enqueue.take`), then delete their rows
and mark those that were refused. Whatever ends the daemon between two of these steps, the next
round finds the rows again, and the queue knows which of them have their task.

One daemon of a fleet relays, and of its workers the first: `hold_role` says which.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestratord.api.answer_documents import OutboxDocument, OutboxRowDocument
from orchestratord.api.bodies import check_key
from orchestratord.api.server.problem_json import SHORTAGE, Refusal
from orchestratord.api.server.request_body import json_value
from orchestratord.config.outbox_database import Outbox, outbox_of
from orchestratord.config.params import prepare_rules, rule_problems
from orchestratord.engine.new.enqueue import callable_endpoint, fitted_call
from orchestratord.engine.worker import Worker
from orchestratord.errors import (
    InvalidParams,
    NotFound,
    OrchestratordError,
    QueueError,
    RowsUnreadable,
    SchemaTooCostly,
    Unreachable,
    Unstorable,
)
from orchestratord.model.event import EventType, OutboxEvent, TroubleEvent
from orchestratord.model.settings import Config
from orchestratord.model.task import NewTask
from orchestratord.plugin.long_work import off_loop
from orchestratord.queue.operations.roles import held_elsewhere, hold_role, release_role
from orchestratord.queue.outbox.outbox_refusal import (
    NotedRefusal,
    forget_refusal,
    note_refusal,
    noted_refusal,
)
from orchestratord.queue.outbox.outbox_take import (
    RELAY,
    OutboxTask,
    RelayMoved,
    Result,
    forget_taken,
    note_look,
    taken_before,
    taken_of,
)
from orchestratord.queue.postgres.outbox_schema import MISSING
from orchestratord.queue.records import Inserted
from orchestratord.runtime.reload import Reloader
from orchestratord.values import world
from orchestratord.values.clock import first_try, rfc3339
from orchestratord.values.durations import MAX_DURATION
from orchestratord.values.json_body import INLINE_BYTES, parse_json

if TYPE_CHECKING:  # psycopg is an extra
    from orchestratord.queue.outbox.outbox_connection import ListedRow, OutboxConnection, OutboxRow

log = logging.getLogger("orchestratord.outbox")

PAGE = 500
"""Rows that are taken in one transaction."""
SHRINK = 8
"""By what that is divided where so many cannot be read, or written, at once."""
ALONE = 3
"""How often a row that cannot be read even alone is tried before it is refused."""
LOOK = 0.1
"""Seconds between two looks while rows come."""
IDLE_LOOK = 1.0
"""Seconds between two looks when none has come for `IDLE_AFTER` seconds."""
IDLE_AFTER = 10.0
IDLE_AFTER_START = 1.0
"""Seconds after which it is idle if none has come since it began to relay."""
HOLD = 1.0
"""Seconds between two times that this daemon says that it relays, or looks whether it may."""
AGAIN = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds until a database that could not be used is tried again."""
TEND = 10.0
"""Seconds between two times that rows are counted, and old ones forgotten."""
REMEMBERED = 600.0
"""Seconds for which it is at least known which rows of an application's outbox were taken: a
standby of its database that takes over may have them still."""
FORGOTTEN = 2_000
"""Of these, how many are looked at in one go."""
PASSED_OVER = 1.0
"""Seconds for which rows are passed over that others have locked."""
AT_ONCE = 0.01
"""Seconds for which rows are checked before others on the loop have their turn."""
DEATHS = 2
"""How often the daemon may die while it looks at a row by itself: once any row may be hit."""
DEADLY = f"the daemon died {DEATHS} times while it looked at this row alone"
SINGLY = 5.0
"""Seconds for which rows are checked one by one before those of them that fit are taken."""
CUT = 200
"""Characters of an endpoint's name, or of one message, that are told of; a row may name what it
likes."""
MOST_ERRORS = 20
"""Of one row, that are written into it."""

TROUBLE = "outbox_failing"
"""The code of an outbox that cannot be relayed, in events; where the queue's own is gone, in the
daemon's troubles."""

UNFIT = (Unstorable, TypeError, ValueError, OverflowError, RecursionError)
"""What the queue raises for a row that it will never take. Everything else passes, and is tried
again."""


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that makes no task, and why."""

    row: OutboxRow
    refusal: Refusal


class OutboxRelay:
    """Relays the outbox, if there is one, and tells how that goes."""

    def __init__(self, worker: Worker, reloader: Reloader, queue_url: str) -> None:
        """`queue_url`: where the queue is."""
        self._store = worker.store
        self._enqueue, self._new_tasks = worker.enqueue, worker.pipe.new_tasks
        self._reloader = reloader
        self._clock = worker.clock
        self._host = worker.host
        self._queue_url = queue_url
        self._relays = self._singly = False
        self._error: str | None = None
        self._trouble: TroubleEvent | None = None
        """That it cannot be relayed, as it was told of."""
        self._taken = self._refused = 0
        self._counts: tuple[int, int] | None = None
        self._page = PAGE
        """Rows that are read together; fewer after so many could not be."""
        self._passed: set[int] = set()
        """Rows that others had locked since `_passed_at` (`world.monotonic`)."""
        self._passed_at = 0.0
        self._unread: tuple[int, int] | None = None
        """The row that could not be read alone, and how often."""
        self._unlogged: list[NotedRefusal] = []
        """Rows that were refused, and of which the log does not tell yet."""

    def place(self) -> Outbox | None:
        """Where the outbox is by the configuration in force; None where there is none."""
        return outbox_of(self._reloader.config, self._queue_url)

    # -- as it is shown ------------------------------------------------------------------------

    def status(self) -> dict[str, Any] | None:
        """How it goes, as `/v1/status` shows it; None where there is no outbox."""
        if (outbox := self.place()) is None:
            return None
        waiting, refused = self._counts or (None, None)
        return {
            "database": outbox.name,
            "relays": self._relays,
            "error": self._error,
            "waiting": waiting,
            "refused": refused,
            "taken_total": self._taken,
            "refused_total": self._refused,
        }

    async def page(self, limit: int, before: int, refused: bool | None) -> OutboxDocument:
        """Rows of the outbox as the API shows them, the newest first.

        Args:
            limit: how many at most.
            before: only those with lower ids.
            refused: only those that were, or that were not.

        Raises NotFound where there is no outbox, Unreachable, OutboxUnusable.
        """
        if (outbox := self.place()) is None:
            raise NotFound("there is no outbox: the queue is in a file, and `outbox` is not set")
        from orchestratord.queue.outbox.outbox_connection import OutboxConnection

        async with OutboxConnection.connect(outbox.url) as connection:
            found = await connection.rows(limit + 1, before, refused)
        following = found[limit - 1].id if len(found) > limit else None
        shown = [_row_json(row, self._reloader.config) for row in found[:limit]]
        return {"outbox": shown, "next": following}

    # -- its course ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Go on until cancelled: then another one may relay. What fails is tried again."""
        try:
            await self._go_on()
        finally:
            await self._leave()

    async def _go_on(self) -> None:
        tries = 0
        while True:
            outbox = self.place()
            if outbox is None:
                self._works(here=False)
                await asyncio.sleep(IDLE_LOOK)
                continue
            try:
                if await self._hold():
                    await self._relay(outbox)
                else:
                    self._works(here=False)
                await asyncio.sleep(HOLD)
            except RelayMoved:
                self._relays = False
            except OrchestratordError as error:
                tries = 0 if self._error is None else tries + 1
                self._failed(outbox, error)
                if self._shrink(error):
                    tries = 0
                await asyncio.sleep(AGAIN[min(tries, len(AGAIN) - 1)])
            except Exception:
                log.exception("cannot relay the outbox; again in %g s", AGAIN[-1])
                await asyncio.sleep(AGAIN[-1])

    async def _leave(self) -> None:
        self._log_refused()
        if self._relays:
            self._relays = False
            with suppress(QueueError):
                await self._store.write(release_role(RELAY))

    def _failed(self, outbox: Outbox, error: Exception) -> None:
        words = self._reloader.config.redactor.text(str(error))
        # That the queue's own database is away is told of as that.
        is_of_queue = outbox.name is None and isinstance(error, Unreachable)
        if words != self._error and not is_of_queue:
            log.warning("cannot relay the outbox in %s now; trying again: %s", outbox, words)
        self._error = words
        if outbox.name is None and str(error) == MISSING:
            self._store.health.begin(TROUBLE, words)  # a part of the queue is gone
        elif self._trouble is None and not is_of_queue:
            now = self._clock.now_ms()
            self._trouble = TroubleEvent(EventType.TROUBLE_BEGAN, now, TROUBLE, words, now)
            self._host.events.publish(self._trouble)

    def _works(self, *, here: bool = True) -> None:
        """It is relayed, or is not to be by this daemon."""
        if self._error is not None and here:
            log.info("the outbox is relayed again")
        self._error = None
        self._store.health.end(TROUBLE)
        if self._trouble is not None:
            ended = self._trouble._replace(type=EventType.TROUBLE_ENDED, at=self._clock.now_ms())
            self._trouble = None
            self._host.events.publish(ended)

    def _shrink(self, error: OrchestratordError) -> bool:
        """Take fewer rows at once where they were too many for a server; whether that may help."""
        if type(error) not in (QueueError, RowsUnreadable):
            return False
        before, self._page = self._page, max(self._page // SHRINK, 1)
        return before > 2  # two may come of one that was read, and cannot be written

    async def _hold(self) -> bool:
        """Be the one that relays, or go on to be; whether it is this daemon."""
        if not self._relays and await self._store.read(held_elsewhere(RELAY, self._store.owner)):
            return False
        before = await self._store.write(hold_role(RELAY))
        self._relays = before is not None
        # It has died, perhaps of the rows that come next.
        self._singly = self._singly or before not in (None, self._store.owner)
        return self._relays

    async def _relay(self, outbox: Outbox) -> None:
        """Relay, until another daemon does, or the outbox is elsewhere."""
        from orchestratord.queue.outbox.outbox_connection import OutboxConnection

        async with OutboxConnection.connect(outbox.url) as connection:
            await connection.listen()
            held_at = world.monotonic()
            found_at = held_at - IDLE_AFTER + IDLE_AFTER_START
            tended_at, begins = 0.0, True
            while outbox == self.place():
                now = world.monotonic()
                if now - held_at >= HOLD:
                    held_at = now
                    if not await self._hold():
                        return
                if now - tended_at >= TEND:
                    tended_at = now
                    await self._tend(outbox, connection)
                page = self._page
                found = await self._round(outbox, connection)
                if begins:  # with what fits: a row that cannot be marked holds up none of it
                    await self._mark_noted(outbox, connection)
                    begins = False
                self._works()
                if found:
                    found_at = now
                if found < page:  # else there may be more already
                    self._log_refused()
                    await connection.wait(LOOK if now - found_at < IDLE_AFTER else IDLE_LOOK)

    async def _round(self, outbox: Outbox, connection: OutboxConnection) -> int:
        """Take the next rows; how many there were."""
        rows = await self._look(connection)
        if not rows:
            return 0
        fit, refused = await (self._checked_singly if self._singly else self._checked)(outbox, rows)
        gone: list[int] = []
        if refused:
            free = await connection.free([one.row.id for one in refused])
            self._passed |= {one.row.id for one in refused} - free
            refused = [one for one in refused if one.row.id in free]
        if refused and outbox.name is not None:
            # With the configuration of an earlier start a row may have made its task already.
            taken = await self._store.read(taken_of([one.row.uid for one in refused]))
            gone += [one.row.id for one in refused if one.row.uid in taken]
            refused = [one for one in refused if one.row.uid not in taken]
        for row, result in await self._take(fit, same_database=outbox.name is None):
            if isinstance(result, Inserted):
                self._taken += not result.duplicate
                gone.append(row.id)
            elif isinstance(result, Exception):
                of = next(one for one in rows if one.uid == row.uid)
                refused.append(RefusedRow(of, Refusal.of(result)))
            elif outbox.name is not None:
                gone.append(row.id)  # taken before, and not deleted
            else:
                self._passed.add(row.id)
        if outbox.name is not None and gone:
            self._passed |= set(gone) - await connection.remove(gone)
        known = await self._store.read(noted_refusal(outbox.name)) if refused else None
        noted = [await self._refuse(outbox, connection, one, known) for one in refused]
        if any(noted):
            await self._store.write(forget_refusal(outbox.name))
        return len(rows)

    async def _look(self, connection: OutboxConnection) -> list[OutboxRow]:
        """The next rows. One that cannot be read however often it is tried comes without its
        parameters."""
        if world.monotonic() - self._passed_at > PASSED_OVER:
            self._passed, self._passed_at = set(), world.monotonic()
        if self._page > 1:
            rows = await connection.look(self._page, passed=self._passed)
        else:
            first = await connection.first()
            if first is None:
                rows = []
            elif self._unread == (first.id, ALONE):
                rows = [first]
            else:
                _, tries = self._unread if self._unread and self._unread[0] == first.id else (0, 0)
                self._unread = first.id, tries + 1
                rows = await connection.look(1, first.id)
            self._unread = None
        self._page = min(self._page * 2, PAGE)
        return rows

    async def _checked_singly(
        self, outbox: Outbox, rows: Sequence[OutboxRow]
    ) -> tuple[list[OutboxTask], list[RefusedRow]]:
        """Check row by row, as far as it comes in `SINGLY` seconds. Each is noted meanwhile: the
        daemon before may have died of it, and one of which it did `DEATHS` times is refused."""
        fit: list[OutboxTask] = []
        refused: list[RefusedRow] = []
        began = world.monotonic()
        for row in rows:
            if world.monotonic() - began > SINGLY:
                return fit, refused
            # What ends the daemon while it only begins to look is not to blame on the row.
            with suppress(SchemaTooCostly):
                await prepare_rules(self._reloader.config, row.endpoint)
            if not await self._hold():
                raise RelayMoved("another daemon relays the outbox")
            if await self._store.write(note_look(outbox.name, row.uid)) >= DEATHS:
                refused.append(RefusedRow(row, Refusal.of(InvalidParams({"params": DEADLY}))))
            else:
                its_fit, its_refused = await self._checked(outbox, [row])
                fit += its_fit
                refused += its_refused
            await self._store.write(note_look(outbox.name, row.uid, ends=True))
        self._singly = False
        return fit, refused

    async def _checked(
        self, outbox: Outbox, rows: Sequence[OutboxRow]
    ) -> tuple[list[OutboxTask], list[RefusedRow]]:
        """The tasks that the rows make, and the rows that make none."""
        fit: list[OutboxTask] = []
        refused: list[RefusedRow] = []
        config, breathed = self._reloader.config, world.monotonic()
        for row in rows:
            try:
                fit.append(OutboxTask(row.id, row.uid, await _new_task(config, row)))
            except Refusal as refusal:
                refused.append(RefusedRow(row, refusal))
            except OrchestratordError as error:
                refused.append(RefusedRow(row, Refusal.of(error)))
            except Exception as error:  # a row that is looked at in vain would stop all others
                if isinstance(error, MemoryError) or Refusal.of(error).code == SHORTAGE:
                    raise
                log.exception("cannot check row %d of the outbox", row.id)
                refused.append(RefusedRow(row, Refusal.of(error)))
            if world.monotonic() - breathed > AT_ONCE:
                await asyncio.sleep(0)
                breathed = world.monotonic()
        try:
            found = await rule_problems(config, [one.task for one in fit])
        except SchemaTooCostly as error:
            if len(rows) > 1:
                return await self._checked_singly(outbox, rows)
            return [], [RefusedRow(rows[0], Refusal.of(error))]
        wrong = {one.uid: problems for one, problems in zip(fit, found, strict=True) if problems}
        refused += [
            RefusedRow(row, Refusal.of(InvalidParams(wrong[row.uid])))
            for row in rows
            if row.uid in wrong
        ]
        return [one for one in fit if one.uid not in wrong], refused

    async def _take(
        self, tasks: Sequence[OutboxTask], *, same_database: bool
    ) -> list[tuple[OutboxTask, Result | Exception]]:
        """Make the tasks, together; where the database will never take one of them, one by one."""
        if not tasks:
            return []
        try:
            results = await self._enqueue.take(tasks, same_database=same_database)
            return list(zip(tasks, results, strict=True))
        except UNFIT as error:
            if len(tasks) == 1:
                log.error("the queue never takes row %d of the outbox: %s", tasks[0].id, error)
                return [(tasks[0], error)]
            log.warning("rows of the outbox are taken one by one: %s", error)
            found: list[tuple[OutboxTask, Result | Exception]] = []
            for task in tasks:
                found += await self._take([task], same_database=same_database)
            return found

    async def _refuse(
        self,
        outbox: Outbox,
        connection: OutboxConnection,
        refused: RefusedRow,
        known: NotedRefusal | None,
    ) -> bool:
        """Mark a row; whether that was noted in the queue before, as plugins write of it. `known`
        was noted, by a daemon that perhaps ended before it marked the row."""
        row, refusal = refused.row, refused.refusal
        if known is not None and known.uid == row.uid:
            await self._mark(connection, known)
            return True
        redactor = self._reloader.config.redactor
        problem: dict[str, Any] = _cut(redactor.value(refusal.document()))
        endpoint = redactor.text(row.endpoint)[:CUT]
        noted = NotedRefusal(row.id, row.uid, endpoint, refusal.code, problem)
        effects = await self._new_tasks.of_event(self._event_of(noted))
        if effects:
            inserted = await self._store.write(note_refusal(outbox.name, noted, effects))
            await self._new_tasks.written(effects, inserted)
        await self._mark(connection, noted)
        return bool(effects)

    async def _mark_noted(self, outbox: Outbox, connection: OutboxConnection) -> None:
        """Mark the row of which plugins have written, and which may still lack the mark."""
        noted = await self._store.read(noted_refusal(outbox.name))
        if noted is not None:
            await self._mark(connection, noted)
            await self._store.write(forget_refusal(outbox.name))

    async def _mark(self, connection: OutboxConnection, noted: NotedRefusal) -> None:
        if not await connection.refuse(noted.id, noted.uid, noted.reason, noted.problem):
            return
        self._refused += 1
        if self._counts is not None:  # until they are counted again
            self._counts = (self._counts[0], self._counts[1] + 1)
        self._unlogged.append(noted)
        self._host.events.publish(self._event_of(noted))

    def _log_refused(self) -> None:
        """One line for all rows that were refused since the last one."""
        if self._unlogged:
            noted, others = self._unlogged[0], len(self._unlogged) - 1
            self._unlogged = []
            log.warning(
                "row %d of the outbox is refused: %s: %s%s", noted.id, noted.endpoint,
                _words(noted.problem), f"; and {others:,} other rows" if others else "",
                extra={"endpoint": noted.endpoint},
            )  # fmt: skip

    def _event_of(self, noted: NotedRefusal) -> OutboxEvent:
        now, why = self._clock.now_ms(), _words(noted.problem)
        return OutboxEvent(
            EventType.OUTBOX_REFUSED, now, noted.id, noted.endpoint, noted.reason, why
        )

    async def _tend(self, outbox: Outbox, connection: OutboxConnection) -> None:
        """Count what is there, and forget what is old."""
        self._counts = await connection.count()
        await connection.forget(self._reloader.config.daemon.retention.failed)
        if outbox.name is None:
            return
        before = self._store.clock.before(REMEMBERED)
        uids = await self._store.read(taken_before(before, FORGOTTEN))
        if uids and (gone := set(uids) - await connection.known(uids)):
            await self._store.write(forget_taken(sorted(gone)))


async def _new_task(config: Config, row: OutboxRow) -> NewTask:
    """The task that a row makes, before `rule_problems`. Raises Refusal, and what the API refuses
    a call for."""
    text, delay = row.params, max(row.delay, 0.0)
    if text is None:
        why = "are larger than any that max_params allows, or than their server can read out"
        raise InvalidParams({"params": why})
    if not delay <= MAX_DURATION:
        raise InvalidParams({"delay": "is more than ten years"})
    try:
        at = None if row.at is None else first_try(row.at)
    except ValueError as error:
        raise InvalidParams({"at": str(error)}) from None
    key = check_key(row.key, "key")
    raw = text.encode()
    if len(raw) > INLINE_BYTES:
        params = await off_loop(json_value, raw)
    else:
        params = json_value(raw)
    if not isinstance(params, Mapping):
        raise InvalidParams({"params": "expected a JSON object"})
    endpoint = callable_endpoint(config, row.endpoint)
    return await fitted_call(config, endpoint, params, delay=delay, at=at, key=key)


def _cut(problem: dict[str, Any]) -> dict[str, Any]:
    """A problem as it is written into its row: what a row says may be as long as it likes."""
    problem["detail"] = problem["detail"][:CUT]
    if "errors" in problem:
        problem["errors"] = [
            {name: text[:CUT] for name, text in one.items()}
            for one in problem["errors"][:MOST_ERRORS]
        ]
    return problem


def _words(problem: Mapping[str, Any]) -> str:
    """A problem in one line."""
    wrong = [f"{one['key']}: {one['message']}" for one in problem.get("errors", ())]
    return "; ".join(wrong) or str(problem["detail"])


def _row_json(row: ListedRow, config: Config) -> OutboxRowDocument:
    text = config.redactor.text
    problem, error = None, None
    try:
        if row.problem is not None:
            problem = parse_json(row.problem)
            error = _words(problem)
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
        problem = None  # the row's owner has written something else
    return {
        "id": row.id,
        "endpoint": text(row.endpoint)[:CUT],
        "status": "waiting" if row.refused_at is None else "refused",
        "reason": row.reason,
        "error": None if error is None else text(error),
        "problem": problem,
        "key": None if row.key is None else text(row.key),
        "params": text(row.params),
        "created_at": rfc3339(row.created_at),
        "refused_at": rfc3339(row.refused_at),
    }
