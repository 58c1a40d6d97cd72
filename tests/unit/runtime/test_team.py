"""The first worker and the others: they begin together, change together, and show as one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from orchestratord.config.folder import Files
from orchestratord.engine.http_executor import HttpPlugin
from orchestratord.runtime import team as teams
from orchestratord.runtime.link import Link
from orchestratord.runtime.team import Team, together
from orchestratord.runtime.worker_seat import InForce, WorkerSeat
from orchestratord.testing import Rig

FIRST, SECOND = InForce(1, 1000, Files()), InForce(2, 2000, Files())


class OtherWorker:
    """The second worker, as far as the first one hears of it."""

    def __init__(self, link: Link) -> None:
        self.link = link

    async def heard(self, wanted: str) -> Any:
        """The values of the next message, which is a `wanted` one."""
        kind, values = await asyncio.wait_for(self.link.receive(), 60)
        assert kind == wanted
        return values


@pytest.fixture
async def team() -> AsyncIterator[Team]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    worker: Any = SimpleNamespace(host=Rig(HttpPlugin()).host)  # no one asks for tokens
    with ours, theirs:
        yield Team(worker, WorkerSeat(1, 2, theirs))


async def joined(team: Team, generation: int = 1) -> OtherWorker:
    """Another worker that has just begun, with the configuration of a generation."""
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    team.join(2, left)
    other = OtherWorker(await Link.over(right))
    assert await other.heard("listening") == (False,)
    other.link.send("hello", generation)
    return other


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # what is waited for tells no one
            await asyncio.sleep(0.005)


async def begun(team: Team) -> OtherWorker:
    other = await joined(team)
    beginning = asyncio.create_task(team.begin(FIRST))
    await other.heard("serve")
    assert not beginning.done(), "it begins once all serve"
    other.link.send("serving")
    await asyncio.wait_for(beginning, 60)
    return other


async def test_all_begin_together(team: Team) -> None:
    (await begun(team)).link.close()


async def test_one_that_is_still_to_begin_is_asked_nothing(team: Team) -> None:
    other = await joined(team)
    await team.snapshot(snapshot(in_flight=1))
    beginning = asyncio.create_task(team.begin(FIRST))
    await other.heard("serve")  # and no question before, which it could not answer
    beginning.cancel()
    other.link.close()


async def test_one_that_begins_later_has_what_is_in_force(team: Team) -> None:
    first = await begun(team)
    first.link.close()
    await until(lambda: team.troubles())
    [trouble] = team.troubles()
    why = "1 of 2 workers are still to begin"
    assert (trouble.code, trouble.why) == ("workers_missing", why)
    team.commit(SECOND)
    later = await joined(team, generation=1)
    answer, wanted = await later.heard("prepare")
    assert wanted == SECOND
    later.link.answer(answer, None)
    await later.heard("commit")
    await later.heard("serve")
    assert team.troubles(), "it is still to serve"
    later.link.send("serving")
    await until(lambda: not team.troubles())
    later.link.close()


@pytest.mark.parametrize("why", [None, "apis/a/api.yaml:1:1: no"])
async def test_a_configuration_is_taken_up_by_all_or_by_none(team: Team, why: str | None) -> None:
    other = await begun(team)
    asked = asyncio.create_task(team.prepare(SECOND))
    answer, wanted = await other.heard("prepare")
    assert wanted == SECOND
    other.link.answer(answer, why)
    problem = await asyncio.wait_for(asked, 60)
    if why is None:
        assert problem is None
        team.commit(SECOND)
        await other.heard("commit")
    else:
        assert problem is not None
        assert problem.message == f"worker 2 cannot take it up: {why}"
        team.abort()
        await other.heard("abort")
    other.link.close()


async def test_one_that_dies_holds_no_configuration_up(team: Team) -> None:
    other = await begun(team)
    asked = asyncio.create_task(team.prepare(SECOND))
    await other.heard("prepare")
    other.link.close()
    assert await asyncio.wait_for(asked, 60) is None


async def test_one_that_does_not_answer_refuses(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teams, "PREPARED_WITHIN", 0.05)
    other = await begun(team)
    problem = await team.prepare(SECOND)
    assert problem is not None
    assert problem.message == "worker 2 cannot take it up: it does not answer"
    team.abort()
    late, _ = await other.heard("prepare")
    await other.heard("abort")
    # What it answers in the end is no answer to what it is asked next.
    monkeypatch.undo()
    asked = asyncio.create_task(team.prepare(SECOND))
    answer, _ = await other.heard("prepare")
    other.link.answer(late, None)
    other.link.answer(answer, "no")
    problem = await asyncio.wait_for(asked, 60)
    assert problem is not None
    assert problem.message == "worker 2 cannot take it up: no"
    other.link.close()


async def test_one_that_has_just_begun_is_not_told_to_forget_what_it_has(team: Team) -> None:
    first = await begun(team)
    asked = asyncio.create_task(team.prepare(SECOND))
    await first.heard("prepare")
    first.link.close()
    assert await asyncio.wait_for(asked, 60) is None
    later = await joined(team)
    team.abort()
    await later.heard("serve")
    later.link.close()


async def test_one_that_cannot_begin_ends_so_that_another_one_does(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await begun(team)
    first.link.close()
    team.commit(SECOND)
    refuses = await joined(team, generation=1)
    answer, _ = await refuses.heard("prepare")
    refuses.link.answer(answer, "no")
    assert await refuses.heard("end") == ("this worker cannot begin: no",)
    refuses.link.close()
    monkeypatch.setattr(teams, "PREPARED_WITHIN", 0.05)
    silent = await joined(team, generation=1)
    await silent.heard("prepare")
    assert await silent.heard("end") == ("this worker has not begun: no answer",)
    silent.link.close()


async def test_one_that_is_not_understood_ends(team: Team) -> None:
    other = await begun(team)
    other.link.send("events")  # without any
    await other.heard("end")
    with pytest.raises(EOFError):
        await other.link.receive()
    other.link.close()
    await until(team.troubles)


async def test_the_first_one_leaves_last(team: Team) -> None:
    other = await begun(team)
    await team.others_left(0.05)
    assert not team.troubles(), "it waits no longer than it may"
    leaving = asyncio.create_task(team.others_left(5))
    await asyncio.sleep(0.05)
    assert not leaving.done()
    other.link.close()
    await asyncio.wait_for(leaving, 2)


async def test_all_are_shown_together(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    other = await begun(team)
    shown = asyncio.create_task(team.snapshot(snapshot(in_flight=2)))
    (report,) = await other.heard("report")
    other.link.answer(report, snapshot(in_flight=3))
    assert (await shown)["in_flight"] == 5
    # One that is at something shows what it said last.
    monkeypatch.setattr(teams, "REPORT_WITHIN", 0.05)
    assert (await team.snapshot(snapshot(in_flight=1)))["in_flight"] == 4
    other.link.close()


# -- many as one ----------------------------------------------------------------------------------


def snapshot(**keys: Any) -> dict[str, Any]:
    return {
        "in_flight": 0, "concurrency": 100, "events_dropped": 0, "draining": False,
        "unheld_claims": 1, "next_due": None, "rates": {"succeeded": 0.0}, "lanes": [],
        "throttled": [], **keys,
    }  # fmt: skip


def lane(name: str, **keys: Any) -> dict[str, Any]:
    return {
        "name": name, "in_flight": 0, "concurrency": 4, "due": 0, "rate": None, "breaker": None,
        "retry_after": None, "overload": None, "openings": 0, **keys,
    }  # fmt: skip


def test_one_is_as_it_is() -> None:
    alone = snapshot(in_flight=3, next_due=7, lanes=[lane("api:a", in_flight=3)])
    assert together([alone]) == alone


def test_counts_add_up() -> None:
    found = together(
        [
            snapshot(in_flight=3, next_due=None, rates={"succeeded": 1.25}),
            snapshot(
                in_flight=4, next_due=90, rates={"succeeded": 2.5}, draining=True, events_dropped=2
            ),
            snapshot(in_flight=0, next_due=70, rates={"succeeded": 0.0}, events_dropped=1),
        ]
    )
    added = {
        "in_flight": 7, "next_due": 70, "rates": {"succeeded": 3.75}, "events_dropped": 3,
        "unheld_claims": 3,
    }  # fmt: skip
    assert found == snapshot(draining=True, **added), "the concurrency is written for all of them"


def test_a_lane_waits_where_one_of_the_workers_waits() -> None:
    breaker = {"state": "open", "since": 5}
    one = lane("api:a", in_flight=1, due=2, openings=1, breaker=breaker)
    other = lane("api:a", in_flight=2, due=3, retry_after={"until": 9})
    found = together([snapshot(lanes=[one]), snapshot(lanes=[other, lane("api:b")])])["lanes"]
    assert found == [
        lane("api:a", in_flight=3, due=3, openings=1, breaker=breaker, retry_after={"until": 9}),
        lane("api:b"),
    ]
    assert one["in_flight"] == 1, "what was said last is not changed"
