"""The relay: takes what applications have committed into the outbox, and makes a task of each row.

One round: look at the rows (`OutboxConnection.look`), check each as the API checks a call, make
tasks of those that fit in one transaction of the queue (`Control.accept_each`), then delete their
rows and mark those that were refused. Whatever ends the daemon between two of these steps, the next
round finds the rows again, and the queue knows which of them have their task.

It is a service of which one runs: one daemon of a fleet relays, and of its workers the first.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestratord import (
    Accepted,
    Control,
    Delete,
    EventType,
    InvalidParams,
    NewTask,
    OrchestratordError,
    OutboxEvent,
    ParamRules,
    QueueError,
    Refusal,
    RoleLost,
    SchemaTooCostly,
    TroubleEvent,
    Unreachable,
    Unstorable,
    Upsert,
    queue_url,
    rule_problems,
    world,
)
from orchestratord_outbox.declaration import Outbox, RowsUnreadable, outbox_of
from orchestratord_outbox.outbox_schema import MISSING
from orchestratord_outbox.outbox_tables import LOOKS, OWN_ROWS, REFUSALS, TAKEN

if TYPE_CHECKING:  # psycopg is an extra
    from orchestratord_outbox.outbox_connection import OutboxConnection, OutboxRow

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
AWAIT = 1.0
"""Seconds until it is looked again whether this daemon relays, after another one did."""
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


SHORTAGE = "shortage"
"""The `code` of a refusal that is this machine's, and passes."""


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that makes no task, and why."""

    row: OutboxRow
    refusal: Refusal


class RowCall(NamedTuple):
    """A row, with the call that it makes."""

    row: OutboxRow
    call: NewTask


class NotedRefusal(NamedTuple):
    """Which row is to be marked, and with what."""

    id: int
    uid: str
    endpoint: str
    """As it is told of."""
    reason: str
    problem: dict[str, Any]
    """As the API would have answered."""


class OutboxRelay:
    """Relays the outbox, if there is one, and tells how that goes.

    `control`: what it asks of the daemon.
    """

    def __init__(self, control: Control) -> None:
        self.control = control
        self._me = world.token_hex(8)
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

    @cached_property
    def _queue_url(self) -> str:
        return queue_url(self.control.config)  # of the start: a reload does not change it

    def place(self) -> Outbox | None:
        """Where the outbox is by the configuration in force; None where there is none."""
        return outbox_of(self.control.config, self._queue_url)

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

    # -- its course ----------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Go on until `stop` is set, or cancelled. What fails is tried again."""
        relaying, stopping = asyncio.create_task(self._go_on()), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((relaying, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            relaying.cancel()
            stopping.cancel()
            await asyncio.gather(relaying, stopping, return_exceptions=True)
            relayed, self._relays = self._relays, False
            self._log_refused()
            self._works(here=False)
        if relayed:
            with suppress(OrchestratordError):  # who relays next looks at rows one by one then
                await self.control.write([Delete(LOOKS.name, {"uid": ""})])

    async def _go_on(self) -> None:
        tries = 0
        while True:
            outbox = self.place()
            if outbox is None:
                self._works(here=False)
                await asyncio.sleep(IDLE_LOOK)
                continue
            try:
                await self._take_over()
                await self._relay(outbox)
            except RoleLost:
                self._relays = False
                self._works(here=False)
                await asyncio.sleep(AWAIT)
            except OrchestratordError as error:
                tries = 0 if self._error is None else tries + 1
                self._failed(outbox, error)
                if self._shrink(error):
                    tries = 0
                await asyncio.sleep(AGAIN[min(tries, len(AGAIN) - 1)])
            except Exception as error:
                log.exception("cannot relay the outbox; again in %g s", AGAIN[-1])
                self._failed(outbox, error)
                await asyncio.sleep(AGAIN[-1])

    async def _take_over(self) -> None:
        """Note that this one relays. Where another one did that has not said that it ends, it has
        died, perhaps of the rows that come next."""
        if not self._relays:
            before = await self.control.rows(LOOKS.name, {"uid": ""})
            self._singly = self._singly or any(row["relay"] != self._me for row in before)
            await self.control.write([_look("", self._me)])
            self._relays = True

    def _failed(self, outbox: Outbox, error: Exception) -> None:
        words = self.control.config.redactor.text(str(error) or type(error).__name__)
        # That the queue's own database is away is told of as that.
        is_of_queue = outbox.name is None and isinstance(error, Unreachable)
        if words != self._error and not is_of_queue:
            log.warning("cannot relay the outbox in %s now; trying again: %s", outbox, words)
        self._error = words
        if outbox.name is None and str(error) == MISSING:
            self.control.begin_trouble(TROUBLE, words)  # a part of the queue is gone
        elif self._trouble is None and not is_of_queue:
            now = self.control.ago(0)
            self._trouble = TroubleEvent(EventType.TROUBLE_BEGAN, now, TROUBLE, words, now)
            self.control.publish(self._trouble)

    def _works(self, *, here: bool = True) -> None:
        """It is relayed, or is not to be by this daemon."""
        if self._error is not None and here:
            log.info("the outbox is relayed again")
        self._error = None
        self.control.end_trouble(TROUBLE)
        if self._trouble is not None:
            ended = self._trouble._replace(type=EventType.TROUBLE_ENDED, at=self.control.ago(0))
            self._trouble = None
            self.control.publish(ended)

    def _shrink(self, error: OrchestratordError) -> bool:
        """Take fewer rows at once where they were too many for a server; whether that may help."""
        if type(error) not in (QueueError, RowsUnreadable):
            return False
        before, self._page = self._page, max(self._page // SHRINK, 1)
        return before > 2  # two may come of one that was read, and cannot be written

    async def _relay(self, outbox: Outbox) -> None:
        """Relay, until the outbox is elsewhere."""
        from orchestratord_outbox.outbox_connection import OutboxConnection

        async with OutboxConnection.connect(outbox.url) as connection:
            await connection.listen()
            found_at = world.monotonic() - IDLE_AFTER + IDLE_AFTER_START
            tended_at, begins = 0.0, True
            while outbox == self.place():
                now = world.monotonic()
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
        fit, refused = await (self._checked_singly if self._singly else self._checked)(rows)
        gone: list[int] = []
        if refused:
            free = await connection.free([one.row.id for one in refused])
            self._passed |= {one.row.id for one in refused} - free
            refused = [one for one in refused if one.row.id in free]
        if refused and outbox.name is not None:
            # With the configuration of an earlier start a row may have made its task already.
            uids = [one.row.uid for one in refused]
            taken = {row["uid"] for row in await self.control.rows(TAKEN.name, {"uid": uids})}
            gone += [one.row.id for one in refused if one.row.uid in taken]
            refused = [one for one in refused if one.row.uid not in taken]
        for row, result in await self._take(fit, same_database=outbox.name is None):
            if isinstance(result, Accepted):
                self._taken += not result.repeated
                gone.append(row.id)
            elif isinstance(result, Exception):
                refused.append(RefusedRow(row, Refusal.of(result)))
            elif outbox.name is not None:
                gone.append(row.id)  # taken before, and not deleted
            else:
                self._passed.add(row.id)
        if outbox.name is not None and gone:
            self._passed |= set(gone) - await connection.remove(gone)
        if refused:
            await self._refuse(outbox, connection, refused)
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
        self, rows: Sequence[OutboxRow]
    ) -> tuple[list[RowCall], list[RefusedRow]]:
        """Check row by row, as far as it comes in `SINGLY` seconds. Each is noted meanwhile: the
        daemon before may have died of it, and one of which it did `DEATHS` times is refused."""
        fit: list[RowCall] = []
        refused: list[RefusedRow] = []
        began, noted = world.monotonic(), await self.control.rows(LOOKS.name)
        looks = {one["uid"]: one for one in noted}
        for row in rows:
            if world.monotonic() - began > SINGLY:
                return fit, refused
            # What ends the daemon while it only begins to look is not to blame on the row.
            endpoint = self.control.config.endpoints.get(row.endpoint)
            if endpoint and isinstance(endpoint.spec, ParamRules) and endpoint.spec.apart:
                with suppress(SchemaTooCostly):
                    await endpoint.spec.problems_apart([])
            deaths = 0
            if (before := looks.get(row.uid)) is not None:
                deaths = before["deaths"] + (before["relay"] != self._me)
            await self.control.write([_look(row.uid, self._me, deaths)])
            if deaths >= DEATHS:
                refused.append(RefusedRow(row, Refusal.of(InvalidParams({"params": DEADLY}))))
            else:
                its_fit, its_refused = await self._checked([row])
                fit += its_fit
                refused += its_refused
            await self.control.write([Delete(LOOKS.name, {"uid": row.uid})])
        self._singly = False
        return fit, refused

    async def _checked(self, rows: Sequence[OutboxRow]) -> tuple[list[RowCall], list[RefusedRow]]:
        """The tasks that the rows make, and the rows that make none."""
        fit: list[RowCall] = []
        refused: list[RefusedRow] = []
        config, breathed = self.control.config, world.monotonic()
        for row in rows:
            try:
                fit.append(RowCall(row, await self._call_of(row)))
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
            found = await rule_problems(config, [one.call for one in fit])
        except SchemaTooCostly as error:
            if len(rows) > 1:
                return await self._checked_singly(rows)
            return [], [RefusedRow(rows[0], Refusal.of(error))]
        wrong = {
            one.row.uid: problems for one, problems in zip(fit, found, strict=True) if problems
        }
        refused += [
            RefusedRow(row, Refusal.of(InvalidParams(wrong[row.uid])))
            for row in rows
            if row.uid in wrong
        ]
        return [one for one in fit if one.row.uid not in wrong], refused

    async def _call_of(self, row: OutboxRow) -> NewTask:
        """The call of a row, before `rule_problems`. Raises what the API refuses one for."""
        if row.params is None:
            why = "are larger than any that max_params allows, or than their server can read out"
            raise InvalidParams({"params": why})
        delay, params = max(row.delay, 0.0), row.params.encode()
        return await self.control.checked_call(
            row.endpoint, params, delay=delay, at=row.at, key=row.key
        )

    async def _take(
        self, fit: Sequence[RowCall], *, same_database: bool
    ) -> list[tuple[OutboxRow, Accepted | Exception | None]]:
        """Make the calls, together; where the database will never take one of them, one by one."""
        if not fit:
            return []
        try:
            if same_database:
                keys = [str(one.row.id) for one in fit]
                calls = [one.call for one in fit]
                results = await self.control.accept_each(calls, OWN_ROWS, keys)
            else:
                now = self.control.ago(0)
                calls = [
                    replace(one.call, once=Upsert(TAKEN.name, {"uid": one.row.uid}, {"at": now}))
                    for one in fit
                ]
                results = await self.control.accept_each(calls)
            return [(one.row, result) for one, result in zip(fit, results, strict=True)]
        except UNFIT as error:
            if len(fit) == 1:
                log.error("the queue never takes row %d of the outbox: %s", fit[0].row.id, error)
                return [(fit[0].row, error)]
            log.warning("rows of the outbox are taken one by one: %s", error)
            found: list[tuple[OutboxRow, Accepted | Exception | None]] = []
            for one in fit:
                found += await self._take([one], same_database=same_database)
            return found

    async def _refuse(
        self, outbox: Outbox, connection: OutboxConnection, refused: Sequence[RefusedRow]
    ) -> None:
        """Note which rows are to be marked, together with what plugins write of that; then mark
        them. Of one that was noted before, by a daemon that ended then, plugins have written."""
        known = {one.uid for one in await self._noted(outbox)}
        noted = [self._note_of(one) for one in refused if one.row.uid not in known]
        rows = [
            Upsert(
                REFUSALS.name,
                {"uid": one.uid},
                {
                    "outbox": outbox.name or "",
                    "row": one.id,
                    "endpoint": one.endpoint,
                    "reason": one.reason,
                    "problem": json.dumps(one.problem, default=str),
                },
            )
            for one in noted
        ]
        if rows:
            await self.control.write(rows, [self._event_of(one) for one in noted])
        await self._mark_noted(outbox, connection)

    def _note_of(self, refused: RefusedRow) -> NotedRefusal:
        row, refusal, redactor = refused.row, refused.refusal, self.control.config.redactor
        problem: dict[str, Any] = _cut(redactor.value(refusal.document()))
        endpoint = redactor.text(row.endpoint)[:CUT]
        return NotedRefusal(row.id, row.uid, endpoint, refusal.code, problem)

    async def _noted(self, outbox: Outbox) -> list[NotedRefusal]:
        """Those that may still be to be marked."""
        where = {"outbox": outbox.name or ""}
        return [
            NotedRefusal(
                row["row"], row["uid"], row["endpoint"], row["reason"], json.loads(row["problem"])
            )
            for row in await self.control.rows(REFUSALS.name, where, order="row")
        ]

    async def _mark_noted(self, outbox: Outbox, connection: OutboxConnection) -> None:
        """Mark the rows that are noted, and forget them then."""
        if noted := await self._noted(outbox):
            for one in noted:
                await self._mark(connection, one)
            await self.control.write([Delete(REFUSALS.name, {"uid": one.uid}) for one in noted])

    async def _mark(self, connection: OutboxConnection, noted: NotedRefusal) -> None:
        if not await connection.refuse(noted.id, noted.uid, noted.reason, noted.problem):
            return
        self._refused += 1
        if self._counts is not None:  # until they are counted again
            self._counts = (self._counts[0], self._counts[1] + 1)
        self._unlogged.append(noted)
        self.control.publish(self._event_of(noted))

    def _log_refused(self) -> None:
        """One line for all rows that were refused since the last one."""
        if self._unlogged:
            noted, others = self._unlogged[0], len(self._unlogged) - 1
            self._unlogged = []
            log.warning(
                "row %d of the outbox is refused: %s: %s%s", noted.id, noted.endpoint,
                words(noted.problem), f"; and {others:,} other rows" if others else "",
                extra={"endpoint": noted.endpoint},
            )  # fmt: skip

    def _event_of(self, noted: NotedRefusal) -> OutboxEvent:
        now, why = self.control.ago(0), words(noted.problem)
        return OutboxEvent(
            EventType.OUTBOX_REFUSED, now, noted.id, noted.endpoint, noted.reason, why
        )

    async def _tend(self, outbox: Outbox, connection: OutboxConnection) -> None:
        """Count what is there, and forget what is old."""
        self._counts = await connection.count()
        await connection.forget(self.control.config.daemon.retention.failed)
        if outbox.name is None:
            return
        before = self.control.ago(REMEMBERED)
        oldest = await self.control.rows(TAKEN.name, order="at", limit=FORGOTTEN)
        uids = [row["uid"] for row in oldest if row["at"] < before]
        if uids and (gone := set(uids) - await connection.known(uids)):
            await self.control.write([Delete(TAKEN.name, {"uid": uid}) for uid in sorted(gone)])


def _look(uid: str, relay: str, deaths: int = 0) -> Upsert:
    return Upsert(LOOKS.name, {"uid": uid}, {"relay": relay, "deaths": deaths})


def _cut(problem: dict[str, Any]) -> dict[str, Any]:
    """A problem as it is written into its row: what a row says may be as long as it likes."""
    problem["detail"] = problem["detail"][:CUT]
    if "errors" in problem:
        problem["errors"] = [
            {name: text[:CUT] for name, text in one.items()}
            for one in problem["errors"][:MOST_ERRORS]
        ]
    return problem


def words(problem: Mapping[str, Any]) -> str:
    """A problem in one line."""
    wrong = [f"{one['key']}: {one['message']}" for one in problem.get("errors", ())]
    return "; ".join(wrong) or str(problem["detail"])
