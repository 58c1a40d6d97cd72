"""Long work in a thread, beside an event loop that is not to wait for it.

Python's interpreter runs one thread at a time. Who waits for a turn asks for it after 5 ms, but
counts anew whenever the other has let go for a moment, as at each look at a file, and was back
before the one who waits had woken up: so an event loop has waited for 90 ms while a large
configuration was read. Here it asks sooner, and is left enough time to wake up.

What an answer can make long is done by `off_loop`: one piece after the other, so that a hundred
answers at once are no more than one thread beside the loop. A piece that its caller gives up is
left behind with its thread, and another thread does those after it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from orchestratord.values import world
from orchestratord.values.budget import INLINE_STEPS, Budget, TooCostly, within_budget

P = ParamSpec("P")
R = TypeVar("R")

_ASKING = 0.0005
"""Seconds after which a thread asks for its turn; less than there is between two breaths."""
_WORK = 0.002
_BREATH = 0.0002
"""Seconds of work, and of a breath after it, in which another thread wakes up."""

Breathe = Callable[[], None]

_lock = world.Lock()
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
    breathed = world.monotonic()

    def breathe() -> None:
        nonlocal breathed
        if world.monotonic() - breathed > _WORK:
            world.sleep(_BREATH)
            breathed = world.monotonic()

    return breathe


# -- What an answer can make long ------------------------------------------------------------------


class _Piece:
    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.result: Any = None
        self.future: Future[None] = Future()
        """Without the result: asyncio ties it into a ring, which would keep that for long."""
        self.asked = world.monotonic()
        self.begun: float | None = None

    @property
    def queued(self) -> float:
        """Seconds for which it has waited for those before it."""
        return (world.monotonic() if self.begun is None else self.begun) - self.asked

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            with yield_gil():
                self.result = self.work()
        except BaseException as error:  # its caller's, whatever it is
            self.future.set_exception(error)
        else:
            self.future.set_result(None)


class AnswerThread:
    """The thread of one process for what would hold its loop. A daemon thread: the process does not
    wait for a piece that does not end."""

    def __init__(self) -> None:
        self._lock = world.Lock()
        self._pieces: world.SimpleQueue[_Piece] = world.SimpleQueue()
        self._started = False
        self._begun: _Piece | None = None

    def put(self, piece: _Piece) -> None:
        """Have it done after those that wait already."""
        self._pieces.put(piece)
        if not self._started:
            self._start()

    def leave(self, piece: _Piece) -> None:
        """Nothing waits for it any more: if it is under way, another thread does the others."""
        with self._lock:
            if self._begun is piece:
                self._begun = None
                self._start()

    def _start(self) -> None:
        self._started = True
        world.Thread(target=self._work, name="orchestratord-answers", daemon=True).start()

    def _work(self) -> None:
        while True:
            piece = self._pieces.get()
            with self._lock:
                piece.begun = world.monotonic()
                self._begun = piece
            piece.run()
            with self._lock:
                if self._begun is not piece:
                    return  # it was left, and another thread is in the place of this one
                self._begun = None
            del piece


thread = AnswerThread()
_asked: WeakKeyDictionary[asyncio.Task[Any], _Piece] = WeakKeyDictionary()
"""The piece that a task waits for now."""
_queued: WeakKeyDictionary[asyncio.Task[Any], float] = WeakKeyDictionary()
"""Seconds for which what a task has had done had to wait."""


async def off_loop(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What `function` returns, or raises, in the thread for what would hold the loop too long.

    For work that ends by itself, and only computes: no other such work begins before. Neither
    `plugins.timeout` nor the timeout of an attempt counts while it waits for its turn; both count
    once it has begun.
    """
    running = asyncio.current_task()
    if running is None:
        raise RuntimeError("off_loop is awaited in an asyncio task")
    piece = _Piece(lambda: function(*args, **kwargs))
    _asked[running] = piece
    thread.put(piece)
    try:
        await asyncio.wrap_future(piece.future)
        result: R = piece.result
        return result
    except asyncio.CancelledError:
        thread.leave(piece)
        raise
    finally:
        del _asked[running]
        _queued[running] = _queued.get(running, 0.0) + piece.queued


async def bounded(large: bool, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What `function` returns, or raises: at once where that takes a moment, else by `off_loop`.

    Args:
        large: whether it goes through much; what its templates cost is seen when they are rendered.
        function: may be called a second time, so that it changes nothing.
    """
    if not large:
        try:
            return within_budget(Budget(INLINE_STEPS), function, *args, **kwargs)
        except TooCostly:
            pass
    return await off_loop(function, *args, **kwargs)


def seconds_queued(task: asyncio.Task[Any]) -> float | None:
    """For how long what a task does by `off_loop` has waited; None where it has done nothing so."""
    piece = _asked.get(task)
    if piece is None:
        return _queued.get(task)
    return _queued.get(task, 0.0) + piece.queued


def count_anew(task: asyncio.Task[Any]) -> None:
    """What a task has had done until now does not count for `seconds_queued`."""
    if _queued:
        _queued.pop(task, None)
