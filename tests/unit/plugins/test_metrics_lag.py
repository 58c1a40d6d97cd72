from __future__ import annotations

import asyncio
import gc
import time
import weakref

from orchestratord_metrics.lag import EVERY, LoopLag


async def test_a_loop_that_is_held_up_is_late() -> None:
    lag = LoopLag(asyncio.get_running_loop())
    assert not lag.found.copy()
    time.sleep(EVERY + 0.3)
    await asyncio.sleep(0.01)
    found = lag.found.copy()[()]
    assert sum(found[:-1]) == 1
    assert found[-1] > 0.299  # two clocks


async def test_the_timer_does_not_keep_it() -> None:
    lag = LoopLag(asyncio.get_running_loop())
    gone = weakref.ref(lag)
    del lag
    gc.collect()
    assert gone() is None
