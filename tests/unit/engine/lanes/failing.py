"""Attempts that fail at a breaker, as the feedback tells it of them."""

from __future__ import annotations

from orchestratord.engine.lanes.breaker import Breaker


def failed(breaker: Breaker, now: int, why: str) -> bool:
    """An attempt failed; True where that opened the breaker."""
    opens = breaker.count(now, why)
    if opens:
        breaker.open(now, now, why)
    return opens
