"""What a tenant sees of the deliveries to its subscriptions, and retrying one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import TypedDict

from orchestratord import (
    Action,
    Answer,
    Conflict,
    Control,
    InvalidParams,
    NotFound,
    described,
)
from orchestratord_subscriptions.declaration import ENDPOINT
from orchestratord_subscriptions.subscription_documents import DeliveriesQuery, Time, for_tenant
from orchestratord_subscriptions.subscription_index import SubscriptionIndex
from orchestratord_subscriptions.tenant_service import TenantService, page_of, tasks_of

Params = Mapping[str, str]
Document = Mapping[str, Any]


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
    """A delivery, with what was sent and answered."""

    payload: str | None
    response: Any
    """The last answer."""
    attempt_log: list[DeliveryAttempt]


class RetriedDelivery(TypedDict):
    """A delivery that is sent again."""

    id: int


class SentDeliveries:
    """Those of the tenants of this queue."""

    def __init__(self, control: Control, tenants: TenantService, index: SubscriptionIndex) -> None:
        self._control, self._tenants, self._index = control, tenants, index

    @described(
        query=DeliveriesQuery,
        answers={200: DeliveriesPage},
        problems=[Conflict, NotFound, InvalidParams],
    )
    async def page(self, path: Params, query: Params, body: Any) -> Answer:
        """List the deliveries of a subscription, the newest first."""
        after, limit = page_of(query, DeliveriesQuery)
        await self._tenants.subscription(path["tenant"], path["id"])
        of_one = tasks_of(f"{path['tenant']}/{path['id']}")
        wanted = {**of_one, "status": query.get("status", "")}
        found = await self._control.retries(wanted, limit=limit, after=after or None, bounded=True)
        shown = [self._document(task) for task in found["retries"]]
        return Answer({"retries": shown, "next": found["next"]})

    @described(answers={200: WholeDelivery}, problems=[Conflict, NotFound])
    async def one(self, path: Params, query: Params, body: Any) -> Answer:
        """A delivery, with what was sent and answered."""
        task = await self._find(path)
        log = [
            {name: attempt[name] for name in ("started_at", "duration_ms", "status_code")}
            | {"error": for_tenant(attempt["error"])}
            for attempt in task["attempt_log"]
        ]
        whole = {"payload": task["payload"], "response": task["response"], "attempt_log": log}
        return Answer({**self._document(task), **whole})

    @described(answers={202: RetriedDelivery}, problems=[Conflict, NotFound])
    async def retry(self, path: Params, query: Params, body: Any) -> Answer:
        """Send a delivery again, one that succeeded too."""
        task = await self._find(path)
        if task["status"] in ("pending", "running"):
            raise Conflict("the delivery has not ended yet")
        asked = {"id": task["id"], "status": task["status"]}
        await self._control.retry_all(asked, force=True)
        name = f"{path['tenant']}/{path['id']}"
        done = Action("retry delivery of subscription", ENDPOINT, name, task["id"])
        return Answer({"id": task["id"]}, 202, done=done)

    async def _find(self, path: Params) -> Document:
        await self._tenants.subscription(path["tenant"], path["id"])
        number = path["task"]
        if number.isascii() and number.isdecimal() and len(number) < 19:
            task = await self._control.retry(int(number))
            if tasks_of(f"{path['tenant']}/{path['id']}").items() <= task.items():
                return task
        raise NotFound(f"there is no delivery {number!r}")

    def _document(self, task: Document) -> DeliveryDocument:
        event = str((task["params"] or {}).get("event", ""))
        return {
            "id": task["id"],
            "event": self._index.public_name(event),
            "status": task["status"],
            "reason": task["reason"],
            "attempts": task["attempts"],
            "last_status_code": task["last_status_code"],
            "last_error": for_tenant(task["last_error"]),
            "next_try": task["next_try"],
            "created_at": task["created_at"],
            "finished_at": task["finished_at"],
        }
