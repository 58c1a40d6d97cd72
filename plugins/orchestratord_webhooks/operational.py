"""Operational webhooks: what happens in the daemon itself, told to who runs it.

Events are members of a batch as soon as they are told, each once whichever daemons of the queue
have it, and the delivery of a batch is a task like any other. What tells of the database or its
disk is kept in memory until these take it. Never told of are these deliveries themselves.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator

from orchestratord import (
    Api,
    BatchMember,
    ClosedBatch,
    Config,
    Control,
    DaemonSetting,
    Endpoint,
    Event,
    EventType,
    InvalidPayload,
    NewTask,
    OrchestratordError,
    Redactor,
    Template,
    TemplateTree,
    suggest,
)
from orchestratord_webhooks.batches import fitting, is_elsewhere
from orchestratord_webhooks.declaration import Addressed, BatchRule, Retry
from orchestratord_webhooks.envelope import json_text, time_text
from orchestratord_webhooks.webhook_templates import OPERATIONAL, check_names

log = logging.getLogger("orchestratord.webhooks")

ID = "orchestratord"
"""What stands in the place of an endpoint; none that files declare is called so."""
PHASE = "operational"
LANE = "operational "
"""How the lanes of these deliveries begin."""

REMOVED_AFTER = 4 * 86_400.0
"""Seconds after which deliveries fail whose webhook is not declared here: another daemon may have
it, whose retries take three days by default."""

MOST_WAITING = 1_000
"""Events that wait for the database to take them."""
AGAIN = 2.0
"""Seconds after which it is asked again."""
AT_ONCE = 100
MOST_NAMES = 20
"""Of a list within an event, that are named."""

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
_TIMES = frozenset(
    {"at", "next_probe", "opened_at", "until", "since", "slot", "failing_since", "began_at"}
)
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


def _types(given: tuple[str, ...]) -> tuple[str, ...]:
    found: list[str] = []
    for word in given:
        matching = [one for one in _KNOWN if one == word]
        if word.endswith(".*"):
            matching = [one for one in _KNOWN if one.startswith(word[:-1])]
        if not matching:
            raise ValueError(f"{word!r} is not an event that is told of{suggest(word, _KNOWN)}")
        found += matching
    return tuple(dict.fromkeys(found))


class OperationalWebhook(Addressed):
    """Who is told of what happens in the daemon itself."""

    name: str = Field(PHASE, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """A name that no other of these webhooks has; its state is kept under it."""
    events: Annotated[tuple[str, ...], AfterValidator(_types)] = tuple(
        one for one in TYPES if one in _KNOWN
    )
    """Which types of events are told of: `breaker.opened`, `config.*`; left out, what a person
    should look at."""
    batch: BatchRule = BatchRule(every=30.0, max=100)
    """How long events are gathered for one delivery, and how many: {every: 30s, max: 100}."""

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
    description="Which webhooks are told of what happens in the daemon itself.",
)
"""The key of orchestratord.yaml; `config[OPERATIONAL_WEBHOOKS]` reads it."""


def find_operational(config: Config, name: str) -> OperationalWebhook | None:
    """The webhook of this name, as it is declared today."""
    return next((one for one in config[OPERATIONAL_WEBHOOKS] if one.name == name), None)


def own_endpoint(config: Config) -> Endpoint:
    """What stands in the place of the endpoint of these deliveries."""
    return Endpoint(
        id=ID,
        api=Api.model_validate({"name": ID, "egress": config.daemon.egress.allow}),
        type="http",
        spec=None,
        retry=Retry.model_validate({}),
        timeout=15.0,
        idempotent=True,
        shown={one.name: one.fingerprint for one in config[OPERATIONAL_WEBHOOKS]},
    )


class OperationalTeller:
    """Has what happens written as members of batches."""

    def __init__(self) -> None:
        self._control: Control | None = None
        self._waiting: deque[BatchMember] = deque(maxlen=MOST_WAITING)
        self._writing: asyncio.Task[None] | None = None

    def bind(self, control: Control) -> None:
        """Tell by this daemon from now on."""
        self._control = control
        self._waiting.clear()

    def observe(self, events: Sequence[Event]) -> None:
        """The hook `observe`."""
        if self._control is None or not (webhooks := self._webhooks()):
            return
        config = self._control.config
        own = frozenset(one.url.name for one in webhooks)
        for event in events:
            if event.type.startswith("task.") or _is_own(event, own):
                continue
            for webhook in webhooks:
                if webhook.enabled and event.type in webhook.events:
                    self._waiting.append(_member(webhook, event, config.redactor))
        if self._waiting and (self._writing is None or self._writing.done()):
            self._writing = asyncio.get_running_loop().create_task(self._write())

    def _webhooks(self) -> tuple[OperationalWebhook, ...]:
        assert self._control is not None
        try:
            return self._control.config[OPERATIONAL_WEBHOOKS]
        except RuntimeError:  # none is in force yet
            return ()

    async def _write(self) -> None:
        """Until all is written: while the database or its disk is what has failed, later."""
        assert self._control is not None
        while self._waiting:
            some = [self._waiting.popleft() for _ in range(min(len(self._waiting), AT_ONCE))]
            try:
                await self._control.write(some)
            except OrchestratordError as error:
                log.warning("what is to be told of the daemon waits: %s", error)
                self._waiting.extendleft(reversed(some))
                await asyncio.sleep(AGAIN)


def operational_delivery(batch: ClosedBatch, config: Config, now: float) -> NewTask | None:
    """The task that tells of a batch of events; None while another daemon may declare its webhook,
    which this one does not."""
    webhook = find_operational(config, batch.webhook)
    if webhook is None and is_elsewhere(batch, now):
        return None
    entries = [_entry(one.detail, config.redactor) for one in batch.first]
    types: Counter[str] = Counter()
    for (_, reason, _), number in batch.counts.items():
        types[reason or ""] += number
    data: dict[str, Any] = {
        "batch": batch.id,
        "webhook": batch.webhook,
        "count": batch.members,
        "counts": {"type": dict(types.most_common())},
        "opened_at": time_text(batch.opened_at / 1000),
        "closed_at": time_text(batch.closed_at / 1000),
        "first": [one for one in entries if one],
    }
    payload, error = None, None
    try:
        payload = fitting(data, webhook, batch, config.redactor, now)
    except InvalidPayload as invalid:
        error = config.redactor.text(str(invalid))
    return NewTask(
        kind="webhook",
        endpoint_id=ID,
        webhook=batch.webhook,
        phase=PHASE,
        payload=payload,
        error=error,
        max_attempts=webhook.retry.max_attempts if webhook is not None else 1,
    )


def _entry(detail: str | None, redactor: Redactor) -> dict[str, Any]:
    try:
        found = json.loads(detail or "{}")
    except (ValueError, RecursionError):
        return {}
    masked: dict[str, Any] = redactor.value(found)
    return masked


def _is_own(event: Event, urls: frozenset[str]) -> bool:
    """Whether it is about deliveries that tell of events."""
    if getattr(event, "endpoint", None) == ID:
        return True
    scopes = (getattr(event, "lane", None), getattr(event, "scope", None))
    return any(
        isinstance(scope, str) and (scope.startswith((LANE, f"{ID}#")) or scope in urls)
        for scope in scopes
    )


def _member(webhook: OperationalWebhook, event: Event, redactor: Redactor) -> BatchMember:
    about = _about(event, redactor)
    subject = [str(about[name]) for name in _SUBJECTS if about.get(name) is not None]
    return BatchMember(
        group=f"{LANE}{webhook.name} {webhook.fingerprint}",
        endpoint_id=ID,
        webhook=webhook.name,
        phase=PHASE,
        every=webhook.batch.every,
        most=webhook.batch.max,
        reason=str(event.type),
        detail=json_text(about),
        once=" ".join([event.type.partition(".")[0], *subject])[:1_000],
    )


def _about(event: Event, redactor: Redactor) -> dict[str, Any]:
    """An event as it is sent: its fields, and a sentence for people."""
    about: dict[str, Any] = {}
    for name, value in event._asdict().items():
        if name in _TIMES and isinstance(value, int):
            value = time_text(value / 1000)
        elif isinstance(value, tuple):
            value = list(value[:MOST_NAMES])
        about[name] = value
    named = (about.get(name) for name in ("lane", "scope", "endpoint", "webhook", "code", "bulk"))
    subject = " ".join(str(one) for one in named if one)
    why = next((str(about[name]) for name in _WHY if about.get(name)), "")
    if "moved" in about:
        why = f"{about['moved']} moved, {about['succeeded']} succeeded, {about['failed']} failed"
    about["text"] = ": ".join(part for part in (str(event.type), subject, why) if part)
    masked: dict[str, Any] = redactor.value(about)
    return masked
