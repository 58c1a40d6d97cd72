"""Services of plugins: one for all workers and daemons, and another one once that is dead."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.waiting import until
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

PLUGINS = {"dirs": ["plugins"]}
TICKER = """
import asyncio, os, time
from orchestratord import Service, hookimpl

async def beat(stop, name):
    while not stop.is_set():
        with open("PLACE/" + name, "a") as file:
            file.write(f"{os.getpid()} {time.time()}\\n")
        await asyncio.sleep(0.02)
    with open("PLACE/ended", "a") as file:
        file.write(name + "\\n")

@hookimpl
def register_services(control):
    async def one(stop):
        await beat(stop, "one")

    async def each(stop):
        await beat(stop, "each")

    return [Service("one", one), Service("each", each, where="each")]
"""
TAKEN_OVER = 4.0 + 2.0
"""Seconds: what a role is held for without a word, and two looks."""


def declare(daemon: Daemon, place: Path) -> None:
    daemon.plugin("ticker", TICKER.replace("PLACE", str(place)))
    daemon.api("crm", "http://127.0.0.1:9")
    daemon.expect(r"a password is written out here")


def beats(place: Path, name: str = "one") -> list[tuple[int, float]]:
    try:
        lines = (place / name).read_text().splitlines()
    except FileNotFoundError:
        return []
    return [(int(pid), float(at)) for pid, at in map(str.split, lines) if "." in at]


def overlaps(found: list[tuple[int, float]]) -> int:
    """How often a process beats again after another one has begun to."""
    turns = [pid for n, (pid, _) in enumerate(found) if not n or found[n - 1][0] != pid]
    return len(turns) - len(set(turns))


def test_one_of_two_workers_has_it(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    daemon = make_daemon(workers=2, plugins=PLUGINS)
    declare(daemon, tmp_path)
    daemon.start()
    until(lambda: len({pid for pid, _ in beats(tmp_path, "each")}) == 2, "one in each worker")
    until(lambda: len(beats(tmp_path)) > 20, "the one")
    assert len({pid for pid, _ in beats(tmp_path)}) == 1
    (found,) = [one for one in daemon.status()["plugins"] if one["name"] == "ticker"]
    assert found["services"] == [
        {"name": "one", "where": "one", "state": "running", "error": None},
        {"name": "each", "where": "each", "state": "running", "error": None},
    ]
    assert daemon.stop() == 0
    ended = (tmp_path / "ended").read_text().split()
    assert sorted(ended) == ["each", "each", "one"]


def test_one_of_three_daemons_has_it_and_another_one_soon_after(
    make_daemon: MakeDaemon, postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.create()
    fleet = [make_daemon(database=url, plugins=PLUGINS, lease="3s") for _ in range(3)]
    for daemon in fleet:
        declare(daemon, tmp_path)
        daemon.start()
    until(lambda: len(beats(tmp_path)) > 20, "the one")
    (pid,) = {pid for pid, _ in beats(tmp_path)}
    (holder,) = [daemon for daemon in fleet if daemon.pid == pid]
    os.kill(pid, signal.SIGKILL)
    died = time.time()
    holder.kill()
    until(lambda: {one for one, _ in beats(tmp_path)} != {pid}, "another one")
    assert beats(tmp_path)[-1][1] - died < TAKEN_OVER + 5
    print(f"taken over {min(at for one, at in beats(tmp_path) if one != pid) - died:.1f} s later")
    rest = [daemon for daemon in fleet if daemon is not holder]
    (second,) = [daemon for daemon in rest if daemon.pid == beats(tmp_path)[-1][0]]
    assert second.stop() == 0  # which gives it back
    stopped = time.time()
    (third,) = [daemon for daemon in rest if daemon is not second]
    until(lambda: beats(tmp_path)[-1][0] == third.pid, "the third one")
    assert next(at for one, at in beats(tmp_path) if one == third.pid) - stopped < 3
    assert overlaps(beats(tmp_path)) == 0
    third.stop()
    postgres.drop(url)


def test_it_is_another_workers_soon_after_one_of_six_is_killed(
    make_daemon: MakeDaemon, postgres: Postgres, tmp_path: Path
) -> None:
    """Three daemons of two workers each; only the first worker of a daemon runs what runs once."""
    url = postgres.create()
    fleet = [make_daemon(database=url, plugins=PLUGINS, lease="3s", workers=2) for _ in range(3)]
    for daemon in fleet:
        declare(daemon, tmp_path)
        daemon.expect(r"worker \d+ .*(died|ended|killed)", r"pid \d+")
        daemon.start()
    until(lambda: len(beats(tmp_path)) > 20, "the one")
    (pid,) = {pid for pid, _ in beats(tmp_path)}
    assert pid not in {daemon.pid for daemon in fleet}, "supervisors run none"
    os.kill(pid, signal.SIGKILL)
    died = time.time()
    until(lambda: {one for one, _ in beats(tmp_path)} != {pid}, "another one")
    assert next(at for one, at in beats(tmp_path) if one != pid) - died < TAKEN_OVER + 5
    time.sleep(2)
    assert overlaps(beats(tmp_path)) == 0
    for daemon in fleet:
        assert daemon.stop() == 0
    postgres.drop(url)


def test_one_that_ends_and_one_that_hangs_are_told(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(plugins=PLUGINS, drain_timeout="1s")
    daemon.plugin(
        "bad",
        "import asyncio\nfrom orchestratord import Service, hookimpl\n"
        "async def ends(stop):\n    pass\n"
        "async def hangs(stop):\n    while True:\n        try:\n"
        "            await asyncio.sleep(60)\n"
        "        except asyncio.CancelledError:\n            pass\n"
        "@hookimpl\ndef register_services(control):\n"
        "    return [Service('ends', ends), Service('hangs', hangs)]\n",
    )
    daemon.expect(r"plugin bad: ", r"left a coroutine behind")
    daemon.start()
    daemon.logged("plugin bad: service ends ended, and nothing had asked it to")
    daemon.signal(signal.SIGTERM)
    daemon.wait()
    daemon.logged("plugin bad: service hangs goes on although it was cancelled")


def test_what_is_wrong_with_one_is_told(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(plugins=PLUGINS, workers=2)
    daemon.plugin(
        "bad",
        "import asyncio, time\nfrom orchestratord import Service, hookimpl\n"
        "async def raises(stop):\n    raise RuntimeError('out of order')\n"
        "async def blocks(stop):\n    time.sleep(3)\n    await stop.wait()\n"
        "async def orphan():\n    raise ValueError('in a task of its own')\n"
        "async def forgets(stop):\n    asyncio.ensure_future(orphan())\n    await stop.wait()\n"
        "@hookimpl\ndef register_services(control):\n"
        "    return [Service('raises', raises), Service('blocks', blocks),"
        " Service('forgets', forgets)]\n",
    )
    daemon.expect(r"plugin bad: ", r"the event loop stood still")
    daemon.start()
    until(lambda: "plugin bad: service raises" in daemon.log(), "its being told")
    until(lambda: "in a task of its own" in daemon.log(), "what nothing waits for")
    found = until(lambda: _waiting(daemon), "its being waited for")
    assert found["error"] == "service raises: RuntimeError: out of order"
    said = daemon.ctl("status").out
    assert "raises ended, begins again" in said
    doctor = daemon.run("doctor", "--config", str(daemon.config))
    assert "the service raises of the plugin bad ended" in doctor.out
    assert "Task exception was never retrieved" not in daemon.log()
    assert "plugin bad" in daemon.logged("holds up|stood still|blocks")
    assert daemon.stop() == 0


def _waiting(daemon: Daemon) -> dict[str, str] | None:
    (bad,) = [one for one in daemon.status()["plugins"] if one["name"] == "bad"]
    found: dict[str, dict[str, str]] = {one["name"]: one for one in bad["services"]}
    return found["raises"] if found and found["raises"]["state"] == "waiting" else None
