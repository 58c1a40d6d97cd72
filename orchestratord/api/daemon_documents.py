"""The documents that the API answers about the daemon itself: configuration, plugins, status."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, with_config
from typing_extensions import TypedDict

from orchestratord.api.answer_documents import Code, Name, Time, example
from orchestratord.api.filters import TaskQuery
from orchestratord.plugin.verb_row import Method
from orchestratord.queue.reports.grouped import COLUMNS

# -- The configuration, plugins --------------------------------------------------------------------


class ProblemDocument(TypedDict):
    """A configuration error or warning and its place."""

    file: str
    line: int | None
    column: int | None
    key: str
    message: str
    hint: str | None
    source: str | None
    """The line, without secrets."""


class NumbersOfChanges(TypedDict):
    """How many endpoints a reload changed."""

    added: int
    removed: int
    changed: int


class ChangesDocument(TypedDict):
    """The changes of a reload, up to 1,000 of each kind; `counts` has all."""

    added: list[str]
    removed: list[str]
    changed: list[str]
    daemon: list[str]
    """Keys of orchestratord.yaml."""
    counts: NumbersOfChanges


class DifferenceDocument(TypedDict):
    """One key that differs."""

    endpoint: str | None
    """Null for a key of the daemon."""
    key: str | None
    """Null if only a secret differs."""
    before: Any
    after: Any


@example(
    {
        "generation": 5,
        "changed": True,
        "adopted_at": "2026-11-24T22:00:00.000Z",
        "cause": "command",
        "changes": {
            "added": ["shop/putOrder"],
            "removed": [],
            "changed": ["shop/getOrder"],
            "daemon": ["concurrency"],
            "counts": {"added": 1, "removed": 0, "changed": 1},
        },
        "restart_required": [],
        "warnings": [],
        "diff": [
            {"endpoint": None, "key": "concurrency", "before": 100, "after": 200},
            {
                "endpoint": "shop/getOrder",
                "key": "retry.max_attempts",
                "before": 15,
                "after": 5,
            },
        ],
    }
)
class ReloadDocument(TypedDict):
    """The result of a reload."""

    generation: int
    changed: bool
    adopted_at: Time | None
    cause: str
    changes: ChangesDocument
    restart_required: list[str]
    """Keys that need a restart."""
    warnings: list[ProblemDocument]
    diff: NotRequired[list[DifferenceDocument]]
    """The keys that differ, if asked for."""


class UpgradeDocument(TypedDict):
    """The version that takes over."""

    version: Annotated[str, Field(examples=["1.2.0"])]
    drains_first: bool
    """True if the daemon waits for attempts in flight first."""


class ServiceStatus(TypedDict):
    """A service of a plugin, as the first worker of this daemon sees it."""

    name: str
    where: Literal["one", "each"]
    """Once for all workers and daemons, or in each."""
    state: Literal["running", "elsewhere", "waiting"]
    """`waiting`: it has ended and starts again soon."""
    error: str | None
    """Why it last ended."""


class PluginStatus(TypedDict):
    """A plugin, in short."""

    name: Annotated[str, Field(examples=["webhooks"])]
    version: str
    status: Literal["loaded", "disabled", "failed"]
    hooks: list[str]
    faults: int
    last_fault: str | None
    services: list[ServiceStatus]


class VerbDocument(TypedDict):
    """A verb that a plugin adds to `orchestratorctl`."""

    name: Annotated[str, Field(examples=["stock"])]
    about: str
    path: Annotated[str, Field(examples=["/v1/stock/{item}"])]
    """Its route."""
    method: Method
    arguments: Annotated[dict[str, str], Field(examples=[{"item": "what is asked for"}])]
    """`word`, `[word]`, `--option=VALUE` or `--switch` → its help text."""


class PluginDocument(PluginStatus):
    """A plugin."""

    source: str
    """`entry point`, or its file."""
    error: str | None
    """Why it did not load."""
    verbs: list[VerbDocument]


class PluginsDocument(TypedDict):
    """All plugins."""

    plugins: list[PluginDocument]


# -- The daemon ------------------------------------------------------------------------------------


class OkDocument(TypedDict):
    """The daemon lives."""

    status: Literal["ok"]


class ReadyDocument(TypedDict):
    """The daemon takes new work, and carries it out."""

    status: Literal["ready"]


class NoDashboard(TypedDict):
    """There is no dashboard here."""

    detail: str


class TroubleDocument(TypedDict):
    """A trouble that keeps the daemon from its work."""

    code: str
    why: str
    since: Time | None


class HealthDocument(TypedDict):
    """Whether the daemon takes new work and carries it out."""

    ready: bool
    troubles: list[TroubleDocument]


class RefusedConfig(TypedDict):
    """Why the daemon last refused the files."""

    at: Time | None
    errors: list[ProblemDocument]


class ConfigStatus(TypedDict):
    """The configuration in force."""

    folder: str
    generation: int
    adopted_at: Time | None
    cause: str
    changes: ChangesDocument
    endpoints: int
    error: RefusedConfig | None
    warnings: list[ProblemDocument]
    restart_required: list[str]


class HeldPartition(TypedDict):
    """An ordered partition that a failed task holds."""

    endpoint: Name
    webhook: str | None
    partition: str
    task: int
    """The failed task."""


class QueueStatus(TypedDict):
    """How many tasks there are in each status."""

    pending: int
    running: int
    succeeded: int
    failed: int
    """Without those that are `missed` or `resolved`."""
    missed: int
    """Deliveries that failed without an attempt while their webhook was disabled."""
    resolved: int
    """Failed tasks that a person has resolved."""
    cancelled: int
    due: int
    oldest_due_age: float | None
    """Seconds; null if nothing is due."""
    held: int
    """Tasks that would be due but wait for their turn in a partition."""
    held_partitions: int
    held_by: list[HeldPartition]
    """Some of them."""


class RateStatus(TypedDict):
    """A rate limit and its use."""

    limit: Annotated[str, Field(examples=["100/min"])]
    times: int
    used: int
    next: Time | None


class BreakerStatus(TypedDict):
    """An open circuit breaker."""

    state: Literal["open", "half_open"]
    since: Time | None
    why: str
    probes: int
    """Failed probes."""
    next_probe: Time | None


class ToldStatus(TypedDict):
    """A pause that a Retry-After asked for."""

    until: Time | None
    why: str


class OverloadStatus(TypedDict):
    """A reduced rate for an overloaded receiver."""

    since: Time | None
    rate: float
    """Tasks that begin a second."""


class ScopeStatus(TypedDict):
    """A lane, URL, endpoint or webhook and its throttles."""

    name: Annotated[str, Field(examples=["api:shop"])]
    due: int
    rate: RateStatus | None
    breaker: BreakerStatus | None
    retry_after: ToldStatus | None
    overload: OverloadStatus | None


class LaneStatus(ScopeStatus):
    """A lane."""

    in_flight: int
    concurrency: int
    openings: int
    """How often its breaker has opened."""


class LaneBreaker(BreakerStatus):
    """An open circuit breaker and its lane."""

    lane: str
    due: int


class EndRates(TypedDict):
    """Attempts that ended a second, over the last ten seconds."""

    succeeded: float
    retried: float
    failed: float
    cancelled: float


class FailingStatus(TypedDict):
    """An endpoint or webhook that fails now: failed and waiting tasks since its last success."""

    endpoint: Name
    webhook: str | None
    """Null if calls fail."""
    failures: int
    """Failed attempts of these tasks."""
    failed: int
    """Tasks that have failed for good."""
    waiting: int
    """Tasks that wait for another try."""
    complete: bool
    """False if the daemon did not look at all of them."""
    since: Time | None
    """When the first of these attempts began."""
    last: Time | None
    reason: str | None
    """Why the latest failed for good; null if it will be tried again."""
    status_code: Code
    error: str | None


class WorkerStatus(TypedDict):
    """The state of the workers."""

    in_flight: int
    concurrency: int
    next_due: Time | None
    draining: bool
    lanes: list[LaneStatus]
    """The busiest ones."""
    throttled: list[ScopeStatus]
    """URLs, endpoints and webhooks that are throttled."""
    breakers: list[LaneBreaker]
    rates: EndRates


class FailingCounts(TypedDict):
    """How many fail now."""

    call: int
    """Endpoints whose calls fail."""
    webhook: int
    """Webhooks whose deliveries fail."""


class FailingKeys(TypedDict):
    """What fails now."""

    failing: list[FailingStatus]
    """Those that failed last."""
    failing_counts: FailingCounts


class DatabaseStatus(TypedDict):
    """The database."""

    url: str
    size: int
    """Bytes."""
    accepting: bool
    """True if it takes new work."""
    unreachable: str | None
    listening: bool | None
    """True if daemons notify each other at once; null if one daemon owns it."""
    holding_back: list[str]
    """What holds back its cleanup."""


class WaitingLane(TypedDict):
    """A throttled lane of one of the daemons."""

    lane: str
    breaker: dict[str, Any] | None
    retry_after: dict[str, Any] | None


class Lacks(TypedDict):
    """Endpoints and plugins that other daemons have and this one lacks."""

    endpoints: list[str]
    endpoints_count: int
    plugins: list[str]


class WorkerSeen(TypedDict):
    """A worker of a daemon, as its row shows it. `pid` is its daemon's, which signals reach."""

    worker: int
    """Its number, from 1."""
    pid: int
    version: str
    started_at: Time | None
    heartbeat_at: Time | None
    alive: bool
    troubles: list[str]
    """What keeps it from its work."""


class DaemonStatus(TypedDict):
    """One of the daemons of the queue."""

    owner: str
    host: str
    pid: int
    version: str
    generation: int
    started_at: Time | None
    heartbeat_at: Time | None
    alive: bool
    this: bool
    waiting: list[WaitingLane]
    workers: list[WorkerSeen]
    lacks: Lacks


class ClockChangeStatus(TypedDict):
    """The last jump of the clock."""

    at: Time | None
    what: Literal["jumped", "returned", "followed"]
    by: float
    """Seconds."""


class BroughtBackStatus(TypedDict):
    """Impossible future times that the daemon brought back."""

    at: Time | None
    tasks: int
    others: int


class ClockStatus(TypedDict):
    """The clock in use."""

    source: Literal["machine", "database"]
    machine_ahead: float
    """How many seconds this machine's clock is ahead of it."""
    last_change: ClockChangeStatus | None
    brought_back: BroughtBackStatus | None


class OutboxStatus(TypedDict):
    """The outbox."""

    database: str | None
    """Null for the queue's own."""
    relays: bool
    """True if this daemon relays."""
    error: str | None
    waiting: int | None
    """Rows; null unless this daemon relays, as `refused`."""
    refused: int | None
    taken_total: int
    """Since the daemon's start, as `refused_total`."""
    refused_total: int


class StuckChore(TypedDict):
    """A chore of the daemon itself."""

    id: int
    kind: str
    subject: str
    """What it is about: the id of a bulk, for instance."""


# `extra="allow"` would hold for all documents in it, too.
@with_config(use_attribute_docstrings=True, json_schema_extra={"additionalProperties": True})
class StatusDocument(WorkerStatus, FailingKeys):
    """How the daemon is. Plugins add parts of their own."""

    version: str
    pid: int
    workers: int
    instance: str
    started_at: Time | None
    uptime: float
    """Seconds since it, or its first worker, started."""
    health: HealthDocument
    config: ConfigStatus
    queue: QueueStatus
    events_dropped: int
    unheld_claims: int
    """Running tasks without an attempt, since the start: a bug, or a database that did not answer.
    Each is pending again or `ambiguous`."""
    upgrade_failed: str | None
    """Why the last upgrade failed; null while it is under way."""
    database: DatabaseStatus
    daemons: list[DaemonStatus]
    clock: ClockStatus
    outbox: OutboxStatus | None
    plugins: list[PluginStatus]
    paused: list[str]
    """Paused endpoints."""
    stuck_chores: list[StuckChore]
    """What the daemon does not try any more, since daemons have died at it; 20 at most."""


# The documents of what is said of all tasks at once.


class GroupQuery(TaskQuery, total=False):
    """Which tasks, and what they are grouped by."""

    by: Annotated[str, Field(json_schema_extra={"examples": ["endpoint,reason,status_code"]})]
    """Keys of a group, separated by commas; default `endpoint,reason,status_code`."""


@example({"endpoint": "shop/getOrder", "reason": "exhausted", "status_code": 503, "tasks": 5000})
class GroupDocument(TypedDict, total=False):
    """A group of tasks: its keys and its size."""

    endpoint: Name
    webhook: str | None
    kind: str
    status: str
    reason: str | None
    status_code: Code
    partition: str | None
    tasks: int


class GroupsDocument(TypedDict):
    """Groups of tasks, the largest first."""

    groups: list[GroupDocument]
    complete: bool
    """False if the daemon counted only the newest tasks or shows only the largest groups."""


@example(
    {
        "at": "2026-11-24T22:00:00.000Z",
        "endpoint": "orchestratord",
        "task": None,
        "reason": "breaker.opened",
        "status_code": None,
        "event": {"type": "breaker.opened", "lane": "api:shop", "text": "breaker.opened: api:shop"},
    }
)
class BatchMemberDocument(TypedDict):
    """An event of a batch."""

    at: Time
    endpoint: Name
    """`orchestratord` for an event of the daemon itself."""
    task: int | None
    """The task of the event; it may be deleted."""
    reason: str | None
    """Why the task failed, or the type of a daemon event."""
    status_code: Code
    event: dict[str, Any] | None
    """A daemon event, as in `first`; null for the event of a task."""


class BatchPageDocument(TypedDict):
    """A closed batch and its members in order."""

    id: Annotated[int, Field(examples=[8])]
    endpoint: Name
    """The endpoint of the first member."""
    webhook: Annotated[str, Field(examples=["ops"])]
    phase: Annotated[str, Field(examples=["operational"])]
    opened_at: Time
    closed_at: Time
    count: int
    """The number of members."""
    delivery: int | None
    """The task that delivers it."""
    members: list[BatchMemberDocument]
    next: int | None
    """The `after` of the next page."""


@example(
    {
        "slots": 3,
        "first": "2026-11-24T02:00:00.000Z",
        "last": "2026-11-24T04:00:00.000Z",
        "noticed_at": "2026-11-24T04:10:00.000Z",
        "ran": True,
    }
)
class MissedDocument(TypedDict):
    """The last missed slots of a schedule: they passed while no daemon ran."""

    slots: int
    """1,000 means 1,000 or more."""
    first: Time | None
    last: Time | None
    noticed_at: Time | None
    ran: bool
    """True if the daemon made one late call for them."""


class ScheduleDocument(TypedDict):
    """A schedule with its next and its last run."""

    endpoint: Name
    schedule: Any
    """Its declaration."""
    enabled: bool
    paused: bool
    next_run: Time | None
    last_run: Time | None
    """The slot of its last task, or null."""
    task: int | None
    """The last run's task; it may be deleted."""
    status: str | None
    """The task's status; null once deleted."""
    reason: str | None
    status_code: Code
    finished_at: Time | None
    last_success_at: Time | None
    """When the endpoint's last successful call began, scheduled or not."""
    missed: MissedDocument | None


class SchedulesDocument(TypedDict):
    """All schedules, by their endpoints."""

    schedules: list[ScheduleDocument]


assert GroupDocument.__annotations__.keys() == {*COLUMNS, "tasks"}, "each has a field"
