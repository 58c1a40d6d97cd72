"""What has ended is settled after the next claim, where tasks are due and none is prefetched."""

from __future__ import annotations

import asyncio

from orchestratord.engine.lanes.lane_set import LaneSet

LONGEST = 0.02
"""Seconds that a settlement waits at most."""


class ClaimsFirst:
    """Holds settlements back until the next claim has come.

    When a burst begins, nothing is prefetched: the slots that the first answers have freed wait for
    a claim. It would have to wait for the settlement of these answers, in the loop as well as in
    the writing thread. So they are settled while the requests of the next ones are under way.
    """

    def __init__(self, lanes: LaneSet) -> None:
        """For the running loop."""
        self._lanes = lanes
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._event.set()
        self._timer: asyncio.TimerHandle | None = None

    def is_starving(self, lane: str) -> bool:
        """Whether tasks of a lane are due, and nothing is prefetched, nor a claim under way."""
        lanes = self._lanes
        if lanes.claimed > lanes.in_flight or lanes.draining:
            return False
        found = lanes.lanes[lane]
        return bool(found.line) and not found.throttled

    async def wait(self) -> None:
        """Wait for the next claim, which is to be made at once."""
        if self._timer is None:
            self._event.clear()
            self._timer = self._loop.call_later(LONGEST, self.claimed)
        await self._event.wait()

    def claimed(self) -> None:
        """A claim has come, or there is nothing to be claimed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._event.set()
