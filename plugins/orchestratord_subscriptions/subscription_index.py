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
    WebhookEvent,
    off_loop,
)
from orchestratord_subscriptions.declaration import ENDPOINT, PUBLIC
from orchestratord_subscriptions.subscription import (
    CHANGES,
    DISABLED_EVENT,
    SUBSCRIPTION_ROWS,
    TENANTS,
    Subscription,
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
        self.health = health
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
        """Of tenants that are being read, the names that are waited for."""
        self._reads: dict[str, asyncio.Task[Tenant | None]] = {}
        """Of tenants that are being read."""
        self._following: dict[str, asyncio.Task[Tenant | None]] = {}
        """Of tenants that are read next, once that read is over."""
        self._reading: set[asyncio.Task[Any]] = set()

    def bind(self, control: Control) -> None:
        """Read by this daemon from now on, and what was asked for before."""
        self._control = control
        self._bound.set()
        for tenant in self._asked:
            self._begin_reading(tenant)

    # -- the deliveries of an event ------------------------------------------------------------

    def deliveries(self, told: Announcement) -> Sequence[NewTask] | Awaitable[Sequence[NewTask]]:
        """A delivery for each subscription of the tenant that wants an event."""
        if told.tenant is None:
            UNADDRESSED.add()
            return ()
        if told.tenant in self._tenants:
            return self._made(self._tenants[told.tenant], told)
        return self._made_later(told.tenant, told)

    async def _made_later(self, tenant: str, told: Announcement) -> Sequence[NewTask]:
        await self._bound.wait()  # this worker may be only just starting
        made = self._made(await self.read(tenant), told)
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
        assert self._control is not None
        endpoint = self._control.config.endpoints.get(endpoint_id)
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
        data = {"id": id_, "reason": event.reason}
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
        asked = self._asked.setdefault(tenant, set())
        if not asked and self._control is not None:
            self._begin_reading(tenant)
        asked.add(name)

    def _begin_reading(self, tenant: str) -> None:
        reading = asyncio.get_running_loop().create_task(self._read_asked(tenant))
        self._reading.add(reading)
        reading.add_done_callback(self._reading.discard)

    async def _read_asked(self, tenant: str) -> None:
        while True:
            try:
                await self.read(tenant)
                return
            except Exception as error:
                log.warning("cannot read the subscriptions of %s yet: %s", tenant, error)
                await asyncio.sleep(1.0)

    async def read(self, tenant: str) -> Tenant | None:
        """Read a tenant again, by a read that begins after this; None where there is none."""
        following = self._following.get(tenant)
        if following is None:  # else one waits for its turn, which is as good
            step = self._read_after(tenant, self._reads.get(tenant))
            following = asyncio.get_running_loop().create_task(step)
            self._following[tenant] = following
        return await asyncio.shield(following)

    async def _read_after(
        self, tenant: str, before: asyncio.Task[Tenant | None] | None
    ) -> Tenant | None:
        if before is not None:
            await asyncio.wait((before,))
        reading = self._reads[tenant] = self._following.pop(tenant)
        try:
            return await self._read(tenant)
        finally:
            if self._reads.get(tenant) is reading:
                del self._reads[tenant]

    async def _read(self, tenant: str) -> Tenant | None:
        assert self._control is not None
        asked, key = self._asked.pop(tenant, set()), {"tenant": tenant}
        try:
            there = await self._control.rows(TENANTS.name, key)
            rows = await self._control.rows(SUBSCRIPTION_ROWS.name, key)
            if lost := [row for row in rows if not row["url"]]:  # written of as it was removed
                await self._control.write([Delete(SUBSCRIPTION_ROWS.name, key_of(r)) for r in lost])
        except BaseException:
            self._asked.setdefault(tenant, set()).update(asked)
            raise
        return self._take_up(tenant, [row for row in rows if row["url"]] if there else None, asked)

    def _take_up(
        self, name: str, rows: Sequence[dict[str, Any]] | None, asked: Iterable[str]
    ) -> Tenant | None:
        assert self._control is not None
        before = self._tenants.get(name)
        was = {one.name: one for one in (before.subscriptions if before else ())}
        subscriptions, moved = [], set(asked)
        for row in rows or ():
            made = Subscription.of(row)
            known = was.pop(made.name, None) or self._found.get(made.name)
            mine = (ENDPOINT, made.name)
            reason = self.health.disabled(*mine)
            self.health.learn(made.name, row)
            if known is None or known.version != made.version:
                known = made
                moved.add(made.name)
            elif self.health.disabled(*mine) != reason:
                moved.add(made.name)
            subscriptions.append(known)
            self._found[made.name] = known
        moved.update(was)
        for lost in (*was, *(one for one in moved if one not in self._found)):
            self._found.pop(lost, None)
            self.health.forget((ENDPOINT, lost))
            self._gone.add(lost)
        tenant = None if rows is None else Tenant(tuple(subscriptions))
        self._tenants[name] = tenant
        for one in moved:
            self._control.standing_changed(ENDPOINT, one)
        return tenant

    # -- what has changed --------------------------------------------------------------------------

    async def follow(self, stop: asyncio.Event) -> None:
        """The service: read again what any daemon has changed, within half a second."""
        seen: dict[int, int] = {}
        while not stop.is_set():
            try:
                seen = await self._follow(seen)
            except Exception as error:
                log.warning("cannot look for changes of subscriptions yet: %s", error)
            self._evict()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await stop.wait()

    async def _follow(self, seen: dict[int, int]) -> dict[int, int]:
        """Read what has changed since the slots had the revisions of `seen`; what they have now."""
        assert self._control is not None
        rows = await self._control.rows(CHANGES.name)
        now = {row["slot"]: row["revision"] for row in rows}
        moved = {slot for slot, revision in now.items() if seen.get(slot) != revision}
        left = [one for one in self._asked if one not in self._reads]  # a read of it failed
        for tenant in [*left, *(one for one in self._tenants if slot_of(one) in moved)]:
            await self.read(tenant)
        return now

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
        except TooCostly as error:
            if budget is not None:
                raise
            made.append(_delivery(one, told, f"when: {error}"))
        except ValueError as error:
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
