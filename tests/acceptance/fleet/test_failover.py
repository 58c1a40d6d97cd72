"""PostgreSQL's primary dies, and its standby takes its place."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterable

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.fleet.test_fleet import UNREACHABLE
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until
from tests.postgres import HOST, Line, Postgres, Standby

pytestmark = pytest.mark.slow

FOLLOWED = {"wal_level": "replica", "max_wal_senders": "4"}
CALLS = 300
ANSWERED = 100
"""Of these calls, before the first server dies; as many as may be in flight are sent and held."""
IN_FLIGHT = 2 * 10
LOST = 60
"""Orders that succeed, and that the standby never hears of. They cost twice as many ids, which is
more than those that a server of PostgreSQL leaves out where it takes over."""


def test_the_fleet_goes_on_with_the_standby(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.hold("/get", *[Answer(200, delay=0.02)] * ANSWERED)
    for path in ("/order", "/hook"):
        receiver.on(path, 200)
    with Postgres(**FOLLOWED) as primary, Standby(primary, **FOLLOWED) as standby:
        # What is acknowledged is on both.
        primary.run("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.run("postgres", "SELECT pg_reload_conf()")
        name = primary.create().rpartition("/")[2]
        hosts = f"{HOST}:{primary.port},{HOST}:{standby.port}"
        url = f"postgresql://tester:s3cret@{hosts}/{name}?target_session_attrs=read-write"
        fleet = [make_daemon(database=url, lease="3s") for _ in range(2)]
        for daemon in fleet:
            daemon.api("crm", receiver.url)
            daemon.expect(r"a password is written out here", *UNREACHABLE)
            daemon.api("shop", receiver.url)
            n = {"params": {"n": {"type": "integer"}}, "query": {"n": "{{ params.n }}"}}
            daemon.endpoint("crm/get", "/get", retry=retry(), **n)
            hook = {"name": "ops", "phase": "on_success", "url": f"{receiver.url}/hook"}
            daemon.endpoint("shop/order", "/order", method="POST", webhooks=[hook], **n)
            daemon.start()
        one, two = fleet
        ids = one.batch("crm/get", [{"n": n} for n in range(CALLS)])
        until(lambda: receiver.count() == ANSWERED + IN_FLIGHT, "as many as may be in flight")
        # What was answered is still being written, and what only one server knows comes again.
        count = "SELECT count(*) FROM retry_schedule WHERE status = 'succeeded'"
        until(lambda: primary.run(name, count) == [(ANSWERED,)], "what was answered to be on both")
        primary.run("postgres", "ALTER SYSTEM RESET synchronous_standby_names")
        primary.run("postgres", "SELECT pg_reload_conf()")
        standby.run("postgres", "ALTER SYSTEM SET primary_conninfo = ''")
        standby.run("postgres", "SELECT pg_reload_conf()")
        until(lambda: not primary.run("postgres", "SELECT 1 FROM pg_stat_replication"), "its end")
        lost = order(two, range(LOST))
        until(lambda: receiver.count("/hook") == LOST, "what the standby will know nothing of")
        # First: what is answered before would be known to the primary alone, and what follows it
        # would be in flight as well.
        primary.stop(signal.SIGQUIT)
        receiver.let_go("/get")
        until(lambda: two.get("/readyz").status_code == 503, "its being missed")
        standby.promote()
        promoted = time.monotonic()
        for daemon in fleet:
            until(lambda daemon=daemon: daemon.get("/readyz").status_code == 200, "its return")  # type: ignore[misc]
        print(f"ready {time.monotonic() - promoted:.1f} s after the promotion")
        until(lambda: two.status()["queue"]["succeeded"] == CALLS, "all calls", 40)
        assert two.finish(two.call("crm/get", n=CALLS))["status"] == "succeeded"
        assert {one.task(id_)["status"] for id_ in ids[:: CALLS // 10]} == {"succeeded"}
        seen = Counter(item.query["n"] for item in receiver.received("/get"))
        assert len(seen) == CALLS + 1
        assert sum(seen.values()) - len(seen) <= IN_FLIGHT
        again = order(one, range(LOST, 2 * LOST))
        until(lambda: receiver.count("/hook") == 2 * LOST, "the orders after it")
        assert set(lost) & set(again)  # and yet none is taken for another one
        for path, header in (("/order", "idempotency-key"), ("/hook", "webhook-id")):
            assert len({item.headers[header] for item in receiver.received(path)}) == 2 * LOST
        for daemon in fleet:
            assert daemon.stop() == 0


def order(daemon: Daemon, numbers: Iterable[int]) -> list[int]:
    return daemon.batch("shop/order", [{"n": n} for n in numbers])


def test_a_daemon_that_does_not_know_what_became_of_a_commit_ends_all_the_same(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.hold("/get")
    with Postgres() as server:
        url, line = server.create(), Line(server.port)
        daemon = make_daemon(database=url.replace(f":{server.port}/", f":{line.port}/"))
        daemon.expect(r"a password is written out here", *UNREACHABLE)
        daemon.api("shop", receiver.url)
        daemon.endpoint("shop/get", "/get")
        daemon.start()
        daemon.call("shop/get")
        until(lambda: receiver.count("/get"), "the attempt")
        line.cut_at, line.delivers = b"; COMMIT", False
        receiver.let_go("/get")
        daemon.logged("the database cannot be reached")
        assert daemon.stop() == 0
        line.close()
