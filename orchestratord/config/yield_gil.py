"""Long work in a thread, beside an event loop that is not to wait for it.

Python's interpreter runs one thread at a time. Who waits for a turn asks for it after 5 ms, but
counts anew whenever the other has let go for a moment, as at each look at a file, and was back
before the one who waits had woken up: so an event loop has waited for 90 ms while a large
configuration was read. Here it asks sooner, and is left enough time to wake up.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_ASKING = 0.0005
"""Seconds after which a thread asks for its turn; less than there is between two breaths."""
_WORK = 0.002
_BREATH = 0.0002
"""Seconds of work, and of a breath after it, in which another thread wakes up."""

Breathe = Callable[[], None]

_lock = threading.Lock()
_yielding = 0
"""How many threads are at such work."""
_usual = 0.0


def no_breath() -> None:
    """For work that nothing waits for."""


@contextmanager
def yield_gil() -> Iterator[Breathe]:
    """Share the interpreter with others; what is given is to be called every now and then."""
    _count(1)
    try:
        yield _breather()
    finally:
        _count(-1)


def _count(more: int) -> None:
    global _yielding, _usual  # the interval is one for the whole process
    with _lock:
        if _yielding == 0:
            _usual = sys.getswitchinterval()
            sys.setswitchinterval(min(_ASKING, _usual))
        _yielding += more
        if _yielding == 0:
            sys.setswitchinterval(_usual)


def _breather() -> Breathe:
    breathed = time.monotonic()

    def breathe() -> None:
        nonlocal breathed
        if time.monotonic() - breathed > _WORK:
            time.sleep(_BREATH)
            breathed = time.monotonic()

    return breathe
