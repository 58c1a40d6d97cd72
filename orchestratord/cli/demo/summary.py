"""What happened, against what was promised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestratord.cli.demo import story
from orchestratord.cli.demo.receiver import Receiver
from orchestratord.cli.demo.screen import Screen

Task = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Check:
    """One promise, and whether it was kept; `text` says what was seen."""

    kept: bool
    text: str


def checks(
    placed: Mapping[int, story.Call],
    tasks: Mapping[int, Task],
    receiver: Receiver,
    retry_exit_code: int | None,
    rows: int,
) -> list[Check]:
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
        Check(rows == story.ROWS, f"{rows} rows in the database, one for each item of an answer"),
        *_webhooks(placed, tasks, receiver),
        _lost(placed, tasks),
    ]


def _expected(call: story.Call) -> tuple[str, int, str | None]:
    if call.endpoint == story.RETRIED:
        return "succeeded", call.attempts + 1, None
    return call.status, call.attempts, call.reason


def _calls(placed: Mapping[int, story.Call], tasks: Mapping[int, Task]) -> Check:
    wrong = [
        f"#{id_} {call.endpoint}"
        for id_, call in placed.items()
        if id_ not in tasks
        or (tasks[id_]["status"], tasks[id_]["attempts"], tasks[id_]["reason"]) != _expected(call)
    ]
    text = f"{len(placed)} calls ended as the story has it"
    return Check(len(placed) == len(story.CALLS) and not wrong, _but(text, wrong))


def _requests(
    placed: Mapping[int, story.Call], tasks: Mapping[int, Task], receiver: Receiver
) -> Check:
    attempts = sum(tasks[id_]["attempts"] for id_ in placed if id_ in tasks)
    arrived = sum(1 for request in receiver.requests if request.path != "/shop/stock")
    text = f"{attempts} attempts of them, {arrived} requests at the API"
    return Check(attempts == arrived > 0, text)


def _retry(
    placed: Mapping[int, story.Call],
    tasks: Mapping[int, Task],
    receiver: Receiver,
    exit_code: int | None,
) -> Check:
    keys = [request.key for request in receiver.requests if request.method == "POST"]
    kept = exit_code == 0 and len(keys) == 2 and keys[0] == keys[1] and keys[0] is not None
    text = (
        f"1 retry by hand: {len(keys)} requests with {len(set(keys))} Idempotency-Key "
        f"made {receiver.orders} order"
    )
    return Check(kept and receiver.orders == 1, text)


def _webhooks(
    placed: Mapping[int, story.Call], tasks: Mapping[int, Task], receiver: Receiver
) -> Iterable[Check]:
    hooks = [t for t in tasks.values() if t["kind"] == "webhook" and t["parent_id"] in placed]
    made = Counter(str(task["webhook"]) for task in hooks)
    wrong = [
        f"{name}: {made[name]} instead of {story.HOOKS.get(name, 0)}"
        for name in sorted({*made, *story.HOOKS})
        if made[name] != story.HOOKS.get(name, 0)
    ]
    accepted = {one.id for one in receiver.deliveries if one.status < 300}
    refused = sum(1 for one in receiver.deliveries if one.status >= 300)
    done = sum(1 for task in hooks if task["status"] == "succeeded")
    text = f"{done} webhooks delivered, {refused} of them at the second try"
    yield Check(
        not wrong and done == len(hooks) == len(accepted) and refused == 1, _but(text, wrong)
    )
    verified = sum(1 for one in receiver.deliveries if one.verified)
    text = f"{verified} of {len(receiver.deliveries)} signatures verified"
    yield Check(verified == len(receiver.deliveries) > 0, text)


def _lost(placed: Mapping[int, story.Call], tasks: Mapping[int, Task]) -> Check:
    lost = [f"#{id_}" for id_ in placed if id_ not in tasks]
    unfinished = [
        f"#{id_}"
        for id_, task in tasks.items()
        if task["status"] in ("pending", "running") and task["endpoint"] != "shop/getStock"
    ]
    return Check(not lost and not unfinished, _but("nothing lost", lost + unfinished))


def _but(text: str, wrong: list[str]) -> str:
    return f"{text}, but: {', '.join(wrong)}" if wrong else text


def show(screen: Screen, tasks: Mapping[int, Task], done: Iterable[Check]) -> None:
    """The table of the calls, and every promise."""
    screen.line()
    screen.line((f"  {'call':<7}{'endpoint':<22}{'attempts':<10}how it ended", "bold"))
    for task in sorted(tasks.values(), key=lambda task: int(task["id"])):
        if task["kind"] != "call":
            continue
        colour = "green" if task["status"] == "succeeded" else "red"
        ended = task["status"] + (f", {task['reason']}" if task["reason"] else "")
        screen.line(
            f"  {'#' + str(task['id']):<7}{task['endpoint']:<22}{task['attempts']:<10}",
            (ended, colour),
        )
    screen.line()
    for check in done:
        mark = ("  ok    ", "green") if check.kept else ("  FAILED", "red")
        screen.line(mark, f"  {check.text}")
