"""How the process ends, and goes on, whatever a plugin does.

What a plugin raises in the loop (SystemExit in a task of its own) does not end the loop. When the
daemon is told to stop, a thread sees to it that it does, though a hook may hold the loop; and what
does not end by itself, tasks and threads, is named and left behind.
"""

from __future__ import annotations

import asyncio
import atexit
import faulthandler
import logging
import os
import queue
import sys
import threading
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

from orchestratord.daemon.watchdog import NO_ROOM, end
from orchestratord.plugin.host import Host
from orchestratord.plugin.isolation import HookFault, words
from orchestratord.values import world

log = logging.getLogger("orchestratord")

GRACE = 5.0
"""Seconds beyond `drain_timeout` within which the process has ended."""
_LAST_WORDS = 1.0
"""Seconds of them that are left for saying why it is ended."""
_LEFT_AFTER = 1.0
"""Seconds that tasks and threads may take to end once the daemon has."""
_ABORT = 0.0


def run_loop(main: Coroutine[Any, Any, int], host: Host) -> int:
    """Run `main` in a loop of its own to its end, which no plugin can hasten; what it returns."""
    loop = asyncio.new_event_loop()
    pool = world.ThreadPoolExecutor(thread_name_prefix="asyncio")
    loop.set_default_executor(pool)
    loop.set_exception_handler(partial(_note_lost, host))
    try:
        code: int = _run(loop, main, host)
        return code
    finally:
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        if pending:
            _run(loop, asyncio.wait(pending, timeout=_LEFT_AFTER), host)
        if left := [task for task in pending if not task.done()]:
            log.error("left a coroutine behind, as it swallows its cancellation: %s", _named(left))
        closing = loop.create_task(loop.shutdown_asyncgens())
        _run(loop, asyncio.wait((closing,), timeout=_LEFT_AFTER), host)
        # Not waiting: what a plugin runs in a thread is left behind as well.
        pool.shutdown(wait=False, cancel_futures=True)
        loop.close()


def _note_lost(host: Host, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what was raised where nothing waits for it; of a plugin, as its fault."""
    error = context.get("exception")
    owner = host.raiser_of(error) if error is not None else None
    if error is None or owner is None:
        loop.default_exception_handler(context)
        return
    said = HookFault(f"raised {words(error)} without a caller that waits for it")
    said.__cause__ = error
    host.fault(owner[0], f"a task ({owner[1]})", said)


def _run(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, Any], host: Host) -> Any:
    task = loop.create_task(main)
    while True:
        try:
            return loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as error:
            if task.done():
                raise
            # The loop has lost nothing: it stands behind the task that raised this.
            said = HookFault(f"raised {words(error)} in the event loop, which goes on")
            said.__cause__ = error
            owner, _ = host.raiser_of(error) or ("?", "")
            host.fault(owner, "a task", said)
        except MemoryError:  # a timer of the loop's own may be lost with it
            end(NO_ROOM)


def leave_threads(code: int) -> int:
    """The exit code. The process exits with it even where threads go on that are no daemon threads:
    the interpreter waits for them, and for pools to end those of theirs that have no work."""
    world.Thread(target=_exit_anyway, args=(code,), daemon=True).start()
    return code


def end_fork(code: int) -> NoReturn:
    """End a process that was forked in the middle of its parent's course, which is not for it to
    go back to, in the way of one that ends by itself: threads are waited for, as said above, and
    what is registered for the exit is called."""
    leave_threads(code)
    try:
        for thread in threading.enumerate():
            if not thread.daemon and thread is not threading.main_thread():
                thread.join()
        atexit._run_exitfuncs()
    finally:
        _exit(code)


def _exit_anyway(code: int) -> None:
    world.sleep(_LEFT_AFTER)
    left = [
        thread.name
        for thread in threading.enumerate()
        if not thread.daemon and thread is not threading.main_thread()
    ] or ["the main one, in what a library does at the exit"]
    log.critical("ended without waiting for threads that go on: %s", ", ".join(left))
    _exit(code)


class Deadline:
    """Ends the process at a time, whatever the loop does. It is told so by a signal's handler, so
    that no order takes a lock."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._orders: world.SimpleQueue[float] = world.SimpleQueue()
        self._main: asyncio.Task[Any] | None = None
        self._loop_thread = threading.get_ident()

    def watch(self) -> None:
        """Begin to take orders; the running task is the daemon."""
        self._main, self._loop_thread = asyncio.current_task(), threading.get_ident()
        world.Thread(target=self._watch, name="deadline", daemon=True).start()

    def end_within(self, drain_timeout: float) -> None:
        """The process ends within `drain_timeout` and 5 seconds; an earlier order stands."""
        self._orders.put(world.monotonic() + drain_timeout + GRACE - _LAST_WORDS)

    def abort(self) -> None:
        """The process ends now."""
        self._orders.put(_ABORT)

    def _watch(self) -> None:
        end: float | None = None
        while True:
            try:
                rest = None if end is None else max(end - world.monotonic(), 0.0)
                order = self._orders.get(timeout=rest)
            except queue.Empty:
                break
            if end is None or order == _ABORT:
                end = order
                # Should the interpreter itself be held: this needs no lock of its.
                with suppress(Exception):
                    left = max(end - world.monotonic(), 0.0) + _LAST_WORDS
                    faulthandler.dump_traceback_later(left, exit=True)
        if end == _ABORT:
            log.critical("a second signal: aborting; the next start sorts out what was in flight")
        else:
            log.critical(
                "not stopped %gs after drain_timeout, so ended now: %s; the next start sorts out "
                "what was in flight", GRACE - _LAST_WORDS, self._why(),
            )  # fmt: skip
        _exit(1)

    def _why(self) -> str:
        owner = self._host.owner_of(sys._current_frames().get(self._loop_thread))
        if owner is not None:
            return f"plugin {owner[0]}: {owner[1]} holds the event loop"
        if self._main is not None and not self._main.done():
            with suppress(RuntimeError):  # another thread changes the set meanwhile
                others = asyncio.all_tasks(self._main.get_loop()) - {self._main}
                return f"these tasks do not end: {_named(others) or 'those of the daemon'}"
        return "the process does not exit"


def _named(tasks: Iterable[asyncio.Task[Any]]) -> str:
    """What runs in tasks, for the log."""
    return ", ".join(
        sorted(str(getattr(task.get_coro(), "__qualname__", task.get_name())) for task in tasks)
    )


def _exit(code: int) -> NoReturn:
    logging.shutdown()
    os._exit(code)
