"""Schedules: one task a slot, however often the daemon restarts.

All schedules run at the same time through one story of a dozen seconds, which the tests then look
at: run, restart at once, pause one, be dead for a while, run on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow


@dataclass
class Story:
    slots: dict[str, list[int]] = field(default_factory=dict)
    """Endpoint → the slots that its calls were for, in order, in seconds since the epoch."""
    first: int = 0
    last: int = 0
    """What every schedule must have run from and to."""
    paused: tuple[int, int] = (0, 0)
    dead: tuple[int, int, int] = (0, 0, 0)
    """The first second in which nothing ran, when it was started again, and when it was ready."""
    rows: int = 0
    schedules: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the API says of them at the end."""


def now() -> int:
    return int(time.time())


@pytest.fixture(scope="module")
def story(make_shared: MakeDaemon, shared_receiver: Receiver) -> Story:
    receiver = shared_receiver
    daemon = make_shared()
    daemon.api("shop", receiver.url)
    declared = {
        "tick": {"every": "2s", "params": {"from": "the schedule"}},
        "paused": {"every": "1s"},
        "catches": {"every": "1s", "catch_up": True},
        "skips": {"every": "1s", "catch_up": False},
    }
    for name, schedule in declared.items():
        receiver.reply(f"/{name}", lambda request: Answer(200))
        daemon.endpoint(
            f"shop/{name}",
            f"/{name}",
            params={"from": {"default": "nobody"}},
            query={"slot": "{{ task.scheduled_at.timestamp() }}", "from": "{{ params['from'] }}"},
            # On a busy machine the call of the slot before may not be done.
            schedule={"overlap": "allow", **schedule},
        )
    story = Story()

    def slots(name: str) -> list[int]:
        return [round(float(item.query["slot"])) for item in receiver.received(f"/{name}")]

    daemon.start()
    until(lambda: len(slots("tick")) >= 2, "two slots")
    story.first = slots("tick")[0]
    daemon.restart()
    resumed = now()
    until(lambda: slots("tick")[-1] >= resumed, "a slot after the restart")
    daemon.post("/v1/endpoints/shop/paused/pause")
    began = now()
    until(lambda: now() >= began + 4, "four slots to be skipped")
    ended = now()
    daemon.post("/v1/endpoints/shop/paused/resume")
    story.paused = (began + 1, ended - 1)
    until(lambda: slots("paused")[-1] > ended, "a slot after the pause")
    daemon.stop()
    dead = now()
    until(lambda: now() >= dead + 5, "five slots to be missed")
    alive = now()
    daemon.start()
    story.dead = (dead + 1, alive, now())
    until(
        lambda: all(slots(name)[-1] >= alive + 2 for name in ("tick", "catches", "skips")),
        "slots after the time in which nothing ran",
    )
    story.last = slots("tick")[-1]
    found = daemon.get("/v1/schedules").json()["schedules"]
    story.schedules = {one["endpoint"].removeprefix("shop/"): one for one in found}
    assert daemon.stop() == 0
    story.slots = {name: sorted(slots(name)) for name in declared}
    story.rows = len(daemon.rows("SELECT id FROM retry_schedule WHERE endpoint_id = 'shop/tick'"))
    froms = {item.query["from"] for item in receiver.received("/tick")}
    assert froms == {"the schedule"}
    return story


def test_a_slot_makes_one_task_and_restarts_make_none_more(story: Story) -> None:
    slots = [slot for slot in story.slots["tick"] if slot < story.dead[0]]
    assert slots == list(range(story.first, slots[-1] + 2, 2))
    assert all(slot % 2 == 0 for slot in story.slots["tick"])
    assert len(set(story.slots["tick"])) == len(story.slots["tick"]) == story.rows


def test_paused_slots_are_skipped(story: Story) -> None:
    begin, end = story.paused
    assert [slot for slot in story.slots["paused"] if begin <= slot <= end] == []
    assert [slot for slot in story.slots["catches"] if begin <= slot <= end] == list(
        range(begin, end + 1)
    )


def test_slots_that_were_missed_become_one(story: Story) -> None:
    begin, started, ready = story.dead
    assert started - begin >= 4
    caught = [slot for slot in story.slots["catches"] if slot >= begin]
    skipped = [slot for slot in story.slots["skips"] if slot >= begin]
    for slots in (caught, skipped):
        assert slots == list(range(slots[0], slots[-1] + 1))
    # The last one that was missed stands for all of them; without catch_up none does.
    assert started <= caught[0] <= ready
    # A start that takes over the turn of a second finds that second's slot due, and not missed.
    assert skipped[0] in (caught[0], caught[0] + 1)


def test_what_was_missed_is_told(story: Story) -> None:
    begin, started, ready = story.dead
    assert story.schedules.keys() == {"tick", "paused", "catches", "skips"}
    for name, ran in (("catches", True), ("skips", False)):
        told = story.schedules[name]
        missed = told["missed"]
        assert missed["ran"] is ran
        assert missed["slots"] >= started - begin
        first, last, noticed = (
            datetime.fromisoformat(missed[key]).timestamp()
            for key in ("first", "last", "noticed_at")
        )
        # The slot of the second in which it ended may have been taken or not.
        assert begin - 1 <= first <= begin + 1
        assert started - 1 <= last <= noticed <= ready + 1
        assert last - first == missed["slots"] - 1
        # The last one of them may be under way.
        assert min(told["last_success_at"], told["last_run"]) > missed["last"]
        assert told["next_run"] > told["last_run"]


def test_a_slot_waits_for_no_one_or_is_skipped(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon(drain_timeout="100ms")
    daemon.api("shop", receiver.url)
    for overlap in ("skip", "allow"):
        receiver.reply(f"/{overlap}", lambda request: Answer(200, delay=1.5))
        daemon.endpoint(
            f"shop/{overlap}",
            f"/{overlap}",
            query={"slot": "{{ task.scheduled_at.timestamp() }}"},
            schedule={"every": "1s", "overlap": overlap},
        )
    daemon.start()
    until(lambda: receiver.count("/skip") >= 3, "three slots")
    times = [item.at for item in receiver.received("/skip")]
    assert all(second - first >= 1.5 for first, second in pairwise(times))
    # Two that came late together may change places on their way.
    slots = sorted(round(float(item.query["slot"])) for item in receiver.received("/allow"))
    assert slots == list(range(slots[0], slots[0] + len(slots)))
    assert len(slots) >= 4


def test_where_at_and_cron_show_up(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    # Neither comes before half a day has gone.
    away = f"{(datetime.now(ZoneInfo('Europe/Paris')).hour + 12) % 24:02}:30"
    at = {"every": "day", "at": away, "timezone": "Europe/Paris"}
    daemon.endpoint("shop/daily", "/", schedule=at)
    daemon.endpoint("shop/cron", "/", schedule={"cron": "*/15 5 29 2 *"})
    daemon.start()
    assert daemon.get("/v1/endpoints/shop/daily").json()["schedule"]["at"] == away
    shown = daemon.ctl("endpoints").out
    assert away in shown
    assert "*/15 5 29 2 *" in shown
    assert daemon.tasks() == []
    told = {one["endpoint"]: one for one in daemon.get("/v1/schedules").json()["schedules"]}
    assert {(one["last_run"], one["task"]) for one in told.values()} == {(None, None)}
    assert daemon.get("/schedules").text.count(">never</span>") == 2
    listed = daemon.ctl("schedules").out.splitlines()
    assert [line.split()[0] for line in listed] == ["ENDPOINT", "shop/cron", "shop/daily"]
    assert away in listed[2]
