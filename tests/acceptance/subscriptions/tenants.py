"""Tenants and their subscriptions, as these tests make them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.control import Control
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Receiver

KEY = base64.b64encode(b"a key of tests, of 32 bytes long").decode()
EVENT = {
    "type": "event",
    "public": {"name": "order.paid", "description": "An order was paid."},
    "params": {"tenant": {"type": "string", "default": None}, "order": {"type": "integer"}},
    "webhooks": [
        {
            "name": "customers",
            "phase": "on_success",
            "subscribers": "{{ params.tenant }}",
            "payload": {"type": "order.paid", "data": {"order": "{{ params.order }}"}},
        }
    ],
}

MakeTenants = Callable[..., "Tenants"]


class Tenants:
    """The API of one daemon's tenants."""

    def __init__(self, daemon: Control, url: str) -> None:
        self.daemon = daemon
        self._url = url

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """One request below /v1/tenants."""
        if body is not None:
            options["json"] = body
        return self.daemon.request(method, f"/v1/tenants{path}", **options)

    def put(self, tenant: str) -> None:
        """Make a tenant."""
        assert self.ask("PUT", f"/{tenant}", {}).status_code in (200, 201)

    def add(self, tenant: str, path: str = "/hook", **keys: Any) -> dict[str, Any]:
        """Make a subscription, which goes to the receiver; the document."""
        body = {"url": f"{self._url}{path}", **keys}
        answer = self.ask("POST", f"/{tenant}/subscriptions", body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def of(self, tenant: str) -> list[dict[str, Any]]:
        """All subscriptions of a tenant, up to 1,000."""
        page: dict[str, Any] = self.ask("GET", f"/{tenant}/subscriptions?limit=1000").json()
        assert page["next"] is None
        found: list[dict[str, Any]] = page["subscriptions"]
        return found

    def one(self, made: dict[str, Any], rest: str = "") -> str:
        """The path of a subscription."""
        return f"/{made['tenant']}/subscriptions/{made['id']}{rest}"


def settings(receiver: Receiver, **more: Any) -> dict[str, Any]:
    """What `subscriptions:` says: the receiver is the one private address that is allowed."""
    port = int(receiver.url.rpartition(":")[2])
    plain = {"key": KEY, "require_https": False, "ports": [port], "allow": ["127.0.0.1"]}
    return {**plain, "retry": retry(attempts=2), **more}


def declare(daemon: Daemon) -> None:
    """An event, which goes to subscribers."""
    daemon.api("shop", "http://127.0.0.1:9")
    daemon.write("apis/shop/endpoints/orderPaid.yaml", json.dumps(EVENT))


@pytest.fixture
def make_tenants(make_daemon: MakeDaemon, receiver: Receiver) -> MakeTenants:
    """A daemon with tenants; `more` is of its `subscriptions`."""

    def make(workers: int = 1, **more: Any) -> Tenants:
        daemon = make_daemon(workers=workers, subscriptions=settings(receiver, **more))
        declare(daemon)
        receiver.reply("/", lambda request: Answer())
        daemon.start()
        return Tenants(daemon, receiver.url)

    return make
