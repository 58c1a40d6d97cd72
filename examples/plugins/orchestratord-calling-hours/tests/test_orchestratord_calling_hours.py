"""The plugin's hooks, run as the daemon runs them, at the times that a test says."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import httpx
import orchestratord_calling_hours
import pytest

from orchestratord import Snooze
from orchestratord.testing import Rig, task

HOURS = {"open": "08:00", "close": "17:30", "zone": "Europe/Berlin", "days": ["mon", "fri"]}


def begins(
    monkeypatch: pytest.MonkeyPatch, now: str, hours: object = HOURS, kind: str = "call"
) -> str | None:
    """When a call that is due `now` begins (UTC); None for now."""
    at = datetime.fromisoformat(now).replace(tzinfo=UTC).timestamp()
    monkeypatch.setattr(orchestratord_calling_hours, "clock", lambda: at)
    rig = Rig(orchestratord_calling_hours)
    endpoint = rig.endpoint("bank/pay", calling_hours=hours)
    given, request = task(kind=kind, endpoint_id=endpoint.id), httpx.Request("GET", "http://x/")
    try:
        asyncio.run(rig.before(request, task=given, endpoint=endpoint))
    except Snooze as snooze:
        when = datetime.fromtimestamp((snooze.until or 0) / 1000, UTC)
        return when.isoformat()[:16] if "hours of bank" in snooze.why else snooze.why
    return None


@pytest.mark.parametrize(
    ("now", "begin"),
    [
        ("2026-11-23T06:59", "2026-11-23T07:00"),  # a Monday
        ("2026-11-23T07:00", None),
        ("2026-11-23T16:29", None),
        ("2026-11-23T16:30", "2026-11-27T07:00"),
        ("2026-11-27T20:00", "2026-11-30T07:00"),
        ("2026-03-27T20:00", "2026-03-30T06:00"),  # summer time begins in between
    ],
)
def test_a_call_waits_until_they_begin(
    monkeypatch: pytest.MonkeyPatch, now: str, begin: str | None
) -> None:
    assert begins(monkeypatch, now) == begin


def test_all_days_in_utc_are_the_default_and_others_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hours = {"open": "08:00", "close": "09:00"}
    assert begins(monkeypatch, "2026-11-28T09:00", hours) == "2026-11-29T08:00"
    assert begins(monkeypatch, "2026-11-28T09:00", None) is None
    assert begins(monkeypatch, "2026-11-28T09:00", hours, "webhook") is None


@pytest.mark.parametrize(
    ("wrong", "key"),
    [({"zone": "Berlin"}, "calling_hours.zone"), ({"close": "07:00"}, "calling_hours"),
     ({"days": []}, "calling_hours")],
)  # fmt: skip
def test_what_never_opens_is_an_error_of_check(wrong: dict[str, object], key: str) -> None:
    rig = Rig(orchestratord_calling_hours)
    endpoint = rig.endpoint("bank/pay", calling_hours={**HOURS, **wrong})
    assert [problem.key for problem in rig.check(endpoint)] == [key]
