"""A subscription of a tenant: its row, its limits, and which events it wants."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from orchestratord import Expression, Form, RateLimit, Table, Upsert
from orchestratord_subscriptions.declaration import SubscriptionSettings

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
        "request_key": "TEXT",  # what Idempotency-Key said as it was made
        "request_digest": "TEXT",  # of the body of that request
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
        "too_costly": "INTEGER",  # events in a row for which its condition took too many steps
    },
    key=("tenant", "id"),
    version=3,
    adopted=False,
)
CHANGES = Table(
    "subscription_changes",
    {"slot": "INTEGER NOT NULL", "revision": "INTEGER"},
    key=("slot",),
    adopted=False,
)
"""Counts the changes of tenants, each in the slot of its name: what daemons look at."""
LINKS = Table(
    "portal_links",
    {"nonce": "TEXT NOT NULL", "at": "INTEGER NOT NULL"},
    key=("nonce",),
    keep=3600,
)
"""The links to the portal that were exchanged."""
DAY_MS = 24 * 3_600_000
"""For how long the secret before a rotation signs as well, and a request is known again."""
TENANT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
DISABLED_EVENT = "subscription.disabled"
"""What a subscription names to be told of the tenant's others; no pattern matches it."""


MOST_WHEN = 512
"""Bytes of a `when`; older ones may have more, and are held to the steps alone."""
MOST_STEPS = 5_000
"""What it may cost to evaluate one, by the `Budget` of expressions."""
SLOTS = 256


def slot_of(tenant: str) -> int:
    """Where the changes of a tenant are counted."""
    return zlib.crc32(tenant.encode()) % SLOTS


def key_of(row: Mapping[str, Any]) -> dict[str, str]:
    """The key of a row."""
    return {"tenant": row["tenant"], "id": row["id"]}


def for_tenant(error: str | None) -> str | None:
    """An error without what is the operator's: addresses of the network, and commands."""
    if error is not None and ("{allow: [" in error or "own listener" in error):
        return "its host leads to an address that is not public"
    return error and error.partition("; to ")[0]


def changed(tenant: str) -> Upsert:
    """What has every daemon read the subscriptions of a tenant again."""
    return Upsert(CHANGES.name, {"slot": slot_of(tenant)}, {}, add={"revision": 1})


class KeyGone(Exception):
    """No secret can be derived: the key that a row names is not in `subscriptions.key`."""


class Subscription:
    """What daemons know of one, by its row."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.key = key_of(row)
        self.tenant: str = row["tenant"]
        self.id: str = row["id"]
        self.url: str = row["url"]
        self.version: int = row["version"]
        self.events: list[str] = json.loads(row["events"] or "[]")
        self.headers: dict[str, str] = json.loads(row["headers"] or "{}")
        self.condition: str | None = row["condition"] or None
        self.rate = RateLimit.parse(row["rate"]) if row["rate"] else None
        self.derived: list[tuple[str, str]] = [(row["key_id"], row["salt"])]
        """Of its secrets the id of the key and the salt, newest first."""
        if row["previous_salt"]:
            self.derived.append((row["previous_key_id"], row["previous_salt"]))
        self.previous_until: int = row["previous_until"] or 0
        self.too_costly: bool = bool(row["too_costly"])

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
    def when(self) -> Expression:
        """What its condition says: to be read beside the loop. Raises ValueError."""
        return Expression.parse(self.condition)

    @property
    def is_quick(self) -> bool:
        """Whether its `when` may be evaluated on the loop: it is read, and did not cost much."""
        return "when" in self.__dict__ and not self.too_costly

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
        found, keys = [], {key.id: key for key in settings.key}
        for number, (key_id, salt) in enumerate(self.derived):
            if (key := keys.get(key_id)) is not None:
                found.append(key.secret(self.id, salt))
            elif not number:
                raise KeyGone(f"the key {key_id} that its secret is derived from is gone")
        return found
