"""The parts of the demo: its receiver, its screen, and how it counts at the end."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from orchestratord_demo import story
from orchestratord_demo.player import DemoScreen, place
from orchestratord_demo.receiver import (
    DemoReceiver,
    PlannedAnswer,
    ReceivedDelivery,
    ReceivedRequest,
    verify,
)
from standardwebhooks import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def receiver() -> Iterator[DemoReceiver]:
    answers = {
        ("GET", "/a"): [
            PlannedAnswer(503),
            PlannedAnswer(429, None, {"Retry-After": "3"}),
            PlannedAnswer(200, {"a": 1}),
        ],
        ("POST", "/orders"): [PlannedAnswer(201, stall=0.3), PlannedAnswer(201)],
        ("POST", "/hooks/x"): [PlannedAnswer(503), PlannedAnswer(204)],
    }
    receiver = DemoReceiver(answers, {"/hooks/x": SECRET})
    yield receiver
    receiver.close()


def test_answers_follow_the_plan(receiver: DemoReceiver) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{receiver.port}") as client:
        found = [client.get("/a?q=1") for _ in range(4)]
        assert client.get("/elsewhere").status_code == 200
    assert [answer.status_code for answer in found] == [503, 429, 200, 200]
    assert found[1].headers["retry-after"] == "3"
    assert found[3].json() == {"a": 1}
    assert receiver.requests[0] == ReceivedRequest("GET", "/a?q=1", None, 503)


def test_an_order_exists_though_its_answer_came_too_late(receiver: DemoReceiver) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{receiver.port}") as client:
        headers = {"Idempotency-Key": "k1"}
        with pytest.raises(httpx.ReadTimeout):
            client.post("/orders", headers=headers, timeout=0.1)
        again = client.post("/orders", headers=headers)
        assert again.json() == {"order": 5001, "existed": True}
        assert client.post("/orders", headers={"Idempotency-Key": "k2"}).status_code == 201
    assert receiver.orders == 2
    assert [request.key for request in receiver.requests] == ["k1", "k1", "k2"]


def test_deliveries_are_verified(receiver: DemoReceiver) -> None:
    body = '{"test": 2432232314}'
    good = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(time.time())),
        "webhook-signature": Webhook(SECRET).sign("msg_1", datetime.now(UTC), body),
    }
    bad = {**good, "webhook-id": "msg_2"}
    with httpx.Client(base_url=f"http://127.0.0.1:{receiver.port}") as client:
        codes = [
            client.post("/hooks/x", content=body, headers=headers).status_code
            for headers in (good, good, bad, {})
        ]
    assert codes == [503, 204, 204, 204]
    assert [one.verified for one in receiver.deliveries] == [True, True, False, False]


def test_verify_takes_one_of_several_signatures_and_no_old_ones() -> None:
    now = datetime.now(UTC)
    signature = Webhook(SECRET).sign("msg_1", now, "x")
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": f"v1,{base64.b64encode(b'other').decode()} {signature}",
    }
    assert verify(SECRET, headers, b"x")
    assert verify(SECRET.removeprefix("whsec_"), headers, b"x")
    assert not verify(SECRET, headers, b"y")
    assert not verify("whsec_????", headers, b"x")
    assert not verify(SECRET, {**headers, "webhook-timestamp": "soon"}, b"x")
    old = {**headers, "webhook-timestamp": "1614265330"}
    old["webhook-signature"] = Webhook(SECRET).sign(
        "msg_1", datetime.fromtimestamp(1614265330, UTC), "x"
    )
    assert not verify(SECRET, old, b"x")


def test_moody_fails_now_and_then_and_always_in_the_same_way() -> None:
    def codes() -> list[int]:
        receiver = DemoReceiver({}, {})
        receiver.moody = True
        try:
            return [receiver.answer("GET", "/x", {}, b"").status for _ in range(30)]
        finally:
            receiver.close()

    first = codes()
    assert set(first) == {200, 503}
    assert codes() == first


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_folder_is_short_enough_for_a_socket() -> None:
    assert place("/var/tmp") == "/var/tmp"
    assert place("/" + "x" * 80) == "/tmp"


def screen_on(stream: io.StringIO, environ: dict[str, str]) -> DemoScreen:
    with patch("sys.stdout", stream), patch.dict("os.environ", environ, clear=True):
        return DemoScreen()


def test_plain_lines_without_a_terminal() -> None:
    stream = io.StringIO()
    screen = screen_on(stream, {})
    screen.footer("waiting")
    screen.line(("red", "red"), " and \x1b[31m\n")
    assert stream.getvalue() == "red and \\u001b[31m\\n\n"


@pytest.mark.parametrize(
    ("environ", "coloured", "live"),
    [({}, True, True), ({"NO_COLOR": "1"}, False, True), ({"TERM": "dumb"}, False, False)],
)
def test_a_terminal(environ: dict[str, str], coloured: bool, live: bool) -> None:
    stream = Terminal()
    screen = screen_on(stream, environ)
    screen.footer("waiting for x")
    screen.line(("done", "green"))
    screen.footer("")
    text = stream.getvalue()
    assert ("\x1b[32mdone\x1b[0m" in text) is coloured
    assert ("waiting for x" in text) is live
    assert text.endswith("\r\x1b[2K") is live


def tasks_of_a_good_run() -> tuple[dict[int, story.StoryCall], dict[int, dict[str, Any]]]:
    placed = {}
    tasks: dict[int, dict[str, Any]] = {}
    for number, call in enumerate(story.CALLS, 1):
        status, attempts, reason = call.status, call.attempts, call.reason
        if call.endpoint == story.RETRIED:
            status, attempts, reason = "succeeded", attempts + 1, None
        placed[number] = call
        tasks[number] = {
            "id": number,
            "kind": "call",
            "endpoint": call.endpoint,
            "status": status,
            "attempts": attempts,
            "reason": reason,
        }
    for name, count in story.HOOKS.items():
        for _ in range(count):
            number = len(tasks) + 1
            tasks[number] = {
                "id": number,
                "kind": "webhook",
                "endpoint": "shop/getOrder",
                "webhook": name,
                "status": "succeeded",
                "attempts": 1,
                "reason": None,
                "parent_id": 1,
            }
    return placed, tasks


class Seen:
    """What a receiver would have seen in a good run."""

    def __init__(
        self, placed: dict[int, story.StoryCall], tasks: dict[int, dict[str, Any]]
    ) -> None:
        count = sum(tasks[number]["attempts"] for number in placed)
        self.requests = [ReceivedRequest("GET", "/x", None, 200)] * (count - 2)
        self.requests += [ReceivedRequest("POST", "/shop/orders", "k", 201)] * 2
        total = sum(story.HOOKS.values())
        self.deliveries = [ReceivedDelivery("/h", str(n), True, "", 204) for n in range(total)]
        self.deliveries.append(ReceivedDelivery("/h", "0", True, "", 503))
        self.orders = 1


def test_a_good_run_keeps_every_promise() -> None:
    placed, tasks = tasks_of_a_good_run()
    seen: Any = Seen(placed, tasks)
    done = story.promises(placed, tasks, seen, 0, story.ROWS)
    assert [check for check in done if not check.kept] == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda placed, tasks, seen: tasks[1].update(status="pending"),
        lambda placed, tasks, seen: tasks.pop(2),
        lambda placed, tasks, seen: seen.requests.pop(0),
        lambda placed, tasks, seen: seen.deliveries.pop(0),
        lambda placed, tasks, seen: tasks[len(tasks)].update(status="failed"),
        lambda placed, tasks, seen: tasks.pop(len(tasks)),
        lambda placed, tasks, seen: setattr(seen, "orders", 2),
        lambda placed, tasks, seen: placed.pop(1),
    ],
)
def test_a_broken_promise_is_seen(spoil: Any) -> None:
    placed, tasks = tasks_of_a_good_run()
    seen: Any = Seen(placed, tasks)
    spoil(placed, tasks, seen)
    assert not all(check.kept for check in story.promises(placed, tasks, seen, 0, story.ROWS))


def test_a_failed_retry_by_hand_and_a_lost_row_are_seen() -> None:
    placed, tasks = tasks_of_a_good_run()
    seen: Any = Seen(placed, tasks)
    assert not all(check.kept for check in story.promises(placed, tasks, seen, 0, story.ROWS - 1))
    assert not all(check.kept for check in story.promises(placed, tasks, seen, 3, story.ROWS))
