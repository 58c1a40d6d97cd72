"""When a schedule has its slots: anchored to the clock and the time zone, never to a start.

A slot is a time in milliseconds since the epoch. Everything here is a pure function of the
schedule and a time, or of the slots that were taken before.

Which ones were is remembered as runs. A single time would not do: a clock that is ahead takes slots
that lie in the future, those before them are still to come once it is right; and one that is behind
comes to slots that were taken already.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim

from orchestratord.model.endpoint import Schedule
from orchestratord.values.durations import parse_duration

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
UNITS = ("minute", "hour", "day", *WEEKDAYS)

Run = tuple[int, int]
"""The first and the last of slots that follow each other and were all taken."""
MOST_RUNS = 16
"""Runs that are remembered apart. Each time in which no daemon worked, and each jump of the clock
that was followed, begins a new one."""


def spec(schedule: Schedule) -> str:
    """What the slots depend on; a schedule whose spec changed starts anew."""
    parts = {"every": schedule.every, "at": schedule.at, "cron": schedule.cron}
    if schedule.cron or schedule.every in UNITS:
        parts["timezone"] = schedule.timezone
    return json.dumps({name: value for name, value in parts.items() if value is not None})


def next_slot(schedule: Schedule, after: int) -> int | None:
    """The first slot later than `after`; None where there is none in the calendar."""
    step = _step(schedule)
    if step is not None:
        return (after // step + 1) * step
    return next(_walk(schedule, after), None)


def previous_slot(schedule: Schedule, at: int) -> int | None:
    """The last slot that is not later than `at`; None where there is none in the calendar."""
    step = _step(schedule)
    if step is not None:
        return at // step * step
    for power in range(9):  # from a minute to 31 years
        # Forwards, as CronSim does not find each slot backwards in an hour that comes twice.
        start = at - 60_000 * 8**power
        if found := deque(takewhile(lambda slot: slot <= at, _walk(schedule, start)), maxlen=1):
            return found[0]
    return None


def is_taken(runs: Sequence[Run], slot: int) -> bool:
    """Whether `slot` was taken; `runs` are in order, and do not touch."""
    run = run_before(runs, slot)
    return run is not None and slot <= run[1]


def run_before(runs: Sequence[Run], slot: int) -> Run | None:
    """The run in which `slot` is, or the last one before it; None where it is before all."""
    at = bisect(runs, slot, key=lambda run: run[0])
    return runs[at - 1] if at else None


def take(runs: Sequence[Run], schedule: Schedule, slot: int, now: int) -> list[Run]:
    """The runs with `slot` as well. Of many, those that have long passed become one."""
    if is_taken(runs, slot):
        return list(runs)
    at = bisect(runs, slot, key=lambda run: run[0])
    before, after, run = list(runs[:at]), list(runs[at:]), (slot, slot)
    if before and next_slot(schedule, before[-1][1]) == slot:
        run = (before.pop()[0], slot)
    if after and next_slot(schedule, slot) == after[0][0]:
        run = (run[0], after.pop(0)[1])
    found = [*before, run, *after]
    while len(found) > MOST_RUNS and found[1][0] <= now:
        found[:2] = [(found[0][0], found[1][1])]
    return found


def next_free_slot(runs: Sequence[Run], schedule: Schedule, after: int) -> int | None:
    """The first slot later than `after` that was not taken; None where there is none."""
    slot = next_slot(schedule, after)
    while slot is not None and (run := run_before(runs, slot)) and slot <= run[1]:
        slot = next_slot(schedule, run[1])
    return slot


MOST_MISSED = 1_000
"""Slots that are counted between two others."""


def slots_between(schedule: Schedule, after: int, until: int) -> list[int]:
    """The slots later than `after` and not later than `until`, `MOST_MISSED` at most."""
    found: list[int] = []
    slot = next_slot(schedule, after)
    while slot is not None and slot <= until and len(found) < MOST_MISSED:
        found.append(slot)
        slot = next_slot(schedule, slot)
    return found


def splay_offset(endpoint_id: str, splay: float) -> float:
    """Seconds by which this endpoint's slots are delayed: always the same, below `splay`."""
    digest = hashlib.sha256(endpoint_id.encode()).digest()
    return splay * int.from_bytes(digest[:8], "big") / 2**64


def cron_of(schedule: Schedule) -> str:
    """The five fields of a schedule that is not a plain duration.

    Raises ValueError for an `every` or `at` that cannot be read.
    """
    if schedule.cron is not None:
        return schedule.cron
    unit = schedule.every
    if unit == "minute":
        return "* * * * *"
    hour, _, minute = (schedule.at or ("0:00" if unit != "hour" else ":00")).partition(":")
    if not minute.isdigit() or not (hour.isdigit() or (unit == "hour" and not hour)):
        raise ValueError(f"{schedule.at!r} is not a time of day: write 10:30, for an hour :30")
    if unit == "hour":
        return f"{int(minute)} * * * *"
    weekday = "*" if unit == "day" else str((WEEKDAYS.index(str(unit)) + 1) % 7)
    return f"{int(minute)} {int(hour)} * * {weekday}"


def _step(schedule: Schedule) -> int | None:
    """Milliseconds between the slots of `every: 15m`; None for calendar units and cron."""
    if schedule.cron is not None or schedule.every in UNITS:
        return None
    return max(round(parse_duration(schedule.every) * 1000), 1)


def _walk(schedule: Schedule, start: int) -> Iterator[int]:
    """The slots after a time, one after the other."""
    # CronSim counts whole seconds; what is below a second would be carried along.
    local = datetime.fromtimestamp(start // 1000, ZoneInfo(schedule.timezone))
    for moment in _Calendar(cron_of(schedule), local):
        # In the hour that comes twice, a slot of the first one is found again in the second.
        if (slot := round(moment.timestamp() * 1000)) > start:
            yield slot


class _Calendar(CronSim):
    """Goes through the hours as they pass. CronSim sets the minute to 0, and goes round for ever
    where not a whole hour comes twice, as in Pacific/Chatham."""

    def advance_hour(self) -> bool:
        """As in CronSim."""
        step = 3600
        if self.dt.tzinfo is not None:
            step = 900  # the offset of no zone changes between two quarters of an hour
            self.dt = self.dt.astimezone(UTC).astimezone(self.dt.tzinfo)  # a day may begin at 01:00
        fits = self.dt.hour in self.hours
        while self.dt.hour not in self.hours:
            self.tick(step - (self.dt.minute * 60 + self.dt.second) % step)
            if self.dt.hour == 0:
                break
        return not fits
