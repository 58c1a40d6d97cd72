"""The store: the one door to the queue. Everything that is kept goes through it.

All methods are called on one asyncio loop. What writes returns after its COMMIT, and happens
although the caller is cancelled meanwhile. Any of them raises QueueError where the database fails.
"""

from __future__ import annotations

import asyncio
import builtins
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

from orchestratord.errors import QueueError, StorageFull, Unreachable
from orchestratord.model.settings import Retention
from orchestratord.model.task import Action, Attempt, Key, Table, Task
from orchestratord.queue import reader, rows, schema
from orchestratord.queue.batch import Rank
from orchestratord.queue.database import open_database
from orchestratord.queue.operations import (
    bulk,
    claim_postgres,
    claim_sqlite,
    daemons,
    manual,
    schedules,
    shared_rates,
)
from orchestratord.queue.operations import insert as inserts
from orchestratord.queue.operations import prune as retention
from orchestratord.queue.operations import settle as settling
from orchestratord.queue.operations.settle import Effects, apply_effects
from orchestratord.queue.postgres.notify import Wakeups
from orchestratord.queue.reader import Reader
from orchestratord.queue.records import (
    RETRY,
    Beat,
    Bulk,
    Claimed,
    DaemonSeen,
    Done,
    Insert,
    Inserted,
    Pick,
    Place,
    Settled,
    Settlement,
    Start,
    Started,
    TaskFilter,
    Wakeup,
)
from orchestratord.queue.session import LEASE, Leases, Session
from orchestratord.queue.writer import Writer, counted
from orchestratord.values.clock import Clock
from orchestratord.values.rate_limit import RateLimit

Tasks = builtins.list[Task]

DUE_SOON_MS = 1_000
"""How soon a task has to be due, for other daemons to be told of it."""
COUNTED_FOR = 1.0
"""Seconds for which a count in a shared database serves, but for what this daemon adds."""
COUNT_SHARE = 20.0
"""A count that takes long serves for so many times as long."""


class Store:
    """One open queue."""

    def __init__(self, url: str, tables: Iterable[Table], clock: Clock, lease: float) -> None:
        """Use `open`."""
        self.instance = ""
        """Random, made with the database and kept in it; part of each webhook-id."""
        self.owner = secrets.token_hex(8)
        """Random for this opening; stands in `locked_by`."""
        self._clock = clock
        self._leases = Leases(lease)
        self._database = open_database(url)
        self.shared = self._database.shared
        """Whether other daemons work on it at the same time."""
        self.url = self._database.shown
        """Where it is, without a password."""
        self._count_again = 0.0
        self._declared = tuple(tables)
        self._tables: dict[str, Table] = {}
        self._session: Session | None = None
        self._writer = Writer(self._database, self._setup)
        self._writer.last = settling.write_successes
        self._reader = Reader(self._database, lambda: self._writer.refusing)
        self._wakeups: Wakeups | None = None
        self.heard: Callable[[Wakeup], None] = lambda wakeup: None
        """Called on the loop with what other daemons tell."""

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        tables: Iterable[Table] = (),
        clock: Clock | None = None,
        lease: float = LEASE,
    ) -> Store:
        """Open the queue at `url`; make or migrate it where needed.

        Args:
            url: `sqlite:////absolute/path`, whose missing folders are made, or `postgresql://…`.
            tables: those of the plugins.
            clock: the wall clock, unless a test turns one.
            lease: seconds for which a claim stands without a word from its daemon.

        Raises:
            DatabaseInUse: another daemon has it, or a newer version has changed it.
            PluginError: the declaration of a plugin's table cannot be one.
            QueueError: it cannot be opened.
        """
        store = cls(url, tables, clock or Clock(), lease)
        try:
            await store._writer.start()
        except BaseException:
            store._database.close()
            raise
        store._begin_to_listen()
        return store

    def _begin_to_listen(self) -> None:
        loop = asyncio.get_running_loop()

        def heard(wakeup: Wakeup) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(lambda: self.heard(wakeup))

        self._wakeups = self._database.wakeups(self.owner, heard)
        if self._wakeups is not None:
            self._wakeups.start()
            self._writer.committed = self._committed

    def _committed(self, session: Session) -> None:
        """On the writing thread, after each COMMIT: others may begin with what is due now."""
        soon = session.now() + DUE_SOON_MS
        due = {key: next_try for key, next_try in session.due.items() if next_try <= soon}
        if due and self._wakeups is not None:
            self._wakeups.tell(due)

    def _setup(self) -> Session:
        """On the writing thread: open everything, or leave no connection open."""
        self._database.open()
        db = self._database.connect(writes=True)
        try:
            with self._database.models(db) as orm:
                self._tables = schema.prepare(self._database, orm, self._declared)
                schema.enter(orm)
                self.instance = schema.instance_of(orm)
            session = Session(db, self.owner, self._clock, self._tables, self._leases)
            self._session = session
            if self.shared:
                claim_postgres.ask_clock(session)
        except self._database.failures.errors as error:
            db.close()
            raise self._database.failures.named(error) from error
        except BaseException:
            db.close()
            raise
        return session

    async def close(self) -> None:
        """Write what waits, close the database and give it up."""
        if self._wakeups is not None:
            wakeups, self._wakeups = self._wakeups, None
            await asyncio.to_thread(wakeups.stop)
        await self._reader.close()
        await self._writer.close()
        self._database.close()

    # -- health ----------------------------------------------------------------------------------

    @property
    def accepting(self) -> bool:
        """False while the disk is over 95 % or was full; recovers by itself."""
        return self._writer.accepting

    @property
    def unreachable(self) -> str | None:
        """Why the database cannot be reached; None while it can. Recovers by itself."""
        return self._writer.unreachable

    @property
    def back_at(self) -> float:
        """When it could be reached again, after it could not (`time.monotonic`)."""
        return self._writer.back_at

    @property
    def healthy(self) -> bool:
        """False once the writing thread has died of a bug."""
        return self._writer.healthy

    @property
    def beat(self) -> float:
        """When the writing thread last went round (`time.monotonic`); at least once a second."""
        return self._writer.beat

    async def ping(self) -> None:
        """Return once the writing thread has committed a transaction in which nothing happens."""
        await self._writer.submit(Rank.KEEP, lambda session: None)

    # -- the fleet -------------------------------------------------------------------------------

    @property
    def listening(self) -> bool:
        """Whether what other daemons queue is heard of at once, and not only found by looking."""
        return self._wakeups is not None and self._wakeups.listening

    def tell(self, *flags: str) -> None:
        """Have the other daemons told of what `Wakeup` has a flag for."""
        if self._wakeups is not None:
            self._wakeups.tell(None, *flags)

    def expect(self, due: Mapping[Key, int]) -> None:
        """Others have tasks of these keys that are due then: the next claims are to find them."""
        if self._session is not None:
            for key, next_try in due.items():
                self._session.heard(key, next_try)

    async def give_sign(self, beat: Beat) -> int:
        """Give a sign of life; the time by the database's clock, milliseconds since the epoch."""
        return await self._writer.submit(
            Rank.CLAIM, partial(daemons.beat, beat=beat, alone=not self.shared)
        )

    async def leave(self) -> None:
        """The daemon ends: it is no longer listed."""
        await self._writer.submit(Rank.KEEP, daemons.leave)

    async def daemons(self) -> builtins.list[DaemonSeen]:
        """All daemons that gave a sign of life within the last hour."""
        return await self._reader.run(daemons.seen)

    async def declared(self, owners: Collection[str]) -> dict[str, Beat]:
        """What these daemons can carry out."""
        return await self._reader.run(partial(daemons.declared, owners=owners))

    async def rates(self) -> dict[str, tuple[int, builtins.list[builtins.list[int]]]]:
        """Of lanes with a rate that daemons keep together: the time by the database's clock, and
        what of it began lately, pairs of a time and how many. Nothing where there is one daemon."""
        return await self._reader.run(shared_rates.charged) if self.shared else {}

    async def charge_past(self, past: Mapping[str, tuple[RateLimit, Sequence[int]]]) -> None:
        """Charge lanes whose rate daemons keep together with what began before any of them did.

        `past`: of each lane its limit, and when attempts began (milliseconds), in ascending order.
        Nothing happens to lanes that others have charged lately, nor where there is one daemon.
        """
        if self.shared and past:
            await self._writer.submit(Rank.CLAIM, partial(shared_rates.charge_past, past=past))

    async def holding_back(self, longer_than: float) -> builtins.list[str]:
        """What has kept the database from cleaning up for so many seconds, in words."""
        return await self._reader.run(partial(self._database.holding_back, longer_than=longer_than))

    # -- the hot path ----------------------------------------------------------------------------

    async def enqueue(self, new: Sequence[Insert]) -> builtins.list[Inserted]:
        """Write new tasks, all or none of them.

        Raises StorageFull, and UniqueKeyReused where an idempotency key of the last 24 hours comes
        back with other parameters; with the same ones the first task is the answer.
        """
        self._check_room()
        return await self._writer.submit_item(Rank.NEW, inserts.ENQUEUE, new)

    async def claim(self, picks: Sequence[Pick]) -> Claimed:
        """Claim what is due of each key. Do not cancel this: the claims would have no owner."""
        claim = claim_postgres.claim if self.shared else claim_sqlite.claim
        return await self._writer.submit(Rank.CLAIM, partial(claim, picks=picks))

    async def start(
        self, task: Task, at: int, effects: Effects
    ) -> tuple[bool, builtins.list[Inserted]]:
        """Note, before the first byte is sent, that a claimed task starts; False if it may not.

        `effects`, those of the `before_` phase, are written with it.
        """
        started = await self._writer.submit_item(
            Rank.SETTLE, settling.STEPS, Start(task, at, effects)
        )
        return cast("Started", started)

    async def settle(self, settlement: Settlement) -> Settled:
        """Write how a claim ended, with all that follows from it."""
        # What was born has a slot, and waits for it.
        effects = settlement.effects
        patient = not effects or not any(isinstance(effect, Insert) for effect in effects)
        settled = await self._writer.submit_item(Rank.SETTLE, settling.STEPS, settlement, patient)
        return cast("Settled", settled)

    async def release(self, tasks: Sequence[Task]) -> builtins.list[str | None]:
        """Give claims back that did not start, their attempts too.

        The status of each now, None where the claim no longer stood.
        """
        return await self._writer.submit(Rank.SETTLE, partial(claim_sqlite.release, tasks=tasks))

    async def write(self, effects: Effects) -> builtins.list[Inserted]:
        """Write what hooks returned outside of any task."""
        return await self._writer.submit(Rank.HAND, partial(apply_effects, effects=effects))

    async def reclaim(self, held: Collection[int] = ()) -> tuple[int, Tasks]:
        """Take over what dead daemons held; call it until there is nothing.

        Claims that did not start are pending again: how many. Those that did are returned, ours.
        One file has one daemon: every other owner is dead. In a shared database those are whose
        lease has run out. `held`: the tasks that we know to hold; they stay as they are.
        """
        if self.shared:
            ours = frozenset(held)
            look = partial(
                claim_postgres.any_run_out, leases=self._leases, owner=self.owner, held=ours
            )
            if not await self._reader.run(look):
                return 0, []
            return await self._writer.submit(Rank.CLAIM, partial(claim_postgres.reclaim, held=ours))
        return await self._writer.submit(Rank.CLAIM, claim_sqlite.reclaim)

    async def renew(self, held: Collection[int]) -> int:
        """Renew the leases of tasks that we hold, as far as they need it; how many did."""
        if not self.shared:
            return 0
        return await self._writer.submit(
            Rank.CLAIM, partial(claim_postgres.renew, held=frozenset(held))
        )

    # -- people ----------------------------------------------------------------------------------

    async def trigger(self, task_id: int, *, force: bool = False) -> Task:
        """Make a task due now, before all others of its key. Raises NotFound, Conflict."""
        return await self._writer.submit(
            Rank.HAND, partial(manual.trigger, task_id=task_id, force=force)
        )

    async def cancel(self, task_id: int) -> Task:
        """Cancel a task; one that runs ends instead of its next try. Raises NotFound, Conflict."""
        return await self._writer.submit(Rank.HAND, partial(manual.cancel, task_id=task_id))

    async def pause(self, endpoint_id: str, paused: bool) -> None:
        """Remember whether the calls of an endpoint wait."""
        await self._writer.submit(
            Rank.HAND, partial(manual.pause, endpoint_id=endpoint_id, paused=paused)
        )

    async def paused(self) -> set[str]:
        """The endpoints whose calls wait."""
        return await self._reader.run(reader.paused)

    async def create_bulk(
        self,
        filter: TaskFilter,  # noqa: A002
        rate: float | None,
        dry_run: bool,
        action: str = RETRY,
    ) -> Bulk:
        """Begin to retry or cancel all that match.

        A filter without a status means the failed ones; where they are cancelled, those that wait.
        `rate`: tasks a second, for whoever steps it. A dry run only counts.
        """
        wanted = bulk.with_default(action, filter)
        highest, matched = await self._reader.run(partial(bulk.survey, wanted=wanted))
        return await self._writer.submit(
            Rank.HAND,
            partial(
                bulk.create, action=action, wanted=wanted, rate=rate, dry_run=dry_run,
                highest=highest, matched=matched,
            ),
        )  # fmt: skip

    async def step_bulk(
        self, bulk_id: int, limit: int
    ) -> tuple[Bulk, dict[Key, builtins.list[int]]]:
        """Look at the next `limit` tasks of a bulk; the bulk now, and those moved, by their key.

        Raises NotFound.
        """
        seen = await self.get_bulk(bulk_id)
        if seen.status != "running":
            return seen, {}
        ids = await self._reader.run(partial(bulk.upcoming, bulk=seen, limit=limit))
        return await self._writer.submit(
            Rank.KEEP, partial(bulk.step, seen=seen, ids=ids, last=len(ids) < limit)
        )

    async def running_bulks(self) -> builtins.list[Bulk]:
        """Those that go on."""
        return await self._reader.run(bulk.running)

    async def release_bulks(self) -> None:
        """Leave those that are carried out here to other daemons, which need not wait then."""
        await self._writer.submit(Rank.KEEP, bulk.release)

    async def newest_bulks(self, limit: int) -> builtins.list[Bulk]:
        """The latest ones, newest first."""
        return await self._reader.run(partial(bulk.newest, limit=limit))

    async def get_bulk(self, bulk_id: int) -> Bulk:
        """One bulk. Raises NotFound."""
        return await self._reader.run(partial(bulk.get, bulk_id=bulk_id))

    async def cancel_bulk(self, bulk_id: int) -> Bulk:
        """Stop a bulk where it is. Raises NotFound."""
        return await self._writer.submit(Rank.HAND, partial(bulk.cancel, bulk_id=bulk_id))

    # -- the action log --------------------------------------------------------------------------

    async def record(self, who: str, action: Action) -> int:
        """Write down what somebody did; its number."""
        return await self._writer.submit(
            Rank.HAND, partial(manual.record_action, who=who, action=action)
        )

    async def actions(self, limit: int, after: int | None = None) -> builtins.list[Done]:
        """Up to `limit` of what people did, newest first, older than the number `after`."""
        return await self._reader.run(partial(manual.newest_actions, limit=limit, after=after))

    # -- schedules -------------------------------------------------------------------------------

    async def slots(self) -> dict[str, tuple[str, int]]:
        """Of each endpoint that had one: its schedule, and the last slot that was taken."""
        return await self._reader.run(schedules.slots)

    async def slot(self, endpoint_id: str) -> schedules.SlotRow | None:
        """How far the schedule of one endpoint has come."""
        return await self._reader.run(partial(schedules.slot, endpoint_id=endpoint_id))

    async def take_slot(
        self,
        endpoint_id: str,
        spec: str,
        previous: tuple[str, int] | None,
        slot: int,
        insert: Insert | None,
    ) -> Inserted | None:
        """Move on from `previous`, a schedule and its slot, to `slot` and write its task, together.

        None where somebody else has taken it, or where it has no task. Raises StorageFull.
        """
        if insert is not None:
            self._check_room()
        return await self._writer.submit(
            Rank.NEW,
            partial(
                schedules.take, endpoint_id=endpoint_id, spec=spec, previous=previous, slot=slot,
                insert=insert,
            ),
        )  # fmt: skip

    # -- looking up ------------------------------------------------------------------------------

    async def get(self, task_id: int) -> Task:
        """One task. Raises NotFound."""
        return await self._reader.run(partial(rows.get, task_id=task_id))

    async def response(self, task_id: int) -> dict[str, Any] | None:
        """The last answer of a task, None where there is none. Raises NotFound."""
        return await self._reader.run(partial(reader.response, task_id=task_id))

    async def attempts(self, task_id: int) -> builtins.list[Attempt]:
        """The attempts of a task, in order."""
        return await self._reader.run(partial(reader.attempts, task_id=task_id))

    async def list(self, filter: TaskFilter, limit: int, after: int | None = None) -> Tasks:  # noqa: A002
        """Up to `limit` tasks, newest first, older than the id `after`; without their payloads."""
        return (await self.page(filter, limit, after))[0]

    async def page(
        self,
        filter: TaskFilter,  # noqa: A002
        limit: int,
        after: int | None = None,
        *,
        bounded: bool = False,
    ) -> tuple[Tasks, int | None]:
        """The same, and the id that a next page has to be older than; None where there is none.

        Where a text is looked for, a page may be short or empty though another one follows; if
        `bounded` also where it is looked for by something else that has no index.
        """
        return await self._reader.run(
            partial(reader.page, wanted=filter, limit=limit, after=after, bounded=bounded)
        )

    async def last_ended(
        self,
        filter: TaskFilter,  # noqa: A002
        limit: int,
        after: Place | None = None,
    ) -> tuple[Tasks, Place | None]:
        """Tasks that have ended, the last one first; those after a place if it is given.

        Beside them the place after which there is more; a page may be short or empty though there
        is.
        """
        return await self._reader.run(
            partial(reader.last_ended, wanted=filter, limit=limit, after=after)
        )

    async def counts(self) -> dict[str, int]:
        """How many tasks each status has; what other daemons did may be missing for a while."""
        if self.shared and time.monotonic() >= self._count_again:
            began = time.monotonic()
            self._count_again = began + 1.0
            self._writer.counts = await self._reader.run(counted)
            took = time.monotonic() - began
            self._count_again = time.monotonic() + max(COUNTED_FOR, took * COUNT_SHARE)
        return dict(self._writer.counts)

    async def due(self, now: int) -> tuple[int, int | None]:
        """How many pending tasks are due at `now`, and since when the first one is."""
        return await self._reader.run(partial(reader.due, now=now))

    async def earliest(self) -> dict[Key, int]:
        """Every key with pending tasks, and when its first one is due."""
        return await self._reader.run(partial(reader.earliest, at_once=self.shared))

    async def last_success(self) -> dict[str, int]:
        """Of each endpoint that had one: when its last call that succeeded began."""
        return await self._reader.run(reader.last_success)

    async def begun(self, since: int) -> builtins.list[tuple[Key, int]]:
        """Attempts that have ended, and began at `since` (milliseconds) or later: whose, and when.

        Of the last 200,000 at most.
        """
        return await self._reader.run(partial(reader.begun, since=since))

    async def unfinished(self, endpoint_id: str) -> bool:
        """True while a call of the endpoint waits or runs."""
        return await self._reader.run(partial(reader.unfinished, endpoint_id=endpoint_id))

    async def rows(self, table: str) -> builtins.list[dict[str, Any]]:
        """Every row of a plugin's table. Raises QueueError where no plugin registered it."""
        declared = self._tables.get(table)
        if declared is None:
            raise QueueError(f"no plugin has registered a table {table!r}")
        return await self._reader.run(partial(reader.rows, table=declared))

    async def size(self) -> int:
        """Bytes on disk."""
        return await self._reader.run(self._database.size)

    # -- housekeeping ----------------------------------------------------------------------------

    async def prune(self, kept: Retention, limit: int = 500) -> int:
        """Delete up to `limit` tasks that have been kept long enough; how many there were."""
        now, gone = self._clock.now_ms(), 0
        for status, seconds in retention.limits(kept):
            if gone >= limit:
                break
            find = partial(retention.old, status=status, kept=seconds, now=now, limit=limit - gone)
            if ids := await self._reader.run(find):
                gone += await self._writer.submit(
                    Rank.KEEP, partial(retention.delete, status=status, kept=seconds, ids=ids)
                )
        await self._writer.submit(Rank.KEEP, partial(retention.delete_bulks, kept=kept.failed))
        await self._writer.submit(Rank.KEEP, partial(retention.delete_actions, kept=kept.failed))
        return gone

    def _check_room(self) -> None:
        if (why := self._writer.refusing) is not None:
            raise Unreachable(why)
        if not self._writer.accepting:
            raise StorageFull("the disk has no room for new work; what is queued goes on")
