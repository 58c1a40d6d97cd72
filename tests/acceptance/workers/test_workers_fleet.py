"""A daemon with several workers beside another one, on one PostgreSQL: a fleet of two."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until
from tests.acceptance.workers.crew import (
    DIED,
    NAMES_ITSELF,
    first,
    others,
    senders,
    serves,
    worker_pids,
)
from tests.postgres import Postgres

pytestmark = pytest.mark.slow


def pids_shown(daemon: Daemon) -> list[int]:
    return sorted(row["pid"] for row in daemon.status()["daemons"] if row["alive"])


def test_a_fleet_of_two(make_daemon: MakeDaemon, receiver: Receiver, postgres: Postgres) -> None:
    url = postgres.create()
    receiver.on("/tick", 200)
    receiver.on("/told", Answer(429, headers={"Retry-After": "3"}), 200)
    crew, single = (
        make_daemon(database=url, workers=workers, plugins={"dirs": ["plugins"]})
        for workers in (2, 1)
    )
    for daemon in (crew, single):
        daemon.plugin("names", NAMES_ITSELF)
        daemon.expect("a password is written out here")
        daemon.api("crm", receiver.url)
        daemon.api("told", receiver.url)
        daemon.endpoint("crm/get", "/get")
        daemon.api("clock", receiver.url)
        daemon.endpoint("clock/tick", "/tick", schedule={"every": "1s"})
        daemon.endpoint("told/get", "/told")
        daemon.start()
    both = sorted([crew.pid, single.pid])
    until(lambda: pids_shown(crew) == pids_shown(single) == both, "their meeting")

    # `concurrency` is each daemon's own, and is kept by its workers together.
    receiver.hold("/get")
    ids = crew.batch("crm/get", [{}] * 40)
    until(lambda: receiver.count("/get") == 20, "ten in flight in each of them")
    assert senders(receiver, "/get") == worker_pids(crew) | {single.pid}

    # What a dead worker had under way goes on at once; its lease would last for 30 s.
    crew.expect(DIED)
    (second,) = others(crew)
    for victim in (second, first(crew)):
        before, killed = receiver.count("/get"), time.monotonic()
        os.kill(victim, signal.SIGKILL)
        until(lambda before=before: receiver.count("/get") >= before + 5, "what it had", 15)  # type: ignore[misc]
        print(f"its calls went on after {time.monotonic() - killed:.1f} s")
        until(lambda: len(worker_pids(crew)) == 2 and serves(crew), "another worker")
    until(lambda: pids_shown(crew) == pids_shown(single) == both, "two daemons, as before", 10)
    receiver.let_go("/get")
    assert {single.finish(task_id)["status"] for task_id in ids} == {"succeeded"}
    assert {single.task(task_id)["attempts"] for task_id in ids} == {1}

    # A receiver that asks to wait is left alone by all three.
    assert single.finish(crew.call("told/get"))["status"] == "succeeded"
    told, again = (item.at for item in receiver.received("/told"))
    assert again - told > 2.9

    # Each slot of a schedule once, whoever was there.
    assert crew.stop() == 0
    assert single.stop() == 0
    ticks = "SELECT scheduled_at FROM retry_schedule WHERE endpoint_id = 'clock/tick'"
    slots = [slot for (slot,) in postgres.run(url.rpartition("/")[2], ticks)]
    assert len(set(slots)) == len(slots) >= 3
    postgres.drop(url)
