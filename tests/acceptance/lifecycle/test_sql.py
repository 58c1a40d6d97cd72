"""Statements of a running daemon: webhooks, retries, a kill, and what people see."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

SCHEMA = "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL)"
INSERT = "INSERT INTO items (id, name) VALUES (:id, :name)"
PARAMS = {"id": {"type": "integer", "required": True}, "name": {"type": "string"}}
SLOW = (
    "INSERT INTO items WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n) "
    "SELECT i, 'slow' FROM n"
)
INJECTION = "x'); DROP TABLE items; --"


def warehouse(daemon: Daemon) -> Path:
    """Its database."""
    return daemon.config / "warehouse.db"


def rows(daemon: Daemon, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(warehouse(daemon))) as connection:
        return connection.execute(statement).fetchall()


def statement(daemon: Daemon, name: str, text: str, **keys: Any) -> str:
    """Declare an endpoint; its id."""
    declared = {"type": "sql", "database": "warehouse", "statement": text, **keys}
    daemon.write(f"apis/stock/endpoints/{name}.yaml", declared)
    return f"stock/{name}"


def prepared(make: MakeDaemon) -> Daemon:
    daemon = make(
        databases={"warehouse": {"url": "sqlite:///warehouse.db"}},
        defaults={"retry": retry(), "timeout": "10s"},
    )
    with closing(sqlite3.connect(warehouse(daemon))) as connection:
        connection.executescript(SCHEMA)
    return daemon


@pytest.fixture
def daemon(make_daemon: MakeDaemon) -> Daemon:
    return prepared(make_daemon)


def test_webhooks_for_ok_and_for_error(daemon: Daemon, receiver: Receiver) -> None:
    receiver.reply("/hooks/", lambda request: Answer(204))
    webhooks = [
        {"name": code, "phase": "after_execute", "status_code": code,
         "url": f"{receiver.url}/hooks/{code}"}
        for code in ("ok", "error")
    ]  # fmt: skip
    webhooks.append(
        {"name": "text", "phase": "on_success", "url": f"{receiver.url}/hooks/text",
         "payload": {"did": "{{ request.statement }}", "in": "{{ request.database }}",
                     "url": "{{ request.url }}", "row": "{{ response.body }}"}}
    )  # fmt: skip
    put = statement(daemon, "put", f"{INSERT} RETURNING id", params=PARAMS, webhooks=webhooks)
    daemon.start()

    task = daemon.finish(daemon.call(put, id=1, name=INJECTION))
    assert (task["status"], task["last_status_code"]) == ("succeeded", "ok")
    assert task["response"]["status_code"] == "ok"
    body = '{"rows_affected":1,"columns":["id"],"rows":[{"id":1}],"truncated":false}'
    assert task["response"]["body"] == body
    again = daemon.finish(daemon.call(put, id=1, name="other"))
    assert (again["status"], again["reason"]) == ("failed", "not_retryable")
    assert again["last_error"] == "UNIQUE constraint failed: items.id"
    assert rows(daemon, "SELECT * FROM items") == [(1, INJECTION)]

    daemon.settle()
    received = {item.path.rpartition("/")[2]: item.json() for item in receiver.received()}
    assert received.keys() == {"ok", "error", "text"}
    data = received["ok"]["data"]
    request = {"database": "warehouse", "statement": f"{INSERT} RETURNING id"}
    assert data["request"] == {**request, "params": {"id": 1, "name": INJECTION}}
    assert (data["status_code"], data["response"]["body"]) == ("ok", body)
    assert (received["error"]["data"]["status_code"], received["error"]["data"]["response"]) == (
        "error",
        None,
    )
    assert received["text"] == {"did": request["statement"], "in": "warehouse", "url": None,
                                "row": body}  # fmt: skip


def test_people_see_it(daemon: Daemon) -> None:
    put = statement(daemon, "put", INSERT, params=PARAMS)
    statement(daemon, "all", "SELECT * FROM items")
    daemon.start()
    ran = daemon.ctl("call", put, "-p", "id=7", "-p", f"name={INJECTION}", "--wait")
    assert (ran.code, json.loads(ran.out)["rows_affected"]) == (0, 1)
    ran = daemon.ctl("call", "stock/all", "--wait")
    assert json.loads(ran.out)["rows"] == [{"id": 7, "name": INJECTION}]
    ran = daemon.ctl("call", put, "-p", "id=7", "-p", "name=x", "--wait")
    assert ran.code == 1
    assert "UNIQUE constraint failed" in ran.err
    shown = daemon.ctl("show", "2").out
    assert "Last answer: ok, application/json" in shown
    (lane,) = (lane for lane in daemon.status()["lanes"] if lane["name"] == "db:warehouse")
    assert lane["concurrency"] == 10
    assert "stock/put" in daemon.ctl("endpoints").out


def test_a_locked_database_is_tried_again_and_succeeds(
    make_daemon: MakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = prepared(make_daemon)
    put = statement(daemon, "put", INSERT, params=PARAMS, timeout="300ms")
    daemon.start()
    with closing(sqlite3.connect(warehouse(daemon), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        task_id = daemon.call(put, id=1, name="x")
        until(lambda: daemon.task(task_id)["attempt_log"], "a first attempt that failed")
    task = daemon.finish(task_id)
    assert task["status"] == "succeeded"
    log = task["attempt_log"]
    assert [entry["error"] for entry in log[:-1]] == ["database is locked"] * (len(log) - 1)
    assert rows(daemon, "SELECT id FROM items") == [(1,)]


def test_a_kill_in_the_middle_leaves_nothing_half_done(daemon: Daemon) -> None:
    slow = statement(daemon, "slow", SLOW, timeout="60s")
    safe = statement(daemon, "safe", SLOW, timeout="1s", idempotent=True, retry=retry(attempts=2))
    put = statement(daemon, "put", INSERT, params=PARAMS)
    daemon.start()
    stuck = daemon.call(slow)
    daemon.until_status(stuck, "running")
    # It writes: nobody else can.
    until(lambda: _is_locked(warehouse(daemon)), "the statement to write")
    waiting = daemon.call(put, id=1, name="x")
    started = "SELECT id FROM retry_schedule WHERE id = ? AND started_at IS NOT NULL"
    until(lambda: daemon.rows(started, waiting), "the other one to wait for its turn")
    daemon.kill()
    assert rows(daemon, "SELECT count(*) FROM items") == [(0,)]
    daemon.start()
    assert daemon.finish(stuck)["reason"] == "ambiguous"
    # It waited for its turn, and may as well have been carried out, for all the daemon knows.
    assert daemon.finish(waiting)["reason"] == "ambiguous"
    assert daemon.finish(daemon.call(safe))["reason"] == "exhausted"
    assert daemon.finish(daemon.call(put, id=1, name="x"))["status"] == "succeeded"
    assert rows(daemon, "SELECT * FROM items") == [(1, "x")]


def _is_locked(path: Path) -> bool:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        return False


def test_a_drain_cancels_what_does_not_end(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(
        databases={"warehouse": {"url": "sqlite:///warehouse.db"}}, drain_timeout="300ms"
    )
    with closing(sqlite3.connect(warehouse(daemon))) as connection:
        connection.executescript(SCHEMA)
    slow = statement(daemon, "slow", SLOW, timeout="60s", retry=retry("1h"))
    daemon.start()
    task_id = daemon.call(slow)
    until(lambda: _is_locked(warehouse(daemon)), "the statement to write")
    assert daemon.stop() == 0
    (row,) = daemon.rows("SELECT status, last_error FROM retry_schedule WHERE id = ?", task_id)
    # Known to be rolled back, so that it can be tried again though it is not idempotent.
    assert row == {
        "status": "pending",
        "last_error": "the daemon was stopped, and the statement cancelled before it was committed",
    }
    assert rows(daemon, "SELECT count(*) FROM items") == [(0,)]


def test_connections_are_used_again_and_closed_when_a_database_moves(daemon: Daemon) -> None:
    put = statement(daemon, "put", INSERT, params=PARAMS)
    daemon.start()
    daemon.batch(put, [{"id": n, "name": "x"} for n in range(300)])
    daemon.settle()
    assert rows(daemon, "SELECT count(*) FROM items") == [(300,)]
    assert 1 <= opened(daemon, warehouse(daemon)) <= 10
    with closing(sqlite3.connect(daemon.config / "other.db")) as connection:
        connection.executescript(SCHEMA)
    daemon.settings["databases"] = {"warehouse": {"url": "sqlite:///other.db"}}
    daemon.write("orchestratord.yaml", daemon.settings)
    daemon.adopt()
    assert daemon.finish(daemon.call(put, id=1, name="moved"))["status"] == "succeeded"
    assert rows(daemon, "SELECT count(*) FROM items") == [(300,)]
    until(lambda: opened(daemon, warehouse(daemon)) == 0, "the end of the first connections")
    assert opened(daemon, daemon.config / "other.db") == 1


def opened(daemon: Daemon, path: Path) -> int:
    """How often the daemon has a file open."""
    found = 0
    for link in Path(f"/proc/{daemon.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found += link.readlink() == path
    return found


def test_the_queues_own_database(make_daemon: MakeDaemon) -> None:
    """Statements and the queue wait for each other, and both get on."""
    daemon = make_daemon(defaults={"retry": retry()})
    daemon.settings["databases"] = {"warehouse": {"url": f"sqlite:///{daemon.database}"}}
    daemon.write("orchestratord.yaml", daemon.settings)
    create = statement(daemon, "create", SCHEMA)
    put = statement(daemon, "put", INSERT, params=PARAMS)
    count = statement(daemon, "count", "SELECT count(*) AS n FROM retry_schedule")
    daemon.start()
    assert daemon.finish(daemon.call(create))["status"] == "succeeded"
    daemon.batch(put, [{"id": n, "name": "x"} for n in range(200)])
    daemon.settle()
    task = daemon.finish(daemon.call(count))
    assert json.loads(task["response"]["body"])["rows"] == [{"n": 202}]
    assert daemon.rows("SELECT count(*) AS n FROM items") == [{"n": 200}]


def test_what_follows_from_rows(daemon: Daemon) -> None:
    """`then` looks at the answer of a statement as at any other."""
    put = statement(daemon, "put", INSERT, params=PARAMS)
    daemon.write(
        "apis/stock/endpoints/list.yaml",
        {
            "type": "sql",
            "database": "warehouse",
            "statement": "SELECT value AS id FROM json_each(:ids)",
            "params": {"ids": {"type": "array", "required": True}},
            "then": [{"call": put, "each": "body.rows", "params": {"id": "item.id"}}],
        },
    )
    statement(daemon, "put", "INSERT INTO items VALUES (:id, 'x')", params=PARAMS)
    daemon.start()
    assert daemon.finish(daemon.call("stock/list", ids=[3, 1, 2]))["status"] == "succeeded"
    daemon.settle()
    assert rows(daemon, "SELECT id FROM items ORDER BY id") == [(1,), (2,), (3,)]
