"""What the tests of HTTP/2 have in common."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestratord.errors import SendError


async def ok(exchange: Any) -> None:
    await exchange.answer()


async def failure(sending: Any) -> tuple[str, bool, bool]:
    """Kind, `sent` and `stale` of the error that comes of it."""
    with pytest.raises(SendError) as caught:
        await sending
    error = caught.value
    assert error.message
    assert "\n" not in error.message
    return error.kind, error.sent, error.stale


async def soon(event: asyncio.Event) -> None:
    async with asyncio.timeout(5):
        await event.wait()


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)
