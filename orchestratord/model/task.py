"""What the queue holds: tasks, their attempts, and what hooks ask it to write.

pending → running → succeeded | failed | pending (next_try by the backoff)
pending → failed (expired, endpoint_removed, webhook_removed, webhook_disabled)
pending, failed → cancelled; running, with a cancel asked for → cancelled instead of a retry
failed, cancelled, (with force) succeeded → pending, manually
pending, failed → succeeded or failed, manually (resolved)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, make_dataclass, replace
from enum import StrEnum
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from orchestratord.errors import InvalidPayload
from orchestratord.model.partition_turn import HOLD, HOLDS, Partition, PartitionTurn
from orchestratord.values.clock import rfc3339
from orchestratord.values.json_body import INLINE_BYTES, is_larger
from orchestratord.values.status_set import StatusCode

_SQL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SQL_TYPE = re.compile(r"(TEXT|INTEGER|REAL)( NOT NULL)?", re.IGNORECASE)


class Status(StrEnum):
    """Where a task stands."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})


WaitsFor = Literal[
    "breaker",
    "retry_after",
    "overload",
    "rate_limit",
    "concurrency",
    "parked",
    "partition",
    "snooze",
]
"""What a task waits for: `parked` is paused, disabled, or without its plugin."""


class Reason(StrEnum):
    """Why a task failed for good."""

    EXHAUSTED = "exhausted"  # every attempt was used
    NOT_RETRYABLE = "not_retryable"  # `retry.when` does not cover the answer
    AMBIGUOUS = "ambiguous"  # may have been carried out, and a repeat is not safe
    REJECTED = "rejected"  # by a hook, or by the egress rules
    EXPIRED = "expired"  # `give_up_after` is over
    POISONED = "poisoned"  # its starts ended with the daemon's death
    INVALID_PAYLOAD = "invalid_payload"  # its request or payload does not render
    INVALID = "invalid"  # what its row holds cannot be read
    ENDPOINT_REMOVED = "endpoint_removed"
    WEBHOOK_REMOVED = "webhook_removed"
    WEBHOOK_DISABLED = "webhook_disabled"
    RESOLVED = "resolved"  # a person said how it ended; also of a task that succeeded so
    REPLACED = "replaced"  # of a cancelled task: what was made of it has succeeded


class Kind(StrEnum):
    """What a task does."""

    CALL = "call"
    WEBHOOK = "webhook"


class Key(NamedTuple):
    """What tasks are claimed by. `webhook` is empty for calls."""

    endpoint_id: str
    webhook: str = ""

    @property
    def name(self) -> str:
        """As people write it: `api/name`, or `api/name#webhook`."""
        return f"{self.endpoint_id}#{self.webhook}" if self.webhook else self.endpoint_id


@dataclass(frozen=True, slots=True)
class Action:
    """What was done manually, for the action log.

    Args:
        name: in words, such as `retry` or `edit webhooks`.
        endpoint: to which endpoint.
        webhook: to which of its webhooks.
        task: to which task.
        bulk: by which bulk.
        detail: what else there is to say; JSON-like, without secrets.
    """

    name: str
    endpoint: str | None = None
    webhook: str | None = None
    task: int | None = None
    bulk: int | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


LETS_GO = {
    Reason.EXPIRED,
    Reason.ENDPOINT_REMOVED,
    Reason.WEBHOOK_REMOVED,
    Reason.WEBHOOK_DISABLED,
    Reason.RESOLVED,
}
"""Why a task fails that does not hold its partition, whatever its rule."""


DOUBTFUL = (Reason.AMBIGUOUS.value, Reason.POISONED.value)
"""Reasons whose tasks a retry of many leaves out, also once they are cancelled: they may have been
carried out, or end the daemon."""
KEEPS_DOUBT = f"reason = CASE WHEN reason IN {DOUBTFUL} THEN reason END"
"""What a cancel does, in SQL."""


class UnreadableParams(dict[str, Any]):
    """Stands for the parameters of a row whose JSON cannot be read: there are none, and `why`."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why


@dataclass(frozen=True, slots=True)
class Task:
    """A row of `retry_schedule`. Times are milliseconds since the epoch."""

    id: int
    kind: str
    endpoint_id: str
    webhook: str
    """The webhook's name, empty for a call."""
    phase: str | None
    """For a delivery: the phase that it tells of."""
    status: str
    reason: str | None
    attempts: int
    """Attempts that an answer or an error ended; while one runs, it is counted."""
    max_attempts: int
    next_try: int | None
    params: Mapping[str, Any]
    payload: str | None
    """For a delivery: the body to send, rendered when the event happened."""
    parent_id: int | None
    created_at: int
    updated_at: int
    scheduled_at: int
    """The slot of a schedule, else when it was to run first."""
    finished_at: int | None = None
    started_at: int | None = None
    unique_key: str | None = None
    locked_by: str | None = None
    idempotent: bool = True
    """As it was when the running attempt was claimed."""
    granted: int = 0
    """Attempts that were added manually to the policy's `max_attempts`."""
    deaths: int = 0
    """Starts that ended with the daemon's death."""
    generation: int = 0
    """How often a succeeded task was forced to run again."""
    retried_at: int | None = None
    """When it was last retried manually; `give_up_after` counts from here."""
    cancel_requested: bool = False
    last_status_code: StatusCode = None
    last_error: str | None = None
    depth: int = 0
    """How many calls led to it, one caused by the other; 0 where they are not counted."""
    claims: int = 0
    """How often it was claimed: tells one claim from another."""
    nonce: str | None = None
    """Random: what its receiver tells a repeat by. None in rows of before schema 8."""
    alone: bool = False
    """Of a poison candidate that has started: nothing else was under way in its daemon."""
    bulk_id: int | None = None
    """The last bulk that moved it."""
    replaces: int | None = None
    """The task that it was made of, with other parameters, and whose place it takes."""
    backoff_until: int | None = None
    """When the delay is over that its last attempt which counted has chosen."""
    run_id: int | None = None
    """Of a call: the run that it belongs to, the id of the call that began it. None for a call that
    nothing caused, and that has no child tasks."""
    looks: int = 0
    """How often an answer said that it is not done yet; since it was last retried manually."""
    looked_since: int | None = None
    """When the first of these came."""
    waits_for: str | None = None
    """Why a hook put it off until `next_try`; None where none did."""
    maybe_large: bool = field(default=True, compare=False)  # False: too short to be `is_large`
    turn: PartitionTurn | None = None
    """What there is of its partition; None for no partition."""

    @property
    def partition(self) -> str | None:
        """The value of its partition; None for none."""
        return None if self.turn is None else self.turn.partition

    @property
    def ordered(self) -> bool:
        """Whether its partition goes in the order of ids."""
        return self.turn is not None and self.turn.partition_rule < 0

    @property
    def held(self) -> bool:
        """It is pending, and waits for its turn in its partition."""
        return self.turn is not None and self.turn.held > 0

    @property
    def partition_limit(self) -> int:
        """How many of its partition may run at once in all daemons; 0 for no bound."""
        return 0 if self.turn is None else max(self.turn.partition_rule, 0)

    @property
    def first_at(self) -> int | None:
        """When it was first in its ordered partition; `give_up_after` counts from here."""
        return self.turn.turn_at if self.turn is not None and self.turn.turn_at > HOLDS else None

    @property
    def blocks(self) -> bool:
        """No later one of its ordered partition may run: it has not ended, or holds it."""
        return self.turn is not None and self.turn.turn_at > 0

    def holds_after(self, status: str, reason: str | None) -> bool:
        """Whether its ordered partition waits for a person once it ends so."""
        failed = status == Status.FAILED and reason not in LETS_GO
        return failed and self.turn is not None and self.turn.partition_rule == HOLD

    def floor(self, now: int) -> int:
        """When the delay is over that its last attempt which counted has chosen; 0 for none. Of a
        clock that was put back since the claim it is as long ahead as it was."""
        return (self.backoff_until or 0) - max(self.updated_at - now, 0)

    @property
    def key(self) -> Key:
        """What the task is claimed by."""
        return Key(self.endpoint_id, self.webhook)

    def check_readable(self) -> None:
        """Raise InvalidPayload where its row cannot be read."""
        if isinstance(self.params, UnreadableParams):
            raise InvalidPayload(self.params.why, stored=True)

    @property
    def is_large(self) -> bool:
        """Whether going through its parameters would hold the event loop for long."""
        return self.maybe_large and bool(self.params) and is_larger(self.params, INLINE_BYTES)

    def after(
        self,
        status: str,
        reason: str | None,
        next_try: int | None,
        status_code: StatusCode,
        error: str | None,
    ) -> Task:
        """This task after an attempt; `dataclasses.replace` takes many times as long."""
        values = list(_values(self))
        values[_STATUS], values[_REASON], values[_NEXT_TRY] = status, reason, next_try
        values[_CODE], values[_ERROR] = status_code, error
        return made(values)


@dataclass(frozen=True, slots=True)
class TaskExcerpt(Task):
    """A task as a list has it: without its payload, and with the beginning of long parameters."""


_NAMES = tuple(item.name for item in fields(Task))
_values = attrgetter(*_NAMES)
_STATUS, _REASON, _NEXT_TRY, _CODE, _ERROR = (
    _NAMES.index(name)
    for name in ("status", "reason", "next_try", "last_status_code", "last_error")
)


def thawed(frozen: type[Any]) -> type[Any]:
    """A class with the fields of a frozen dataclass with slots, that is not frozen itself: that
    sets each by a call, in eight times as long. An instance becomes one as its `__class__` is set.

    Args:
        frozen: has no `__post_init__`, and no field that makes its own default.
    """
    made = []
    for one in fields(frozen):
        default = field() if one.default is MISSING else field(default=one.default)
        made.append((one.name, Any, default))
    return make_dataclass(f"_Thawed{frozen.__name__}", made, slots=True)


_Thawed = thawed(Task)


def made(values: Sequence[Any] = (), **named: Any) -> Task:
    """A task with these values, in the order of its fields or by name; quicker than `Task(…)`."""
    task: Any = _Thawed(*values, **named) if named else _Thawed(*values)
    task.__class__ = Task
    return task  # type: ignore[no-any-return]  # `cast` takes a call


@dataclass(slots=True)  # not frozen: one is made for each attempt
class Attempt:
    """A row of `attempts`: one attempt, its result, and what was decided."""

    attempt: int
    started_at: int
    """Milliseconds since the epoch."""
    duration_ms: float
    status_code: StatusCode
    error: str | None
    delay: float | None
    """Seconds until the next try; None where there is none."""
    why: str
    """In words: how the delay came about, or why there is none."""


RESOLVED = "resolved manually"
"""How `why` begins of what a person resolved, for which nothing was sent."""


@dataclass(slots=True)  # not frozen: one is made for each task, and a field takes a call then
class NewTask:
    """A task to be written. Telling hooks return these; so do triggers.

    Args:
        kind: `call`, or the kind of a plugin's executor, such as `webhook`.
        endpoint_id: `api/name`.
        params: the call's parameters, validated before.
        webhook: the webhook's name for a delivery, else empty.
        phase: for a delivery, the phase that it tells of.
        payload: for a delivery, the body; None if it did not render (`error` says why).
        error: what is already known to be wrong with it.
        delay: seconds until the first try.
        at: when the first try is due, milliseconds, instead of `delay`; what is past is due now.
        parent_id: the task that it follows from.
        unique_key: a client's idempotency key, kept for 24 hours.
        max_attempts: shown until the first attempt settles, which follows the configuration.
        scheduled_at: the slot it runs for, milliseconds; None: when it is due first.
        depth: how many calls led to it, one caused by the other; plugins bound such chains by it.
        asked: with `unique_key`: the parameters as the client sent them, before defaults; None
            where these are `params`.
        once: a row of a plugin's own table that is written with it; where one with its key is there
            already, neither is written.
        partition: what it takes turns by; None for none.
        run_id: of a call: the run that it belongs to, beside that of the call it follows from;
            None where it is to be in that one, or nothing caused it.
    """

    kind: str
    endpoint_id: str
    params: Mapping[str, Any] = field(default_factory=dict)
    webhook: str = ""
    phase: str | None = None
    payload: str | None = None
    error: str | None = None
    delay: float = 0.0
    at: int | None = None
    parent_id: int | None = None
    unique_key: str | None = None
    max_attempts: int = 15
    scheduled_at: int | None = None
    depth: int = 0
    asked: Mapping[str, Any] | None = None
    once: Upsert | None = None
    partition: Partition | None = None
    run_id: int | None = None

    @property
    def key(self) -> Key:
        """What the task will be claimed by."""
        return Key(self.endpoint_id, self.webhook)

    @property
    def waits(self) -> bool:
        """Whether its first try may lie ahead."""
        return self.delay > 0 or self.at is not None


_OF_NEW = (
    "kind endpoint_id webhook phase params payload parent_id max_attempts depth run_id".split()
)
"""What a task has of the one to be written as that has it."""


def task_made_of(new: NewTask, id_: int, at: int, **more: Any) -> Task:
    """The task that `new` becomes, running, as if accepted at `at`; `more` of its fields differ."""
    given = {name: getattr(new, name) for name in _OF_NEW}
    times = {"created_at": at, "updated_at": at, "scheduled_at": new.scheduled_at or at}
    plain = {"status": Status.RUNNING, "reason": None, "attempts": 0, "next_try": None}
    return made(id=id_, **{**given, **times, **plain, **more})


@dataclass(slots=True)  # not frozen: each attempt makes some, and a field takes a call then
class Upsert:
    """Insert a row into a plugin's own table, or update the columns named in `values`.

    Args:
        table: a table that the plugin registered.
        key: the columns of its primary key, with values.
        values: further columns, not to be changed once it is returned; others keep what they have.
        add: columns that are increased by a number instead of set.
    """

    table: str
    key: Mapping[str, Any]
    values: Mapping[str, Any]
    add: Mapping[str, int] = field(default_factory=dict)
    _checked: Any = field(init=False, default=None, compare=False, repr=False)  # by `row_of`


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the row of a plugin's own table that has this key."""

    table: str
    key: Mapping[str, Any]


class Accepted(NamedTuple):
    """A call that is on disk: its id, `pending` or `succeeded`, and whether it is `repeated`.

    Of a repeated one the key was used before, and this is the first call; its status may be another
    by now."""

    id: int
    status: str
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class QueueRows:
    """Rows in the queue's own database that calls are made of, each of which goes with its call, in
    one transaction; as two statements of SQL. The `?` of each stands for the rows' keys, which are
    texts: a JSON array.

    Args:
        lock: returns the keys of those rows that are to be had, and locks these until COMMIT.
        take: deletes, or marks, the rows whose calls are made.
    """

    lock: str
    take: str


RowEffect = Upsert | Delete
"""What is done to a row of a plugin's own table."""

RowKind = tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[type, ...]]
"""A table, the columns of key, `values` and `add`, and the types of what stands in them."""


def row_of(effect: Upsert) -> tuple[tuple[Any, ...], RowKind]:
    """All values of an upsert, and its kind: those of one kind need but one look at their names."""
    key, values, add = effect.key, effect.values, effect.add
    row = (*key.values(), *values.values(), *add.values())
    return row, (effect.table, tuple(key), tuple(values), tuple(add), tuple(map(type, row)))


MOST_MEMBERS = 10_000
"""Of a batch: they are closed in one transaction."""


@dataclass(frozen=True, slots=True)
class BatchMember:
    """An event that is told of together with others: those of its `group`.

    The first one opens a batch, which closes after so many seconds, or with so many members. Then
    the hook `batch_closed` makes the one delivery that tells of it.

    Args:
        group: what is told of together; the same text for all of them.
        endpoint_id: what it happened to.
        webhook: which webhook is to tell of it.
        phase: what happened.
        every: seconds after the first member when the batch closes.
        most: with how many members it closes.
        task_id: the task that it happened to.
        reason: why that failed, if it did.
        status_code: of its last attempt.
        detail: all that there is to say of it, as JSON; of those with a `task_id`, the first ones'.
        once: names what happened, so that it is told of once whichever daemons do: it is left out
            where its group has a member with the same text. None: it is always written.
        since: of what each daemon finds out for itself: only those with that text count that others
            wrote after this (milliseconds since the epoch, here), and after the last that counted.
        ended_by: the `once` of its end, and since when it goes on: what ended before was another.
    """

    group: str
    endpoint_id: str
    webhook: str
    phase: str
    every: float
    most: int
    task_id: int | None = None
    reason: str | None = None
    status_code: StatusCode = None
    detail: str | None = None
    once: str | None = None
    since: int | None = None
    ended_by: tuple[str, int] | None = None


class BatchEntry(NamedTuple):
    """One of the first members of a batch."""

    endpoint_id: str
    task_id: int | None
    reason: str | None
    status_code: StatusCode
    at: int
    """When it was written, milliseconds since the epoch."""
    detail: str | None
    """As the member had it; None where others were the first when it was written."""


@dataclass(frozen=True, slots=True)
class ClosedBatch:
    """A batch that has closed: what it is never changes again.

    Args:
        id: what the filter `batch` finds its tasks by.
        group: of all its members.
        endpoint_id: of its first member, as all of the next three.
        webhook: which one is to tell of it.
        phase: what happened.
        opened_at: when its first member was written, milliseconds since the epoch.
        closed_at: when it closed.
        members: how many it has.
        counts: how many of each endpoint, reason and status code.
        first: the first of them.
    """

    id: int
    group: str
    endpoint_id: str
    webhook: str
    phase: str
    opened_at: int
    closed_at: int
    members: int
    counts: Mapping[tuple[str, str | None, StatusCode], int]
    first: tuple[BatchEntry, ...]


@dataclass(frozen=True, slots=True)
class NewChore:
    """Work that a plugin does later: its step of this kind, which `register_chores` brings.

    Args:
        kind: which of its steps.
        line: the chores of a line are done one after the other, in the order in which they were
            written, and no line waits for another one to be empty.
        data: what the step is given.
    """

    kind: str
    line: str
    data: str


Effect = NewTask | RowEffect | BatchMember | NewChore
"""What telling hooks return; written in the transaction of the change that it follows from."""


class Slice(NamedTuple):
    """New tasks that follow from a change, too many to be written with it."""

    name: str
    tasks: str
    """JSON."""
    run_id: int | None
    """The run to which the calls among them belong …"""
    calls: int
    """… and how many these are."""


@dataclass(frozen=True, slots=True)
class RunError:
    """A call of a run that has failed."""

    task_id: int
    endpoint: str
    reason: str | None
    status_code: StatusCode
    error: str | None


@dataclass(frozen=True, slots=True)
class RunSummary:
    """How a run stands: a call that nothing caused, and all calls that follow from it. Times are
    milliseconds since the epoch.

    Args:
        id: of the call that began it.
        endpoint_id: of that call.
        tasks: how many calls belong to it.
        succeeded: how many of them have.
        failed: for good.
        cancelled: given up manually.
        end: how often it has ended; 0 before its first end.
        created_at: when the call that began it was accepted.
        ended_at: when the last of its calls ended; None while one has not.
        failed_endpoints: how many calls of each endpoint failed, the most first; those that are
            still kept.
        first_errors: of those, the first that failed.
    """

    id: int
    endpoint_id: str
    tasks: int
    succeeded: int
    failed: int
    cancelled: int
    end: int
    created_at: int
    ended_at: int | None
    failed_endpoints: Mapping[str, int] = field(default_factory=dict)
    first_errors: tuple[RunError, ...] = ()

    @property
    def open(self) -> int:
        """How many of its calls have not ended."""
        return self.tasks - self.succeeded - self.failed - self.cancelled

    def details(self) -> dict[str, Any]:
        """What is told of it in JSON, but for its id and endpoint."""
        return {
            "end": self.end,
            "counts": {
                "total": self.tasks,
                "succeeded": self.succeeded,
                "failed": self.failed,
                "cancelled": self.cancelled,
            },
            "failed_endpoints": dict(self.failed_endpoints),
            "first_errors": [asdict(error) for error in self.first_errors],
            "started_at": rfc3339(self.created_at),
            "ended_at": rfc3339(self.ended_at),
            "duration_ms": None if self.ended_at is None else self.ended_at - self.created_at,
        }


def run_of_one(root: Task) -> RunSummary:
    """The run of a call that nothing caused and that has no child tasks."""
    ends = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
    succeeded, failed, cancelled = (int(root.status == status) for status in ends)
    counts = 1, succeeded, failed, cancelled, 0
    ended_at = root.finished_at if root.status in FINAL else None
    run = RunSummary(root.id, root.endpoint_id, *counts, root.created_at, ended_at)
    if not failed:
        return run
    error = RunError(root.id, root.endpoint_id, root.reason, root.last_status_code, root.last_error)
    return replace(run, failed_endpoints={root.endpoint_id: 1}, first_errors=(error,))


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether something follows from a phase of a call, and by which rule; it is only told.

    Args:
        kind: what would follow, as people call it, such as `webhook`.
        name: which one of its kind.
        phase: the phase that it hangs on.
        happens: whether it would follow.
        why: the rule that decided, in words.
        task: the task that would be written; None where none would be.
        adds: names of headers that its request gets only when it is sent.
    """

    kind: str
    name: str
    phase: str
    happens: bool
    why: str
    task: NewTask | None = None
    adds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TableStep:
    """A step of a table's, as statements of SQL for each database, carried out once in a
    transaction. In those of PostgreSQL `{schema}` stands for the schema of the queue's tables."""

    sqlite: Sequence[str] = ()
    postgres: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a plugin, brought by `register_tables`.

    Args:
        name: a plain SQL name, not one of the core's.
        columns: name → SQL type, one of TEXT, INTEGER, REAL, and optionally NOT NULL.
        key: the columns of its primary key.
        version: raise it when `columns` grows; new columns are added to a table that exists.
        keep: seconds for which a row is kept, by its column `at` (milliseconds since the epoch), an
            INTEGER NOT NULL; None for ever. What goes by itself may be much: such a table is not
            `adopted`.
        adopted: whether `config_adopted` is given all rows, at each reload and whenever another
            daemon has written some. False where there may be very many: read them by
            `Control.rows`.
        steps: what makes it, the first one, and what has changed it since: `columns` and `key` say
            what comes of them all. A table that was there before it had steps has had the first.
    """

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...]
    version: int = 1
    keep: float | None = None
    adopted: bool = True
    steps: Sequence[TableStep] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for what no table can be made of."""
        for name in (self.name, *self.columns):
            if not _SQL_NAME.fullmatch(name):
                raise ValueError(f"the table {self.name!r}: {name!r} is not a plain SQL name")
        for kind in self.columns.values():
            if not _SQL_TYPE.fullmatch(kind):
                raise ValueError(
                    f"the table {self.name!r}: {kind!r} is not a type: write TEXT, INTEGER or "
                    "REAL, and NOT NULL"
                )
        if len({name.lower() for name in self.columns}) < len(self.columns):
            raise ValueError(f"the table {self.name!r}: two columns have one name")
        if not self.key or not set(self.key) <= set(self.columns):
            raise ValueError(f"the table {self.name!r}: its key names columns it does not have")
        for step in self.steps:
            if not isinstance(step, TableStep) or str in map(type, (step.sqlite, step.postgres)):
                raise ValueError(
                    f"the table {self.name!r}: a step is a TableStep, with lists of statements"
                )
        if self.keep is not None and self.columns.get("at", "").upper() != "INTEGER NOT NULL":
            raise ValueError(f"the table {self.name!r}: what is not kept needs a column `at`")
