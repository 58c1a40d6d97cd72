"""Long work beside an event loop. How long that waits, `python -m bench.config` measures."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref

import pytest

from orchestratord.plugin.long_work import (
    bounded,
    count_anew,
    off_loop,
    seconds_queued,
    yield_gil,
)
from orchestratord.values.template import Template


def test_the_interval_is_shorter_as_long_as_anybody_works() -> None:
    usual = sys.getswitchinterval()
    with yield_gil():
        assert sys.getswitchinterval() < 0.001
        with pytest.raises(ZeroDivisionError), yield_gil():
            1 / 0  # noqa: B018
        assert sys.getswitchinterval() < 0.001
    assert sys.getswitchinterval() == usual


async def test_off_loop_one_piece_of_work_is_done_after_the_other() -> None:
    order: list[object] = []
    gate = threading.Event()

    def work(name: str) -> str:
        order.append((name, sys.getswitchinterval() < 0.001))
        gate.wait(10)
        order.append(name)
        return name

    tasks = [asyncio.create_task(off_loop(work, name)) for name in "abc"]
    while not order:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert order == [("a", True)]
    assert (seconds_queued(tasks[0]) or 0) < (seconds_queued(tasks[2]) or 0)
    tasks[1].cancel()
    await asyncio.sleep(0.05)
    gate.set()
    assert [await tasks[0], await tasks[2]] == ["a", "c"]
    assert order == [("a", True), "a", ("c", True), "c"]
    assert (seconds_queued(tasks[2]) or 0) > 0.05
    assert seconds_queued(asyncio.create_task(asyncio.sleep(0))) is None


async def test_off_loop_what_it_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        await off_loop(lambda: 1 // 0)


async def test_off_loop_what_is_given_up_does_not_hold_the_others() -> None:
    gate = threading.Event()
    endless = asyncio.create_task(off_loop(gate.wait, 10))
    waiting = asyncio.create_task(off_loop(lambda: "next"))
    await asyncio.sleep(0.05)
    endless.cancel()
    assert await asyncio.wait_for(waiting, 60) == "next"
    before = {thread for thread in threading.enumerate() if "answers" in thread.name}
    gate.set()
    assert await off_loop(threading.current_thread) in before
    while len([thread for thread in threading.enumerate() if "answers" in thread.name]) > 1:
        await asyncio.sleep(0.01)


async def test_bounded_what_is_large_or_dear_is_done_beside_the_loop() -> None:
    def where(template: Template, params: dict[str, object]) -> tuple[threading.Thread, object]:
        return threading.current_thread(), template.render({"params": params})

    here, pairs = (
        threading.current_thread(),
        Template("{{ params.a | select('in', params.a) | list }}"),
    )
    few, many = {"a": list(range(50))}, {"a": list(range(2000))}
    assert await bounded(False, where, pairs, few) == (here, few["a"])
    assert (await bounded(True, where, pairs, few))[0] is not here
    thread, found = await bounded(False, where, pairs, many)
    assert thread is not here
    assert found == many["a"]
    running = asyncio.current_task()
    assert running is not None
    assert seconds_queued(running) is not None
    count_anew(running)
    assert seconds_queued(running) is None


async def test_off_loop_what_it_returns_is_freed_when_its_caller_is_done_with_it() -> None:
    class Result:
        """Something that a weak reference can be had of."""

    gc.disable()  # a ring of references would be found by it
    try:
        found = weakref.ref(await off_loop(Result))
        for _ in range(500):
            if found() is None:
                break
            await asyncio.sleep(0.01)  # the thread lets go of it a moment later
        assert found() is None
    finally:
        gc.enable()
