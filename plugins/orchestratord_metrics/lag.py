"""How late the event loop is: everything else waits for as long."""

from __future__ import annotations

import asyncio
import weakref

from orchestratord_metrics.counts import Counts

EVERY = 0.25
"""Seconds between two looks."""
LIMITS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class LoopLag:
    """Sets a timer again and again, and notes how much too late it goes off."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """`loop`: watched as long as it runs, and this object is in use."""
        self.found = Counts(
            "orchestratord_loop_lag_seconds",
            "How much too late a timer of the event loop went off, tried four times a second.",
            (),
            LIMITS,
        )
        _look(weakref.ref(self), loop, None)


def _look(lag: weakref.ref[LoopLag], loop: asyncio.AbstractEventLoop, due: float | None) -> None:
    watching, now = lag(), loop.time()
    if watching is None:
        return
    if due is not None:
        watching.found.add((), max(now - due, 0.0))
    loop.call_later(EVERY, _look, lag, loop, now + EVERY)
