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
    WEBHOOK_DISABLED = "webhook.disabled"
    WEBHOOK_ENABLED = "webhook.enabled"
    BREAKER_OPENED = "breaker.opened"  # a lane's receiver is down, and its tasks wait
    BREAKER_CLOSED = "breaker.closed"  # it is back
    ENDPOINT_PAUSED = "endpoint.paused"
    ENDPOINT_RESUMED = "endpoint.resumed"
    CONFIG_ADOPTED = "config.adopted"
    CONFIG_REFUSED = "config.refused"
    PLUGIN_FAULT = "plugin.fault"
    DAEMON_STARTED = "daemon.started"
    DAEMON_DRAINING = "daemon.draining"


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
    """The task that caused it."""


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
    """`api:NAME`, or the host and port of a receiver of webhooks."""
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


class EndpointEvent(NamedTuple):
    """`endpoint.paused`, `endpoint.resumed`."""

    type: EventType
    at: int
    endpoint: str


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


class DaemonEvent(NamedTuple):
    """`daemon.started`, `daemon.draining`."""

    type: EventType
    at: int
    version: str


Event = (
    TaskEvent
    | WebhookEvent
    | BreakerEvent
    | EndpointEvent
    | ConfigEvent
    | PluginEvent
    | DaemonEvent
)
"""Each has a `type` and the time `at` which it happened."""
