"""What a tenant writes into a `when` costs nobody but that tenant."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.subscriptions.tenants import EVENT, MakeTenants, Tenants, settings
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

SHOP = "shop/orderPaid"
DEAR = "(" + " | ".join(["[@,@]"] * 16) + ")"
"""It doubles a list with every step: some 650,000 steps, and 0.3 seconds."""
OF_AN_OLDER_QUEUE = DEAR + " || data.order" * 190
"""2.8 kB, as no API takes it any more."""
MANY = 45


def declare(daemon: Daemon, receiver: Receiver) -> None:
    """An event with a webhook of the operator's and a call that follows, beside the tenant's."""
    told = {"name": "operator", "phase": "on_success", "url": f"{receiver.url}/operator"}
    then = [{"call": "shop/after", "params": {"order": "params.order"}}]
    daemon.api("shop", receiver.url)
    event = {**EVENT, "webhooks": [*EVENT["webhooks"], told], "then": then}  # type: ignore[misc]
    daemon.write("apis/shop/endpoints/orderPaid.yaml", json.dumps(event))
    daemon.endpoint("shop/after", "/after/{{ params.order }}", params={"order": {}})
    receiver.reply("/", lambda request: Answer())


def with_old_filters(make_daemon: MakeDaemon, receiver: Receiver, **more: Any) -> Tenants:
    """A daemon whose queue has dear filters of one tenant from a version before."""
    daemon = make_daemon(subscriptions=settings(receiver, max_per_tenant=100), **more)
    daemon.expect(r"cannot do the chore line .* subscriptions dear yet: took longer than")
    declare(daemon, receiver)
    daemon.start()
    tenants = Tenants(daemon, receiver.url)
    for tenant in ("dear", "other"):
        tenants.put(tenant)
        tenants.add(tenant, f"/{tenant}")
    for number in range(MANY):
        tenants.add("dear", f"/dear/{number}", when="data.order")
    daemon.stop()
    with sqlite3.connect(daemon.database) as db:
        db.execute(
            "UPDATE subscriptions SET condition = ? WHERE condition IS NOT NULL",
            (OF_AN_OLDER_QUEUE,),
        )
    daemon.start()
    return tenants


def test_what_the_files_declare_is_made_whatever_a_tenant_filters(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    tenants = with_old_filters(make_daemon, receiver, plugins={"timeout": "1s"})
    daemon = tenants.daemon
    for order in (1, 2):
        daemon.call(SHOP, tenant="dear", order=order)
    # Another tenant's event has its turn beside the others.
    daemon.call(SHOP, tenant="other", order=3)
    for path, count in (("/operator", 3), ("/other", 1), ("/dear", 2)):
        until(lambda path=path, count=count: receiver.count(path) == count, path)
    for order in (1, 2, 3):
        until(lambda order=order: receiver.count(f"/after/{order}") == 1, "the call that follows")
    until(lambda: not daemon.rows("SELECT 1 FROM chores"), "the end of the matching")
    daemon.settle()
    assert receiver.count() == 3 + 1 + 2 + 3  # and no filter has matched


def test_a_filter_that_takes_too_many_steps_is_counted_and_shown(
    make_tenants: MakeTenants, receiver: Receiver
) -> None:
    tenants = make_tenants()
    daemon = tenants.daemon
    tenants.put("acme")
    plain, dear = tenants.add("acme", "/plain"), tenants.add("acme", "/dear", when=DEAR)
    seven = tenants.add("acme", "/seven", when="data.order == `7`")
    told = tenants.add("acme", "/told", events=["subscription.disabled"])

    def shown(made: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = tenants.ask("GET", tenants.one(made)).json()
        return found

    daemon.batch(SHOP, [{"tenant": "acme", "order": order} for order in range(99)])
    until(lambda: receiver.count("/plain") == 99, "the plain deliveries")
    until(lambda: shown(dear)["too_costly"] == 99, "the count")
    assert shown(dear)["last_error"].startswith("its when took more than 5,000 steps")
    assert shown(dear)["enabled"]
    daemon.call(SHOP, tenant="acme", order=7)
    until(lambda: not shown(dear)["enabled"], "the disabling")
    reason = "its when took more than 5,000 steps for 100 events in a row"
    assert shown(dear)["disabled_reason"] == reason
    until(lambda: receiver.count("/told") == 1, "the word of it")
    assert receiver.received("/told")[0].json()["data"] == {"id": dear["id"], "reason": reason}
    daemon.settle()
    assert (receiver.count("/plain"), receiver.count("/dear")) == (100, 0)
    assert receiver.count("/seven") == 2
    assert "orchestratord_subscriptions_too_costly_total 100.0" in daemon.get("/metrics").text
    assert (
        shown(seven)["too_costly"] == shown(plain)["too_costly"] == shown(told)["too_costly"] == 0
    )
    # A change of its `when` is its own remedy.
    changed = tenants.ask("PATCH", tenants.one(dear), {"when": "data.order", "enabled": True})
    assert changed.status_code == 200
    daemon.call(SHOP, tenant="acme", order=8)
    until(lambda: receiver.count("/dear") == 1, "the delivery")
    assert shown(dear)["too_costly"] == 0


def test_a_long_filter_is_refused_at_once(make_tenants: MakeTenants) -> None:
    tenants = make_tenants()
    tenants.put("acme")
    made = tenants.add("acme", when="a" * 512)
    for when in ("a" * 513, "'" + "é" * 300 + "'", OF_AN_OLDER_QUEUE):
        body = {"url": made["url"], "when": when}
        for method, path in (("POST", "/acme/subscriptions"), ("PATCH", tenants.one(made))):
            answer = tenants.ask(method, path, body)
            assert answer.status_code == 422
            assert "has more than 512 bytes" in answer.text
    ran = tenants.daemon.ctl("subscribe", "acme", made["url"], "--when", "a" * 513)
    assert ran.code == 2
    assert "has more than 512 bytes" in ran.err


def test_the_order_of_a_partition_stays(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon(subscriptions=settings(receiver))
    daemon.api("shop", "http://127.0.0.1:9")
    [customers] = EVENT["webhooks"]  # type: ignore[misc]
    ordered = {"by": "{{ params.tenant }}", "ordered": True}
    event = {**EVENT, "webhooks": [{**customers, "partition": ordered}]}  # type: ignore[dict-item]
    daemon.write("apis/shop/endpoints/orderPaid.yaml", json.dumps(event))
    receiver.reply("/", lambda request: Answer())
    daemon.start()
    tenants = Tenants(daemon, receiver.url)
    # More than is evaluated on the loop, in every second event.
    half = f"data.order && (to_string(data.order) == '7' || ({' | '.join(['[@,@]'] * 7)}))"
    for tenant in ("acme", "globex"):
        tenants.put(tenant)
        tenants.add(tenant, f"/{tenant}", when=half)
    orders = [{"tenant": tenant, "order": n} for n in range(1, 31) for tenant in ("acme", "globex")]
    daemon.batch(SHOP, orders)
    for tenant in ("acme", "globex"):
        until(lambda tenant=tenant: receiver.count(f"/{tenant}") == 30, "all deliveries")
        came = [one.json()["data"]["order"] for one in receiver.received(f"/{tenant}")]
        assert came == [*range(1, 31)]


def test_a_large_payload_that_is_matched_later_is_whole(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = make_daemon(subscriptions=settings(receiver), max_params="1MiB")
    daemon.api("shop", "http://127.0.0.1:9")
    [customers] = EVENT["webhooks"]  # type: ignore[misc]
    payload = {"text": "{{ params.text }}"}
    params = {"tenant": {"type": "string"}, "text": {"type": "string"}}
    event = {**EVENT, "params": params, "webhooks": [{**customers, "payload": payload}]}  # type: ignore[dict-item]
    daemon.write("apis/shop/endpoints/orderPaid.yaml", json.dumps(event))
    receiver.reply("/", lambda request: Answer())
    daemon.start()
    tenants = Tenants(daemon, receiver.url)
    tenants.put("acme")
    tenants.add("acme", when="text")
    text = '"' * 260_000  # each takes two bytes in the payload, and four in the chore
    daemon.call(SHOP, tenant="acme", text=text)
    until(lambda: receiver.count("/hook") == 1, "the delivery")
    assert receiver.received("/hook")[0].json() == {"text": text}
