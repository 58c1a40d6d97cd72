"""At three in the morning: thousands have failed, and one person retries them.

`NIGHT_TASKS` sets how many; 5,000 of them take two minutes.
"""

from __future__ import annotations

import json
import os
import re
from http import HTTPStatus
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

TASKS = int(os.environ.get("NIGHT_TASKS", "150"))
COLUMN = '{"error": {"message": "no such column: nmae"}}'
WHY = f"422 {HTTPStatus(422).phrase}: no such column: nmae"  # another one on each Python


def test_the_night(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.on("/", Answer(422, COLUMN))
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    hook = {
        "name": "ops", "phase": "on_final_failure", "url": f"{receiver.url}/alerts",
        "batch": {"every": "5m", "max": TASKS},
    }  # fmt: skip
    receiver.on("/alerts", 200)
    daemon.endpoint("shop/put", "/", params={"n": {}}, webhooks=[hook])
    daemon.start()
    daemon.batch("shop/put", [{"n": n} for n in range(TASKS)])
    until(lambda: receiver.count("/alerts") == 1, "one alert for all of them", timeout=120)
    daemon.settle(endpoint="shop/put")
    [alert] = receiver.received("/alerts")
    told = alert.json()["data"]
    assert (told["count"], told["first"][0]["error"]) == (TASKS, WHY)
    receiver.forget()

    # Before it is mended: it is over after some of them.
    words = ("--endpoint", "shop/put", "--rate", "50/s", "--stop-after", "20", "--wait")
    ran = daemon.ctl("retry", "--all", *words, "-o", "json")
    bulk = json.loads(ran.out)
    assert (ran.code, bulk["status"], bulk["succeeded"]) == (1, "paused", 0)
    # A daemon that got no processor makes up for a second of its rate.
    assert 20 <= bulk["failed"] <= bulk["moved"] <= 20 + 2 * 50
    assert receiver.count("/") <= 20 + 2 * 50
    assert f"bulk {bulk['id']} has paused: " in ran.err
    assert f"orchestratorctl bulks {bulk['id']} --resume --wait" in ran.err
    ran = daemon.ctl("list", "--bulk", str(bulk["id"]), "--status", "failed", "-o", "json")
    assert ran.code == 0
    again = json.loads(ran.out)["retries"]
    assert len(again) == daemon.get(f"/v1/bulks/{bulk['id']}").json()["failed"]
    assert "paused" in daemon.ctl("bulks").out
    assert daemon.ctl("bulks", str(bulk["id"]), "--wait", "--timeout", "9s").code == 1

    # Once it is mended the rest goes, over a restart too, and then those that it had paused for.
    receiver.on("/", 200)
    daemon.restart()
    ran = daemon.ctl("bulks", str(bulk["id"]), "--resume", "--wait", timeout=TASKS)
    assert ran.code == 1
    assert f"{len(again)} of what bulk {bulk['id']} retried failed" in ran.err
    ran = daemon.ctl("retry", "--all", "--bulk", str(bulk["id"]), "--wait", "-o", "json")
    last = json.loads(ran.out)
    assert (ran.code, last["succeeded"], last["failed"], last["waiting"]) == (0, len(again), 0, 0)
    ended = daemon.get(f"/v1/bulks/{bulk['id']}").json()
    assert (ended["moved"], ended["succeeded"]) == (TASKS, TASKS - len(again))
    assert ended["ended_at"] is not None
    assert {task["status"] for task in daemon.tasks(endpoint="shop/put")} == {"succeeded"}
    names = [one["action"] for one in daemon.get("/v1/actions").json()["actions"]]
    assert names == ["retry many", "resume bulk", "retry many"]


def test_a_replay_of_what_succeeded(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.on("/", 200)
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/put", "/", params={"n": {}}, method="POST")
    daemon.start()
    daemon.batch("shop/put", [{"n": n} for n in range(5)])
    daemon.settle()
    words = ("retry", "--all", "--status", "succeeded", "--since", "2h")
    refused = daemon.ctl(*words)
    assert (refused.code, receiver.count()) == (2, 5)
    assert "with force those that succeeded" in refused.err
    assert daemon.ctl(*words, "--force", "--rate", "50/s", "--wait").code == 0
    keys = [request.headers["idempotency-key"] for request in receiver.received()]
    assert len(keys) == len(set(keys)) == 10


def pay_stage(daemon: Daemon, receiver: Receiver) -> None:
    """A payment of which nothing tells whether it was made, and what is to follow from it."""
    receiver.on("/pay", 502)
    receiver.on("/ship", 200)
    daemon.api("shop", receiver.url)
    hook = {"name": "ops", "phase": "on_success", "url": f"{receiver.url}/hook"}
    follows: dict[str, Any] = {"call": "shop/ship", "params": {"order": "body.order"}}
    daemon.endpoint(
        "shop/pay", "/pay", method="POST", params={"n": {"type": "integer"}}, webhooks=[hook],
        then=[follows],
    )  # fmt: skip
    daemon.endpoint("shop/ship", "/ship", params={"order": {"type": "integer"}})
    daemon.start()


def test_a_person_says_how_it_ended(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon()
    receiver.on("/hook", 204)  # else it is tried again meanwhile
    pay_stage(daemon, receiver)
    task = daemon.call("shop/pay")
    until(lambda: daemon.task(task)["reason"] == "ambiguous", "the doubt")
    ran = daemon.ctl("resolve", str(task), "--as", "succeeded")
    assert (ran.code, "then.0: the answer has no body" in ran.err) == (2, True)
    body = daemon.write("answer.json", {"order": 7})
    ran = daemon.ctl(
        "resolve", str(task), "--as", "succeeded", "--note", "the bank has it", "--body", f"@{body}"
    )
    assert ran.code == 0, ran.err
    assert "succeeded resolved" in ran.out
    until(lambda: receiver.count("/hook") == 1 and receiver.count("/ship") == 1, "what follows")
    assert receiver.count("/pay") == 1
    shown = daemon.task(task)
    assert (shown["status"], shown["reason"]) == ("succeeded", "resolved")
    assert json.loads(shown["response"]["body"]) == {"order": 7}
    assert shown["attempt_log"][-1]["why"].endswith("the bank has it")
    assert "Last answer: resolved as 200" in daemon.ctl("show", str(task)).out
    page = re.search(r"<dt>Last answer</dt><dd>(.*?)</dd>", daemon.get(f"/retries/{task}").text)
    assert page is not None
    assert re.sub(r"<.*?>", "", page[1]).strip() == "resolved as 200"
    [ship] = daemon.tasks(endpoint="shop/ship")
    assert (ship["params"], ship["parent_id"]) == ({"order": 7}, task)
    assert (ship["run_id"], daemon.task(task)["run_id"]) == (task, task)
    until(lambda: daemon.get(f"/v1/runs/{task}").json()["end"] == 1, "the end of its run")
    assert daemon.get(f"/v1/runs/{task}").json()["counts"]["succeeded"] == 2
    [hook] = [request.json() for request in receiver.received("/hook")]
    assert (hook["type"], hook["data"]["status_code"]) == ("on_success", 200)
    entry = daemon.get("/v1/actions").json()["actions"][0]
    assert (entry["action"], entry["task"]) == ("resolve", task)
    assert entry["detail"] == {"as": "succeeded", "note": "the bank has it"}
    assert daemon.ctl("resolve", str(task), "--as", "failed").code == 5

    # What has failed, and is said to have, causes nothing more.
    other = daemon.call("shop/pay")
    until(lambda: daemon.task(other)["reason"] == "ambiguous", "the doubt")
    assert daemon.ctl("resolve", str(other), "--as", "failed", "--note", "refunded").code == 0
    assert daemon.task(other)["reason"] == "resolved"
    assert "Last answer: 502" in daemon.ctl("show", str(other)).out
    assert (receiver.count("/hook"), receiver.count("/ship")) == (1, 1)


def test_a_retry_with_another_parameter(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon()
    pay_stage(daemon, receiver)
    task = daemon.call("shop/pay", n=1)
    until(lambda: daemon.task(task)["status"] == "failed", "the failure")
    ran = daemon.ctl("retry", str(task), "-p", "m=2")
    assert (ran.code, "there is no such parameter" in ran.err) == (2, True)
    receiver.on("/pay", Answer(200, json.dumps({"order": 8})))
    ran = daemon.ctl("retry", str(task), "-p", "n=2", "--wait", "-o", "json")
    assert ran.code == 0, ran.err
    child = json.loads(ran.out)
    assert (child["parent_id"], child["replaces"], child["params"]) == (task, task, {"n": 2})
    shown = daemon.task(task)
    assert (shown["status"], shown["reason"]) == ("cancelled", "replaced")
    assert f"task {task}, with other parameters" in daemon.ctl("show", str(child["id"])).out
    entry = daemon.get("/v1/actions").json()["actions"][0]
    assert (entry["action"], entry["task"]) == ("retry", task)
    assert entry["detail"] == {"child": child["id"], "params": {"n": "2"}}
