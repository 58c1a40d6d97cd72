"""kill -9 of single workers at random moments under load, and then the accounts."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.acceptance.daemon import Daemon
from tests.acceptance.queue.campaign import LANE, Callers, Report, account, declare
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until
from tests.acceptance.workers.crew import DIED, serves, worker_pids
from tests.postgres import Postgres

LONGEST = 0.5
"""Seconds of load between two kills, at most, once another worker serves."""
MOST = 18
"""Workers that are killed within a minute; the daemon would end itself beyond 20."""


class OnPostgres(Daemon):
    """A daemon whose queue is in a PostgreSQL."""

    def __init__(self, home: Path, server: Postgres, url: str, **settings: Any) -> None:
        super().__init__(home, database=url, **settings)
        self._server = server
        self._name = url.rpartition("/")[2]

    def rows(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        if statement == "PRAGMA integrity_check":
            return [{statement: "ok"}]
        rows = self._server.run(self._name, f"SELECT row_to_json(r) FROM ({statement}) r", *values)
        return [dict(row[0]) for row in rows]


def run(daemon: Daemon, receiver: Receiver, kills: int, seed: int) -> tuple[Report, list[float]]:
    """Kill a worker so many times; the accounts, and the seconds until all workers served again.

    `daemon` is not started yet, has several workers, and may call `receiver`.
    """
    chance = random.Random(seed)
    report = Report(kills)
    began = time.monotonic()
    times: list[float] = []
    declare(daemon, receiver, random.Random(seed + 1))
    daemon.expect(DIED)
    callers = Callers(daemon, random.Random(seed + 2))
    daemon.start()
    count = len(worker_pids(daemon))
    killed: list[float] = []
    with callers.pouring():
        for number in range(kills):
            time.sleep(chance.random() * LONGEST)
            if number >= MOST:
                time.sleep(max(killed[number - MOST] + 61 - time.monotonic(), 0.0))
            victim = chance.choice(sorted(worker_pids(daemon)))
            os.kill(victim, signal.SIGKILL)
            killed.append(time.monotonic())
            until(lambda: len(_alive(daemon, victim)) == count, "another worker", 30)  # noqa: B023
            until(lambda: _serves(daemon), "all workers' serving", 30)
            times.append(time.monotonic() - killed[-1])
    daemon.settle(120)
    log = daemon.log()
    assert daemon.stop() == 0
    report.seconds = time.monotonic() - began
    account(report, daemon, receiver, callers.accepted)
    named = len(re.findall(DIED, log))
    if named != kills:
        report.wrong.append(f"{named} of {kills} deaths are named in the log")
    if report.repeated > kills * LANE:
        report.wrong.append(f"{report.repeated} requests came again after {kills} kills")
    return report, times


def _alive(daemon: Daemon, victim: int) -> set[int]:
    return worker_pids(daemon) - {victim}


def _serves(daemon: Daemon) -> bool:
    with suppress(Exception):  # the one that is asked may be the one that was killed
        return serves(daemon)
    return False


def settings(receiver: Receiver) -> Mapping[str, Any]:
    """Of a daemon for this."""
    return {
        "workers": 2,
        "egress": {"allow": [receiver.address]},
        "log": {"level": "warning"},
        "lease": "30s",
    }
