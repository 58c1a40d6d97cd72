"""That others are answered while a daemon does something costly, on a busy machine as well."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.acceptance.daemon import Daemon


def unscheduled(daemon: Daemon) -> float:
    """Seconds for which this process and the daemon have been ready to run, and had no processor.

    0 where the kernel does not count them.
    """
    waited = 0
    for process in ("self", str(daemon.pid)):
        for thread in Path(f"/proc/{process}/task").glob("*/schedstat"):
            with suppress(OSError):  # it ends meanwhile
                waited += int(thread.read_text().split()[1])
    return waited / 1e9


@contextmanager
def undisturbed(daemon: Daemon, ask: Callable[[], object], within: float = 1.0) -> Iterator[None]:
    """Call `ask` again and again until the end of the `with`.

    Each call has to end within so many seconds, besides those in which other programs had the
    processors.
    """
    took: list[float] = []
    ended = threading.Event()

    def go_on() -> None:
        while not ended.is_set():
            began = time.monotonic() - unscheduled(daemon)
            ask()
            took.append(time.monotonic() - unscheduled(daemon) - began)
            ended.wait(0.02)

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(go_on)
        try:
            yield
        finally:
            ended.set()
            asking.result()
    assert max(took) < within, max(took)
