"""A subscription of a tenant: its row, its limits, and which events it wants."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from orchestratord import Expression, Form, RateLimit, Table, Upsert
from orchestratord_subscriptions.declaration import SubscriptionSettings
from orchestratord_subscriptions.derived_secret import find_key

TENANTS = Table(
    "tenants",
    {
        "tenant": "TEXT NOT NULL",
        "name": "TEXT",
        "revision": "INTEGER",  # another one after each change of its subscriptions
        "created_at": "INTEGER",  # times are milliseconds since the epoch
    },
    key=("tenant",),
    adopted=False,
)
SUBSCRIPTION_ROWS = Table(
    "subscriptions",
    {
        "tenant": "TEXT NOT NULL",
        "id": "TEXT NOT NULL",
        "url": "TEXT",
        "events": "TEXT",  # a JSON list
        "condition": "TEXT",
        "headers": "TEXT",  # a JSON object
        "description": "TEXT",
        "rate": "TEXT",
        "version": "INTEGER",  # another one after each change of what stands above
        "key_id": "TEXT",  # of the key that its secret is derived from
        "salt": "TEXT",
        "previous_key_id": "TEXT",  # of the secret before, which signs as well
        "previous_salt": "TEXT",
        "previous_until": "INTEGER",
        "created_at": "INTEGER",
        "disabled_at": "INTEGER",  # from here on what the webhooks plugin's `Health` writes
        "disabled_reason": "TEXT",
        "last_status_code": "TEXT",
        "last_error": "TEXT",
        "last_attempt_at": "INTEGER",
        "last_success_at": "INTEGER",
        "failures": "INTEGER",
        "failing_since": "INTEGER",
        "failing_id": "INTEGER",
        "last_disabled_at": "INTEGER",
        "missed_deleted": "INTEGER",
    },
    key=("tenant", "id"),
    adopted=False,
)
CHANGES = Table(
    "subscription_changes",
    {"slot": "INTEGER NOT NULL", "revision": "INTEGER"},
    key=("slot",),
    adopted=False,
)
"""Counts the changes of tenants, each in the slot of its name: what daemons look at."""
REQUESTS = Table(
    "subscription_requests",
    {
        "tenant": "TEXT NOT NULL",
        "key": "TEXT NOT NULL",  # what Idempotency-Key said
        "digest": "TEXT",  # of the body
        "subscription": "TEXT",
        "at": "INTEGER NOT NULL",
    },
    key=("tenant", "key"),
    keep=86400,
)
LINKS = Table(
    "portal_links",
    {"nonce": "TEXT NOT NULL", "at": "INTEGER NOT NULL"},
    key=("nonce",),
    keep=3600,
)
"""The links to the portal that were exchanged."""
ROTATION_MS = 24 * 3_600_000
"""For how long the secret before a rotation signs as well."""
DISABLED_EVENT = "subscription.disabled"
"""What a subscription names to be told of the tenant's others; no pattern matches it."""


SLOTS = 256


def slot_of(tenant: str) -> int:
    """Where the changes of a tenant are counted."""
    return zlib.crc32(tenant.encode()) % SLOTS


def key_of(row: Mapping[str, Any]) -> dict[str, str]:
    """The key of a row."""
    return {"tenant": row["tenant"], "id": row["id"]}


def changed(tenant: str) -> Upsert:
    """What has every daemon read the subscriptions of a tenant again."""
    return Upsert(CHANGES.name, {"slot": slot_of(tenant)}, {}, add={"revision": 1})


class KeyGone(Exception):
    """No secret can be derived: the key that a row names is not in `subscriptions.key`."""


@dataclass(eq=False)
class Subscription:
    """What daemons know of one."""

    tenant: str
    id: str
    url: str
    events: tuple[str, ...]
    when: Expression | None
    headers: Mapping[str, str]
    rate: RateLimit | None
    version: int
    derived: tuple[tuple[str | None, str], ...]
    """Of its secrets the id of the key and the salt, newest first."""
    previous_until: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Subscription:
        """That of a row."""
        derived = [(row["key_id"], row["salt"])]
        if row["previous_salt"]:
            derived.append((row["previous_key_id"], row["previous_salt"]))
        return cls(
            row["tenant"],
            row["id"],
            row["url"],
            tuple(json.loads(row["events"] or "[]")),
            Expression.parse(row["condition"]) if row["condition"] else None,
            json.loads(row["headers"] or "{}"),
            RateLimit.parse(row["rate"]) if row["rate"] else None,
            row["version"],
            tuple(derived),
            row["previous_until"] or 0,
        )

    @property
    def name(self) -> str:
        """What its deliveries have as their webhook."""
        return f"{self.tenant}/{self.id}"

    def wants(self, endpoint_id: str, public: str) -> bool:
        """Whether it wants the events of an endpoint, which tenants know by its `public` name."""
        mine = self.events
        return not mine or any(
            pattern == public or fnmatchcase(endpoint_id, pattern) for pattern in mine
        )

    @cached_property
    def form(self) -> Form:
        """For all of its requests."""
        own = {name.lower(): value for name, value in self.headers.items()}
        common = {
            "user-agent": "orchestratord",
            "accept": "*/*",
            "content-type": "application/json",
        }
        return Form("POST", self.url, common | own)

    def secrets(self, settings: SubscriptionSettings) -> list[bytes]:
        """What it is signed with, newest first. Raises KeyGone."""
        found = []
        for number, (key_id, salt) in enumerate(self.derived):
            key = find_key(settings.key, key_id)
            if key is not None:
                found.append(key.secret(self.id, salt))
            elif not number:
                raise KeyGone(f"the key {key_id} that its secret is derived from is gone")
        return found
