"""What the demo calls, what the API answers, and what must come of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestratord_demo.receiver import DemoReceiver, PlannedAnswer

Task = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StoryCall:
    """One call of the story, and how it must end.

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
    StoryCall(0.0, "a call that succeeds", "shop/getOrder", {"id": 1001}, "succeeded", 1),
    StoryCall(
        1.5,
        "the shop is down for a moment: two answers 503, then 200",
        "shop/getOrder",
        {"id": 1002},
        "succeeded",
        3,
    ),
    StoryCall(
        5.0,
        "what the shop sells goes into a table: one answer, and a statement for each item",
        "shop/listItems",
        {},
        "succeeded",
        1,
    ),
    StoryCall(
        6.0,
        "the weather service limits the rate: 429 with Retry-After: 3",
        "weather/getForecast",
        {"city": "Paris"},
        "succeeded",
        2,
    ),
    StoryCall(
        10.0,
        "an order is sent and no answer comes: was it taken?",
        "shop/createOrder",
        {"item": "umbrella", "quantity": 2},
        "failed",
        1,
        "ambiguous",
    ),
    StoryCall(
        12.5,
        "an order that does not exist: 404 is final",
        "shop/getOrder",
        {"id": 404},
        "failed",
        1,
        "not_retryable",
    ),
    StoryCall(
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
"""Seconds after the start: the order is retried manually."""
RETRIED = "shop/createOrder"

SCHEDULED = "shop/getStock"
"""What a schedule calls: it is never done, and no part of the story."""

ANSWERS: Mapping[tuple[str, str], tuple[PlannedAnswer, ...]] = {
    ("GET", "/shop/orders/1001"): (PlannedAnswer(200, {"order": 1001, "lines": 2}),),
    ("GET", "/shop/orders/1002"): (
        PlannedAnswer(503, {"error": "in maintenance"}),
        PlannedAnswer(503, {"error": "in maintenance"}),
        PlannedAnswer(200, {"order": 1002, "lines": 1}),
    ),
    ("GET", "/shop/items"): (
        PlannedAnswer(
            200,
            {
                "items": [
                    {"id": 7, "name": "umbrella", "stock": 3},
                    {"id": 8, "name": "raincoat", "stock": 0},
                ]
            },
        ),
    ),
    ("GET", "/shop/orders/404"): (PlannedAnswer(404, {"error": "no such order"}),),
    ("POST", "/shop/orders"): (PlannedAnswer(201, stall=2.5), PlannedAnswer(201)),
    ("GET", "/shop/reports/2026-11"): (PlannedAnswer(500, {"error": "division by zero"}),),
    ("GET", "/weather/forecast"): (
        PlannedAnswer(429, {"error": "slow down"}, {"Retry-After": "3"}),
        PlannedAnswer(200, {"city": "Paris", "sky": "rain"}),
    ),
    # One delivery fails as well, and is repeated like any call.
    ("POST", "/hooks/orders"): (PlannedAnswer(503), PlannedAnswer(204)),
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


@dataclass(frozen=True, slots=True)
class Promise:
    """One promise, and whether it was kept; `text` says what was seen."""

    kept: bool
    text: str


def promises(
    placed: Mapping[int, StoryCall],
    tasks: Mapping[int, Task],
    receiver: DemoReceiver,
    retry_exit_code: int | None,
    rows: int,
) -> list[Promise]:
    """Compare the queue with the story and with what the receiver saw.

    Args:
        placed: the task of each call of the story.
        tasks: all tasks of the queue at the end.
        receiver: what arrived.
        retry_exit_code: of `orchestratorctl retry`, None where it did not run.
        rows: that statements have written.
    """
    return [
        _calls(placed, tasks),
        _requests(placed, tasks, receiver),
        _retry(placed, tasks, receiver, retry_exit_code),
        Promise(rows == ROWS, f"{rows} rows in the database, one for each item of an answer"),
        *_webhooks(placed, tasks, receiver),
        _lost(placed, tasks),
    ]


def _expected(call: StoryCall) -> tuple[str, int, str | None]:
    if call.endpoint == RETRIED:
        return "succeeded", call.attempts + 1, None
    return call.status, call.attempts, call.reason


def _calls(placed: Mapping[int, StoryCall], tasks: Mapping[int, Task]) -> Promise:
    wrong = [
        f"#{id_} {call.endpoint}"
        for id_, call in placed.items()
        if id_ not in tasks
        or (tasks[id_]["status"], tasks[id_]["attempts"], tasks[id_]["reason"]) != _expected(call)
    ]
    text = f"{len(placed)} calls ended as the story has it"
    return Promise(len(placed) == len(CALLS) and not wrong, _but(text, wrong))


def _requests(
    placed: Mapping[int, StoryCall], tasks: Mapping[int, Task], receiver: DemoReceiver
) -> Promise:
    attempts = sum(tasks[id_]["attempts"] for id_ in placed if id_ in tasks)
    arrived = sum(1 for request in receiver.requests if request.path != "/shop/stock")
    text = f"{attempts} attempts of them, {arrived} requests at the API"
    return Promise(attempts == arrived > 0, text)


def _retry(
    placed: Mapping[int, StoryCall],
    tasks: Mapping[int, Task],
    receiver: DemoReceiver,
    exit_code: int | None,
) -> Promise:
    keys = [request.key for request in receiver.requests if request.method == "POST"]
    kept = exit_code == 0 and len(keys) == 2 and keys[0] == keys[1] and keys[0] is not None
    text = (
        f"1 manual retry: {len(keys)} requests with {len(set(keys))} Idempotency-Key "
        f"made {receiver.orders} order"
    )
    return Promise(kept and receiver.orders == 1, text)


def _webhooks(
    placed: Mapping[int, StoryCall], tasks: Mapping[int, Task], receiver: DemoReceiver
) -> Iterable[Promise]:
    hooks = [t for t in tasks.values() if t["kind"] == "webhook" and t["parent_id"] in placed]
    made = Counter(str(task["webhook"]) for task in hooks)
    wrong = [
        f"{name}: {made[name]} instead of {HOOKS.get(name, 0)}"
        for name in sorted({*made, *HOOKS})
        if made[name] != HOOKS.get(name, 0)
    ]
    accepted = {one.id for one in receiver.deliveries if one.status < 300}
    refused = sum(1 for one in receiver.deliveries if one.status >= 300)
    done = sum(1 for task in hooks if task["status"] == "succeeded")
    text = f"{done} webhooks delivered, {refused} of them at the second try"
    yield Promise(
        not wrong and done == len(hooks) == len(accepted) and refused == 1, _but(text, wrong)
    )
    verified = sum(1 for one in receiver.deliveries if one.verified)
    text = f"{verified} of {len(receiver.deliveries)} signatures verified"
    yield Promise(verified == len(receiver.deliveries) > 0, text)


def _lost(placed: Mapping[int, StoryCall], tasks: Mapping[int, Task]) -> Promise:
    lost = [f"#{id_}" for id_ in placed if id_ not in tasks]
    left = [*lost, *(f"#{task['id']}" for task in unfinished(tasks.values()))]
    return Promise(not left, _but("nothing lost", left))


def _but(text: str, wrong: list[str]) -> str:
    return f"{text}, but: {', '.join(wrong)}" if wrong else text


def unfinished(tasks: Iterable[Task]) -> list[Task]:
    """The tasks that are not done, those of schedules left out: there is always a next one."""
    return [
        task
        for task in tasks
        if task["status"] in ("pending", "running") and task["endpoint"] != SCHEDULED
    ]
