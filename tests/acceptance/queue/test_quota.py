"""An API that says in its headers how much may still be asked of it."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Received, Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
QUOTA = {"remaining": "X-RateLimit-Remaining", "reset": "X-RateLimit-Reset"}


def left(remaining: int, reset: float | str, status: int = 200) -> Answer:
    return Answer(
        status,
        headers={"X-RateLimit-Remaining": str(remaining), "X-RateLimit-Reset": str(reset)},
    )


def declare(make_daemon: MakeDaemon, receiver: Receiver, attempts: int = 3, **api: Any) -> Daemon:
    daemon = make_daemon(defaults={"retry": retry(attempts=attempts)})
    daemon.api("shop", receiver.url, **{"quota": QUOTA, **api})
    daemon.endpoint("shop/get", "/get")
    daemon.endpoint("shop/other", "/other")
    daemon.endpoint("shop/post", "/post", method="POST", body={"json": {"a": 1}})
    return daemon


def waiting(daemon: Daemon) -> dict[str, Any]:
    """The scope that waits for its receiver."""

    def look() -> Any:
        status = daemon.status()
        scopes = [*status["lanes"], *status["throttled"]]
        return next((one for one in scopes if one.get("retry_after")), None)

    found: dict[str, Any] = until(look, "a scope that waits")
    return found


def test_what_has_nothing_left_waits(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = declare(make_daemon, receiver)
    receiver.on("/get", left(0, 3), 200)
    receiver.on("/other", 200)
    daemon.start()
    first = daemon.call("shop/get")
    daemon.finish(first)
    second, other = daemon.call("shop/other"), daemon.call("shop/get")
    scope = waiting(daemon)
    assert scope["name"] == "api:shop"
    assert scope["retry_after"]["why"] == "200 with nothing left of its quota"
    shown = daemon.task(second)
    assert "was told to wait: 200 with nothing left" in str(shown["waits"])
    daemon.settle()
    assert {daemon.task(id_)["attempts"] for id_ in (second, other)} == {1}
    times = [one.at for one in receiver.received()]
    assert times[1] - times[0] > 2.9


def test_a_refusal_for_that_costs_no_attempt(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = declare(make_daemon, receiver, attempts=1)
    refused: list[Received] = []

    def answer(request: Received) -> Answer:
        refused.append(request)
        if len(refused) > 4:
            return left(50, 100)
        # A time, in whole seconds, or so many of them.
        reset: float = int(time.time()) + 2 if len(refused) % 2 else 0.3
        return left(0, reset, 403 if len(refused) < 3 else 429)

    receiver.reply("/post", answer)
    daemon.start()
    id_ = daemon.call("shop/post")
    daemon.settle()
    task = daemon.task(id_)
    assert (task["status"], task["attempts"], len(refused)) == ("succeeded", 1, 5)
    whys = [one["why"] for one in task["attempt_log"]]
    assert (
        whys[:4]
        == ["nothing is left of the quota: costs no attempt, and is tried again when there is more"]
        * 4
    )


def test_ten_in_a_row_cost_nothing_and_the_next_counts(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = declare(make_daemon, receiver, attempts=1)
    receiver.reply("/get", lambda request: left(0, 0.15, 429))
    daemon.start()
    id_ = daemon.call("shop/get")
    until(lambda: receiver.count("/get") >= 5, "some refusals")
    daemon.restart()
    daemon.settle()
    task = daemon.task(id_)
    assert (task["status"], task["reason"], task["attempts"]) == ("failed", "exhausted", 1)
    assert receiver.count("/get") == 11


@pytest.mark.parametrize(
    ("reset", "quota", "api"),
    [
        ("1000000001", QUOTA, {}),  # past
        ("0", QUOTA, {}),
        ("soon", QUOTA, {}),
        ("30", None, {}),  # not written
        ("30", {}, {}),
    ],
)
def test_without_a_time_to_come_it_is_a_failure_like_others(
    make_daemon: MakeDaemon,
    receiver: Receiver,
    reset: str,
    quota: dict[str, str] | None,
    api: dict[str, Any],
) -> None:
    daemon = declare(make_daemon, receiver, quota=quota)
    receiver.on("/get", left(0, reset, 403))
    daemon.start()
    id_ = daemon.call("shop/get")
    daemon.settle()
    task = daemon.task(id_)
    assert (task["status"], task["reason"], task["attempts"]) == ("failed", "not_retryable", 1)


def test_fields_of_the_ietf_and_one_endpoint(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    keys = {"max_retry_after": "1s"}
    daemon = declare(make_daemon, receiver, quota={}, retry_after_scope="endpoint", retry=keys)
    said = Answer(429, headers={"RateLimit": '"hour";r=0;t=3000'})
    receiver.on("/get", said, 200)
    receiver.on("/other", 200)
    daemon.start()
    id_ = daemon.call("shop/get")
    assert waiting(daemon)["name"] == "shop/get"
    other = daemon.call("shop/other")
    daemon.settle()
    task = daemon.task(id_)
    assert (task["status"], task["attempts"]) == ("succeeded", 1)
    paths = [one.path for one in receiver.received()]
    assert paths == ["/get", "/other", "/get"]  # at most `max_retry_after`
    assert daemon.task(other)["status"] == "succeeded"


NGINX = """
daemon off; pid nginx.pid; error_log stderr; events {}
http {
    access_log off; client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t;
    uwsgi_temp_path t; scgi_temp_path t;
    %s
}
"""


def test_nginx_as_the_page_has_it(
    make_daemon: MakeDaemon, program: Callable[[str], str], tmp_path: Path
) -> None:
    page = (ROOT / "docs/how-to/partner-quotas.md").read_text()
    server = page[page.index("    limit_req_zone") : page.index("Five calls at once")]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    text = NGINX % server.replace("127.0.0.1:8099", address)
    (tmp_path / "nginx.conf").write_text(text)
    nginx = subprocess.Popen(
        [program("nginx"), "-p", str(tmp_path), "-c", "nginx.conf", "-e", "stderr"],
        stderr=subprocess.DEVNULL,
    )
    try:
        allowed = {"allow": [address]}
        daemon = make_daemon(defaults={"retry": retry(attempts=1)}, egress=allowed)
        daemon.api("partner", f"http://{address}", quota=QUOTA)
        daemon.endpoint("partner/get", "/")
        daemon.start()
        until(lambda: socket.create_connection(tuple_of(address)).close() is None, "nginx")
        ids = daemon.batch("partner/get", [{}] * 5)
        daemon.settle()
    finally:
        nginx.terminate()
        nginx.wait(10)
    tasks = [daemon.task(id_) for id_ in ids]
    assert {(task["status"], task["attempts"]) for task in tasks} == {("succeeded", 1)}
    whys = [one["why"] for task in tasks for one in task["attempt_log"]]
    assert any(why.startswith("nothing is left of the quota") for why in whys)
    assert sum(why == "succeeded" for why in whys) == 5


def tuple_of(address: str) -> tuple[str, int]:
    host, _, port = address.partition(":")
    return host, int(port)
