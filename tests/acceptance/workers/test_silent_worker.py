"""One of several workers stands still: the daemon is not ready, and says which one it is."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until
from tests.acceptance.workers.crew import first, worker_pids
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

HOLDS = """
import os, time
from pathlib import Path
from orchestratord import hookimpl

@hookimpl
def before_request(request):
    if Path("hold").exists() and os.getpid() == int(Path("hold").read_text()):
        Path("hold").unlink()
        time.sleep(22)
    return request
"""
WITHIN = 20.0
"""Seconds that are promised."""


@pytest.mark.parametrize(
    ("shared", "held"), [(False, False), (True, False), (False, True)],
    ids=["stopped", "stopped, on PostgreSQL", "held by a plugin"],
)  # fmt: skip
def test_a_worker_that_stands_still_is_named(
    make_daemon: MakeDaemon, receiver: Receiver, postgres: Postgres, shared: bool, held: bool
) -> None:
    more = {"database": postgres.create()} if shared else {}
    daemon = make_daemon(workers=2, plugins={"dirs": ["plugins"]}, **more)
    daemon.expect("a password is written out", "event loop", "no sign of life")
    daemon.plugin("holds", HOLDS)
    receiver.on("/due", 200)
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/due", "/due")
    daemon.start()
    (second,) = worker_pids(daemon) - {first(daemon)}
    began = time.monotonic()
    if held:
        Path(daemon.home / "hold").write_text(str(second))
        daemon.batch("shop/due", [{}] * 200)
    else:
        os.kill(second, signal.SIGSTOP)
    try:
        until(lambda: daemon.get("/readyz").status_code == 503, "readiness ends", WITHIN + 5)
        took = time.monotonic() - began
        (trouble,) = daemon.status()["health"]["troubles"]
        assert trouble["code"] == "worker_silent"
        assert trouble["why"].startswith("worker 2 has given no sign of life for ")
        doctor = daemon.run("doctor")
        assert "worker 2 has given no sign of life" in doctor.out + doctor.err
    finally:
        if not held:
            os.kill(second, signal.SIGCONT)
    assert took < WITHIN, took
    until(lambda: daemon.get("/readyz").status_code == 200, "it is ready again")
    assert second in worker_pids(daemon)
