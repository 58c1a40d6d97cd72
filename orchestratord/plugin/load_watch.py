"""Says which plugin it is that takes long to load, and keeps one from ending the process."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from orchestratord.values import world

log = logging.getLogger("orchestratord.plugins")

SLOW = 3.0
"""Seconds after which a plugin that loads is named."""


@contextmanager
def watched(name: str) -> Iterator[None]:
    """Name a plugin that is still loading after `SLOW`. `os._exit` raises SystemExit meanwhile, in
    this process: it would end without a word."""
    loaded, process, leave = world.Event(), os.getpid(), os._exit

    def look() -> None:
        if not loaded.wait(SLOW):
            log.warning("plugin %s is still loading after %g s", name, SLOW)

    def refuse(status: int) -> NoReturn:
        if loaded.is_set() or os.getpid() != process:
            leave(status)
        raise SystemExit(f"it called os._exit({status})")

    # It ends before any fork.
    watcher = world.Thread(target=look, name="plugins", daemon=True)
    watcher.start()
    os._exit = refuse
    try:
        yield
    finally:
        os._exit = leave
        loaded.set()
        watcher.join()
