"""When a schedule has its slots: anchored to the clock and the time zone, never to a start.

A slot is a time in milliseconds since the epoch. Everything here is a pure function of the
schedule and a time.

What cronsim finds beyond a change of the clocks depends on where it began, so it begins anew at each
change: the next slot of one time is then the previous slot of another.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim

from orchestratord.endpoint import Schedule
from orchestratord.values import parse_duration

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
UNITS = ("minute", "hour", "day", *WEEKDAYS)
_DAY = 86_400_000


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
    zone, begin, since = ZoneInfo(schedule.timezone), after, after
    while True:
        walk = CronSim(cron_of(schedule), _local(begin, zone))
        # In the hour that comes twice, the slot of the first one is found again, and is over.
        slot = next((slot for slot in map(_milliseconds, walk) if slot > after), None)
        change = None if slot is None else _change(zone, since, slot)
        if change is None:
            return slot
        begin, since = change - 1000, change


def previous_slot(schedule: Schedule, at: int) -> int | None:
    """The last slot that is not later than `at`; None where there is none in the calendar."""
    step = _step(schedule)
    if step is not None:
        return at // step * step
    zone = ZoneInfo(schedule.timezone)
    for moment in CronSim(cron_of(schedule), _local(at + 1000, zone), reverse=True):
        slot = next_slot(schedule, _milliseconds(moment) - 1)
        if slot is None or slot > at:
            continue
        # Backwards, one may have been passed over.
        while (following := next_slot(schedule, slot)) is not None and following <= at:
            slot = following
        return slot
    return None


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


def _change(zone: ZoneInfo, start: int, end: int) -> int | None:
    """When, after `start` and not after `end`, the clocks were changed first; None for never."""
    offset = _local(start, zone).utcoffset()
    while start < end:
        later = min(start + _DAY, end)
        if _local(later, zone).utcoffset() != offset:
            while later - start > 1000:
                middle = (start + later) // 2000 * 1000
                if _local(middle, zone).utcoffset() == offset:
                    start = middle
                else:
                    later = middle
            return later
        start = later
    return None


def _local(at: int, zone: ZoneInfo) -> datetime:
    # CronSim counts whole seconds; what is below a second would be carried along.
    return datetime.fromtimestamp(at // 1000, zone)


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
