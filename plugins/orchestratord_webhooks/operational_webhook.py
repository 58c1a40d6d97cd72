"""What stands under `operational_webhooks:` in orchestratord.yaml, and what such a webhook is told
of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, field_validator

from orchestratord import (
    OWN_ENDPOINT,
    SAME_MS,
    Api,
    BatchMember,
    BreakerEvent,
    BulkEvent,
    Config,
    ConfigEvent,
    DaemonSetting,
    Endpoint,
    Event,
    EventType,
    PartitionEvent,
    Redactor,
    Status,
    Task,
    Template,
    TemplateTree,
    ThrottleEvent,
    TroubleEvent,
    rfc3339,
    suggest,
)
from orchestratord_webhooks.declaration import LONGEST_TEXT, Addressed, BatchRule, Retry, shortened
from orchestratord_webhooks.envelope import json_text
from orchestratord_webhooks.webhook_templates import OPERATIONAL, check_names

PHASE = "operational"
LANE = "operational "
"""How the lanes of these deliveries begin, and the groups of their batches."""
REMOVED_AFTER = 4 * 86_400.0
"""Seconds after which deliveries fail whose webhook is not declared here: another daemon may have
it, whose retries take three days by default."""

TYPES = (
    "breaker.opened",
    "breaker.closed",
    "throttle.began",
    "webhook.disabled",
    "partition.held",
    "bulk.paused",
    "bulk.finished",
    "config.refused",
    "trouble.began",
    "trouble.ended",
    "schedule.missed",
    "endpoint.failing",
    "outbox.refused",
)
"""What is told of where the webhook does not say."""
_KNOWN = tuple(str(one) for one in EventType if not one.startswith("task."))
MOST_NAMES = 20
"""Of a list within an event, that are named."""
_TIMES = frozenset(
    {"at", "next_probe", "opened_at", "until", "since", "slot", "failing_since", "began_at"}
) | {"first_slot"}
_SUBJECTS = (
    "lane",
    "scope",
    "endpoint",
    "webhook",
    "partition",
    "id",
    "bulk",
    "slot",
    "code",
    "plugin",
    "hook",
)
"""Fields that say what an event is about: not why it came, which each daemon may put otherwise."""
_WHY = ("error", "why", "reason")
_FOUND_BY_EACH = ("trouble.", "clock.", "endpoint.failing", "webhook.disabled")
"""How the types of events begin that several daemons may find out, each for itself, and that
nothing names which these share."""
_NOISE = ("inbound.refused", "plugin.fault")
"""Of what may happen a thousand times a second, each daemon tells of one about the same within
`SAME_MS`."""
_WRITTEN = ("webhook.disabled", "partition.held")
"""What is written with its cause here, without `on_event`."""


def _types(given: tuple[str, ...]) -> tuple[str, ...]:
    found: list[str] = []
    for word in given:
        matching = [one for one in _KNOWN if one == word]
        if word.endswith(".*"):
            matching = [one for one in _KNOWN if one.startswith(word[:-1])]
        if not matching:
            raise ValueError(f"{word!r} is not an event of such webhooks{suggest(word, _KNOWN)}")
        found += matching
    return tuple(dict.fromkeys(found))


class OperationalWebhook(Addressed):
    """A webhook for the daemon's own events."""

    phase: ClassVar[str] = PHASE
    status_code: ClassVar[None] = None

    name: str = Field(PHASE, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=LONGEST_TEXT)
    """A unique name; the daemon keeps the webhook's state under it."""
    events: Annotated[tuple[str, ...], AfterValidator(_types)] = TYPES
    """The types of events to send: `breaker.opened`, `config.*`; by default those that need a
    person."""
    batch: BatchRule = BatchRule(every=30.0, max=100)
    """How long to gather events for one delivery, and how many: {every: 30s, max: 100}."""

    @classmethod
    def default_name(cls, declared: Mapping[str, Any]) -> str:
        return PHASE

    @field_validator("payload")
    @classmethod
    def _of_these(cls, value: Template | TemplateTree | None) -> Template | TemplateTree | None:
        if value is not None:
            check_names(value, OPERATIONAL)
        return value

    @field_validator("url", "headers")
    @classmethod
    def _of_none(cls, value: Any) -> Any:
        for template in value.values() if isinstance(value, Mapping) else (value.template,):
            check_names(template, frozenset({"now"}))
        return value


def _named_once(webhooks: tuple[OperationalWebhook, ...]) -> tuple[OperationalWebhook, ...]:
    for name, count in Counter(one.name for one in webhooks).items():
        if count > 1:
            raise ValueError(f"the name {name!r} is taken; give each its own `name`")
    return webhooks


OPERATIONAL_WEBHOOKS: DaemonSetting[tuple[OperationalWebhook, ...]] = DaemonSetting(
    "operational_webhooks",
    Annotated[tuple[OperationalWebhook, ...], AfterValidator(_named_once)],
    default=(),
    description="Webhooks that receive the daemon's own events.",
)
"""The key of orchestratord.yaml; `config[OPERATIONAL_WEBHOOKS]` reads it."""


def find_operational(config: Config, name: str) -> OperationalWebhook | None:
    """The webhook of this name, as it is declared today."""
    return next((one for one in config[OPERATIONAL_WEBHOOKS] if one.name == name), None)


def own_endpoint(config: Config) -> Endpoint:
    """What stands in the place of the endpoint of these deliveries."""
    return Endpoint(
        id=OWN_ENDPOINT,
        api=Api.model_validate({"name": OWN_ENDPOINT, "egress": config.daemon.egress.allow}),
        type="http",
        spec=None,
        retry=Retry.model_validate({}),
        timeout=15.0,
        idempotent=True,
        shown={one.name: one.fingerprint for one in config[OPERATIONAL_WEBHOOKS]},
    )


# -- What it is told of ----------------------------------------------------------------------------


def is_observed(event: Event) -> bool:
    """Whether an event is told of once it is observed: others are written with their cause."""
    return not (event.type.recorded or event.type in _WRITTEN)


def members_of(event: Event, config: Config, occurrence: object = None) -> list[BatchMember]:
    """The member of a batch that an event becomes, of each webhook that is told of such events.

    None of one about the deliveries of these webhooks: those would never end. `occurrence`: what
    tells what happened from the same at another time, where several daemons may tell of it.
    """
    webhooks = config[OPERATIONAL_WEBHOOKS]
    if not webhooks or event.type.startswith("task."):
        return []
    if _is_own(event, frozenset(one.url.name for one in webhooks)):
        return []
    return [
        _member(webhook, event, config.redactor, occurrence)
        for webhook in webhooks
        if webhook.enabled and event.type in webhook.events
    ]


def of_held_partition(task: Task, at: float, config: Config) -> list[BatchMember]:
    """What is written with the failure, at `at` (seconds since the epoch), of a task that holds its
    partition from then on; nothing where it does not."""
    if not task.holds_after(Status.FAILED, task.reason):
        return []
    event = PartitionEvent(
        EventType.PARTITION_HELD, round(at * 1000), task.endpoint_id, task.webhook or None,
        task.partition or "", task.id, task.reason,
    )  # fmt: skip
    return members_of(event, config)


def _is_own(event: Event, urls: frozenset[str]) -> bool:
    """Whether it is about deliveries that tell of events."""
    if getattr(event, "endpoint", None) == OWN_ENDPOINT:
        return True
    scopes = (getattr(event, "lane", None), getattr(event, "scope", None))
    return any(
        isinstance(scope, str) and (scope.startswith((LANE, f"{OWN_ENDPOINT}#")) or scope in urls)
        for scope in scopes
    )


def _member(
    webhook: OperationalWebhook, event: Event, redactor: Redactor, occurrence: object
) -> BatchMember:
    about = _about(event, redactor)
    named, since = _once(event, occurrence)
    once = None
    if named is not None:
        once = shortened(" ".join([event.type, *_subject(about), *named]))
    ended_by = None
    if isinstance(event, TroubleEvent) and event.type == EventType.TROUBLE_BEGAN:
        end = shortened(" ".join([EventType.TROUBLE_ENDED, *_subject(about)]))
        ended_by = end, event.began_at
    return BatchMember(
        group=shortened(f"{LANE}{webhook.name} {webhook.fingerprint}"),
        endpoint_id=OWN_ENDPOINT,
        webhook=webhook.name,
        phase=PHASE,
        every=webhook.batch.every,
        most=webhook.batch.max,
        reason=str(event.type),
        detail=json_text(about),
        once=once,
        since=since,
        ended_by=ended_by,
    )


def _subject(fields: Mapping[str, Any]) -> list[str]:
    """What an event with these fields is about."""
    return [str(fields[name]) for name in _SUBJECTS if fields.get(name) is not None]


def noise(event: Event) -> tuple[str, ...] | None:
    """What an event is about of which there may be many; None for any other."""
    return (event.type, *_subject(event._asdict())) if event.type in _NOISE else None


def _once(event: Event, occurrence: object) -> tuple[list[str] | None, int | None]:
    """What names an event, beside its subject, where it may be told of more than once; and since
    when (milliseconds) the same counts that was told of, where nothing tells it from that."""
    if occurrence is not None:
        return [str(occurrence)], None
    match event:
        case BulkEvent(type=EventType.BULK_FINISHED):  # told of until that is noted, as the next
            return [], None
        case BulkEvent(type=EventType.BULK_PAUSED):
            return [str(event.stop_at)], None
        # Several daemons may find out that it is over.
        case BreakerEvent(type=EventType.BREAKER_CLOSED):
            return [], max(event.opened_at or 0, event.at - SAME_MS)
        case ThrottleEvent(type=EventType.THROTTLE_ENDED):
            return [], max(event.since or 0, event.at - SAME_MS)
        case TroubleEvent(type=EventType.TROUBLE_ENDED):
            return [], max(event.began_at, event.at - SAME_MS)
        case ConfigEvent():
            changed = (*event.added, *event.changed, *event.removed, *event.settings)
            return [event.error or "", *changed], event.at - SAME_MS
    if event.type.startswith(_FOUND_BY_EACH):
        return [], event.at - SAME_MS
    return None, None  # one daemon tells of it, once


def _about(event: Event, redactor: Redactor) -> dict[str, Any]:
    """An event as it is sent: its fields, and a sentence for people."""
    about: dict[str, Any] = {}
    for name, value in event._asdict().items():
        if name in _TIMES and isinstance(value, int):
            value = rfc3339(value)
        elif isinstance(value, tuple):
            value = list(value[:MOST_NAMES])
        about[name] = value
    named = (about.get(name) for name in ("lane", "scope", "endpoint", "webhook", "code", "bulk"))
    subject = " ".join(str(one) for one in named if one)
    why = next((str(about[name]) for name in _WHY if about.get(name)), "")
    if "moved" in about:
        why = f"{about['moved']} moved, {about['succeeded']} succeeded, {about['failed']} failed"
    if "slots" in about:
        why = f"{about['slots']} missed, {about['first_slot']} to {about['slot']}"
    about["text"] = ": ".join(part for part in (str(event.type), subject, why) if part)
    masked: dict[str, Any] = redactor.value(about)
    return masked
