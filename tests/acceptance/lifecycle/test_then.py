"""Calls that follow from answers: all of them, whenever the daemon dies, page after page."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Received, Receiver
from tests.acceptance.waiting import until
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

RECORDS = 1_000
TABLE = "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL)"


def rows(database: Path) -> int:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        count: int = connection.execute("SELECT count(*) FROM items").fetchone()[0]
        return count


def serve_page(receiver: Receiver) -> None:
    """All records on one page; the first answer takes its time."""
    records = [{"id": number, "name": f"thing {number}"} for number in range(RECORDS)]
    page = json.dumps({"records": records})
    receiver.on("/items", Answer(200, page, delay=0.3), Answer(200, page))


INSERT = "INSERT INTO items (id, name) VALUES (:id, :name) "


def declare(daemon: Daemon, receiver: Receiver, insert: str = INSERT) -> None:
    """What the API lists goes to the warehouse, record by record."""
    daemon.api("shop", receiver.url)
    follows: dict[str, Any] = {
        "call": "store/putItem",
        "each": "body.records",
        "params": {"id": "item.id", "name": "item.name"},
    }
    daemon.endpoint("shop/listItems", "/items", then=[follows])
    daemon.write(
        "apis/store/endpoints/putItem.yaml",
        {
            "type": "sql",
            "database": "warehouse",
            "statement": f"{insert} ON CONFLICT (id) DO UPDATE SET name = excluded.name",
            "params": {"id": {"type": "integer", "required": True}, "name": {"required": True}},
            "idempotent": True,
            "retry": retry(),
        },
    )


def test_a_thousand_records_reach_the_database_though_the_daemon_is_killed(
    make_daemon: MakeDaemon, receiver: Receiver, tmp_path: Path
) -> None:
    warehouse = tmp_path / "warehouse.db"
    with closing(sqlite3.connect(warehouse)) as connection:
        connection.execute(TABLE)
    serve_page(receiver)
    daemon = make_daemon(databases={"warehouse": {"url": f"sqlite:///{warehouse}"}})
    declare(daemon, receiver)
    daemon.start()
    list_call = daemon.call("shop/listItems")
    # First while the answer is on its way, then in the middle of what follows from it.
    until(lambda: receiver.count("/items") == 1, "the request")
    daemon.kill()
    assert rows(warehouse) == 0
    for enough in (1, RECORDS // 3, 2 * RECORDS // 3):
        daemon.start()
        until(lambda least=enough: rows(warehouse) >= least, f"{enough} rows")  # type: ignore[misc]
        daemon.kill()
    assert rows(warehouse) < RECORDS
    daemon.start()
    daemon.settle(timeout=60)
    assert rows(warehouse) == RECORDS
    tasks = daemon.tasks(endpoint="store/putItem")
    assert Counter(task["status"] for task in tasks) == {"succeeded": RECORDS}
    assert {task["parent_id"] for task in tasks} == {list_call}
    assert sorted(task["params"]["id"] for task in tasks) == list(range(RECORDS))
    shown_call = daemon.task(list_call)
    assert (shown_call["attempts"], shown_call["deaths"]) == (1, 1)
    shown = daemon.ctl("show", str(tasks[0]["id"])).out
    assert f"task {list_call}" in shown


def test_more_than_one_transaction_holds_all_the_same_though_the_daemon_is_killed(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    many = 11_000
    receiver.on("/many", Answer(200, json.dumps([*range(many)])))
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    follows = {"call": "shop/keep", "each": "body", "params": {"id": "item"}}
    daemon.endpoint("shop/many", "/many", then=[follows])
    daemon.endpoint("shop/keep", "/keep", params={"id": {"type": "integer"}})
    daemon.start()
    # What follows waits, so that it can be counted.
    daemon.post("/v1/endpoints/shop/keep/pause")

    def counts() -> Counter[int]:
        found = daemon.rows("SELECT params FROM retry_schedule WHERE parent_id = ?", task_id)
        return Counter(json.loads(row["params"])["id"] for row in found)

    task_id = daemon.call("shop/many")
    for times in (1, 2):
        assert daemon.finish(task_id)["status"] == "succeeded"
        daemon.kill()  # at once, within the second slice, or after it
        daemon.start()
        until(lambda: daemon.rows("SELECT count(*) AS n FROM chores")[0]["n"] == 0, "slices")
        assert counts() == dict.fromkeys(range(many), times)
        if times < 2:
            daemon.post(f"/v1/retries/{task_id}/trigger", {"force": True})
            until(lambda: daemon.task(task_id)["attempts"] > times, "the next attempt")  # noqa: B023
    assert daemon.rows("SELECT count(*) AS n FROM attempts")[0]["n"] == 2


def test_the_same_with_two_daemons_on_one_postgresql(
    make_daemon: MakeDaemon, receiver: Receiver, postgres: Postgres
) -> None:
    """Whoever is killed, the other one goes on where that was."""
    queue, warehouse = postgres.create(), postgres.create()
    name = warehouse.rpartition("/")[2]
    postgres.run(name, TABLE)
    serve_page(receiver)
    fleet = [
        make_daemon(database=queue, lease="3s", databases={"warehouse": {"url": warehouse}})
        for _ in range(2)
    ]
    # It takes its time, so that both have a part in it.
    slow = "INSERT INTO items SELECT :id::int, :name::text FROM pg_sleep(0.03) "
    for daemon in fleet:
        daemon.expect(r"a password is written out here")
        declare(daemon, receiver, slow)
        daemon.start()
    one, two = fleet

    def rows() -> int:
        count: int = postgres.run(name, "SELECT count(*) FROM items")[0][0]
        return count

    list_call = one.call("shop/listItems")
    until(lambda: receiver.count("/items") == 1, "the request")
    one.kill()
    one.start()
    until(lambda: rows() >= RECORDS // 3, "some rows of both")
    two.kill()
    assert rows() < RECORDS
    one.settle(timeout=60)
    assert rows() == RECORDS
    tasks = one.tasks(endpoint="store/putItem")
    assert Counter(task["status"] for task in tasks) == {"succeeded": RECORDS}
    assert {task["parent_id"] for task in tasks} == {list_call}
    assert sorted(task["params"]["id"] for task in tasks) == list(range(RECORDS))
    listed = one.task(list_call)
    assert (listed["attempts"], listed["deaths"]) == (1, 1)
    for daemon in fleet:
        daemon.stop()
    for url in (queue, warehouse):
        postgres.drop(url)


def test_page_after_page_up_to_a_limit(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    def page(request: Received) -> Answer:
        number = int(request.query["page"])
        link = f'<{receiver.url}/list?page={number + 1}&size=2>; rel="next"'
        items = [{"id": f"{number}-{item}"} for item in range(2)]
        return Answer(200, json.dumps(items), {"Link": link} if number < 6 else {})

    receiver.reply("/list", page)
    receiver.reply("/item/", lambda request: Answer(204))
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    next_page = {
        "call": "shop/list",
        "when": "link(headers.link, 'next')",
        "params": {"page": "to_number(query(link(headers.link, 'next'), 'page'))"},
        "limit": 4,
    }
    each = {"call": "shop/item", "each": "body", "params": {"id": "item.id"}}
    keys = {
        "params": {"page": {"type": "integer", "default": 1}},
        "query": {"page": "{{ params.page }}"},
    }
    daemon.endpoint("shop/list", "/list", then=[each, next_page], **keys)
    daemon.endpoint("shop/item", "/item/{{ params.id }}", params={"id": {"type": "string"}})
    daemon.start()
    first = daemon.call("shop/list")
    daemon.settle()
    pages = daemon.tasks(endpoint="shop/list")[::-1]
    assert [task["params"]["page"] for task in pages] == [1, 2, 3, 4]
    assert [task["parent_id"] for task in pages] == [None, *(task["id"] for task in pages[:-1])]
    # The fourth would make a fifth: nothing of it follows, and somebody is told.
    *_, last = pages
    assert (last["status"], last["reason"]) == ("failed", "not_retryable")
    assert last["last_error"] == "then.1: shop/list would be call 5 of a chain, and limit is 4"
    assert receiver.count("/item/4-0") == 0
    assert len(daemon.tasks(endpoint="shop/item")) == 6
    # With a larger one it goes on from there.
    daemon.endpoint("shop/list", "/list", then=[each, {**next_page, "limit": 10}], **keys)
    daemon.reload()
    assert daemon.ctl("retry", str(last["id"]), "--wait").code == 0
    daemon.settle()
    assert {task["status"] for task in daemon.tasks()} == {"succeeded"}
    assert [task["params"]["page"] for task in daemon.tasks(endpoint="shop/list")][:3] == [6, 5, 4]
    seen = sorted(item.path for item in receiver.received() if item.path.startswith("/item/"))
    assert seen == sorted(f"/item/{number}-{item}" for number in range(1, 7) for item in range(2))
    assert first == pages[0]["id"]


def test_what_cannot_follow_is_a_failure_that_is_seen(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    bodies = '{"id": 7', '{"id": "7"}', '{"id": 7}'
    receiver.on("/order", *(Answer(201, body) for body in bodies))
    receiver.on("/told", 204)
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    failed = {"name": "dead", "phase": "on_final_failure", "url": f"{receiver.url}/told"}
    follows = {"call": "shop/pay", "params": {"order": "body.id"}}
    daemon.endpoint("shop/order", "/order", method="POST", then=[follows], webhooks=[failed])
    paid = {"order": {"type": "integer", "required": True}}
    daemon.endpoint("shop/pay", "/pay/{{ params.order }}", method="POST", params=paid)
    receiver.on("/pay/7", 204)
    daemon.start()
    order = daemon.call("shop/order")
    task = daemon.finish(order)
    assert (task["status"], task["reason"], task["last_status_code"]) == (
        "failed", "not_retryable", 201,
    )  # fmt: skip
    assert task["last_error"].startswith("then.0: the body of the answer is not JSON")
    until(lambda: receiver.count("/told") == 1, "the webhook")
    assert daemon.ctl("retry", str(order), "--wait").code == 1
    wrong = 'then.0: shop/pay: params.order: expected a whole number, not "7"'
    assert daemon.task(order)["last_error"] == wrong
    assert daemon.ctl("retry", str(order), "--wait").code == 0
    daemon.settle()
    assert receiver.count("/pay/7") == 1
    keys = {item.headers["idempotency-key"] for item in receiver.received("/order")}
    assert len(keys) == 1, "all three were the same order"


def test_expressions_take_the_reason_of_a_failure_for_a_text(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/order", 404)
    receiver.on("/ticket", 204)
    receiver.on("/told", 204)
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    told = {"name": "told", "phase": "on_final_failure", "url": f"{receiver.url}/told"}
    when = "starts_with(reason, 'not_')"
    follows = {
        "call": "shop/open",
        "on": "failure",
        "params": {"why": "join(': ', [reason, error])"},
    }
    test = {"answer": {"status_code": 404}, "expect": {"webhooks": ["told"]}}
    daemon.endpoint(
        "shop/order", "/order", then=[follows], webhooks=[told | {"when": when}], tests=[test]
    )
    why = {"why": {"type": "string", "required": True}}
    daemon.endpoint("shop/open", "/ticket", query={"why": "{{ params.why }}"}, params=why)
    assert daemon.run("test").code == 0
    daemon.start()
    daemon.finish(daemon.call("shop/order"))
    daemon.settle()
    (ticket,) = receiver.received("/ticket")
    assert ticket.query == {"why": "not_retryable: 404 Not Found"}
    assert receiver.count("/told") == 1
