"""A task runs in the table, and nothing in the daemon that claimed it knows of it: it ends all the
same, by what is known of it, and a person is told."""

from __future__ import annotations

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import retry
from tests.acceptance.receiver import Receiver
from tests.postgres import Postgres

LOSES = """
from pathlib import Path

from orchestratord import hookimpl
from orchestratord.engine.attempt.pipe import Pipe

started = Pipe._started

async def loses(self, attempt):
    ready = await started(self, attempt)
    try:
        (Path(__file__).parent / f"lost-{attempt.task.id}").open("x").close()
    except FileExistsError:
        return ready
    return "lost"

Pipe._started = loses

@hookimpl
def before_request():
    pass
"""
"""Breaks the daemon as a bug would: the first attempt of each task starts, and is forgotten."""


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_it_is_ended(
    make_daemon: MakeDaemon,
    receiver: Receiver,
    request: pytest.FixtureRequest,
    database: str,
) -> None:
    settings = {"lease": "3s", "plugins": {"dirs": ["plugins"]}, "workers": 2}
    if database == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        settings["database"] = postgres.create()
    daemon = make_daemon(**settings)
    daemon.expect("a password is written out here")
    daemon.plugin("loses", LOSES)
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/order", "/order", method="POST", retry=retry())
    daemon.endpoint("shop/price", "/price", method="PUT", retry=retry())
    for path in ("/order", "/price"):
        receiver.on(path, 200)
    daemon.start()
    order, price = daemon.call("shop/order"), daemon.call("shop/price")
    ended = daemon.finish(order, 30)
    assert (ended["status"], ended["reason"], ended["deaths"]) == ("failed", "ambiguous", 0)
    assert ended["last_error"] == "nothing in the daemon held this attempt any more"
    assert ended["attempts"] == len(ended["attempt_log"]) == 1
    ended = daemon.finish(price, 30)
    assert (ended["status"], ended["attempts"], ended["deaths"]) == ("succeeded", 1, 0)
    assert [item.path for item in receiver.received()] == ["/price"]
    for id_ in (order, price):
        daemon.logged(f"task {id_} was running, and nothing here held it")
    assert daemon.status()["unheld_claims"] == 2
    assert "orchestratord_unheld_claims_total 2.0" in daemon.get("/metrics").text
    assert daemon.ctl("retry", str(order)).code == 0
    assert daemon.finish(order, 30)["status"] == "succeeded"
