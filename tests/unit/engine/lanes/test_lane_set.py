"""The order of due work: no slot leaks, caps hold, nobody is forgotten or starved."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from failing import failed
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestratord.engine.lanes.breaker import FIRST_PAUSE_MS, LASTING_MS, LEAST
from orchestratord.engine.lanes.lane_set import Choice, LaneSet
from orchestratord.engine.lanes.throttle import Throttle
from orchestratord.model.event import StoredThrottle
from orchestratord.model.task import Key, Task
from orchestratord.values.rate_limit import RateLimit

TASK = Task(
    id=0, kind="call", endpoint_id="api/a", webhook="", phase=None, status="running", reason=None,
    attempts=1, max_attempts=15, next_try=None, params={}, payload=None, parent_id=None,
    created_at=0, updated_at=0, scheduled_at=0)  # fmt: skip
A, B, C = Key("api/a"), Key("api/b"), Key("api/b", "ops")


def place(
    lanes: LaneSet, key: Key, lane: str, concurrency: int, rate: RateLimit | None = None
) -> None:
    """Put a key into a lane, and have its attempts have been quick: what others are left is told in
    `test_fair_slots`."""
    lanes.place(key, lane, concurrency, rate)
    lanes.lanes[lane].holder(key).mean = 1


def placed(*keys: Key, lane: str = "api:x", concurrency: int = 10, total: int = 100) -> LaneSet:
    lanes = LaneSet(total)
    for key in keys:
        place(lanes, key, lane, concurrency)
    return lanes


def take(lanes: LaneSet, count: int, lane: str = "api:x", key: Key = A) -> None:
    """Have so many of a key claimed."""
    lanes._count(lanes.lanes[lane], lanes.lanes[lane].holder(key), count)


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
    assert lanes.claimed == lanes.lanes["api:x"].claimed == 4
    lanes.answered(choice, 1, None)
    assert lanes.claimed == lanes.lanes["api:x"].claimed == 1
    lanes.release_claim("api:x", A, 0, 0)
    assert lanes.claimed == lanes.lanes["api:x"].claimed == 0


def test_a_key_comes_back_with_the_earliest_of_what_is_left() -> None:
    lanes = placed(A)
    lanes.touch(A, 0)
    [choice] = lanes.choose(10)
    assert lanes.choose(10) == []
    lanes.answered(choice, 1, 500)
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
    lanes.answered(choice, 1, left)
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
    place(lanes, A, "api:x", 10)
    assert lanes.next_due() == 20


def test_a_key_parked_while_it_is_claimed_keeps_what_is_left() -> None:
    lanes = placed(A)
    lanes.touch(A, 0)
    [choice] = lanes.choose(1)
    lanes.park(A)
    lanes.answered(choice, 1, 40)
    assert lanes.claimed == 1
    assert lanes.choose(100) == []
    place(lanes, A, "api:x", 10)
    assert lanes.next_due() == 40


def test_a_key_that_moves_while_it_waits_goes_to_the_new_lane() -> None:
    lanes = placed(A, B, concurrency=1)
    lanes.touch(A, 0)
    lanes.touch(B, 1)
    [first] = lanes.choose(10)
    assert first.key == A
    place(lanes, B, "api:y", 3)
    assert lanes.choose(10) == [Choice(B, 3, "api:y")]


def test_a_key_that_moves_while_it_is_claimed_gives_its_slots_back_to_the_old_lane() -> None:
    lanes = placed(A, concurrency=2)
    lanes.touch(A, 0)
    [choice] = lanes.choose(10)
    place(lanes, A, "api:y", 5)
    lanes.answered(choice, 1, 5)
    assert lanes.lanes["api:x"].claimed == 1
    assert lanes.choose(10) == [Choice(A, 5, "api:y")]
    lanes.release_claim("api:x", A, 0, 0)
    assert lanes.lanes["api:x"].claimed == 0


def test_a_cap_that_is_lowered_waits_until_enough_is_done() -> None:
    lanes = placed(A, concurrency=3)
    lanes.touch(A, 0)
    [choice] = lanes.choose(1)
    lanes.answered(choice, 3, 1)
    place(lanes, A, "api:x", 2)
    lanes.release_claim("api:x", A, 0, 0)
    assert lanes.choose(10) == []
    lanes.wake.clear()
    lanes.release_claim("api:x", A, 0, 0)
    assert lanes.wake.is_set()
    assert lanes.choose(10) == [Choice(A, 1, "api:x")]


def test_a_cap_that_is_raised_counts_at_once() -> None:
    lanes = placed(A, concurrency=1)
    lanes.touch(A, 0)
    [choice] = lanes.choose(1)
    lanes.answered(choice, 1, 1)
    assert lanes.choose(10) == []
    place(lanes, A, "api:x", 3)
    assert lanes.choose(10) == [Choice(A, 2, "api:x")]


def test_a_full_lane_holds_up_no_other() -> None:
    lanes = placed(A, lane="hangs", concurrency=2)
    place(lanes, B, "healthy", 2)
    lanes.touch(A, 0)
    [choice] = lanes.choose(1)
    lanes.answered(choice, 2, 1)
    lanes.touch(B, 2)
    for _ in range(5):
        [choice] = lanes.choose(10)
        assert choice.key == B
        lanes.answered(choice, 1, 2)
        lanes.release_claim("healthy", B, 0, 0)


def test_slots_are_shared_among_the_keys_of_a_lane() -> None:
    lanes = placed(A, B, C, concurrency=10)
    for key in (A, B, C):
        lanes.touch(key, 0)
    limits = {choice.key: choice.limit for choice in lanes.choose(1)}
    assert sorted(limits.values()) == [3, 3, 4]


def test_what_is_held_elsewhere_counts_as_taken() -> None:
    lanes = placed(A, concurrency=10, total=5)
    lanes.touch(A, 0)
    for _ in range(5):
        lanes.ended()
    assert lanes.choose(1) == []
    lanes.settled()
    lanes.settled()
    assert lanes.choose(1) == [Choice(A, 2, "api:x")]


def test_a_clock_that_jumps_back_does_not_lose_a_key() -> None:
    lanes = placed(A, B, concurrency=1)
    lanes.touch(A, 1000)
    lanes.touch(B, 1000)
    [choice] = lanes.choose(2000)
    lanes.answered(choice, 0, 1500)
    other = lanes.choose(0)  # it was due already
    assert len(other) == 1
    assert other[0].key != choice.key
    lanes.answered(other[0], 0, None)
    assert lanes.choose(0) == []
    assert lanes.choose(1500)[0].key == choice.key


# -- the slots -------------------------------------------------------------------------------------


def claimed(number: int, key: Key = A) -> Task:
    """A claimed task; the lanes look at nothing else of it."""
    return replace(TASK, id=number, endpoint_id=key.endpoint_id, webhook=key.webhook)


def quick(lanes: LaneSet, ended: int, now: int, lane: str = "api:x") -> None:
    """Let so many tasks of a lane begin and end at once."""
    for number in range(ended):
        lanes.touch(A, 0)
        [choice] = lanes.choose(now)
        lanes.answered(choice, 1, None)
        assert lanes.begin(lane, [claimed(number)], now)
        assert lanes.release_slot(lane, claimed(number), now) is None


def test_what_has_a_slot_begins_and_the_rest_is_held_in_order() -> None:
    lanes = placed(A, concurrency=2)
    lane = lanes.lanes["api:x"]
    take(lanes, 4)
    first, second, third, fourth = (claimed(number) for number in range(4))
    assert lanes.begin("api:x", [first], 10) == [first]
    assert lanes.begin("api:x", [second], 11) == [second]
    assert not lanes.begin("api:x", [third], 12)
    assert not lanes.begin("api:x", [fourth], 13)
    assert list(lane.prefetched) == [(third, 12), (fourth, 13)]
    assert (lane.in_flight, lanes.in_flight, lane.claimed, lanes.claimed) == (2, 2, 4, 4)
    assert lanes.release_slot("api:x", first, 20) is third
    assert lanes.release_slot("api:x", second, 20) is fourth
    assert lanes.release_slot("api:x", third, 20) is None
    assert lanes.release_slot("api:x", fourth, 20) is None
    assert (lane.in_flight, lanes.in_flight, lane.claimed, lanes.claimed) == (0, 0, 0, 0)
    assert not lane.prefetched


def test_a_lane_whose_tasks_never_end_is_never_claimed_ahead() -> None:
    lanes = placed(A, B, concurrency=3)
    for key in (A, B):
        lanes.touch(key, 0)
    for now in range(0, 60_000, 500):
        for choice in lanes.choose(now):
            lanes.answered(choice, choice.limit, 0)
            for number in range(choice.limit):
                assert lanes.begin("api:x", [claimed(number)], now)
        assert lanes.claimed == lanes.in_flight == 3
    assert lanes.lanes["api:x"].pace == 0


def test_one_that_ended_does_not_make_a_quick_lane() -> None:
    lanes = placed(A, concurrency=2)
    quick(lanes, 1, 100)
    lanes.touch(A, 0)
    assert lanes.choose(100) == [Choice(A, 2, "api:x")]


def test_a_quick_lane_is_claimed_ahead_by_what_ended_just_now() -> None:
    lanes = placed(A, concurrency=2)
    quick(lanes, 8, 100)
    lanes.touch(A, 0)
    [choice] = lanes.choose(100)
    assert choice.limit == 2 + 8 - 1
    lanes.answered(choice, choice.limit, 0)
    began = lanes.begin("api:x", [claimed(number) for number in range(9)], 100)
    assert [task.id for task in began] == [0, 1]
    assert (lanes.in_flight, lanes.claimed) == (2, 9)
    assert lanes.choose(100) == []  # and not further


@pytest.mark.parametrize(("later", "ahead"), [(0, 29), (20, 10), (40, 3), (60, 0), (10_000, 0)])
def test_its_pace_fades(later: int, ahead: int) -> None:
    """To 1/e of it in each 20 ms."""
    lanes = placed(A, concurrency=2)
    quick(lanes, 30, 100)
    lanes.touch(A, 0)
    [choice] = lanes.choose(100 + later)
    assert choice.limit == 2 + ahead


@pytest.mark.parametrize("rate", [1, 5])
def test_the_pace_of_a_steady_lane_is_what_ends_in_twenty_milliseconds(rate: int) -> None:
    lanes = placed(A, concurrency=10)
    lane = lanes.lanes["api:x"]
    for now in range(1000):
        for _ in range(rate):
            take(lanes, 1)
            lanes.begin("api:x", [claimed(0)], now)
            lanes.release_slot("api:x", claimed(0), now)
    assert 19 * rate <= lane.pace <= 22 * rate


def test_where_claims_are_dear_they_are_made_for_many_and_further_ahead() -> None:
    lanes = LaneSet(1000, several_daemons=True)
    place(lanes, A, "api:x", 10)
    lane = lanes.lanes["api:x"]
    for now in range(1000):
        for _ in range(5):
            take(lanes, 1)
            lanes.begin("api:x", [claimed(0)], now)
            lanes.release_slot("api:x", claimed(0), now)
    assert 5 * 59 <= lane.pace <= 5 * 62
    lanes.touch(A, 0)
    claims, number = [], 0
    for ended in range(1, 401):
        for choice in lanes.choose(1000):
            lanes.answered(choice, choice.limit, 0)
            claims.append((len(lane.prefetched), choice.limit))
            for _ in range(choice.limit):
                number += 1
                lanes.begin("api:x", [claimed(number)], 1000)
        lanes.release_slot("api:x", claimed(ended), 1000)
    # Each that ends leaves room for one more; it is not claimed before many can be.
    assert len(claims) > 3
    assert all(limit >= held for held, limit in claims)


def test_a_clock_that_jumps_changes_the_pace_by_nothing_or_ends_it() -> None:
    lanes = placed(A, concurrency=1)
    lane = lanes.lanes["api:x"]
    quick(lanes, 5, 1_000_000)
    lane.fade(10)
    assert (lane.pace, lane.paced_at) == (5, 10)
    lane.fade(5_000_000)
    assert 0 <= lane.pace < 1e-9
    assert lane.free == 1


def test_what_is_held_counts_for_the_daemon() -> None:
    lanes = placed(A, concurrency=1, total=4)
    place(lanes, B, "other", 4)
    quick(lanes, 50, 100)
    lanes.touch(A, 0)
    lanes.touch(B, 200)
    [choice] = lanes.choose(100)
    assert choice == Choice(A, 2, "api:x")  # ahead, only half of what the daemon has left
    lanes.answered(choice, 2, None)
    for number in range(2):
        lanes.begin("api:x", [claimed(number)], 100)
    [other] = lanes.choose(200)
    assert other == Choice(B, 2, "other")
    lanes.answered(other, 2, 200)
    assert lanes.choose(200) == []
    assert lanes.release_slot("api:x", claimed(0), 200) is not None
    assert lanes.choose(200) == [Choice(B, 1, "other")]


def test_quick_lanes_have_equal_parts_of_what_the_daemon_has_left() -> None:
    lanes = placed(A, concurrency=1, total=40)
    place(lanes, B, "other", 1)
    for name, key in (("api:x", A), ("other", B)):
        lanes.lanes[name].pace, lanes.lanes[name].paced_at = 50, 100
        lanes.touch(key, 0)
    assert [choice.limit for choice in lanes.choose(100)] == [13, 13]  # and one part is kept


def test_each_quick_lane_gets_something_ahead_where_there_are_many() -> None:
    """More of them than the daemon has left: the first ones are not passed over again and again."""
    lanes = LaneSet(100)
    keys = [Key(f"a/{number}") for number in range(40)]
    for key in keys:
        place(lanes, key, key.name, 2)
        lane = lanes.lanes[key.name]
        lanes._count(lane, lane.holder(key), 2)  # at its own cap
        lane.pace, lane.paced_at = 5, 100
        lanes.touch(key, 0)
    ahead: set[Key] = set()
    for _ in range(4):
        for choice in lanes.choose(100):
            ahead.add(choice.key)
            lanes.answered(choice, choice.limit, 0)
            lane = lanes.lanes[choice.lane]
            lanes._discount(lane, lane.holder(choice.key), choice.limit)
            lanes._make_ready(lane)
    assert ahead == set(keys)


def held(lanes: LaneSet, *since: int, lane: str = "api:x") -> None:
    """Fill a lane of concurrency 1, and hold a task since each of these times."""
    take(lanes, len(since) + 1, lane)
    assert lanes.begin(lane, [claimed(0)], 0)
    for number, now in enumerate(since, 1):
        assert not lanes.begin(lane, [claimed(number)], now)


@pytest.mark.parametrize(
    ("now", "longer_than", "taken"),
    [(1099, 1000, 0), (1100, 1000, 3), (5000, 1000, 3), (700, 0, 3), (100, 0, 3), (150, 1000, 0),
     (50, 1000, 3), (-5000, 0, 3)],
)  # fmt: skip
def test_what_is_held_for_too_long_is_taken_out(now: int, longer_than: int, taken: int) -> None:
    """All of its lane: who came later must not run before it. So does a clock put back."""
    lanes = placed(A, concurrency=1)
    held(lanes, 100, 600, 601)
    assert [task.id for task in lanes.take_prefetched(now, longer_than)] == [1, 2, 3][:taken]
    assert (lanes.in_flight, lanes.claimed) == (1, 4 - taken)
    assert lanes.lanes["api:x"].claimed == 4 - taken
    assert lanes.take_prefetched(now, longer_than) == []
    following = lanes.release_slot("api:x", claimed(0), now)
    assert (following is None) is (taken == 3)


def test_only_the_lanes_that_wait_too_long_return_token() -> None:
    lanes = placed(A, concurrency=1)
    place(lanes, B, "other", 1)
    held(lanes, 0)
    held(lanes, 900, lane="other")
    assert len(lanes.take_prefetched(1000, 1000)) == 1
    assert not lanes.lanes["api:x"].prefetched
    assert len(lanes.lanes["other"].prefetched) == 1


def test_slots_of_what_was_held_can_be_claimed_by_others() -> None:
    lanes = placed(A, concurrency=1, total=3)
    place(lanes, B, "other", 3)
    held(lanes, 10, 10)
    lanes.touch(B, 0)
    assert lanes.choose(20) == []
    assert len(lanes.take_prefetched(20, 0)) == 2
    assert lanes.choose(20) == [Choice(B, 2, "other")]


def test_a_cap_that_is_raised_keeps_the_order_of_what_is_held() -> None:
    lanes = placed(A, concurrency=1)
    held(lanes, 10, 11)
    place(lanes, A, "api:x", 3)
    take(lanes, 1)
    take(lanes, 1)
    began = lanes.begin("api:x", [claimed(3), claimed(4)], 12)
    assert [task.id for task in began] == [1, 2]
    assert [task.id for task, _ in lanes.lanes["api:x"].prefetched] == [3, 4]


def test_a_cap_that_is_lowered_lets_what_is_held_wait() -> None:
    lanes = placed(A, concurrency=2)
    held(lanes)
    take(lanes, 2)
    assert lanes.begin("api:x", [claimed(1)], 0)
    assert not lanes.begin("api:x", [claimed(2)], 0)
    place(lanes, A, "api:x", 1)
    assert lanes.release_slot("api:x", claimed(0), 1) is None
    following = lanes.release_slot("api:x", claimed(1), 1)
    assert following is not None
    assert following.id == 2


def test_a_daemons_cap_that_is_lowered_lets_what_is_held_wait() -> None:
    lanes = placed(A, concurrency=1)
    place(lanes, B, "other", 5)
    held(lanes, 0)
    take(lanes, 1, "other")
    assert lanes.begin("other", [claimed(9)], 0)
    lanes.concurrency = 1
    assert lanes.release_slot("api:x", claimed(0), 1) is None  # the other one is still in flight
    assert [task.id for task in lanes.take_prefetched(1000, 1000)] == [1]


# -- throttles -------------------------------------------------------------------------------------

PER_SECOND = RateLimit.parse("3/s")


def limited(rate: RateLimit = PER_SECOND, *keys: Key) -> LaneSet:
    lanes = LaneSet()
    for key in keys or (A,):
        place(lanes, key, "api:x", 10, rate)
    return lanes


def broken(lanes: LaneSet, now: int, lane: str = "api:x") -> Throttle:
    """Open the breaker of a lane."""
    found = lanes.lanes[lane]
    throttle = lanes.throttle_of(found, now)
    for _ in range(LEAST):
        failed(throttle.breaker, now - LASTING_MS, "503")
    failed(throttle.breaker, now, "503")
    assert throttle.probes_only(now)
    lanes.throttle_changed(found, now)
    return throttle


def begun(lanes: LaneSet, count: int, now: int, lane: str = "api:x") -> None:
    """Let so many claimed tasks begin and end, as the runner does."""
    for number in range(count):
        assert lanes.begin(lane, [claimed(number)], now)
        lanes.began(lane, now)
        lanes.release_slot(lane, claimed(number), now)


def test_no_more_is_chosen_than_the_rate_allows() -> None:
    lanes = limited()
    lanes.touch(A, 0)
    [choice] = lanes.choose(5)
    assert choice == Choice(A, 3, "api:x")
    lanes.answered(choice, 3, 0)
    assert lanes.choose(6) == []
    assert lanes.next_look() is None  # those that are reserved have to begin
    begun(lanes, 3, 7)
    assert lanes.choose(8) == []
    assert lanes.next_look() == 7 + 1_050
    assert lanes.choose(1_056) == []
    assert lanes.choose(1_057) == [Choice(A, 3, "api:x")]


def test_what_the_rate_did_not_need_is_charged_to_nobody() -> None:
    lanes = limited()
    lanes.touch(A, 0)
    [choice] = lanes.choose(0)
    lanes.answered(choice, 1, None)
    begun(lanes, 1, 0)
    lanes.touch(A, 0)
    assert lanes.choose(2) == [Choice(A, 2, "api:x")]


def test_keys_of_a_limited_lane_take_turns() -> None:
    lanes = limited(RateLimit.parse("1/s"), A, B, C)
    for key in (A, B, C):
        lanes.touch(key, 0)
    served = []
    for now in range(0, 9_000, 1_050):
        [choice] = lanes.choose(now)
        served.append(choice.key)
        lanes.answered(choice, 1, 0)
        begun(lanes, 1, now)
    assert served == [A, B, C] * 3


def test_a_lane_that_waits_for_its_rate_or_its_breaker_holds_up_no_other() -> None:
    lanes = LaneSet(4)
    place(lanes, A, "limited", 4, RateLimit.parse("1/h"))
    place(lanes, B, "broken", 4)
    place(lanes, C, "healthy", 2)
    for key in (A, B):
        lanes.touch(key, 0)
    broken(lanes, 0, "broken")
    [choice] = lanes.choose(0)
    assert choice == Choice(A, 1, "limited")
    lanes.answered(choice, 1, 0)
    begun(lanes, 1, 0, "limited")
    lanes.touch(C, 0)
    for now in range(1, 400):
        [choice] = lanes.choose(now)
        assert choice.key == C
        lanes.answered(choice, 1, 0)
        lanes.release_claim("healthy", C, 0, now)
    assert lanes.claimed == 0


def test_what_was_charged_before_the_start_counts_once_it_is_known() -> None:
    lanes = LaneSet()
    place(lanes, A, "api:x", 10, PER_SECOND)
    lanes.learn_past({"api:x": [100, 800], "api:y": [1, 2, 3]})
    place(lanes, B, "api:y", 10, PER_SECOND)
    for key in (A, B):
        lanes.touch(key, 0)
    [choice] = lanes.choose(900)
    assert choice == Choice(A, 1, "api:x")
    lanes.answered(choice, 1, 0)
    assert lanes.choose(901) == []
    assert Choice(A, 1, "api:x") in lanes.choose(1_150)


def test_it_is_as_long_ago_after_a_clock_was_put_back_before_the_lane_came() -> None:
    lanes = LaneSet()
    lanes.learn_past({"api:x": [90_100, 90_800]})
    lanes.shift(-90_000, 900)
    place(lanes, A, "api:x", 10, PER_SECOND)
    lanes.touch(A, 0)
    [choice] = lanes.choose(900)
    lanes.answered(choice, 1, 0)
    assert Choice(A, 1, "api:x") in lanes.choose(1_150), "the first counts no longer"


def test_a_lane_waits_where_other_daemons_have_used_its_rate_up() -> None:
    lanes = limited()
    lanes.touch(A, 0)
    lanes.used_up("api:x", 800, 5)
    assert lanes.choose(5) == []
    assert lanes.next_look() == 800
    assert lanes.choose(800) == [Choice(A, 3, "api:x")]


def test_what_another_daemon_was_asked_for_is_kept_for_a_lane_that_comes_later() -> None:
    lanes = LaneSet()
    lanes.choose(70)
    lanes.scopes.keep_for_later(StoredThrottle("api:x", "retry_after", "", 60, 900, "429"))
    place(lanes, A, "api:x", 10)
    place(lanes, B, "api:y", 10)
    for key in (A, B):
        lanes.touch(key, 0)
    assert [choice.key for choice in lanes.choose(70)] == [B]
    assert lanes.next_look() == 900
    assert [choice.key for choice in lanes.choose(900)] == [A]


def test_a_rate_comes_and_goes_with_the_configuration() -> None:
    lanes = placed(A)
    lanes.touch(A, 0)
    assert lanes.lanes["api:x"].throttle is None
    place(lanes, A, "api:x", 10, RateLimit.parse("2/min"))
    [choice] = lanes.choose(0)
    assert choice.limit == 2
    lanes.answered(choice, 2, 0)
    assert lanes.choose(1) == []
    place(lanes, A, "api:x", 10)
    assert lanes.lanes["api:x"].throttle is None
    assert lanes.choose(1) == [Choice(A, 8, "api:x")]


def test_a_broken_lane_lets_one_probe_through() -> None:
    lanes = placed(A, B)
    for key in (A, B):
        lanes.touch(key, 0)
    throttle = broken(lanes, 0)
    assert lanes.choose(0) == []
    assert lanes.next_look() == FIRST_PAUSE_MS
    [choice] = lanes.choose(FIRST_PAUSE_MS)
    assert choice == Choice(A, 1, "api:x", probe=True)
    assert lanes.choose(10_000_000) == []
    assert lanes.next_look() is None  # how it ends is what is waited for
    lanes.answered(choice, 0, None)  # somebody has cancelled it
    [choice] = lanes.choose(FIRST_PAUSE_MS)
    assert choice.key == B
    lanes.answered(choice, 1, None)
    lanes.scopes.probe_claimed(B, 7)
    assert throttle.admits(7, FIRST_PAUSE_MS)


def test_by_hand_the_key_is_the_next_probe() -> None:
    lanes = placed(A, B, concurrency=3)
    lanes.touch(A, 0)
    broken(lanes, 0)
    assert lanes.choose(0) == []
    lanes.touch(B, 1)
    lanes.try_now(B, 1)
    assert lanes.choose(1) == [Choice(B, 1, "api:x", probe=True)]
    assert lanes.choose(1) == []
    lanes.try_now(Key("api/unknown"), 1)


def test_held_claims_of_one_lane_go_back() -> None:
    lanes = placed(A, concurrency=1)
    place(lanes, B, "other", 1)
    held(lanes, 10, 11)
    held(lanes, 10, lane="other")
    assert [task.id for task in lanes.take_prefetched_of("api:x", 12)] == [1, 2]
    assert lanes.lanes["api:x"].claimed == 1
    assert len(lanes.lanes["other"].prefetched) == 1


# -- whatever happens, in whatever order ----------------------------------------------------------

NEWBORN = Key("api/e0")
KEYS = [Key(f"api/e{n % 3}", "" if n < 3 else f"hook{n}") for n in range(6)]
LANES = ["api:x", "api:y", "host:443"]
RATES = {"api:y": RateLimit.parse("2/s")}


class LanesMachine(RuleBasedStateMachine):
    """The worker and the store around the lanes, one step at a time and in any order.

    A task is written before the lanes hear of it, and a claim is committed before its answer comes:
    everything can happen in between.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.lanes = LaneSet(4)
        self.lane_of: dict[Key, str | None] = {}
        self.caps: dict[str, int] = {}
        self.highest: Counter[str] = Counter()
        self.highest_total = 4
        self.pending: dict[Key, list[int]] = defaultdict(list)
        self.unheard: list[tuple[Key, int]] = []
        self.running: dict[str, list[Task]] = defaultdict(list)
        self.held: dict[str, list[tuple[Task, int]]] = defaultdict(list)
        self.origins: dict[int, tuple[Key, int]] = {}
        self.ended: set[str] = set()
        self.lowered = False
        """The daemon's cap was once below what was claimed."""
        self.elapsed = 0
        """Of a clock that nobody puts back."""
        self.charges: list[tuple[str, int, int]] = []
        """Lane, when it began, and the task's number; but for what came to nothing."""
        self.began: dict[int, int] = {}
        self.broken: set[str] = set()
        """Lanes whose breaker opened, and of which nothing was answered since."""
        self.choices: list[Choice] = []
        self.answers: dict[Choice, tuple[list[int], int | None]] = {}
        self.written = 0

    @initialize(total=st.integers(1, 6))
    def configure(self, total: int) -> None:
        self.lanes.concurrency = self.highest_total = total

    # What people and the configuration do.

    @rule(key=st.sampled_from(KEYS), lane=st.sampled_from(LANES), cap=st.integers(1, 3))
    def place(self, key: Key, lane: str, cap: int) -> None:
        place(self.lanes, key, lane, cap, RATES.get(lane))
        self.lane_of[key] = lane
        self.caps[lane] = cap
        self.highest[lane] = max(self.highest[lane], cap)

    @rule(key=st.sampled_from(KEYS))
    def park(self, key: Key) -> None:
        self.lanes.park(key)
        self.lane_of[key] = None

    @rule(total=st.integers(1, 6))
    def reload(self, total: int) -> None:
        self.lanes.concurrency = total
        self.lowered |= total < self.lanes.claimed
        self.highest_total = max(self.highest_total, total)

    @rule(by=st.one_of(st.integers(-5, 30), st.sampled_from([400, 1_100, 40_000])))
    def clock_moves(self, by: int) -> None:
        by = max(by, -self.now)
        self.now += by
        self.elapsed += max(by, 0)

    @rule(lane=st.sampled_from(LANES))
    def receiver_goes_down(self, lane: str) -> None:
        """So many failures, as of attempts that nobody counts here."""
        if lane not in self.lanes.lanes or lane in self.broken:
            return
        broken(self.lanes, self.now, lane)
        self.broken.add(lane)
        for task in self.lanes.take_prefetched_of(lane, self.now):
            self.held[lane].pop(0)
            self.back(task)

    @rule(lane=st.sampled_from(LANES), ms=st.integers(1, 2_000))
    def receiver_tells_it_to_wait(self, lane: str, ms: int) -> None:
        if lane not in self.lanes.lanes:
            return
        found = self.lanes.lanes[lane]
        self.lanes.throttle_of(found, self.now).wait_until(self.now + ms, "429")
        self.lanes.throttle_changed(found, self.now)
        for task in self.lanes.take_prefetched_of(lane, self.now):
            self.held[lane].pop(0)
            self.back(task)

    def probes_only(self, lane: str) -> bool:
        known = self.lanes.lanes.get(lane)
        return (
            known is not None
            and known.throttle is not None
            and known.throttle.probes_only(self.now)
        )

    @rule(key=st.sampled_from(KEYS))
    def by_hand(self, key: Key) -> None:
        self.lanes.try_now(key, self.now)

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
    @rule(unsettled=st.integers(0, 3))
    def choose(self, unsettled: int) -> None:
        free = self.lanes.concurrency - max(self.lanes.claimed, unsettled)
        before = {name: lane.free for name, lane in self.lanes.lanes.items()}
        probing = {name for name in self.lanes.lanes if self.probes_only(name)}
        look = self.lanes.next_look()
        ready = set(self.lanes._ready)
        while self.lanes.unsettled < unsettled:
            self.lanes.ended()
        while self.lanes.unsettled > unsettled:
            self.lanes.settled()
        self.choices = self.lanes.choose(self.now)
        # Whoever sleeps until then misses nothing.
        assert not self.choices or ready or (look is not None and look <= self.now)
        keys = [choice.key for choice in self.choices]
        assert len(keys) == len(set(keys))
        assert sum(choice.limit for choice in self.choices) <= max(free, 0)
        for choice in self.choices:
            assert self.lane_of[choice.key] == choice.lane
            assert choice.limit >= 1
            before[choice.lane] -= choice.limit
            assert choice.probe is (choice.lane in probing)
            assert probing >= self.broken
            assert not choice.probe or choice.limit == 1
            assert not choice.probe or [c.lane for c in self.choices].count(choice.lane) == 1
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
            self.answers[choice] = (due, left[0] if left else None)

    @precondition(lambda self: self.answers)
    @rule()
    def answer_claim(self) -> None:
        for choice in self.choices:
            due, earliest = self.answers[choice]
            self.lanes.answered(choice, len(due), earliest)
            if choice.probe and due:
                self.lanes.scopes.probe_claimed(choice.key, len(self.origins))
            for when in due:
                self.start(choice.key, when, choice.lane)
        self.choices, self.answers = [], {}

    @precondition(lambda self: self.choices and not self.answers)
    @rule()
    def fail_claim(self) -> None:
        """The database is away: the worker looks again in a while."""
        for choice in self.choices:
            self.lanes.answered(choice, 0, self.now + 10)
        self.choices = []

    @precondition(lambda self: any(self.running.values()))
    @rule(data=st.data(), how=st.sampled_from(["answered", "down", "unsent"]))
    def end(self, data: st.DataObject, how: str) -> None:
        lane = data.draw(st.sampled_from([name for name, tasks in self.running.items() if tasks]))
        self.end_one(lane, how)

    @rule(longer_than=st.sampled_from([0, 0, 5, 20]))
    def release_prefetched(self, longer_than: int) -> None:
        expected: list[Task] = []
        for name in self.lanes.lanes:
            line = self.held[name]
            if line and not 0 <= self.now - line[0][1] < longer_than:
                expected += [task for task, _ in line]
                line.clear()
        assert self.lanes.take_prefetched(self.now, longer_than) == expected
        for task in expected:
            self.back(task)

    # As the runner does it.

    def start(self, key: Key, when: int, lane: str) -> None:
        task = claimed(len(self.origins), key)
        self.origins[task.id] = (key, when)
        throttle = self.lanes.lanes[lane].throttle
        if throttle is not None and not throttle.admits(task.id, self.now):
            assert self.probes_only(lane)
            self.lanes.release_claim(lane, task.key, self.now, task.id)
            self.back(task)
            return
        self.held[lane].append((task, self.now))
        for one in self.lanes.begin(lane, [task], self.now):
            self.launch(lane, one)

    def launch(self, lane: str, task: Task | None) -> None:
        if task is None:
            return
        # The one that has waited longest, and only where the caps of this moment have room.
        assert task is self.held[lane].pop(0)[0]
        self.running[lane].append(task)
        self.began[task.id] = self.now
        self.charges.append((lane, self.elapsed, task.id))
        self.lanes.began(lane, self.now)
        if self.probes_only(lane):
            throttle = self.lanes.lanes[lane].throttle
            assert throttle is not None
            assert throttle.probe == task.id
        found = self.lanes.lanes[lane]
        assert found.in_flight <= found.concurrency
        assert self.lanes.in_flight <= self.lanes.concurrency

    def back(self, task: Task) -> None:
        key, when = self.origins[task.id]
        if key in self.lane_of:
            self.pending[key].append(when)
            self.unheard.append((key, when))

    def end_one(self, lane: str, how: str = "answered") -> None:
        task = self.running[lane].pop()
        self.ended.add(lane)
        found = self.lanes.lanes[lane]
        throttle = found.throttle
        if how == "unsent":
            self.charges = [charge for charge in self.charges if charge[2] != task.id]
            self.lanes.return_token(lane, self.now, task.id, self.began[task.id])
        elif throttle is not None:
            probe = throttle.probe == task.id
            if probe:
                throttle.probe_over()
            if how == "answered":
                throttle.breaker.answered(self.now)
                self.broken.discard(lane)
            elif probe:
                throttle.breaker.probe_failed(self.now, "503")
            self.lanes.throttle_changed(found, self.now)
        self.launch(lane, self.lanes.release_slot(lane, task, self.now))

    # What always holds.

    @invariant()
    def every_slot_is_accounted_for(self) -> None:
        taken: Counter[str] = Counter()
        for choice in self.choices:
            taken[choice.lane] += choice.limit
        for name, lane in self.lanes.lanes.items():
            assert list(lane.prefetched) == self.held[name]
            assert lane.in_flight == len(self.running[name])
            taken[name] += lane.in_flight + len(lane.prefetched)
            assert lane.claimed == taken[name]
            assert lane.concurrency == self.caps[name]
            assert lane.in_flight <= self.highest[name]
            if name not in self.ended:
                assert lane.claimed <= self.highest[name]
        assert self.lanes.claimed == taken.total() <= self.highest_total
        assert self.lanes.in_flight == sum(len(tasks) for tasks in self.running.values())

    @invariant()
    def what_is_held_waits_for_something(self) -> None:
        """For the end of a task of its lane; to go back, where the daemon's cap was lowered."""
        for name, line in self.held.items():
            assert not line or self.running[name] or self.lowered

    @invariant()
    def no_window_holds_more_than_the_rate(self) -> None:
        for lane, rate in RATES.items():
            since = self.elapsed - rate.window
            assert sum(c[0] == lane and c[1] > since for c in self.charges) <= rate.times

    @invariant()
    def every_key_is_known(self) -> None:
        assert sorted(self.lanes.all_keys()) == sorted(self.lane_of)

    def teardown(self) -> None:
        """Let everything run to its end: nothing is forgotten, in a bounded number of turns."""
        if self.choices:
            if not self.answers:
                self.commit_claim()
            self.answer_claim()
        self.release_prefetched(0)
        while self.unheard:
            self.lanes.touch(*self.unheard.pop())
        for key in self.lane_of:
            self.place(key, LANES[0] if self.lane_of[key] is None else str(self.lane_of[key]), 1)
        self.now = max([self.now, *(t for times in self.pending.values() for t in times)]) + 100
        self.end_all()
        turns = 0
        left = sum(map(len, self.pending.values()))
        while any(self.pending.values()):
            turns += 1
            assert turns <= left + 2 * len(KEYS) + len(LANES), "somebody is forgotten"
            look = self.lanes.next_look()
            if look is not None and not self.lanes._ready:
                self.now = max(self.now, look)  # as the worker sleeps
            self.choose(0)
            self.commit_claim()
            self.answer_claim()
            self.every_slot_is_accounted_for()
            self.end_all()
        assert self.lanes.claimed == self.lanes.in_flight == 0

    def end_all(self) -> None:
        while any(self.running.values()):
            for lane, tasks in self.running.items():
                for _ in tasks[:]:
                    self.end_one(lane)
        self.every_slot_is_accounted_for()


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
    lanes = LaneSet(total)
    keys = {Key(f"l{n}/e{m}"): f"l{n}" for n, size in enumerate(sizes) for m in range(size)}
    for key, lane in keys.items():
        place(lanes, key, lane, cap)
        lanes.touch(key, 0)
    place(lanes, Key("idle/x"), "idle", 1000)
    last = dict.fromkeys(keys, 0)
    running: list[tuple[str, Key]] = []
    bound = len(sizes) * max(sizes) + 1
    for turn in range(1, 4 * bound):
        for choice in lanes.choose(turn):
            assert turn - last[choice.key] <= bound
            last[choice.key] = turn
            running += [(choice.lane, choice.key)] * choice.limit
            lanes.answered(choice, choice.limit, 0)
        # One slot at a time is given back, and whoever is quicker has it.
        for lane, key in running[:]:
            running.remove((lane, key))
            lanes.release_claim(lane, key, 0, 0)
    assert all(4 * bound - turn <= bound + 1 for turn in last.values())


@settings(deadline=None)
@given(
    quick_cap=st.integers(1, 4),
    slow=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 30)), min_size=1, max_size=4),
    total=st.integers(1, 12),
)
def test_a_quick_lane_leaves_the_others_their_turn(
    quick_cap: int, slow: list[tuple[int, int]], total: int
) -> None:
    """Under the daemon's cap, beside a lane whose tasks end within a millisecond: it is claimed
    ahead by all that the cap leaves, and everybody has due tasks without end."""
    lanes = LaneSet(total)
    caps = {"quick": quick_cap, **{f"slow{n}": cap for n, (cap, _) in enumerate(slow)}}
    lasts = {"quick": 1, **{f"slow{n}": length for n, (_, length) in enumerate(slow)}}
    for name, cap in caps.items():
        place(lanes, Key(f"{name}/e"), name, cap)
        lanes.touch(Key(f"{name}/e"), 0)
    last = dict.fromkeys(caps, 0)
    running: list[tuple[int, str, Task]] = []
    number = 0
    # Its own tasks end first, then each of the others has its turn with what is freed next.
    bound = (len(caps) + 2) * (max(lasts.values()) + 1)
    for now in range(1, 4 * bound):
        for ending in [item for item in running if item[0] <= now]:
            running.remove(ending)
            following = lanes.release_slot(ending[1], ending[2], now)
            if following is not None:
                running.append((now + lasts[ending[1]], ending[1], following))
        for choice in lanes.choose(now):
            last[choice.lane] = now
            lanes.answered(choice, choice.limit, 0)
            for _ in range(choice.limit):
                number += 1
                begun = lanes.begin(choice.lane, [claimed(number, choice.key)], now)
                running += [(now + lasts[choice.lane], choice.lane, one) for one in begun]
        in_flight = Counter(name for _, name, _ in running)
        assert in_flight.total() == lanes.in_flight <= lanes.claimed <= total
        for name, cap in caps.items():
            assert in_flight[name] == lanes.lanes[name].in_flight <= cap
            assert now - last[name] <= bound, f"{name} is starved"


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
    chosen: list[Choice] = []
    first = calls(lambda: chosen.extend(lanes.choose(MANY)))
    assert first < 20 * MANY  # all of them get into line
    for choice in chosen:
        lanes.release_claim("api:x", choice.key, 0, 0)
    again = calls(lambda: lanes.choose(MANY))
    assert again < 400


def test_ten_thousand_lanes_are_not_all_looked_at() -> None:
    lanes = LaneSet(10)
    for n in range(MANY):
        place(lanes, Key(f"api{n}/e"), f"api{n}", 10)
        lanes.touch(Key(f"api{n}/e"), 0)
    chosen = lanes.choose(1)
    assert sum(choice.limit for choice in chosen) == 10
    for choice in chosen:
        lanes.answered(choice, 0, None)
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
        lanes.answered(choice, 1, tomorrow)
        lanes.release_claim("api:x", A, 0, 0)
    assert len(lanes._heap) < 100
    assert lanes.next_due() == tomorrow
    [choice] = lanes.choose(tomorrow)
    assert choice.key == A


# -- a clock that is moved -------------------------------------------------------------------------


@pytest.mark.parametrize("by", [3_600_000, -3_600_000])
def test_what_a_lane_waits_for_lasts_as_long_when_the_clock_is_moved(by: int) -> None:
    lanes, now = LaneSet(), 10_000_000
    key = Key("a/get")
    place(lanes, key, "api:a", 10, RateLimit.parse("2/min"))
    lanes.touch(key, 0)
    [choice] = lanes.choose(now)
    assert choice.limit == 2
    lanes.answered(choice, 2, 0)
    for _ in range(2):
        lanes.began("api:a", now)
    lane = lanes.lanes["api:a"]
    assert lane.throttle is not None
    lane.throttle.wait_until(now + 3_000, "429")
    told = StoredThrottle("api:b", "retry_after", "", now, now + 3_000, "429")
    lanes.scopes.keep_for_later(told)
    assert lanes.choose(now) == []
    lanes.shift(by, now + by)
    moved = now + by
    place(lanes, Key("b/get"), "api:b", 10)
    lanes.touch(Key("b/get"), 0)
    assert lanes.choose(moved + 2_999) == []
    # The hold is over, and the rate is not.
    assert [choice.lane for choice in lanes.choose(moved + 3_001)] == ["api:b"]
    assert lanes.choose(moved + 60_000) == []
    assert [choice.lane for choice in lanes.choose(moved + 61_001)] == ["api:a"]
