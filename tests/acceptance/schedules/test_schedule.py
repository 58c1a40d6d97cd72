"""Schedules: one task a slot, however often the daemon restarts.

All schedules run at the same time through one story of a dozen seconds, which the tests then look
at: run, restart at once, pause one, be dead for a while, run on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow


NOTES_MISSED = """
from orchestratord import hookimpl

@hookimpl
def observe(events):
    with open("missed", "a") as file:
        for event in events:
            if event.type == "schedule.missed":
                words = event.endpoint, event.first_slot, event.slot, event.slots, event.caught_up
                print(*words, file=file)
"""


class Missed(NamedTuple):
    """An event: the first and the last slot of it in seconds, and their number."""

    first: int
    last: int
    slots: int
    caught_up: bool


@dataclass
class Story:
    slots: dict[str, list[int]] = field(default_factory=dict)
    """Endpoint → the slots that its calls were for, in order, in seconds since the epoch."""
    missed: dict[str, list[Missed]] = field(default_factory=dict)
    """Endpoint → the events about missed slots: a busy machine may be late for some."""
    paused: tuple[int, int] = (0, 0)
    dead: tuple[int, int] = (0, 0)
    """The first second in which nothing ran, and when it was started again."""
    rows: int = 0
    schedules: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the API says of them at the end."""

    def left_out(self, name: str) -> set[int]:
        """Slots that were missed, and not made up for."""
        step = 2 if name == "tick" else 1
        return {
            slot
            for missed in self.missed[name]
            for slot in range(missed.first, missed.last + (0 if missed.caught_up else step), step)
        }

    def check_all(self, name: str, begin: int, end: int, step: int = 1) -> None:
        """Each slot between these two made a call, or an event says that none did."""
        made = [slot for slot in self.slots[name] if begin <= slot <= end]
        left_out = {slot for slot in self.left_out(name) if begin <= slot <= end}
        assert sorted([*made, *left_out]) == list(range(begin, end + 1, step))

    def after_death(self, name: str) -> tuple[Missed, int]:
        """The event about the time in which nothing ran, and the first slot that then ran."""
        missed = next(one for one in self.missed[name] if one.last >= self.dead[1] - 1)
        return missed, next(slot for slot in self.slots[name] if slot >= self.dead[1] - 1)


def now() -> int:
    return int(time.time())


def at(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0


@pytest.fixture(scope="module")
def story(make_shared: MakeDaemon, shared_receiver: Receiver) -> Story:
    receiver = shared_receiver
    daemon = make_shared(plugins={"dirs": ["plugins"]})
    daemon.plugin("notes_missed", NOTES_MISSED)
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
        return sorted(round(float(item.query["slot"])) for item in receiver.received(f"/{name}"))

    daemon.start()
    until(lambda: len(slots("tick")) >= 2, "two slots")
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
    story.dead = (dead + 1, alive)

    def succeeds() -> bool:
        found = daemon.get("/v1/schedules").json()["schedules"]
        story.schedules = {one["endpoint"].removeprefix("shop/"): one for one in found}
        return all(at(one["last_success_at"]) >= alive + 3 for one in found)

    until(succeeds, "calls after the time in which nothing ran")
    assert daemon.stop() == 0
    story.slots = {name: slots(name) for name in declared}
    story.missed = {name: [] for name in declared}
    for line in (daemon.home / "missed").read_text().splitlines():
        endpoint, first, last, count, caught_up = line.split()
        missed = Missed(int(first) // 1000, int(last) // 1000, int(count), caught_up == "True")
        story.missed[endpoint.removeprefix("shop/")].append(missed)
    story.rows = len(daemon.rows("SELECT id FROM retry_schedule WHERE endpoint_id = 'shop/tick'"))
    froms = {item.query["from"] for item in receiver.received("/tick")}
    assert froms == {"the schedule"}
    return story


def test_a_slot_makes_one_task_and_restarts_make_none_more(story: Story) -> None:
    slots = story.slots["tick"]
    story.check_all("tick", slots[0], slots[-1], 2)
    assert all(slot % 2 == 0 for slot in slots)
    assert len(set(slots)) == len(slots) == story.rows


def test_paused_slots_are_skipped(story: Story) -> None:
    begin, end = story.paused
    assert [slot for slot in story.slots["paused"] if begin <= slot <= end] == []
    assert not [slot for slot in story.left_out("paused") if begin <= slot <= end]
    story.check_all("catches", begin, end)


def test_slots_that_were_missed_become_one(story: Story) -> None:
    for name in ("catches", "skips"):
        story.check_all(name, story.slots[name][0], story.slots[name][-1])
    # The last one that was missed stands for all of them; without catch_up none does. A start that
    # takes over the turn of a second finds that second's slot due, and not missed.
    missed, ran = story.after_death("catches")
    assert ran == missed.last + (0 if missed.caught_up else 1)
    missed, ran = story.after_death("skips")
    assert not missed.caught_up
    assert ran > missed.last


def test_what_was_missed_is_told(story: Story) -> None:
    begin, started = story.dead
    assert started - begin >= 4
    assert story.schedules.keys() == {"tick", "paused", "catches", "skips"}
    for name in ("catches", "skips"):
        missed, _ = story.after_death(name)
        # The slot of the second in which it ended may have been taken or not.
        assert begin - 1 <= missed.first <= begin + 1
        assert missed.slots == missed.last - missed.first + 1
        told = story.schedules[name]
        shown = {key: at(told["missed"][key]) for key in ("first", "last", "noticed_at")}
        assert shown["last"] <= shown["noticed_at"]
        newest = (shown["first"], shown["last"], told["missed"]["slots"], told["missed"]["ran"])
        assert newest in story.missed[name]
        assert told["next_run"] > told["last_run"] >= told["missed"]["last"]


def test_a_slot_waits_for_no_one_or_is_skipped(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon(drain_timeout="100ms")
    daemon.api("shop", receiver.url)
    for overlap in ("skip", "allow"):
        receiver.hold(f"/{overlap}")
        schedule = {"every": "1s", "overlap": overlap}
        daemon.endpoint(f"shop/{overlap}", f"/{overlap}", schedule=schedule)
    daemon.start()
    until(lambda: receiver.count("/allow") >= 3, "three slots, while no call ends")
    daemon.logged("a slot of shop/skip is skipped: the call of the slot before is not done")
    assert receiver.count("/skip") == 1
    receiver.let_go("/skip")
    until(lambda: receiver.count("/skip") >= 2, "a slot once the call before is done")
    receiver.let_go("/allow")


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
