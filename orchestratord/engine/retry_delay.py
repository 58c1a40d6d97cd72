"""How long to wait for the next try: the strategy's delay, its bounds, jitter, and Retry-After."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from orchestratord.model.backoff import Backoff
from orchestratord.model.outcome import Outcome
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.plugin.isolation import is_ctrl_c
from orchestratord.values import world
from orchestratord.values.durations import format_duration

SHORTEST_DELAY = 0.1
"""Seconds, from the second try on, whatever a strategy or a hook says: one that says 0 or a
millisecond would use up a thousand attempts in seconds."""

FALLBACK_DELAY = 5.0
"""Seconds, where a strategy raises."""

_AT_LEAST_0 = ", at least 0s"
_AT_LEAST = f", at least {format_duration(SHORTEST_DELAY)}"

Fault = Callable[[str, BaseException | str], None]
"""Told of a strategy's fault: its name, and what it did."""


class Delay(NamedTuple):
    """How long to wait for the next try."""

    seconds: float
    why: str
    """How they came about, in words."""
    backed_off: bool
    """The backoff said so, and neither a hook nor Retry-After."""


def choose_delay(
    policy: RetryPolicy, n: int, outcome: Outcome, *, now: int, chance: world.Random, fault: Fault
) -> Delay:
    """How long to wait after `n` failed attempts."""
    if outcome.delay is not None:
        delay = _bounded(outcome.delay, policy.max_delay)
        if delay is None:
            fault(outcome.decided_by or "?", f"asked for a delay of {outcome.delay!r}")
        else:
            longer, more = lengthened(delay, n)
            said = f"{format_duration(delay)} as {outcome.decided_by or 'a hook'} said"
            return Delay(longer, said + more, backed_off=False)
    delay, why = base_delay(policy, n, fault)
    if policy.jitter and not why.endswith(_AT_LEAST):
        moved = delay * policy.jitter * (2 * chance.random() - 1)
        delay += moved
        sign = "−" if moved < 0 else "+"
        why += f", jitter {sign}{_about(abs(moved))}"
        delay, more = lengthened(delay, n)
        why += more
    asked = parse_retry_after(outcome.retry_after, now) if policy.respect_retry_after else None
    if asked is not None:
        bounded = min(asked, policy.max_retry_after)
        said = f"Retry-After {_about(bounded)}"
        if bounded < asked:
            said += " (max_retry_after)"
        if bounded > delay:
            return Delay(bounded, f"{why}, {said} won", backed_off=False)
        why += f", {said} is earlier"
    return Delay(delay, why, backed_off=True)


def longest(policy: RetryPolicy, attempts: int, fault: Fault) -> float:
    """Seconds that lie between the first and the last of so many attempts, without jitter."""
    return sum(base_delay(policy, n, fault)[0] for n in range(1, attempts))


def base_delay(policy: RetryPolicy, n: int, fault: Fault) -> tuple[float, str]:
    """The strategy's delay in seconds, at most `max_delay`, and in words. Never raises."""
    delay, why = _strategy_delay(policy, n, fault)
    longer, more = lengthened(delay, n)
    return longer, why.removesuffix(_AT_LEAST_0) + more if more else why


def _strategy_delay(policy: RetryPolicy, n: int, fault: Fault) -> tuple[float, str]:
    strategy = policy.backoff
    try:
        said = strategy.seconds(n)
        delay = _bounded(said, policy.max_delay)
    except BaseException as error:  # a plugin's strategy may raise anything
        if is_ctrl_c(error):
            raise
        fault(strategy.name, error)
        delay = min(FALLBACK_DELAY, policy.max_delay)
        return delay, f"{strategy.name} failed, {format_duration(delay)} instead"
    if delay is None:
        fault(strategy.name, f"returned {said!r} as a delay")
        delay = min(FALLBACK_DELAY, policy.max_delay)
        return delay, f"{strategy.name} returned {said!r}, {format_duration(delay)} instead"
    try:
        if type(strategy).explain is Backoff.explain:  # which would ask once more
            why = f"{strategy.name} {format_duration(said)}"
        else:
            why = str(strategy.explain(n))
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        fault(strategy.name, error)
        why = f"{strategy.name} {format_duration(delay)}"
    if said < 0:
        why += _AT_LEAST_0
    elif delay < said:
        why += f", max_delay {format_duration(policy.max_delay)}"
    return delay, why


def lengthened(delay: float, n: int) -> tuple[float, str]:
    """The delay after `n` failed attempts in seconds, at least the shortest one, and in words that
    it became longer."""
    if n < 2 or delay >= SHORTEST_DELAY:
        return delay, ""
    return SHORTEST_DELAY, _AT_LEAST


def parse_retry_after(text: str | None, now: int) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3): a number or a date; None if neither.

    A receiver can write anything there; what is negative is 0, what is too large is infinite.
    """
    if text is None:
        return None
    text = text.strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
            # Two of the three forms that a date may have do not write down that it is UTC.
            date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
            seconds = date.timestamp() - now / 1000
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
    return None if math.isnan(seconds) else max(seconds, 0.0)


EPOCH, EPOCH_MS = 1e9, 1e11
"""A number over these is a time, in seconds or milliseconds since the epoch."""


def parse_reset(text: str, now: int) -> float | None:
    """Seconds until the time that a header says: one of RFC 9110, seconds or milliseconds since the
    epoch, or in how many seconds; None where it cannot be read. `now` in milliseconds."""
    seconds = parse_retry_after(text, now)
    if seconds is None or seconds <= EPOCH or text.lstrip()[:1].isalpha():
        return seconds
    return max(seconds / (1 if seconds <= EPOCH_MS else 1000) - now / 1000, 0.0)


def _about(seconds: float) -> str:
    """Short enough to read: tenths of a second, below one second milliseconds."""
    return format_duration(round(seconds, 1 if seconds >= 1 else 3))


def _bounded(seconds: object, longest: float) -> float | None:
    # A whole number may be larger than any float, and is compared all the same.
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds != seconds:
        return None
    return float(min(max(seconds, 0.0), longest))
