"""Which subscriptions there are: read by tenant, kept in memory, and read again after a change."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from orchestratord_webhooks import Announcement, time_text

from orchestratord import (
    INLINE_BYTES,
    Budget,
    Control,
    Counter,
    Delete,
    Effect,
    NewChore,
    NewTask,
    TooCostly,
    Unreachable,
    Upsert,
    WebhookEvent,
    off_loop,
)
from orchestratord_subscriptions.declaration import ENDPOINT, PUBLIC
from orchestratord_subscriptions.event_matching import (
    COSTLY,
    Verdict,
    announced,
    delivery_of,
    verdict_of,
    verdicts_of,
)
from orchestratord_subscriptions.key_census import KeyCensus
from orchestratord_subscriptions.subscription import (
    CHANGES,
    DISABLED_EVENT,
    SLOTS,
    SUBSCRIPTION_ROWS,
    TENANT_ID,
    TENANTS,
    Subscription,
    changed,
    for_tenant,
    key_of,
    slot_of,
)
from orchestratord_subscriptions.subscription_health import SubscriptionHealth

log = logging.getLogger("orchestratord.subscriptions")

CHORE = "subscriptions"
"""The kind of chore that matches an event with the subscriptions of a tenant."""
QUICK_STEPS = 1_000
"""What all filters of a tenant may cost for an event that are evaluated on the loop: 1.5 ms."""
MOST_BYTES = 16 << 20
"""Of all payloads that are made with an event: more than a hook returns would fail all others."""
Made = Sequence[NewTask | NewChore]
LOOK = 0.4
"""Seconds between two looks at what has changed."""
MOST_IDLE = 20_000
"""Tenants that are kept in memory without a delivery to one of their subscriptions."""
MOST_IN_A_ROW = 100
"""Events for which a `when` takes too many steps, until its subscription is disabled."""
TOO_COSTLY = Counter(
    "subscriptions_too_costly",
    "Events that did not match a subscription since its `when` took too many steps.",
)
UNADDRESSED = Counter(
    "subscriptions_unaddressed",
    "Events with subscribers whose tenant was null or unknown.",
)


@dataclass(eq=False, slots=True)
class Tenant:
    """The subscriptions of one."""

    subscriptions: tuple[Subscription, ...]
    by_event: dict[str, tuple[Subscription, ...]] = field(default_factory=dict)
    """Those that want the events of an endpoint."""


class SubscriptionIndex:
    """Those that this worker has needed."""

    def __init__(self, health: SubscriptionHealth) -> None:
        self.health, self.census = health, KeyCensus()
        health.look, health.tell = self._look_for, self._told
        self._control: Control | None = None
        self._bound = asyncio.Event()
        self._tenants: dict[str, Tenant | None] = {}
        """None: there is no such tenant."""
        self._found: dict[str, Subscription] = {}
        """By their names, `tenant/id`."""
        self._gone: set[str] = set()
        """Names that were asked for, and that the table does not have."""
        self._asked: dict[str, set[str]] = {}
        """Of tenants that are to be read, the names that are waited for."""
        self._reading: set[asyncio.Task[None]] = set()
        self._turns = [asyncio.Lock() for _ in range(SLOTS)]
        """A tenant is read once at a time."""

    @property
    def control(self) -> Control:
        """The daemon."""
        assert self._control is not None
        return self._control

    def bind(self, control: Control) -> None:
        """Read by this daemon from now on, and what was asked for before."""
        self._control = control
        self._bound.set()
        for tenant in self._asked:
            self._begin_reading(tenant)

    # -- the deliveries of an event ------------------------------------------------------------

    def deliveries(self, told: Announcement) -> Made | Awaitable[Made]:
        """A delivery for each subscription of the tenant that wants an event; or a chore, where it
        takes more than a moment to find these out, or cannot be done now."""
        if told.tenant is None or not TENANT_ID.fullmatch(told.tenant):
            UNADDRESSED.add()
            return ()
        return self._made(told) if told.tenant in self._tenants else self._made_later(told)

    async def _made_later(self, told: Announcement) -> Made:
        try:
            await self.know(told.tenant or "")
        except Exception as error:
            log.warning("cannot read the subscriptions of %s yet: %s", told.tenant, error)
            return _later(told)
        return self._made(told)

    def _made(self, told: Announcement) -> Made:
        wanted = self.wanted(told.tenant or "", told.endpoint_id)
        filters = [one for one in wanted if one.condition] if told.payload is not None else ()
        size, is_quick = len(told.payload or ""), all(one.is_quick for one in filters)
        if filters and not (is_quick and told.partition is None and size < INLINE_BYTES):
            return _later(told)
        if len(wanted) * size > MOST_BYTES:
            return _later(told)
        try:
            payload, budget = told.value() if filters else None, Budget(QUICK_STEPS)
            verdicts = [verdict_of(one, payload, budget) for one in wanted]
        except TooCostly:
            return _later(told)
        return [delivery_of(told, *one) for one in zip(wanted, verdicts, strict=True) if one[1]]

    async def know(self, tenant: str) -> None:
        """Have the subscriptions of a tenant here."""
        await self._bound.wait()  # this worker may be only just starting
        async with self._turns[slot_of(tenant)]:
            if tenant not in self._tenants:  # else another event has had it read meanwhile
                await self._read(tenant)

    def wanted(self, name: str, endpoint_id: str) -> tuple[Subscription, ...]:
        """The subscriptions of a tenant that is known here that want the events of an endpoint."""
        if (tenant := self._tenants[name]) is None:
            UNADDRESSED.add()
            return ()
        wanted = tenant.by_event.get(endpoint_id)
        if wanted is None:
            public = self.public_name(endpoint_id)
            wanted = tuple(one for one in tenant.subscriptions if one.wants(endpoint_id, public))
            tenant.by_event[endpoint_id] = wanted
        return wanted

    async def match(self, data: str) -> list[Effect]:
        """The step of the chores: the deliveries of an event."""
        told, payload = await off_loop(announced, data)
        await self.know(told.tenant or "")
        wanted, verdicts = self.wanted(told.tenant or "", told.endpoint_id), list[Verdict]()
        while len(verdicts) < len(wanted):
            verdicts += await off_loop(verdicts_of, wanted[len(verdicts) :], payload)
        effects: list[Effect] = []
        for one, verdict in zip(wanted, verdicts, strict=True):
            if verdict is None or one.too_costly:
                effects += await self._count(one, too_costly=verdict is None)
            if verdict:
                effects.append(delivery_of(told, one, verdict))
        return effects

    async def _count(self, one: Subscription, *, too_costly: bool) -> list[Effect]:
        """Count the events in a row that cost one too much, and disable it after too many."""
        values: dict[str, Any] = {"too_costly": 0}
        if too_costly:
            TOO_COSTLY.add()
            rows = await self.control.rows(SUBSCRIPTION_ROWS.name, one.key)
            count = 1 + sum(row["too_costly"] or 0 for row in rows)
            values = {"too_costly": count, "last_error": f"{COSTLY}: the event did not match"}
            if count >= MOST_IN_A_ROW:
                values["too_costly"] = 0
                if self.health.disabled(ENDPOINT, one.name) is None:
                    why = f"{COSTLY} for {MOST_IN_A_ROW} events in a row"
                    await self.health.disable((ENDPOINT, one.name), self.control, why)
        return [Upsert(SUBSCRIPTION_ROWS.name, one.key, values), changed(one.tenant)]

    def public_name(self, endpoint_id: str) -> str:
        """What tenants call an event."""
        endpoint = self.control.config.endpoints.get(endpoint_id)
        public = endpoint[PUBLIC] if endpoint is not None else None
        return endpoint_id if public is None else public.name

    def forget_events(self) -> None:
        """The files have changed, and with them what tenants call events."""
        for tenant in self._tenants.values():
            if tenant is not None:
                tenant.by_event.clear()

    def _told(self, event: WebhookEvent) -> Sequence[NewTask]:
        tenant, _, id_ = event.webhook.partition("/")
        known = self._tenants.get(tenant)
        data = {"id": id_, "reason": for_tenant(event.reason)}
        payload = {"type": DISABLED_EVENT, "timestamp": time_text(event.at / 1000), "data": data}
        return [
            example_delivery(one, payload)
            for one in (known.subscriptions if known is not None else ())
            if DISABLED_EVENT in one.events and one.id != id_
        ]

    # -- finding one -----------------------------------------------------------------------------

    def find(self, name: str) -> Subscription | None:
        """The subscription `tenant/id`; None where it is not known yet: it is read then, and the
        core is told. Raises KeyError where there is none."""
        found = self._found.get(name)
        if found is None:
            if name in self._gone:
                raise KeyError(name)
            self._look_for(name)
        return found

    def is_todays(self, one: Subscription) -> bool:
        """Whether its address is still this one's."""
        found = self._found.get(one.name)
        return found is not None and found.url == one.url

    def _look_for(self, name: str) -> None:
        tenant = name.partition("/")[0]
        is_read = tenant in self._asked
        self._asked.setdefault(tenant, set()).add(name)
        if not is_read and self._control is not None:
            self._begin_reading(tenant)

    def _begin_reading(self, tenant: str) -> None:
        reading = asyncio.get_running_loop().create_task(self._read_asked(tenant))
        self._reading.add(reading)
        reading.add_done_callback(self._reading.discard)

    async def _read_asked(self, tenant: str) -> None:
        said = ""
        while tenant in self._asked:
            try:
                await self.read(tenant)
            except Exception as error:
                if said != str(error):
                    log.warning("cannot read the subscriptions of %s yet: %s", tenant, error)
                said = str(error)
                await asyncio.sleep(1.0)

    async def read(self, tenant: str) -> None:
        """Read a tenant again, by a read that begins after this."""
        async with self._turns[slot_of(tenant)]:
            await self._read(tenant)

    async def _read(self, tenant: str) -> None:
        key, asked = {"tenant": tenant}, frozenset(self._asked.get(tenant, ()))
        there = await self.control.rows(TENANTS.name, key)
        rows = await self.control.rows(SUBSCRIPTION_ROWS.name, key)
        if lost := [row for row in rows if not row["url"]]:  # written of as it was removed
            await self.control.write([Delete(SUBSCRIPTION_ROWS.name, key_of(r)) for r in lost])
        if left := self._asked.pop(tenant, set()) - asked:
            self._asked[tenant] = left  # it may have been made since
        found = [row for row in rows if row["url"]] if there else []
        subscriptions = self._take_up(tenant, found, asked)
        await off_loop(verdicts_of, subscriptions, {})  # which reads filters; a chore, the others
        self._tenants[tenant] = Tenant(subscriptions) if there else None

    def _take_up(
        self, name: str, rows: Sequence[dict[str, Any]], asked: Iterable[str]
    ) -> tuple[Subscription, ...]:
        """Know the subscriptions of a tenant from now on by these rows, and those alone."""
        before = self._tenants.get(name)
        was = {one.name for one in (before.subscriptions if before else ())}
        here, moved = dict[str, Subscription](), set(asked)
        for row in rows:
            made = Subscription(row)
            known = self._found.get(made.name)
            mine = (ENDPOINT, made.name)
            reason = self.health.disabled(*mine)
            self.health.learn(made.name, row)
            is_same = known is not None and known.version == made.version
            if known is not None:
                known.too_costly = made.too_costly
            if not is_same or self.health.disabled(*mine) != reason:
                moved.add(made.name)
            here[made.name] = known if known is not None and is_same else made
        for lost in (was | moved) - here.keys():
            moved.add(lost)
            self._found.pop(lost, None)
            self.health.forget((ENDPOINT, lost))
            self._gone.add(lost)
        self._found |= here
        for one in moved:
            self.control.standing_changed(ENDPOINT, one)
        return tuple(here.values())

    # -- what has changed --------------------------------------------------------------------------

    async def follow(self, stop: asyncio.Event) -> None:
        """The service: read again what any daemon has changed, within half a second."""
        seen: dict[int, int] = {}
        while not stop.is_set():
            with suppress(Unreachable):  # which the daemon announces; all else is a fault
                rows = await self.control.rows(CHANGES.name)
                now = {row["slot"]: row["revision"] for row in rows}
                moved = {slot for slot, revision in now.items() if seen.get(slot) != revision}
                for tenant in [one for one in self._tenants if slot_of(one) in moved]:
                    await self.read(tenant)
                seen = now
                await self.census.look(self.control, now)
            self._evict()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await stop.wait()

    def _evict(self) -> None:
        for name in list(self._tenants)[:-MOST_IDLE] if len(self._tenants) > MOST_IDLE else ():
            tenant = self._tenants[name]
            if tenant is None or not tenant.subscriptions:
                del self._tenants[name]
        if len(self._gone) > MOST_IDLE:
            self._gone.clear()


def example_delivery(one: Subscription, payload: Mapping[str, Any]) -> NewTask:
    """The delivery of something that is said to one subscription alone."""
    event = str(payload["type"])
    body = json.dumps(payload, ensure_ascii=False)
    return NewTask("webhook", ENDPOINT, {"event": event}, webhook=one.name, payload=body)


def _later(told: Announcement) -> Made:
    return (NewChore(CHORE, told.tenant or "", json.dumps(asdict(told), ensure_ascii=False)),)
