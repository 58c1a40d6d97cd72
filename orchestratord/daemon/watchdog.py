"""A thread that notices when the event loop stands still, and names the hook that holds it."""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback

from orchestratord.plugin.host import Host

log = logging.getLogger("orchestratord.watchdog")

BLOCKED_AFTER = 2.0
"""Seconds."""


class LoopWatch:
    """Watches one loop: `beat()` is called on it at least once a second."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._beat = time.monotonic()
        self._loop_thread = threading.get_ident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="loop-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch the loop of the calling thread."""
        self._loop_thread = threading.get_ident()
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join()

    def beat(self) -> None:
        """The loop goes round."""
        self._beat = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since the loop last went round."""
        return time.monotonic() - self._beat

    def _watch(self) -> None:
        reported = 0.0
        while not self._stop.wait(0.5):
            age = self.age
            if age < BLOCKED_AFTER:
                reported = 0.0
            elif age >= max(reported * 2, BLOCKED_AFTER):
                reported = age
                self._report(age)

    def _report(self, age: float) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        where = "".join(traceback.format_stack(frame, limit=12)) if frame is not None else ""
        owner = self._host.owner_of(frame)
        if owner is not None:
            plugin, hook = owner
            log.error(
                "plugin %s: %s has blocked the event loop for %.0f s; nothing else runs meanwhile",
                plugin,
                hook,
                age,
                extra={"plugin": plugin, "hook": hook, "stack": where},
            )
        else:
            log.error("the event loop stands still for %.0f s", age, extra={"stack": where})
