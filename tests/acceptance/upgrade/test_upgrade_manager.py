"""What the service manager is told while one version becomes the next."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.acceptance.commands.manager import Manager
from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

WATCHDOG = 6.0
"""Seconds; a machine that is busy may keep a process from running for one or two."""
SLOW = """
import asyncio, os, sys
from pathlib import Path
from orchestratord.queue import schema, store

flag = Path(os.environ["SLOW"])
opened = store.Store.open

async def open_slowly(*args, **more):
    await asyncio.sleep(float(flag.read_text()))
    return await opened(*args, **more)

if flag.exists() and "--examine" in sys.argv:
    schema.compatible_from = lambda: schema.VERSION + 1
elif flag.exists():
    store.Store.open = open_slowly
"""
"""A version whose schema no worker of before can go on with, and is long in the making."""


@contextmanager
def listening(manager: Manager) -> Iterator[list[tuple[float, dict[str, str]]]]:
    """All that comes meanwhile, and when."""
    heard: list[tuple[float, dict[str, str]]] = []
    ended = threading.Event()

    def listen() -> None:
        while not ended.wait(0.02):
            heard.extend((time.monotonic(), one) for one in manager.listen()[len(heard) :])

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield heard
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("workers", [1, 2])
def test_it_hears_of_one_reload_and_signs_of_life(
    make_daemon: MakeDaemon, tmp_path_factory: pytest.TempPathFactory, workers: int
) -> None:
    folder = tmp_path_factory.mktemp("n")
    slow = folder / "slow"
    environ = {
        "NOTIFY_SOCKET": str(folder / "notify"),
        "WATCHDOG_USEC": f"{WATCHDOG * 1_000_000:.0f}",
        "SLOW": str(slow),
    }
    manager = Manager(Path(environ["NOTIFY_SOCKET"]))
    daemon = make_daemon(workers=workers, environ=environ, plugins={"dirs": ["plugins"]})
    daemon.plugin("slow", SLOW)
    daemon.by_command = True  # it becomes that again
    daemon.api("shop", "http://127.0.0.1:9")
    with closing(manager.socket), listening(manager) as heard:

        def states() -> list[str]:
            names = ("READY", "RELOADING", "STOPPING")
            return [name for _, message in list(heard) for name in names if name in message]

        daemon.start()
        until(lambda: states() == ["READY"], "READY=1")
        # Beside the old workers, where there are some: nothing to wait for.
        expected = ["READY", "READY"] if workers > 1 else ["READY", "RELOADING", "READY"]
        assert daemon.ctl("upgrade", timeout=120).code == 0
        until(lambda: states() == expected, f"{expected}")
        # Once the old ones have drained, and the schema was brought on.
        slow.write_text(f"{WATCHDOG + 1}")
        until(lambda: daemon.post("/v1/upgrade").status_code == 202, "an upgrade")
        expected += ["RELOADING", "READY"]
        until(lambda: states() == expected, f"{expected}")
        assert daemon.stop() == 0
        until(lambda: states() == [*expected, "STOPPING"], f"{expected} and its end")
    signs = [at for at, message in heard if message.keys() & {"READY", "WATCHDOG", "STOPPING"}]
    assert max(b - a for a, b in pairwise(signs)) < WATCHDOG
