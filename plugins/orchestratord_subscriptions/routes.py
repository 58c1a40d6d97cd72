"""The API of tenants and subscriptions, for tokens that may write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestratord import (
    Action,
    Answer,
    Caller,
    Conflict,
    InvalidParams,
    NotFound,
    Outdated,
    Route,
    UniqueKeyReused,
    described,
)
from orchestratord_subscriptions import subscription_documents as documents
from orchestratord_subscriptions.declaration import ENDPOINT
from orchestratord_subscriptions.tenant_service import (
    TenantService,
    etag_of,
    page_of,
    subscription_document,
)

Params = Mapping[str, str]

TENANT_PATH = "/v1/tenants/{tenant}"
SUBSCRIPTIONS_PATH = f"{TENANT_PATH}/subscriptions"
SUBSCRIPTION_PATH = f"{SUBSCRIPTIONS_PATH}/{{id}}"
_IF_MATCH = {"If-Match": "the ETag that was read; left out: whatever it is by now"}


class SubscriptionRoutes:
    """The handlers. Each takes path parameters, query parameters and the body."""

    def __init__(self, tenants: TenantService) -> None:
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
            Route("POST", f"{one}/test", self.test),
            Route("POST", f"{one}/replay", self.replay),
        )

    @described(query=documents.PageQuery, answers={200: documents.TenantPage}, problems=[Conflict])
    async def page(self, path: Params, query: Params, body: Any) -> Answer:
        """List tenants."""
        return Answer(await self._tenants.page(*page_of(query, documents.PageQuery)))

    @described(
        body=documents.TenantBody,
        answers={200: documents.TenantDocument, 201: documents.TenantDocument},
        problems=[Conflict, InvalidParams],
    )
    async def put(self, path: Params, query: Params, body: Any) -> Answer:
        """Make or rename a tenant."""
        tenant = path["tenant"]
        new, document = await self._tenants.put(tenant, documents.TenantBody.read(body))
        return Answer(document, 201 if new else 200, done=_done("put tenant", tenant))

    @described(answers={200: documents.TenantDocument}, problems=[Conflict, NotFound])
    async def get(self, path: Params, query: Params, body: Any) -> Answer:
        """Show a tenant with the health of its subscriptions."""
        return Answer(await self._tenants.get(path["tenant"]))

    @described(answers={200: documents.RemovedDocument}, problems=[Conflict, NotFound])
    async def remove(self, path: Params, query: Params, body: Any) -> Answer:
        """Remove a tenant with its subscriptions; waiting deliveries fail."""
        document = await self._tenants.remove(path["tenant"])
        return Answer(document, done=_done("remove tenant", path["tenant"]))

    @described(
        headers={"Idempotency-Key": "for 24 hours, the same key is the same subscription"},
        body=documents.NewSubscription,
        answers={200: documents.SubscriptionDocument, 201: documents.SubscriptionDocument},
        problems=[Conflict, NotFound, InvalidParams, UniqueKeyReused],
    )
    async def create(self, path: Params, query: Params, body: Any, caller: Caller) -> Answer:
        """Make a subscription; the answer has its secret."""
        asked = documents.NewSubscription.read(body)
        key = caller.headers.get("idempotency-key")
        new, document = await self._tenants.create(path["tenant"], asked, key)
        done = _done("create subscription", f"{path['tenant']}/{document['id']}") if new else None
        return Answer(document, 201 if new else 200, _NO_STORE, done=done)

    @described(
        query=documents.PageQuery,
        answers={200: documents.SubscriptionPage},
        problems=[Conflict, NotFound],
    )
    async def subscriptions(self, path: Params, query: Params, body: Any) -> Answer:
        """List the subscriptions of a tenant."""
        page = page_of(query, documents.PageQuery)
        return Answer(await self._tenants.subscriptions(path["tenant"], *page))

    @described(answers={200: documents.SubscriptionDocument}, problems=[Conflict, NotFound])
    async def subscription(self, path: Params, query: Params, body: Any) -> Answer:
        """Show a subscription with its health."""
        return _shown(await self._tenants.subscription(path["tenant"], path["id"]))

    @described(
        headers=_IF_MATCH,
        body=documents.PatchedSubscription,
        answers={200: documents.SubscriptionDocument},
        problems=[Conflict, NotFound, InvalidParams, Outdated],
    )
    async def patch(self, path: Params, query: Params, body: Any, caller: Caller) -> Answer:
        """Change the named fields of a subscription."""
        asked = documents.PatchedSubscription.read(body)
        etag = caller.headers.get("if-match")
        row = await self._tenants.patch(path["tenant"], path["id"], asked, etag)
        return _shown(row, _done("change subscription", _name(path)))

    @described(answers={200: documents.RemovedDocument}, problems=[Conflict, NotFound])
    async def delete(self, path: Params, query: Params, body: Any) -> Answer:
        """Remove a subscription; waiting deliveries fail."""
        document = await self._tenants.delete(path["tenant"], path["id"])
        return Answer(document, done=_done("remove subscription", _name(path)))

    @described(answers={200: documents.SecretDocument}, problems=[Conflict, NotFound])
    async def secret(self, path: Params, query: Params, body: Any) -> Answer:
        """Show the secret of a subscription; the action log notes it."""
        document = await self._tenants.secret(path["tenant"], path["id"])
        done = _done("show secret of subscription", _name(path))
        return Answer(document, headers=_NO_STORE, done=done)

    @described(answers={200: documents.SecretDocument}, problems=[Conflict, NotFound])
    async def rotate(self, path: Params, query: Params, body: Any) -> Answer:
        """Make a new secret; the old one also signs for 24 hours."""
        document = await self._tenants.rotate(path["tenant"], path["id"])
        done = _done("rotate secret of subscription", _name(path))
        return Answer(document, headers=_NO_STORE, done=done)

    @described(answers={202: documents.TestDocument}, problems=[Conflict, NotFound])
    async def test(self, path: Params, query: Params, body: Any) -> Answer:
        """Send an example delivery; at most ten a minute for a tenant."""
        task_id = await self._tenants.test(path["tenant"], path["id"])
        done = Action("test subscription", ENDPOINT, _name(path), task_id)
        return Answer({"id": task_id}, 202, done=done)

    @described(
        body=documents.ReplayBody,
        answers={202: documents.BegunReplay},
        problems=[Conflict, NotFound, InvalidParams],
    )
    async def replay(self, path: Params, query: Params, body: Any) -> Answer:
        """Send failed, or all, deliveries of a subscription again."""
        asked = documents.ReplayBody.read(body)
        begun = await self._tenants.replay(path["tenant"], path["id"], asked)
        done = Action("replay subscription", ENDPOINT, _name(path), bulk=begun["bulk"])
        return Answer(begun, 202, done=done)


_NO_STORE = {"Cache-Control": "no-store"}


def _name(path: Params) -> str:
    return f"{path['tenant']}/{path['id']}"


def _done(what: str, name: str) -> Action:
    return Action(what, ENDPOINT, name)


def _shown(row: Mapping[str, Any], done: Action | None = None) -> Answer:
    return Answer(subscription_document(row), headers={"ETag": etag_of(row)}, done=done)
