"""The one seam to the machine: time, chance, threads, locks and disks, as the daemon asks for them.

Code of the daemon and of its plugins says `world.monotonic()`, through the module: that costs what
the function itself does, and a simulation can put its own in the place of all of them.
"""

from __future__ import annotations

import fcntl
import os
import queue
import random
import secrets
import threading
import time as clocks
from collections.abc import Callable
from concurrent import futures
from functools import partial

monotonic = clocks.monotonic
time = clocks.time
elapsed: Callable[[], float] = partial(
    clocks.clock_gettime, getattr(clocks, "CLOCK_BOOTTIME", clocks.CLOCK_MONOTONIC)
)
"""Seconds of a clock that cannot be set; it goes on while the machine sleeps, where the system has
such a one. Its zero is the same for all programs until the machine starts again."""
sleep = clocks.sleep

Random = random.Random
uniform = random.uniform
urandom = os.urandom
token_hex = secrets.token_hex
token_urlsafe = secrets.token_urlsafe

Thread = threading.Thread
Lock = threading.Lock
Event = threading.Event
Condition = threading.Condition
SimpleQueue = queue.SimpleQueue
ThreadPoolExecutor = futures.ThreadPoolExecutor

flock = fcntl.flock
fdatasync = os.fdatasync
statvfs = os.statvfs
