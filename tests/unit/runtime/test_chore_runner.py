from __future__ import annotations

import asyncio
from pathlib import Path

from orchestratord.queue.store import Store
from orchestratord.runtime.chore_runner import ChoreRunner


async def test_a_runner_ends_that_is_cancelled_as_a_chore_is_added(tmp_path: Path) -> None:
    """On Python 3.11 `asyncio.wait_for` loses such a cancellation, and a stop never ended."""
    store = await Store.open(f"sqlite:///{tmp_path / 'q.db'}")
    running = asyncio.create_task(ChoreRunner(store, {}).run())
    await asyncio.sleep(0.05)
    store.chore_added.set()
    running.cancel()
    done, _ = await asyncio.wait([running], timeout=60)
    assert done
    await store.close()
