"""Receivers that come and go at run time."""

from __future__ import annotations

import base64
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from bench import tenants as bench_tenants
from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Answer, Received, Receiver
from tests.acceptance.subscriptions.tenants import MakeTenants, Tenants
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

SHOP = "shop/orderPaid"


def verified(request: Received, secret: str) -> Any:
    """What a receiver makes of a request, by the library of Standard Webhooks."""
    return Webhook(secret).verify(request.body, dict(request.headers))


def test_each_that_matches_gets_a_signed_delivery(
    make_tenants: MakeTenants, receiver: Receiver
) -> None:
    tenants = make_tenants()
    daemon = tenants.daemon
    for tenant in ("acme", "globex"):
        tenants.put(tenant)
    all_ = tenants.add("acme", "/all")
    named = tenants.add("acme", "/named", events=["order.paid"])
    by_id = tenants.add("acme", "/id", events=["shop/*"])
    tenants.add("acme", "/other", events=["order.refunded", "bank/*"])
    seven = tenants.add("acme", "/seven", when="data.order == `7`")
    tenants.add("globex", "/globex")
    for order in (7, 8):
        task_id = daemon.call(SHOP, tenant="acme", order=order)
        daemon.settle()
        assert {one["endpoint"] for one in daemon.deliveries(task_id)} == {"subscriptions"}
    for made, orders in ((all_, [7, 8]), (named, [7, 8]), (by_id, [7, 8]), (seven, [7])):
        path = made["url"].removeprefix(receiver.url)
        bodies = [verified(one, made["secret"]) for one in receiver.received(path)]
        assert [body["data"]["order"] for body in bodies] == orders
    assert receiver.count("/other") == receiver.count("/globex") == 0
    with pytest.raises(WebhookVerificationError):
        verified(receiver.received("/all")[0], named["secret"])


def test_a_tenant_that_is_null_or_unknown_is_counted(
    make_tenants: MakeTenants, receiver: Receiver
) -> None:
    tenants = make_tenants()
    for named in ({}, {"tenant": ""}, {"tenant": "nobody"}):
        tenants.daemon.call(SHOP, order=1, **named)
    tenants.daemon.settle()
    metrics = tenants.daemon.get("/metrics").text
    assert "orchestratord_subscriptions_unaddressed_total 3.0" in metrics
    assert receiver.count() == 0


def test_no_secret_is_in_the_database(make_tenants: MakeTenants, receiver: Receiver) -> None:
    tenants = make_tenants()
    assert isinstance(tenants.daemon, Daemon)
    tenants.put("acme")
    made = tenants.add("acme")
    tenants.daemon.call(SHOP, tenant="acme", order=1)
    rotated = tenants.ask("POST", tenants.one(made, "/rotate")).json()
    tenants.daemon.call(SHOP, tenant="acme", order=2)
    tenants.daemon.settle()
    with sqlite3.connect(tenants.daemon.database) as db:
        dump = "\n".join(db.iterdump())
    log = Path(tenants.daemon.log_file).read_text()
    for secret in (made["secret"], rotated["secret"]):
        assert secret.removeprefix("whsec_") not in dump + log


def test_a_rotation_signs_with_both(make_tenants: MakeTenants, receiver: Receiver) -> None:
    tenants = make_tenants()
    tenants.put("acme")
    made = tenants.add("acme")
    rotated = tenants.ask("POST", tenants.one(made, "/rotate")).json()
    assert rotated["secret"] != made["secret"]
    assert rotated["previous_until"] is not None
    shown = tenants.ask("GET", tenants.one(made, "/secret")).json()
    assert shown == rotated
    tenants.daemon.call(SHOP, tenant="acme", order=1)
    tenants.daemon.settle()
    [request] = receiver.received("/hook")
    for secret in (made["secret"], rotated["secret"]):
        assert verified(request, secret)["data"] == {"order": 1}
    actions = [one["action"] for one in tenants.daemon.get("/v1/actions").json()["actions"]]
    assert actions[:2] == ["show secret of subscription", "rotate secret of subscription"]


def test_a_repeat_with_the_same_key_makes_one(make_tenants: MakeTenants) -> None:
    tenants = make_tenants()
    tenants.put("acme")
    url, headers = tenants.add("acme")["url"], {"Idempotency-Key": "one"}
    path = "/acme/subscriptions"
    first, again = (tenants.ask("POST", path, {"url": url}, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    other = tenants.ask("POST", path, {"url": f"{url}/2"}, headers=headers)
    assert other.json()["code"] == "idempotency_key_reused"
    assert len(tenants.of("acme")) == 2
    assert tenants.ask("DELETE", "/acme").status_code == 200
    tenants.put("acme")
    anew = tenants.ask("POST", path, {"url": url}, headers=headers)
    assert anew.status_code == 201, "it is another tenant of this name"
    assert anew.json()["id"] != first.json()["id"]


def test_a_patch_of_what_has_changed_is_refused(make_tenants: MakeTenants) -> None:
    tenants = make_tenants()
    tenants.put("acme")
    path = tenants.one(tenants.add("acme"))
    etag = tenants.ask("GET", path).headers["etag"]
    body = {"description": "of the night shift"}
    changed = tenants.ask("PATCH", path, body, headers={"If-Match": etag})
    assert changed.json()["description"] == body["description"]
    late = tenants.ask("PATCH", path, {"description": ""}, headers={"If-Match": etag})
    assert (late.status_code, late.json()["code"]) == (412, "outdated")
    now = changed.headers["etag"]
    assert tenants.ask("PATCH", path, {}, headers={"If-Match": now}).status_code == 200


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://10.0.0.1:{port}/", "is no public address"),
        ("http://[::ffff:169.254.169.254]:{port}/", "is no public address"),
        ("http://0x7f.2:{port}/", "is no public address"),
        ("http://127.0.0.1:22/", "has the port 22; possible: {port}"),
        ("http://user:word@127.0.0.1:{port}/", "must hold no user name or password"),
        ("ftp://127.0.0.1:{port}/", "must begin with https:// or http://"),
        ("http://127.0.0.1:{port}/#x", "must hold no fragment, blank or character beyond ASCII"),
    ],
)
def test_an_address_is_refused(
    url: str, why: str, make_tenants: MakeTenants, receiver: Receiver
) -> None:
    tenants = make_tenants()
    tenants.put("acme")
    port = receiver.url.rpartition(":")[2]
    refused = tenants.ask("POST", "/acme/subscriptions", {"url": url.format(port=port)})
    assert refused.status_code == 422
    assert refused.json()["errors"] == [{"key": "url", "message": why.format(port=port)}]


def test_other_headers_and_many_subscriptions_are_refused(make_tenants: MakeTenants) -> None:
    tenants = make_tenants(max_per_tenant=1)
    tenants.put("acme")
    path = "/acme/subscriptions"
    for name in ("Authorization", "X-Api-Key", "webhook-id", "Host", "Cookie"):
        body = {"url": "http://a.test/", "headers": {name: "x"}}
        assert tenants.ask("POST", path, body).status_code == 422, name
    made = tenants.add("acme", headers={"X-Team": "night"})
    assert made["headers"] == {"X-Team": "night"}
    refused = tenants.ask("POST", path, {"url": made["url"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")


def test_a_removed_tenant_ends_its_tasks(make_tenants: MakeTenants, receiver: Receiver) -> None:
    tenants = make_tenants(retry={"backoff": {"strategy": "fixed", "delay": "1h"}})
    daemon = tenants.daemon
    receiver.on("/down", 500)
    for tenant in ("acme", "globex"):
        tenants.put(tenant)
        tenants.add(tenant, "/down")
        for order in range(3):
            daemon.call(SHOP, tenant=tenant, order=order)
    until(lambda: receiver.count("/down") == 6, "the attempts")
    until(lambda: len(daemon.tasks(status="pending", endpoint="subscriptions")) == 6, "waiting")
    removed = tenants.ask("DELETE", "/acme").json()
    assert removed == {"tenant": "acme", "subscriptions": 1, "tasks": 3}

    def ended() -> list[dict[str, Any]]:
        return daemon.tasks(endpoint="subscriptions", webhook="acme/*", reason="webhook_removed")

    until(lambda: len(ended()) == 3, "the end of its tasks")
    assert daemon.tasks(tenant="acme") == ended()
    assert len(daemon.tasks(endpoint="subscriptions", webhook="globex/*", status="pending")) == 3
    assert tenants.ask("GET", "/acme").status_code == 404


def test_one_that_is_gone_is_disabled_until_it_is_enabled(
    make_tenants: MakeTenants, receiver: Receiver
) -> None:
    tenants = make_tenants()
    receiver.on("/gone", 410, 200)
    tenants.put("acme")
    made = tenants.add("acme", "/gone")
    told = tenants.add("acme", "/told", events=["subscription.disabled"])
    tenants.daemon.call(SHOP, tenant="acme", order=1)
    until(lambda: receiver.count("/told") == 1, "that the tenant is told")
    body = verified(receiver.received("/told")[0], told["secret"])
    assert body["type"] == "subscription.disabled"
    assert body["data"] == {"id": made["id"], "reason": "the subscription is disabled: 410 Gone"}
    shown = tenants.ask("GET", tenants.one(made)).json()
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "410 Gone")
    assert tenants.ask("POST", tenants.one(made, "/test")).status_code == 409
    enabled = tenants.ask("PATCH", tenants.one(made), {"enabled": True}).json()
    assert (enabled["enabled"], enabled["failures"]) == (True, 0)
    tenants.daemon.call(SHOP, tenant="acme", order=2)
    until(lambda: receiver.count("/gone") == 2, "the delivery after that")
    off = tenants.ask("PATCH", tenants.one(made), {"enabled": False}).json()
    assert off["disabled_reason"] == "by hand"


def test_a_test_a_replay_and_the_deliveries(make_tenants: MakeTenants, receiver: Receiver) -> None:
    tenants = make_tenants()
    receiver.on("/hook", 500, 500, 200)
    tenants.put("acme")
    made = tenants.add("acme")
    tenants.daemon.call(SHOP, tenant="acme", order=1)
    tenants.daemon.settle()
    failed = tenants.ask("GET", tenants.one(made, "/deliveries"), params={"status": "failed"})
    [delivery] = failed.json()["retries"]
    assert delivery["event"] == "order.paid"
    begun = tenants.ask("POST", tenants.one(made, "/replay"), {"since": "1h"})
    assert (begun.status_code, begun.json()["matched"]) == (202, 1)
    until(lambda: receiver.count("/hook") == 3, "the replay")
    tenants.daemon.settle()
    for _ in range(10):
        assert tenants.ask("POST", tenants.one(made, "/test")).status_code == 202
    assert tenants.ask("POST", tenants.one(made, "/test")).status_code == 409
    until(lambda: receiver.count("/hook") == 13, "the tests")


def test_where_the_key_is_gone_deliveries_wait(
    make_tenants: MakeTenants, receiver: Receiver
) -> None:
    tenants = make_tenants()
    daemon = tenants.daemon
    assert isinstance(daemon, Daemon)
    tenants.put("acme")
    made = tenants.add("acme")
    declared = daemon.settings["subscriptions"]
    other = base64.b64encode(bytes(32)).decode()
    new = {**daemon.settings, "subscriptions": {**declared, "key": other}}
    daemon.write("orchestratord.yaml", new)
    daemon.reload()
    daemon.call(SHOP, tenant="acme", order=1)
    assert tenants.ask("GET", tenants.one(made, "/secret")).status_code == 409
    [task] = daemon.tasks(endpoint="subscriptions")
    assert task["status"] == "pending"

    def says(what: str) -> None:
        until(lambda: what in daemon.run("doctor").out, what)

    says("deliveries to 1 subscriptions wait: the key of their secrets is gone; the first is")
    both = {**declared, "key": [other, declared["key"]]}
    daemon.write("orchestratord.yaml", {**daemon.settings, "subscriptions": both})
    daemon.reload()
    until(lambda: receiver.count("/hook") == 1, "the delivery")
    assert verified(receiver.received("/hook")[0], made["secret"])
    says("1 subscriptions have secrets of an older key; the first is acme/")
    rotated = tenants.ask("POST", tenants.one(made, "/rotate")).json()
    daemon.call(SHOP, tenant="acme", order=2)
    daemon.settle()
    assert verified(receiver.received("/hook")[1], rotated["secret"])
    daemon.write("orchestratord.yaml", {**daemon.settings, "subscriptions": {**both, "ports": [1]}})
    daemon.reload()
    says("all secrets are derived from the first key")


def test_another_worker_takes_a_change_up_within_a_second(
    make_tenants: MakeTenants, receiver: Receiver
) -> None:
    tenants: Tenants = make_tenants(workers=2)
    tenants.put("acme")
    for number in range(3):
        made = tenants.add("acme", f"/{number}")
        moved = {"url": f"{receiver.url}/moved{number}"}
        assert tenants.ask("PATCH", tenants.one(made), moved).status_code == 200
    for order in range(20):
        tenants.daemon.call(SHOP, tenant="acme", order=order)
    tenants.daemon.settle()
    assert [receiver.count(f"/moved{number}") for number in range(3)] == [20] * 3
    assert receiver.count() == 60


def test_the_verbs(make_tenants: MakeTenants, receiver: Receiver) -> None:
    daemon = make_tenants().daemon
    assert isinstance(daemon, Daemon)
    assert daemon.ctl("put-tenant", "acme", "--name", "Acme").code == 0
    made = daemon.ctl(
        "subscribe", "acme", f"{receiver.url}/hook", "--events", "order.paid,shop/*", "-o", "json"
    ).json()
    assert made["events"] == ["order.paid", "shop/*"]
    assert made["secret"].startswith("whsec_")
    one = "acme", made["id"]
    assert made["id"] in daemon.ctl("subscriptions", "acme").out
    nothing = daemon.ctl("subscriptions", "acme", "--after", made["id"])
    assert (nothing.out, nothing.err) == ("", "There are no subscriptions.\n")
    assert "Acme" in daemon.ctl("tenants").out
    off = daemon.ctl("change-subscription", *one, "--enabled", "false", "-o", "json").json()
    assert off["enabled"] is False
    daemon.ctl("change-subscription", *one, "--enabled", "true")
    for when, rate, events in (("data.order", "5/s", "shop/*"), ("null", "", ""), ("", "null", "")):
        given = ("--when", when, "--rate", rate, "--events", events)
        now = daemon.ctl("change-subscription", *one, *given, "-o", "json").json()
    assert (now["when"], now["rate"], now["events"]) == (None, None, [])
    assert daemon.ctl("show-secret", *one, "-o", "json").json()["secret"] == made["secret"]
    assert daemon.ctl("rotate-secret", *one, "-o", "json").json()["secret"] != made["secret"]
    daemon.call(SHOP, tenant="acme", order=1)
    daemon.settle()
    assert daemon.ctl("list", "--tenant", "acme", "-o", "json").json()["retries"][0]["webhook"] == (
        f"acme/{made['id']}"
    )
    assert daemon.ctl("list", "--tenant", "globex", "-o", "json").json()["retries"] == []
    assert daemon.ctl("test-subscription", *one).code == 0
    assert daemon.ctl("replay-subscription", *one, "--since", "1h").code == 0
    assert daemon.ctl("portal", "acme").code == 5, "there is none"
    assert daemon.ctl("unsubscribe", *one, "-o", "json").json()["subscriptions"] == 1
    assert daemon.ctl("remove-tenant", "acme").code == 0
    assert daemon.ctl("tenant", "acme").code != 0


def test_the_page_of_tenants(make_tenants: MakeTenants, receiver: Receiver) -> None:
    tenants = make_tenants()
    receiver.on("/down", 500)
    tenants.put("acme")
    tenants.add("acme", "/down")
    tenants.daemon.call(SHOP, tenant="acme", order=1)
    tenants.daemon.settle()
    transport = httpx.HTTPTransport(uds=str(tenants.daemon.socket), verify=False)
    with httpx.Client(transport=transport, base_url="http://localhost") as browser:
        page = browser.get("/tenants").text
        listed = browser.get(
            "/retries", params={"endpoint": "subscriptions", "webhook": "acme/*"}
        ).text
    since = tenants.ask("GET", "/acme").json()["failing_since"]
    assert '<a href="/retries?endpoint=subscriptions&amp;webhook=acme%2F%2A">acme</a>' in page
    when = f'<time datetime="{since}" title="{since}" data-when>{since}</time>'
    assert f"<td>1</td><td>1</td><td>{when}</td><td>0</td>" in page
    one = f"acme/{tenants.of('acme')[0]['id']}"
    assert f">{one}</a></td><td>{when}</td><td>500</td><td></td>" in page
    assert receiver.url not in page
    assert "/retries/2" in listed


def test_a_dead_and_a_hostile_one_harm_only_themselves(
    make_tenants: MakeTenants, receiver: Receiver
) -> None:
    tenants = make_tenants(timeout="2s")
    receiver.hold("/slow")
    receiver.on("/dead", 500)
    receiver.on("/redirects", Answer(302, headers={"Location": f"{receiver.url}/elsewhere"}))
    for tenant in ("acme", "globex"):
        tenants.put(tenant)
    for path in ("/slow", "/dead", "/redirects", "/rebinds"):
        tenants.add("acme", path)
    tenants.add("acme", "/good")
    tenants.add("globex", "/good")
    private = receiver.url.replace("127.0.0.1", "localtest.invalid")
    assert tenants.ask("POST", "/globex/subscriptions", {"url": private}).status_code == 201
    for order in range(20):
        for tenant in ("acme", "globex"):
            tenants.daemon.call(SHOP, tenant=tenant, order=order)
    until(lambda: receiver.count("/good") == 40, "all that is well", timeout=30)
    assert receiver.count("/elsewhere") == 0
    receiver.let_go("/slow")


def test_tenants_are_made_while_events_go_out(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    """The long form is `python -m bench.tenants`."""
    daemon = make_daemon(subscriptions=bench_tenants.settings(receiver.url))
    daemon.api("bench", "http://127.0.0.1:9")
    daemon.write("apis/bench/endpoints/event.yaml", bench_tenants.EVENT)
    receiver.reply("/", lambda request: Answer())
    daemon.start()
    report = bench_tenants.run(daemon, receiver.url, tenants=20, rate=100)
    assert report.delivered == report.sent + 20
    assert report.sent / report.seconds > 50
    assert report.longest < 3.0
