"""What the demo calls, what the API answers, and what must come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestratord.cli.demo.receiver import Answer


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the story.

    Args:
        at: seconds after the start.
        say: what is about to be seen.
        endpoint: `api/name`.
        params: its parameters.
        status: how it ends.
        attempts: after how many attempts.
        reason: why it failed, None where it succeeded.
    """

    at: float
    say: str
    endpoint: str
    params: Mapping[str, Any]
    status: str
    attempts: int
    reason: str | None = None


CALLS = (
    Call(0.0, "a call that succeeds", "shop/getOrder", {"id": 1001}, "succeeded", 1),
    Call(
        1.5,
        "the shop is down for a moment: two answers 503, then 200",
        "shop/getOrder",
        {"id": 1002},
        "succeeded",
        3,
    ),
    Call(
        5.0,
        "what the shop sells goes into a table: one answer, and a statement for each item",
        "shop/listItems",
        {},
        "succeeded",
        1,
    ),
    Call(
        6.0,
        "the weather service asks for patience: 429 with Retry-After: 3",
        "weather/getForecast",
        {"city": "Paris"},
        "succeeded",
        2,
    ),
    Call(
        10.0,
        "an order is sent and no answer comes: was it taken?",
        "shop/createOrder",
        {"item": "umbrella", "quantity": 2},
        "failed",
        1,
        "ambiguous",
    ),
    Call(
        12.5,
        "an order that does not exist: 404 is final",
        "shop/getOrder",
        {"id": 404},
        "failed",
        1,
        "not_retryable",
    ),
    Call(
        14.0,
        "a report that never comes: three attempts, then it is over",
        "shop/getReport",
        {"month": "2026-11"},
        "failed",
        3,
        "exhausted",
    ),
)

RETRY_AT = 18.5
"""Seconds after the start: the order is tried again by hand."""
RETRIED = "shop/createOrder"

ANSWERS: Mapping[tuple[str, str], tuple[Answer, ...]] = {
    ("GET", "/shop/orders/1001"): (Answer(200, {"order": 1001, "lines": 2}),),
    ("GET", "/shop/orders/1002"): (
        Answer(503, {"error": "in maintenance"}),
        Answer(503, {"error": "in maintenance"}),
        Answer(200, {"order": 1002, "lines": 1}),
    ),
    ("GET", "/shop/items"): (
        Answer(
            200,
            {
                "items": [
                    {"id": 7, "name": "umbrella", "stock": 3},
                    {"id": 8, "name": "raincoat", "stock": 0},
                ]
            },
        ),
    ),
    ("GET", "/shop/orders/404"): (Answer(404, {"error": "no such order"}),),
    ("POST", "/shop/orders"): (Answer(201, stall=2.5), Answer(201)),
    ("GET", "/shop/reports/2026-11"): (Answer(500, {"error": "division by zero"}),),
    ("GET", "/weather/forecast"): (
        Answer(429, {"error": "slow down"}, {"Retry-After": "3"}),
        Answer(200, {"city": "Paris", "sky": "rain"}),
    ),
    # One delivery fails as well, and is repeated like any call.
    ("POST", "/hooks/orders"): (Answer(503), Answer(204)),
}

ROWS = 2
"""How many items there are in the table at the end."""

HOOKS: Mapping[str, int] = {
    "ops": 6,  # 503 and 503; no answer; 500, 500 and 500
    "order-read": 2,
    "order-missing": 1,
    "order-failed": 1,
    "report-failed": 1,
    "late": 1,
}
"""How many deliveries each webhook makes."""

SECRETS: Mapping[str, str] = {
    "/hooks/ops": "OPS_HOOK_SECRET",
    "/hooks/orders": "ORDERS_HOOK_SECRET",
    "/hooks/weather": "WEATHER_HOOK_SECRET",
}
"""The path of a webhook → the variable that its secret is read from."""
