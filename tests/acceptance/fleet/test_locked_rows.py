"""Somebody else's session holds a row of the database: what wants it waits, all else goes on."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from statistics import median
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from orchestratord.queue.writer import LOCKED_TOLD
from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

LOCK_TIMEOUT = 8.0
"""Seconds that a statement of the daemon's waits for a row."""
ENQUEUE = "SELECT orchestratord_enqueue('shop/one', %s)"


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    url = postgres.create()
    yield url
    postgres.drop(url)


@contextmanager
def locked(database: str, statement: str, *values: Any) -> Iterator[int]:
    """A session that holds these rows meanwhile; its pid."""
    with closing(psycopg.connect(database)) as session:
        rows = session.execute(f"{statement} FOR UPDATE", values).fetchall()
        assert rows
        yield session.info.backend_pid


def made(daemon: Daemon, receiver: Receiver) -> None:
    for path in ("/slow", "/child"):
        receiver.hold(path)
    receiver.reply("/", lambda request: Answer(200))
    receiver.on("/failing", 422)
    daemon.api("shop", receiver.url, concurrency=50)
    daemon.api("late", receiver.url, rate_limit="2/s")
    daemon.api("bank", receiver.url)
    for name in ("one", "other", "slow", "failing", "child"):
        daemon.endpoint(f"shop/{name}", f"/{name}", retry=retry())
    daemon.endpoint("late/one", "/late", retry=retry())
    daemon.endpoint("bank/pay", "/pay", retry=retry(), then=[{"call": "shop/child"}])


@dataclass
class Flow:
    """Calls of another endpoint, one after the other, while a row is locked."""

    daemon: Daemon
    ids: list[int] = field(default_factory=list)
    took: list[float] = field(default_factory=list)

    def go_on(self, seconds: float, each: Callable[[], None] = lambda: None) -> None:
        """For so long at least; all of them have ended by then, so none waits for the lock."""
        end = time.monotonic() + seconds
        while (began := time.monotonic()) < end or len(self.ids) < 20:
            self.ids.append(self.daemon.call("shop/one"))
            self.took.append(time.monotonic() - began)
            each()
            time.sleep(0.02)
        for id_ in self.ids:
            assert self.daemon.finish(id_)["status"] == "succeeded"
        assert median(self.took) < LOCK_TIMEOUT, self.took


def one_running(daemon: Daemon, receiver: Receiver) -> tuple[str, tuple[Any, ...], str | None]:
    id_ = daemon.call("shop/slow")
    until(lambda: receiver.count("/slow"), "the attempt")
    return "SELECT 1 FROM retry_schedule WHERE id = %s", (id_,), "/slow"


def an_endpoint(daemon: Daemon, receiver: Receiver) -> tuple[str, tuple[Any, ...], str | None]:
    daemon.finish(daemon.call("shop/one"))
    return "SELECT 1 FROM endpoint_state WHERE endpoint_id = 'shop/one'", (), None


def a_run(daemon: Daemon, receiver: Receiver) -> tuple[str, tuple[Any, ...], str | None]:
    id_ = daemon.call("bank/pay")
    until(lambda: receiver.count("/child"), "the call that follows")
    return "SELECT 1 FROM runs WHERE id = %s", (id_,), "/child"


def a_bulk(daemon: Daemon, receiver: Receiver) -> tuple[str, tuple[Any, ...], str | None]:
    """Of more tasks than are in flight at once in all lanes."""
    daemon.batch("shop/failing", [{}] * 300)
    daemon.settle(endpoint="shop/failing")
    before = receiver.count("/failing")
    receiver.hold("/failing")
    body = {"filter": {"status": "failed"}}
    assert daemon.post("/v1/retries/trigger", body).status_code == 202
    until(lambda: receiver.count("/failing") >= before + 50, "what the bulk retries")
    return "SELECT 1 FROM bulks", (), "/failing"


KINDS = {"a task": one_running, "an endpoint": an_endpoint, "a run": a_run, "a bulk": a_bulk}


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [
        ("a task", 10),
        ("an endpoint", 10),
        ("a run", 10),
        ("a bulk", 60),
    ],
)
def test_what_wants_a_locked_row_waits_alone(
    make_daemon: MakeDaemon, receiver: Receiver, database: str, kind: str, seconds: int
) -> None:
    daemon = make_daemon(database=database)
    made(daemon, receiver)
    daemon.expect("a password is written out here", "rows are locked by pid", "is not ready")
    with daemon.start():
        statement, values, held = KINDS[kind](daemon, receiver)
        flow = Flow(daemon)
        unready: list[float] = []
        with locked(database, statement, *values) as pid:
            began = time.monotonic()
            if held is not None:
                receiver.let_go(held)

            def look() -> None:
                if daemon.get("/readyz").status_code == 503:
                    unready.append(time.monotonic() - began)

            flow.go_on(seconds, look)
            assert min(unready) >= 4.5
            [trouble] = daemon.status()["health"]["troubles"]
            assert trouble["code"] == "database_locked"
            assert f"pid {pid} " in trouble["why"]
            assert "FOR UPDATE" in trouble["why"]
            told = daemon.run("doctor")
            assert f"pid {pid} " in told.out
        until(lambda: daemon.get("/readyz").status_code == 200, "readiness")
        daemon.settle()
        assert not daemon.tasks(status="running")
        if kind == "a bulk":
            [bulk] = daemon.get("/v1/bulks").json()["bulks"]
            assert (bulk["succeeded"], bulk["failed"]) == (300, 0)


def test_locked_rows_of_the_outbox_hold_up_none_behind_them(
    make_daemon: MakeDaemon, receiver: Receiver, database: str
) -> None:
    daemon = make_daemon(database=database)
    made(daemon, receiver)
    daemon.expect("a password is written out here")
    with daemon.start(), psycopg.connect(database) as other:
        other.execute("LOCK TABLE orchestratord_outbox IN SHARE ROW EXCLUSIVE MODE")
        for n in range(600):
            other.execute(ENQUEUE, (Jsonb({"n": n}),))
        other.commit()
        other.execute("SELECT 1 FROM orchestratord_outbox ORDER BY id LIMIT 600 FOR UPDATE")
        before = receiver.count("/one")
        with psycopg.connect(database) as shop:
            shop.execute(ENQUEUE, (Jsonb({}),))
        until(lambda: receiver.count("/one") > before, "the one behind them", 5)


def test_a_locked_rate_stops_its_api_and_a_locked_daemon_itself(
    make_daemon: MakeDaemon, receiver: Receiver, database: str
) -> None:
    one, two = (make_daemon(database=database, lease="3s") for _ in range(2))
    for daemon in (one, two):
        made(daemon, receiver)
        daemon.expect("a password is written out here", "rows are locked by pid", "is not ready")
    with one.start(), two.start():
        one.finish(one.call("late/one"))
        with locked(database, "SELECT 1 FROM rates"):
            late = one.call("late/one")
            Flow(one).go_on(3)
            assert one.task(late)["status"] == "pending"
        assert one.finish(late)["status"] == "succeeded"
        own = "SELECT 1 FROM daemons WHERE pid = %s"
        with locked(database, own, two.pid):
            Flow(one).go_on(7)
            assert one.get("/readyz").status_code == 200
            assert "database_locked" in two.get("/readyz").text


def test_a_locked_table_is_told_and_nobody_is_taken_for_dead(
    make_daemon: MakeDaemon, receiver: Receiver, database: str
) -> None:
    """As by `VACUUM FULL`, for longer than the lease, which neither could renew."""
    fleet = [make_daemon(database=database, lease="3s") for _ in range(2)]
    for daemon in fleet:
        daemon.expect("a password is written out here", "rows are locked by pid", "is not ready")
        daemon.api("shop", receiver.url)
        daemon.endpoint("shop/pay", "/pay", method="POST", timeout="2m")
    receiver.hold("/pay")
    with fleet[0].start() as one, fleet[1].start():
        ids = one.batch("shop/pay", [{}] * 20)
        until(lambda: receiver.count() == 20, "what both have in flight")
        with psycopg.connect(database) as other:
            other.execute("LOCK TABLE retry_schedule IN ACCESS EXCLUSIVE MODE")
            for ask in (
                partial(one.post, "/v1/endpoints/shop/pay/calls", {}),
                partial(one.get, "/v1/retries"),
                partial(one.get, "/v1/status"),
            ):
                answer = ask()
                assert (answer.status_code, answer.json()["code"]) == (503, "database_locked")
            told = one.run("doctor", timeout=30).out
            assert "another program has locked the database" in told
            assert f"rows are locked by pid {other.info.backend_pid} " in told
            other.rollback()
        until(lambda: one.get("/readyz").status_code == 200, "readiness")
        receiver.let_go("/pay")
        ended = [one.finish(id_) for id_ in ids]
        assert {(task["status"], task["reason"]) for task in ended} == {("succeeded", None)}
        assert receiver.count() == 20


def test_a_daemon_ends_while_a_row_is_locked(
    make_daemon: MakeDaemon, receiver: Receiver, database: str
) -> None:
    daemon = make_daemon(database=database, lease="3s", drain_timeout="1s")
    made(daemon, receiver)
    daemon.expect("a password is written out here", "cannot write task", "gave up writing task")
    daemon.expect("interrupted", "dead daemon")
    with daemon.start():
        id_ = daemon.call("shop/slow")
        until(lambda: receiver.count("/slow"), "the attempt")
        with locked(database, "SELECT 1 FROM retry_schedule WHERE id = %s", id_):
            receiver.let_go("/slow")
            time.sleep(0.5)
            began = time.monotonic()
            daemon.stop()
            assert time.monotonic() - began < 10
        daemon.start()
        assert daemon.finish(id_, 20)["status"] == "succeeded"


def test_time_in_which_the_database_was_away_is_no_time_for_which_a_row_is_locked(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/one", 200)
    with Postgres(max_prepared_transactions="2") as server:
        database = server.create()
        daemon = make_daemon(database=database)
        daemon.api("shop", receiver.url)
        daemon.endpoint("shop/one", "/one")
        daemon.expect("a password is written out here", "rows are locked by")
        with daemon.start():
            daemon.finish(daemon.call("shop/one"))
            with closing(psycopg.connect(database)) as session:  # a lock that outlives the server
                rows = "SELECT 1 FROM endpoint_state WHERE endpoint_id = 'shop/one' FOR UPDATE"
                assert session.execute(rows).fetchall()
                session.execute("PREPARE TRANSACTION 'held'")
            daemon.finish(daemon.call("shop/one"))
            server.stop(signal.SIGQUIT)
            daemon.logged("the database cannot be reached")
            time.sleep(LOCKED_TOLD + 1)
            server.start()
            back = at(daemon.logged("the database is back"))
            locked_at = at(daemon.logged("rows are locked by a prepared transaction"))
            assert locked_at >= back + LOCKED_TOLD - 0.1
            assert not server.run(database.rpartition("/")[2], "ROLLBACK PREPARED 'held'")
            daemon.logged("no row of the database is locked by others any more")


def at(line: str) -> float:
    """When a line of the log was written, in seconds."""
    return datetime.fromisoformat(line.partition(" ")[0]).timestamp()
