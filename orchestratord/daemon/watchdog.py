"""A thread that sees which part of the daemon stands still, and ends a daemon that is beyond help.

What stands still makes the daemon unready, and may go on by itself; after a while it ends the
daemon, so that whatever started it starts it again. What is not going to go by ends it at once. The
end is abrupt, like that by SIGKILL: what is under way cannot be recorded any more, and the next
start sorts it out.
"""

from __future__ import annotations

import faulthandler
import logging
import mmap
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from orchestratord.plugin.host import Host
from orchestratord.queue.daemon_health import DATABASE, MEMORY, STALLED, DaemonHealth
from orchestratord.values import doc_links, world

log = logging.getLogger("orchestratord.watchdog")

BLOCKED_AFTER = 2.0
"""Seconds after which it is said that the event loop stands still."""

TICK = 0.5
"""Seconds between two looks."""

STALLED_AFTER = 15.0
"""Seconds without a sign of life from a part, after which the daemon is not ready."""
UNCOMMITTED_AFTER = 7.0
"""Seconds without a COMMIT of the writing thread; where it is known what keeps
that up, such as a lock for which SQLite waits 5 s each time, the daemon is not ready already."""

LOOP = "event loop"

ENDED_AFTER = {LOOP: 25.0, "worker": 60.0}
"""Seconds after which it ends the daemon. A lock that others hold may take long."""
ENDED_AFTER_ELSE = 300.0
"""Seconds for what waits for the reading thread, as a list may take longer still, and for the
writing one: seconds in which that has not read or written a byte, either. A COMMIT or a checkpoint
of gigabytes takes a slow disk as long as it takes, and the same again after a restart."""

HELD_UP = 35.0
"""Seconds of processor time after which the kernel ends a daemon whose interpreter is held by one
piece of work, a regular expression for example, so that not even this thread can run."""

LAST_WORDS = 5
"""Seconds that they may take: the log may be what stands still."""

ROOM = 9 << 20
"""Bytes that must be there to be had: the stack of a thread, and a piece of Python's own."""
ENDED_WITHOUT_ROOM = 10.0
"""Seconds without them, after which it ends the daemon: it cannot even read a request any more."""
NO_ROOM = "this process is given no more memory (a limit such as `ulimit -v`, or the machine's)"


def _map(size: int) -> mmap.mmap:
    """Memory of the system's; it costs none until something is written to it."""
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


_reserve = _map(ROOM)
"""Given back in the end, so that its reason can be told where there is no memory left."""


class Watchdog:
    """Watches the loop of one daemon, its parts and its database: `beat()` is called on the loop at
    least once a second."""

    def __init__(
        self,
        host: Host,
        health: DaemonHealth,
        parts: Callable[[], Mapping[str, float]],
        *,
        fatal_code: int = 1,
    ) -> None:
        """
        Args:
            host: knows which plugin holds the loop.
            health: where it is noted what stands still, and read what is beyond help.
            parts: those that should be going round now, and when each last did, by any clock.
            fatal_code: the exit code for what is beyond help.
        """
        self._host = host
        self._health = health
        self._parts = parts
        self._fatal_code = fatal_code
        self._beat = 0.0
        self._ages: dict[str, tuple[float, float]] = {}
        """Of each part its last sign of life, and for how many seconds it has given none."""
        self._said = 0.0
        self._moved: tuple[str, float] = "", 0.0
        """What the writing thread had read and written when it last did, and for how long it had
        given no sign of life then."""
        self._short = 0.0
        """For how many seconds there has been no memory to be had."""
        self._loop_thread = threading.get_ident()
        self._stop = world.Event()
        self._thread = world.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch the loop of the calling thread."""
        self._loop_thread = threading.get_ident()
        faulthandler.register(signal.SIGPROF, file=2, chain=True)  # says where all threads are
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join()
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.unregister(signal.SIGPROF)

    @property
    def watches(self) -> bool:
        """Whether its thread lives."""
        return self._thread.is_alive()

    def beat(self) -> None:
        """The loop goes round."""
        self._beat = world.monotonic()

    def _watch(self) -> None:
        looked = world.monotonic()
        while True:
            try:
                signal.setitimer(signal.ITIMER_PROF, HELD_UP)
                if self._stop.wait(TICK):
                    return
                now = world.monotonic()
                # A process that was stopped, or whose machine slept, has not stood still so long.
                passed, looked = min(now - looked, 2 * TICK), now
                self._look(passed)
            except MemoryError:  # it is said, and the daemon ended, by a later look
                world.sleep(TICK)
            except Exception:
                with suppress(Exception):
                    log.exception("a check of the watchdog failed; again in a moment")
                world.sleep(TICK)

    def _look(self, passed: float) -> None:
        """`passed`: seconds since the last look, in which this thread was able to run."""
        if (why := self._health.fatal) is not None:
            end(why, self._fatal_code)
        self._look_for_room(passed)
        before, self._ages = self._ages, {}
        blocked = self._age(LOOP, self._beat, passed, before)
        self._report(blocked)
        for name, beat in self._parts().items():
            # What goes round on the loop cannot do so while that stands still.
            counts = name == DATABASE or blocked < BLOCKED_AFTER
            self._age(name, beat, passed if counts else 0.0, before)
        for name, (_, age) in self._ages.items():
            self._judge(name, age)
        for name in before.keys() - self._ages.keys():  # they need not go round any more
            self._health.end(_code(name))

    def _look_for_room(self, passed: float) -> None:
        try:
            _map(ROOM).close()
        except (OSError, MemoryError):
            self._short += passed
            if self._short >= ENDED_WITHOUT_ROOM:
                end(NO_ROOM)
            if self._health.begin(MEMORY, NO_ROOM):
                log.error("%s", NO_ROOM, extra={"help": doc_links.trouble(MEMORY)})
        else:
            self._short = 0.0
            if MEMORY in self._health.troubles and self._health.end(MEMORY):
                log.warning("there is memory again")

    def _age(
        self, name: str, beat: float, passed: float, before: Mapping[str, tuple[float, float]]
    ) -> float:
        last, age = before.get(name, (beat, 0.0))
        age = age + passed if beat == last else 0.0
        self._ages[name] = beat, age
        return age

    def _judge(self, name: str, age: float) -> None:
        code = _code(name)
        words = f"the {name} has given no sign of life for {age:.0f} s"
        known = self._health.troubles.keys() - {code}
        after = UNCOMMITTED_AFTER if name == DATABASE and not known else STALLED_AFTER
        idle = age if name != DATABASE else self._idle(age)
        if idle >= ENDED_AFTER.get(name, ENDED_AFTER_ELSE):
            end(words)
        elif age < after:
            if code in self._health.troubles and self._health.end(code):
                log.warning("the %s goes on", name)
        elif self._health.begin(code, f"the {name} stands still"):
            log.error("%s", words, extra={"help": doc_links.trouble(code)})

    def _idle(self, age: float) -> float:
        """For how much of its age the writing thread has not moved a byte; all of it, where the
        kernel does not say."""
        if age < STALLED_AFTER:
            self._moved = "", 0.0
            return age
        moved = bytes_moved(self._health.writer)
        if moved != self._moved[0]:
            self._moved = moved, age
        return age - self._moved[1]

    def _report(self, age: float) -> None:
        if age < BLOCKED_AFTER:
            self._said = 0.0
            return
        if age < max(self._said * 2, BLOCKED_AFTER):
            return
        self._said = age
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


def bytes_moved(thread: int) -> str:
    """What a thread of this process has read and written, as the kernel counts it; empty where it
    does not say. `thread`: the kernel's number."""
    try:
        return Path(f"/proc/self/task/{thread}/io").read_text()
    except OSError:
        return ""


def _code(name: str) -> str:
    return name.replace(" ", "_") + STALLED


def end(why: str, code: int = 1) -> NoReturn:
    """End the process at once, with the reason in the log, and with this exit code."""
    signal.alarm(LAST_WORDS)
    _reserve.close()
    try:
        log.critical("%s; the daemon ends, and its next start sorts out what was under way", why)
        logging.shutdown()
    finally:
        os._exit(code)
