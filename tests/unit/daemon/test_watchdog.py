"""The thread that sees what stands still: what it says, when it ends the daemon, and when not."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from orchestratord.daemon import watchdog
from orchestratord.daemon.watchdog import Watchdog
from orchestratord.plugin.host import Host
from orchestratord.queue.daemon_health import DaemonHealth


class Ended(Exception):
    pass


class Bench:
    """A watchdog whose thread is the test: `pass_` lets seconds go by."""

    def __init__(self) -> None:
        self.health = DaemonHealth()
        self.beats = {"database": 0.0, "worker": 0.0}
        self.watchdog = Watchdog(Host(), self.health, lambda: self.beats)
        self._now = 0.0

    def pass_(self, seconds: float, *still: str) -> None:
        """Meanwhile all goes round but `still`."""
        for _ in range(round(seconds / watchdog.TICK)):
            self._now += watchdog.TICK
            for name in self.beats:
                if name not in still:
                    self.beats[name] = self._now
            if watchdog.LOOP not in still:
                self.watchdog._beat = self._now
            self.watchdog._look(watchdog.TICK)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    def end(why: str, code: int = 1) -> None:
        raise Ended(why)

    monkeypatch.setattr(watchdog, "end", end)
    return Bench()


@pytest.mark.parametrize("name", ["worker", "database", watchdog.LOOP])
def test_what_stands_still_is_said_and_goes_on(
    bench: Bench, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    after = watchdog.UNCOMMITTED_AFTER if name == "database" else watchdog.STALLED_AFTER
    bench.pass_(after - 1, name)
    assert not bench.health.troubles
    bench.pass_(2, name)
    [found] = bench.health.troubles.values()
    assert found.code == f"{name.replace(' ', '_')}_stalled"
    assert found.why == f"the {name} stands still"
    assert f"the {name} has given no sign of life for {after:.0f} s" in caplog.text
    bench.pass_(1)
    assert not bench.health.troubles
    assert f"the {name} goes on" in caplog.text


@pytest.mark.parametrize(
    ("name", "seconds"), [(watchdog.LOOP, 25), ("worker", 60), ("database", 300)]
)
def test_after_a_while_it_ends_the_daemon(bench: Bench, name: str, seconds: float) -> None:
    bench.pass_(seconds - 1, name)
    with pytest.raises(Ended, match=f"the {name} has given no sign of life for {seconds} s"):
        bench.pass_(2, name)


def test_a_database_that_moves_bytes_is_slow_and_does_not_stand_still(
    bench: Bench, tmp_path: Path
) -> None:
    """A COMMIT of gigabytes on a slow disk: it is said, and may take as long as it takes."""
    ended, go_on, written = threading.Event(), threading.Event(), threading.Event()

    def write() -> None:
        bench.health.writer = threading.get_native_id()
        with (tmp_path / "wal").open("wb", buffering=0) as file:
            while not ended.is_set():
                go_on.wait()
                go_on.clear()
                file.write(b"page" * 1024)
                written.set()

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        for _ in range(10):
            written.clear()
            go_on.set()
            assert written.wait(10)
            bench.pass_(200, "database")
            assert list(bench.health.troubles) == ["database_stalled"]
        with pytest.raises(Ended, match="the database has given no sign of life for 2"):
            bench.pass_(101, "database")
    finally:
        ended.set()
        go_on.set()
        thread.join()


def test_what_is_beyond_help_ends_it_at_once(bench: Bench) -> None:
    bench.health.fatal = "the file is gone"
    with pytest.raises(Ended, match="the file is gone"):
        bench.pass_(1)


def test_a_loop_that_stood_still_is_not_counted_against_its_parts(bench: Bench) -> None:
    bench.pass_(20, watchdog.LOOP, "worker")
    assert list(bench.health.troubles) == ["event_loop_stalled"]
    bench.pass_(0.5, "worker")
    assert not bench.health.troubles


def test_a_part_that_is_not_to_go_round_any_more_is_forgotten(bench: Bench) -> None:
    bench.pass_(20, "worker")
    del bench.beats["worker"]
    bench.pass_(1)
    assert not bench.health.troubles
    bench.beats["worker"] = 0.0
    bench.pass_(10, "worker")
    assert not bench.health.troubles


def test_a_loop_that_meets_the_end_of_memory_ends_it_with_the_reason() -> None:
    program = """
import asyncio
from orchestratord import log
from orchestratord.daemon.shutdown import run_loop
from orchestratord.plugin.host import Host

async def main():
    asyncio.get_running_loop()._selector.select = no_memory
    await asyncio.sleep(60)

def no_memory(timeout):
    raise MemoryError

log.set_up()
run_loop(main(), Host())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "CRITICAL watchdog: this process is given no more memory" in ended.stderr


def test_its_thread_survives_what_goes_wrong_in_it() -> None:
    """And sees what has to end, before and after."""
    program = """
import time
from orchestratord import log
from orchestratord.daemon.watchdog import Watchdog
from orchestratord.plugin.host import Host
from orchestratord.queue.daemon_health import DaemonHealth

def parts():
    faults.append(RuntimeError if len(faults) % 2 else MemoryError)
    raise faults[-1]("once more")

faults, health = [], DaemonHealth()
log.set_up()
watchdog = Watchdog(Host(), health, parts)
watchdog.start()
while len(faults) < 3:
    watchdog.beat()
    time.sleep(0.1)
assert watchdog.watches
health.fatal = "it is broken"
time.sleep(60)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "ERROR watchdog: a check of the watchdog failed; again in a moment" in ended.stderr
    assert "CRITICAL watchdog: it is broken; the daemon ends" in ended.stderr


def test_the_end_is_abrupt_and_has_a_reason() -> None:
    program = "from orchestratord import log; from orchestratord.daemon import watchdog\n"
    program += "log.set_up()\ntry:\n    watchdog.end('it is broken')\nfinally:\n    print('no')\n"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "CRITICAL watchdog: it is broken; the daemon ends" in ended.stderr
