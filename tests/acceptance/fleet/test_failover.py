"""PostgreSQL's primary dies, and its standby takes its place."""

from __future__ import annotations

import signal
import time
from collections import Counter

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import retry
from tests.acceptance.fleet.test_fleet import UNREACHABLE
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until
from tests.postgres import HOST, Postgres, Standby

FOLLOWED = {"wal_level": "replica", "max_wal_senders": "4"}
CALLS = 300


def test_the_fleet_goes_on_with_the_standby(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.reply("/get/", lambda request: Answer(200, delay=0.02))
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
            daemon.endpoint("crm/get", "/get/{{ params.n }}", params={"n": {"type": "integer"}},
                            retry=retry())  # fmt: skip
            daemon.start()
        one, two = fleet
        ids = one.batch("crm/get", [{"n": n} for n in range(CALLS)])
        until(lambda: receiver.count() >= CALLS // 3, "a third of the calls")
        primary.stop(signal.SIGQUIT)
        until(lambda: two.get("/readyz").status_code == 503, "its being missed")
        standby.promote()
        promoted = time.monotonic()
        for daemon in fleet:
            until(lambda daemon=daemon: daemon.get("/readyz").status_code == 200, "its return")  # type: ignore[misc]
        print(f"ready {time.monotonic() - promoted:.1f} s after the promotion")
        until(lambda: two.status()["queue"]["succeeded"] == CALLS, "all calls", 40)
        assert two.finish(two.call("crm/get", n=CALLS))["status"] == "succeeded"
        assert {one.task(id_)["status"] for id_ in ids[:: CALLS // 10]} == {"succeeded"}
        seen = Counter(item.path for item in receiver.received())
        assert len(seen) == CALLS + 1
        assert sum(seen.values()) - len(seen) <= 2 * 10  # what was in flight
        for daemon in fleet:
            assert daemon.stop() == 0
