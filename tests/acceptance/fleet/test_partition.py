"""A daemon that cannot reach PostgreSQL for longer than its lease, and comes back."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.fleet.test_fleet import UNREACHABLE
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until
from tests.network import Host
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

LEASE = 3.0


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """Where PostgreSQL runs; a cable for each daemon, and the first one for the test."""
    with Host(3) as made:
        yield made


@pytest.fixture(scope="module")
def far_postgres(host: Host) -> Iterator[Postgres]:
    with Postgres(host=host) as server:
        yield server


def test_no_result_of_it_overwrites_anothers(
    host: Host, far_postgres: Postgres, make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    url = far_postgres.create()
    fleet = []
    for cable in (1, 2):
        way = url.replace(far_postgres.address, host.address(cable))
        daemon = make_daemon(database=f"{way}?tcp_user_timeout=3000&connect_timeout=2", lease=LEASE)
        daemon.api("crm", receiver.url)
        daemon.expect(r"a password is written out here", *UNREACHABLE, r"was not run")
        daemon.endpoint("crm/get", "/get")
        daemon.endpoint("crm/post", "/post", method="POST")
        fleet.append(daemon.start())
    one, two = fleet
    receiver.hold("/get")
    receiver.hold("/post")
    get, post = one.call("crm/get"), one.call("crm/post")
    until(lambda: receiver.count("/get") == receiver.count("/post") == 1, "both requests")

    host.cut(1)
    cut = time.monotonic()
    # The other one takes over: what can be repeated is, what cannot waits for a person.
    until(lambda: receiver.count("/get") == 2, "the second attempt")
    assert time.monotonic() - cut < LEASE + 30
    until(lambda: two.task(post)["status"] == "failed", "the end of what cannot be repeated")
    until(lambda: one.get("/readyz").status_code == 503, "its saying so")
    print(f"unready after {time.monotonic() - cut:.1f} s")
    assert one.get("/healthz").status_code == 200
    for path in ("/get", "/post"):
        receiver.let_go(path)  # now both daemons have an answer, and one cannot write it
    until(lambda: two.task(get)["status"] == "succeeded", "the other one's result")
    known = {id_: two.task(id_) for id_ in (get, post)}

    host.mend(1)
    mended = time.monotonic()
    until(lambda: one.get("/readyz").status_code == 200, "its being back")
    print(f"ready {time.monotonic() - mended:.1f} s after the cable")
    for id_ in (get, post):
        one.logged(f"a late result of task {id_} is refused")
        assert two.task(id_) == known[id_]
    assert [known[id_]["attempts"] for id_ in (get, post)] == [1, 0]
    assert [known[id_]["deaths"] for id_ in (get, post)] == [1, 1]
    assert known[post]["reason"] == "ambiguous"
    assert receiver.count("/post") == 1
    assert one.finish(one.call("crm/get"))["status"] == "succeeded"
