"""Which subscriptions there are: read by tenant, kept in memory, and read again after a change."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from orchestratord_webhooks import Announcement, time_text

from orchestratord import (
    INLINE_STEPS,
    Budget,
    Control,
    Counter,
    Delete,
    NewTask,
    TooCostly,
    Unreachable,
    WebhookEvent,
    off_loop,
)
from orchestratord_subscriptions.declaration import ENDPOINT, PUBLIC
from orchestratord_subscriptions.key_census import KeyCensus
from orchestratord_subscriptions.subscription import (
    CHANGES,
    DISABLED_EVENT,
    SLOTS,
    SUBSCRIPTION_ROWS,
    TENANTS,
    Subscription,
    for_tenant,
    key_of,
    slot_of,
)
from orchestratord_subscriptions.subscription_health import SubscriptionHealth

log = logging.getLogger("orchestratord.subscriptions")

LOOK = 0.4
"""Seconds between two looks at what has changed."""
MOST_IDLE = 20_000
"""Tenants that are kept in memory without a delivery to one of their subscriptions."""
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

    def deliveries(self, told: Announcement) -> Sequence[NewTask] | Awaitable[Sequence[NewTask]]:
        """A delivery for each subscription of the tenant that wants an event."""
        if told.tenant is None or told.tenant in self._tenants:
            return self._made(self._tenants.get(told.tenant or ""), told)
        return self._made_later(told.tenant, told)

    async def _made_later(self, tenant: str, told: Announcement) -> Sequence[NewTask]:
        await self._bound.wait()  # this worker may be only just starting
        async with self._turns[slot_of(tenant)]:
            if tenant not in self._tenants:  # else another event has had it read meanwhile
                await self._read(tenant)
            made = self._made(self._tenants[tenant], told)
        return made if isinstance(made, list | tuple) else await made  # type: ignore[misc]

    def _made(
        self, tenant: Tenant | None, told: Announcement
    ) -> Sequence[NewTask] | Awaitable[Sequence[NewTask]]:
        if tenant is None:
            UNADDRESSED.add()
            return ()
        wanted = tenant.by_event.get(told.endpoint_id)
        if wanted is None:
            public = self.public_name(told.endpoint_id)
            wanted = tuple(
                one for one in tenant.subscriptions if one.wants(told.endpoint_id, public)
            )
            tenant.by_event[told.endpoint_id] = wanted
        if told.payload is None or all(one.when is None for one in wanted):
            return [_delivery(one, told, told.error) for one in wanted]
        try:
            return _chosen(wanted, told, Budget(INLINE_STEPS))
        except TooCostly:
            return off_loop(_chosen, wanted, told, None)

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


def _chosen(
    wanted: Iterable[Subscription], told: Announcement, budget: Budget | None
) -> list[NewTask]:
    """The deliveries to those whose `when` holds. Raises TooCostly where it costs more."""
    made = []
    for one in wanted:
        try:
            if one.when is None or one.when.holds(told.value, budget):
                made.append(_delivery(one, told, told.error))
        except ValueError as error:
            if budget is not None and isinstance(error, TooCostly):
                raise
            made.append(_delivery(one, told, f"when: {error}"))
    return made


def example_delivery(one: Subscription, payload: Mapping[str, Any]) -> NewTask:
    """The delivery of something that is said to one subscription alone."""
    event = str(payload["type"])
    body = json.dumps(payload, ensure_ascii=False)
    return NewTask("webhook", ENDPOINT, {"event": event}, webhook=one.name, payload=body)


def _delivery(one: Subscription, told: Announcement, error: str | None) -> NewTask:
    return NewTask(
        kind="webhook",
        endpoint_id=ENDPOINT,
        webhook=one.name,
        phase=told.webhook.phase,
        params={"event": told.endpoint_id},
        payload=None if error else told.payload,
        error=error,
        parent_id=told.parent_id,
        max_attempts=told.webhook.retry.max_attempts,
        partition=told.partition,
    )
