"""An address is its tenant's: a token that only reads finds it nowhere, and the log has none."""

from __future__ import annotations

import httpx

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.processes import free_port
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.subscriptions.tenants import MakeTenants, Tenants, declare, settings
from tests.acceptance.subscriptions.test_portal import asked
from tests.acceptance.subscriptions.test_subscriptions import SHOP
from tests.acceptance.waiting import until

READ, WRITE = "r" * 24, "w" * 24
HOST, PATH = "hooks-of-acme.invalid", "path-of-acme"
PAGES = ("/", "/retries", "/tenants", "/webhooks", "/endpoints", "/status")


def test_a_token_that_only_reads_sees_no_address(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    """Every route of the description, so that a new one is tried as well."""
    bind = f"127.0.0.1:{free_port()}"
    said = settings(receiver, retry={"backoff": {"strategy": "fixed", "delay": "1h"}})
    http = {"bind": bind, "token": WRITE, "read_token": READ}
    daemon = make_daemon(subscriptions=said, http=http)
    declare(daemon)
    receiver.reply("/", lambda request: Answer(429, headers={"Retry-After": "600"}))
    daemon.start()
    tenants = Tenants(daemon, receiver.url)
    tenants.put("acme")
    made = tenants.add("acme", f"/{PATH}")
    unresolved = {"url": f"http://{HOST}:{receiver.port}/{PATH}"}
    assert tenants.ask("POST", "/acme/subscriptions", unresolved).status_code == 201
    daemon.call(SHOP, tenant="acme", order=1)
    tasks = daemon.tasks(tenant="acme")
    until(lambda: all(one["attempts"] for one in daemon.tasks(tenant="acme")), "an attempt of each")
    [waits] = until(
        lambda: [one["name"] for one in daemon.status()["throttled"] if "#acme/" in one["name"]],
        "the lane that waits",
    )
    assert waits.startswith(f"subscriptions#acme/{made['id']}~")
    document, tried = daemon.get("/openapi.json").json(), 0
    authorized = {"Authorization": f"Bearer {READ}"}
    with httpx.Client(base_url=f"http://{bind}", headers=authorized) as reader:
        for task in tasks:
            names = {"tenant": "acme", "api": "shop", "name": "orderPaid", "id": str(task["id"])}
            paths = [path for method, path in asked(document, names) if method == "GET"]
            for path in {*paths, *PAGES, f"/retries/{task['id']}"} - {"/v1/events"}:
                answer = reader.get(path)
                tried += answer.status_code == 200
                assert HOST not in answer.text, path
                assert PATH not in answer.text, path
    assert tried > 30
    assert HOST not in daemon.log()
    assert PATH not in daemon.log()
    errors = {str(one["last_error"]) for one in daemon.tasks(tenant="acme")}
    assert any(error.startswith("its host cannot be resolved") for error in errors)


def test_operators_see_the_id_of_a_delivery_and_not_its_request(
    make_tenants: MakeTenants, receiver: Receiver
) -> None:
    tenants = make_tenants()
    tenants.put("acme")
    tenants.add("acme")
    tenants.daemon.call(SHOP, tenant="acme", order=1)
    tenants.daemon.settle()
    [task] = tenants.daemon.tasks(tenant="acme")
    [sent] = receiver.received("/hook")
    assert tenants.daemon.task(task["id"])["idempotency_key"] == sent.headers["webhook-id"]
    answer = tenants.daemon.get(f"/v1/retries/{task['id']}/request")
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("no file declares subscriptions")
