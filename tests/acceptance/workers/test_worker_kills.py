"""Single workers die under load: nothing is lost, and little is done again. See `worker_kills`.

`WORKER_KILLS=200 pytest -s tests/acceptance/workers/test_worker_kills.py` kills more of them.
"""

from __future__ import annotations

import os

import pytest

from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.workers.worker_kills import OnPostgres, run, settings
from tests.postgres import Postgres

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
