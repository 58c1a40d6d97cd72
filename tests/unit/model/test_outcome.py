"""How an answer, or the error that came instead, is judged before any hook sees it."""

from __future__ import annotations

import httpx
import pytest

from orchestratord.errors import EgressDenied, SendError, SendErrorKind
from orchestratord.model.endpoint import SUCCESS
from orchestratord.model.outcome import Outcome
from orchestratord.model.retry_policy import CALL_WHEN
from orchestratord.values.status_set import StatusSet


def answered(code: int, success: StatusSet = SUCCESS, when: StatusSet = CALL_WHEN) -> Outcome:
    return Outcome.from_response(
        httpx.Response(code, headers={"Retry-After": "30"}), success=success, when=when
    )


@pytest.mark.parametrize(
    ("code", "verdict"),
    [(200, "success"), (204, "success"), (299, "success"), (301, "failure"), (304, "failure"),
     (400, "failure"), (401, "failure"), (404, "failure"), (408, "retry"), (409, "failure"),
     (425, "retry"), (429, "retry"), (500, "retry"), (501, "failure"), (502, "retry"),
     (503, "retry"), (504, "retry"), (505, "failure")],
)  # fmt: skip
def test_an_answer_is_judged_by_its_code(code: int, verdict: str) -> None:
    outcome = answered(code)
    assert (outcome.verdict, outcome.status_code, outcome.answered) == (verdict, code, True)
    assert (outcome.error is None) == (verdict == "success")
    assert outcome.retry_after == "30"
    assert outcome.decided_by is None


@pytest.mark.parametrize("code", [200, 400, 404, 408, 425, 429, 500, 501, 502, 503, 504])
def test_only_500_502_and_504_may_have_been_carried_out(code: int) -> None:
    assert answered(code).maybe_done == (code in (500, 502, 504))


def test_success_comes_before_when() -> None:
    assert answered(503, success=StatusSet.parse([200, "5xx"])).verdict == "success"
    assert answered(200, success=StatusSet.parse(204)).verdict == "failure"
    assert answered(404, when=StatusSet.parse("4xx")).verdict == "retry"


def test_an_error_names_the_answer() -> None:
    assert answered(503).error == "503 Service Unavailable"
    strange = httpx.Response(599)
    outcome = Outcome.from_response(strange, success=SUCCESS, when=CALL_WHEN)
    assert outcome.error is not None
    assert outcome.error.strip() == outcome.error
    assert outcome.error.startswith("599")


@pytest.mark.parametrize("kind", ["dns", "connect", "tls", "send", "timeout", "reset", "protocol"])
@pytest.mark.parametrize("sent", [True, False])
def test_no_answer_is_an_error_that_knows_whether_it_was_sent(
    kind: SendErrorKind, sent: bool
) -> None:
    outcome = Outcome.from_error(SendError("gone", kind=kind, sent=sent), when=CALL_WHEN)
    assert (outcome.verdict, outcome.status_code, outcome.error) == ("retry", "error", "gone")
    assert (outcome.maybe_done, outcome.answered, outcome.response) == (sent, False, None)
    only_503 = Outcome.from_error(
        SendError("gone", kind=kind, sent=sent), when=StatusSet.parse(503)
    )
    assert only_503.verdict == "failure"


def test_a_denied_address_is_an_error_and_rejected_whatever_when_says() -> None:
    outcome = Outcome.from_error(EgressDenied("10.0.0.1 is private"), when=CALL_WHEN)
    assert (outcome.verdict, outcome.status_code) == ("failure", "error")
    assert outcome.final_reason == "rejected"
    assert not outcome.maybe_done


def test_a_hook_makes_another_outcome_out_of_one() -> None:
    outcome = answered(503)
    assert outcome.success().verdict == "success"
    assert outcome.success().error is None
    again = outcome.failure("no", reason="not_retryable").retry("again", delay=5)
    assert (again.verdict, again.error, again.delay, again.final_reason) == (
        "retry", "again", 5, None,
    )  # fmt: skip
    assert outcome.retry().error == outcome.error
    final = outcome.retry(delay=5).failure(reason="rejected")
    assert (final.verdict, final.final_reason, final.status_code) == ("failure", "rejected", 503)
    assert outcome.verdict == "retry"
