"""The order of due work: no slot leaks, caps hold, nobody is forgotten or starved."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestratord.engine.lanes import Choice, Lanes
from orchestratord.task import Key

A, B, C = Key("api/a"), Key("api/b"), Key("api/b", "ops")


def placed(*keys: Key, lane: str = "api:x", concurrency: int = 10, total: int = 100) -> Lanes:
    lanes = Lanes(total)
    for key in keys:
        lanes.place(key, lane, concurrency)
    return lanes


# -- one step at a time ---------------------------------------------------------------------------


def test_a_key_is_chosen_when_it_is_due_and_not_before() -> None:
    lanes = placed(A)
    lanes.touch(A, 1000)
    assert lanes.next_due() == 1000
    assert lanes.choose(999) == []
    [choice] = lanes.choose(1000)
    assert (choice.key, choice.lane) == (A, "api:x")
    assert lanes.next_due() is None


def test_a_key_with_nothing_pending_is_not_chosen() -> None:
    lanes = placed(A, B)
    lanes.touch(A, 5)
    assert [choice.key for choice in lanes.choose(10)] == [A]


def test_what_was_not_needed_is_given_back() -> None:
    lanes = placed(A, concurrency=4)
    lanes.touch(A, 0)
    [choice] = lanes.choose(10)
    assert choice.limit == 4
    assert lanes.in_flight == lanes.lanes["api:x"].in_flight == 4
    lanes.claimed(choice, 1, None)
    assert lanes.in_flight == lanes.lanes["api:x"].in_flight == 1
    lanes.release("api:x")
    assert lanes.in_flight == lanes.lanes["api:x"].in_flight == 0


def test_a_key_comes_back_with_the_earliest_of_what_is_left() -> None:
    lanes = placed(A)
    lanes.touch(A, 0)
    [choice] = lanes.choose(10)
    assert lanes.choose(10) == []
    lanes.claimed(choice, 1, 500)
    assert lanes.next_due() == 500


@pytest.mark.parametrize(
    ("touched", "left", "due"), [(300, 500, 300), (700, 500, 500), (5, None, 5)]
)
def test_what_is_touched_during_a_claim_is_not_forgotten(
    touched: int, left: int | None, due: int
) -> None:
    lanes = placed(A)
    lanes.touch(A, 0)
    [choice] = lanes.choose(1)
    lanes.touch(A, touched)
    assert lanes.choose(1000) == []  # one claim of a key at a time
    lanes.claimed(choice, 1, left)
    assert lanes.next_due() == due


def test_a_parked_key_waits_and_what_becomes_due_is_remembered() -> None:
    lanes = placed(A)
    lanes.touch(A, 50)
    lanes.park(A)
    assert lanes.choose(100) == []
    assert lanes.next_due() is None
    assert lanes.known(A)
    lanes.touch(A, 20)
    lanes.touch(A, 80)
    lanes.place(A, "api:x", 10)
    assert lanes.next_due() == 20


def test_a_key_parked_while_it_is_claimed_keeps_what_is_left() -> None:
    lanes = placed(A)
    lanes.touch(A, 0)
    [choice] = lanes.choose(1)
    lanes.park(A)
    lanes.claimed(choice, 1, 40)
    assert lanes.in_flight == 1
    assert lanes.choose(100) == []
    lanes.place(A, "api:x", 10)
    assert lanes.next_due() == 40


def test_a_key_that_moves_while_it_waits_goes_to_the_new_lane() -> None:
    lanes = placed(A, B, concurrency=1)
    lanes.touch(A, 0)
    lanes.touch(B, 1)
    [first] = lanes.choose(10)
    assert first.key == A
    lanes.place(B, "api:y", 3)
    assert lanes.choose(10) == [Choice(B, 3, "api:y")]


def test_a_key_that_moves_while_it_is_claimed_gives_its_slots_back_to_the_old_lane() -> None:
    lanes = placed(A, concurrency=2)
    lanes.touch(A, 0)
    [choice] = lanes.choose(10)
    lanes.place(A, "api:y", 5)
    lanes.claimed(choice, 1, 5)
    assert lanes.lanes["api:x"].in_flight == 1
    assert lanes.choose(10) == [Choice(A, 5, "api:y")]
    lanes.release("api:x")
    assert lanes.lanes["api:x"].in_flight == 0


def test_a_cap_that_is_lowered_waits_until_enough_is_done() -> None:
    lanes = placed(A, concurrency=3)
    lanes.touch(A, 0)
    [choice] = lanes.choose(1)
    lanes.claimed(choice, 3, 1)
    lanes.place(A, "api:x", 2)
    lanes.release("api:x")
    assert lanes.choose(10) == []
    lanes.release("api:x")
    assert lanes.choose(10) == [Choice(A, 1, "api:x")]


def test_a_cap_that_is_raised_counts_at_once() -> None:
    lanes = placed(A, concurrency=1)
    lanes.touch(A, 0)
    [choice] = lanes.choose(1)
    lanes.claimed(choice, 1, 1)
    assert lanes.choose(10) == []
    lanes.place(A, "api:x", 3)
    assert lanes.choose(10) == [Choice(A, 2, "api:x")]


def test_a_full_lane_holds_up_no_other() -> None:
    lanes = placed(A, lane="hangs", concurrency=2)
    lanes.place(B, "healthy", 2)
    lanes.touch(A, 0)
    [choice] = lanes.choose(1)
    lanes.claimed(choice, 2, 1)
    lanes.touch(B, 2)
    for _ in range(5):
        [choice] = lanes.choose(10)
        assert choice.key == B
        lanes.claimed(choice, 1, 2)
        lanes.release("healthy")


def test_slots_are_shared_among_the_keys_of_a_lane() -> None:
    lanes = placed(A, B, C, concurrency=10)
    for key in (A, B, C):
        lanes.touch(key, 0)
    limits = {choice.key: choice.limit for choice in lanes.choose(1)}
    assert sorted(limits.values()) == [3, 3, 4]


def test_what_is_held_elsewhere_counts_as_taken() -> None:
    lanes = placed(A, concurrency=10, total=5)
    lanes.touch(A, 0)
    assert lanes.choose(1, held=5) == []
    assert lanes.choose(1, held=3) == [Choice(A, 2, "api:x")]


def test_born_running_takes_a_slot_and_waits_behind_a_line() -> None:
    lanes = placed(A, concurrency=2)
    assert lanes.occupy("api:x", 0)
    assert lanes.occupy("api:x", 0)
    assert not lanes.occupy("api:x", 0)
    lanes.release("api:x")
    lanes.touch(A, 5)
    assert not lanes.occupy("api:x", 5)  # something due is before it
    assert not lanes.occupy("nowhere", 5)
    assert lanes.in_flight == 1


def test_born_running_leaves_a_slot_for_each_lane_that_waits() -> None:
    lanes = placed(A, lane="one", total=2)
    lanes.place(B, "two", 10)
    assert lanes.occupy("one", 0)
    assert lanes.occupy("one", 0)
    lanes.touch(B, 0)
    assert lanes.choose(1) == []  # the daemon is full
    lanes.release("one")
    assert not lanes.occupy("one", 1)
    assert lanes.choose(1) == [Choice(B, 1, "two")]


def test_a_clock_that_jumps_back_does_not_lose_a_key() -> None:
    lanes = placed(A, B, concurrency=1)
    lanes.touch(A, 1000)
    lanes.touch(B, 1000)
    [choice] = lanes.choose(2000)
    lanes.claimed(choice, 0, 1500)
    other = lanes.choose(0)  # it was due already
    assert len(other) == 1
    assert other[0].key != choice.key
    lanes.claimed(other[0], 0, None)
    assert lanes.choose(0) == []
    assert lanes.choose(1500)[0].key == choice.key


# -- whatever happens, in whatever order ----------------------------------------------------------

KEYS = [Key(f"api/e{n % 3}", "" if n < 3 else f"hook{n}") for n in range(6)]
LANES = ["api:x", "api:y", "host:443"]


class LanesMachine(RuleBasedStateMachine):
    """The worker and the store around the lanes, one step at a time and in any order.

    A task is written before the lanes hear of it, and a claim is committed before its answer comes:
    everything can happen in between.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.lanes = Lanes(4)
        self.lane_of: dict[Key, str | None] = {}
        self.caps: dict[str, int] = {}
        self.pending: dict[Key, list[int]] = defaultdict(list)
        self.unheard: list[tuple[Key, int]] = []
        self.running: Counter[str] = Counter()
        self.choices: list[Choice] = []
        self.answers: dict[Choice, tuple[int, int | None]] = {}
        self.written = 0

    @initialize(total=st.integers(1, 6))
    def begin(self, total: int) -> None:
        self.lanes.concurrency = total

    # What people and the configuration do.

    @rule(key=st.sampled_from(KEYS), lane=st.sampled_from(LANES), cap=st.integers(1, 3))
    def place(self, key: Key, lane: str, cap: int) -> None:
        self.lanes.place(key, lane, cap)
        self.lane_of[key] = lane
        self.caps[lane] = cap

    @rule(key=st.sampled_from(KEYS))
    def park(self, key: Key) -> None:
        self.lanes.park(key)
        self.lane_of[key] = None

    @rule(total=st.integers(1, 6))
    def reload(self, total: int) -> None:
        self.lanes.concurrency = total

    @rule(by=st.integers(-5, 30))
    def clock_moves(self, by: int) -> None:
        self.now = max(self.now + by, 0)

    # What the store and the worker do.

    @rule(key=st.sampled_from(KEYS), delay=st.integers(0, 50))
    def write(self, key: Key, delay: int) -> None:
        if self.written >= 40 or key not in self.lane_of:
            return
        self.written += 1
        self.pending[key].append(self.now + delay)
        self.unheard.append((key, self.now + delay))

    @precondition(lambda self: self.unheard)
    @rule(data=st.data())
    def hear(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.unheard) - 1))
        self.lanes.touch(*self.unheard.pop(at))

    @precondition(lambda self: not self.choices)
    @rule(held=st.integers(0, 3))
    def choose(self, held: int) -> None:
        free = self.lanes.concurrency - max(self.lanes.in_flight, held)
        before = {name: lane.free for name, lane in self.lanes.lanes.items()}
        self.choices = self.lanes.choose(self.now, held)
        keys = [choice.key for choice in self.choices]
        assert len(keys) == len(set(keys))
        assert sum(choice.limit for choice in self.choices) <= max(free, 0)
        for choice in self.choices:
            assert self.lane_of[choice.key] == choice.lane
            assert choice.limit >= 1
            before[choice.lane] -= choice.limit
        assert all(left >= 0 for name, left in before.items())

    @precondition(lambda self: any(choice not in self.answers for choice in self.choices))
    @rule()
    def commit_claim(self) -> None:
        """The store does not know who was parked meanwhile."""
        for choice in self.choices:
            pending = sorted(self.pending[choice.key])
            due = [when for when in pending if when <= self.now][: choice.limit]
            left = pending[len(due) :]
            self.pending[choice.key] = left
            self.answers[choice] = (len(due), left[0] if left else None)

    @precondition(lambda self: self.answers)
    @rule()
    def answer_claim(self) -> None:
        for choice in self.choices:
            got, earliest = self.answers[choice]
            self.lanes.claimed(choice, got, earliest)
            self.running[choice.lane] += got
        self.choices, self.answers = [], {}

    @precondition(lambda self: self.choices and not self.answers)
    @rule()
    def fail_claim(self) -> None:
        """The database is away: the worker looks again in a while."""
        for choice in self.choices:
            self.lanes.claimed(choice, 0, self.now + 10)
        self.choices = []

    @rule(lane=st.sampled_from(LANES))
    def occupy(self, lane: str) -> None:
        known = self.lanes.lanes.get(lane)
        room = known.free if known else 0
        if self.lanes.occupy(lane, self.now):
            assert room > 0
            assert self.lanes.in_flight <= self.lanes.concurrency
            self.running[lane] += 1

    @precondition(lambda self: +self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        lane = data.draw(st.sampled_from(sorted(+self.running)))
        self.running[lane] -= 1
        self.lanes.release(lane)

    # What always holds.

    @invariant()
    def every_slot_is_accounted_for(self) -> None:
        taken = self.running.copy()
        for choice in self.choices:
            taken[choice.lane] += choice.limit
        assert self.lanes.in_flight == taken.total()
        for name, lane in self.lanes.lanes.items():
            assert lane.in_flight == taken[name]
            assert lane.concurrency == self.caps[name]

    @invariant()
    def every_key_is_known(self) -> None:
        assert sorted(self.lanes.all_keys()) == sorted(self.lane_of)

    def teardown(self) -> None:
        """Let everything run to its end: nothing is forgotten, in a bounded number of turns."""
        if self.choices:
            if not self.answers:
                self.commit_claim()
            self.answer_claim()
        while self.unheard:
            self.lanes.touch(*self.unheard.pop())
        for key in self.lane_of:
            self.place(key, LANES[0] if self.lane_of[key] is None else str(self.lane_of[key]), 1)
        self.now = max([self.now, *(t for times in self.pending.values() for t in times)]) + 100
        for lane, count in self.running.items():
            for _ in range(count):
                self.lanes.release(lane)
        self.running.clear()
        turns = 0
        while any(self.pending.values()):
            turns += 1
            assert turns <= self.written + 2 * len(KEYS), "somebody is forgotten"
            self.choose(0)
            self.commit_claim()
            self.answer_claim()
            self.every_slot_is_accounted_for()
            for lane in list(self.running.elements()):
                self.lanes.release(lane)
            self.running.clear()
        assert self.lanes.in_flight == 0


LanesMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestLanesMachine = LanesMachine.TestCase


# -- turns ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 8), min_size=1, max_size=6),
    cap=st.integers(1, 4),
    total=st.integers(1, 10),
    newborn=st.booleans(),
)
def test_every_due_key_is_chosen_in_bounded_turns(
    sizes: list[int], cap: int, total: int, newborn: bool
) -> None:
    """Each key has due tasks without end, and where `newborn` new calls press into every slot."""
    lanes = Lanes(total)
    keys = {Key(f"l{n}/e{m}"): f"l{n}" for n, size in enumerate(sizes) for m in range(size)}
    for key, lane in keys.items():
        lanes.place(key, lane, cap)
        lanes.touch(key, 0)
    lanes.place(Key("idle/x"), "idle", 1000)
    last = dict.fromkeys(keys, 0)
    running: list[str] = []
    bound = len(sizes) * max(sizes) + 1
    for turn in range(1, 4 * bound):
        for choice in lanes.choose(turn):
            assert turn - last[choice.key] <= bound
            last[choice.key] = turn
            running += [choice.lane] * choice.limit
            lanes.claimed(choice, choice.limit, 0)
        # One slot at a time is given back, and whoever is quicker has it.
        for lane in running[:]:
            running.remove(lane)
            lanes.release(lane)
            if newborn and lanes.occupy("idle", turn):
                running.append("idle")
    assert all(4 * bound - turn <= bound + 1 for turn in last.values())


# -- cost: counted, not timed ---------------------------------------------------------------------


def calls(function: Callable[[], Any]) -> int:
    """How many functions, Python's and C's, are called while `function` runs."""
    count = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


MANY = 10_000


def test_choosing_costs_what_is_chosen_and_not_what_waits() -> None:
    lanes = placed(*(Key(f"api/e{n}") for n in range(MANY)), concurrency=10)
    for n in range(MANY):
        lanes.touch(Key(f"api/e{n}"), n)
    first = calls(lambda: lanes.choose(MANY))
    assert first < 20 * MANY  # all of them get into line
    for _ in range(10):
        lanes.release("api:x")
    again = calls(lambda: lanes.choose(MANY))
    assert again < 400


def test_ten_thousand_lanes_are_not_all_looked_at() -> None:
    lanes = Lanes(10)
    for n in range(MANY):
        lanes.place(Key(f"api{n}/e"), f"api{n}", 10)
        lanes.touch(Key(f"api{n}/e"), 0)
    chosen = lanes.choose(1)
    assert sum(choice.limit for choice in chosen) == 10
    for choice in chosen:
        lanes.claimed(choice, 0, None)
    assert calls(lambda: lanes.choose(1)) < 400


class CountedKey(Key):
    compared: ClassVar[int] = 0

    def __eq__(self, other: object) -> bool:
        CountedKey.compared += 1
        return super().__eq__(other)

    __hash__ = Key.__hash__


def test_leaving_a_long_line_does_not_go_through_it() -> None:
    """A reload that parks ten thousand keys which wait in one line."""
    keys = [CountedKey(f"api/e{n}", "") for n in range(MANY)]
    lanes = placed(*keys, concurrency=1)
    for key in keys:
        lanes.touch(key, 0)
    lanes.choose(1)
    CountedKey.compared = 0
    for key in reversed(keys):
        lanes.park(CountedKey(*key))
    assert CountedKey.compared < 20 * MANY


def test_a_busy_key_with_a_task_for_tomorrow_leaves_nothing_behind() -> None:
    lanes = placed(A, B)
    tomorrow = 86_400_000
    lanes.touch(A, tomorrow)
    for now in range(MANY):
        lanes.touch(A, now)
        [choice] = lanes.choose(now)
        lanes.claimed(choice, 1, tomorrow)
        lanes.release("api:x")
    assert len(lanes._heap) < 100
    assert lanes.next_due() == tomorrow
    [choice] = lanes.choose(tomorrow)
    assert choice.key == A
