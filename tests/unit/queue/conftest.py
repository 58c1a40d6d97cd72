from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestratord.queue.store import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue" / "orchestratord.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(f"sqlite:///{path}")
    yield opened
    await opened.close()
