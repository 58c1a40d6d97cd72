"""How each webhook fares: the table `webhooks`, and in memory which ones are disabled.

The YAML says what a webhook is. The table adds what was learnt of it: whether its receiver asked
for no more (410) or a person switched it off, and how its last deliveries went.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from operator import attrgetter
from typing import Any

from orchestratord import (
    DECIDED_ABOUT,
    OWN_ENDPOINT,
    BatchMember,
    Config,
    Control,
    Delete,
    Endpoint,
    Event,
    EventType,
    Outcome,
    RecurringRows,
    Redactor,
    Table,
    Task,
    TaskEvent,
    Upsert,
    WebhookEvent,
    format_duration,
    hookimpl,
    only_for,
    world,
)
from orchestratord_webhooks.attempt_counts import HOUR_MS, counted
from orchestratord_webhooks.declaration import WEBHOOKS, MissedRule, Webhook
from orchestratord_webhooks.operational_webhook import (
    OPERATIONAL_WEBHOOKS,
    OperationalWebhook,
    members_of,
)

log = logging.getLogger("orchestratord.webhooks")

TABLE = Table(
    "webhooks",
    {
        "endpoint_id": "TEXT NOT NULL",
        "name": "TEXT NOT NULL",
        "phase": "TEXT",
        "status_code": "TEXT",  # as `5xx,error`; null for any
        "url": "TEXT",  # secrets masked
        "fingerprint": "TEXT",
        "enabled": "INTEGER",  # as the YAML says
        "disabled_at": "INTEGER",  # times are milliseconds since the epoch
        "disabled_reason": "TEXT",
        "last_status_code": "TEXT",
        "last_error": "TEXT",
        "last_attempt_at": "INTEGER",
        "last_success_at": "INTEGER",
        "failures": "INTEGER",  # in a row
        "failing_since": "INTEGER",  # when the first of them was
        "failing_id": "INTEGER",  # the delivery that it was of
        "last_disabled_at": "INTEGER",  # the last time, also where that was lifted
        "missed_deleted": "INTEGER",  # deliveries that `keep_missed` had no room or time for
    },
    key=("endpoint_id", "name"),
    version=4,
)

MAX_ERROR = 2_000
"""Characters."""
GONE = "410 Gone"
NO_SUCCESS = "no success for "
"""Before how long: what `disable_after` disabled."""
APART_MS = 12 * 3600 * 1000
"""How far apart two deliveries have to have failed for that: a receiver that is away for the only
delivery of a week is not gone."""
MISSED = "webhook_disabled"
"""Why deliveries fail that a disabled webhook misses."""
MISSED_EACH = 30.0
"""Seconds between two looks whether there are more of them than `keep_missed` says."""
MANUALLY = "by hand"
"""As the API has it."""
IN_FLIGHT = 5.0
"""Seconds before it was disabled, as the table has it, in which another daemon may have been
answered 410, too."""
_WRITING = 5.0
"""Seconds that it may take until that stands in the table."""
_BREATH = 100
"""Webhooks that are looked at in one go."""
_LIFTED = {"disabled_at": None, "disabled_reason": None}
# An enumeration's members are found slowly.
_SUCCEEDED = EventType.TASK_SUCCEEDED
_FAILED = frozenset((EventType.TASK_RETRIED, EventType.TASK_FAILED))
_type_of = attrgetter("type")
_NO_FAILURES = {"failures": 0, "failing_since": None, "failing_id": None}

Name = tuple[str, str]
"""Endpoint and webhook."""
Row = Mapping[str, Any]


def _delivers(kind: str, endpoint: Endpoint) -> bool:
    return kind == "webhook" and (endpoint.id == OWN_ENDPOINT or "/" in endpoint.id)


class Health:
    """What is known of the webhooks that are declared. Another plugin's are a subclass's, which
    says where their rows are and what is declared of them."""

    table = TABLE.name

    def __init__(
        self, now: Callable[[], float], skipped: Callable[[int], int] = lambda since: 0
    ) -> None:
        self._now, self._skipped = now, skipped
        self._redactor = Redactor()
        self._worker = ""
        """Who counts attempts: random, from when it begins."""
        self._fingerprints: dict[Name, str] = {}
        self._disabled: dict[Name, str] = {}
        self._gone_at: dict[Name, float] = {}
        """When it was disabled by this daemon (seconds since the epoch)."""
        self._enabled_at: dict[Name, float] = {}
        """When it was enabled by this daemon, likewise."""
        self._failing: dict[Name, tuple[int, int]] = {}
        """Since when all deliveries fail (milliseconds), and the first that did: of this worker."""
        self._failing_anywhere: dict[Name, tuple[int, int]] = {}
        """That of all workers, in the one that judges."""
        self._last_disabled: dict[Name, int] = {}
        """When it was disabled last (milliseconds), where that is known: this tells one disabling
        from the next, however many daemons find out at once that it is due."""
        self._table_control: Control | None = None
        """Reads the table, in each worker."""
        self._control: Control | None = None
        self._judging: dict[Name, asyncio.Task[None]] = {}
        """Of whom it is being found out whether to disable them: once each."""

    def begin(self, control: Control) -> None:
        """Read the table by `control` from now on, and count in rows of this worker's own."""
        self._table_control = control
        self._worker = self._worker or world.token_hex(8)

    def bind(self, control: Control) -> None:
        """Judge by this daemon from now on: one worker does."""
        self.begin(control)
        self._control = control

    def disabled(self, endpoint_id: str, name: str) -> str | None:
        """Why a webhook is disabled, so that its deliveries are made and fail at once, to be sent
        when it is enabled; None where it is not."""
        return self._disabled.get((endpoint_id, name))

    # -- what a subclass says otherwise ------------------------------------------------------

    def key_of(self, name: Name) -> dict[str, str]:
        """The key of the row of a webhook."""
        return key_of(name)

    def disable_after(self, name: Name, config: Config) -> float | None:
        """After how many seconds without a success it is disabled; None for never."""
        webhook = find(config.endpoints.get(name[0]), name[1])
        return None if webhook is None else webhook.disable_after

    def missed_rule(self, name: Name, config: Config) -> MissedRule | None:
        """What is kept of what it misses; None for what is not this one's."""
        webhook = find(config.endpoints.get(name[0]), name[1])
        return webhook.keep_missed if webhook else None

    def is_todays(self, name: Name, endpoint: Endpoint | None) -> bool:
        """False where a reload has changed the webhook since: another URL may not be gone."""
        webhook = find(endpoint, name[1])
        return webhook is not None and webhook.fingerprint == self._fingerprints[name]

    def why_disabled(self, name: Name, reason: str) -> str:
        """Why nothing is delivered to it, and what lifts that."""
        enable = f"orchestratorctl webhooks enable {name[0]} {name[1]}"
        return f"the webhook is disabled: {reason}; to deliver to it again: {enable}"

    def counted(self, name: Name, now: int, *, failed: bool) -> list[Upsert]:
        """What counts an attempt that was decided at `now` (milliseconds)."""
        return [counted(name, self._worker, now, failed=failed)]

    def forget(self, name: Name) -> None:
        """A webhook is gone: nothing is written of it any more."""
        for known in (self._fingerprints, self._disabled, self._gone_at, self._enabled_at):
            known.pop(name, None)
        for failing in (self._failing, self._failing_anywhere, self._last_disabled):
            failing.pop(name, None)

    # -- the configuration -------------------------------------------------------------------

    def adopt(
        self,
        config: Config,
        rows: Iterable[Mapping[str, Any]],
        elsewhere: Collection[str] = (),
    ) -> Iterator[Upsert | Delete | None]:
        """Compare what is declared with the rows of the table; yields what has to be written.

        The rows of endpoints that are declared `elsewhere` stay though they be unknown here. There
        may be tens of thousands: a None in between is for others to have their turn.
        """
        known: dict[Name, Mapping[str, Any]] = {}
        for number, found in enumerate(rows):
            known[found["endpoint_id"], found["name"]] = found
            if number % _BREATH == _BREATH - 1:
                yield None
        fingerprints: dict[Name, str] = {}
        disabled: dict[Name, str] = {}
        failing: dict[Name, tuple[int, int]] = {}
        for number, (endpoint_id, webhook) in enumerate(_declared(config)):
            name = endpoint_id, webhook.name
            columns = _columns(webhook, config.redactor)
            fingerprints[name] = columns["fingerprint"]
            row = known.pop(name, None)
            if row is not None:
                self._was_disabled(name, row.get("last_disabled_at"))
            if row is not None and row.get("failing_since") is not None:
                first = (row["failing_since"], row["failing_id"] or 0)
                since, first_id = min(first, self._failing.get(name, first))
                # Else it is of one who knew nothing of a success of another daemon's.
                if since >= (row.get("last_success_at") or 0):
                    failing[name] = since, first_id
            if row is None:
                columns["failures"] = 0
            elif row["disabled_at"] is not None and endpoint_id != OWN_ENDPOINT:
                if row["fingerprint"] == columns["fingerprint"]:
                    disabled[name] = row["disabled_reason"] or MANUALLY
                else:
                    columns |= _LIFTED
            if row is None or any(row.get(column) != columns[column] for column in columns):
                yield Upsert(TABLE.name, key_of(name), columns)
            elif number % _BREATH == _BREATH - 1:
                yield None
        for name in known:
            if name[0] not in elsewhere:
                yield Delete(TABLE.name, key_of(name))
        for name, reason in self._disabled.items():
            unchanged = self._fingerprints.get(name) == fingerprints.get(name, "")
            if unchanged and self._now() - self._gone_at.get(name, 0.0) < _WRITING:
                # The rows may have been read before it was written that it is disabled.
                disabled.setdefault(name, reason)
        self._fingerprints = fingerprints
        self._disabled = disabled
        self._failing = failing
        known_failing = {**failing, **self._failing_anywhere}
        self._failing_anywhere = {
            name: min(since, failing.get(name, since))
            for name, since in known_failing.items()
            if name in fingerprints
        }
        self._redactor = config.redactor

    # -- the deliveries ----------------------------------------------------------------------

    @hookimpl
    @only_for(_delivers)
    def record_success(self, outcome: Outcome, task: Task) -> Sequence[Upsert] | RecurringRows:
        """The hook `on_success` of a delivery: what is to be written with it. Until the hour ends,
        or a delivery fails, it is the same for the next one."""
        name = (task.endpoint_id, task.webhook)
        if task.kind != "webhook" or name not in self._fingerprints or task.reason == "resolved":
            return []  # a webhook that is gone and has no row any more, or a person's word
        self._failing.pop(name, None)
        now = int(self._now() * 1000)
        last = self._last(outcome, DECIDED_ABOUT)
        values = last | {"last_success_at": DECIDED_ABOUT, **_NO_FAILURES}
        rows = Upsert(self.table, self.key_of(name), values), *self.counted(name, now, failed=False)
        return RecurringRows(rows, until=now - now % HOUR_MS + HOUR_MS)

    @hookimpl
    @only_for(_delivers)
    def record_failure(
        self, outcome: Outcome, task: Task, endpoint: Endpoint | None, config: Config
    ) -> list[Upsert | BatchMember]:
        """The hooks `on_retry` and `on_final_failure`, likewise.

        `endpoint` is as it was when the attempt began.
        """
        name = (task.endpoint_id, task.webhook)
        if task.kind != "webhook" or name not in self._fingerprints or task.reason == "resolved":
            return []  # a call, a webhook that is gone and has no row any more, or a person's word
        code = outcome.status_code
        if code is None and task.reason != "invalid_payload":
            return []  # nothing was tried: it says nothing about the receiver
        now = int(self._now() * 1000)
        if outcome.lost:  # likewise, but it was made
            return [*self.counted(name, now, failed=True)]
        values, told = self._last(outcome, now), list[BatchMember]()
        if task.reason == "webhook_disabled" and self.is_todays(name, endpoint):
            values["disabled_reason"] = GONE
            if name not in self._disabled:  # else it was another one in flight that said so first
                values |= _disabling(now, GONE)
                told = self._members(self._disabled_event(name, GONE, now), config)
            self._disabled[name] = GONE
            self._gone_at[name] = self._now()
        attempt: list[Upsert] = []
        if code is not None:  # or its payload did not render
            attempt = self.counted(name, now, failed=True)
            # Each time: the success of another daemon may have cleared it.
            since, first = self._failing.setdefault(name, (now, task.id))
            values |= {"failing_since": since, "failing_id": first}
        row = Upsert(self.table, self.key_of(name), values, add={"failures": 1})
        return [*told, row, *attempt]

    def _last(self, outcome: Outcome, at: Any) -> dict[str, Any]:
        """What the row says of the last attempt."""
        code, error = outcome.status_code, outcome.error
        return {
            "last_status_code": None if code is None else str(code),
            "last_error": None if error is None else self._line(error),
            "last_attempt_at": at,
        }

    def observe(self, events: Sequence[Event]) -> None:
        """The hook `observe`: judge by the deliveries of all workers, of which this one is told."""
        if self._control is None:
            return
        if not self._failing_anywhere and _FAILED.isdisjoint(map(_type_of, events)):
            return  # as nearly always
        for event in events:
            if not isinstance(event, TaskEvent) or event.webhook is None:
                continue
            if event.type is _SUCCEEDED:
                self._failing_anywhere.pop((event.endpoint, event.webhook), None)
                continue
            if event.type not in _FAILED or event.status_code is None or event.lost:
                continue
            name = (event.endpoint, event.webhook)
            if name in self._fingerprints and name not in self._failing_anywhere:
                self._failing_anywhere[name] = event.at, event.id
            elif name in self._judging:
                continue
            elif (after := self._is_due(name, event, self._control)) is not None:
                judging = self._judge(name, after, self._control)
                running = asyncio.get_running_loop().create_task(judging)
                self._judging[name] = running
                running.add_done_callback(partial(self._judging.pop, name))

    def _is_due(self, name: Name, event: TaskEvent, control: Control) -> float | None:
        """The `disable_after` of a webhook, where it is over by what this daemon knows."""
        after = self.disable_after(name, control.config)
        if after is None or name in self._disabled:
            return None
        since, first = self._failing_anywhere.get(name, (event.at, event.id))
        apart = max(APART_MS, round(after * 1000))
        since += self._skipped(since)
        return after if event.id != first and event.at - since >= apart else None

    async def _judge(self, name: Name, after: float, control: Control) -> None:
        """Disable a webhook, unless another daemon has had a success meanwhile. Where the database
        does not take that now, the next delivery that fails has it judged again."""
        try:
            await self._disable_failing(name, after, control)
        except Exception as error:
            log.warning("cannot disable webhook %s of %s yet: %s", name[1], name[0], error)

    async def _disable_failing(self, name: Name, after: float, control: Control) -> None:
        since = self._failing_anywhere.get(name, (0, 0))[0]
        rows = await control.rows(self.table, self.key_of(name))
        if not rows or name in self._disabled or name not in self._failing_anywhere:
            return
        # Also before it was disabled last: it has been enabled since, here or elsewhere.
        if max(rows[0]["last_success_at"] or 0, rows[0]["last_disabled_at"] or 0) > since:
            self._failing_anywhere.pop(name)  # the next failure is the first one
            self._failing.pop(name, None)
            return
        await self.disable(name, control, f"{NO_SUCCESS}{format_duration(after)}")

    def _line(self, error: str) -> str:
        """An error as the table holds it: a receiver may have written what it likes into it."""
        return self._redactor.text(" ".join(error.split()))[:MAX_ERROR]

    # -- a person ----------------------------------------------------------------------------

    async def disable(self, name: Name, control: Control, reason: str = MANUALLY) -> None:
        """Stop its deliveries: those that wait fail, and so do those that events make."""
        now = int(self._now() * 1000)
        event = self._disabled_event(name, reason, now)
        was_enabled = name not in self._disabled
        values, told = {"disabled_reason": reason}, list[BatchMember]()
        if was_enabled:
            values, told = _disabling(now, reason), self._members(event, control.config)
        await control.write([*told, Upsert(self.table, self.key_of(name), values)])
        self._disabled[name] = reason
        self._gone_at[name] = self._now()
        control.standing_changed(*name)
        if was_enabled:
            control.publish(event)

    def _disabled_event(self, name: Name, reason: str, now: int) -> WebhookEvent:
        # Of an answer the core tells, in these words.
        why = self.why_disabled(name, reason) if reason == GONE else reason
        return WebhookEvent(EventType.WEBHOOK_DISABLED, now, *name, why)

    def _members(self, event: WebhookEvent, config: Config) -> list[BatchMember]:
        """What is written with a disabling, once for all daemons."""
        name = event.endpoint, event.webhook
        told = members_of(event, config, occurrence=self._last_disabled.get(name))
        self._was_disabled(name, event.at)
        return told

    def _was_disabled(self, name: Name, at: int | None) -> None:
        if at is not None:
            self._last_disabled[name] = max(at, self._last_disabled.get(name, 0))

    def failed_since(self, name: Name, last_disabled_at: int) -> float:
        """Since when (seconds since the epoch) deliveries have failed because it was disabled last,
        at that time (milliseconds)."""
        at = last_disabled_at / 1000
        enabled_at = self._enabled_at.get(name, 0.0)
        return max(at - IN_FLIGHT, enabled_at) if enabled_at <= at else at - IN_FLIGHT

    async def enable(self, name: Name, control: Control) -> None:
        """Let its deliveries go on."""
        for row in await control.rows(self.table, self.key_of(name)):
            self._was_disabled(name, row["last_disabled_at"])
        lifted = {**_LIFTED, **_NO_FAILURES}
        await control.write([Upsert(self.table, self.key_of(name), lifted)])
        was_disabled = self._disabled.pop(name, None) is not None
        self._enabled_at[name] = self._now()
        self._gone_at.pop(name, None)
        self._failing.pop(name, None)
        self._failing_anywhere.pop(name, None)
        control.standing_changed(*name)
        if was_disabled:
            now = int(self._now() * 1000)
            control.publish(WebhookEvent(EventType.WEBHOOK_ENABLED, now, *name))

    async def look_again(self, name: Name) -> None:
        """Learn whether another daemon has enabled it: what that sends again must not fail here."""
        control = self._table_control
        if control is None or name not in self._disabled:
            return
        for row in await control.rows(self.table, self.key_of(name)):
            # Else the row does not say yet that it is disabled.
            is_written = (row["last_disabled_at"] or 0) >= self._last_disabled.get(name, 0)
            if row["disabled_at"] is None and is_written:
                self._disabled.pop(name, None)
                control.standing_changed(*name)

    async def delete_missed(self, control: Control) -> None:
        """Delete what `keep_missed` does not keep of what webhooks missed, and count it."""

        def keeps(endpoint_id: str, name: str) -> tuple[float, int] | None:
            rule = self.missed_rule((endpoint_id, name), control.config)
            return (rule.for_, rule.max) if rule else None

        deleted = await control.trim(MISSED, keeps)
        await control.write(
            [
                Upsert(self.table, self.key_of(name), {}, add={"missed_deleted": count})
                for name, count in deleted.items()
            ]
        )

    async def keep_missed(self, control: Control, stopping: asyncio.Event) -> None:
        """Do that again and again, until the daemon stops."""
        while not stopping.is_set():
            await self.delete_missed(control)
            with suppress(TimeoutError):
                async with asyncio.timeout(MISSED_EACH):
                    await stopping.wait()


def _disabling(now: int, reason: str) -> dict[str, Any]:
    of_this_time = {"last_disabled_at": now, "missed_deleted": 0}
    return {"disabled_at": now, "disabled_reason": reason, **of_this_time}


def _declared(config: Config) -> Iterator[tuple[str, Webhook | OperationalWebhook]]:
    for endpoint in config.endpoints.values():
        for webhook in endpoint[WEBHOOKS]:
            if webhook.subscribers is None:
                yield endpoint.id, webhook
    for operational in config[OPERATIONAL_WEBHOOKS]:
        yield OWN_ENDPOINT, operational


def find(endpoint: Endpoint | None, name: str) -> Webhook | None:
    """The webhook of this name, as it is declared today."""
    webhooks = endpoint[WEBHOOKS] if endpoint else ()
    return next((webhook for webhook in webhooks if webhook.name == name), None)


def key_of(name: Name) -> dict[str, str]:
    """The key of the row of a webhook."""
    return {"endpoint_id": name[0], "name": name[1]}


def unwritten_row(name: Name, webhook: Webhook | OperationalWebhook, redactor: Redactor) -> Row:
    """The row of the table for a webhook that has none yet: nothing is known of its deliveries."""
    return dict.fromkeys(TABLE.columns) | key_of(name) | _columns(webhook, redactor)


def _columns(webhook: Webhook | OperationalWebhook, redactor: Redactor) -> dict[str, Any]:
    return {
        "phase": webhook.phase,
        "status_code": None if webhook.status_code is None else str(webhook.status_code),
        "url": redactor.text(webhook.url.shown),
        "fingerprint": webhook.fingerprint,
        "enabled": int(webhook.enabled),
    }
