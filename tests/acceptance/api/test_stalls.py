"""One answer, one call, one client keeps no other from being answered."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.acceptance.api.test_tcp import BEARER, HTTP, SECRETS, over_tcp, port_of
from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Receiver

pytestmark = pytest.mark.slow

ITEMS = json.dumps({"items": [{"id": number, "status": "ok"} for number in range(32_000)]})
"""A megabyte of small items, which takes a second to look into."""
CALLS = 8
FAILED = "length({}items[?status=='failed']) == `{}`"
LOOKED_INTO = {
    "success_if": {"success_if": FAILED.format("", 0)},
    "then": {"then": [{"call": "shop/other", "when": FAILED.format("body.", 1)}]},
}
IN_TIME = 2.0
"""Seconds for an answer; done on the loop, the calls keep it for several times as long."""
SILENT = 300
"""More connections than there are places."""
CALLERS = 300
"""More of them than there are places, all at once."""
CROWD = 3_000
"""Connections to the control socket that ask for nothing, or wait."""
BESIDE_CROWD = 6.0
"""Seconds for a probe and a command beside them: a second, on a machine of its own."""
BURST = 200
"""Connections of ordinary clients, which find room at once."""
LARGE = 250_000
"""Characters of a parameter that is just taken."""


def slowest(daemon: Daemon, endpoint: str) -> tuple[float, list[int]]:
    """The longest that a call, a list and /healthz took together, again and again until all tasks
    of an endpoint have ended; and the ids of these calls."""
    worst, made = 0.0, []
    while True:
        began = time.monotonic()
        made.append(daemon.call("other/get"))
        assert daemon.get("/healthz").status_code == 200
        left = daemon.get("/v1/retries", status="pending,running", endpoint=endpoint, limit=1)
        worst = max(worst, time.monotonic() - began)
        if not left.json()["retries"]:
            return worst, made
        time.sleep(0.02)


@pytest.mark.parametrize("keys", LOOKED_INTO.values(), ids=LOOKED_INTO)
def test_large_answers_are_looked_into_beside_all_else(
    make_daemon: MakeDaemon, receiver: Receiver, keys: dict[str, Any]
) -> None:
    receiver.on("/items", Answer(200, ITEMS))
    receiver.on("/other", 200)
    daemon = make_daemon()
    daemon.api("shop", receiver.url, concurrency=100, max_response="2MiB")
    # An answer that waits until others were looked into has not timed out.
    daemon.endpoint("shop/items", "/items", timeout="3s", retry=retry(attempts=1), **keys)
    daemon.api("other", receiver.url)
    daemon.endpoint("shop/other", "/other")
    daemon.endpoint("other/get", "/other")
    daemon.start()
    began = time.monotonic()
    ids = daemon.batch("shop/items", [{}] * CALLS)
    worst, others = slowest(daemon, "shop/items")
    # On a machine that others load, all of it takes longer.
    assert worst < max(IN_TIME, (time.monotonic() - began) / 3)
    found = [daemon.task(task_id) for task_id in ids]
    assert {task["status"] for task in found} == {"succeeded"}
    first = daemon.finish(others[0])
    assert first["finished_at"] < max(task["finished_at"] for task in found)


def test_large_parameters_are_refused_and_cut_in_lists(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/get", 200, Answer(200, json.dumps({"all": ["x"] * 100_000})))
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    taken = {"params": {"text": {"type": "string"}, "all": {"type": "array"}}}
    daemon.endpoint("shop/get", "/get", retry=retry(attempts=1), **taken)
    follows = {"call": "shop/get", "params": {"all": "body.all"}}
    daemon.endpoint("shop/list", "/get", retry=retry(attempts=1), then=[follows])
    daemon.start()

    made = daemon.call("shop/get", text="a" * LARGE)
    assert daemon.finish(made)["params"]["text"] == "a" * LARGE
    [listed] = daemon.tasks()
    assert listed["truncated"]
    assert len(listed["params"]["text"]) < 3_000
    assert not daemon.task(made)["truncated"]

    calls = "/v1/endpoints/shop/get/calls"
    too_much = {"text": "a" * (LARGE + 20_000)}
    for body, key in (
        ({"params": too_much}, "params"),
        ({"batch": [{}, too_much]}, "batch.1.params"),
    ):
        answer = daemon.post(calls, body)
        assert answer.status_code == 422
        [error] = answer.json()["errors"]
        assert error["key"] == key
        assert "than the 262144 bytes that max_params" in error["message"]
    failed = daemon.finish(daemon.call("shop/list"))
    assert failed["status"] == "failed"
    assert "than the 262144 bytes that max_params" in failed["last_error"]
    assert len(daemon.tasks()) == 2


def test_templates_over_large_parameters_hold_up_no_other_call(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/get", 200)
    receiver.on("/hook", 200)
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    one_by_one = "{{ params.all | map('upper') | list }}"
    all_for_each = "{{ params.all | select('in', params.all) | list | length }}"
    params: dict[str, Any] = {"params": {"all": {"type": "array"}}, "method": "POST"}
    hook: dict[str, Any] = {"name": "told", "phase": "after_request", "url": f"{receiver.url}/hook"}
    hook["payload"] = {"n": all_for_each}
    daemon.endpoint(
        "shop/each", "/get", body={"json": one_by_one}, webhooks=[hook], timeout="30s", **params
    )
    daemon.endpoint("shop/all", "/get", body={"json": all_for_each}, **params)
    daemon.api("other", receiver.url)
    daemon.endpoint("other/get", "/get")
    daemon.start()
    given = {"all": [f"{number:x}" for number in range(30_000)]}
    [refused] = daemon.batch("shop/all", [given])
    each = daemon.batch("shop/each", [given] * 3)
    assert slowest(daemon, "shop/each")[0] < IN_TIME
    failed = daemon.finish(refused)
    assert (failed["status"], failed["reason"]) == ("failed", "invalid_payload")
    assert "it costs too much over data of this size" in failed["last_error"]
    assert {daemon.finish(made)["status"] for made in each} == {"succeeded"}
    few = daemon.call("shop/all", all=["a", "b"])
    assert daemon.finish(few)["status"] == "succeeded"


def silent(stack: ExitStack, daemon: Daemon) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", port_of(daemon)), 5))


def test_silent_connections_close_the_door_to_no_other(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(environ=SECRETS, http=HTTP)
    daemon.start()
    with ExitStack() as stack:
        for _ in range(SILENT):
            silent(stack, daemon)
        began = time.monotonic()
        assert over_tcp(daemon, "GET", "/healthz").status_code == 200
        assert over_tcp(daemon, "GET", "/v1/status", headers=BEARER).status_code == 200
        # They would be hung up on after ten seconds.
        assert time.monotonic() - began < 9
    assert asyncio.run(burst(f"http://127.0.0.1:{port_of(daemon)}")) == {200: BURST}


async def burst(url: str) -> Counter[int]:
    """How requests are answered that come at once, each on a connection of its own."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=url, headers=BEARER, limits=limits, timeout=30, trust_env=False, verify=False
    ) as client:
        answers = await asyncio.gather(*(client.get("/v1/status") for _ in range(BURST)))
    return Counter(answer.status_code for answer in answers)


def test_waiting_requests_leave_room(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.on("/get", 200)
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/get")
    daemon.start()
    made = daemon.call("shop/get", "1h")
    with ExitStack() as stack:
        for _ in range(SILENT):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(daemon.socket))
            sock.sendall(f"GET /v1/retries/{made}?wait=30 HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        began = time.monotonic()
        assert daemon.ctl("status").code == 0
        transport = httpx.HTTPTransport(uds=str(daemon.socket), verify=False)
        with httpx.Client(transport=transport, base_url="http://d", timeout=5) as client:
            assert client.get(f"/v1/retries/{made}?wait=10").json()["status"] == "pending"
        assert time.monotonic() - began < 25


@pytest.mark.parametrize("asked", ["half", "wait"])
def test_a_crowd_at_the_control_socket_leaves_room(make_daemon: MakeDaemon, asked: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * CROWD + 200:
        pytest.skip("this machine lets too few files be open")
    daemon = make_daemon()
    daemon.api("shop", "http://127.0.0.1:9")
    daemon.endpoint("shop/get", "/get")
    daemon.start()
    made = daemon.call("shop/get", "1h")
    waits = f"GET /v1/retries/{made}?wait=30 HTTP/1.1\r\nHost: d\r\n\r\n".encode()
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with ExitStack() as stack:
            for _ in range(CROWD):
                sock = stack.enter_context(socket.socket(socket.AF_UNIX))
                sock.connect(str(daemon.socket))
                sock.sendall(waits if asked == "wait" else b"G")
            for _ in range(3):
                began = time.monotonic()
                assert daemon.get("/readyz").status_code == 200
                assert daemon.ctl("status").code == 0
                assert time.monotonic() - began < BESIDE_CROWD
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_callers_at_once_lose_no_request(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.api("shop", "http://127.0.0.1:9")
    daemon.endpoint("shop/get", "/get", retry=retry(attempts=1))
    daemon.start()
    body = json.dumps({"params": {}, "delay": "1h"})
    request = (
        "POST /v1/endpoints/shop/get/calls HTTP/1.1\r\nHost: d\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )
    with ExitStack() as stack:
        callers = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(CALLERS)]
        # As many as there are places are accepted before the first of them asks.
        for caller in callers:
            caller.settimeout(30)
            caller.connect(str(daemon.socket))
        time.sleep(0.2)
        for caller in callers:
            caller.sendall(request.encode())
        answers = [caller.recv(12) for caller in callers]
    assert answers == [b"HTTP/1.1 202"] * CALLERS
    assert daemon.get("/v1/retries", limit=1000).json()["retries"][CALLERS - 1 :]
