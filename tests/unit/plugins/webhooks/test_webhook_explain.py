"""What the plugin says of webhooks is what it does."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import orchestratord_webhooks
import pytest
from orchestratord_webhooks.announcement import Announcer
from webhook_parts import ENDPOINT, SECRET, declared

from orchestratord import PHASES, Explanation, Outcome, RunSummary, world
from orchestratord.testing import START, Rig, answered, task, unanswered

CALL = task(id=42, endpoint_id=ENDPOINT, attempts=3, params={"id": "A1"})
CODES: dict[str, Any] = {"any": None, "200": 200, "5xx": ["5xx", "error"], "error": "error"}
WEBHOOKS = [
    declared(
        name=f"{phase}-{name}-{enabled}",
        phase=phase,
        enabled=enabled == "on",
        **({} if codes is None else {"status_code": codes}),
    )
    for phase, (name, codes), enabled in product(PHASES, CODES.items(), ("on", "off"))
    if codes is None or not phase.startswith("before_")
]
OUTCOMES = {
    "200": answered(200),
    "503": answered(503),
    "404": answered(404),
    "none": unanswered(),
    "unsent": Outcome("failure", None, error="expired"),
}


def explained(rig: Rig, phase: str, outcome: Outcome | None, webhook: Any) -> Explanation:
    endpoint = rig.endpoint(ENDPOINT, webhooks=[declared(**webhook)])
    (explanation,) = rig.explain(phase, outcome, endpoint=endpoint, task=CALL)
    return explanation


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("phase", PHASES)
def test_explain_and_announce_are_of_one_mind(
    rig: Rig, phase: str, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world, "time", lambda: START)
    endpoint = rig.endpoint(ENDPOINT, webhooks=WEBHOOKS)
    given = None if phase.startswith("before_") else OUTCOMES[outcome]
    health, context = orchestratord_webhooks.health, orchestratord_webhooks.deliveries.context
    announcer = Announcer(health, context)
    config = rig.config(endpoint)
    arguments = (phase, given, None, CALL, endpoint, 1_900_000_000_000, config)
    run = None
    if phase == "on_run_end":
        assert given is not None
        run = RunSummary(42, ENDPOINT, 1, 0, 1, 0, 1, 0, 1)
        announced = announcer.on_run_end(run, given, CALL, endpoint, config)
    else:
        announced = announcer.announce(*arguments)
    told = announcer.explain(*arguments, START, run)
    assert [item.name for item in told] == [webhook["name"] for webhook in WEBHOOKS]
    assert [item.task for item in told if item.happens] == announced
    assert all(item.task is None for item in told if not item.happens)


@pytest.mark.parametrize(
    ("phase", "outcome", "webhook", "happens", "why"),
    [
        (
            "after_request",
            answered(503),
            {"status_code": ["5xx", "error"]},
            True,
            "phase is after_request, status_code 5xx,error covers 503",
        ),
        (
            "after_request",
            answered(200),
            {"status_code": ["5xx", "error"]},
            False,
            "status_code 5xx,error does not cover 200",
        ),
        (
            "after_request",
            unanswered(),
            {"status_code": "5xx"},
            False,
            "status_code 5xx does not cover error",
        ),
        (
            "on_final_failure",
            OUTCOMES["unsent"],
            {"phase": "on_final_failure", "status_code": "5xx"},
            False,
            "status_code 5xx does not cover a call that was not sent",
        ),
        ("on_success", answered(200), {}, False, "phase is after_request"),
        ("after_request", answered(200), {}, True, "phase is after_request, any status code"),
        ("on_success", answered(200), {"enabled": False}, False, "disabled in the YAML"),
    ],
)
def test_the_rule_that_decided(
    rig: Rig, phase: str, outcome: Outcome, webhook: dict[str, Any], happens: bool, why: str
) -> None:
    explanation = explained(rig, phase, outcome, webhook)
    assert (explanation.kind, explanation.name) == ("webhook", "ops")
    assert (explanation.happens, explanation.why) == (happens, why)
    assert explanation.phase == webhook.get("phase", "after_request")


def test_a_webhook_that_was_disabled(rig: Rig) -> None:
    endpoint = rig.endpoint(ENDPOINT, webhooks=[declared()])
    row = {
        "endpoint_id": ENDPOINT,
        "name": "ops",
        "fingerprint": endpoint[orchestratord_webhooks.WEBHOOKS][0].fingerprint,
        "disabled_at": 1,
        "disabled_reason": "410 Gone",
    }
    rig.adopt(rig.config(endpoint), {"webhooks": [row]})
    (explanation,) = rig.explain("after_request", answered(503), endpoint=endpoint, task=CALL)
    assert (explanation.happens, explanation.why) == (False, "disabled: 410 Gone")


def test_headers_that_come_when_it_is_sent(rig: Rig) -> None:
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    assert explained(rig, "after_request", answered(503), {"secret": SECRET}).adds == names
    assert explained(rig, "after_request", answered(503), {}).adds == names[:2]


def test_nothing_is_remembered(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    large = answered(503, content=b"x" * 30_000)
    endpoint = rig.endpoint("shop/large", webhooks=[declared()])
    rig.explain("after_request", large, endpoint=endpoint)
    assert caplog.records == []


def test_deliveries_have_none(rig: Rig) -> None:
    endpoint = rig.endpoint(ENDPOINT, webhooks=[declared()])
    delivery = replace(CALL, kind="webhook", webhook="ops", payload="{}")
    assert rig.explain("after_request", answered(503), endpoint=endpoint, task=delivery) == []


@pytest.mark.parametrize(
    ("when", "happens", "why"),
    [
        ("status_code == `503`", True, ", and when holds"),
        ("status_code == `200`", False, "when does not hold: status_code == `200`"),
        ("length(error.x) > `1`", True, "when: length(error.x)"),
    ],
)
def test_when_is_explained(rig: Rig, when: str, happens: bool, why: str) -> None:
    explanation = explained(rig, "after_request", answered(503), {"when": when})
    assert explanation.happens is happens
    assert why in explanation.why
    if why.startswith("when:"):
        assert explanation.task is not None
        assert "length" in (explanation.task.error or "")
