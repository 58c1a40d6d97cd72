"""The API of tenants and subscriptions, for tokens that may write."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from orchestratord_webhooks import MANUALLY

from orchestratord import (
    Action,
    Answer,
    Caller,
    Conflict,
    Delete,
    Effect,
    InvalidParams,
    NotFound,
    Outdated,
    Route,
    UniqueKeyReused,
    Upsert,
    described,
    rfc3339,
    world,
)
from orchestratord_subscriptions import subscription_documents as documents
from orchestratord_subscriptions.declaration import ENDPOINT, SubscriptionSettings
from orchestratord_subscriptions.derived_secret import digest_of, shown
from orchestratord_subscriptions.subscription import (
    DAY_MS,
    SUBSCRIPTION_ROWS,
    TENANT_ID,
    TENANTS,
    KeyGone,
    Subscription,
    changed,
    for_tenant,
    key_of,
)
from orchestratord_subscriptions.tenant_rows import Row, TenantRows, find, later, now_ms
from orchestratord_subscriptions.tenant_verbs import (
    SUBSCRIPTION_PATH,
    SUBSCRIPTIONS_PATH,
    TENANT_PATH,
)

Params = Mapping[str, str]

_IF_MATCH = {"If-Match": "the ETag that was read; left out: whatever it is by now"}
_NO_STORE = {"Cache-Control": "no-store"}
_KEY = re.compile(r"[ -~]{1,200}")


class SubscriptionRoutes:
    """The handlers. Each takes path parameters, query parameters and the body."""

    def __init__(self, tenants: TenantRows) -> None:
        self._tenants = tenants

    def all(self) -> tuple[Route, ...]:
        """What the plugin registers."""
        tenant, many, one = TENANT_PATH, SUBSCRIPTIONS_PATH, SUBSCRIPTION_PATH
        return (
            Route("GET", "/v1/tenants", self.page, confidential=True),
            Route("PUT", tenant, self.put),
            Route("GET", tenant, self.get, confidential=True),
            Route("DELETE", tenant, self.remove),
            Route("POST", many, self.create, caller=True),
            Route("GET", many, self.subscriptions, confidential=True),
            Route("GET", one, self.subscription, confidential=True),
            Route("PATCH", one, self.patch, caller=True),
            Route("DELETE", one, self.delete),
            Route("GET", f"{one}/secret", self.secret, confidential=True),
            Route("POST", f"{one}/rotate", self.rotate),
        )

    # -- tenants -----------------------------------------------------------------------------------

    @described(query=documents.PageQuery, answers={200: documents.TenantPage}, problems=[Conflict])
    async def page(self, path: Params, query: Params, body: Any) -> Answer:
        """List tenants."""
        asked = documents.PageQuery.read(query)
        found, following = await self._tenants.page(TENANTS, {}, asked)
        return Answer({"tenants": [await self._shown(row) for row in found], "next": following})

    @described(
        body=documents.TenantBody,
        answers={200: documents.TenantDocument, 201: documents.TenantDocument},
        problems=[Conflict, InvalidParams],
    )
    async def put(self, path: Params, query: Params, body: Any) -> Answer:
        """Make or rename a tenant."""
        asked, tenant = documents.TenantBody.read(body), path["tenant"]
        if not TENANT_ID.fullmatch(tenant):
            expected = "up to 100 letters, digits, dots, hyphens and underscores"
            raise InvalidParams({"tenant": f"the id of a tenant has {expected}"})
        named: Effect = Upsert(TENANTS.name, {"tenant": tenant}, {"name": asked.name})
        before, _ = await self._tenants.change(tenant, lambda rows: [named], must_be=False)
        document = await self._shown(await self._tenants.tenant(tenant))
        return Answer(document, 200 if before else 201, done=_done("put tenant", path))

    @described(answers={200: documents.TenantDocument}, problems=[Conflict, NotFound])
    async def get(self, path: Params, query: Params, body: Any) -> Answer:
        """Show a tenant with the health of its subscriptions."""
        return Answer(await self._shown(await self._tenants.tenant(path["tenant"])))

    @described(answers={200: documents.RemovedDocument}, problems=[Conflict, NotFound])
    async def remove(self, path: Params, query: Params, body: Any) -> Answer:
        """Remove a tenant with its subscriptions; waiting deliveries fail."""

        def gone(rows: Sequence[Row]) -> list[Effect]:
            all_ = [Delete(SUBSCRIPTION_ROWS.name, key_of(one)) for one in rows]
            return [*all_, Delete(TENANTS.name, {"tenant": path["tenant"]})]

        waiting = await self._waiting(f"{path['tenant']}/*")
        _, rows = await self._tenants.change(path["tenant"], gone, stays=False)
        return _removed("remove tenant", path, len(rows), waiting)

    async def _shown(self, row: Row) -> documents.TenantDocument:
        mine = await self._tenants.of(row["tenant"])
        failing = [one["failing_since"] for one in mine if one["failing_since"] is not None]
        return {
            "tenant": row["tenant"],
            "name": row["name"],
            "created_at": rfc3339(row["created_at"]),
            "subscriptions": len(mine),
            "failing": len(failing),
            "disabled": sum(one["disabled_at"] is not None for one in mine),
            "failing_since": rfc3339(min(failing, default=None)),
        }

    async def _waiting(self, webhook: str) -> int:
        wanted = {**tasks_of(webhook), "status": "pending"}
        found = await self._tenants.control.grouped(wanted, by=("status",))
        return sum(group["tasks"] for group in found["groups"])

    # -- subscriptions -----------------------------------------------------------------------------

    @described(
        headers={"Idempotency-Key": "for 24 hours, the same key is the same subscription"},
        body=documents.NewSubscription,
        answers={200: documents.SubscriptionDocument, 201: documents.SubscriptionDocument},
        problems=[Conflict, NotFound, InvalidParams, UniqueKeyReused],
    )
    async def create(self, path: Params, query: Params, body: Any, caller: Caller) -> Answer:
        """Make a subscription; the answer has its secret."""
        asked, settings = documents.NewSubscription.read(body), self._tenants.settings
        key = caller.headers.get("idempotency-key")
        if key is not None and not _KEY.fullmatch(key):
            raise InvalidParams({"Idempotency-Key": "has up to 200 printable characters"})
        _check_address(asked, settings)
        digest = digest_of(asked.model_dump_json(exclude_defaults=True))
        id_, now = f"sub_{world.token_hex(10)}", now_ms()

        def made(rows: Sequence[Row]) -> list[Effect]:
            if _made_by(key, digest, rows) is not None:
                return []
            if len(rows) >= (most := settings.max_per_tenant):
                raise Conflict(f"{path['tenant']} has {most} subscriptions, and may have no more")
            values = {
                **_columns(asked),
                **_new_secret(settings),
                "request_key": key,
                "request_digest": digest,
                "version": now,
                "created_at": now,
                "failures": 0,
                **({} if asked.enabled else {"disabled_at": now, "disabled_reason": MANUALLY}),
            }
            place = {"tenant": path["tenant"], "id": id_}
            return [Upsert(SUBSCRIPTION_ROWS.name, place, values)]

        _, rows = await self._tenants.change(path["tenant"], made)
        known = _made_by(key, digest, rows)
        row = known or await self._tenants.subscription({**path, "id": id_})
        document = {**subscription_document(row), "secret": self._secret(row)}
        done = None if known else _done("create subscription", {**path, "id": id_})
        return Answer(document, 200 if known else 201, _NO_STORE, done=done)

    @described(
        query=documents.PageQuery,
        answers={200: documents.SubscriptionPage},
        problems=[Conflict, NotFound],
    )
    async def subscriptions(self, path: Params, query: Params, body: Any) -> Answer:
        """List the subscriptions of a tenant."""
        asked, tenant = documents.PageQuery.read(query), await self._tenants.tenant(path["tenant"])
        of_one = {"tenant": tenant["tenant"]}
        found, following = await self._tenants.page(SUBSCRIPTION_ROWS, of_one, asked)
        shown_ = [subscription_document(row) for row in found if row["url"]]
        return Answer({"subscriptions": shown_, "next": following})

    @described(answers={200: documents.SubscriptionDocument}, problems=[Conflict, NotFound])
    async def subscription(self, path: Params, query: Params, body: Any) -> Answer:
        """Show a subscription with its health."""
        return _with_etag(await self._tenants.subscription(path))

    @described(
        headers=_IF_MATCH,
        body=documents.PatchedSubscription,
        answers={200: documents.SubscriptionDocument},
        problems=[Conflict, NotFound, InvalidParams, Outdated],
    )
    async def patch(self, path: Params, query: Params, body: Any, caller: Caller) -> Answer:
        """Change the named fields of a subscription."""
        asked, etag = documents.PatchedSubscription.read(body), caller.headers.get("if-match")
        if "url" in asked.model_fields_set:
            _check_address(asked, self._tenants.settings)

        def values(row: Row) -> Mapping[str, Any]:
            if etag is not None and etag != _etag_of(row):
                raise Outdated("the subscription has changed since it was read")
            return _columns(asked, asked.model_fields_set)

        before = await self._change(path, values)
        name, health = (ENDPOINT, name_of(path)), self._tenants.index.health
        if "enabled" in asked.model_fields_set and asked.enabled != (before["disabled_at"] is None):
            if asked.enabled:
                await health.enable(name, self._tenants.control)
                await self._tenants.control.write([changed(path["tenant"])])
            else:
                await health.disable(name, self._tenants.control)
            await self._tenants.index.read(path["tenant"])
        now = await self._tenants.subscription(path)
        return _with_etag(now, _done("change subscription", path))

    async def _change(self, path: Params, values: Callable[[Row], Mapping[str, Any]]) -> Row:
        """Change columns of a subscription, by its row as it is; that row."""

        def make(rows: Sequence[Row]) -> list[Effect]:
            row = find(rows, path["id"])
            new = {**values(row), "version": later(row["version"])}
            return [Upsert(SUBSCRIPTION_ROWS.name, key_of(row), new)]

        _, rows = await self._tenants.change(path["tenant"], make)
        return find(rows, path["id"])

    @described(answers={200: documents.RemovedDocument}, problems=[Conflict, NotFound])
    async def delete(self, path: Params, query: Params, body: Any) -> Answer:
        """Remove a subscription; waiting deliveries fail."""

        def gone(rows: Sequence[Row]) -> list[Effect]:
            return [Delete(SUBSCRIPTION_ROWS.name, key_of(find(rows, path["id"])))]

        waiting = await self._waiting(name_of(path))
        await self._tenants.change(path["tenant"], gone)
        return _removed("remove subscription", path, 1, waiting)

    # -- secrets -----------------------------------------------------------------------------------

    @described(answers={200: documents.SecretDocument}, problems=[Conflict, NotFound])
    async def secret(self, path: Params, query: Params, body: Any) -> Answer:
        """Show the secret of a subscription; the action log notes it."""
        return await self._shown_secret("show secret of subscription", path)

    @described(answers={200: documents.SecretDocument}, problems=[Conflict, NotFound])
    async def rotate(self, path: Params, query: Params, body: Any) -> Answer:
        """Make a new secret; the old one also signs for 24 hours."""
        settings = self._tenants.settings

        def values(row: Row) -> Mapping[str, Any]:
            return {
                **_new_secret(settings),
                "previous_key_id": row["key_id"],
                "previous_salt": row["salt"],
                "previous_until": now_ms() + DAY_MS,
            }

        await self._change(path, values)
        return await self._shown_secret("rotate secret of subscription", path)

    async def _shown_secret(self, what: str, path: Params) -> Answer:
        row = await self._tenants.subscription(path)
        until = row["previous_until"] if (row["previous_until"] or 0) > now_ms() else None
        document = {"id": row["id"], "secret": self._secret(row), "previous_until": rfc3339(until)}
        return Answer(document, headers=_NO_STORE, done=_done(what, path))

    def _secret(self, row: Row) -> str:
        try:
            return shown(Subscription(row).secrets(self._tenants.settings)[0])
        except KeyGone as gone:
            raise Conflict(f"{gone}; rotate the secret") from None


def tasks_of(webhook: str) -> dict[str, str]:
    """The filter of the deliveries to TENANT/ID, or to TENANT/*."""
    return {"endpoint": ENDPOINT, "webhook": webhook}


def name_of(path: Params) -> str:
    """What the deliveries to a subscription have as their webhook: TENANT/ID."""
    return f"{path['tenant']}/{path['id']}"


def subscription_document(row: Row) -> documents.SubscriptionDocument:
    """A row, as it is shown."""
    times = ("_at", "_since")
    found = {name: rfc3339(row[name]) if name.endswith(times) else row[name] for name in row}
    found |= {
        "events": json.loads(row["events"] or "[]"),
        "when": row["condition"],
        "headers": json.loads(row["headers"] or "{}"),
        "enabled": row["disabled_at"] is None,
        "last_error": for_tenant(row["last_error"]),
        "failures": row["failures"] or 0,
        "missed_deleted": row["missed_deleted"] or 0,
        "too_costly": row["too_costly"] or 0,
    }
    names = documents.SubscriptionDocument.__annotations__
    return cast("documents.SubscriptionDocument", {n: found[n] for n in names if n in found})


def _check_address(asked: documents.PatchedSubscription, settings: SubscriptionSettings) -> None:
    if (problem := settings.address_problem(asked.url)) is not None:
        raise InvalidParams({"url": problem})


def _made_by(key: str | None, digest: str, rows: Sequence[Row]) -> Row | None:
    """The subscription that the same request has made. Raises UniqueKeyReused for another one."""
    for row in rows if key else ():
        if row["request_key"] == key and now_ms() - row["created_at"] < DAY_MS:
            if row["request_digest"] != digest:
                raise UniqueKeyReused("the Idempotency-Key was used with another body")
            return row
    return None


def _columns(asked: documents.PatchedSubscription, names: Any = None) -> dict[str, Any]:
    """The columns of all keys of a body, or of those that are named."""
    written = asked.model_dump(mode="json", include=names, exclude={"enabled"})
    for name in written.keys() & {"events", "headers"}:
        written[name] = json.dumps(written[name])
    return {"condition" if name == "when" else name: value for name, value in written.items()}


def _new_secret(settings: SubscriptionSettings) -> dict[str, Any]:
    return {"key_id": settings.key[0].id, "salt": world.token_hex(16)}


def _done(what: str, path: Params) -> Action:
    return Action(what, ENDPOINT, name_of(path) if "id" in path else path["tenant"])


def _removed(what: str, path: Params, subscriptions: int, tasks: int) -> Answer:
    document = {"tenant": path["tenant"], "subscriptions": subscriptions, "tasks": tasks}
    return Answer(document, done=_done(what, path))


def _etag_of(row: Row) -> str:
    """Another one after each change of a subscription."""
    return f'"{row["version"]}"'


def _with_etag(row: Row, done: Action | None = None) -> Answer:
    return Answer(subscription_document(row), headers={"ETag": _etag_of(row)}, done=done)
