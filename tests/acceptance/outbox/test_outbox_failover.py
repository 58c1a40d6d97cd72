"""The application's PostgreSQL fails over to a standby that lags."""

from __future__ import annotations

import signal
from collections import Counter

import pytest
from orchestratord_outbox.outbox_schema import outbox_schema

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.outbox.conftest import Shop, declare
from tests.acceptance.outbox.test_outbox import orders
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until
from tests.postgres import HOST, Postgres, Standby

pytestmark = pytest.mark.slow

FOLLOWED = {"wal_level": "replica", "max_wal_senders": "4"}
TOLD, LOST, AFTER = range(20), range(100, 160), range(200, 260)
"""Orders that the standby has heard of, but not that they were taken; those of which it has heard
nothing, and which get the ids of later ones; and those that it takes itself."""


def test_what_a_standby_still_has_is_not_taken_again(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    with Postgres(**FOLLOWED) as primary, Standby(primary, **FOLLOWED) as standby:
        name = primary.create().rpartition("/")[2]
        hosts = f"{HOST}:{primary.port},{HOST}:{standby.port}"
        url = f"postgresql://tester:s3cret@{hosts}/{name}?target_session_attrs=read-write"
        daemon = make_daemon(databases={"shop": {"url": url}}, outbox={"database": "shop"})
        daemon.expect("a password is written out here")
        declare(daemon, receiver)
        shop = Shop(daemon, primary, primary.url(name))
        shop.run(outbox_schema("public"))
        ids = {shop.commit(n, key=f"order-{n}") for n in TOLD}
        count = "SELECT count(*) FROM orchestratord_outbox"
        there = "SELECT 1 FROM pg_database WHERE datname = %s"
        until(lambda: standby.run("postgres", there, name), "the database")
        until(lambda: standby.run(name, "SELECT to_regclass('orchestratord_outbox')")[0][0], "it")
        until(lambda: standby.run(name, count) == [(len(TOLD),)], "what the standby hears of")
        standby.run("postgres", "ALTER SYSTEM SET primary_conninfo = ''")
        standby.run("postgres", "SELECT pg_reload_conf()")
        until(lambda: not primary.run("postgres", "SELECT 1 FROM pg_stat_replication"), "its end")
        daemon.start()
        ids |= {shop.commit(n) for n in LOST}
        until(lambda: shop.run(count) == [(0,)], "all of them taken")
        until(lambda: len(orders(receiver)) == len(TOLD) + len(LOST), "the orders before it")
        primary.stop(signal.SIGQUIT)
        until(lambda: daemon.status()["outbox"]["error"] is not None, "its being missed")
        standby.promote()
        after = Shop(daemon, standby, standby.url(name))
        until(lambda: standby.run(name, "SELECT pg_is_in_recovery()") == [(False,)], "promotion")
        again = {after.commit(n) for n in AFTER}
        assert ids & again  # and yet none is taken for another one
        until(lambda: len(orders(receiver)) == len(TOLD) + len(LOST) + len(AFTER), "all orders")
        until(lambda: after.run(count) == [(0,)], "no row")
        assert daemon.status()["outbox"]["error"] is None
        daemon.settle()
        assert orders(receiver) == Counter([*TOLD, *LOST, *AFTER])
        assert daemon.status()["outbox"]["refused_total"] == 0
