"""Single workers die under load: nothing is lost, and little is done again. See `worker_kills`.

`WORKER_KILLS=200 pytest -s tests/acceptance/workers/test_worker_kills.py` kills more of them.
"""

from __future__ import annotations

import os
import time

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until
from tests.acceptance.workers.crew import DIED, first, kill
from tests.acceptance.workers.worker_kills import OnPostgres, run, settings
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("WORKER_KILLS", "5"))


def judge(daemon: Daemon, receiver: Receiver, kills: int) -> None:
    with daemon:
        report, times = run(daemon, receiver, kills, seed=20_261_126)
    times.sort()
    print("\n".join(report.lines()))
    print(f"another one served after {times[len(times) // 2]:.2f} s, {times[-1]:.2f} s at most")
    assert report.wrong == []
    assert report.calls["succeeded"] > 10 * kills
    # A lease of 30 seconds is waited for by none.
    assert times[len(times) // 2] < 10


def test_on_sqlite(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> None:
    judge(Daemon(tmp_path_factory.mktemp("k"), **settings(receiver)), receiver, KILLS)


def test_on_postgresql(
    tmp_path_factory: pytest.TempPathFactory, receiver: Receiver, postgres: Postgres
) -> None:
    url = postgres.create()
    home = tmp_path_factory.mktemp("k")
    judge(OnPostgres(home, postgres, url, **settings(receiver)), receiver, KILLS)
    postgres.drop(url)


def test_retention_goes_on_where_the_first_worker_never_lives_for_long(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = make_daemon(workers=2, retention={"succeeded": "1s"})
    daemon.expect(DIED)
    receiver.on("/get", 200)
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/get", params={"n": {}})
    with daemon.start():
        for _ in range(4):
            daemon.batch("shop/get", [{"n": 1}] * 400)
        until(lambda: daemon.status()["queue"]["succeeded"] == 1600, "all calls")
        for _ in range(4):
            kill(daemon, first(daemon))
            time.sleep(2.0)  # which is the fault: it never comes to what is due after a while
        assert daemon.status()["queue"]["succeeded"] == 0
