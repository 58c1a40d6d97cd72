"""Whether a schedule can be kept: `every`, `at`, `cron` and `timezone`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from orchestratord.model.endpoint import Schedule
from orchestratord.model.schedule_slots import UNITS
from orchestratord.values.durations import parse_duration
from orchestratord.values.suggest import suggest

SHORTEST = 1.0
"""Seconds between two slots."""

NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
"""What crontabs have for some schedules, and the fields that are read here."""

_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_MINUTE = re.compile(r":([0-5]\d)")


def schedule_problems(schedule: Schedule) -> Iterator[tuple[str, str]]:
    """What is wrong with a schedule: pairs of its key, or an empty one, and a message."""
    if (schedule.every is None) == (schedule.cron is None):
        yield "", "needs `every` or `cron`, one of the two"
    if schedule.every is not None and (wrong := _every(schedule.every)):
        yield "every", wrong
    elif schedule.at is not None and (wrong := _at(schedule)):
        yield "at", wrong
    if schedule.cron is not None and (wrong := _cron(schedule.cron)):
        yield "cron", wrong
    try:
        ZoneInfo(schedule.timezone)
    except (KeyError, OSError, ValueError):
        yield (
            "timezone",
            f"there is no time zone {schedule.timezone!r}; write one such as Europe/Paris",
        )


def _every(every: str | float) -> str | None:
    if every in UNITS:
        return None
    if every in NICKNAMES:
        return f"{every!r} is written as `cron: '{NICKNAMES[str(every)]}'`"
    try:
        seconds = parse_duration(every)
    except ValueError:
        near = suggest(str(every), UNITS) if str(every).isalpha() else ""
        near = near if "did you mean" in near else ""
        return f"{every!r} is neither a duration nor one of {', '.join(UNITS)}{near}"
    return f"must be at least {SHORTEST:g}s" if seconds < SHORTEST else None


def _cron(cron: str) -> str | None:
    if cron in NICKNAMES:
        return f"{cron!r} is written as '{NICKNAMES[cron]}'"
    if (count := len(cron.split())) != 5:
        fields = "1 field" if count == 1 else f"{count} fields"
        return f"{cron!r} has {fields}; five are read, such as */15 * * * *"
    try:
        next(CronSim(cron, datetime.now(UTC)))
    except CronSimError as error:
        return f"{cron!r} cannot be read: {str(error)[:1].lower()}{str(error)[1:]}"
    except StopIteration:
        return f"{cron!r} never comes"
    return None


def _at(schedule: Schedule) -> str | None:
    if schedule.cron is not None:
        return "goes with `every`; in `cron` the time is written already"
    if schedule.every == "hour":
        return None if _MINUTE.fullmatch(schedule.at or "") else "for an hour, write :30"
    if schedule.every == "minute" or schedule.every not in UNITS:
        return "goes with `every: hour`, `every: day`, or a day of the week"
    return None if _TIME.fullmatch(schedule.at or "") else "write it as 10:30"
