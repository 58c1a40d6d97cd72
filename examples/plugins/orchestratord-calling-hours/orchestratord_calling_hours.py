"""Calls begin within the hours of their API; one that is due at another time waits until then."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from datetime import time as time_of_day
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from orchestratord import Endpoint, Model, Problem, Setting, Snooze, hookimpl, only_for

clock = time.time
"""Seconds since the epoch; tests have another one."""

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = get_args(Day)


class CallingHours(Model):
    """When the calls of an API may begin."""

    open: time_of_day
    close: time_of_day
    zone: str = "UTC"
    """As in `Europe/Berlin`."""
    days: tuple[Day, ...] = DAYS


HOURS: Setting[CallingHours | None] = Setting(
    "calling_hours", CallingHours | None, default=None, description="When calls may begin."
)


@hookimpl
def register_settings() -> list[Setting[CallingHours | None]]:
    return [HOURS]


@hookimpl
def check_endpoint(endpoint: Endpoint) -> Iterator[Problem]:
    """What `orchestratord check` says of the key."""
    hours = endpoint[HOURS]
    if hours is None:
        return
    if hours.close <= hours.open or not hours.days:
        yield Problem("it never opens: close is to be later than open", key="calling_hours")
    try:
        ZoneInfo(hours.zone)
    except (ValueError, OSError, LookupError):
        yield Problem(f"there is no zone {hours.zone!r}", key="calling_hours.zone")


@only_for(lambda kind, endpoint: kind == "call" and endpoint[HOURS] is not None)
@hookimpl(on_fault="retry")
def before_request(endpoint: Endpoint) -> None:
    """Put the call off while its API is closed."""
    hours = endpoint[HOURS]
    assert hours is not None
    now = datetime.fromtimestamp(clock(), ZoneInfo(hours.zone))
    begin = opening(hours, now)
    if begin > now:
        why = f"the calling hours of {endpoint.api.name}, from {begin:%a %H:%M} {hours.zone} on"
        raise Snooze(until=begin.timestamp() * 1000, why=why)


def opening(hours: CallingHours, now: datetime) -> datetime:
    """When it is open next: `now`, or when its hours begin."""
    days = ((now + timedelta(days=n)).date() for n in range(8))
    for day in (day for day in days if DAYS[day.weekday()] in hours.days):
        if now < datetime.combine(day, hours.close, now.tzinfo):
            return max(now, datetime.combine(day, hours.open, now.tzinfo))
    raise ValueError("it never opens")
