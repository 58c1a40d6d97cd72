"""What happened: one value for each change of state, told after it was committed.

They go to the hook `observe` and to followers of the daemon's events. `docs/events.md` lists the
types with their fields. Times are milliseconds since the epoch; errors have their secrets masked.

Named tuples: one is made for each step of each task, and a frozen dataclass takes five times as
long. Read the fields by name; new ones may come at the end.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from orchestratord.values.status_set import StatusCode

SAME_MS = 120_000
"""Milliseconds within which what several daemons find out, each for itself, counts as one."""


class EventType(StrEnum):
    """What happened, in one word each for what it happened to and how."""

    TASK_CREATED = "task.created"
    TASK_STARTED = "task.started"  # an attempt begins
    TASK_SUCCEEDED = "task.succeeded"
    TASK_RETRIED = "task.retried"  # an attempt failed; pending until next_try
    TASK_SNOOZED = "task.snoozed"  # put back until next_try at no cost of an attempt
    TASK_FAILED = "task.failed"  # for good
    TASK_CANCELLED = "task.cancelled"
    TASK_TRIGGERED = "task.triggered"  # made due manually
    BULK_BEGAN = "bulk.began"
    BULK_PROGRESS = "bulk.progress"  # about each second, while there is some
    BULK_PAUSED = "bulk.paused"  # so many of its tasks have failed that it moves no more for now
    BULK_RESUMED = "bulk.resumed"
    BULK_CANCELLED = "bulk.cancelled"
    BULK_FINISHED = "bulk.finished"  # all that it moved has ended
    PARTITION_HELD = "partition.held"  # by a task that failed, until a person has looked
    WEBHOOK_DISABLED = "webhook.disabled"
    WEBHOOK_ENABLED = "webhook.enabled"
    BREAKER_OPENED = "breaker.opened"  # a receiver or an endpoint is down, and its tasks wait
    BREAKER_CLOSED = "breaker.closed"  # it is back
    INBOUND_REFUSED = "inbound.refused"  # a request of a sender
    THROTTLE_BEGAN = "throttle.began"  # a receiver asks for less, by Retry-After or by refusing
    THROTTLE_ENDED = "throttle.ended"  # that is over, or was lifted manually
    ENDPOINT_FAILING = "endpoint.failing"  # none of its calls has succeeded for ten minutes
    ENDPOINT_PAUSED = "endpoint.paused"
    ENDPOINT_RESUMED = "endpoint.resumed"
    OUTBOX_REFUSED = "outbox.refused"  # a row that makes no task
    SCHEDULE_MISSED = "schedule.missed"  # slots passed while nothing looked
    TROUBLE_BEGAN = "trouble.began"  # with the disk, the database, or a part of the daemon
    TROUBLE_ENDED = "trouble.ended"
    CONFIG_ADOPTED = "config.adopted"
    CONFIG_REFUSED = "config.refused"
    PLUGIN_FAULT = "plugin.fault"
    CLOCK_JUMPED = "clock.jumped"  # and is not followed yet
    CLOCK_RETURNED = "clock.returned"  # before it was followed
    CLOCK_FOLLOWED = "clock.followed"  # the jump has lasted
    CLOCK_BROUGHT_BACK = "clock.brought_back"  # what lay ahead of now though it could not
    DAEMON_STARTED = "daemon.started"
    DAEMON_DRAINING = "daemon.draining"

    @property
    def recorded(self) -> bool:
        """Whether what `on_event` returns of such an event is written in the transaction that notes
        what it tells of."""
        return self in _RECORDED


_RECORDED = frozenset(
    {
        EventType.BREAKER_OPENED,
        EventType.BREAKER_CLOSED,
        EventType.THROTTLE_BEGAN,
        EventType.THROTTLE_ENDED,
        EventType.SCHEDULE_MISSED,
        EventType.OUTBOX_REFUSED,
        EventType.BULK_PAUSED,
        EventType.BULK_FINISHED,
        EventType.ENDPOINT_FAILING,
    }
)


class TaskEvent(NamedTuple):
    """`task.…`: a step of a task."""

    type: EventType
    at: int
    id: int
    """The task's."""
    kind: str
    """`call` or `webhook`."""
    endpoint: str
    """The endpoint's id."""
    webhook: str | None
    """The webhook's name; None for a call."""
    status: str
    """The task's, from now on."""
    attempt: int = 0
    """The attempt that began or ended here; for the other types, how many there were so far."""
    reason: str | None = None
    """Of a failure: one of `Reason`."""
    status_code: StatusCode = None
    """Of the attempt that ended; None where it sent nothing."""
    error: str | None = None
    """Of the attempt that ended, or why there was none."""
    started_at: int | None = None
    """When the attempt began; None where none was made, as for a task that expired."""
    duration_ms: float | None = None
    """How long it took."""
    delay: float | None = None
    """Seconds until the next try, as they were chosen."""
    next_try: int | None = None
    """When it is due; None unless it is pending."""
    lateness_ms: int | None = None
    """How long after it was due the attempt began."""
    parent_id: int | None = None
    """The task that it follows from."""
    lost: bool = False
    """The daemon died during the attempt, or lost its claim: it says nothing of the receiver."""
    waits_for: str | None = None
    """Of one that a hook put off: why, in its words."""


class BulkEvent(NamedTuple):
    """`bulk.…`: a step of a bulk."""

    type: EventType
    at: int
    bulk: int
    """Its id."""
    action: str
    """`retry` or `cancel`."""
    matched: int
    moved: int
    skipped: int
    succeeded: int = 0
    """Of those that it moved."""
    failed: int = 0
    """For good."""
    waiting: int = 0
    """That have not ended."""
    stop_at: int | None = None
    """With how many failures it pauses, or has paused; each time that it goes on, more."""


class PartitionEvent(NamedTuple):
    """`partition.held`."""

    type: EventType
    at: int
    endpoint: str
    webhook: str | None
    """The webhook whose deliveries wait; None where it is the endpoint's calls."""
    partition: str
    id: int
    """The task that has failed."""
    reason: str | None = None
    """Why it has."""


class WebhookEvent(NamedTuple):
    """`webhook.disabled`, `webhook.enabled`."""

    type: EventType
    at: int
    endpoint: str
    webhook: str
    reason: str | None = None
    """Why it was disabled."""


class BreakerEvent(NamedTuple):
    """`breaker.opened`, `breaker.closed`."""

    type: EventType
    at: int
    lane: str
    """`api:NAME`, the host and port of a receiver of webhooks, or where it is the breaker of an
    endpoint or webhook alone, `api/name` or `api/name#webhook`."""
    failures: int = 0
    """Attempts that failed before it opened."""
    error: str | None = None
    """With what the last one failed."""
    next_probe: int | None = None
    """When one is tried."""
    probes: int = 0
    """That had failed before it closed."""
    opened_at: int | None = None
    """When that had opened which is closed."""
    duration_ms: float | None = None
    """For how long it was open."""


class InboundEvent(NamedTuple):
    """`inbound.refused`: a request of a sender became no event."""

    type: EventType
    at: int
    endpoint: str
    reason: str
    """`signature`, `timestamp`, `verify_token`, `rate`, `disabled`, `full`, `invalid` or
    `unavailable`."""
    peer: str
    """The address that it came from."""


class ThrottleEvent(NamedTuple):
    """`throttle.began`, `throttle.ended`."""

    type: EventType
    at: int
    scope: str
    """What is throttled: a lane, the URL of deliveries, `api/name`, or `api/name#webhook`."""
    cause: str
    """`retry_after` or `overload`."""
    why: str = ""
    """What the receiver has said."""
    until: int | None = None
    """When it ends by itself; None where that is not known."""
    rate: float | None = None
    """Of an overload: how many tasks a second are sent from now on."""
    since: int | None = None
    """When that had begun which has ended."""
    duration_ms: float | None = None
    """How long it lasted."""


class EndpointEvent(NamedTuple):
    """`endpoint.paused`, `endpoint.resumed`."""

    type: EventType
    at: int
    endpoint: str


class FailingEvent(NamedTuple):
    """`endpoint.failing`."""

    type: EventType
    at: int
    endpoint: str
    failing_since: int
    """When the first of the attempts began that have failed in a row."""
    failures: int
    """How many there were of tasks that have not succeeded since."""
    status_code: StatusCode
    """The last one's."""
    error: str | None


class ScheduleEvent(NamedTuple):
    """`schedule.missed`."""

    type: EventType
    at: int
    endpoint: str
    slot: int
    """The last slot that was missed."""
    caught_up: bool
    """Whether it makes a call now."""
    first_slot: int
    """The first one, of those that follow each other."""
    slots: int
    """How many they are, 1000 or more as 1000."""


class TroubleEvent(NamedTuple):
    """`trouble.began`, `trouble.ended`."""

    type: EventType
    at: int
    code: str
    """In a word, as in `/readyz`: `storage_full`, `database_unreachable`."""
    why: str
    began_at: int


class OutboxEvent(NamedTuple):
    """`outbox.refused`."""

    type: EventType
    at: int
    id: int
    """The row's."""
    endpoint: str
    """As the row names it, which may be none."""
    reason: str
    """In a word, as the API's `code`: `invalid_params`, `not_found`."""
    error: str
    """In words."""


class ConfigEvent(NamedTuple):
    """`config.adopted`, `config.refused`."""

    type: EventType
    at: int
    generation: int
    """The one that is in force from now on, or still."""
    cause: str
    """What asked for it: `start`, `SIGHUP`, `command`, `file change`, `poll`."""
    endpoints: int
    """How many are declared in what is in force."""
    added: tuple[str, ...] = ()
    """Endpoints that are new."""
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    """Keys of `orchestratord.yaml` that changed."""
    problems: int = 0
    """How many errors the refused files have."""
    error: str | None = None
    """The first of them."""
    duration_ms: float | None = None
    """How long reading and adopting took; None at the start."""


class PluginEvent(NamedTuple):
    """`plugin.fault`: a hook raised, hung, or returned nonsense."""

    type: EventType
    at: int
    plugin: str
    hook: str
    error: str


class ClockEvent(NamedTuple):
    """`clock.…`: the clock that the daemon goes by was moved, or what it had written was set
    right."""

    type: EventType
    at: int
    by: float | None = None
    """Seconds by which it was put forward; negative for back."""
    tasks: int | None = None
    """That had times which were still to come."""


class DaemonEvent(NamedTuple):
    """`daemon.started`, `daemon.draining`."""

    type: EventType
    at: int
    version: str


Event = (
    TaskEvent
    | BulkEvent
    | PartitionEvent
    | WebhookEvent
    | BreakerEvent
    | InboundEvent
    | ThrottleEvent
    | EndpointEvent
    | FailingEvent
    | ScheduleEvent
    | TroubleEvent
    | OutboxEvent
    | ConfigEvent
    | PluginEvent
    | ClockEvent
    | DaemonEvent
)
"""Each has a `type` and the time `at` which it happened."""


# -- What throttles lanes, URLs, endpoints and webhooks --------------------------------------------


class StoredThrottle(NamedTuple):
    """What throttles a scope, as the queue keeps it. Times are milliseconds since the epoch."""

    name: str
    """Of the scope: a lane, a URL, `api/name`, or `api/name#webhook`; secrets are masked."""
    kind: str
    """`BREAKER`, `RETRY_AFTER`, or `LIFTED`; `OVERLOAD` of older daemons."""
    owner: str
    """Whose breaker it is; empty for what holds for all daemons."""
    since: int
    until: int | None = None
    """When it ends by itself."""
    why: str = ""


BREAKER, RETRY_AFTER, OVERLOAD, LIFTED = "breaker", "retry_after", "overload", "lifted"
"""What throttles a scope; or that all that did was lifted then."""
