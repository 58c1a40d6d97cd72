"""The documents that the API answers about the daemon itself: configuration, plugins, status."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from orchestratord.api.answer_documents import Code, Name, Time, example
from orchestratord.api.filters import TaskQuery
from orchestratord.queue.reports.grouped import COLUMNS

# -- The configuration, plugins --------------------------------------------------------------------


class ProblemDocument(TypedDict):
    """Something wrong in the configuration, and its place."""

    file: str
    line: int | None
    column: int | None
    key: str
    message: str
    hint: str | None
    source: str | None
    """The line, without secrets."""


class NumbersOfChanges(TypedDict):
    """How many endpoints a reload has touched."""

    added: int
    removed: int
    changed: int


class ChangesDocument(TypedDict):
    """What a reload changed; `counts` counts also what is not named."""

    added: list[str]
    removed: list[str]
    changed: list[str]
    daemon: list[str]
    """Keys of orchestratord.yaml."""
    counts: NumbersOfChanges


class DifferenceDocument(TypedDict):
    """One key that differs."""

    endpoint: str | None
    """Null: of the daemon."""
    key: str | None
    """Null: only a secret differs."""
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
    """What a reload did."""

    generation: int
    changed: bool
    adopted_at: Time | None
    cause: str
    changes: ChangesDocument
    restart_required: list[str]
    """Keys whose new value counts after a restart."""
    warnings: list[ProblemDocument]
    diff: NotRequired[list[DifferenceDocument]]
    """Where it was asked for: the keys that differ."""


class UpgradeDocument(TypedDict):
    """The version that goes on."""

    version: Annotated[str, Field(examples=["1.2.0"])]
    drains_first: bool
    """Whether what is in flight is waited for before."""


class ServiceStatus(TypedDict):
    """What a plugin has beside the worker, as it is in the first worker of this daemon."""

    name: str
    where: Literal["one", "each"]
    """Whether it runs once for all workers and daemons, or in each."""
    state: Literal["running", "elsewhere", "waiting"]
    """`waiting`: it has ended, and is begun again soon."""
    error: str | None
    """Why it ended last."""


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
    """The route that it asks."""
    method: Literal["GET", "POST"]
    arguments: Annotated[dict[str, str], Field(examples=[{"item": "what is asked for"}])]
    """`word`, `[word]`, `--option=VALUE` or `--switch` → what the help says of it."""


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
    """What keeps the daemon from its work."""

    code: str
    why: str
    since: Time | None


class HealthDocument(TypedDict):
    """Whether new work would be taken and carried out."""

    ready: bool
    troubles: list[TroubleDocument]


class RefusedConfig(TypedDict):
    """Why the files were refused last."""

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
    """Without those that were `missed`."""
    missed: int
    """Deliveries that failed without an attempt while their webhook was disabled."""
    cancelled: int
    due: int
    oldest_due_age: float | None
    """Seconds; null where nothing is due."""
    held: int
    """Tasks that would be due if it were their turn in their partition."""
    held_partitions: int
    held_by: list[HeldPartition]
    """Some of them."""


class RateStatus(TypedDict):
    """A rate limit, and how much of it is used."""

    limit: Annotated[str, Field(examples=["100/min"])]
    times: int
    used: int
    next: Time | None


class BreakerStatus(TypedDict):
    """A circuit breaker that is open."""

    state: Literal["open", "half_open"]
    since: Time | None
    why: str
    probes: int
    """That have failed."""
    next_probe: Time | None


class ToldStatus(TypedDict):
    """What a Retry-After has told."""

    until: Time | None
    why: str


class OverloadStatus(TypedDict):
    """A receiver that refuses less where it is sent less."""

    since: Time | None
    rate: float
    """Tasks a second that begin."""


class ScopeStatus(TypedDict):
    """What can be throttled: a lane, a URL, an endpoint or a webhook."""

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
    """A breaker that is open, of whichever lane."""

    lane: str
    due: int


class EndRates(TypedDict):
    """Attempts that ended, a second, over the last ten seconds."""

    succeeded: float
    retried: float
    failed: float
    cancelled: float


class FailingStatus(TypedDict):
    """An endpoint or webhook that fails now: what its tasks say that have failed, or wait for
    another try, since it last succeeded."""

    endpoint: Name
    webhook: str | None
    """Null: its calls fail."""
    failures: int
    """Attempts of these tasks."""
    failed: int
    """Tasks that have failed for good."""
    waiting: int
    """Tasks that wait for another try."""
    complete: bool
    """False where not all of them were looked at."""
    since: Time | None
    """When the first of these attempts began."""
    last: Time | None
    reason: str | None
    """Why the latest of them failed for good; null where it is tried again."""
    status_code: Code
    error: str | None


class WorkerStatus(TypedDict):
    """What the workers are at."""

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
    """Endpoints whose calls do."""
    webhook: int
    """Webhooks whose deliveries do."""


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
    """Whether it takes new work."""
    unreachable: str | None
    listening: bool | None
    """Whether daemons tell each other at once; null where it is this one's alone."""
    holding_back: list[str]
    """What keeps it from cleaning up."""


class WaitingLane(TypedDict):
    """A throttled lane of one of the daemons."""

    lane: str
    breaker: dict[str, Any] | None
    retry_after: dict[str, Any] | None


class Lacks(TypedDict):
    """What others have and this daemon has not."""

    endpoints: list[str]
    endpoints_count: int
    plugins: list[str]


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
    lacks: Lacks


class ClockChangeStatus(TypedDict):
    """The last jump of the clock."""

    at: Time | None
    what: Literal["jumped", "returned", "followed"]
    by: float
    """Seconds."""


class BroughtBackStatus(TypedDict):
    """What lay ahead of now though it could not."""

    at: Time | None
    tasks: int
    others: int


class ClockStatus(TypedDict):
    """The clock that counts."""

    source: Literal["machine", "database"]
    machine_ahead: float
    """Seconds by which this machine's clock is ahead of it."""
    last_change: ClockChangeStatus | None
    brought_back: BroughtBackStatus | None


class ProcessStatus(TypedDict):
    """Which daemon this is."""

    version: str
    pid: int
    workers: int
    instance: str
    started_at: Time | None
    uptime: float
    """Seconds."""


class OutboxStatus(TypedDict):
    """The outbox."""

    database: str | None
    """Null: the queue's own."""
    relays: bool
    """Whether this daemon does."""
    error: str | None
    waiting: int | None
    """Rows; null unless this daemon relays."""
    refused: int | None
    taken_total: int
    """Since the daemon started, as is `refused_total`."""
    refused_total: int


class StatusDocument(ProcessStatus, WorkerStatus, FailingKeys):
    """How the daemon is."""

    health: HealthDocument
    config: ConfigStatus
    queue: QueueStatus
    events_dropped: int
    unheld_claims: int
    """Tasks that ran and that nothing in the daemon held, since it started: a bug, or a database
    that did not answer. Each of them is pending again, or `ambiguous`."""
    upgrade_failed: str | None
    """Why the last upgrade that was asked for did not happen; null while it is under way."""
    database: DatabaseStatus
    daemons: list[DaemonStatus]
    clock: ClockStatus
    outbox: OutboxStatus | None
    plugins: list[PluginStatus]
    paused: list[str]
    """Endpoints."""


# The documents of what is said of all tasks at once.


class GroupQuery(TaskQuery, total=False):
    """Which tasks, and what they are grouped by."""

    by: Annotated[str, Field(json_schema_extra={"examples": ["endpoint,reason,status_code"]})]
    """Names with commas between them, each once: see the keys of a group; `endpoint,reason,
    status_code` where it is left out."""


@example({"endpoint": "shop/getOrder", "reason": "exhausted", "status_code": 503, "tasks": 5000})
class GroupDocument(TypedDict, total=False):
    """Tasks that have something in common: what they were grouped by, and how many there are."""

    endpoint: Name
    webhook: str | None
    kind: str
    status: str
    reason: str | None
    status_code: Code
    partition: str | None
    tasks: int


class GroupsDocument(TypedDict):
    """How many tasks there are, by what they were grouped by; the most numerous group first."""

    groups: list[GroupDocument]
    complete: bool
    """False where only the newest tasks were counted, or the most numerous groups are shown."""


class BatchQuery(TypedDict, total=False):
    """Which members of a batch."""

    limit: Annotated[int, Field(ge=1, le=1000)]
    """At most so many, 100 where it is left out."""
    after: Annotated[int, Field(ge=1, lt=10**19)]
    """The `next` of the page before."""


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
    """What a batch tells of with others."""

    at: Time
    endpoint: Name
    """`orchestratord` where it happened in the daemon itself."""
    task: int | None
    """What it happened to; it may be kept no more."""
    reason: str | None
    """Why that failed; the type of an event in the daemon."""
    status_code: Code
    event: dict[str, Any] | None
    """An event in the daemon, as an entry of `first`; null where the task says it."""


class BatchPageDocument(TypedDict):
    """A batch that has closed, and its members in the order in which they happened."""

    id: Annotated[int, Field(examples=[8])]
    endpoint: Name
    """Of the first member."""
    webhook: Annotated[str, Field(examples=["ops"])]
    phase: Annotated[str, Field(examples=["operational"])]
    opened_at: Time
    closed_at: Time
    count: int
    """Of all members."""
    delivery: int | None
    """The task that tells of it."""
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
    """The slots of a schedule that were missed last: they passed while no daemon looked."""

    slots: int
    """1,000 stands for 1,000 or more."""
    first: Time | None
    last: Time | None
    noticed_at: Time | None
    ran: bool
    """Whether one call was made for them, late."""


class ScheduleDocument(TypedDict):
    """A schedule: when it calls its endpoint next, and how it went last."""

    endpoint: Name
    schedule: Any
    """As it is declared."""
    enabled: bool
    paused: bool
    next_run: Time | None
    last_run: Time | None
    """The slot of the last task that it made; null until there was one."""
    task: int | None
    """The task of the last run; it may have been deleted."""
    status: str | None
    """That task's; null once it was deleted."""
    reason: str | None
    status_code: Code
    finished_at: Time | None
    last_success_at: Time | None
    """When the endpoint's last call began that succeeded, by its schedule or otherwise."""
    missed: MissedDocument | None


class SchedulesDocument(TypedDict):
    """All schedules, by their endpoints."""

    schedules: list[ScheduleDocument]


assert GroupDocument.__annotations__.keys() == {*COLUMNS, "tasks"}, "each has a field"
