"""The documents that the API answers about the daemon itself: configuration, plugins, status."""

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from orchestratord.api.answer_documents import Code, Name, Time, example

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


class _Reloaded(TypedDict):
    generation: int
    changed: bool
    adopted_at: Time | None
    cause: str
    changes: ChangesDocument
    restart_required: list[str]
    """Keys whose new value counts after a restart."""
    warnings: list[ProblemDocument]


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
class ReloadDocument(_Reloaded, total=False):
    """What a reload did."""

    diff: list[DifferenceDocument]
    """Where it was asked for: the keys that differ."""


class UpgradeDocument(TypedDict):
    """The version that goes on."""

    version: Annotated[str, Field(examples=["1.2.0"])]
    drains_first: bool
    """Whether what is in flight is waited for before."""


class _PluginInShort(TypedDict):
    name: Annotated[str, Field(examples=["webhooks"])]
    version: str
    status: Literal["loaded", "disabled", "failed"]
    hooks: list[str]
    faults: int
    last_fault: str | None


class PluginStatus(_PluginInShort):
    """A plugin, in short."""


class PluginDocument(_PluginInShort):
    """A plugin."""

    source: str
    """`entry point`, or its file."""
    error: str | None
    """Why it did not load."""


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
