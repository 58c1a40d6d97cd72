"""An event loop without a selector: it waits by the baton, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any

from tests.simulation.baton import Killed

if TYPE_CHECKING:
    from tests.simulation.process import Process

MOST_CANCELLED = 200
"""Timers that were cancelled, from which on they are cleared away."""

_serial = count(1)


def restart_serials() -> None:
    """Begin to number anew, with each universe."""
    global _serial
    _serial = count(1)


class NumberedFuture(asyncio.Future[Any]):
    """Sets of futures have the same order in each process that runs a seed."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        self._serial = next(_serial)
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._serial


class NumberedTask(asyncio.Task[Any]):
    """The same of tasks."""

    def __init__(self, coro: Any, **options: Any) -> None:
        self._serial = next(_serial)
        super().__init__(coro, **options)
        self._log_destroy_pending = False  # a killed process leaves them behind

    def __hash__(self) -> int:
        return self._serial


class SimulatedLoop(asyncio.BaseEventLoop):
    """The loop of one process."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self._process = process
        self._baton = process.universe.baton
        self._waiters: list[Any] = []
        self._executor = process.universe.machine.ThreadPoolExecutor(8)
        self.cancelled = 0

    def time(self) -> float:
        return self._baton.now

    def create_future(self) -> NumberedFuture:
        return NumberedFuture(loop=self)

    def create_task(self, coro: Any, **options: Any) -> NumberedTask:
        return NumberedTask(coro, loop=self, **options)

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        """Go round, on the strand that calls, until `main` has ended; what it returns."""
        strand = self._baton.current
        assert strand is not None
        strand.loop = self
        asyncio._set_running_loop(self)
        task = self.create_task(main)
        while not task.done():
            self._go_round()
        strand.loop = None
        asyncio._set_running_loop(None)
        return task.result()

    def _go_round(self) -> None:
        ready, timers, baton = self._ready, self._scheduled, self._baton
        if self.cancelled > MOST_CANCELLED:
            timers[:] = [timer for timer in timers if not timer._cancelled]
            heapify(timers)
            self.cancelled = 0
        while timers and timers[0]._cancelled:
            heappop(timers)._scheduled = False
        if ready:
            baton.pause("turn")
        else:
            baton.wait(self._waiters, timers[0]._when if timers else None)
        end = baton.now + 1e-9
        while timers and timers[0]._when <= end:
            timer = heappop(timers)
            timer._scheduled = False
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                try:
                    handle._context.run(handle._callback, *handle._args)
                except (Exception, Killed) as error:
                    words = f"Exception in callback {handle._callback}"
                    self.call_exception_handler({"message": words, "exception": error})

    # As those of asyncio, without its looks for what is wrong.

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._baton.now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self.cancelled += 1

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        if self._process.dead:
            raise RuntimeError("Event loop is closed")
        handle = self.call_soon(callback, *args, context=context)
        self._baton.wake(self._waiters)
        self._baton.pause("call")
        return handle

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:
        future = (executor or self._executor).submit(func, *args)
        return asyncio.wrap_future(future, loop=self)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self._process.universe.broken(f"{self._process.name}: {context.get('message')}", error)

    # -- mailboxes, in the place of sockets --------------------------------------------------------

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:
        fd.listen(lambda: self.call_soon_threadsafe(callback, *args))

    def remove_reader(self, fd: Any) -> bool:
        fd.listen(None)
        return True
