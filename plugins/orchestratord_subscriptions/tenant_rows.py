"""The rows of tenants and their subscriptions: read, and changed once and on disk.

All changes of a tenant go one after the other, in all daemons together: each expects the revision
of the tenant's row that it was made from, and is made again where that has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestratord import Conflict, Control, Effect, NotFound, Table, Upsert, world
from orchestratord_subscriptions.declaration import SUBSCRIPTIONS, SubscriptionSettings
from orchestratord_subscriptions.subscription import SUBSCRIPTION_ROWS, TENANTS, changed
from orchestratord_subscriptions.subscription_documents import PageQuery
from orchestratord_subscriptions.subscription_index import SubscriptionIndex

Row = Mapping[str, Any]
MOST_TRIES = 20
"""Of a change, while others change the same tenant."""


class TenantRows:
    """Those of this queue."""

    def __init__(self, index: SubscriptionIndex) -> None:
        self.index = index

    @property
    def control(self) -> Control:
        """The daemon."""
        return self.index.control

    @property
    def settings(self) -> SubscriptionSettings:
        """Raises Conflict where there are none."""
        settings = self.control.config[SUBSCRIPTIONS]
        if settings is None:
            raise Conflict(
                "there are no subscriptions: write `subscriptions:` to orchestratord.yaml"
            )
        return settings

    async def tenant(self, tenant: str) -> Row:
        """The row of a tenant. Raises NotFound, Conflict."""
        _ = self.settings
        for row in await self.control.rows(TENANTS.name, {"tenant": tenant}):
            return row
        raise NotFound(f"there is no tenant {tenant!r}")

    async def subscription(self, path: Mapping[str, str]) -> Row:
        """That of the subscription that a path names. Raises NotFound, Conflict."""
        _ = self.settings
        wanted = {"tenant": path["tenant"], "id": path["id"]}
        return find(await self.control.rows(SUBSCRIPTION_ROWS.name, wanted), path["id"])

    async def of(self, tenant: str) -> list[dict[str, Any]]:
        """Those of a tenant's subscriptions."""
        found = await self.control.rows(SUBSCRIPTION_ROWS.name, {"tenant": tenant})
        return [row for row in found if row["url"]]

    async def page(
        self, table: Table, where: Mapping[str, str], asked: PageQuery
    ) -> tuple[list[dict[str, Any]], str | None]:
        """A page of rows, and what the next one is behind; None where there is none."""
        last, limit = table.key[-1], asked.limit
        behind = {last: asked.after} if asked.after else {}
        found = await self.control.rows(table.name, where, after=behind, limit=limit + 1)
        return found[:limit], found[limit - 1][last] if len(found) > limit else None

    async def change(
        self,
        tenant: str,
        make: Callable[[Sequence[Row]], list[Effect]],
        *,
        must_be: bool = True,
        stays: bool = True,
    ) -> tuple[Row | None, Sequence[Row]]:
        """Write what `make` returns of a tenant's subscriptions, unless another change comes first.

        Args:
            tenant: whose.
            make: of the rows of the subscriptions; nothing is written for an empty list.
            must_be: whether the tenant has to be there.
            stays: whether it stays.

        Returns:
            The row of the tenant, None for a new one, and those of the subscriptions, as they were.

        Raises:
            NotFound, Conflict, and what `make` raises.
        """
        _ = self.settings
        key = {"tenant": tenant}
        for left in range(MOST_TRIES, 0, -1):
            there = await self.control.rows(TENANTS.name, key)
            if must_be and not there:
                raise NotFound(f"there is no tenant {tenant!r}")
            row = there[0] if there else None
            revision, rows = row["revision"] if row else None, await self.of(tenant)
            if not (effects := make(rows)):
                return row, rows
            if stays:
                made = {} if row else {"created_at": now_ms()}
                effects.append(Upsert(TENANTS.name, key, {"revision": later(revision), **made}))
            same = Upsert(TENANTS.name, key, {"revision": revision})
            try:
                await self.control.write([*effects, changed(tenant)], expected=[same])
            except Conflict:
                if left == 1:
                    raise
                continue
            await self.index.read(tenant)
            return row, rows
        raise AssertionError


def find(rows: Sequence[Row], id_: str) -> Row:
    """The subscription of this id. Raises NotFound."""
    for row in rows:
        if row["id"] == id_ and row["url"]:
            return row
    raise NotFound(f"there is no subscription {id_!r}")


def later(version: int | None) -> int:
    """A number after this one, which no row before had."""
    return max(now_ms(), (version or 0) + 1)


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return int(world.time() * 1000)
