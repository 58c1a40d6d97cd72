"""Slots are shared by the time for which they are held."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestratord.engine.lanes.fair_slots import (
    LATELY_MS,
    MOST_QUICK,
    SLOW_MS,
    STUCK,
    SlotHolder,
    Speed,
)
from orchestratord.engine.lanes.lane import Lane
from orchestratord.engine.lanes.lane_set import SHARE_AGAIN_MS, LaneSet
from orchestratord.model.partition_turn import PartitionTurn
from orchestratord.model.task import Key, Task
from tests.unit.engine.lanes.slot_model import TASK, Arrival, Daemon, percentile, steady

OK, HANG = Key("a/ok"), Key("a/hang")
HUNG_MS, QUICK_MS = 30_000, 10


def daemon(
    holds: dict[Key, int], *, lane: str = "api:a", cap: int = 10, total: int = 100
) -> Daemon:
    """All keys in one lane, or each in one of its own for an empty `lane`."""
    lanes = LaneSet(total)
    for key in holds:
        lanes.place(key, lane or key.endpoint_id, cap)
    return Daemon(lanes, holds)


def some(name: str, count: int) -> list[Key]:
    return [Key(f"a/{name}{number}") for number in range(count)]


def random_calls(keys: list[Key], until: int, *, every: int = 500, lane: str = "") -> list[Arrival]:
    """Calls of each key at random times, so many milliseconds apart in the mean."""
    chance, calls = random.Random(3), []
    for key in keys:
        at = 0.0
        while (at := at + chance.expovariate(1 / every)) < until:
            calls.append((int(at), key, lane or key.endpoint_id))
    return calls


# -- how soon a slot comes back --------------------------------------------------------------------


def test_a_member_is_new_until_an_attempt_has_ended_or_lasted() -> None:
    holder = SlotHolder()
    assert holder.speed(0, 10) is Speed.NEW
    holder.began[1] = 0
    assert holder.speed(SLOW_MS, 10) is Speed.NEW
    assert holder.speed(SLOW_MS + 1, 10) is Speed.SLOW
    holder.end(1, SLOW_MS)
    assert holder.speed(SLOW_MS, 10) is Speed.QUICK


def test_one_late_attempt_does_not_make_a_quick_member_slow_and_several_do() -> None:
    holder = SlotHolder()
    for number in range(20):
        holder.began[number] = 0
        holder.end(number, 5)
    holder.began |= {100 + number: 0 for number in range(STUCK - 1)}
    assert holder.speed(10_000, 10) is Speed.QUICK
    assert holder.speed(10_000, 2) is Speed.SLOW  # of two slots, one is much
    holder.began[200] = 9_000
    assert holder.speed(10_000, 10) is Speed.SLOW
    holder.end(100, 30_000)
    holder.end(101, 30_000)
    holder.end(200, 9_005)
    assert holder.speed(30_000, 10) is Speed.QUICK


def test_what_was_slow_is_quick_again_after_a_dozen_attempts() -> None:
    holder = SlotHolder()
    for number in range(20):
        holder.began[number] = 0
        holder.end(number, HUNG_MS)
    ended = 0
    while holder.speed(0, 10) is Speed.SLOW:
        ended += 1
        holder.began[0] = 0
        holder.end(0, QUICK_MS)
    assert ended <= 12


def test_a_clock_that_was_put_back_makes_no_member_slow_nor_quick() -> None:
    holder = SlotHolder()
    holder.began[1] = 1_000_000
    holder.end(1, 5)
    assert holder.mean == 0
    holder.end(2, 5)  # it is not known when this one began
    assert holder.mean == 0


# -- neighbours of what hangs ----------------------------------------------------------------------


def test_the_seen_fault() -> None:
    """Two calls a second each: none of the healthy one's waits, for as long as the other hangs."""
    model = daemon({HANG: HUNG_MS, OK: QUICK_MS})
    calls = steady(HANG, "api:a", 500, 210_000) + steady(OK, "api:a", 500, 210_000, 60_000)
    model.run(210_000, calls)
    assert len(model.delays[OK]) == 300
    assert max(model.delays[OK]) == 0
    assert model.in_flight[HANG] >= 5  # its share


@pytest.mark.parametrize(("hung", "healthy"), [(1, 1), (3, 5), (9, 5), (20, 1), (50, 3)])
@pytest.mark.parametrize("hold", [HUNG_MS, 20_000, 2_000])
def test_healthy_keys_of_a_lane_do_not_wait_for_any_number_of_slow_ones(
    hung: int, healthy: int, hold: int
) -> None:
    slow, quick = some("slow", hung), some("ok", healthy)
    model = daemon({**dict.fromkeys(slow, hold), **dict.fromkeys(quick, QUICK_MS)})
    # What is new has to be tried, and there are not as many slots: the healthy ones are known.
    model.run(3_000, random_calls(quick, 3_000, lane="api:a"))
    model.delays.clear()
    calls = random_calls([*slow, *quick], 120_000, lane="api:a")
    model.run(120_000, [(at + 3_000, key, lane) for at, key, lane in calls])
    for key in quick:
        assert percentile(model.delays[key], 0.99) <= QUICK_MS // 2
    assert sum(model.in_flight[key] for key in slow) <= 9


@pytest.mark.parametrize(("hung", "backlog"), [(10, 0), (10, 500), (60, 100)])
def test_healthy_lanes_of_the_daemon_do_not_wait_for_ten_and_more_that_hang(
    hung: int, backlog: int
) -> None:
    slow, quick = some("slow", hung), some("ok", 3)
    model = daemon({**dict.fromkeys(slow, HUNG_MS), **dict.fromkeys(quick, QUICK_MS)}, lane="")
    for key in slow:
        model.lanes.place(key, key.endpoint_id, 10, alone=True)
    calls = [(0, key, key.endpoint_id) for key in slow for _ in range(backlog)]
    model.run(120_000, calls + random_calls([*slow, *quick], 120_000))
    for key in quick:
        assert len(model.delays[key]) > 100
        assert percentile(model.delays[key], 0.99) <= QUICK_MS // 2
    assert sum(model.in_flight[key] for key in slow) <= 90


def test_a_new_member_finds_a_slot_where_all_others_hang() -> None:
    slow = some("slow", 20)
    model = daemon({**dict.fromkeys(slow, HUNG_MS), OK: QUICK_MS})
    model.run(200_000, random_calls(slow, 200_000, lane="api:a"))
    model.run(230_000, [(200_000 + 500 * n, OK, "api:a") for n in range(50)])
    assert max(model.delays[OK]) == 0


# -- what is slow ----------------------------------------------------------------------------------


def backlog(key: Key, count: int = 1_000) -> list[Arrival]:
    return [(0, key, "api:a")] * count


@pytest.mark.parametrize(
    ("cap", "first", "later"),
    [(1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 3, 4), (10, 7, 9), (40, 30, 36)],
)
def test_a_slow_member_without_neighbours_has_nearly_all_slots(
    cap: int, first: int, later: int
) -> None:
    """Others may come: in the first minute they are left a quarter, and then a tenth."""
    model = daemon({HANG: 2_000, OK: QUICK_MS}, cap=cap)
    model.run(LATELY_MS - 5_000, backlog(HANG))
    assert model.most[HANG] == first
    model.run(LATELY_MS + 20_000, [])
    assert model.most[HANG] == later


def test_the_only_endpoint_of_an_api_has_all_slots_at_once() -> None:
    model = daemon({HANG: HUNG_MS})
    model.lanes.place(HANG, "api:a", 10, alone=True)
    model.run(1, backlog(HANG))
    assert model.in_flight[HANG] == 10


def test_an_idle_share_is_lent_while_half_of_the_slots_are_free() -> None:
    """Fifty that are called now and then make the share of a slow one small, and use nothing."""
    rare = some("rare", 50)
    model = daemon({HANG: 2_000, **dict.fromkeys(rare, QUICK_MS)})
    calls = [call for key in rare for call in steady(key, "api:a", 20_000, 200_000)]
    model.run(200_000, calls + backlog(HANG, 5_000))
    assert 4 <= model.in_flight[HANG] <= 6


def test_slow_members_share_what_they_may_have() -> None:
    slow = some("slow", 4)
    holds = {key: 1_700 + 310 * number for number, key in enumerate(slow)}
    model = daemon({**holds, OK: QUICK_MS})
    calls = [(0, key, "api:a") for key in slow for _ in range(1_000)]
    model.run(300_000, calls + steady(OK, "api:a", 100, 300_000))
    times = [len(model.delays[key]) * holds[key] for key in slow]
    assert min(times) > 0.6 * max(times)


@pytest.mark.parametrize("cap", [1, 2, 3])
def test_few_slots_are_shared_as_well(cap: int) -> None:
    model = daemon({HANG: HUNG_MS, OK: QUICK_MS}, cap=cap)
    calls = steady(HANG, "api:a", 500, 300_000) + steady(OK, "api:a", 500, 300_000)
    model.run(300_000, calls)
    assert len(model.delays[OK]) >= 0.85 * 600  # of one slot, half of the time
    assert len(model.delays[HANG]) >= 4
    if cap > 1:
        assert percentile(model.delays[OK], 0.99) <= QUICK_MS // 2


def test_a_quick_member_borrows_every_idle_slot() -> None:
    model = daemon({HANG: HUNG_MS, OK: 100})
    model.run(1_000, steady(OK, "api:a", 100, 1_000))
    model.run(5_000, [(1_000, OK, "api:a")] * 400)
    assert model.most[OK] == 10
    assert len(model.delays[OK]) == 410


# -- partitions ------------------------------------------------------------------------------------


class Partitions:
    """Tasks of one key that are claimed and end as it is told here."""

    def __init__(self) -> None:
        self.lanes, self.number = LaneSet(), 0
        self.quick: frozenset[str] = frozenset()
        """Of which more than one might have been claimed."""
        self.lanes.place(OK, "api:a", 10)
        self.lanes.lanes["api:a"].holder(OK).mean = QUICK_MS

    def claim(self, now: int, *partitions: str) -> tuple[list[Task], frozenset[str]]:
        """Claim one of each of these, but for those that are passed over."""
        self.lanes.touch(OK, now)
        [choice] = self.lanes.choose(now)
        self.quick = choice.quick
        got = [name for name in partitions if name not in choice.avoid][: choice.limit]
        self.lanes.answered(choice, len(got), None)
        tasks = []
        for name in got:
            self.number += 1
            task = replace(
                TASK, id=self.number, endpoint_id=OK.endpoint_id, turn=PartitionTurn(name, 0)
            )
            assert self.lanes.begin("api:a", [task], now) == [task]
            tasks.append(task)
        return tasks, choice.avoid

    def end(self, tasks: list[Task], now: int) -> None:
        for task in tasks:
            self.lanes.release_slot("api:a", task, now)


def test_a_partition_that_hangs_is_passed_over_once_it_has_its_share() -> None:
    line, now, hung = Partitions(), 0, 0
    for now in range(0, 20_000, 500):
        tasks, avoided = line.claim(now, "hangs", "fine", "well")
        # The slow one may have fewer, which then is the limit of the claim.
        while left := {"fine", "well"} - {task.partition for task in tasks}:
            more, avoided = line.claim(now, *sorted(left))
            tasks += more
        hung += sum(task.partition == "hangs" for task in tasks)
        quick = [task for task in tasks if task.partition != "hangs"]
        assert len(quick) == 2  # each time
        line.end(quick, now + QUICK_MS)
    assert avoided == {"hangs"}
    assert 2 <= hung <= 7
    found = line.lanes.lanes["api:a"]
    assert found.holder(OK).speed(now, 10) is Speed.QUICK
    assert found.tally(now, 10) == (hung, 0)  # a slow one of the lane is what hangs


def test_a_partition_is_claimed_again_when_one_of_its_attempts_has_ended() -> None:
    line = Partitions()
    first, _ = line.claim(0, "hangs")
    _, avoided = line.claim(100, "hangs")
    assert avoided == {"hangs"}  # it is new, and has its one slot
    assert line.lanes.next_look() == 100 + SHARE_AGAIN_MS
    line.end(first, 200)
    assert line.lanes.next_look() == 200, "what was passed over waits for nothing any more"
    assert line.lanes.lanes["api:a"].claimed == 0
    tasks, avoided = line.claim(300, "hangs", "hangs")
    assert (len(tasks), avoided) == (2, frozenset())


def test_more_than_one_at_a_time_is_claimed_of_partitions_that_were_quick() -> None:
    line = Partitions()
    tasks, _ = line.claim(0, "fine", "hangs", "late")
    assert line.quick == frozenset()  # none is known
    line.end([task for task in tasks if task.partition != "hangs"], QUICK_MS)
    fine, _ = line.claim(100, "fine")
    assert line.quick == {"fine", "late"}
    line.end(fine, 100 + QUICK_MS)
    late, _ = line.claim(200, "late")
    line.end(late, 200 + 8 * SLOW_MS)
    line.claim(200 + 8 * SLOW_MS, "new")
    assert line.quick == {"fine"}
    line.claim(100 + QUICK_MS + LATELY_MS, "new")
    assert line.quick == frozenset()
    # A clock that is put back changes nothing.
    line = Partitions()
    tasks, _ = line.claim(50_000, "fine")
    line.end(tasks, 50_001)
    line.lanes.shift(-40_000, 10_001)
    line.claim(10_100, "fine")
    assert line.quick == {"fine"}
    # It is not remembered of any number.
    for number in range(2 * MOST_QUICK):
        tasks, _ = line.claim(11_000, f"p{number}")
        line.end(tasks, 11_001)
    assert len(line.lanes.lanes["api:a"].holder(OK).quick_parts) == MOST_QUICK


def test_a_partition_that_was_quick_has_more_than_one_in_flight() -> None:
    line = Partitions()
    first, _ = line.claim(0, "fine")
    line.end(first, QUICK_MS)
    under_way, _ = line.claim(100, "fine")
    more, avoided = line.claim(110, "fine")
    assert (len(under_way), len(more), avoided) == (1, 1, frozenset())
    assert line.quick == {"fine"}
    _, avoided = line.claim(101 + SLOW_MS, "fine")
    assert (avoided, line.quick) == (frozenset(), frozenset()), "those in flight last now"


def test_partitions_that_are_quick_or_long_idle_leave_nothing_behind() -> None:
    line = Partitions()
    for now in range(0, 10_000, 10):
        tasks, _ = line.claim(now, f"p{now}")
        line.end(tasks, now + 5)
    slow, _ = line.claim(10_000, "slow")
    line.end(slow, 40_000)
    parts = line.lanes.lanes["api:a"].holder(OK).parts
    assert parts is not None
    assert list(parts.members) == ["slow"]
    line.claim(40_000 + LATELY_MS, "other")
    assert list(parts.members) == ["other"]
    assert parts.claimed == 1


# -- whatever happens ------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    holds=st.lists(
        st.tuples(st.sampled_from([1, 20, 400, 700, 3_000, 30_000]), st.integers(0, 2)),
        min_size=1, max_size=8,
    ),
    cap=st.integers(1, 12),
    total=st.integers(1, 20),
    every=st.sampled_from([50, 400, 3_000]),
)  # fmt: skip
def test_no_cap_is_exceeded_none_is_starved_and_the_sums_are_right(
    holds: list[tuple[int, int]], cap: int, total: int, every: int
) -> None:
    """The caps are looked at by the model as attempts begin."""
    keys = {Key(f"a/e{number}"): hold for number, (hold, _) in enumerate(holds)}
    names = {Key(f"a/e{number}"): f"lane{lane}" for number, (_, lane) in enumerate(holds)}
    lanes = LaneSet(total)
    for key in keys:
        lanes.place(key, names[key], cap)
    model = Daemon(lanes, keys)
    calls = [
        (at, key, names[key])
        for key in keys for at in range(0, 20_000, max(every, keys[key] // 20))
    ]  # fmt: skip
    model.run(20_000, calls)
    check_sums(model)
    while model.pending:  # all come to their end
        before = model.pending
        model.run(model.now + 40 * HUNG_MS, [])
        assert model.pending < before
    model.run(model.now + 2 * HUNG_MS, [])
    assert sum(map(len, model.delays.values())) == len(calls)
    check_sums(model)
    assert lanes.claimed == lanes.in_flight == 0
    assert not lanes.holding


def check_sums(model: Daemon) -> None:
    lanes, claimed = model.lanes, Counter[str]()
    for name, lane in lanes.lanes.items():
        assert isinstance(lane, Lane)
        members = lane.members.values()
        claimed[name] = sum(holder.claimed for holder in members)
        assert lane.claimed == claimed[name]
        assert lane.in_flight == sum(len(holder.began) for holder in members)
        assert set(lane.holding) == {holder for holder in members if holder.claimed}
    assert lanes.claimed == claimed.total()
    assert set(lanes.holding) == {lane for lane in lanes.lanes.values() if lane.claimed}
    assert lanes.in_flight == sum(model.in_flight.values())
