"""How many subscriptions have a secret of an older key, or of one that is gone: for `doctor`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orchestratord import Config, Control, Need, world
from orchestratord_subscriptions.declaration import SUBSCRIPTIONS
from orchestratord_subscriptions.subscription import SUBSCRIPTION_ROWS

EVERY = 60.0
"""Seconds, at least, until they are counted again, unless the configuration changes."""
MOST = 10_000
"""That are counted of a key."""


class KeyCensus:
    """What this process has counted last, for it may be the one that is asked; None where there is
    nothing to count."""

    def __init__(self) -> None:
        self.counts: dict[str, Any] | None = None
        self._counted: tuple[Config, Any] | None = None
        """Of which configuration and state of the subscriptions."""
        self._due = 0.0

    async def look(self, control: Control, state: Any) -> None:
        """Count, if the configuration or the `state` of the subscriptions has changed."""
        config, counted = control.config, self._counted
        if (
            counted is None
            or counted[0] is not config
            or (counted[1] != state and world.monotonic() >= self._due)
        ):
            self.counts = await self._count(control)
            self._counted, self._due = (config, state), world.monotonic() + EVERY

    async def _count(self, control: Control) -> dict[str, Any] | None:
        if (settings := control.config[SUBSCRIPTIONS]) is None:
            return None
        known = [key.id for key in settings.key]
        counts: dict[str, Any] = {"older_keys": 0, "keys_gone": 0, "first": None}
        key, table = "", SUBSCRIPTION_ROWS.name
        # One row of each key, in the order of keys: no statement has to group them.
        while rows := await control.rows(table, after={"key_id": key}, order="key_id", limit=1):
            key = rows[0]["key_id"]
            if key != known[0]:
                found = await control.rows(table, {"key_id": key}, limit=MOST)
                counts["older_keys" if key in known else "keys_gone"] += len(found)
                if key not in known or counts["first"] is None:
                    counts["first"] = f"{found[0]['tenant']}/{found[0]['id']}"
        return counts


def look(config: Config, status: Mapping[str, Any] | None) -> Iterable[Need]:
    """What `doctor` says of the keys, by what the daemon has counted."""
    counts = (status or {}).get(SUBSCRIPTIONS.key)
    if config[SUBSCRIPTIONS] is None or not counts:
        return
    first = f"the first is {counts['first']}"
    if gone := counts["keys_gone"]:
        yield Need(
            "",
            f"deliveries to {gone:,} subscriptions wait: the key of their secrets is gone; {first}",
            "put the key back into subscriptions.key, or rotate their secrets",
        )
    if older := counts["older_keys"]:
        yield Need(
            "",
            f"{older:,} subscriptions have secrets of an older key; {first}",
            "rotate their secrets, then take the older key out of subscriptions.key",
            severity="warning",
        )
    if not gone and not older:
        yield Need("all secrets are derived from the first key")
