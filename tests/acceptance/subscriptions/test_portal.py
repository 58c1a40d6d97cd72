"""The portal: who may open it, for how long, and what of whom is seen there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.acceptance.receiver import Receiver
from tests.acceptance.subscriptions.portals import Portal
from tests.acceptance.subscriptions.tenants import MakeTenants
from tests.acceptance.waiting import until

SHOP = "shop/orderPaid"
MARK = "of-globex-alone"
"""Stands in all that is the other tenant's."""


@pytest.fixture
def session(portal: Portal) -> Iterator[httpx.Client]:
    """A session of the tenant acme."""
    with portal.session("acme") as client:
        yield client


@pytest.fixture
def portal(make_tenants: MakeTenants) -> Portal:
    found = Portal(make_tenants, name="Acme hooks", frame_origins=["https://app.example.com"])
    found.tenants.put("acme")
    found.tenants.put("globex")
    return found


def test_a_link_is_exchanged_once_for_a_session_of_its_tenant(portal: Portal) -> None:
    made = portal.tenants.add("acme")
    link = portal.link("acme")
    assert "acme" not in link, "the address says nothing"
    first, second = portal.exchange(link), portal.exchange(link)
    assert (first.status_code, second.status_code) == (200, 401)
    assert second.json()["code"] == "used_link"
    said = first.json()
    assert (said["tenant"], said["portal"]["name"]) == ("acme", "Acme hooks")
    assert said["events"] == [{"name": "order.paid", "description": "An order was paid."}]
    bearer = {"Authorization": f"Bearer {said['session']}"}
    path = f"{portal.url}/v1/tenants/acme/subscriptions"
    found = httpx.get(path, headers=bearer).json()["subscriptions"]
    assert [one["id"] for one in found] == [made["id"]]
    token = link.partition("#")[2]
    for wrong in ({}, {"Authorization": f"Bearer {token}"}, {"Authorization": "Bearer x.y"}):
        assert httpx.get(path, headers=wrong).status_code == 401
    changed = f"{said['session'][:10]}A{said['session'][11:]}"
    assert portal.exchange(f"#{changed}").status_code == 401
    assert portal.exchange(f"#{said['session']}").status_code == 401, "it is no link"
    dumped = portal.tenants.daemon.log()
    assert token not in dumped
    assert said["session"] not in dumped


def test_the_removal_of_a_tenant_ends_its_sessions(portal: Portal, session: httpx.Client) -> None:
    link = portal.link("acme")
    path = "/v1/tenants/acme/subscriptions"
    assert session.get(path).status_code == 200
    assert portal.tenants.ask("DELETE", "/acme").status_code == 200
    assert session.get(path).status_code == 401
    portal.tenants.put("acme")
    assert session.get(path).status_code == 401, "it is another tenant of this name"
    assert portal.exchange(link).status_code == 401


def test_nothing_else_answers_there(portal: Portal, session: httpx.Client) -> None:
    for path in (
        "/healthz",
        "/v1/status",
        "/v1/tenants",
        "/v1/retries",
        "/metrics",
        "/openapi.json",
    ):
        assert httpx.get(portal.url + path).status_code == 401
        assert session.get(path).status_code == 404
    for method, path in (("PUT", ""), ("DELETE", ""), ("POST", "/portal")):
        assert session.request(method, f"/v1/tenants/acme{path}", json={}).status_code == 404
    assert httpx.post(f"{portal.url}/", json={}).status_code == 405
    assert session.post("/v1/tenants/acme/subscriptions", content=b"x" * 70_000).status_code == 413
    page = httpx.get(f"{portal.url}/")
    policy = page.headers["content-security-policy"]
    assert policy.endswith("frame-ancestors https://app.example.com")
    assert "unsafe" not in policy
    assert re.search(r"<script(?! src=)|<style| on\w+=| style=", page.text) is None
    assert page.headers["referrer-policy"] == "no-referrer"
    assert "set-cookie" not in page.headers


def test_what_a_tenant_does_there(
    portal: Portal, session: httpx.Client, receiver: Receiver
) -> None:
    tenants = portal.tenants
    path = "/v1/tenants/acme/subscriptions"
    made = session.post(path, json={"url": f"{receiver.url}/hook", "events": ["order.paid"]}).json()
    one = f"{path}/{made['id']}"
    assert session.get(f"{one}/secret").json()["secret"] == made["secret"]
    call = tenants.daemon.call(SHOP, tenant="acme", order=7)
    tenants.daemon.finish(call)
    until(lambda: session.get(f"{one}/deliveries").json()["retries"], "a delivery")
    tenants.daemon.settle()
    [delivery] = session.get(f"{one}/deliveries").json()["retries"]
    assert (delivery["event"], delivery["status"]) == ("order.paid", "succeeded")
    assert SHOP not in json.dumps(delivery), "tenants know events by their public names"
    whole = session.get(f"{one}/deliveries/{delivery['id']}").json()
    assert json.loads(whole["payload"])["data"] == {"order": 7}
    assert [attempt["status_code"] for attempt in whole["attempt_log"]] == [200]
    assert session.post(f"{one}/deliveries/{delivery['id']}/retry").status_code == 202
    until(lambda: receiver.count("/hook") == 2, "that it is sent again")
    assert session.post(f"{one}/test").status_code == 202
    until(lambda: receiver.count("/hook") == 3, "the test")
    assert session.patch(one, json={"enabled": False}).json()["enabled"] is False
    tenants.daemon.finish(tenants.daemon.call(SHOP, tenant="acme", order=8))
    tenants.daemon.settle()
    missed = session.get(f"{one}/deliveries", params={"status": "failed"}).json()["retries"]
    assert [one["reason"] for one in missed] == ["webhook_disabled"]
    assert "orchestratorctl" not in json.dumps(missed)
    assert session.patch(one, json={"enabled": True}).json()["enabled"] is True
    assert session.post(f"{one}/replay", json={"since": "1h"}).json()["matched"] == 1
    until(lambda: receiver.count("/hook") == 4, "what it missed")
    refused = session.post(path, json={"url": "http://10.0.0.1/hook"})
    assert refused.status_code == 422
    assert session.delete(one).status_code == 200
    assert session.get(one).status_code == 404


def filled(path: str, names: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: names.get(found[1], "x"), path)


def asked(document: Any, names: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Every method and path of an OpenAPI description, with these names."""
    for path, methods in document["paths"].items():
        for method in methods.keys() & {"get", "put", "post", "patch", "delete"}:
            yield method.upper(), filled(path, names)


def test_a_session_sees_nothing_of_another_tenant(
    portal: Portal, session: httpx.Client, receiver: Receiver
) -> None:
    """Every route of the description, so that a new one is tried as well."""
    tenants, daemon = portal.tenants, portal.tenants.daemon
    mine = tenants.add("acme", "/mine")
    theirs = tenants.add("globex", f"/{MARK}", description=MARK)
    tasks = {}
    for tenant in ("acme", "globex"):
        daemon.finish(daemon.call(SHOP, tenant=tenant, order=1))
        daemon.settle()
        [tasks[tenant]] = daemon.tasks(kind="webhook", webhook=f"{tenant}/*") or [{}]
    document = daemon.get("/openapi.json").json()
    before = tenants.ask("GET", tenants.one(theirs)).json()
    paths = list(document["paths"])
    assert any("{task}" in path for path in paths)
    task = str(tasks["globex"]["id"])
    tried = 0
    for names in (
        {"tenant": "globex", "id": theirs["id"], "task": task},
        {"tenant": "acme", "id": theirs["id"], "task": task},
        {"tenant": "acme", "id": mine["id"], "task": task},
        {"tenant": "acme", "id": mine["id"], "task": task, "api": "shop", "name": "orderPaid"},
        {"tenant": "acme%2F..%2Fglobex", "id": theirs["id"], "task": task},
        {"tenant": "globex", "id": f"{theirs['id']}%00", "task": task},
    ):
        for method, path in asked(document, names):
            of_mine = names["tenant"] == "acme" and names["id"] == mine["id"]
            if of_mine and method in ("DELETE", "PATCH"):
                continue
            answer = session.request(method, path, json={} if method != "GET" else None)
            tried += 1
            assert MARK not in answer.text, (method, path)
            assert theirs["secret"] not in answer.text
            allowed = path in ("/", "/v1/tenants/acme/subscriptions") or (
                of_mine and f"/deliveries/{task}" not in path
            )
            assert allowed or answer.status_code == 404, (method, path, answer.status_code)
    assert tried > 6 * 60
    daemon.settle()
    assert receiver.count(f"/{MARK}") == 1, "nothing of theirs was sent again"
    assert tenants.ask("GET", tenants.one(theirs)).json() == before
