"""Statements of a running daemon on a real PostgreSQL."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

UPSERT = """
INSERT INTO items (id, name) VALUES (:id, :name)
ON CONFLICT (id) DO UPDATE SET name = excluded.name, times = items.times + 1
"""
PARAMS = {"id": {"type": "integer", "required": True}, "name": {"type": "string"}}


class Stage:
    """A daemon and its warehouse."""

    def __init__(self, daemon: Daemon, server: Postgres, url: str) -> None:
        self.daemon = daemon
        self.server = server
        self.name = url.rpartition("/")[2]

    def run(self, statement: str) -> list[Any]:
        return self.server.run(self.name, statement)

    def statement(self, name: str, text: str, **keys: Any) -> str:
        declared = {"type": "sql", "database": "warehouse", "statement": text, **keys}
        self.daemon.write(f"apis/stock/endpoints/{name}.yaml", declared)
        return f"stock/{name}"

    def active(self) -> list[str]:
        """What is executed."""
        found = self.run(
            "SELECT query FROM pg_stat_activity WHERE datname = current_database() "
            "AND state <> 'idle' AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return [query for (query,) in found]


@pytest.fixture
def stage(make_daemon: MakeDaemon, postgres: Postgres) -> Iterator[Stage]:
    url = postgres.create()
    daemon = make_daemon(
        databases={"warehouse": {"url": url}},
        defaults={"retry": retry("300ms"), "timeout": "10s"},
    )
    stage = Stage(daemon, postgres, url)
    stage.run("CREATE TABLE items (id integer PRIMARY KEY, name text, times integer DEFAULT 1)")
    yield stage
    postgres.drop(url)


def test_a_deadlock_is_retried_and_succeeds(stage: Stage, receiver: Receiver) -> None:
    receiver.reply("/hooks/", lambda request: Answer(204))
    stage.run("INSERT INTO items VALUES (1, 'a'), (2, 'b')")
    # Each goes on once both have a row: what a sequence gives is no part of a transaction.
    stage.run("CREATE SEQUENCE have_one")
    stage.run(
        "CREATE FUNCTION touch(a int, b int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN "
        "UPDATE items SET times = times + 1 WHERE id = a; PERFORM nextval('have_one'); "
        "WHILE (SELECT last_value < 2 FROM have_one) LOOP PERFORM pg_sleep(0.01); END LOOP; "
        "UPDATE items SET times = times + 1 WHERE id = b; END $$"
    )
    hook = {"name": "ops", "phase": "after_execute", "status_code": "error",
            "url": f"{receiver.url}/hooks/ops"}  # fmt: skip
    touch = stage.statement(
        "touch",
        "SELECT touch(:a, :b)",
        params={name: {"type": "integer", "required": True} for name in "ab"},
        webhooks=[hook],
        retry={**retry("500ms"), "jitter": 1},
    )
    stage.daemon.start()
    ids = stage.daemon.batch(touch, [{"a": 1, "b": 2}, {"a": 2, "b": 1}])
    tasks = [stage.daemon.finish(task_id) for task_id in ids]
    assert [task["status"] for task in tasks] == ["succeeded"] * 2
    errors = [entry["error"] for task in tasks for entry in task["attempt_log"] if entry["error"]]
    assert errors
    assert all(error.startswith("40P01: deadlock detected") for error in errors)
    # It is not idempotent; but what was rolled back was not done.
    assert stage.run("SELECT times FROM items") == [(3,), (3,)]
    stage.daemon.settle()
    (told, *_) = receiver.received()
    assert told.json()["data"]["error"].startswith("40P01")
    assert told.json()["data"]["next_try"] is not None


def test_a_deadline_ends_the_statement_in_the_database(stage: Stage) -> None:
    sleep = "SELECT pg_sleep(60)"
    endpoint = stage.statement("sleep", sleep, timeout="2s", retry=retry(attempts=1))
    stage.daemon.start()
    began = time.monotonic()
    task_id = stage.daemon.call(endpoint)
    until(lambda: stage.active() == [sleep], "the statement to run")
    task = stage.daemon.finish(task_id)
    assert time.monotonic() - began < 40
    assert stage.active() == []
    assert task["reason"] == "exhausted"
    assert task["last_error"] == "did not end within 2s, and was cancelled in the database"
    assert 2000 <= task["attempt_log"][0]["duration_ms"] < 10_000


COUNT = 1_000
"""Statements that take some seconds, on a quick machine too."""


def test_a_kill_in_the_middle(stage: Stage) -> None:
    """What is idempotent is done in the end, each once at least; what is not waits for a person."""
    insert = "INSERT INTO items SELECT -1, 'x' FROM pg_sleep(3)"
    put = stage.statement("put", UPSERT, params=PARAMS, idempotent=True)
    slow = stage.statement("slow", insert, timeout="4s")
    stage.daemon.start()
    stuck = stage.daemon.call(slow)
    until(lambda: insert in stage.active(), "the slow one to run")
    stage.daemon.batch(put, [{"id": n, "name": "x"} for n in range(COUNT)])
    until(lambda: stage.run("SELECT count(*) FROM items")[0][0] > 50, "some of them")
    stage.daemon.kill()
    done = stage.run("SELECT count(*) FROM items")[0][0]
    assert done < COUNT
    stage.daemon.start()
    stage.daemon.settle()
    assert stage.daemon.task(stuck)["reason"] == "ambiguous"
    counts = Counter(times for (times,) in stage.run("SELECT times FROM items WHERE id >= 0"))
    assert sum(counts.values()) == COUNT
    assert set(counts) <= {1, 2}
    # The database ends what nobody waits for, and nothing of it is left.
    until(lambda: stage.active() == [], "the end of the slow one")
    assert stage.run("SELECT * FROM items WHERE id = -1") == []


def test_what_dies_with_its_database_is_tried_again(
    stage: Stage, postgres: Postgres, receiver: Receiver
) -> None:
    insert = "INSERT INTO items SELECT :id, 'x' FROM pg_sleep(0.5)"
    put = stage.statement("put", insert, params=PARAMS)
    stage.daemon.start()
    task_id = stage.daemon.call(put, id=1)
    until(stage.active, "the statement to run")
    stage.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'INSERT%'")
    task = stage.daemon.finish(task_id)
    assert (task["status"], task["attempts"]) == ("succeeded", 2)
    assert task["attempt_log"][0]["error"].startswith("57P01: terminating connection")
    assert stage.run("SELECT times FROM items") == [(1,)]


def test_the_password_is_nowhere(stage: Stage) -> None:
    put = stage.statement("put", "INSERT INTO items (id, name) VALUES (:id, :name)", params=PARAMS)
    stage.daemon.start()
    task = stage.daemon.finish(stage.daemon.call(put, id=1, name="my s3cret"))
    assert task["params"]["name"] == "my ***"
    shown = stage.daemon.get("/v1/endpoints/stock/put").text + str(stage.daemon.status())
    shown += stage.daemon.get("/metrics").text + stage.daemon.log()
    assert "s3cret" not in shown
    # What is bound is what was given.
    assert stage.run("SELECT name FROM items") == [("my s3cret",)]
