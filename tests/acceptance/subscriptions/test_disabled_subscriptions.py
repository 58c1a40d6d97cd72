"""Subscriptions that are disabled: after how long, who hears of it, and what they miss."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.subscriptions.tenants import KEY, MakeTenants, Tenants, declare, settings
from tests.acceptance.subscriptions.test_subscriptions import SHOP
from tests.acceptance.waiting import until

SIX_DAYS_MS = 6 * 86_400_000


OPERATOR = {
    "name": "night",
    "secret": KEY,
    "events": ["webhook.disabled"],
    "batch": {"every": "1s", "max": 100},
}


@pytest.fixture
def tenants(make_daemon: MakeDaemon, receiver: Receiver) -> Tenants:
    """A daemon whose operator and whose tenant hear of what is disabled."""
    operational = [{**OPERATOR, "url": f"{receiver.url}/operator"}]
    allowed = {"allow": [receiver.address]}
    daemon = make_daemon(
        subscriptions=settings(receiver), operational_webhooks=operational, egress=allowed
    )
    declare(daemon)
    receiver.reply("/", lambda request: Answer())
    tenants = Tenants(daemon.start(), receiver.url)
    tenants.put("acme")
    tenants.add("acme", "/told", events=["subscription.disabled"])
    return tenants


def heard(receiver: Receiver, path: str) -> Any:
    """The data of what comes to a path first."""
    until(lambda: receiver.count(path) == 1, f"what {path} hears")
    return receiver.received(path)[0].json()["data"]


def test_what_fails_for_five_days_is_disabled(tenants: Tenants, receiver: Receiver) -> None:
    receiver.on("/down", 500)
    daemon, made = tenants.daemon, tenants.add("acme", "/down")
    assert isinstance(daemon, Daemon)
    daemon.call(SHOP, tenant="acme", order=1)
    daemon.settle()
    daemon.stop()
    with sqlite3.connect(daemon.database) as db:
        earlier = "UPDATE subscriptions SET failing_since = failing_since - ? WHERE id = ?"
        db.execute(earlier, (SIX_DAYS_MS, made["id"]))
    daemon.start()
    daemon.call(SHOP, tenant="acme", order=2)
    why = "no success for 5d"
    assert heard(receiver, "/told") == {"id": made["id"], "reason": why}
    [event] = heard(receiver, "/operator")["first"]
    name = f"acme/{made['id']}"
    assert (event["endpoint"], event["webhook"], event["reason"]) == ("subscriptions", name, why)
    shown = tenants.ask("GET", tenants.one(made)).json()
    assert (shown["enabled"], shown["disabled_reason"]) == (False, why)


def test_the_operator_hears_how_to_enable_it_and_the_tenant_that_it_is_disabled(
    tenants: Tenants, receiver: Receiver
) -> None:
    receiver.on("/gone", 410)
    daemon, made = tenants.daemon, tenants.add("acme", "/gone")
    assert isinstance(daemon, Daemon)
    daemon.call(SHOP, tenant="acme", order=1)
    why = "the subscription is disabled: 410 Gone"
    assert heard(receiver, "/told") == {"id": made["id"], "reason": why}
    [event] = heard(receiver, "/operator")["first"]
    remedy = event["text"].partition("to deliver to it again: orchestratorctl ")[2]
    assert daemon.ctl(*remedy.split()).code == 0
    assert tenants.ask("GET", tenants.one(made)).json()["enabled"]


def test_the_newest_of_what_it_misses_are_kept(
    make_tenants: MakeTenants, receiver: Receiver
) -> None:
    tenants = make_tenants(keep_missed={"max": 2})
    daemon = tenants.daemon
    assert isinstance(daemon, Daemon)
    tenants.put("acme")
    made = tenants.add("acme", enabled=False)
    for order in range(5):
        daemon.call(SHOP, tenant="acme", order=order)
    daemon.settle()
    daemon.stop()
    daemon.start()  # which looks at once whether there are too many

    def shown() -> int:
        deleted: int = tenants.ask("GET", tenants.one(made)).json()["missed_deleted"]
        return deleted

    until(lambda: shown() == 3, "that the oldest are deleted, and counted")
    kept = tenants.ask("GET", tenants.one(made, "/deliveries")).json()["retries"]
    assert [one["reason"] for one in kept] == ["webhook_disabled"] * 2
    assert tenants.ask("PATCH", tenants.one(made), {"enabled": True}).status_code == 200
    begun = tenants.ask("POST", tenants.one(made, "/replay"), {"since": "1h"}).json()
    assert begun["matched"] == 2
    until(lambda: receiver.count("/hook") == 2, "what it missed")
    assert [one.json()["data"]["order"] for one in receiver.received("/hook")] == [3, 4]
