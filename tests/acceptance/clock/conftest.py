"""A daemon whose clock can be turned, and what it does all the while.

The clock that cannot be set is left alone, as a machine leaves it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until

HOUR = 3600
YEAR = 400 * 86400


SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long *ahead;

__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("TURNED_CLOCK"), O_RDONLY);
    ahead = mmap(0, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *to) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int error = real(clock, to);
    if (!error && ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        to->tv_sec += *ahead;
    return error;
}
int gettimeofday(struct timeval *restrict to, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    to->tv_sec = now.tv_sec;
    to->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return to ? *to = now.tv_sec : now.tv_sec;
}
"""


class TurnedMachine:
    """The clock of one daemon's machine; `environ` is for that daemon."""

    def __init__(self, home: Path, compiler: str) -> None:
        """`home`: an empty folder of the test's. `compiler`: of C."""
        source, library, self._file = home / "clock.c", home / "clock.so", home / "ahead"
        source.write_text(SOURCE)
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True
        )
        self.put(0)
        self.environ = {"LD_PRELOAD": str(library), "TURNED_CLOCK": str(self._file)}

    def put(self, ahead: int) -> None:
        """So many seconds ahead of the true time."""
        # Daemons have the file in their memory: it stays the same one, and is written at once.
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o600)
        os.pwrite(descriptor, ahead.to_bytes(8, sys.byteorder, signed=True), 0)
        os.close(descriptor)


@pytest.fixture
def machine(tmp_path: Path, program: Callable[[str], str]) -> TurnedMachine:
    home = tmp_path / "machine"
    home.mkdir()
    return TurnedMachine(home, program("cc"))


def declare(daemon: Daemon, receiver: Receiver) -> None:
    """An API with a schedule, one with calls that fail, and one that is told to wait."""
    for name in ("tick", "fails", "told"):
        daemon.api(name, receiver.url)
    daemon.endpoint("tick/now", "/tick", schedule={"every": "1s"})
    receiver.reply("/tick", lambda request: Answer(200))
    daemon.endpoint("fails/get", "/fails", retry=retry("2s", 1000))
    # It shows that somebody is there, and no breaker opens.
    receiver.reply("/fails", lambda request: Answer(429))
    daemon.endpoint("told/get", "/told", retry=retry("1s"))
    receiver.on("/told", Answer(429, headers={"Retry-After": "3"}), 200)


def goes_on(receiver: Receiver, path: str) -> None:
    """Three more requests come, where a wait for the turned clock would be one of an hour."""
    before = receiver.count(path)
    until(lambda: receiver.count(path) >= before + 3, f"three more requests of {path}")
