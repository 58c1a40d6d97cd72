"""What the daemon answers, as frozen values. What a newer daemon adds is kept in `more`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Base of all values that the daemon answers.

    Attributes:
        more: fields of the answer that this version of the client has no attribute for.
    """

    more: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """The value of a JSON object. Raises TypeError where it lacks a field."""
        known = {one.name for one in fields(cls)} - {"more"}
        given = {name: _read(name, value) for name, value in document.items() if name in known}
        more = {name: value for name, value in document.items() if name not in known}
        return cls(**given, more=more)


def _read(name: str, value: Any) -> Any:
    if isinstance(value, str) and (
        name.endswith(("_at", "_since")) or name in ("next_try", "since", "until")
    ):
        return datetime.fromisoformat(value)
    if name == "waits" and value is not None:
        # `for` is a word of Python's.
        return Wait.of({"what" if key == "for" else key: one for key, one in value.items()})
    if name == "attempt_log":
        return tuple(Attempt.of(one) for one in value)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted(Answer):
    """A call that is on the daemon's disk.

    Attributes:
        id: of the task.
        status: of the task; `pending` for a new one.
        repeated: a call with this key had been made before, and this is its task. So it is, too,
            where the client had to ask again because the first answer got lost.
    """

    id: int
    status: str
    repeated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(Answer):
    """A task: a call, or the delivery of a webhook. Times are in UTC.

    Attributes:
        id: its number, never used again.
        kind: `call` or `webhook`.
        endpoint: `api/name`.
        webhook: the name of the webhook; None for a call.
        phase: what the webhook tells of; None for a call.
        status: `pending`, `running`, `succeeded`, `failed` or `cancelled`.
        reason: why it failed, in a word, or why it was cancelled; None where there is none.
        attempts: how many have ended.
        max_attempts: after so many it fails for good.
        deaths: how often the daemon died while it ran.
        looks: how often an answer said that it is not done yet.
        looked_since: when the first of these came; None where there is none.
        waits_for: why a hook of a plugin put it off; None where none did.
        next_try: when it is due; None unless it is pending.
        params: the parameters. A list shows those of more than 2,000 characters cut.
        truncated: they are cut.
        parent_id: the task that it follows from.
        last_status_code: of the last answer: a number, `ok`, `error` (none came), or None.
        last_error: what was wrong at the last attempt.
        created_at, updated_at: when it was made, and last changed.
        finished_at: when it ended; None while it has not.
        partition: the line in which it waits; None where its endpoint has none.
        run_id: the call that began the run to which it belongs; None where nothing caused it and
            nothing followed.
        bulk_id: the last bulk that moved it.
        replaces: the task that it was made of, with other parameters, and whose place it takes.
    """

    id: int
    kind: str
    endpoint: str
    webhook: str | None
    phase: str | None
    status: str
    reason: str | None
    attempts: int
    max_attempts: int
    deaths: int = 0
    looks: int = 0
    looked_since: datetime | None = None
    waits_for: str | None = None
    next_try: datetime | None
    params: Any
    truncated: bool = False
    parent_id: int | None
    last_status_code: int | str | None
    last_error: str | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    partition: str | None = None
    run_id: int | None = None
    bulk_id: int | None = None
    replaces: int | None = None

    @property
    def ended(self) -> bool:
        """Whether it has succeeded, failed for good or was cancelled."""
        return self.status in ("succeeded", "failed", "cancelled")

    @property
    def succeeded(self) -> bool:
        """Whether it has succeeded."""
        return self.status == "succeeded"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDetail(Task):
    """A task in full, as `get` and `wait` answer it.

    Attributes:
        waits: what it waits for beside its `next_try`; None for nothing.
        payload: what a delivery sends; None for a call.
        response: the last answer, with `headers` and `body`; None where there is none.
        attempt_log: all attempts, oldest first.
        replaced_by: the task that is carried out in its place, or was; this one is left alone.
        holds_partition: it failed, and those behind it in its partition wait for a person.
        cancel_requested: it was cancelled while it runs: no attempt follows this one.
        idempotency_key: what the receiver gets at each attempt: as `Idempotency-Key`, or as
            `webhook-id`; None where it gets none.
        client_key: the Idempotency-Key with which it was made; None where it had none.
    """

    waits: Wait | None
    payload: str | None
    response: Mapping[str, Any] | None
    attempt_log: tuple[Attempt, ...]
    replaced_by: int | None = None
    cancel_requested: bool = False
    holds_partition: bool = False
    idempotency_key: str | None = None
    client_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt(Answer):
    """One attempt of a task.

    Attributes:
        attempt: its number, from 1.
        started_at: when it began.
        duration_ms: milliseconds that it took.
        status_code: a number, `ok`, or `error` where no answer came.
        error: what was wrong.
        delay: seconds until the next attempt; None where none follows.
        why: how the delay was found.
    """

    attempt: int
    started_at: datetime | None
    duration_ms: float | None
    status_code: int | str | None
    error: str | None
    delay: float | None
    why: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait(Answer):
    """What a pending task waits for beside its `next_try`.

    Attributes:
        what: `breaker`, `retry_after`, `rate_limit`, `concurrency`, `partition`, `parked`
            or `snooze`; the API's `for`.
        why: the same for a person.
        lane: what is throttled, such as `api:shop`.
        since, until: when that began and ends; None where it is not known.
        task: the id of the task whose partition it waits in; None for none.
    """

    what: str
    why: str
    lane: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    task: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant(Answer):
    """A tenant, and how its subscriptions fare.

    Attributes:
        tenant: its id.
        name: for people; None where it has none.
        created_at: when it was made.
        subscriptions, failing, disabled: how many it has, and how many of them fail or are
            disabled.
        failing_since: when the first of them began to fail; None where none does.
    """

    tenant: str
    name: str | None
    created_at: datetime | None
    subscriptions: int
    failing: int
    disabled: int
    failing_since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription(Answer):
    """A subscription of a tenant, and how it fares.

    Attributes:
        id: of the subscription.
        tenant: whose it is.
        url: where its deliveries go.
        events: public names or patterns; empty for all.
        when: JMESPath over the payload; None for always.
        headers: of each delivery.
        description: for people.
        rate: how many deliveries may begin, such as `10/s`; None for no limit.
        enabled: whether anything is delivered.
        disabled_at, disabled_reason: since when not, and why; None where it is enabled.
        last_status_code, last_error, last_attempt_at: of the last attempt.
        last_success_at: when a delivery last succeeded.
        failures: deliveries that failed in a row.
        failing_since: when the first of these failed.
        missed_deleted: missed deliveries that are not kept, since it was disabled last.
        too_costly: events in a row that did not match since `when` took too many steps.
        created_at: when it was made.
        secret: what its deliveries are signed with; only `subscribe` answers it, else None.
    """

    id: str
    tenant: str
    url: str
    events: Sequence[str]
    when: str | None
    headers: Mapping[str, str]
    description: str | None
    rate: str | None
    enabled: bool
    disabled_at: datetime | None
    disabled_reason: str | None
    last_status_code: str | None
    last_error: str | None
    last_attempt_at: datetime | None
    last_success_at: datetime | None
    failures: int
    failing_since: datetime | None
    missed_deleted: int
    created_at: datetime
    secret: str | None = field(default=None, repr=False)
    too_costly: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in the daemon.

    Attributes:
        type: such as `task.failed`. `missed` stands where events are missing: `data["missed"]` is
            how many, or None where that is not known.
        data: the event as the API tells it.
    """

    type: str
    data: Mapping[str, Any]
