"""What goes into the store and comes out of it. Times are milliseconds since the epoch.

What is made for each task or attempt is not frozen: each field of it would take a call, of 1,100
instructions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

from orchestratord.model.recurring_rows import RecurringRows
from orchestratord.model.task import (
    Action,
    Attempt,
    BatchMember,
    Key,
    NewChore,
    NewTask,
    RowEffect,
    Slice,
    Task,
)
from orchestratord.queue.daemon_health import Trouble
from orchestratord.values.rate_limit import RateLimit
from orchestratord.values.status_set import StatusCode, StatusSet


@dataclass(frozen=True, slots=True)
class Happened:
    """A new task that is written already succeeded: nothing has to be sent for it.

    Args:
        id: reserved for it, since what follows from it may name it.
        effects: what follows from it, written in the same transaction.
    """

    id: int
    effects: Sequence[StoredEffect] = ()


@dataclass(slots=True)
class Insert:
    """A task to write; pending, or with `happened` already succeeded.
    `run_id`: the run of the call that it follows from, if it is a call. `begins_run`: it is a call
    that nothing caused, and calls follow at once from it, or hooks are to be told how its run ends,
    whatever ends it."""

    task: NewTask
    happened: Happened | None = None
    run_id: int | None = None
    begins_run: bool = False


StoredEffect = Insert | RowEffect | BatchMember | Slice | NewChore
"""An `Effect` as it is written."""


@dataclass(slots=True)
class Inserted:
    """What became of an `Insert`."""

    id: int
    """0 for a hook's task that the database cannot hold: it was logged and dropped."""
    key: Key
    next_try: int | None
    """When it is due; None for one that was written succeeded."""
    duplicate: bool = False
    """Nothing was written: `id` is the task that has the same idempotency key; 0 where a row of
    `once` was there."""
    following: Sequence[Inserted] = ()
    """Of one that was written succeeded: one for each `Insert` among its effects."""
    happened: bool = False
    """It was written succeeded."""


def duplicates(effects: Sequence[StoredEffect]) -> list[Inserted]:
    """What becomes of effects that were written before: nothing, of each `Insert`."""
    return [
        Inserted(0, effect.task.key, None, duplicate=True)
        for effect in effects
        if isinstance(effect, Insert)
    ]


class Pick(NamedTuple):
    """Claim up to `limit` tasks of `key` whose `next_try` is not after `due_before`.

    `idempotent` says whether the tasks of this key may be sent twice. Where daemons share the
    queue, no more is claimed of all keys of `lane` than its `rate` leaves for all of them. The
    partitions in `avoid` are passed over, and count neither as due nor as left; of those in `quick`
    more than one at a time may be claimed. No more is claimed
    than leaves at most `global_concurrency` calls of the key's API running in all daemons.
    """

    key: Key
    limit: int
    idempotent: bool
    due_before: int
    lane: str = ""
    rate: RateLimit | None = None
    avoid: frozenset[str] = frozenset()
    quick: frozenset[str] = frozenset()
    global_concurrency: int | None = None


class Line(NamedTuple):
    """Where tasks take turns: the ordered ones of a partition, or the others of it."""

    endpoint_id: str
    webhook: str
    partition: str
    ordered: bool

    @property
    def key(self) -> Key:
        """What its tasks are claimed by."""
        return Key(self.endpoint_id, self.webhook)

    @classmethod
    def of(cls, task: Task) -> Line:
        """The line of a task that has a partition."""
        return cls(task.endpoint_id, task.webhook, task.partition or "", task.ordered)


class LineTurn(NamedTuple):
    """Whose turn it is in a line."""

    line: Line
    id: int
    next_try: int
    instead_of: int | None
    """The pending one that claims can see until then."""


class FairTurn(NamedTuple):
    """Of a line that is not ordered: the first one that is held, and what it waits for."""

    place: int
    """Of the line among those that were asked for."""
    id: int
    next_try: int
    limit: int
    """How many of its partition may run at once; 0 for no bound."""
    head: int | None
    """The pending one that claims can see, if there is one, …"""
    head_next_try: int | None
    """… and when that is due."""
    head_limit: int | None
    """… and how many of its partition may run at once."""
    running: int
    """How many of those with a limit run; 0 where it has none."""


class OrderedTurn(NamedTuple):
    """Of an ordered line: the first one that has not let it go, where that is held."""

    place: int
    """Of the line among those that were asked for."""
    id: int
    next_try: int
    ready: int | None
    """A later one that claims can see, or that runs."""
    ready_status: str | None


@dataclass(frozen=True, slots=True)
class Claimed:
    """The claimed tasks, for each key in the order in which they were due."""

    tasks: list[Task]
    earliest: dict[Key, int | None]
    """Of each picked key: when its next pending task is due; None where there is none."""
    used_up: Mapping[str, int] = field(default_factory=dict)
    """Lanes of which the rate leaves nothing to any daemon, and for how many milliseconds."""
    full: Mapping[str, int] = field(default_factory=dict)
    """Lanes of which as many run in all daemons as may, or from which another one just claims, and
    in how many milliseconds to look at them again."""


@dataclass(slots=True)
class Start:
    """A claimed task may send from `at` on; `effects`, those of the `before_` phase, go with it.
    `alone`: nothing else is under way in its daemon. `begins_run`: it is the first of a run."""

    task: Task
    at: int
    effects: Sequence[StoredEffect] = ()
    alone: bool = False
    begins_run: bool = False
    # As a Settlement has them: what writes both need not ask which it is.
    recurring: ClassVar[Sequence[RecurringRows]] = ()
    last_success_at: ClassVar[None] = None


@dataclass(slots=True)
class Settlement:
    """How a claim ended.

    Args:
        task: the task as it was claimed; the result counts only while that claim stands.
        status: pending, succeeded, failed, or cancelled.
        at: when it ended.
        reason: why it failed.
        next_try: for pending: when it is due again.
        status_code: what the row shows as its last one from now on.
        error: what the row shows as its last error from now on.
        response: the answer, as `response_text` makes it; None keeps the one that is stored.
        attempt: the row of the attempt; None where there was none.
        uncounted: the attempt does not count.
        max_attempts: what the row shows from now on; None keeps it.
        deaths: what the row counts from now on; None keeps it.
        effects: written in the same transaction, if the result counts.
        last_success_at: remembered for the endpoint.
        backed_off: for pending: 1 where the backoff of a failure that counts puts it off; 2 where
            it was tried early since.
        begins_run: it is the first call of a run, and is counted in none yet.
        recurring: written with the effects, as with other successes of its key.
        look: its answer said that it is not done yet, and nothing else has happened.
        waits_for: for pending: why a hook put it off.
    """

    task: Task
    status: str
    at: int
    reason: str | None = None
    next_try: int | None = None
    status_code: StatusCode = None
    error: str | None = None
    response: str | None = None
    attempt: Attempt | None = None
    uncounted: bool = False
    max_attempts: int | None = None
    deaths: int | None = None
    effects: Sequence[StoredEffect] = ()
    last_success_at: int | None = None
    backed_off: int = 0
    begins_run: bool = False
    recurring: Sequence[RecurringRows] = ()
    look: bool = False
    waits_for: str | None = None


@dataclass(slots=True)
class Settled:
    """What became of a `Settlement`."""

    accepted: bool
    """False, and nothing written: the task has another owner by now, or was to be cancelled."""
    inserted: Sequence[Inserted]
    """One for each `Insert` among the effects."""
    holds: bool = False
    """It has failed, and its ordered partition waits for a person from now on."""
    cancel_asked: bool = False
    """It would have waited for another try, and a cancel was asked for."""


Started = tuple[bool, Sequence[Inserted]]
"""What became of a `Start`: False, and nothing written, where the task has another owner by now;
one `Inserted` for each `Insert` among the effects."""


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks: those that meet all that is given.

    Args:
        status: any of these; empty for any.
        status_code: the last status code is in this set.
        reason: failed for any of these; empty for any.
        left_out: not failed for any of these.
        endpoint: `api/name`, or `api/*` for all of an API.
        kind: `call`, `webhook`, ….
        since: created at this time or later.
        until: created before this time.
        ended_since: ended at this time or later.
        text: stands in the parameters, the last error, or the name of the endpoint or webhook,
            however its letters are written.
        ids: one of these; None for any.
        parent: caused by this task.
        partition: in the partition of this value, of whatever endpoint or webhook.
        run: a call of this run.
        bulk: moved by this bulk, and by none after it.
        batch: announced by the delivery of this batch.
        webhook: a delivery of the webhook of this name.
    """

    status: tuple[str, ...] = ()
    status_code: StatusSet | None = None
    reason: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    endpoint: str | None = None
    kind: str | None = None
    since: int | None = None
    until: int | None = None
    text: str | None = None
    ids: tuple[int, ...] | None = None
    parent: int | None = None
    partition: str | None = None
    run: int | None = None
    bulk: int | None = None
    batch: int | None = None
    webhook: str | None = None
    ended_since: int | None = None


RETRY, CANCEL, RESOLVE = "retry", "cancel", "resolve"
"""What a bulk does."""
CHANGED = "changed"
"""Why a bulk skipped tasks that had changed before their turn came."""
OVERTAKEN = "overtaken"
"""Why it skipped tasks after which a later one of their ordered partition had started."""
NO_SUCCESS = "no_success"
"""Why it skipped tasks that it was to resolve as succeeded: an empty answer is none to them."""


class Place(NamedTuple):
    """Where a task stands among those that have ended; what it goes by may be the same for two."""

    finished_at: int
    """Milliseconds since the epoch."""
    id: int


@dataclass(frozen=True, slots=True)
class Bulk:
    """A manual retry, or the end, of all tasks that match a filter, carried out in steps."""

    id: int
    filter: TaskFilter
    rate: float | None
    """Tasks a second; None for no limit."""
    status: str
    """running, paused (after `stop_after` failures), finished (all are moved) or cancelled."""
    highest_id: int
    """Tasks that were created later are left alone."""
    cursor: int
    """Tasks up to this id have been looked at."""
    matched: int
    """How many matched when it was created; once it is finished, those that came to match until
    then as well, so that it is the sum of moved and skipped."""
    moved: int
    """How many are due again by its doing, or given up."""
    skipped: int
    """How many were left as they are."""
    created_at: int
    updated_at: int
    finished_at: int | None
    action: str = RETRY
    """`RETRY`, `CANCEL` or `RESOLVE`."""
    why_skipped: Mapping[str, int] = field(default_factory=dict)
    """How many were skipped for what: `CHANGED`, or the reason for which they would fail again."""
    succeeded: int = 0
    """Of those that it moved, how many have succeeded since."""
    failed: int = 0
    """How many have failed for good since."""
    stop_after: int = 0
    """Failures after which it pauses; 0 for never."""
    stop_at: int | None = None
    """At how many in `failed` it pauses next, or has paused."""
    ended_at: int | None = None
    """When the last of those that it moved had ended."""
    resolution: Mapping[str, Any] | None = None
    """Of a `RESOLVE`: `as`, how the tasks ended, and `note`, why."""
    waiting: int = 0
    """How many of those that it moved, and no bulk after it, have not ended; where it was asked
    for."""

    @property
    def counts(self) -> tuple[int, ...]:
        """How far it is and how it went, in numbers that grow."""
        return self.moved, self.skipped, self.succeeded, self.failed


class Chore(NamedTuple):
    """What the daemon itself does later, claimed here."""

    id: int
    kind: str
    subject: str
    """What it is about: an id, for most kinds."""
    failures: int = 0
    """How often its step has failed since one was last taken."""
    deaths: int = 0
    """How many daemons have died at it since."""


@dataclass(frozen=True, slots=True)
class Done:
    """An entry of the action log: what a person did manually."""

    id: int
    at: int
    who: str
    action: Action


@dataclass(frozen=True, slots=True)
class Beat:
    """What a daemon says of itself, again and again.

    Args:
        host: the name of its machine.
        pid: there.
        version: of orchestratord.
        generation: of its configuration.
        age: milliseconds since it was started.
        fingerprint: changes with what follows.
        endpoints: those it declares, each with a digest of its declaration.
        schedules: endpoint → the schedule that it declares.
        plugins: names with versions.
        lanes: those that wait for their receiver, as JSON-like data; not a part of the fingerprint.
        process_group: of its workers; empty for a daemon without others.
        worker: its number among them, from 1.
        troubles: what keeps it from its work.
    """

    host: str = ""
    pid: int = 0
    version: str = ""
    generation: int = 0
    age: int = 0
    fingerprint: str = ""
    endpoints: Mapping[str, str] = field(default_factory=dict)
    schedules: Mapping[str, str] = field(default_factory=dict)
    plugins: Mapping[str, str] = field(default_factory=dict)
    lanes: Sequence[Mapping[str, Any]] = ()
    process_group: str = ""
    worker: int = 1
    troubles: Sequence[Trouble] = ()


@dataclass(frozen=True, slots=True)
class DaemonSeen:
    """A worker of a daemon as its row shows it, or all as one; times are by the database's
    clock."""

    owner: str
    host: str
    pid: int
    version: str
    generation: int
    fingerprint: str
    started_at: int
    beat_at: int
    lease_until: int
    lanes: Sequence[Mapping[str, Any]]
    """Those that wait for their receiver."""
    process_group: str
    worker: int
    troubles: Sequence[Trouble]
    workers: Sequence[DaemonSeen] = ()
    """Those of the daemon, where this is all of them as one."""

    @classmethod
    def of_each_daemon(cls, workers: Iterable[DaemonSeen]) -> list[DaemonSeen]:
        """Each daemon as one: as its first worker is, with the lanes of all of its workers, and
        alive as long as one of them is."""
        groups: dict[str, list[DaemonSeen]] = {}
        for one in workers:
            groups.setdefault(one.process_group, []).append(one)
        found = []
        for group in groups.values():
            # While one version becomes the next there are two of each number.
            group.sort(key=lambda one: (one.worker, -one.started_at))
            beat_at = max(one.beat_at for one in group)
            until = max(one.lease_until for one in group)
            lanes = [lane for one in group for lane in one.lanes]
            found.append(
                replace(group[0], beat_at=beat_at, lease_until=until, lanes=lanes, workers=group)
            )
        return found


class HoldingBack(NamedTuple):
    """What keeps the database from removing rows that the queue is done with.

    Args:
        subject: who or what it is, in the same words at each look.
        words: a sentence that begins with the subject: for how long, and what to do about it.
    """

    subject: str
    words: str

    def is_subject_of(self, words: str) -> bool:
        """Whether the words of an earlier look are about the same."""
        return words.startswith(f"{self.subject} ")


@dataclass(frozen=True, slots=True)
class Wakeup:
    """What a daemon tells the others at once, where the database can carry it."""

    due: Mapping[Key, int] | None = None
    """Keys with tasks that are due; None where there are too many to be named."""
    paused: bool = False
    """An endpoint was paused or resumed."""
    tables: bool = False
    """A table of a plugin was changed by a person, or a webhook was disabled."""
    lanes: bool = False
    """A lane waits for its receiver, or does so no more."""
