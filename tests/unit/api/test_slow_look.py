"""What takes long to look up keeps nobody waiting who can be told what was known before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestratord.api import slow_look
from orchestratord.api.slow_look import SlowLook
from orchestratord.errors import Unreachable
from orchestratord.queue.batch import Read


class Queue:
    """Finds one more at each look, once it may."""

    def __init__(self) -> None:
        self.looks = 0
        self.may = asyncio.Event()
        self.may.set()
        self.error: Exception | None = None

    async def read(self, operation: Read[int]) -> int:
        await self.may.wait()
        if self.error is not None:
            raise self.error
        self.looks += 1
        return self.looks


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What `world.monotonic` says."""
    time = [1000.0]
    monkeypatch.setattr(slow_look.world, "monotonic", lambda: time[0])
    return time


READ: Read[int] = Read(lambda db: 0)


def look_of(queue: Queue, known: int | None = None) -> SlowLook[int]:
    store: Any = queue
    return SlowLook(store, known)


async def test_what_is_quick_is_looked_up_each_time(now: list[float]) -> None:
    queue = Queue()
    look = look_of(queue)
    for number in range(1, 4):
        queue.may.clear()
        asking = asyncio.create_task(look.latest(READ))
        await asyncio.sleep(0.01)
        now[0] += slow_look.QUICK / 2
        queue.may.set()
        assert await asking == number


async def test_what_takes_long_is_not_waited_for_again(now: list[float]) -> None:
    queue = Queue()
    look = look_of(queue)

    async def slow() -> None:
        await asyncio.sleep(0)
        now[0] += 2.0
        queue.may.set()

    queue.may.clear()
    first, _ = await asyncio.gather(look.latest(READ), slow())
    assert first == 1
    assert await look.latest(READ) == 1  # it is looked up again in 40 s
    now[0] += 41
    queue.may.clear()
    assert await look.latest(READ) == 1  # and that is not waited for
    queue.may.set()
    await asyncio.sleep(0.01)
    assert await look.latest(READ) == 2
    now[0] += slow_look.FRESH + 1
    assert await look.latest(READ) == 3


async def test_what_was_never_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for, unless something can be said."""
    monkeypatch.setattr(slow_look, "WAIT", 0.01)
    queue = Queue()
    queue.may.clear()
    assert await look_of(queue, 7).latest(READ) == 7
    waiting = asyncio.create_task(look_of(queue).latest(READ))
    assert not (await asyncio.wait((waiting,), timeout=0.1))[0]
    queue.may.set()
    assert await waiting > 0


async def test_a_look_that_fails() -> None:
    queue = Queue()
    look = look_of(queue, 7)
    queue.error = MemoryError()
    assert await look.latest(READ) == 7
    queue.error = KeyError("no")
    with pytest.raises(KeyError):
        await look.latest(READ)
    queue.error = None
    assert await look.latest(READ) == 1


async def test_the_error_of_an_earlier_look_is_not_told(now: list[float]) -> None:
    """The first answer after an outage was the error of a look during it."""
    queue = Queue()
    look = look_of(queue, 7)
    look._took, look._at = 1.0, now[0] - 60
    queue.may.clear()
    assert await look.latest(READ) == 7
    queue.error = Unreachable("the database cannot be reached")
    queue.may.set()
    await asyncio.sleep(0.01)
    queue.error = None
    assert await look.latest(READ) == 1
