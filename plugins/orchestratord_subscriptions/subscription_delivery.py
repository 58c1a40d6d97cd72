"""Sending to subscriptions: the executor of deliveries to the endpoint `subscriptions`."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

import httpx
from orchestratord_webhooks import CONCURRENCY, Deliveries, SigningKey

from orchestratord import (
    MASK,
    Api,
    Config,
    Doomed,
    Endpoint,
    InvalidPayload,
    Outcome,
    Parked,
    Send,
    Standing,
    Target,
    Task,
    header_items,
)
from orchestratord_subscriptions.declaration import ENDPOINT, SUBSCRIPTIONS, SubscriptionSettings
from orchestratord_subscriptions.derived_secret import digest_of
from orchestratord_subscriptions.subscription import KeyGone, Subscription
from orchestratord_subscriptions.subscription_index import SubscriptionIndex

_TELLING = frozenset({"location", "content-location"})
"""Headers of an answer that may hold an address of its receiver."""


class SubscriptionPlan:
    """What the deliveries to one subscription have in common."""

    def __init__(self, subscription: Subscription, settings: SubscriptionSettings) -> None:
        """Raises KeyGone."""
        self.subscription = subscription
        self._keys = tuple(map(SigningKey, subscription.secrets(settings)))
        self._imported = settings.imported_secrets

    def keys(self, now: float) -> Sequence[SigningKey]:
        """What they are signed with `now` (seconds since the epoch), newest first."""
        one = self.subscription
        rotating = now * 1000 < one.previous_until
        keys = self._keys if rotating else self._keys[:1]
        if self._imported is None or (len(one.derived) > 1 and not rotating):
            return keys  # a rotation revokes an imported secret, too
        return (*keys, *self._imported.keys(one.name, now))


class SubscriptionDeliveries(Deliveries):
    """Delivers to today's address of a subscription, under rules of egress of their own."""

    type = ENDPOINT
    own_endpoints: ClassVar[tuple[str, ...]] = (ENDPOINT,)

    def __init__(self, index: SubscriptionIndex) -> None:
        super().__init__(index.health)
        self._index = index
        self._own: tuple[Config, Endpoint] | None = None
        """The endpoint under the configuration that it was made for."""

    def own_endpoint(self, endpoint_id: str, config: Config) -> Endpoint | None:
        if endpoint_id != ENDPOINT or (settings := config[SUBSCRIPTIONS]) is None:
            return None
        if self._own is None or self._own[0] is not config:
            endpoint = Endpoint(
                id=ENDPOINT,
                api=Api.model_validate({"name": ENDPOINT, "egress": settings.allow}),
                type=ENDPOINT,
                spec=None,
                retry=settings.retry,
                timeout=settings.timeout,
                idempotent=True,
                shown={"keys": [key.id for key in settings.key]},
            )
            self._own = config, endpoint
        return self._own[1]

    def standing(self, endpoint: Endpoint, webhook: str, config: Config) -> Standing:
        settings = config[SUBSCRIPTIONS]
        assert settings is not None  # else there is no such endpoint
        try:
            one = self._index.find(webhook)
            if one is None:
                return Parked("its subscription is being read")
            plan = SubscriptionPlan(one, settings)
        except KeyError:
            return Doomed("webhook_removed", f"there is no subscription {webhook}", after=0)
        except KeyGone as gone:
            return Parked(f"{gone}; put it back into subscriptions.key", "key_gone")
        if (reason := self._health.disabled(ENDPOINT, webhook)) is not None:
            why = self._health.why_disabled((ENDPOINT, webhook), reason)
            return Doomed("webhook_disabled", why, after=0)
        if (problem := settings.address_problem(one.url)) is not None:
            return Parked(f"its address {problem}", "address_refused")
        # One with a rate counts by itself; the others of a tenant share its turns.
        of_tenant = one.tenant if one.rate is None else webhook
        return Target(
            endpoint=endpoint,
            retry=settings.retry,
            timeout=settings.timeout,
            idempotent=True,  # a receiver tells a repeat by its webhook-id
            lane=f"tenant:{of_tenant}",
            concurrency=CONCURRENCY,
            egress=settings.allow,
            detail=plan,
            rate=one.rate,
            url=f"{ENDPOINT}#{webhook}~{digest_of(one.url)[:8]}",  # which is shown to others
            guards=config.guards,
            lane_breaker=False,
        )

    def access(self, name: str, config: Config) -> Api | None:
        return None

    def evaluates(self, target: Target) -> bool:
        return False

    def prepare(self, task: Task, target: Target, now: float) -> httpx.Request:
        if task.payload is None:
            raise InvalidPayload(task.last_error or "its payload did not render")
        plan: SubscriptionPlan = target.detail
        return plan.subscription.form.request(task.payload.encode())

    async def execute(self, request: Any, task: Task, target: Target, send: Send) -> Outcome:
        outcome = await super().execute(request, task, target, send)
        plan: SubscriptionPlan = target.detail
        if outcome.final_reason == "webhook_disabled" and not self._index.is_todays(
            plan.subscription
        ):
            outcome = replace(
                outcome, verdict="retry", final_reason=None
            )  # another may not be gone
        # Operators read both, and its address is shown to its tenant alone.
        if outcome.response is not None:
            for name, _ in header_items(outcome.response):
                if name in _TELLING:
                    outcome.response.headers[name] = MASK
        if outcome.error is None:
            return outcome
        error = _without_host(outcome.error, request.url.raw_host.decode())
        return replace(outcome, error=error.replace("egress: {", f"{ENDPOINT}: {{"))


def _without_host(error: str, host: str) -> str:
    """An error without a host, however an address is spelled: `[::1]`, `0:0::1`, `127.1`."""
    names = {host}
    with suppress(OSError, ValueError):
        found = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
        names |= {str(address[0]) for *_, address in found}
    for name in sorted(names, key=len, reverse=True):
        error = error.replace(f"[{name}]", "its host").replace(name, "its host")
    return error
