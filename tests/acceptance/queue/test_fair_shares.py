"""What hangs keeps its share of the slots, and its neighbours do not notice."""

from __future__ import annotations

import os
import time

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until

LANES = 12
"""That hang, with ten slots each: more than the daemon has."""


def test_neighbours_of_what_hangs_go_on(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    """Endpoints of one API, webhooks to one host, and lanes of the daemon, all in one."""
    receiver.hold("/hang")
    receiver.hold("/hook/hang")
    receiver.on("/ok", 200)
    receiver.on("/hook/ok", 200)
    daemon = make_daemon(drain_timeout="100ms")
    daemon.api("a", receiver.url)
    hooks = [
        {"name": name, "phase": "on_success", "url": f"{receiver.url}/hook/{name}", "timeout": "1h"}
        for name in ("hang", "ok")
    ]
    daemon.endpoint("a/hang", "/hang", timeout="1h")
    daemon.endpoint("a/ok", "/ok")
    daemon.api("events", receiver.url)
    daemon.endpoint("events/fire", "/ok", webhooks=hooks)
    for number in range(LANES):
        daemon.api(f"hung{number}", receiver.url)
        daemon.endpoint(f"hung{number}/get", "/hang", timeout="1h")
    with daemon.start():
        for number in range(LANES):
            daemon.batch(f"hung{number}/get", [{}] * 15)
        daemon.batch("a/hang", [{}] * 30)
        daemon.batch("events/fire", [{}] * 30)
        until(lambda: receiver.count("/hang") >= 60, "most slots to be taken")
        until(lambda: receiver.count("/hook/ok") == 30, "the deliveries beside those that hang")
        for _ in range(10):
            called = time.monotonic()
            daemon.finish(daemon.call("a/ok"))
            assert time.monotonic() - called < 20  # nothing that hangs ends before
        status = daemon.status()
        lanes = {lane["name"]: lane["in_flight"] for lane in status["lanes"]}
        assert 1 <= lanes["api:a"] <= 9
        assert 60 <= status["in_flight"] <= 90
        # It is said why a call waits while there are free slots.
        [waits] = {task["waits"]["for"] for task in map(daemon.task, daemon.batch("a/hang", [{}]))}
        assert waits == "concurrency"


@pytest.mark.slow
def test_small_tenants_go_on_beside_a_large_one(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    """The large one has next to all that is due. With TENANT=100000 of it, as was promised."""
    large, tenants, each = int(os.environ.get("TENANT", "5000")), 100, 10
    receiver.reply("/", lambda request: Answer(200))
    daemon = make_daemon()
    daemon.api("crm", receiver.url)
    daemon.endpoint(
        "crm/put", "/{{ params.tenant }}", method="PUT", partition="{{ params.tenant }}",
        params={"tenant": {"required": True}},
    )  # fmt: skip
    with daemon.start():
        assert daemon.ctl("pause", "crm/put").code == 0
        for first in range(0, large, 1000):
            daemon.batch("crm/put", [{"tenant": "large"}] * min(1000, large - first))
        daemon.batch("crm/put", [{"tenant": f"small{n % tenants}"} for n in range(tenants * each)])
        assert daemon.ctl("resume", "crm/put").code == 0

        def paths() -> list[str]:
            return [request.path for request in receiver.received()]

        until(lambda: sum("small" in path for path in paths()) == tenants * each, "the small ones")
        last = max(n for n, path in enumerate(paths(), 1) if "small" in path)
        print(f"{last - tenants * each} of the large one came before the last of the small ones")
        assert last <= 1.2 * tenants * each
