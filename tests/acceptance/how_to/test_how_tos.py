"""Each how-to with files or commands, carried out; those with more have tests of their own."""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from typing import Any

import orchestratord_client as oc
import psycopg
import pytest
from standardwebhooks import Webhook

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, ran, retry
from tests.acceptance.how_to.pages import of_page, page, python
from tests.acceptance.receiver import Answer, Connection, Received, Receiver
from tests.acceptance.waiting import until
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
SECRETS = {
    name: f"whsec_{base64.b64encode(name.encode().ljust(24, b'.')).decode()}"
    for name in ("ops_hook", "ops_new", "ops_old", "stripe")
} | {"pager": "r0ut1ng-key-of-pager"}


@pytest.fixture
def credentials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a daemon with the secrets that pages name, which outlive the daemon."""
    folder = tmp_path_factory.mktemp("credentials")
    for name, secret in SECRETS.items():
        (folder / name).write_text(secret)
    return {
        "CREDENTIALS_DIRECTORY": str(folder),
        "CRM_TOKEN": "t0ken-of-the-crm",
        "SLACK_HOOK": "T000/B000/s3cr3t-h00k",
    }


def children(daemon: Daemon, endpoint: str) -> list[dict[str, Any]]:
    daemon.settle()
    return daemon.tasks(endpoint=endpoint, kind="call")


def test_pages_into_postgresql(
    make_daemon: MakeDaemon, receiver: Receiver, postgres: Postgres
) -> None:
    url = postgres.create()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE customers (id bigint PRIMARY KEY, name text, changed timestamptz)"
        )
    everybody = [
        {"id": number, "name": f"No. {number}", "updated_at": "2026-11-24T22:00:00Z"}
        for number in range(230)
    ]

    def answer(request: Received) -> Answer:
        first = (int(request.query["page"]) - 1) * int(request.query["per_page"])
        return Answer(200, json.dumps({"customers": everybody[first : first + 200]}))

    receiver.reply("/customers", answer)
    daemon = of_page(
        "pages-into-postgresql", make_daemon, receiver, databases={"warehouse": {"url": url}}
    )
    daemon.expect(r"a password is written out here")
    assert daemon.run("test").code == 0
    daemon.start()
    assert daemon.ctl("call", "crm/listCustomers", "--wait").code == 0
    daemon.settle()
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT id, name FROM customers ORDER BY id").fetchall()
    assert rows == [(one["id"], one["name"]) for one in everybody]
    assert len(children(daemon, "crm/listCustomers")) == 2

    # A 200 without the list is final, unless `retry.if` has it tried again, as the page says.
    receiver.reply("/customers", lambda request: Answer(200, '{"error": "in maintenance"}'))
    failed = daemon.finish(daemon.call("crm/listCustomers"))
    assert (failed["reason"], failed["attempts"]) == ("not_retryable", 1)
    file = daemon.config / "apis/crm/endpoints/listCustomers.yaml"
    (again,) = re.findall(r"`(retry: \{if: .*?)\}`", page("pages-into-postgresql"))
    again += ", backoff: {strategy: fixed, delay: 50ms}}\n"
    file.write_text(file.read_text().replace("tests:\n", f"{again}tests:\n"))
    daemon.reload()
    id_ = daemon.call("crm/listCustomers")
    until(lambda: daemon.task(id_)["attempts"] >= 2, "another attempt")
    receiver.reply("/customers", answer)
    assert daemon.finish(id_)["status"] == "succeeded"
    daemon.settle()


def test_stripe(
    make_daemon: MakeDaemon, receiver: Receiver, credentials: dict[str, str], tmp_path: Path
) -> None:
    receiver.on("/payments/in_1", 503, 200)
    daemon = of_page("inbound-stripe", make_daemon, receiver, environ=credentials)
    daemon.start()
    file = str(daemon.config / "apis/stripe/endpoints/paid.yaml")
    assert "/in/stripe: 200" in daemon.run("inbound", "test", file).err
    paid = {"id": "in_1", "amount_paid": 4200}
    event = {"id": "evt_1", "type": "invoice.paid", "data": {"object": paid}}
    (tmp_path / "event.json").write_text(json.dumps(event))
    for _ in range(2):  # Stripe may send it twice
        ended = daemon.run("inbound", "test", file, "--body", str(tmp_path / "event.json"))
        assert ended.code == 0, ended.err
    until(lambda: receiver.count("/payments/in_1"), "the first attempt")
    (call,) = daemon.tasks(endpoint="erp/bookPayment")
    daemon.finish(call["id"])  # after its backoff
    assert [one.json() for one in receiver.received("/payments/in_1")] == [{"cents": 4200}] * 2
    assert len(daemon.tasks(endpoint="stripe/paid")) == 2
    (event_id,) = {one["parent_id"] for one in daemon.tasks(endpoint="erp/bookPayment")}
    assert "bookPayment" in daemon.ctl("show", str(event_id), "--tree").out


def test_from_celery(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.on("/messages", 200)
    daemon = of_page("from-celery", make_daemon, receiver).start()
    with oc.Client(daemon.socket) as client:
        first = client.call("mail/sendWelcome", {"user": 7}, key="welcome-7")
        assert client.call("mail/sendWelcome", {"user": 7}, key="welcome-7").id == first.id
        assert client.wait(first.id, timeout=30).succeeded
    assert [one.json() for one in receiver.received("/messages")] == [
        {"template": "welcome", "user": 7}
    ]


def test_from_cron(
    make_daemon: MakeDaemon, receiver: Receiver, credentials: dict[str, str]
) -> None:
    receiver.on("/api/sync", 200)
    daemon = of_page("from-cron", make_daemon, receiver, environ=credentials).start()
    assert "30 6 * * 1" in daemon.ctl("endpoints").out
    assert daemon.ctl("call", "crm/sync", "--wait").code == 0
    (sent,) = receiver.received("/api/sync")
    assert (sent.method, sent.headers["authorization"]) == ("POST", "Bearer t0ken-of-the-crm")
    assert daemon.ctl("pause", "crm/sync").code == 0
    assert "paused" in daemon.ctl("endpoints").out
    assert str(len(daemon.tasks())) in daemon.ctl("list", "--endpoint", "crm/sync").out


def test_from_n8n(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    tickets = [{"priority": "high", "title": "fire"}, {"priority": "low", "title": "dust"}]
    receiver.on("/tickets", Answer(200, json.dumps({"tickets": tickets})))
    receiver.on("/messages", 200)
    daemon = of_page("from-n8n", make_daemon, receiver).start()
    assert daemon.ctl("call", "tickets/listNew", "--wait").code == 0
    daemon.settle()
    assert receiver.received("/tickets")[0].query == {"status": "new"}
    assert [one.json() for one in receiver.received("/messages")] == [{"text": "fire"}]


def test_an_order_that_must_not_be_sent_twice(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    async def lost(request: Received, connection: Connection) -> None:
        connection.writer.close()

    receiver.on("/orders", lost, 200)
    receiver.on("/hook", 200)
    daemon = of_page("an-order-not-twice", make_daemon, receiver, defaults={"retry": retry()})
    daemon.start()
    words = ("call", "shop/createOrder", "-p", "item=umbrella", "--idempotency-key", "order-7")
    first, again = (daemon.ctl(*words, "-o", "json").json() for _ in range(2))
    assert first["id"] == again["id"]
    daemon.settle()
    keys = {one.headers["idempotency-key"] for one in receiver.received("/orders")}
    assert (receiver.count("/orders"), len(keys)) == (2, 1)

    receiver.forget()
    receiver.on("/orders", lost, 200)
    id_ = daemon.call("legacy/createOrder", number=9)
    assert daemon.finish(id_)["reason"] == "ambiguous"
    daemon.settle()
    (asked,) = receiver.received("/hook")
    assert asked.json()["text"].startswith("order 9 needs a person: ")
    assert str(id_) in daemon.ctl("list", "--reason", "ambiguous").out
    assert daemon.ctl("resolve", str(id_), "--as", "succeeded").code == 0
    assert daemon.task(id_)["status"] == "succeeded"
    assert receiver.count("/orders") == 1


def test_alerts(make_daemon: MakeDaemon, receiver: Receiver, credentials: dict[str, str]) -> None:
    for path in ("/services/T000/B000/s3cr3t-h00k", "/v2/enqueue"):
        receiver.on(path, 202)
    receiver.on("/gone", 404)
    daemon = of_page(
        "alerts", make_daemon, receiver, environ=credentials, plugins={"dirs": ["plugins"]}
    )
    (block,) = python("alerts")
    daemon.plugin("pages", block)
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/getOrder", "/gone")
    daemon.start()
    id_ = daemon.call("shop/getOrder")
    daemon.settle()
    (told,) = receiver.received("/services/T000/B000/s3cr3t-h00k")
    assert told.json()["text"] == f":rotating_light: shop/getOrder, task {id_}: 404 Not Found"
    (paged,) = receiver.received("/v2/enqueue")
    assert paged.json() == {
        "routing_key": SECRETS["pager"],
        "event_action": "trigger",
        "dedup_key": "shop/getOrder not_retryable",
        "payload": {
            "summary": "shop/getOrder failed, not_retryable: 404 Not Found",
            "source": "orchestratord",
            "severity": "error",
        },
    }
    assert daemon.ctl("webhooks", "test", "shop/getOrder", "slack").code == 0
    daemon.settle()
    assert receiver.count("/services/T000/B000/s3cr3t-h00k") == 2
    tried = ("explain", "shop/getOrder", "--phase", "on_final_failure", "--status-code", "500")
    assert "rotating_light" in daemon.run(*tried).out


def test_rotate_a_secret(
    make_daemon: MakeDaemon, receiver: Receiver, credentials: dict[str, str]
) -> None:
    receiver.on("/hook", 200)
    daemon = of_page("rotate-a-secret", make_daemon, receiver, environ=credentials).start()
    assert daemon.ctl("webhooks", "test", "salesforce/getUsers", "ops").code == 0
    daemon.settle()
    (sent,) = receiver.received("/hook")
    for name in ("ops_new", "ops_old"):
        Webhook(SECRETS[name]).verify(sent.body, dict(sent.headers))


def test_check_in_ci() -> None:
    for words, last in (
        (("check", "-o", "github"), ""),
        (("test", "-o", "junit"), "</testsuite>"),
    ):
        config = ["--config", str(ROOT / "config"), "--pretend-secrets"]
        done = ran(["orchestratord", *words, *config], {"PATH": os.environ["PATH"]})
        assert done.code == 0, done.err
        assert done.out.rstrip().endswith(last)


def test_from_sqlite_to_a_fleet(
    make_daemon: MakeDaemon, receiver: Receiver, postgres: Postgres
) -> None:
    receiver.on("/order", 200)
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/getOrder", "/order")
    daemon.start()
    id_ = daemon.call("shop/getOrder", "1h")
    assert daemon.stop() == 0
    url = postgres.create()
    moved = daemon.run("move-queue", f"sqlite:///{daemon.database}", url)
    assert moved.code == 0, moved.err
    daemon.expect(r"a password is written out here")
    daemon.write("orchestratord.yaml", {**daemon.settings, "database": url})
    assert daemon.run("check").code == 0
    daemon.start()
    assert daemon.ctl("status").code == 0
    assert daemon.ctl("retry", str(id_), "--wait").code == 0
    assert receiver.count("/order") == 1
