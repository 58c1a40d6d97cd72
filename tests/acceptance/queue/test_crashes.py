"""kill -9: what was under way, what was only claimed, and what kills the daemon itself.

Random moments under load are in `campaign`; here each moment is chosen.
"""

from __future__ import annotations

import resource
import time
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import retry
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

GATE = """
import asyncio, pathlib
from orchestratord import hookimpl

OPEN = pathlib.Path(__file__).with_name("open")

@hookimpl
async def before_request(request, task):
    while task.params.get("n", 0) > 0 and not OPEN.exists():
        await asyncio.sleep(0.02)
"""

KILLER = """
import os
from orchestratord import hookimpl

@hookimpl
def before_request(request, task):
    if task.kind == "call" and task.params.get("n") == "deadly":
        os._exit(9)
"""

GIVEN_BACK = """
SELECT count(*) AS n FROM retry_schedule WHERE claims > 1 AND deaths = 0 AND attempts = 1
"""

NUMBERED = {"params": {"n": {}}, "query": {"n": "{{ params.n }}"}}


def test_only_the_post_that_was_under_way_is_ambiguous(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.hold("/orders")
    receiver.hold("/reads")
    receiver.reply("/hook", lambda request: Answer(204))
    daemon = make_daemon(plugins={"dirs": ["plugins"], "timeout": "60s"})
    daemon.plugin("gate", GATE)
    dead = {"name": "dead", "phase": "on_final_failure", "url": f"{receiver.url}/hook/dead"}
    daemon.api("shop", receiver.url, concurrency=20)
    daemon.endpoint("shop/order", "/orders", method="POST", webhooks=[dead], **NUMBERED)
    daemon.endpoint("shop/read", "/reads", **NUMBERED)
    daemon.start()
    orders = daemon.batch("shop/order", [{"n": number} for number in range(8)])
    read = daemon.call("shop/read", n=0)
    until(lambda: receiver.count("/orders") == 1, "the first order to be under way")
    until(lambda: receiver.count("/reads") == 1, "the read to be under way")
    # Its neighbours are claimed, and a hook keeps them from being sent.
    running = "SELECT count(*) AS n FROM retry_schedule WHERE status = 'running'"
    until(lambda: daemon.rows(running)[0]["n"] == len(orders) + 1, "all to be claimed")
    rows = {row["id"]: row for row in daemon.rows("SELECT * FROM retry_schedule")}
    assert {rows[task_id]["status"] for task_id in orders} == {"running"}
    assert [task_id for task_id in orders if rows[task_id]["started_at"]] == orders[:1]

    daemon.kill()
    (daemon.config / "plugins" / "open").touch()
    receiver.let_go("/orders")
    receiver.let_go("/reads")
    daemon.start()
    daemon.settle()
    first, *others = (daemon.task(task_id) for task_id in orders)
    assert (first["status"], first["reason"]) == ("failed", "ambiguous")
    assert (first["attempts"], first["deaths"]) == (0, 1)
    assert "died" in first["last_error"]
    assert {(task["status"], task["attempts"]) for task in others} == {("succeeded", 1)}
    seen = [item.query["n"] for item in receiver.received("/orders")]
    assert sorted(seen, key=int) == [str(number) for number in range(8)]
    # A person decides, and the webhook calls one.
    assert receiver.count("/hook/dead") == 1
    # What is safe to repeat was repeated by itself.
    task = daemon.task(read)
    assert (task["status"], task["attempts"], task["deaths"]) == ("succeeded", 1, 1)
    assert receiver.count("/reads") == 2

    assert daemon.ctl("retry", str(first["id"]), "--wait").code == 0
    keys = [
        item.headers["idempotency-key"]
        for item in receiver.received("/orders")
        if item.query["n"] == "0"
    ]
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_a_post_without_an_answer_is_ambiguous_and_one_that_was_not_sent_is_not(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    async def hangs_up(request: object, connection: object) -> None:
        raise ConnectionError

    receiver.on("/lost", hangs_up)
    for code in (500, 502, 503, 504):
        receiver.on(f"/{code}", code, 200)
    daemon = make_daemon(defaults={"retry": retry()})
    daemon.api("shop", receiver.url)
    for name in ("lost", "500", "502", "503", "504"):
        daemon.endpoint(f"shop/{name}", f"/{name}", method="POST")
    daemon.endpoint("shop/covered", "/502", method="POST", retry=retry(when=["error", 502]))
    daemon.endpoint("shop/safe", "/504", method="POST", idempotent=True)
    with Receiver() as gone:
        closed = gone.url
    daemon.api("closed", closed, egress={"allow": ["127.0.0.1"]})
    daemon.endpoint("closed/post", "/", method="POST", retry=retry(attempts=3))
    daemon.start()

    def ended(name: str) -> tuple[str, str | None, int]:
        task = daemon.finish(daemon.call(name))
        return task["status"], task["reason"], task["attempts"]

    assert ended("shop/lost") == ("failed", "ambiguous", 1)
    assert ended("shop/500") == ("failed", "ambiguous", 1)
    assert ended("shop/502") == ("failed", "ambiguous", 1)
    assert ended("shop/504") == ("failed", "ambiguous", 1)
    assert ended("shop/503") == ("succeeded", None, 2)
    assert ended("closed/post") == ("failed", "exhausted", 3)
    receiver.on("/502", 502, 200)
    assert ended("shop/covered") == ("succeeded", None, 2)
    receiver.on("/504", 504, 200)
    assert ended("shop/safe") == ("succeeded", None, 2)


def test_what_kills_the_daemon_three_times_is_poisoned_and_its_neighbours_are_not(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.reply("/get", lambda request: Answer(200, delay=0.6))
    receiver.reply("/hook", lambda request: Answer(204))
    dead = {"name": "dead", "phase": "on_final_failure", "url": f"{receiver.url}/hook"}
    daemon = make_daemon(plugins={"dirs": ["plugins"]})
    daemon.plugin("killer", KILLER)
    daemon.api("shop", receiver.url, concurrency=20)
    daemon.endpoint("shop/get", "/get", webhooks=[dead], **NUMBERED)
    daemon.start()
    neighbours = daemon.batch("shop/get", [{"n": number} for number in range(4)])
    until(lambda: receiver.count("/get") == 4, "the neighbours to be under way")
    # A moment later, so that its acceptance is answered before it strikes.
    deadly = daemon.call("shop/get", "100ms", n="deadly")
    deaths = 0
    while True:
        deaths += 1
        assert deaths <= 3
        assert daemon.wait() == 9
        daemon.launch()
        if deaths == 3:
            break
    daemon.wait_ready()
    daemon.settle()
    task = daemon.task(deadly)
    assert (task["status"], task["reason"]) == ("failed", "poisoned")
    assert {daemon.task(task_id)["status"] for task_id in neighbours} == {"succeeded"}
    assert (task["attempts"], task["deaths"]) == (0, 3)
    assert receiver.count("/hook") == 1
    assert daemon.finish(daemon.call("shop/get", n="harmless"))["status"] == "succeeded"


SLOW_KILLER = """
import asyncio, os
from orchestratord import hookimpl

@hookimpl
async def before_request(request, task):
    if task.params.get("n") == "deadly":
        await asyncio.sleep(2.5)
        os._exit(9)
"""


def test_what_kills_the_daemon_late_is_poisoned_and_its_neighbours_are_not(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    """They are under way each time that it strikes, but for once: then it runs alone."""
    receiver.reply("/get", lambda request: Answer(200, delay=3))
    daemon = make_daemon(plugins={"dirs": ["plugins"]})
    daemon.plugin("killer", SLOW_KILLER)
    daemon.api("shop", receiver.url, concurrency=20)
    daemon.endpoint("shop/get", "/get", **NUMBERED)
    daemon.start()
    ids = daemon.batch("shop/get", [{"n": n} for n in (0, 1, "deadly", 2)])
    for _ in range(3):
        assert daemon.wait() == 9
        daemon.launch()
    daemon.wait_ready()
    daemon.settle()
    ended = [daemon.task(task_id) for task_id in ids]
    deadly = ended.pop(2)
    assert (deadly["reason"], deadly["deaths"]) == ("poisoned", 3)
    assert {(task["status"], task["attempts"]) for task in ended} == {("succeeded", 1)}
    assert {task["deaths"] for task in ended} <= {1, 2}


def test_an_innocent_one_that_runs_alone_is_not_taken_for_a_killer_that_is_new(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    """It died twice with the daemon, and other calls wait for it; but not for long."""
    receiver.hold("/slow")
    receiver.reply("/get", lambda request: Answer(200))
    daemon = make_daemon(plugins={"dirs": ["plugins"]})
    daemon.plugin("killer", KILLER)
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/slow", "/slow", timeout="120s")
    daemon.endpoint("shop/get", "/get", **NUMBERED)
    daemon.start()
    innocent = daemon.call("shop/slow")
    for count in (1, 2):
        until(lambda count=count: receiver.count("/slow") == count, "it to be under way")
        daemon.kill()
        daemon.start()
    until(lambda: receiver.count("/slow") == 3, "it to run alone")
    daemon.logged(f"task {innocent} runs alone")
    other = daemon.call("shop/get", n=1)
    time.sleep(1)
    assert receiver.count("/get") == 0
    assert daemon.finish(other, 15)["status"] == "succeeded"
    deadly = daemon.call("shop/get", "100ms", n="deadly")
    assert daemon.wait() == 9
    receiver.let_go("/slow")
    for _ in range(2):
        daemon.launch()
        assert daemon.wait() == 9
    daemon.start()
    task = daemon.finish(deadly)
    assert (task["reason"], task["deaths"]) == ("poisoned", 3)
    task = daemon.finish(innocent)
    assert (task["status"], task["deaths"]) == ("succeeded", 3)


def test_what_was_under_way_goes_on_side_by_side_after_a_death(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.hold("/get")
    daemon = make_daemon()
    daemon.api("shop", receiver.url, concurrency=40)
    daemon.endpoint("shop/get", "/get", timeout="60s", **NUMBERED)
    daemon.start()
    ids = daemon.batch("shop/get", [{"n": n} for n in range(40)])
    until(lambda: receiver.count("/get") == 40, "all to be under way")
    daemon.kill()
    daemon.start()
    # None of them has ended.
    until(lambda: receiver.count("/get") == 80, "all to be under way again", 15)
    daemon.kill()
    daemon.start()
    # A part of them now: what kills it would come in ever smaller batches.
    until(lambda: receiver.count("/get") >= 90, "some of them to be under way again", 15)
    assert receiver.count("/get") <= 100
    assert {task["deaths"] for task in daemon.tasks()} == {2}
    receiver.let_go("/get")
    daemon.settle()
    assert {daemon.task(task_id)["status"] for task_id in ids} == {"succeeded"}


def test_deaths_use_up_no_attempt(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.reply("/get", lambda request: Answer(200, delay=0.05))
    daemon = make_daemon()
    daemon.api("shop", receiver.url, concurrency=20)
    daemon.endpoint("shop/get", "/get", retry=retry(attempts=1), **NUMBERED)
    daemon.start()
    ids = daemon.batch("shop/get", [{"n": n} for n in range(300)])
    for kill in range(1, 4):
        until(lambda kill=kill: receiver.count("/get") >= 60 * kill, "some to be under way")
        daemon.kill()
        daemon.start()
    daemon.settle()
    ended = [daemon.task(task_id) for task_id in ids]
    assert {(task["status"], task["attempts"]) for task in ended} == {("succeeded", 1)}
    died = [task for task in ended if task["deaths"]]
    assert died
    # Their attempts are told of all the same.
    assert all(len(task["attempt_log"]) == 1 + task["deaths"] for task in died)


NEED_DESCRIPTORS: list[tuple[str, str, Any]] = [
    ("GET", "/v1/endpoints/shop/get/webhooks", None),
    ("POST", "/v1/reload", None),
    ("GET", "/", None),
]


def test_what_cannot_be_answered_for_want_of_descriptors(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.api("shop", "http://127.0.0.1:9")
    daemon.endpoint("shop/get", "/get")
    daemon.expect("Too many open files", "configuration is refused", "reloading failed", " failed")
    daemon.start()
    transport = httpx.HTTPTransport(uds=str(daemon.socket))
    with httpx.Client(transport=transport, base_url="http://d", timeout=30) as client:
        assert client.get("/healthz").status_code == 200  # it has a connection
        _, hard = before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, hard))
        try:
            for method, path, body in NEED_DESCRIPTORS:
                answer = client.request(method, path, json=body)
                assert (answer.status_code, answer.json()["code"]) == (503, "shortage"), path
                assert answer.headers["retry-after"] == "1"
                assert "no file descriptor" in answer.json()["detail"]
            made = client.post("/v1/endpoints/shop/get/calls", json={"delay": "1h"})
            assert made.status_code == 202
        finally:
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)
        for method, path, body in NEED_DESCRIPTORS:
            assert client.request(method, path, json=body).status_code < 300


def test_what_cannot_be_sent_for_want_of_descriptors_costs_no_attempt(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.reply("/get", lambda request: Answer(200, delay=0.2))
    daemon = make_daemon()
    daemon.wrapper = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh"]
    daemon.expect(
        "Too many open files", "lacks what it takes to send", "configuration is refused",
        "reloading failed",  # what it reads of the queue needs a descriptor as well
    )  # fmt: skip
    daemon.api("shop", receiver.url, concurrency=100)
    daemon.endpoint("shop/get", "/get", retry=retry(attempts=1), **NUMBERED)
    daemon.endpoint("shop/post", "/get", method="POST", retry=retry(attempts=1), **NUMBERED)
    daemon.start()
    for name in ("get", "post"):
        daemon.batch(f"shop/{name}", [{"n": n} for n in range(150)])
    daemon.logged("lacks what it takes to send.*Too many open files")
    # Asked of the file: to answer, the daemon would need a descriptor itself.
    waiting = "SELECT 1 FROM retry_schedule WHERE status IN ('pending', 'running')"
    until(lambda: not daemon.rows(waiting), "the end of all calls", 90)
    ended = daemon.tasks()
    assert {(task["status"], task["attempts"]) for task in ended} == {("succeeded", 1)}
    assert receiver.count("/get") == 300
    assert any(row["n"] for row in daemon.rows(GIVEN_BACK))


@pytest.mark.parametrize("shared", [False, True], ids=["sqlite", "postgresql"])
def test_kills_from_outside_poison_no_delivery(
    make_daemon: MakeDaemon, receiver: Receiver, postgres: Postgres, shared: bool
) -> None:
    """Four of them: twice among many, then while it alone waits for its receiver."""
    more = {"database": postgres.create(), "lease": "10s"} if shared else {}
    daemon = make_daemon(**more)
    daemon.expect("a password is written out")
    receiver.hold("/hook")
    receiver.reply("/get", lambda request: Answer(200))
    hook = {"name": "ops", "phase": "after_request", "url": f"{receiver.url}/hook"}
    daemon.api("shop", receiver.url, concurrency=50)
    daemon.endpoint("shop/get", "/get", webhooks=[hook | {"timeout": "60s"}])
    daemon.start()
    call = daemon.call("shop/get")
    for kills in range(1, 5):
        until(lambda kills=kills: receiver.count("/hook") == kills, "it to be under way")  # type: ignore[misc]
        if kills > 2:
            (delivery,) = daemon.deliveries(call)
            assert delivery["deaths"] == kills - 1
            daemon.logged(f"task {delivery['id']} runs alone")
            time.sleep(0.3)  # and it waits
        daemon.kill()
        daemon.start()
    receiver.let_go("/hook")
    (delivery,) = daemon.deliveries(call)
    ended = daemon.finish(delivery["id"])
    assert (ended["status"], ended["deaths"]) == ("succeeded", 4)
