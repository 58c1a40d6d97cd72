"""Another worker, as it follows the first one: what it cannot follow ends it."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from orchestratord.config.folder import Files
from orchestratord.engine.http_executor import HttpPlugin
from orchestratord.errors import ConfigError, OrchestratordError, Problem, Unreachable
from orchestratord.runtime.link import Link
from orchestratord.runtime.team_member import TeamMember
from orchestratord.runtime.team_tokens import TokenBorrower
from orchestratord.runtime.worker_seat import InForce
from orchestratord.testing import Rig

SECOND = InForce(2, 2000, Files())


class Configurations:
    """Loader and reloader, as far as a worker that follows another one needs them."""

    def __init__(self) -> None:
        self.config = self.read = SimpleNamespace(generation=1)
        self.wrong: Exception | None = None
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self._loop = asyncio.get_running_loop()
        self.loader: Any = _Loader(self)

    async def follow(self) -> None:
        if self.wrong is not None:
            raise self.wrong
        self.config = self.read


class _Loader:
    def __init__(self, all_: Configurations) -> None:
        self._all = all_

    @property
    def config(self) -> SimpleNamespace:
        return self._all.read

    def follow(self, generation: int, _adopted_at: int, _files: Files) -> None:
        asyncio.run_coroutine_threadsafe(self._all.goes_on.wait(), self._all._loop).result(5)
        if self._all.wrong is not None:
            raise self._all.wrong
        self._all.read = SimpleNamespace(generation=generation)

    def undo(self) -> None:
        self._all.read = self._all.config


class Member:
    """One that has begun, and the first worker's end of the link to it."""

    def __init__(self) -> None:
        self.here = Configurations()
        self.worker: Any = SimpleNamespace(
            snapshot=lambda: {"in_flight": 3},
            host=Rig(HttpPlugin()).host,
        )
        reloader: Any = self.here
        self.member = TeamMember(self.worker, reloader, self.here.loader, TokenBorrower())
        self.going = asyncio.create_task(self.member.run())

    async def joined(self) -> Link:
        left, right = socket.socketpair()
        left.setblocking(False)
        right.setblocking(False)
        self.member.join(left)
        return await Link.over(right)


async def heard(link: Link, wanted: str) -> Any:
    kind, values = await asyncio.wait_for(link.receive(), 60)
    assert kind == wanted
    return values


async def answer(link: Link, kind: str, *values: Any) -> Any:
    """What a question is answered, before anything else is heard."""
    receiving = asyncio.create_task(link.receive())
    try:
        return await asyncio.wait_for(link.ask(kind, *values), 60)
    finally:
        assert not receiving.done()
        receiving.cancel()


async def begun() -> tuple[Member, Link]:
    member = Member()
    link = await member.joined()
    assert await heard(link, "hello") == (1,)
    link.send("serve")
    await asyncio.wait_for(member.member.may_serve(), 60)
    return member, link


async def test_one_that_cannot_take_up_what_all_do_ends() -> None:
    member, link = await begun()
    assert await answer(link, "prepare", SECOND) is None
    member.here.wrong = Unreachable("the database is away")
    link.send("commit")
    with pytest.raises(Unreachable):
        await asyncio.wait_for(member.going, 60)
    # It drains, and holds the next reload up no more.
    assert await answer(link, "prepare", SECOND) is None
    link.close()


async def test_what_it_cannot_read_for_a_reason_of_its_own_ends_it() -> None:
    member, link = await begun()
    member.here.wrong = MemoryError("no room")
    assert await answer(link, "prepare", SECOND) == "MemoryError: no room"
    with pytest.raises(MemoryError):
        await asyncio.wait_for(member.going, 60)
    link.close()


async def test_what_is_wrong_with_the_files_does_not_end_it() -> None:
    member, link = await begun()
    member.here.wrong = ConfigError([Problem("no such key")])
    assert await answer(link, "prepare", SECOND) == "no such key"
    link.send("abort")
    assert await answer(link, "report") == {"in_flight": 3}
    assert not member.going.done()
    member.going.cancel()
    link.close()


async def test_one_that_is_told_to_end_does_not_begin() -> None:
    member = Member()
    link = await member.joined()
    link.send("end", "this worker cannot begin: no")
    with pytest.raises(OrchestratordError, match="cannot begin: no"):
        await asyncio.wait_for(member.member.may_serve(), 60)
    with pytest.raises(OrchestratordError, match="cannot begin: no"):
        await asyncio.wait_for(member.going, 60)
    link.close()


async def test_what_cannot_be_understood_ends_it() -> None:
    member, link = await begun()
    link.send("listening")  # whether anyone does is missing
    with pytest.raises(IndexError):
        await asyncio.wait_for(member.going, 60)
    link.close()


async def test_what_takes_long_to_read_keeps_no_other_message() -> None:
    member, link = await begun()
    member.here.goes_on.clear()
    receiving = asyncio.create_task(link.receive())
    prepared = asyncio.create_task(link.ask("prepare", SECOND))
    await asyncio.sleep(0)
    link.send("abort")
    assert await asyncio.wait_for(link.ask("report"), 60) == {"in_flight": 3}
    assert not prepared.done()
    member.here.goes_on.set()
    assert await asyncio.wait_for(prepared, 60) is None
    receiving.cancel()
    async with asyncio.timeout(60):
        while member.here.read is not member.here.config:  # the abort came after it
            await asyncio.sleep(0.005)
    member.going.cancel()
    link.close()


async def test_it_says_what_is_in_force_here_not_what_is_prepared() -> None:
    """It once began beside a new first worker with a configuration that was never in force."""
    member, link = await begun()
    assert await answer(link, "prepare", SECOND) is None
    link.close()
    later = await member.joined()
    assert await heard(later, "hello") == (1,)
    assert member.here.read.generation == 1
    member.going.cancel()
    later.close()
