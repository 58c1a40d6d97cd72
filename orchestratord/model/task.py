"""What the queue holds: tasks, their attempts, and what hooks ask it to write.

pending → running → succeeded | failed | pending (next_try by the backoff)
pending → failed (expired, endpoint_removed, webhook_removed, webhook_disabled)
pending, failed → cancelled; running, with a cancel asked for → cancelled instead of a retry
failed, cancelled, (with force) succeeded → pending, manually
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from operator import attrgetter
from typing import Any, NamedTuple

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


class Reason(StrEnum):
    """Why a task failed for good."""

    EXHAUSTED = "exhausted"  # every attempt was used
    NOT_RETRYABLE = "not_retryable"  # `retry.when` does not cover the answer
    AMBIGUOUS = "ambiguous"  # may have been carried out, and a repeat is not safe
    REJECTED = "rejected"  # by a hook, or by the egress rules
    EXPIRED = "expired"  # `give_up_after` is over
    POISONED = "poisoned"  # its starts ended with the daemon's death
    INVALID_PAYLOAD = "invalid_payload"  # its request or payload does not render
    ENDPOINT_REMOVED = "endpoint_removed"
    WEBHOOK_REMOVED = "webhook_removed"
    WEBHOOK_DISABLED = "webhook_disabled"


class Kind(StrEnum):
    """What a task does."""

    CALL = "call"
    WEBHOOK = "webhook"


class Key(NamedTuple):
    """What tasks are claimed by. `webhook` is empty for calls."""

    endpoint_id: str
    webhook: str = ""


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


@dataclass(frozen=True, slots=True)
class Task:
    """A row of `retry_schedule`. Times are milliseconds since the epoch."""

    id: int
    kind: str
    endpoint_id: str
    webhook: str
    """The webhook's name, empty for a call."""
    phase: str | None
    """For a delivery: the phase that caused it."""
    status: str
    reason: str | None
    attempts: int
    """Attempts claimed so far; while one runs, it is counted."""
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
    """How often a succeeded task was forced to run again; part of its webhook-id."""
    retried_at: int | None = None
    """When it was last retried manually; `give_up_after` counts from here."""
    cancel_requested: bool = False
    last_status_code: StatusCode = None
    last_error: str | None = None
    depth: int = 0
    """How many calls led to it, one caused by the other; 0 where they are not counted."""

    @property
    def key(self) -> Key:
        """What the task is claimed by."""
        return Key(self.endpoint_id, self.webhook)

    def after(
        self,
        status: str,
        reason: str | None,
        next_try: int | None,
        status_code: StatusCode,
        error: str | None,
    ) -> Task:
        """The same task after an attempt; `dataclasses.replace` takes twice as long."""
        values = list(_values(self))
        changed = (status, reason, next_try, status_code, error)
        for place, value in zip(_AFTER, changed, strict=True):
            values[place] = value
        return Task(*values)


_NAMES = tuple(item.name for item in fields(Task))
_values = attrgetter(*_NAMES)
_AFTER = tuple(
    _NAMES.index(name)
    for name in ("status", "reason", "next_try", "last_status_code", "last_error")
)


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task to be written. Telling hooks return these; so do triggers.

    Args:
        kind: `call`, or the kind of a plugin's executor, such as `webhook`.
        endpoint_id: `api/name`.
        params: the call's parameters, validated before.
        webhook: the webhook's name for a delivery, else empty.
        phase: for a delivery, the phase that caused it.
        payload: for a delivery, the body; None if it did not render (`error` says why).
        error: what is already known to be wrong with it.
        delay: seconds until the first try.
        parent_id: the task that caused it.
        unique_key: a client's idempotency key, kept for 24 hours.
        max_attempts: shown until the first attempt settles, which follows the configuration.
        scheduled_at: the slot it runs for, milliseconds; None: when it is due first.
        depth: how many calls led to it, one caused by the other; plugins bound such chains by it.
    """

    kind: str
    endpoint_id: str
    params: Mapping[str, Any] = field(default_factory=dict)
    webhook: str = ""
    phase: str | None = None
    payload: str | None = None
    error: str | None = None
    delay: float = 0.0
    parent_id: int | None = None
    unique_key: str | None = None
    max_attempts: int = 15
    scheduled_at: int | None = None
    depth: int = 0

    @property
    def key(self) -> Key:
        """What the task will be claimed by."""
        return Key(self.endpoint_id, self.webhook)


@dataclass(frozen=True, slots=True)
class Upsert:
    """Insert a row into a plugin's own table, or update the columns named in `values`.

    Args:
        table: a table that the plugin registered.
        key: the columns of its primary key, with values.
        values: further columns; those not named keep what they have.
        add: columns that are increased by a number instead of set.
    """

    table: str
    key: Mapping[str, Any]
    values: Mapping[str, Any]
    add: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the row of a plugin's own table that has this key."""

    table: str
    key: Mapping[str, Any]


RowEffect = Upsert | Delete
"""What is done to a row of a plugin's own table."""

Effect = NewTask | RowEffect
"""What telling hooks return; written in the transaction of the change that caused it."""


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
class Table:
    """A table of a plugin, brought by `register_tables`.

    Args:
        name: a plain SQL name, not one of the core's.
        columns: name → SQL type, one of TEXT, INTEGER, REAL, and optionally NOT NULL.
        key: the columns of its primary key.
        version: raise it when `columns` grows; new columns are added to a table that exists.
    """

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...]
    version: int = 1

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
