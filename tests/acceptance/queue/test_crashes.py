"""kill -9: what was under way, what was only claimed, and what kills the daemon itself.

Random moments under load are in `campaign`; here each moment is chosen.
"""

from __future__ import annotations

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import retry
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until

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
    orders = daemon.batch("shop/order", [{"n": number} for number in range(15)])
    read = daemon.call("shop/read", n=0)
    until(lambda: receiver.count("/orders") == 1, "the first order to be under way")
    until(lambda: receiver.count("/reads") == 1, "the read to be under way")
    rows = {row["id"]: row for row in daemon.rows("SELECT * FROM retry_schedule")}
    # Its neighbours are claimed, and a hook keeps them from being sent.
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
    assert first["attempts"] == 1
    assert "died" in first["last_error"]
    assert {(task["status"], task["attempts"]) for task in others} == {("succeeded", 1)}
    seen = [item.query["n"] for item in receiver.received("/orders")]
    assert sorted(seen, key=int) == [str(number) for number in range(15)]
    # A person decides, and the webhook calls one.
    assert receiver.count("/hook/dead") == 1
    # What is safe to repeat was repeated by itself.
    task = daemon.task(read)
    assert (task["status"], task["attempts"]) == ("succeeded", 2)
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
    assert receiver.count("/hook") == 1
    assert daemon.finish(daemon.call("shop/get", n="harmless"))["status"] == "succeeded"
