"""A daemon stands still between the claim of an ordered order and its first byte, as a machine that
is suspended does: nothing was sent, so the order is sent later, once, and those behind it as well.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until
from tests.acceptance.workers.crew import worker_pids
from tests.postgres import Postgres

LEASE = 3.0
STOPPED = 0.85 * LEASE
"""Seconds: more than two thirds of the lease, after which an ordered attempt may not begin."""

WAITS = """
import asyncio
from pathlib import Path

from orchestratord import hookimpl

HERE = Path(__file__).parent

@hookimpl
async def before_request():
    (HERE / "claimed").touch()
    while not (HERE / "go").exists():
        await asyncio.sleep(0.01)
"""


@contextmanager
def writers_wait(daemon: Daemon) -> Iterator[None]:
    """No worker writes the file meanwhile: the start of the order waits to be committed."""
    with (daemon.database.with_name("orchestratord.db.workers") / "turn").open("rb") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


@contextmanager
def row_is_locked(postgres: Postgres, url: str, id_: int) -> Iterator[None]:
    """The same in PostgreSQL, of the order's row."""
    import psycopg  # is an extra, and most tests need none

    with closing(psycopg.connect(postgres.url(url.rpartition("/")[2]))) as connection:
        connection.execute("SELECT 1 FROM retry_schedule WHERE id = %s FOR UPDATE", (id_,))
        yield


def stand_still(daemon: Daemon, waits: AbstractContextManager[None]) -> None:
    """Stop all of its processes for `STOPPED`, while the start of the order is on its way."""
    plugins = daemon.config / "plugins"
    until((plugins / "claimed").exists, "the claim")
    pids = [daemon.pid, *worker_pids(daemon)]
    with waits:
        (plugins / "go").touch()
        time.sleep(0.5)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(STOPPED)
    for pid in reversed(pids):
        os.kill(pid, signal.SIGCONT)


def declare(daemon: Daemon, receiver: Receiver) -> None:
    receiver.on("/order", 200)
    daemon.plugin("waits", WAITS)
    daemon.api("shop", receiver.url)
    n = {"params": {"n": {"type": "integer"}}, "query": {"n": "{{ params.n }}"}}
    ordered = {"by": "acme", "ordered": True}
    daemon.endpoint("shop/order", "/order", method="POST", partition=ordered, retry=retry(), **n)


def judge(daemon: Daemon, receiver: Receiver, ids: list[int]) -> None:
    """Each of these was sent once, in their order, and none of them counts what was not sent."""
    for id_ in ids:
        ended = daemon.finish(id_, 30)
        assert (ended["status"], ended["attempts"]) == ("succeeded", 1), ended
    assert [item.query["n"] for item in receiver.received("/order")] == ["0", "1"]


SETTINGS = {"lease": f"{LEASE}s", "plugins": {"dirs": ["plugins"]}}


def test_on_sqlite(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon(workers=2, **SETTINGS)
    declare(daemon, receiver)
    daemon.start()
    ids = [daemon.call("shop/order", n=n) for n in range(2)]
    stand_still(daemon, writers_wait(daemon))
    judge(daemon, receiver, ids)


def test_on_postgresql(make_daemon: MakeDaemon, receiver: Receiver, postgres: Postgres) -> None:
    url = postgres.create()
    daemon = make_daemon(database=url, **SETTINGS)
    daemon.expect("a password is written out here")
    declare(daemon, receiver)
    daemon.start()
    ids = [daemon.call("shop/order", n=n) for n in range(2)]
    stand_still(daemon, row_is_locked(postgres, url, ids[0]))
    judge(daemon, receiver, ids)
    assert daemon.stop() == 0
    postgres.drop(url)


@contextmanager
def full_backlog() -> Iterator[int]:
    """The port of a receiver that takes no connection: whoever asks for one waits."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port: int = listening.getsockname()[1]
        for _ in range(4):
            waits = stack.enter_context(socket.socket())
            waits.setblocking(False)
            waits.connect_ex(("127.0.0.1", port))
        yield port


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("how", ["stands still", "drains"])
def test_an_order_that_waits_for_its_connection_is_sent_later(
    make_daemon: MakeDaemon, receiver: Receiver, postgres: Postgres, database: str, how: str
) -> None:
    """No byte of it has left, whatever ended its attempt."""
    more = {"database": postgres.create()} if database == "postgresql" else {}
    receiver.on("/order", 200)
    with full_backlog() as port:
        daemon = make_daemon(
            workers=2, lease=LEASE, drain_timeout="1s",
            egress={"allow": [receiver.address, f"127.0.0.1:{port}"]}, **more,
        )  # fmt: skip
        daemon.expect("a password is written out", "stood still")
        daemon.api("shop", f"http://127.0.0.1:{port}")
        daemon.endpoint("shop/order", "/order", method="POST", idempotent=False, retry=retry(),
                        partition={"by": "acme", "ordered": True})  # fmt: skip
        daemon.start()
        order = daemon.call("shop/order")
        daemon.until_status(order, "running")
        time.sleep(0.5)  # its start is committed, and it connects
        if how == "drains":
            daemon.api("shop", receiver.url)
            daemon.restart()
        else:
            daemon.post("/v1/endpoints/shop/order/pause")
            pids = [daemon.pid, *worker_pids(daemon)]
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(STOPPED)
            for pid in reversed(pids):
                os.kill(pid, signal.SIGCONT)
            assert daemon.until_status(order, "pending")["attempts"] == 0
            daemon.api("shop", receiver.url)
            daemon.adopt()
            daemon.post("/v1/endpoints/shop/order/resume")
        task = daemon.finish(order)
    assert (task["status"], task["reason"], task["attempts"]) == ("succeeded", None, 1), task
    assert receiver.count("/order") == 1
