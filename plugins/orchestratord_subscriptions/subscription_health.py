"""How each subscription fares: kept in its row, disabled as webhooks are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestratord_webhooks import Health, MissedRule

from orchestratord import Config, Endpoint, Event, NewTask, Upsert, WebhookEvent
from orchestratord_subscriptions.declaration import ENDPOINT, SUBSCRIPTIONS
from orchestratord_subscriptions.subscription import SUBSCRIPTION_ROWS, changed

Name = tuple[str, str]
WRITING = 5.0
"""Seconds that it may take until it stands in the row that one was disabled."""


class SubscriptionHealth(Health):
    """The health of those subscriptions that this worker knows."""

    table = SUBSCRIPTION_ROWS.name

    def __init__(self, now: Callable[[], float], skipped: Callable[[int], int]) -> None:
        super().__init__(now, skipped)
        self.look: Callable[[str], None] = lambda name: None
        """Has a subscription read that is not known here."""
        self.tell: Callable[[WebhookEvent], Sequence[NewTask]] = lambda event: ()
        """The deliveries that tell a tenant of a disabling."""

    def key_of(self, name: Name) -> dict[str, str]:
        tenant, _, id_ = name[1].partition("/")
        return {"tenant": tenant, "id": id_}

    def disable_after(self, name: Name, config: Config) -> float | None:
        settings = config[SUBSCRIPTIONS]
        return None if settings is None else settings.disable_after

    def missed_rule(self, name: Name, config: Config) -> MissedRule | None:
        settings = config[SUBSCRIPTIONS] if name[0] == ENDPOINT else None
        return None if settings is None else settings.keep_missed

    def is_todays(self, name: Name, endpoint: Endpoint | None) -> bool:
        return True  # the executor has looked whether the address is still its own

    def why_disabled(self, name: Name, reason: str) -> str:
        enable = f"orchestratorctl change-subscription {name[1].replace('/', ' ')} --enabled true"
        return f"the subscription is disabled: {reason}; to deliver to it again: {enable}"

    def counted(self, name: Name, now: int, *, failed: bool) -> list[Upsert]:
        return []

    def learn(self, name: str, row: Mapping[str, Any]) -> None:
        """Take up what stands in the row of a subscription."""
        mine = (ENDPOINT, name)
        if mine not in self._fingerprints and row["failing_since"] is not None:
            first = row["failing_since"], row["failing_id"] or 0
            self._failing.setdefault(mine, first)
            self._failing_anywhere.setdefault(mine, first)
        self._fingerprints[mine] = ""
        self._was_disabled(mine, row["last_disabled_at"])
        if row["disabled_at"] is None:
            if self._now() - self._gone_at.get(mine, 0.0) >= WRITING:
                self._disabled.pop(mine, None)
        else:
            self._disabled[mine] = row["disabled_reason"] or ""

    def observe(self, events: Sequence[Event]) -> None:
        for event in events:
            if getattr(event, "endpoint", None) == ENDPOINT:
                webhook = getattr(event, "webhook", None)
                if webhook and (ENDPOINT, webhook) not in self._fingerprints:
                    self.look(webhook)
        super().observe(events)

    def _members(self, event: WebhookEvent, config: Config) -> list[Any]:
        tenant = event.webhook.partition("/")[0]
        return [*super()._members(event, config), *self.tell(event), changed(tenant)]
