"""Runs: what a call has led to, its end told once, whatever becomes of the daemon."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Received, Receiver
from tests.acceptance.waiting import until
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

ROWS_EACH = int(os.environ.get("RUN_ROWS", "20"))
"""Rows of a page; 1,000 for the long form."""
PAGES = 20
KILLS = int(os.environ.get("RUN_KILLS", "2"))
"""10 for the long form."""


def serve(receiver: Receiver, broken: set[int], rows_each: int, pages: int) -> None:
    """Pages with rows; those in `broken` answer 500."""

    def page(request: Received) -> Answer:
        number = int(request.query["page"])
        if number in broken:
            return Answer(500, '{"error": {"message": "the page is broken"}}')
        first = number * rows_each
        return Answer(200, json.dumps({"rows": [*range(first, first + rows_each)]}))

    receiver.on("/list", Answer(200, json.dumps({"pages": [*range(pages)]})))
    receiver.reply("/page", page)
    receiver.reply("/hooks", lambda request: Answer(204))


def declare(daemon: Daemon, receiver: Receiver, database: str) -> None:
    daemon.api("shop", receiver.url, retry=retry(attempts=2))
    hook = {"name": "done", "phase": "on_run_end", "url": f"{receiver.url}/hooks/done"}
    daemon.endpoint(
        "shop/list", "/list",
        webhooks=[hook, {"name": "ops", "phase": "on_success", "url": f"{receiver.url}/hooks/ops"}],
        then=[
            {"call": "shop/page", "each": "body.pages", "params": {"page": "item"}},
            {"call": "shop/report", "on": "run_end",
             "params": {"failed": "counts.failed", "end": "end"}},
        ],
    )  # fmt: skip
    daemon.endpoint(
        "shop/page", "/page", query={"page": "{{ params.page }}"},
        params={"page": {"type": "integer", "required": True}},
        then=[
            {"call": "stock/put", "each": "body.rows", "params": {"id": "item"}},
            {"call": "shop/alert", "on": "failure",
             "params": {"page": "params.page", "why": "reason", "code": "status_code",
                        "said": "body.error.message"}},
        ],
    )  # fmt: skip
    daemon.endpoint(
        "shop/alert", "/hooks/alert", method="POST", idempotent=True,
        params={"page": {}, "why": {}, "code": {}, "said": {}}, body={"json": "{{ params }}"},
    )  # fmt: skip
    daemon.endpoint(
        "shop/report", "/hooks/report", method="POST", idempotent=True,
        params={"failed": {}, "end": {}}, body={"json": "{{ params }}"},
    )  # fmt: skip
    daemon.write(
        "apis/stock/endpoints/put.yaml",
        {
            "type": "sql",
            "database": "warehouse",
            "statement": "INSERT INTO items (id) VALUES (:id) ON CONFLICT (id) DO NOTHING",
            "params": {"id": {"type": "integer", "required": True}},
            "idempotent": True,
        },
    )


def told(receiver: Receiver, end: int) -> dict[str, Any]:
    """What the `end`th delivery of the end says; there are no more than these. One that a kill came
    upon may have been sent twice."""

    def of_ends() -> dict[str, Received]:
        return {one.headers["webhook-id"]: one for one in receiver.received("/hooks/done")}

    until(lambda: len(of_ends()) >= end, f"end {end}", timeout=240)
    ends = [*of_ends().values()]
    assert len(ends) == end
    data: dict[str, Any] = ends[-1].json()["data"]
    return data


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_sync_ends_once_though_the_daemon_is_killed_and_again_after_a_retry(
    make_daemon: MakeDaemon, receiver: Receiver, postgres: Postgres, kind: str
) -> None:
    warehouse, queue = postgres.create(), postgres.create()
    name = warehouse.rpartition("/")[2]
    postgres.run(name, "CREATE TABLE items (id integer PRIMARY KEY)")
    settings = {"database": queue} if kind == "postgresql" else {}
    daemon = make_daemon(
        databases={"warehouse": {"url": warehouse}}, lease="3s", concurrency=50, **settings
    )
    broken = {7}
    serve(receiver, broken, ROWS_EACH, PAGES)
    declare(daemon, receiver, warehouse)
    daemon.expect(r".*")  # a daemon that is killed is missed by its PostgreSQL
    daemon.start()
    root = daemon.call("shop/list")

    def rows() -> int:
        [(count,)] = postgres.run(name, "SELECT count(*) FROM items")
        return int(count)

    whole = (PAGES - 1) * ROWS_EACH
    chance = random.Random(17)
    for kill in range(KILLS):
        least = whole * (kill + 1) // KILLS - 1  # the last time at the very end
        until(lambda least=least: rows() >= least, "rows", timeout=240)
        time.sleep(chance.random() * 0.2)
        daemon.kill()
        daemon.start()
    data = told(receiver, 1)
    total = 1 + PAGES + whole + 1  # the failed page has an alert
    assert data["counts"] == {
        "total": total, "succeeded": total - 1, "failed": 1, "cancelled": 0
    }  # fmt: skip
    assert (data["end"], data["run_id"], data["status_code"]) == (1, root, "error")
    assert data["failed_endpoints"] == {"shop/page": 1}
    [error] = data["first_errors"]
    assert (error["endpoint"], error["reason"], error["status_code"]) == (
        "shop/page", "exhausted", 500
    )  # fmt: skip
    assert rows() == whole
    # The failing page's `on: failure` ran, and what follows from the end is a run of its own.
    alerts = {one.body for one in receiver.received("/hooks/alert")}
    assert [json.loads(one) for one in alerts] == [
        {"page": 7, "why": "exhausted", "code": 500, "said": "the page is broken"}
    ]
    until(lambda: daemon.tasks(endpoint="shop/report", status="succeeded"), "the report")
    [report] = daemon.tasks(endpoint="shop/report")
    assert (report["run_id"], report["params"]) == (None, {"failed": 1, "end": 1})

    run = daemon.get(f"/v1/runs/{root}", limit=1000).json()
    assert (run["status"], run["end"], run["counts"]["total"]) == ("ended", 1, total)
    assert len(daemon.tasks(run=root, endpoint="shop/page")) == PAGES
    page = daemon.tasks(run=root, status="failed")[0]["id"]
    tree = daemon.ctl("show", str(page), "--tree").out
    assert f"{root} shop/list" in tree
    assert f"─ {page} shop/page" in tree

    broken.clear()
    daemon.post(f"/v1/retries/{page}/trigger", {})
    data = told(receiver, 2)
    assert data["end"] == 2
    assert data["counts"] == {
        "total": total + ROWS_EACH, "succeeded": total + ROWS_EACH, "failed": 0, "cancelled": 0
    }  # fmt: skip
    assert (data["status_code"], data["first_errors"]) == ("ok", [])
    assert rows() == PAGES * ROWS_EACH
    time.sleep(1.5)
    told(receiver, 2)
    assert daemon.stop() == 0  # it could not write of its end in a database that is gone
    postgres.drop(queue)
    postgres.drop(warehouse)


RECORD = """
import logging
from orchestratord import NewTask, hookimpl

@hookimpl
def on_run_end(run, outcome, task, endpoint, config):
    logging.getLogger("orchestratord.record").warning(
        "ended %s %s %s %s %s %s", run.id, run.end, run.succeeded, run.failed, run.cancelled,
        outcome.status_code,
    )
    if task.params.get("more"):
        return [NewTask("call", "shop/leaf", parent_id=task.id)]
"""


@pytest.fixture
def chain(make_daemon: MakeDaemon, receiver: Receiver) -> Daemon:
    """A call that is followed by two, of which one waits; with a plugin that hears of ends."""
    daemon = make_daemon(plugins={"dirs": ["plugins"]})
    daemon.plugin("record", RECORD)
    daemon.api("shop", receiver.url, retry=retry(attempts=1))
    daemon.endpoint(
        "shop/root", "/root", params={"more": {"type": "boolean"}, "bare": {"type": "boolean"}},
        then=[{"call": f"shop/{name}", "when": "!(params.bare)"} for name in ("leaf", "slow")],
    )  # fmt: skip
    daemon.endpoint("shop/leaf", "/leaf")
    daemon.endpoint("shop/slow", "/slow")
    for path in ("/root", "/leaf", "/slow"):
        receiver.on(path, Answer(200, "{}"))
    daemon.start()
    return daemon


def ends(daemon: Daemon, run_id: int, count: int) -> list[str]:
    """The ends of a run, as the plugin heard of them."""
    found = until(
        lambda: (
            lines
            if len(lines := [x for x in daemon.log().splitlines() if f"ended {run_id} " in x])
            >= count
            else None
        ),
        f"end {count} of run {run_id}",
        timeout=20,
    )
    return [line[line.index("ended") :] for line in found]


def test_cancelled_calls_end_a_run_and_a_single_call_is_one(chain: Daemon) -> None:
    chain.post("/v1/endpoints/shop/slow/pause")
    root = chain.call("shop/root", None, more=True)
    until(lambda: len(chain.tasks(parent=root)) == 2, "child tasks")
    [slow] = chain.tasks(endpoint="shop/slow")
    run = chain.get(f"/v1/runs/{root}").json()
    assert (run["status"], run["end"], run["counts"]["pending"]) == ("running", 0, 1)
    assert run["tasks"][0]["id"] == root
    chain.ctl("cancel", str(slow["id"]))
    assert ends(chain, root, 1) == [f"ended {root} 1 2 0 1 error"]
    # What follows from the end is a run of its own, and a single call is one as well.
    following = until(
        lambda: [one for one in chain.tasks(endpoint="shop/leaf") if one["run_id"] != root],
        "what follows from the end",
    )
    assert ends(chain, following[0]["id"], 1) == [f"ended {following[0]['id']} 1 1 0 0 ok"]
    chain.post("/v1/endpoints/shop/slow/resume")
    chain.post(f"/v1/retries/{slow['id']}/trigger", {})
    assert ends(chain, root, 2)[1] == f"ended {root} 2 3 0 0 ok"
    bare = chain.call("shop/root", None, bare=True)
    assert ends(chain, bare, 1) == [f"ended {bare} 1 1 0 0 ok"]
    counted = Counter(task["run_id"] for task in chain.tasks())
    assert counted[root] == 3


def test_runs_are_listed_and_their_tree_has_deliveries(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = make_daemon()
    daemon.api("shop", receiver.url, retry=retry(attempts=1))
    hooks = [{"name": "told", "phase": "on_success", "url": f"{receiver.url}/hooks/told"}]
    daemon.endpoint("shop/root", "/root", then=[{"call": "shop/leaf"}])
    daemon.endpoint("shop/leaf", "/leaf", webhooks=hooks)
    for path in ("/root", "/leaf"):
        receiver.on(path, Answer(200, "{}"))
    receiver.on("/hooks/told", 204)
    daemon.start()
    assert "There are no runs." in daemon.ctl("runs").err
    first, second = daemon.call("shop/root"), daemon.call("shop/root")
    until(lambda: receiver.count("/hooks/told") == 2, "deliveries")
    daemon.settle()

    def ended() -> bool:
        listed = daemon.ctl("runs", "-o", "json").json()["runs"]
        return [(run["id"], run["status"]) for run in listed] == [
            (second, "ended"), (first, "ended"),
        ]  # fmt: skip

    until(ended, "the end of both")
    assert daemon.get("/v1/runs", status="running").json() == {"runs": [], "next": None}
    page = daemon.get("/v1/runs", limit=1).json()
    assert (page["runs"][0]["counts"]["total"], page["next"]) == (2, second)
    [older] = daemon.get("/v1/runs", limit=1, after=page["next"]).json()["runs"]
    assert older["id"] == first
    assert daemon.get("/v1/runs", status="open").status_code == 422
    assert "shop/root" in daemon.ctl("runs", "--limit", "1").out

    [leaf] = daemon.tasks(parent=first)
    [told] = daemon.deliveries(leaf["id"])
    tree = daemon.ctl("show", str(first), "--tree").out
    assert f"   └─ {told['id']} shop/leaf → told  succeeded 204" in tree
    listed = daemon.ctl("list", "--parent", str(leaf["id"]), "-o", "json").json()["retries"]
    assert [task["id"] for task in listed] == [told["id"]]
    assert daemon.ctl("schedules").err == "No endpoint has a schedule.\n"
