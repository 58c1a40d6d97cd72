"""What can be done with tenants and their subscriptions, each change once and on disk.

All changes of a tenant go one after the other, in all daemons together: each expects the revision
of the tenant's row that it was made from, and is made again where that has changed.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from orchestratord_webhooks import MANUALLY, WEBHOOKS, time_text

from orchestratord import (
    Config,
    Conflict,
    Control,
    Delete,
    Effect,
    InvalidParams,
    NotFound,
    Outdated,
    Table,
    UniqueKeyReused,
    Upsert,
    world,
)
from orchestratord_subscriptions import subscription_documents as documents
from orchestratord_subscriptions.declaration import (
    ENDPOINT,
    PUBLIC,
    SUBSCRIPTIONS,
    SubscriptionSettings,
)
from orchestratord_subscriptions.derived_secret import digest_of, shown
from orchestratord_subscriptions.subscription import (
    REQUESTS,
    ROTATION_MS,
    SUBSCRIPTION_ROWS,
    TENANTS,
    KeyGone,
    Subscription,
    changed,
    key_of,
)
from orchestratord_subscriptions.subscription_index import SubscriptionIndex, example_delivery

MOST = 1000
"""Items of a page."""
T = TypeVar("T")
Row = Mapping[str, Any]

MOST_TRIES = 20
"""Of a change, while others change the same tenant."""
MOST_TESTS, TESTS_SECONDS = 10, 60.0
"""How many tests a tenant may have sent within this time, by each worker."""
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_KEY = re.compile(r"[ -~]{1,200}")


class TenantService:
    """The tenants of this queue."""

    def __init__(self, control: Control, index: SubscriptionIndex) -> None:
        self._control = control
        self._index = index
        self._tests: dict[str, deque[float]] = {}

    @property
    def settings(self) -> SubscriptionSettings:
        """Raises Conflict where there are none."""
        settings = self._control.config[SUBSCRIPTIONS]
        if settings is None:
            raise Conflict(
                "there are no subscriptions: write `subscriptions:` to orchestratord.yaml"
            )
        return settings

    # -- tenants -----------------------------------------------------------------------------------

    async def put(self, tenant: str, body: documents.TenantBody) -> tuple[bool, Row]:
        """Make a tenant, or rename it; whether it is new."""
        _ = self.settings
        if not _TENANT.fullmatch(tenant):
            expected = "up to 100 letters, digits, dots, hyphens and underscores"
            raise InvalidParams({"tenant": f"the id of a tenant has {expected}"})

        def make(row: Row | None, rows: Sequence[Row]) -> tuple[list[Effect], bool]:
            values: dict[str, Any] = {"name": body.name}
            if row is None:
                values |= {"created_at": _now()}
            return [Upsert(TENANTS.name, {"tenant": tenant}, values)], row is None

        new = await self._change(tenant, make, must_be=False)
        return new, await self.get(tenant)

    async def get(self, tenant: str) -> Row:
        """One tenant. Raises NotFound."""
        return (await self._documents([await self._row(tenant)]))[0]

    async def page(self, after: str, limit: int) -> documents.TenantPage:
        """A page of them, in the order of their ids."""
        found, following = await self._page(TENANTS, {}, after, limit)
        return {"tenants": await self._documents(found), "next": following}

    async def _documents(self, rows: Sequence[Row]) -> list[documents.TenantDocument]:
        made: list[documents.TenantDocument] = []
        for row in rows:
            mine = await self._rows(row["tenant"])
            failing = [one["failing_since"] for one in mine if one["failing_since"] is not None]
            made.append(
                {
                    "tenant": row["tenant"],
                    "name": row["name"],
                    "created_at": _time(row["created_at"]),
                    "subscriptions": len(mine),
                    "failing": len(failing),
                    "disabled": sum(one["disabled_at"] is not None for one in mine),
                    "failing_since": _time(min(failing, default=None)),
                }
            )
        return made

    async def remove(self, tenant: str) -> documents.RemovedDocument:
        """Remove a tenant; its tasks end as `webhook_removed`. Raises NotFound."""

        def make(row: Row | None, rows: Sequence[Row]) -> tuple[list[Effect], int]:
            gone = [Delete(SUBSCRIPTION_ROWS.name, key_of(one)) for one in rows]
            return [*gone, Delete(TENANTS.name, {"tenant": tenant})], len(rows)

        waiting = await self._waiting(f"{tenant}/*")
        removed = await self._change(tenant, make, stays=False)
        return {"tenant": tenant, "subscriptions": removed, "tasks": waiting}

    async def _waiting(self, webhook: str) -> int:
        wanted = {**tasks_of(webhook), "status": "pending"}
        found = await self._control.grouped(wanted, by=("status",))
        return sum(group["tasks"] for group in found["groups"])

    # -- subscriptions -----------------------------------------------------------------------------

    async def create(
        self, tenant: str, body: documents.NewSubscription, key: str | None = None
    ) -> tuple[bool, documents.SubscriptionDocument]:
        """Make a subscription; whether it is new, and the document with its secret.

        Args:
            tenant: whose.
            body: what it is to be.
            key: an idempotency key: the same one within 24 hours is the same subscription.

        Raises:
            NotFound: there is no such tenant.
            Conflict: it has as many as it may.
            UniqueKeyReused: the key came with another body.
            InvalidParams.
        """
        settings = self.settings
        if key is not None and not _KEY.fullmatch(key):
            raise InvalidParams({"Idempotency-Key": "has up to 200 printable characters"})
        self._check(body, settings)
        digest = digest_of(body.model_dump_json(exclude_defaults=True))
        asked = {"tenant": tenant, "key": key or ""}
        known = await self._control.rows(REQUESTS.name, asked) if key else []
        if known:
            if known[0]["digest"] != digest:
                raise UniqueKeyReused("the Idempotency-Key was used with another body")
            row = await self.subscription(tenant, known[0]["subscription"])
            return False, self._with_secret(row)
        id_, now = f"sub_{world.token_hex(10)}", _now()

        def make(row: Row | None, rows: Sequence[Row]) -> tuple[list[Effect], None]:
            if len(rows) >= settings.max_per_tenant:
                most = settings.max_per_tenant
                raise Conflict(f"{tenant} has {most} subscriptions, and may have no more")
            values = {
                **_columns(body, type(body).model_fields),
                **_new_secret(settings),
                "version": now,
                "created_at": now,
                "failures": 0,
                **({} if body.enabled else {"disabled_at": now, "disabled_reason": MANUALLY}),
            }
            place = {"tenant": tenant, "id": id_}
            made: list[Effect] = [Upsert(SUBSCRIPTION_ROWS.name, place, values)]
            if key:
                request = {"digest": digest, "subscription": id_, "at": now}
                made.append(Upsert(REQUESTS.name, asked, request))
            return made, None

        expected = [Upsert(REQUESTS.name, asked, {"digest": None})] if key else []
        try:
            await self._change(tenant, make, expected)
        except Conflict:
            if key and await self._control.rows(REQUESTS.name, asked):
                return await self.create(tenant, body, key)
            raise
        return True, self._with_secret(await self.subscription(tenant, id_))

    def _check(self, body: documents.PatchedSubscription, settings: SubscriptionSettings) -> None:
        problem = settings.address_problem(body.url)
        if problem is not None:
            raise InvalidParams({"url": problem})

    def _with_secret(self, row: Row) -> documents.SubscriptionDocument:
        document = subscription_document(row)
        document["secret"] = self._secret(row)
        return document

    def _secret(self, row: Row) -> str:
        try:
            return shown(Subscription.of(row).secrets(self.settings)[0])
        except KeyGone as gone:
            raise Conflict(f"{gone}; rotate the secret") from None

    async def subscription(self, tenant: str, id_: str) -> Row:
        """The row of one. Raises NotFound."""
        _ = self.settings
        found = await self._control.rows(SUBSCRIPTION_ROWS.name, {"tenant": tenant, "id": id_})
        return _find(found, id_)

    async def subscriptions(
        self, tenant: str, after: str, limit: int
    ) -> documents.SubscriptionPage:
        """A page of a tenant's. Raises NotFound."""
        await self._row(tenant)
        found, following = await self._page(SUBSCRIPTION_ROWS, {"tenant": tenant}, after, limit)
        shown_ = [subscription_document(row) for row in found if row["url"]]
        return {"subscriptions": shown_, "next": following}

    async def patch(
        self,
        tenant: str,
        id_: str,
        body: documents.PatchedSubscription,
        etag: str | None = None,
    ) -> Row:
        """Change what `body` names; the row. Raises NotFound, InvalidParams, and Outdated where
        `etag` is not that of the row."""
        given = body.model_fields_set
        if "url" in given:
            self._check(body, self.settings)

        def make(row: Row | None, rows: Sequence[Row]) -> tuple[list[Effect], Row]:
            found = _find(rows, id_)
            if etag is not None and etag != etag_of(found):
                raise Outdated("the subscription has changed since it was read")
            values = {**_columns(body, given), "version": _later(found["version"])}
            return [Upsert(SUBSCRIPTION_ROWS.name, key_of(found), values)], found

        found = await self._change(tenant, make)
        name, health = (ENDPOINT, f"{tenant}/{id_}"), self._index.health
        if "enabled" in given and body.enabled != (found["disabled_at"] is None):
            if body.enabled:
                await health.enable(name, self._control)
                await self._control.write([changed(tenant)])
            else:
                await health.disable(name, self._control)
            await self._index.read(tenant)
        return await self.subscription(tenant, id_)

    async def delete(self, tenant: str, id_: str) -> documents.RemovedDocument:
        """Remove one; its tasks end as `webhook_removed`. Raises NotFound."""

        def make(row: Row | None, rows: Sequence[Row]) -> tuple[list[Effect], None]:
            return [Delete(SUBSCRIPTION_ROWS.name, key_of(_find(rows, id_)))], None

        waiting = await self._waiting(f"{tenant}/{id_}")
        await self._change(tenant, make)
        return {"tenant": tenant, "subscriptions": 1, "tasks": waiting}

    async def secret(self, tenant: str, id_: str) -> documents.SecretDocument:
        """Its secret. Raises NotFound, and Conflict where its key is gone."""
        row = await self.subscription(tenant, id_)
        rotating = (row["previous_until"] or 0) > _now()
        until = _time(row["previous_until"]) if rotating else None
        return {"id": id_, "secret": self._secret(row), "previous_until": until}

    async def rotate(self, tenant: str, id_: str) -> documents.SecretDocument:
        """Give it another secret; the one before signs as well for a day. Raises NotFound."""
        settings = self.settings

        def make(row: Row | None, rows: Sequence[Row]) -> tuple[list[Effect], None]:
            found = _find(rows, id_)
            values = {
                **_new_secret(settings),
                "previous_key_id": found["key_id"],
                "previous_salt": found["salt"],
                "previous_until": _now() + ROTATION_MS,
                "version": _later(found["version"]),
            }
            return [Upsert(SUBSCRIPTION_ROWS.name, key_of(found), values)], None

        await self._change(tenant, make)
        return await self.secret(tenant, id_)

    # -- deliveries --------------------------------------------------------------------------------

    async def test(self, tenant: str, id_: str) -> int:
        """Send an example; its task. Raises NotFound, and Conflict for too many in a minute."""
        row, now = await self.subscription(tenant, id_), world.monotonic()
        sent = self._tests.setdefault(tenant, deque(maxlen=MOST_TESTS))
        if len(sent) == MOST_TESTS and now - sent[0] < TESTS_SECONDS:
            raise Conflict(f"{tenant} has had {MOST_TESTS} tests within a minute; try again later")
        if row["disabled_at"] is not None:
            raise Conflict("the subscription is disabled: nothing is delivered to it")
        sent.append(now)
        payload = {"type": "test", "timestamp": time_text(world.time()), "data": {"test": True}}
        (task_id,) = await self._control.write([example_delivery(Subscription.of(row), payload)])
        return task_id

    async def replay(self, tenant: str, id_: str, body: documents.ReplayBody) -> Mapping[str, Any]:
        """Send deliveries again: the answer of `POST /v1/retries/trigger`. Raises NotFound."""
        await self.subscription(tenant, id_)
        status = ["failed"] if body.only_failed else ["failed", "succeeded"]
        wanted = {**tasks_of(f"{tenant}/{id_}"), "status": status, "since": body.since}
        return await self._control.retry_all(wanted, force=not body.only_failed)

    # -- within ------------------------------------------------------------------------------------

    async def _change(
        self,
        tenant: str,
        make: Callable[[Row | None, Sequence[Row]], tuple[list[Effect], T]],
        expected: Sequence[Upsert] = (),
        *,
        must_be: bool = True,
        stays: bool = True,
    ) -> T:
        """Write what `make` returns of the rows of a tenant, unless another change comes first."""
        key = {"tenant": tenant}
        for left in range(MOST_TRIES, 0, -1):
            there = await self._control.rows(TENANTS.name, key)
            if must_be and not there:
                raise NotFound(f"there is no tenant {tenant!r}")
            row = there[0] if there else None
            revision = row["revision"] if row else None
            effects, result = make(row, await self._rows(tenant))
            if stays:
                following = {"revision": _later(revision)}
                effects.append(Upsert(TENANTS.name, key, following))
            same = Upsert(TENANTS.name, key, {"revision": revision})
            try:
                await self._control.write([*effects, changed(tenant)], expected=[same, *expected])
            except Conflict:
                now = await self._control.rows(TENANTS.name, key)
                if left == 1 or (now[0]["revision"] if now else None) == revision:
                    raise
                continue
            await self._index.read(tenant)
            return result
        raise AssertionError

    async def _page(
        self, table: Table, where: Mapping[str, str], after: str, limit: int
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Rows behind one, and what the next page is behind; None where there is none."""
        last = table.key[-1]
        behind = {last: after} if after else {}
        found = await self._control.rows(table.name, where, after=behind, limit=limit + 1)
        return found[:limit], found[limit - 1][last] if len(found) > limit else None

    async def _row(self, tenant: str) -> Row:
        _ = self.settings
        found = await self._control.rows(TENANTS.name, {"tenant": tenant})
        if not found:
            raise NotFound(f"there is no tenant {tenant!r}")
        return found[0]

    async def _rows(self, tenant: str) -> list[dict[str, Any]]:
        found = await self._control.rows(SUBSCRIPTION_ROWS.name, {"tenant": tenant})
        return [row for row in found if row["url"]]


def public_events(config: Config) -> list[dict[str, str]]:
    """The events that tenants may choose: what they call each, and what it says."""
    found = {}
    for endpoint in config.endpoints.values():
        if any(webhook.subscribers is not None for webhook in endpoint[WEBHOOKS]):
            public = endpoint[PUBLIC]
            name = endpoint.id if public is None else public.name
            found[name] = "" if public is None else public.description
    return [{"name": name, "description": found[name]} for name in sorted(found)]


def subscription_document(row: Row) -> documents.SubscriptionDocument:
    """A row, as it is shown."""
    return {
        "id": row["id"],
        "tenant": row["tenant"],
        "url": row["url"],
        "events": json.loads(row["events"] or "[]"),
        "when": row["condition"],
        "headers": json.loads(row["headers"] or "{}"),
        "description": row["description"],
        "rate": row["rate"],
        "enabled": row["disabled_at"] is None,
        "disabled_at": _time(row["disabled_at"]),
        "disabled_reason": row["disabled_reason"],
        "last_status_code": row["last_status_code"],
        "last_error": documents.for_tenant(row["last_error"]),
        "last_attempt_at": _time(row["last_attempt_at"]),
        "last_success_at": _time(row["last_success_at"]),
        "failures": row["failures"] or 0,
        "failing_since": _time(row["failing_since"]),
        "created_at": _time(row["created_at"]) or "",
    }


def tasks_of(webhook: str) -> dict[str, str]:
    """The filter of the deliveries to TENANT/ID, or to TENANT/*."""
    return {"endpoint": ENDPOINT, "webhook": webhook}


def etag_of(row: Row) -> str:
    """Another one after each change of a subscription."""
    return f'"{row["version"]}"'


def page_of(query: Mapping[str, str], understood: type) -> tuple[str, int]:
    """`after` and `limit` of a query. Raises InvalidParams."""
    wrong = {
        name: "there is no such parameter"
        for name in query
        if name not in understood.__annotations__
    }
    limit = query.get("limit") or "100"
    if not (limit.isascii() and limit.isdecimal() and 1 <= int(limit[:9]) <= MOST):
        wrong["limit"] = f"must be a whole number from 1 to {MOST}"
    if wrong:
        raise InvalidParams(wrong)
    return query.get("after", ""), int(limit)


def _columns(body: documents.PatchedSubscription, names: Any) -> dict[str, Any]:
    """The columns of those keys of a body that are named."""
    written = {
        "url": body.url,
        "events": json.dumps(body.events),
        "when": None if body.when is None else body.when.written(),
        "headers": json.dumps(body.headers),
        "description": body.description,
        "rate": None if body.rate is None else body.rate.written(),
    }
    columns = {"when": "condition"}
    return {columns.get(name, name): written[name] for name in written if name in names}


def _new_secret(settings: SubscriptionSettings) -> dict[str, Any]:
    return {"key_id": settings.key[0].id, "salt": world.token_hex(16)}


def _find(rows: Sequence[Row], id_: str) -> Row:
    for row in rows:
        if row["id"] == id_ and row["url"]:
            return row
    raise NotFound(f"there is no subscription {id_!r}")


def _later(version: int | None) -> int:
    """A number after this one, which no row before had."""
    return max(_now(), (version or 0) + 1)


def _now() -> int:
    return int(world.time() * 1000)


def _time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else time_text(milliseconds / 1000)
