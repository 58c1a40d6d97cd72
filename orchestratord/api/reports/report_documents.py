"""The documents of what is said of all tasks at once."""

from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from orchestratord.api.answer_documents import Code, Name, Time, example
from orchestratord.api.filters import TaskQuery
from orchestratord.queue.reports.grouped import COLUMNS


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
