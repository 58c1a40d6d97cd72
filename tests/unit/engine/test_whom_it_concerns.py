"""Of what an answer speaks: a lane, the URL of deliveries, an endpoint or webhook alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from orchestratord.engine.attempt_in_progress import AttemptResult
from orchestratord.engine.feedback import Feedback
from orchestratord.engine.lanes.breaker import LASTING_MS, LEAST, WINDOW_MS
from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.engine.retry import Decision
from orchestratord.model.endpoint import Api, Endpoint, Guards
from orchestratord.model.event import BREAKER, EventType, StoredThrottle
from orchestratord.model.outcome import Outcome
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.model.task import Key, Status
from orchestratord.plugin.executor import Target
from orchestratord.testing import FakeClock, answered, unanswered
from orchestratord.values.redact import Redactor

GOOD, BAD, OTHER = Key("a/good"), Key("a/bad"), Key("a/other")
HOOK, SAME, NEIGHBOUR = Key("a/good", "x"), Key("b/get", "x"), Key("a/good", "y")
URLS = {HOOK: "https://h/1", SAME: "https://h/1", NEIGHBOUR: "https://h/2"}


class Rig:
    """Feedback over lanes, without a store: attempts end as a test says."""

    def __init__(self, **api: Any) -> None:
        self.api = Api(name="a", **api)
        self.guards = Guards()
        self.clock = FakeClock(1_000_000)
        self.lanes, self.events = LaneSet(), []
        bus: Any = SimpleNamespace(publish=self.events.append)
        claims: Any = SimpleNamespace(release_claim_later=lambda task: None)
        self.feedback = Feedback(self.lanes, claims, bus, self.clock)
        for key in (GOOD, BAD, OTHER, HOOK, SAME, NEIGHBOUR):
            self.lanes.place(key, self.lane(key), 10, url=URLS.get(key, ""))
        self.ids = 0

    def lane(self, key: Key) -> str:
        return "h:443" if key.webhook else "api:a"

    def ends(self, key: Key, outcome: Outcome, guards: Guards | None = None, **retry: Any) -> None:
        """An attempt of `key` ends."""
        self.ids += 1
        task: Any = SimpleNamespace(id=self.ids, key=key, attempts=1)
        endpoint = Endpoint(key.endpoint_id, self.api, "http", None, RetryPolicy(**retry), 5, True)
        lane = self.lane(key)
        if key.webhook and guards is None:
            guards = Guards()
        url = URLS.get(key, "")
        target = Target(endpoint, endpoint.retry, 5, True, lane, 10, (), url=url, guards=guards)
        status = Status.SUCCEEDED if outcome.verdict == "success" else Status.PENDING
        result = AttemptResult(Decision(status, ""), outcome, None, request="x")
        config = SimpleNamespace(redactor=Redactor(), guards=self.guards)
        plan = SimpleNamespace(key=key, target=target, config=config)
        run: Any = SimpleNamespace(
            task=task, plan=plan, result=result, lane=lane, began=self.clock.now_ms(),
            interrupted=False,
        )  # fmt: skip
        self.feedback.note(run, self.clock.now_ms())

    def probed(self, key: Key, outcome: Outcome, guards: Guards | None = None) -> None:
        """A probe of `key` is claimed, and ends so."""
        self.clock.turn(1)
        now = self.clock.now_ms()
        self.lanes.touch(key, 0)
        [choice] = self.lanes.choose(now)
        assert (choice.key, choice.probe) == (key, True)
        self.lanes.answered(choice, 1, None)
        self.lanes.scopes.probe_claimed(key, self.ids + 1)
        self.ends(key, outcome, guards)

    def fails(
        self,
        key: Key,
        outcome: Outcome | None = None,
        times: int = LEAST,
        guards: Guards | None = None,
    ) -> None:
        """So many attempts of `key` fail, for long enough."""
        for number in range(times):
            self.ends(key, outcome or answered(500), guards)
            if number == times - 2:
                self.clock.turn(LASTING_MS / 1000)

    def held(self) -> set[str]:
        """The scopes of which only probes may pass."""
        now = self.clock.now_ms()
        return {one.name for one in self.feedback._all() if one.probes_only(now)}

    def told(self) -> list[tuple[str, str]]:
        return [(event.type, getattr(event, "scope", None) or event.lane) for event in self.events]


TOLD = answered(429, headers={"Retry-After": "60"})


@pytest.mark.parametrize(
    ("key", "api", "scope"),
    [(GOOD, {}, "api:a"), (GOOD, {"retry_after_scope": "endpoint"}, "a/good"),
     (HOOK, {}, "https://h/1")],
)  # fmt: skip
def test_what_retry_after_holds(key: Key, api: dict[str, Any], scope: str) -> None:
    rig = Rig(**api)
    rig.ends(key, TOLD)
    assert rig.held() == {scope}
    assert rig.told() == [(EventType.THROTTLE_BEGAN, scope)]
    for other in (GOOD, BAD, HOOK, SAME, NEIGHBOUR):
        rig.lanes.touch(other, 0)
    now = rig.clock.now_ms()
    held = {"api:a": {GOOD, BAD}, "a/good": {GOOD}, "https://h/1": {HOOK, SAME}}[scope]
    assert {one.key for one in rig.lanes.choose(now)} == {GOOD, BAD, HOOK, SAME, NEIGHBOUR} - held
    rig.clock.turn(61)
    assert {one.key for one in rig.lanes.choose(rig.clock.now_ms())} == held
    rig.feedback.tick()
    assert rig.told()[1:] == [(EventType.THROTTLE_ENDED, scope)]


def test_what_does_not_respect_it_is_not_held_by_the_answer_to_another_one() -> None:
    rig = Rig()
    rig.lanes.place(BAD, "api:a", 10, heeds=False)
    rig.ends(GOOD, TOLD)
    for key in (GOOD, BAD):
        rig.lanes.touch(key, 0)
    now = rig.clock.now_ms()
    assert [one.key for one in rig.lanes.choose(now)] == [BAD]
    assert rig.lanes.next_look() == now + 60_000
    rig.ends(BAD, TOLD, respect_retry_after=False)
    assert rig.held() == {"api:a"}


def test_one_endpoint_that_fails_among_others_that_do_not() -> None:
    rig = Rig()
    rig.ends(GOOD, answered(200))
    rig.fails(BAD)
    assert rig.held() == {"a/bad"}
    opened_at = rig.clock.now_ms()
    assert rig.told() == [(EventType.BREAKER_OPENED, "a/bad")]
    rig.probed(BAD, answered(200))
    assert rig.told()[1:] == [(EventType.BREAKER_CLOSED, "a/bad")]
    assert rig.feedback.reopened == {BAD: opened_at - WINDOW_MS}


def test_an_answer_that_is_late_closes_a_breaker_and_brings_nothing_forward() -> None:
    """It says that the receiver was there before: only a probe says that it is back."""
    rig = Rig()
    rig.ends(GOOD, answered(200))
    rig.fails(BAD)
    rig.ends(BAD, answered(200))
    assert rig.held() == set()
    assert not rig.feedback.reopened


def test_where_the_breakers_of_all_that_were_tried_are_open_it_is_the_receiver() -> None:
    rig = Rig()
    rig.ends(GOOD, answered(500))
    rig.fails(BAD)
    assert rig.held() == {"a/bad"}  # one that failed is no breaker
    rig.fails(GOOD)
    assert rig.held() == {"a/bad", "api:a"}
    # To be answered is not enough then.
    rig.ends(GOOD, answered(500))
    assert rig.held() == {"a/bad", "api:a"}
    rig.probed(GOOD, answered(200))
    assert rig.held() == {"a/bad"}
    assert {GOOD, BAD, OTHER} == rig.feedback.reopened.keys()
    # Of the only one that was tried, the lane's speaks.
    rig = Rig()
    rig.fails(BAD)
    assert rig.held() == {"api:a"}


def test_what_is_tried_too_rarely_for_a_breaker_of_its_own_counts_as_one() -> None:
    rig = Rig()
    keys = [Key("b/get", f"hook{number}") for number in range(LEAST)]
    for key in keys:
        rig.lanes.place(key, "h:443", 10, url=f"https://h/{key.webhook}")
    for key in keys[1:]:
        rig.ends(key, answered(502))
    rig.clock.turn(LASTING_MS / 1000)
    assert rig.held() == set()
    rig.ends(keys[0], answered(502))
    assert rig.held() == {"h:443"}
    rig = Rig()
    for key in keys:
        rig.lanes.place(key, "h:443", 10, url=f"https://h/{key.webhook}")
    rig.ends(keys[0], answered(502))
    rig.ends(keys[0], answered(200))  # once is enough, though the last one fails
    rig.clock.turn(LASTING_MS / 1000)
    for key in [*keys, *keys]:
        rig.ends(key, answered(502))
    assert rig.held() == set()


def test_a_breaker_from_before_the_start_is_closed_by_what_is_served_alone() -> None:
    """Else each start would send all that waits to what is down."""
    rig = Rig()
    row = StoredThrottle("api:a", BREAKER, "d", rig.clock.now_ms() - 60_000, None, "503")
    rig.feedback.restore([row], Redactor())
    rig.ends(BAD, answered(503))
    assert rig.held() == {"api:a"}
    rig.ends(GOOD, answered(200))
    assert rig.held() == set()


def test_a_clock_that_is_put_back_changes_nothing_of_what_was_tried_lately() -> None:
    rig = Rig()
    rig.ends(GOOD, answered(200))
    rig.clock.turn(-3600)
    rig.lanes.shift(-3_600_000, rig.clock.now_ms())
    rig.fails(BAD)
    assert rig.held() == {"a/bad"}  # the other one was served


def test_what_does_not_connect_speaks_of_the_receiver() -> None:
    rig = Rig()
    rig.ends(GOOD, answered(200))
    rig.fails(BAD, unanswered())
    assert rig.held() == {"api:a"}
    rig.ends(BAD, answered(500))  # something is there
    assert rig.held() == set()
    rig = Rig()
    rig.ends(GOOD, answered(200))
    rig.fails(BAD, unanswered("no answer came in time", sent=True))
    assert rig.held() == {"a/bad"}


@pytest.mark.parametrize(
    ("rule", "times", "opens"),
    [("off", 100, False), ({"failures": 3}, 2, False), ({"failures": 3}, 3, True),
     ({"window": "10s"}, LEAST, True)],
)  # fmt: skip
def test_the_key_breaker(rule: Any, times: int, opens: bool) -> None:
    rig = Rig(breaker=rule)
    rig.fails(BAD, times=times)
    assert bool(rig.held()) is opens


@pytest.mark.parametrize(
    ("key", "api", "scope"),
    [(GOOD, {}, "api:a"), (GOOD, {"retry_after_scope": "endpoint"}, "a/good"),
     (HOOK, {}, "https://h/1")],
)  # fmt: skip
def test_whose_pace_a_refusal_speaks_of(key: Key, api: dict[str, Any], scope: str) -> None:
    rig = Rig(**api)
    rig.ends(key, answered(429))
    assert [one.name for one in rig.feedback._all() if one.pace is not None] == [scope]


OFF = Guards(breaker="off", pace="off")  # type: ignore[arg-type]


def test_a_webhook_without_a_breaker_is_no_sign_of_life_of_its_host() -> None:
    """Its failures neither open the breaker that others of the host have, nor close it."""
    rig = Rig()
    for _ in range(3 * LEAST):
        rig.ends(NEIGHBOUR, unanswered(), guards=OFF)
        rig.clock.turn(1)
    assert rig.held() == set()
    rig.fails(HOOK, unanswered())
    assert rig.held() == {"h:443"}
    rig.ends(NEIGHBOUR, unanswered(), guards=OFF)
    assert rig.held() == {"h:443"}
    rig.probed(NEIGHBOUR, unanswered(), guards=OFF)
    assert rig.held() == {"h:443"}
    rig.clock.turn(30)
    rig.probed(HOOK, answered(200))
    assert rig.held() == set()
    assert HOOK in rig.feedback.reopened


def test_a_webhook_with_a_rule_of_its_own_opens_its_own_breaker() -> None:
    rig = Rig()
    strict = Guards(breaker={"failures": 2, "window": "1m"})  # type: ignore[arg-type]
    rig.ends(NEIGHBOUR, answered(200))
    for _ in range(3):
        rig.ends(HOOK, unanswered(), guards=strict)
    assert rig.held() == set()
    for _ in range(2):
        rig.ends(HOOK, answered(500), guards=strict)
    assert rig.held() == {"a/good#x"}


def test_where_defaults_switch_breakers_off_a_webhook_may_have_its_own() -> None:
    rig = Rig()
    rig.guards = OFF
    rig.fails(HOOK, unanswered(), guards=Guards())
    assert rig.held() == {"a/good#x"}
    rig.fails(NEIGHBOUR, unanswered(), guards=OFF)
    assert rig.held() == {"a/good#x"}


def test_a_probe_that_is_answered_and_not_served_brings_nothing_forward() -> None:
    """Its receiver is there, and may refuse all that would come early."""
    rig = Rig()
    rig.fails(BAD, unanswered())
    assert rig.held() == {"api:a"}
    rig.probed(BAD, answered(503))
    assert rig.held() == set()
    assert not rig.feedback.reopened
    rig = Rig()
    rig.ends(GOOD, answered(200))
    rig.fails(BAD)
    rig.probed(BAD, answered(429))
    assert rig.held() == set()
    assert not rig.feedback.reopened


def overloaded(rig: Rig, seconds: int) -> None:
    """`BAD` is sent as many as may begin, up to a hundred a second, of which 20 are served."""
    served: dict[int, int] = {}
    for _ in range(100 * seconds):
        now = rig.clock.now_ms()
        throttle = rig.lanes.lanes["api:a"].throttle
        if throttle is None or throttle.room(now) > 0:
            if throttle is not None:
                throttle.take(1, now)
            taken = served.get(now // 1000, 0) < 20
            served[now // 1000] = served.get(now // 1000, 0) + taken
            rig.ends(BAD, answered(200 if taken else 503))
        rig.clock.turn(0.01)


def test_a_scope_that_is_slowed_for_a_minute_is_told_of_once() -> None:
    rig = Rig(breaker="off")
    rig.lanes.touch(OTHER, 0)
    rig.lanes.choose(rig.clock.now_ms())
    overloaded(rig, 6)
    throttle = rig.lanes.lanes["api:a"].throttle
    assert throttle is not None
    assert throttle.is_slowed
    rig.feedback.tick()
    assert rig.told() == []
    rig.clock.turn(60)
    rig.feedback.tick()
    rig.feedback.tick()
    assert rig.told() == [(EventType.THROTTLE_BEGAN, "api:a")]
    assert rig.events[0].rate == pytest.approx(20, rel=0.5)
    assert rig.feedback.lift("api:a", rig.clock.now_ms(), Redactor())
    assert rig.told()[1:] == [(EventType.THROTTLE_ENDED, "api:a")]
    assert not throttle.is_slowed


def test_pace_off_slows_nothing_and_a_reload_ends_what_there_is() -> None:
    rig = Rig(breaker="off", pace="off")
    rig.lanes.touch(OTHER, 0)
    rig.lanes.choose(rig.clock.now_ms())
    overloaded(rig, 6)
    assert all(one.pace is None for one in rig.feedback._all())
    rig.api = Api(name="a", breaker="off")
    overloaded(rig, 6)
    assert any(one.is_slowed for one in rig.feedback._all())
    rig.api = Api(name="a", breaker="off", pace="off")
    rig.ends(GOOD, answered(200))
    assert all(one.pace is None for one in rig.feedback._all())


def test_refusals_bring_nothing_forward() -> None:
    """The backoff is the floor: a receiver that takes more again has not been down."""
    rig = Rig(breaker="off")
    overloaded(rig, 6)
    for _ in range(200):
        rig.ends(BAD, answered(200))
        rig.clock.turn(1)
        rig.feedback.tick()
    assert not rig.feedback.reopened
    rig.ends(BAD, TOLD)
    rig.clock.turn(61)
    rig.feedback.tick()
    assert not rig.feedback.reopened


def test_lifted_is_what_began_before() -> None:
    rig = Rig()
    rig.ends(GOOD, TOLD)
    at = rig.clock.now_ms()
    assert not rig.feedback.lift("api:a", at - 1, Redactor())
    assert rig.held() == {"api:a"}
    assert rig.feedback.lift("api:a", at, Redactor())
    assert rig.held() == set()
    assert rig.told()[-1] == (EventType.THROTTLE_ENDED, "api:a")
    assert not rig.feedback.lift("api:a", at, Redactor())


def test_a_manual_retry_that_is_taken_lifts_it_for_all() -> None:
    rig = Rig()
    rig.ends(HOOK, TOLD)
    rig.lanes.touch(SAME, 0)
    now = rig.clock.now_ms()
    assert rig.lanes.choose(now) == []
    rig.lanes.try_now(SAME, now)
    [choice] = rig.lanes.choose(now)
    assert (choice.key, choice.limit, choice.probe) == (SAME, 1, True)
    rig.lanes.answered(choice, 1, None)
    rig.lanes.scopes.probe_claimed(SAME, rig.ids + 1)
    rig.ends(SAME, answered(200))
    assert rig.held() == set()
    assert rig.feedback.lifted == {"https://h/1": now}


def test_what_is_gone_is_throttled_no_more() -> None:
    rig = Rig()
    rig.ends(GOOD, answered(200))
    rig.fails(BAD)
    assert rig.held() == {"a/bad"}
    rig.lanes.park(BAD)
    rig.feedback.tick()
    assert rig.feedback._all() == [rig.lanes.lanes["api:a"].throttle]
    assert rig.told()[-1] == (EventType.BREAKER_CLOSED, "a/bad")


@pytest.mark.parametrize("when", ["chosen", "claimed"])
@pytest.mark.parametrize("outcome", [answered(200), answered(500)])
def test_a_probe_whose_url_was_changed_meanwhile(when: str, outcome: Outcome) -> None:
    """What else goes to the old one is tried again."""
    rig = Rig()
    rig.ends(HOOK, TOLD)
    for key in (HOOK, SAME):
        rig.lanes.touch(key, 0)
    now = rig.clock.now_ms()
    rig.lanes.try_now(SAME, now)
    [choice] = rig.lanes.choose(now)
    assert (choice.key, choice.probe) == (SAME, True)
    if when == "chosen":
        rig.lanes.place(SAME, "h:443", 10, url="https://h/3")
    rig.lanes.answered(choice, 1, None)
    rig.lanes.scopes.probe_claimed(SAME, rig.ids + 1)
    rig.lanes.place(SAME, "h:443", 10, url="https://h/3")
    rig.ends(SAME, outcome)
    throttle = rig.lanes.scopes.by_name.get("https://h/1")
    assert throttle is None or not throttle.probing
    rig.clock.turn(61)
    assert [one.key for one in rig.lanes.choose(rig.clock.now_ms())] == [HOOK]


def test_a_probe_that_is_not_there_any_more_once_its_url_was_changed() -> None:
    rig = Rig()
    rig.ends(HOOK, TOLD)
    for key in (HOOK, SAME):
        rig.lanes.touch(key, 0)
    now = rig.clock.now_ms()
    rig.lanes.try_now(SAME, now)
    [choice] = rig.lanes.choose(now)
    rig.lanes.park(SAME)
    rig.lanes.answered(choice, 0, None)
    assert not rig.lanes.scopes.by_name["https://h/1"].probing
