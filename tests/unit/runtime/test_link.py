"""Messages between two workers arrive whole, in their order, and nothing comes of one that died."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from orchestratord.runtime import link as links
from orchestratord.runtime.link import Link


async def two() -> tuple[Link, Link]:
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    return await Link.over(left), await Link.over(right)


async def test_messages_arrive_in_their_order() -> None:
    one, other = await two()
    sent: list[tuple[str, tuple[Any, ...]]] = [
        ("empty", ()), ("several", (1, None, {"a": [2.5]})), ("long", ("x" * 300_000,)),
    ]  # fmt: skip
    for kind, values in sent:
        one.send(kind, *values)
    assert [await other.receive() for _ in sent] == sent
    other.send("reply", "ä")
    assert await one.receive() == ("reply", ("ä",))
    one.close()
    other.close()


async def test_the_end_of_the_other_one() -> None:
    one, other = await two()
    one.send("last")
    one.close()
    assert await other.receive() == ("last", ())
    with pytest.raises(EOFError):
        await other.receive()
    one.send("into the void")
    other.close()


async def test_each_question_has_its_answer() -> None:
    one, other = await two()
    first, second = (asyncio.create_task(one.ask("sum", a, 1)) for a in (1, 2))
    receiving = asyncio.create_task(one.receive())
    asked = [await other.receive() for _ in range(2)]
    assert [(kind, rest) for kind, (_, *rest) in asked] == [("sum", [1, 1]), ("sum", [2, 1])]
    for _, (number, *values) in reversed(asked):
        other.answer(number, sum(values))
    assert [await first, await second] == [2, 3]
    waiting = asyncio.create_task(one.ask("sum"))
    _, (number,) = await other.receive()
    waiting.cancel()
    other.answer(number, "too late")
    other.send("next")
    assert await receiving == ("next", ())
    one.close()
    other.close()


async def test_the_end_of_a_link_ends_what_waits_for_an_answer() -> None:
    one, other = await two()
    asked = asyncio.create_task(one.ask("sum"))
    await other.receive()
    one.close()
    with pytest.raises(EOFError):
        await asked
    other.close()


async def test_half_a_message_is_the_end() -> None:
    left, right = socket.socketpair()
    right.setblocking(False)
    link = await Link.over(right)
    left.sendall((100).to_bytes(4) + b"half")
    left.close()
    with pytest.raises(EOFError):
        await link.receive()
    link.close()


async def test_one_that_does_not_read_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "MOST_UNREAD", 100_000)
    one, other = await two()
    assert not one.slow
    one.send("much", b"x" * 2_000_000)
    assert one.slow
    await other.receive()
    assert not one.slow
    one.close()
    other.close()
