"""May it be tried again, and when: every rule, and the words that say why."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from random import Random
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestratord.engine.retry import (
    OVER_QUOTA,
    Decision,
    decide,
    decide_look,
    decide_over_quota,
    decide_probe,
    give_up_at,
)  # fmt: skip
from orchestratord.engine.retry_delay import parse_reset, parse_retry_after
from orchestratord.errors import EgressDenied, SendError
from orchestratord.model.backoff import Backoff, Fixed
from orchestratord.model.endpoint import SUCCESS
from orchestratord.model.outcome import Outcome
from orchestratord.model.poll_rule import PollRule
from orchestratord.model.retry_policy import CALL_WHEN, RetryPolicy
from orchestratord.model.task import Reason, Status, Task
from orchestratord.values.durations import Duration
from orchestratord.values.status_set import StatusSet

NOW = 1_795_557_600_000
"""2026-11-24T22:00:00Z."""
TASK = Task(
    id=1, kind="call", endpoint_id="a/b", webhook="", phase=None, status="running", reason=None,
    attempts=1, max_attempts=15, next_try=None, params={}, payload=None, parent_id=None,
    created_at=NOW, updated_at=NOW, scheduled_at=NOW)  # fmt: skip
HOUR = 3600.0
DAY = 86400.0


class Doubling(Backoff):
    """What the strategy `exponential` does, in the test's own words."""

    delay: Duration = 5.0
    factor: float = 2.0

    def seconds(self, n: int) -> float:
        return self.delay * self.factor ** (n - 1)

    def explain(self, n: int) -> str:
        return f"exponential {self.delay:g}s·{self.factor:g}^{n - 1}={self.seconds(n):g}s"


class Saying(Backoff):
    """Answers whatever it is told to, or raises it."""

    answer: Any = 5.0

    def seconds(self, n: int) -> float:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]

    def explain(self, n: int) -> str:
        return "saying so"


class Chance(Random):
    """Draws what it is told to: 0 is the least, 1 the most, a half none."""

    def __init__(self, drawn: float = 0.5) -> None:
        super().__init__(0)
        self.drawn = drawn

    def random(self) -> float:
        return self.drawn


def policy(**options: Any) -> RetryPolicy:
    options.setdefault("backoff", Doubling())
    return RetryPolicy.model_validate({"jitter": 0, **options})


def answer(code: int, retry: RetryPolicy, retry_after: str | None = None) -> Outcome:
    headers = {"Retry-After": retry_after} if retry_after is not None else {}
    response = httpx.Response(code, headers=headers)
    return Outcome.from_response(response, success=SUCCESS, when=retry.when)


def lost(retry: RetryPolicy, *, sent: bool) -> Outcome:
    return Outcome.from_error(SendError("gone", kind="reset", sent=sent), when=retry.when)


class Judge:
    """`decide` with what a test does not care about filled in; remembers faults."""

    def __init__(self) -> None:
        self.faults: list[tuple[str, str]] = []

    def __call__(
        self,
        retry: RetryPolicy,
        outcome: Outcome,
        *,
        task: Task = TASK,
        idempotent: bool = True,
        now: int = NOW,
        chance: float = 0.5,
        skipped: int = 0,
    ) -> Decision:
        return decide(
            task,
            retry,
            idempotent,
            outcome,
            now=now,
            chance=Chance(chance),
            fault=lambda name, error: self.faults.append((name, str(error))),
            skipped=lambda since: skipped,
        )


@pytest.fixture
def judge() -> Judge:
    return Judge()


# -- success and final failures -------------------------------------------------------------------


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("attempts", [1, 15, 99])
def test_a_success_is_one(judge: Judge, idempotent: bool, attempts: int) -> None:
    retry = policy()
    task = replace(TASK, attempts=attempts)
    decision = judge(retry, answer(200, retry), task=task, idempotent=idempotent)
    assert decision == Decision(Status.SUCCEEDED, "succeeded")


@pytest.mark.parametrize("idempotent", [True, False])
def test_what_when_does_not_cover_is_final(judge: Judge, idempotent: bool) -> None:
    retry = policy()
    decision = judge(retry, answer(404, retry), idempotent=idempotent)
    assert decision == Decision(
        Status.FAILED, "retry.when does not cover 404", Reason.NOT_RETRYABLE
    )


def test_an_error_that_when_does_not_name_is_final(judge: Judge) -> None:
    retry = policy(when=[503])
    decision = judge(retry, lost(retry, sent=False))
    assert (decision.reason, decision.why) == (
        Reason.NOT_RETRYABLE, "retry.when does not cover error",
    )  # fmt: skip


def test_a_denied_address_is_rejected(judge: Judge) -> None:
    retry = policy()
    outcome = Outcome.from_error(EgressDenied("10.0.0.1 is private"), when=retry.when)
    for idempotent in (True, False):
        decision = judge(retry, outcome, idempotent=idempotent)
        assert (decision.status, decision.reason) == (Status.FAILED, Reason.REJECTED)
        assert decision.next_try is None


def test_a_hook_decides(judge: Judge) -> None:
    retry = policy()
    ok, down = answer(200, retry), answer(503, retry)
    failed = replace(ok.failure("errors in it"), decided_by="strict")
    assert judge(retry, failed) == Decision(
        Status.FAILED, "not_retryable (decided by strict)", Reason.NOT_RETRYABLE
    )
    again = judge(retry, replace(ok.retry(), decided_by="strict"))
    assert (again.status, again.delay) == (Status.PENDING, 5)
    assert again.why == "exponential 5s·2^0=5s (decided by strict)"
    fine = judge(retry, replace(down.success(), decided_by="kind"))
    assert fine == Decision(Status.SUCCEEDED, "succeeded (decided by kind)")


@pytest.mark.parametrize(
    ("said", "reason"),
    [("webhook_disabled", Reason.WEBHOOK_DISABLED), ("rejected", Reason.REJECTED),
     ("because", Reason.NOT_RETRYABLE), (None, Reason.NOT_RETRYABLE), ("", Reason.NOT_RETRYABLE)],
)  # fmt: skip
def test_a_failure_brings_its_reason_if_it_is_one(
    judge: Judge, said: str | None, reason: Reason
) -> None:
    retry = policy()
    assert judge(retry, answer(503, retry).failure(reason=said)).reason is reason


# -- ambiguous ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [500, 502, 504])
def test_what_may_have_been_carried_out_waits_for_a_person(judge: Judge, code: int) -> None:
    retry = policy()
    decision = judge(retry, answer(code, retry), idempotent=False)
    assert (decision.status, decision.reason) == (Status.FAILED, Reason.AMBIGUOUS)
    assert "manually" in decision.why
    assert decision.next_try is decision.delay is None
    assert judge(retry, answer(code, retry)).status is Status.PENDING


@pytest.mark.parametrize("code", [500, 502, 504])
def test_a_written_when_that_covers_the_code_says_that_a_repeat_is_safe(
    judge: Judge, code: int
) -> None:
    for when in ([code], ["5xx"], ["error", "500-504"]):
        retry = policy(when=when)
        assert judge(retry, answer(code, retry), idempotent=False).status is Status.PENDING
    # The very same codes that nobody wrote cover nothing; neither does a `when` without the code.
    written = policy(when=CALL_WHEN)
    assert judge(written, answer(code, written), idempotent=False).status is Status.PENDING
    for retry in (policy(), policy(when=[503]), policy(when=["error", 429])):
        decision = judge(retry, answer(code, retry), idempotent=False)
        assert decision.reason is Reason.AMBIGUOUS


@pytest.mark.parametrize("when", [None, ["error"], ["error", "5xx"]])
def test_error_never_covers_an_answer_lost_after_sending(
    judge: Judge, when: list[str] | None
) -> None:
    retry = policy() if when is None else policy(when=when)
    decision = judge(retry, lost(retry, sent=True), idempotent=False)
    assert decision.reason is Reason.AMBIGUOUS
    assert judge(retry, lost(retry, sent=True), idempotent=True).status is Status.PENDING
    assert judge(retry, lost(retry, sent=False), idempotent=False).status is Status.PENDING


def test_an_answer_lost_after_sending_is_ambiguous_even_where_error_is_not_retried(
    judge: Judge,
) -> None:
    retry = policy(when=[503])
    assert judge(retry, lost(retry, sent=True), idempotent=False).reason is Reason.AMBIGUOUS
    assert judge(retry, lost(retry, sent=True), idempotent=True).reason is Reason.NOT_RETRYABLE


@pytest.mark.parametrize("code", [408, 425, 429, 503])
def test_an_answer_that_says_it_was_not_carried_out_is_tried_again(judge: Judge, code: int) -> None:
    retry = policy()
    assert judge(retry, answer(code, retry), idempotent=False).status is Status.PENDING


def test_ambiguous_comes_before_exhausted(judge: Judge) -> None:
    retry = policy(max_attempts=1)
    assert judge(retry, answer(500, retry), idempotent=False).reason is Reason.AMBIGUOUS
    assert judge(retry, answer(500, retry), idempotent=True).reason is Reason.EXHAUSTED


def test_a_hook_may_know_better(judge: Judge) -> None:
    retry = policy()
    down = answer(500, retry)
    failed = replace(down.failure(), decided_by="reader")
    assert judge(retry, failed, idempotent=False).reason is Reason.NOT_RETRYABLE
    succeeded = replace(down.success(), decided_by="reader")
    assert judge(retry, succeeded, idempotent=False).status is Status.SUCCEEDED


# -- attempts and deadlines -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attempts", "allowed", "granted", "again"),
    [(1, 15, 0, True), (14, 15, 0, True), (15, 15, 0, False), (16, 15, 0, False), (1, 1, 0, False),
     (15, 15, 1, True), (16, 15, 1, False), (3, 1, 3, True)],
)  # fmt: skip
def test_the_first_attempt_counts_and_granted_ones_are_added(
    judge: Judge, attempts: int, allowed: int, granted: int, again: bool
) -> None:
    retry = policy(max_attempts=allowed)
    task = replace(TASK, attempts=attempts, granted=granted)
    decision = judge(retry, answer(503, retry), task=task)
    if again:
        assert decision.status is Status.PENDING
    else:
        assert (decision.status, decision.reason) == (Status.FAILED, Reason.EXHAUSTED)
        assert decision.why == f"attempt {attempts} of {allowed + granted} was the last"


def test_a_next_try_past_give_up_after_expires_at_once(judge: Judge) -> None:
    retry = policy(backoff=Fixed(delay=60), give_up_after="1h")
    edge = int(NOW + (HOUR - 60) * 1000)
    assert judge(retry, answer(503, retry), now=edge).next_try == NOW + HOUR * 1000
    late = judge(retry, answer(503, retry), now=edge + 1)
    assert (late.status, late.reason, late.next_try) == (Status.FAILED, Reason.EXPIRED, None)
    assert late.why == "fixed 1m: past give_up_after 1h"


def test_give_up_after_does_not_count_what_a_clock_jumped_over(judge: Judge) -> None:
    retry, day = policy(give_up_after="1h"), 24 * HOUR * 1000
    later = int(NOW + day)
    assert judge(retry, answer(503, retry), now=later).reason is Reason.EXPIRED
    assert judge(retry, answer(503, retry), now=later, skipped=day).status is Status.PENDING
    late = later + HOUR * 1000
    assert judge(retry, answer(503, retry), now=late, skipped=day).reason is Reason.EXPIRED


def test_give_up_after_counts_from_the_last_retry_by_hand(judge: Judge) -> None:
    retry = policy(give_up_after="1h")
    later = int(NOW + 2 * HOUR * 1000)
    assert judge(retry, answer(503, retry), now=later).reason is Reason.EXPIRED
    task = replace(TASK, retried_at=later)
    assert judge(retry, answer(503, retry), task=task, now=later).status is Status.PENDING
    assert give_up_at(task, retry) == later + HOUR * 1000
    assert give_up_at(task, policy()) is None


def test_give_up_after_counts_from_when_a_call_was_to_be_made_first() -> None:
    retry, later = policy(give_up_after="1h"), int(NOW + 24 * HOUR * 1000)
    assert give_up_at(replace(TASK, scheduled_at=later), retry) == later + HOUR * 1000
    # Not from a slot that was missed.
    missed = replace(TASK, scheduled_at=TASK.created_at - 1)
    assert give_up_at(missed, retry) == TASK.created_at + HOUR * 1000


def test_a_retry_after_can_make_it_expire(judge: Judge) -> None:
    retry = policy(give_up_after="1h")
    assert judge(retry, answer(503, retry, "3599")).status is Status.PENDING
    expired = judge(retry, answer(503, retry, "3601"))
    assert expired.reason is Reason.EXPIRED
    assert "Retry-After" in expired.why


# -- the delay, and why ---------------------------------------------------------------------------


def test_the_words_of_a_delay(judge: Judge) -> None:
    task = replace(TASK, attempts=3)
    retry = policy(jitter=0.1)
    down = answer(503, retry)
    decision = judge(retry, answer(503, retry, "30"), task=task, chance=0.225)
    assert decision.why == "exponential 5s·2^2=20s, jitter −1.1s, Retry-After 30s won"
    assert (decision.delay, decision.next_try) == (30, NOW + 30_000)
    decision = judge(retry, down, task=task, chance=0.225)
    assert decision.why == "exponential 5s·2^2=20s, jitter −1.1s"
    assert decision.delay == pytest.approx(18.9)
    assert decision.next_try == NOW + 18_900
    decision = judge(retry, answer(503, retry, "10"), task=task, chance=1)
    assert decision.why == "exponential 5s·2^2=20s, jitter +2s, Retry-After 10s is earlier"
    assert decision.delay == pytest.approx(22)
    decision = judge(policy(), down, task=task)
    assert decision.why == "exponential 5s·2^2=20s"


def test_the_jitter_of_a_long_delay_is_readable(judge: Judge) -> None:
    retry = policy(backoff=Fixed(delay=72_000), max_delay="24h", jitter=0.2)
    why = judge(retry, answer(503, retry), chance=0.123).why
    assert why == "fixed 20h, jitter −10857.6s"
    retry = policy(backoff=Fixed(delay=0.5), jitter=0.2)
    assert judge(retry, answer(503, retry), chance=1).why == "fixed 500ms, jitter +100ms"


def test_max_delay_comes_before_jitter(judge: Judge) -> None:
    retry = policy(max_delay="1m", jitter=0.1)
    task = replace(TASK, attempts=10)
    decision = judge(retry, answer(503, retry), task=task, chance=1)
    assert decision.delay == pytest.approx(66)
    assert decision.why == "exponential 5s·2^9=2560s, max_delay 1m, jitter +6s"


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 30))
def test_the_delay_is_drawn_from_around_it(jitter: float, drawn: float, n: int) -> None:
    retry = policy(jitter=jitter)
    base = min(5 * 2 ** (n - 1), HOUR)
    task = replace(TASK, attempts=n, granted=99)
    delay = Judge()(retry, answer(503, retry), task=task, chance=drawn).delay
    assert delay is not None
    assert base * (1 - jitter) - 1e-6 <= delay <= base * (1 + jitter) + 1e-6


def test_jitter_uses_the_whole_range(judge: Judge) -> None:
    retry = policy(backoff=Fixed(delay=100), jitter=0.1)
    delays = [judge(retry, answer(503, retry), chance=drawn).delay for drawn in (0, 0.5, 1)]
    assert delays == pytest.approx([90, 100, 110])


def test_a_hook_names_the_delay(judge: Judge) -> None:
    retry = policy(jitter=0.5)
    outcome = replace(answer(503, retry, "999").retry(delay=7), decided_by="polite")
    decision = judge(retry, outcome, chance=1)
    assert decision.delay == 7
    assert decision.why == "7s as polite said (decided by polite)"


@pytest.mark.parametrize(
    ("asked", "given"), [(-1, 0), (0, 0), (1e9, HOUR), (math.inf, HOUR), (10**400, HOUR)]
)
def test_a_hooks_delay_is_bounded(judge: Judge, asked: float, given: float) -> None:
    retry = policy()
    assert judge(retry, answer(503, retry).retry(delay=asked)).delay == given
    assert judge.faults == []


def test_a_hooks_delay_that_is_none_is_not_taken(judge: Judge) -> None:
    retry = policy()
    outcome = replace(answer(503, retry).retry(delay=math.nan), decided_by="odd")
    assert judge(retry, outcome).delay == 5
    assert judge.faults == [("odd", "asked for a delay of nan")]


# -- Retry-After ----------------------------------------------------------------------------------


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine in New York: a date without a zone is UTC all the same."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("30", 30),
        (" 30 ", 30),
        ("0", 0),
        ("1.5", 1.5),
        ("-1", 0),
        ("-1e400", 0),
        ("1e400", math.inf),
        ("inf", math.inf),
        ("9" * 5000, math.inf),
        ("nan", None),
        ("", None),
        ("soon", None),
        ("30s", None),
        ("30, 60", None),
        ("Tue, 24 Nov 2026 22:00:30 GMT", 30),
        ("Tue, 24 Nov 2026 21:00:00 GMT", 0),
        ("Tuesday, 24-Nov-26 22:00:30 GMT", 30),
        ("Tue Nov 24 22:00:30 2026", 30),
        ("Tue, 24 Nov 2026 22:00:30 -0000", 30),
        ("Tue, 24 Nov 2026 23:00:30 +0100", 30),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Tue, 99 Nov 2026 22:00:30 GMT", None),
        ("Tue, 24 Nov 99999 22:00:30 GMT", None),
    ],
)
@pytest.mark.usefixtures("far_from_utc")
def test_what_a_retry_after_says(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text, NOW) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30.0),
        (str(NOW // 1000 + 60), 60.0),
        (str(NOW + 60_000), 60.0),  # in milliseconds, as some APIs say it
        (str(NOW - 1), 0.0),
        ("Tue, 24 Nov 2026 22:01:00 GMT", 60.0),
        ("soon", None),
    ],
)
def test_what_the_reset_of_a_quota_says(text: str, seconds: float | None) -> None:
    assert parse_reset(text, NOW) == seconds
    assert (parse_reset("Fri, 31 Dec 9999 23:59:59 GMT", NOW) or 0) > 1e11


def test_the_year_9999_is_far_away() -> None:
    seconds = parse_retry_after("Fri, 31 Dec 9999 23:59:59 GMT", NOW)
    assert seconds is not None
    assert seconds > 1e11


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.text(max_size=40), st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} .*")))
def test_a_retry_after_of_anything_is_read_or_passed_over(text: str) -> None:
    seconds = parse_retry_after(text, NOW)
    assert seconds is None or seconds >= 0


@settings(deadline=None)
@given(st.integers(0, 4_000_000_000))
def test_every_http_date_is_read(seconds: int) -> None:
    date = datetime.fromtimestamp(seconds, UTC)
    wait = parse_retry_after(format_datetime(date, usegmt=True), NOW)
    assert wait == pytest.approx(max(seconds - NOW / 1000, 0))


@pytest.mark.parametrize("text", ["1e400", "inf", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_retry_after_is_at_most_max_retry_after(judge: Judge, text: str) -> None:
    retry = policy()
    decision = judge(retry, answer(429, retry, text))
    assert decision.delay == DAY
    assert decision.why == "exponential 5s·2^0=5s, Retry-After 1d (max_retry_after) won"
    short = policy(max_retry_after="2m")
    assert judge(short, answer(429, short, text)).delay == 120


@pytest.mark.parametrize("text", ["-1", "nan", "-inf", "", "soon", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_retry_after_is_at_least_what_the_backoff_says(judge: Judge, text: str) -> None:
    retry = policy()
    assert judge(retry, answer(429, retry, text)).delay == 5


def test_a_backoff_beyond_max_retry_after_stays(judge: Judge) -> None:
    retry = policy(backoff=Fixed(delay=2 * DAY), max_delay="7d")
    assert judge(retry, answer(429, retry, "inf")).delay == 2 * DAY


def test_retry_after_can_be_left_unheard(judge: Judge) -> None:
    retry = policy(respect_retry_after=False)
    decision = judge(retry, answer(429, retry, "30"))
    assert (decision.delay, decision.why) == (5, "exponential 5s·2^0=5s")


# -- strategies that misbehave --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "delay", "fault"),
    [
        (math.nan, 5, "returned nan as a delay"),
        (None, 5, "returned None as a delay"),
        ("10s", 5, "returned '10s' as a delay"),
        (True, 5, "returned True as a delay"),
        ([5], 5, "returned [5] as a delay"),
        (-1, 0, None),
        (-(10**400), 0, None),
        (-math.inf, 0, None),
        (1e9, HOUR, None),
        (math.inf, HOUR, None),
        (10**400, HOUR, None),
        (HOUR, HOUR, None),
        (0, 0, None),
        (ValueError("no"), 5, "no"),
        (SystemExit(3), 5, "3"),
        (OverflowError("math range error"), 5, "math range error"),
    ],
)
def test_whatever_a_strategy_says_is_kept_within_bounds(
    judge: Judge, said: Any, delay: float, fault: str | None
) -> None:
    Saying.name = "saying"
    retry = policy(backoff=Saying.model_construct(answer=said))
    decision = judge(retry, answer(503, retry))
    assert (decision.status, decision.delay) == (Status.PENDING, delay)
    assert judge.faults == ([("saying", fault)] if fault else [])
    assert decision.why.startswith("saying")


@pytest.mark.parametrize("said", [-1, 0, 0.0001, 0.001, 0.05, -math.inf])
def test_from_the_second_try_on_a_delay_is_at_least_100_ms(judge: Judge, said: Any) -> None:
    Saying.name = "saying"
    retry = policy(backoff=Saying.model_construct(answer=said), jitter=0.1, max_delay="100ms")
    for attempts in (2, 3, 14):
        task = replace(TASK, attempts=attempts)
        decision = judge(retry, answer(503, retry), task=task, chance=0)
        assert decision.delay == 0.1
        assert decision.why.endswith(", at least 100ms")
    hook = answer(503, retry).retry(delay=said if said == said else 0)
    assert judge(retry, hook, task=replace(TASK, attempts=2)).delay == 0.1


def test_the_delay_of_a_faulty_strategy_is_within_max_delay_too(judge: Judge) -> None:
    retry = policy(backoff=Saying.model_construct(answer=math.nan), max_delay="1s")
    assert judge(retry, answer(503, retry)).delay == 1


def test_the_words_say_what_was_done_about_it(judge: Judge) -> None:
    def why(said: Any) -> str:
        Saying.name = "saying"
        retry = policy(backoff=Saying.model_construct(answer=said))
        return judge(retry, answer(503, retry)).why

    assert why(-1) == "saying so, at least 0s"
    assert why(1e9) == "saying so, max_delay 1h"
    assert why(math.nan) == "saying returned nan, 5s instead"
    assert why(ValueError("no")) == "saying failed, 5s instead"


class Silent(Fixed):
    name = "silent"

    def explain(self, n: int) -> str:
        raise SystemExit("no comment")


class Numbering(Fixed):
    def explain(self, n: int) -> str:
        return 42  # type: ignore[return-value]


def test_a_strategy_that_cannot_explain_itself_is_heard_all_the_same(judge: Judge) -> None:
    retry = policy(backoff=Silent(delay=7))
    decision = judge(retry, answer(503, retry))
    assert (decision.delay, decision.why) == (7, "silent 7s")
    assert judge.faults == [("silent", "no comment")]
    retry = policy(backoff=Numbering(delay=7))
    assert judge(retry, answer(503, retry)).why == "42"


# -- all of it at once ----------------------------------------------------------------------------

OUTCOMES: st.SearchStrategy[Callable[[RetryPolicy], Outcome]] = st.one_of(
    st.tuples(st.integers(100, 599), st.none() | st.text(max_size=12)).map(
        lambda pair: (
            lambda retry: answer(
                pair[0], retry, pair[1].encode("ascii", "ignore").decode() if pair[1] else None
            )
        )
    ),
    st.booleans().map(lambda sent: lambda retry: lost(retry, sent=sent)),
)


@settings(deadline=None, max_examples=300)
@given(
    make=OUTCOMES,
    when=st.none() | st.lists(st.sampled_from(["error", "5xx", 503, 500, "4xx"]), min_size=1),
    idempotent=st.booleans(),
    attempts=st.integers(1, 20),
    said=st.floats() | st.integers(),
)
def test_what_always_holds(
    make: Callable[[RetryPolicy], Outcome],
    when: list[Any] | None,
    idempotent: bool,
    attempts: int,
    said: float,
) -> None:
    retry = policy(
        backoff=Saying.model_construct(answer=said), jitter=0.2, **({"when": when} if when else {})
    )
    outcome = make(retry)
    task = replace(TASK, attempts=attempts)
    decision = Judge()(retry, outcome, task=task, idempotent=idempotent, chance=1)
    assert decision.status in (Status.SUCCEEDED, Status.FAILED, Status.PENDING)
    assert (decision.reason is not None) == (decision.status is Status.FAILED)
    assert (decision.next_try is not None) == (decision.status is Status.PENDING)
    assert decision.why
    if decision.status is Status.PENDING:
        assert decision.delay is not None
        assert 0 <= decision.delay <= max(DAY, HOUR * 1.2)
        assert attempts < 15
        assert outcome.status_code in StatusSet.parse(when or list(CALL_WHEN.text.split(",")))
        if not idempotent and not outcome.answered:
            assert not outcome.maybe_done


# -- probes ---------------------------------------------------------------------------------------


def probed(task: Task, retry: RetryPolicy, decision: Decision, hours: float) -> Decision:
    first = NOW - round(hours * 3_600_000)
    return decide_probe(task, retry, decision, now=NOW, first=first, fault=lambda *_: None)


def test_a_probe_costs_no_attempt_until_its_attempts_would_be_over(judge: Judge) -> None:
    retry = policy(backoff=Fixed(delay=3600), max_attempts=31)
    last = replace(TASK, attempts=31)
    exhausted_by_count = judge(retry, answer(503, retry), task=last)
    assert exhausted_by_count.reason is Reason.EXHAUSTED
    free = probed(last, retry, exhausted_by_count, 29)
    assert (free.status, free.next_try, free.uncounted) == (Status.PENDING, NOW, True)
    over = probed(last, retry, exhausted_by_count, 30.1)
    assert (over.status, over.reason, over.uncounted) == (
        Status.FAILED, Reason.EXHAUSTED, False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "options", "hours", "reason"),
    [
        ("call", {}, 24, Reason.EXHAUSTED),
        ("call", {"give_up_after": "2h"}, 2, Reason.EXPIRED),
        ("webhook", {}, 3 / 3600, Reason.EXHAUSTED),
        ("webhook", {"give_up_after": "2h"}, 2, Reason.EXPIRED),
    ],
)
def test_for_how_long_it_costs_none(
    judge: Judge, kind: str, options: dict[str, Any], hours: float, reason: Reason
) -> None:
    """Two attempts lie three seconds apart; a call lasts for a day all the same. What is given up
    after a time has expired then."""
    retry = policy(backoff=Fixed(delay=3), max_attempts=2, **options)
    task = replace(TASK, kind=kind, created_at=NOW)
    decision = judge(retry, answer(503, retry), task=task)
    assert probed(task, retry, decision, hours - 0.0001).uncounted
    assert probed(task, retry, decision, hours + 0.0001).reason is reason


def test_what_is_final_is_so_for_a_probe_too(judge: Judge) -> None:
    retry = policy()
    for outcome, idempotent in ((answer(404, retry), True), (lost(retry, sent=True), False)):
        decision = judge(retry, outcome, idempotent=idempotent)
        assert probed(TASK, retry, decision, 0) is decision


def test_the_row_says_whether_the_backoff_put_it_off(judge: Judge) -> None:
    retry = policy(backoff=Fixed(delay=5))
    assert judge(retry, answer(503, retry)).backed_off
    assert judge(retry, answer(503, retry, "1")).backed_off
    assert not judge(retry, answer(503, retry, "60")).backed_off
    assert not judge(retry, answer(503, retry).retry(delay=60)).backed_off


# -- what is not done yet --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "now", "retry_after", "delay"),
    [
        (None, 0, None, 10.0),
        (0, 30, None, 10.0),
        (0, 55, None, 5.0),  # one as `for` ends
        (0, 60, None, None),
        (0, 70, "5", None),
        (0, 30, "20", 20.0),
        (0, 30, "90", 90.0),  # and the next one follows the end
        (0, 30, "1000", 100.0),  # max_retry_after
        (0, 30, "0", 10.0),
        (0, 30, "Tue, 24 Nov 2026 21:59:00 GMT", 10.0),  # past, by its clock
        (40, 30, None, 10.0),  # the clock was put back since
    ],
)
def test_a_look(first: int | None, now: int, retry_after: str | None, delay: float | None) -> None:
    retry = policy(max_retry_after="100s")
    poll = PollRule.model_validate({"until": "done", "every": "10s", "for": "60s"})
    since = None if first is None else NOW + first * 1000
    task, at = replace(TASK, looked_since=since, looks=int(since is not None)), NOW + now * 1000
    decision = decide_look(task, retry, poll, answer(200, retry, retry_after), now=at)
    if delay is None:
        assert (decision.status, decision.reason) == (Status.FAILED, Reason.EXPIRED)
        assert decision.why == "not done 1m after the first look"
        return
    assert (decision.status, decision.uncounted) == (Status.PENDING, True)
    assert (decision.delay, decision.next_try) == (delay, at + round(delay * 1000))


def test_a_look_does_not_count_what_a_clock_has_jumped_over() -> None:
    retry, poll = policy(), PollRule.model_validate({"until": "done", "for": "60s"})
    task = replace(TASK, looked_since=NOW, looks=1)
    judged = partial(decide_look, task, retry, poll, answer(200, retry), now=NOW + 100_000)
    assert judged().status is Status.FAILED
    assert judged(skipped=lambda since: 90_000).status is Status.PENDING


# -- a quota of which nothing is left --------------------------------------------------------------


def over_quota(task: Task, retry: RetryPolicy, before: int = 0, status: int = 429) -> Decision:
    outcome = replace(answer(status, retry), quota_until=NOW + 5_000)
    random, told = Random(0), lambda name, what: None
    decision = decide(task, retry, False, outcome, now=NOW, chance=random, fault=told)
    return decide_over_quota(task, retry, decision, NOW + 5_000, now=NOW, before=before)


def test_over_quota_costs_no_attempt() -> None:
    retry = policy(max_attempts=1)
    decision = over_quota(replace(TASK, attempts=1), retry)
    assert (decision.status, decision.next_try) == (Status.PENDING, NOW + 5_000)
    assert (decision.uncounted, decision.delay) == (True, 5)
    assert decision.why.startswith(OVER_QUOTA)


def test_over_quota_ten_times_in_a_row() -> None:
    retry = policy(max_attempts=1)
    assert over_quota(TASK, retry, before=9).uncounted
    last = over_quota(replace(TASK, attempts=1), retry, before=10)
    assert (last.status, last.reason, last.uncounted) == (Status.FAILED, Reason.EXHAUSTED, False)


def test_over_quota_does_not_outlast_give_up_after() -> None:
    decision = over_quota(TASK, policy(give_up_after="4s"))
    assert (decision.status, decision.reason) == (Status.FAILED, Reason.EXPIRED)
    assert over_quota(TASK, policy(give_up_after="6s")).status is Status.PENDING


def test_what_is_final_is_so_over_quota() -> None:
    assert over_quota(TASK, policy(), status=400).reason is Reason.NOT_RETRYABLE


def test_a_strategy_is_asked_once_for_a_wait(judge: Judge) -> None:
    asked: list[int] = []

    class Counting(Backoff):
        def seconds(self, n: int) -> float:
            asked.append(n)
            return 7

    Counting.name = "counting"
    retry = policy().model_copy(update={"backoff": Counting()})
    assert judge(retry, answer(503, retry)).why.startswith("counting 7s")
    assert asked == [1]
