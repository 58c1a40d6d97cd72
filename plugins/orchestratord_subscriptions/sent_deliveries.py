"""What a tenant sees of the deliveries to its subscriptions; trying one out, sending them again."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, cast

from orchestratord_webhooks import time_text
from typing_extensions import TypedDict

from orchestratord import Action, Answer, Conflict, InvalidParams, NotFound, described, world
from orchestratord_subscriptions import subscription_documents as documents
from orchestratord_subscriptions.declaration import ENDPOINT
from orchestratord_subscriptions.routes import name_of, tasks_of
from orchestratord_subscriptions.subscription import Subscription, for_tenant
from orchestratord_subscriptions.subscription_documents import Time
from orchestratord_subscriptions.subscription_index import example_delivery
from orchestratord_subscriptions.tenant_rows import TenantRows

Params = Mapping[str, str]
Document = Mapping[str, Any]
MOST_TESTS, TESTS_SECONDS = 10, 60.0
"""How many tests a tenant may have sent within this time, by each worker."""


class DeliveryDocument(TypedDict):
    """A delivery to a subscription."""

    id: int
    event: str
    """What tenants call the event."""
    status: str
    reason: str | None
    """Why it failed for good."""
    attempts: int
    last_status_code: Any
    last_error: str | None
    next_try: Time | None
    created_at: Time
    finished_at: Time | None


class DeliveriesPage(TypedDict):
    """A page of deliveries, newest first."""

    retries: list[DeliveryDocument]
    next: Any
    """What `after` has to be for the next page; null for none."""


class DeliveryAttempt(TypedDict):
    """An attempt of a delivery."""

    started_at: Time
    duration_ms: float
    status_code: Any
    error: str | None


class WholeDelivery(DeliveryDocument):
    """A delivery with its request and answer."""

    payload: str | None
    response: Any
    """The last answer."""
    attempt_log: list[DeliveryAttempt]


class SentDelivery(TypedDict):
    """A delivery on its way."""

    id: int


class SentDeliveries:
    """Those of the tenants of this queue."""

    def __init__(self, tenants: TenantRows) -> None:
        self._tenants = tenants
        self._tests: dict[str, deque[float]] = {}

    @described(
        query=documents.DeliveriesQuery,
        answers={200: DeliveriesPage},
        problems=[Conflict, NotFound, InvalidParams],
    )
    async def page(self, path: Params, query: Params, body: Any) -> Answer:
        """List the deliveries of a subscription, the newest first."""
        asked = documents.DeliveriesQuery.read(query)
        await self._tenants.subscription(path)
        found = await self._tenants.control.retries(
            {**tasks_of(name_of(path)), "status": asked.status},
            limit=asked.limit,
            after=asked.after or None,
            bounded=True,
        )
        shown = [self._document(task) for task in found["retries"]]
        return Answer({"retries": shown, "next": found["next"]})

    @described(answers={200: WholeDelivery}, problems=[Conflict, NotFound])
    async def one(self, path: Params, query: Params, body: Any) -> Answer:
        """Show a delivery with its request and answer."""
        task = await self._find(path)
        names = DeliveryAttempt.__annotations__
        attempts = ({**one, "error": for_tenant(one["error"])} for one in task["attempt_log"])
        log = [{name: attempt[name] for name in names} for attempt in attempts]
        whole = {"payload": task["payload"], "response": task["response"], "attempt_log": log}
        return Answer({**self._document(task), **whole})

    @described(answers={202: SentDelivery}, problems=[Conflict, NotFound])
    async def retry(self, path: Params, query: Params, body: Any) -> Answer:
        """Send a delivery again, even one that succeeded."""
        task = await self._find(path)
        if task["status"] in ("pending", "running"):
            raise Conflict("the delivery has not ended yet")
        asked = {"id": task["id"], "status": task["status"]}
        await self._tenants.control.retry_all(asked, force=True)
        done = Action("retry delivery of subscription", ENDPOINT, name_of(path), task["id"])
        return Answer({"id": task["id"]}, 202, done=done)

    @described(answers={202: SentDelivery}, problems=[Conflict, NotFound])
    async def test(self, path: Params, query: Params, body: Any) -> Answer:
        """Send an example delivery; at most ten a minute for a tenant."""
        row, now, tenant = await self._tenants.subscription(path), world.monotonic(), path["tenant"]
        sent = self._tests.setdefault(tenant, deque(maxlen=MOST_TESTS))
        if len(sent) == MOST_TESTS and now - sent[0] < TESTS_SECONDS:
            raise Conflict(f"{tenant} has had {MOST_TESTS} tests within a minute; try again later")
        if row["disabled_at"] is not None:
            raise Conflict("the subscription is disabled: enable it, and then test it")
        sent.append(now)
        payload = {"type": "test", "timestamp": time_text(world.time()), "data": {"test": True}}
        example = example_delivery(Subscription(row), payload)
        (task_id,) = await self._tenants.control.write([example])
        done = Action("test subscription", ENDPOINT, name_of(path), task_id)
        return Answer({"id": task_id}, 202, done=done)

    @described(
        body=documents.ReplayBody,
        answers={202: documents.BegunReplay},
        problems=[Conflict, NotFound, InvalidParams],
    )
    async def replay(self, path: Params, query: Params, body: Any) -> Answer:
        """Send failed, or all, deliveries of a subscription again."""
        asked = documents.ReplayBody.read(body)
        await self._tenants.subscription(path)
        status = ["failed"] if asked.only_failed else ["failed", "succeeded"]
        wanted = {**tasks_of(name_of(path)), "status": status, "since": asked.since}
        begun = await self._tenants.control.retry_all(wanted, force=not asked.only_failed)
        done = Action("replay subscription", ENDPOINT, name_of(path), bulk=begun["bulk"])
        return Answer(begun, 202, done=done)

    async def _find(self, path: Params) -> Document:
        await self._tenants.subscription(path)
        number = path["task"]
        if number.isascii() and number.isdecimal() and len(number) < 19:
            task = await self._tenants.control.retry(int(number))
            if tasks_of(name_of(path)).items() <= task.items():
                return task
        raise NotFound(f"there is no delivery {number!r}")

    def _document(self, task: Document) -> DeliveryDocument:
        event = str((task["params"] or {}).get("event", ""))
        own = {
            "event": self._tenants.index.public_name(event),
            "last_error": for_tenant(task["last_error"]),
        }
        names = DeliveryDocument.__annotations__
        return cast("DeliveryDocument", {name: {**task, **own}[name] for name in names})
