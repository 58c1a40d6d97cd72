"""Poison candidates begin one after the other, and none is passed by."""

from __future__ import annotations

import asyncio

import pytest

from orchestratord.engine import poison
from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.engine.poison import PoisonCandidates
from orchestratord.model.task import Task
from orchestratord.testing import task


def candidates(count: int) -> tuple[PoisonCandidates, LaneSet, list[Task]]:
    lanes = LaneSet()
    return PoisonCandidates(lanes), lanes, [task(id=number, deaths=1) for number in range(count)]


async def test_each_has_its_turn_when_the_one_before_has_ended() -> None:
    found, lanes, (first, second, third) = candidates(3)
    assert [found.admit(one, "api:a") for one in (first, second, third)] == [True, False, False]
    assert found.take_turn() is None
    assert found.waiting_ids() == [second.id, third.id]
    found.ended(second.id)  # it is not the one whose end is waited for
    assert not lanes.wake.is_set()
    found.ended(first.id)
    assert lanes.wake.is_set()
    assert found.take_turn() == (second, "api:a")
    assert found.take_turn() is None
    found.ended(second.id)
    assert found.take_turn() == (third, "api:a")
    found.ended(third.id)


async def test_one_that_comes_between_two_turns_passes_nobody() -> None:
    found, _, (first, second, third) = candidates(3)
    found.admit(first, "api:a")
    found.admit(second, "api:a")
    found.ended(first.id)
    assert not found.admit(third, "api:b")
    assert found.take_turn() == (second, "api:a")
    assert found.take_waiting() == [third]
    found.ended(second.id)
    assert found.take_turn() is None


async def test_one_that_takes_long_holds_up_the_next_one_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(poison, "ALONE", 0.01)
    found, lanes, (first, second) = candidates(2)
    found.admit(first, "api:a")
    found.admit(second, "api:a")
    async with asyncio.timeout(5):
        await lanes.wake.wait()
    assert found.take_turn() == (second, "api:a")
    found.ended(first.id)
    assert not found.admit(first, "api:a")  # the second one's turn is not over with that
