"""Four daemons, while some are killed and PostgreSQL goes down again and again: the accounts.

The long form:

    FLEET_CALLS=20000 FLEET_SECONDS=120 pytest -s tests/acceptance/fleet/test_fleet_campaign.py
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter

import pytest

from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.fleet.test_fleet import UNREACHABLE, MakeFleet, database, make_fleet
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

__all__ = ["database", "make_fleet"]

DAEMONS = 4
CONCURRENCY = 50
CALLS = int(os.environ.get("FLEET_CALLS", "1200"))
SECONDS = float(os.environ.get("FLEET_SECONDS", "12"))
KILLED = 2
RESTARTS = 5 if CALLS > 5000 else 2
LASTS = 0.05
"""Seconds for which an answer is held back."""


def test_each_is_carried_out_and_none_twice_beyond_what_was_in_flight(
    make_fleet: MakeFleet, receiver: Receiver, database: str, postgres: Postgres
) -> None:
    calls = CALLS
    receiver.reply("/get/", lambda request: Answer(200, delay=0.03))
    fleet = make_fleet(DAEMONS, concurrency=CONCURRENCY)
    for daemon in fleet:
        daemon.api("crm", receiver.url, concurrency=CONCURRENCY)
        daemon.expect(*UNREACHABLE, r"standing|stands still|no sign of life")
        daemon.start()
    fleet[0].ctl("pause", "crm/get")
    for first in range(0, calls, 1000):
        fleet[0].batch("crm/get", [{"n": n} for n in range(first, min(first + 1000, calls))])
    chance = random.Random(5)
    events = ["kill"] * KILLED + ["restart"] * RESTARTS
    chance.shuffle(events)
    fleet[0].ctl("resume", "crm/get")
    alive: list[Daemon] = list(fleet)
    done = 0
    try:
        for number, event in enumerate(events, 1):
            # After the last one there is enough to do left, on a quick machine too.
            goal = calls * number // (len(events) + 3)
            until(lambda goal=goal: receiver.count() >= goal, f"{goal} requests", 120)  # type: ignore[misc]
            if event == "kill":
                victim = alive.pop(chance.randrange(1, len(alive)))
                victim.kill()
                victim.process = None
            else:
                postgres.stop(signal.SIGQUIT)
                time.sleep(chance.random())
                postgres.start()
                back, before = time.monotonic(), receiver.count()
                until(lambda before=before: receiver.count() > before, "the next request")  # type: ignore[misc]
                print(f"the next request {time.monotonic() - back:.1f} s after the server was back")
    finally:
        if not postgres.answers():
            postgres.start()
    ended = time.monotonic()

    def succeeded() -> bool:
        nonlocal done
        found = alive[0].get("/v1/status")
        done = found.json()["queue"]["succeeded"] if found.status_code == 200 else done
        return done == calls

    until(succeeded, "all calls", 180)
    seen = Counter(item.path for item in receiver.received())
    assert len(seen) == calls
    twice = sum(seen.values()) - calls
    print(
        f"{twice} requests came twice; all was done {time.monotonic() - ended:.1f} s after the last"
    )
    # What had been sent when something died, and was not yet written: a slot each.
    assert twice <= (KILLED + RESTARTS * DAEMONS) * CONCURRENCY
    rows = postgres.run(
        database.rpartition("/")[2], "SELECT status, count(*) FROM retry_schedule GROUP BY 1"
    )
    assert rows == [("succeeded", calls)]


def test_slots_over_restarts(
    make_fleet: MakeFleet, receiver: Receiver, database: str, postgres: Postgres
) -> None:
    """Every 2 s, over four daemons one of which is restarted again and again."""
    receiver.on("/tick", 200)
    fleet = make_fleet(DAEMONS)
    for daemon in fleet:
        daemon.endpoint("crm/tick", "/tick", schedule={"every": "2s", "overlap": "allow"})
        daemon.start()
    end = time.monotonic() + SECONDS
    turn = 0
    while time.monotonic() < end:
        time.sleep(min(10, SECONDS / 4))
        fleet[turn % DAEMONS].restart()
        turn += 1
    name = database.rpartition("/")[2]
    rows = postgres.run(
        name, "SELECT scheduled_at FROM retry_schedule WHERE endpoint_id = 'crm/tick' ORDER BY 1"
    )
    slots = [row[0] for row in rows]
    print(f"{len(slots)} slots, {turn} restarts")
    assert len(slots) >= SECONDS // 2 - 1
    assert slots == list(range(slots[0], slots[-1] + 1, 2000))


def test_a_global_concurrency_is_reached_and_never_exceeded(
    make_fleet: MakeFleet, receiver: Receiver
) -> None:
    """Of three daemons, two of which are killed and started again; and so is what may be in flight
    of a partition."""
    most, of_one, customers, calls = 7, 2, 5, CALLS // 3
    receiver.reply("/", lambda request: Answer(200, delay=LASTS))
    first, *others = fleet = make_fleet(3)
    for daemon in fleet:
        daemon.expect(r"took over from a dead daemon")
        daemon.api("crm", receiver.url, global_concurrency=most)
        daemon.api("erp", receiver.url)
        daemon.endpoint(
            "erp/put", "/put/{{ params.customer }}/{{ params.n }}", method="PUT", retry=retry(),
            params={"customer": {"required": True}, "n": {"required": True}},
            partition={"by": "{{ params.customer }}", "concurrency": of_one},
        )  # fmt: skip
        daemon.start()
    first.batch("crm/get", [{"n": n} for n in range(calls)])
    first.batch("erp/put", [{"n": n, "customer": f"c{n % customers}"} for n in range(calls)])
    for number, goal in enumerate(range(calls // 4, calls, calls // 8)):
        until(lambda goal=goal: len(began(receiver, "/get/")) >= goal, f"{goal} requests", 120)  # type: ignore[misc]
        others[number % 2].kill()
        others[number % 2].start()
    until(lambda: first.status()["queue"]["succeeded"] == 2 * calls, "all calls", 180)
    assert at_once(receiver, "/get/") == most
    assert {at_once(receiver, f"/put/c{n}/") for n in range(customers)} == {of_one}


def began(receiver: Receiver, prefix: str) -> list[float]:
    """When these requests came."""
    return sorted(request.at for request in receiver.received() if request.path.startswith(prefix))


def at_once(receiver: Receiver, prefix: str) -> int:
    """How many requests were under way at most: each for longer than its answer is held back."""
    times = began(receiver, prefix)
    return max(
        sum(at - LASTS < other <= at for other in times[max(0, n - 50) : n + 1])
        for n, at in enumerate(times)
    )
