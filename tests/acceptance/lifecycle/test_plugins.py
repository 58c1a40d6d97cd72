"""Plugins that are not shipped, in one file or installed with pip, do what they are for."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until

PROJECT = Path(__file__).parent / "plugin_project"
DOCS = Path(__file__).parents[3] / "docs/plugins.md"

GATE = """
import time
from orchestratord import Reject, Snooze, hookimpl

STARTED = time.monotonic()

@hookimpl
def before_request(request, task):
    if task.kind != "call":
        return None
    if task.params["n"] == "refused":
        raise Reject("not today")
    if time.monotonic() < STARTED + 2:
        raise Snooze(0.1)
    request.headers["X-Gate"] = "open"
    return request
"""

TELLS = """
from orchestratord import NewTask, Table, Upsert, hookimpl

@hookimpl
def register_tables():
    return [Table("told", {"endpoint_id": "TEXT NOT NULL", "last_task": "INTEGER",
                           "calls": "INTEGER"}, key=("endpoint_id",))]

@hookimpl
async def on_success(outcome, task, endpoint):
    if task.kind != "call":
        return []
    effects = [Upsert("told", {"endpoint_id": endpoint.id}, {"last_task": task.id},
                      add={"calls": 1})]
    if endpoint.id == "shop/first":
        effects.append(NewTask("call", "shop/second", {"from": task.params["n"]},
                               parent_id=task.id))
    return effects
"""


def test_a_hook_may_refuse_and_may_put_off(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.on("/", 200)
    receiver.on("/told", 204)
    daemon = make_daemon(plugins={"dirs": ["plugins"]})
    daemon.plugin("gate", GATE)
    told = {"name": "told", "phase": "on_final_failure", "url": f"{receiver.url}/told"}
    coded = {"name": "coded", "phase": "after_request", "url": f"{receiver.url}/told"}
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/", params={"n": {}}, webhooks=[told, coded])
    daemon.start()

    task = daemon.finish(daemon.call("shop/get", n="refused"))
    assert (task["status"], task["reason"]) == ("failed", "rejected")
    assert (task["attempts"], task["last_status_code"]) == (1, None)
    assert "not today" in task["last_error"]
    daemon.settle()
    assert receiver.count("/") == 0
    # It never was a request, so there is nothing after it to tell of.
    (delivery,) = receiver.received("/told")
    assert delivery.json()["type"] == "on_final_failure"
    assert delivery.json()["data"]["status_code"] is None

    task = daemon.finish(daemon.call("shop/get", n="later"))
    assert (task["status"], task["attempts"]) == ("succeeded", 1)
    (sent,) = receiver.received("/")
    assert sent.headers["x-gate"] == "open"


def test_without_the_webhooks_plugin_calls_go_on_and_deliveries_wait(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/", 200)
    receiver.on("/hook", 503, 204)
    hook = {"name": "hook", "phase": "on_success", "url": f"{receiver.url}/hook",
            "retry": {"backoff": {"strategy": "fixed", "delay": "1h"}}}  # fmt: skip
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/", webhooks=[hook])
    daemon.start()
    daemon.finish(daemon.call("shop/get"))
    (delivery,) = until(lambda: daemon.tasks(kind="webhook"), "the delivery")
    until(lambda: receiver.count("/hook") == 1, "its first attempt")
    daemon.until_status(delivery["id"], "pending")

    daemon.write("orchestratord.yaml", {**daemon.settings, "plugins": {"disabled": ["webhooks"]}})
    daemon.restart()
    (warning,) = daemon.status()["config"]["warnings"]
    assert warning["key"] == "webhooks"
    assert daemon.post(f"/v1/retries/{delivery['id']}/trigger").status_code == 202
    assert daemon.finish(daemon.call("shop/get"))["status"] == "succeeded"
    assert [task["id"] for task in daemon.tasks(kind="webhook")] == [delivery["id"]]
    assert daemon.task(delivery["id"])["status"] == "pending"

    daemon.write("orchestratord.yaml", daemon.settings)
    daemon.restart()
    assert daemon.finish(delivery["id"])["status"] == "succeeded"


def test_one_file_tells(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.on("/first", 200)
    receiver.on("/second", 200)
    daemon = make_daemon(plugins={"dirs": ["plugins"]})
    daemon.plugin("tells", TELLS)
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/first", "/first", params={"n": {"type": "integer"}})
    daemon.endpoint(
        "shop/second", "/second", params={"from": {}}, query={"from": "{{ params['from'] }}"}
    )
    daemon.start()
    first = daemon.call("shop/first", n=7)
    daemon.call("shop/first", n=8)
    until(lambda: receiver.count("/second") == 2, "the calls that follow")
    daemon.settle()
    assert {item.query["from"] for item in receiver.received("/second")} == {"7", "8"}
    (second,) = [t for t in daemon.tasks(endpoint="shop/second") if t["parent_id"] == first]
    assert second["params"] == {"from": 7}
    rows = {row["endpoint_id"]: row for row in daemon.rows("SELECT * FROM told")}
    assert {name: row["calls"] for name, row in rows.items()} == {
        "shop/first": 2,
        "shop/second": 2,
    }
    daemon.restart()
    daemon.call("shop/first", n=9)
    until(lambda: receiver.count("/second") == 3, "the call that follows")
    daemon.settle()
    rows = {row["endpoint_id"]: row for row in daemon.rows("SELECT * FROM told")}
    assert rows["shop/first"]["calls"] == 3


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the plugin of `plugin_project`."""
    target = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--no-index", "--no-deps", "--no-build-isolation", "--target", str(target), str(PROJECT)],
        check=True,
        timeout=120,
    )  # fmt: skip
    return target


def test_a_plugin_that_pip_installed(
    make_daemon: MakeDaemon, receiver: Receiver, installed: Path
) -> None:
    receiver.on("/waits", 503, 503, 503, 503, 200)
    receiver.on("/lies", Answer(200, '{"error": "no such order"}'))
    receiver.on("/later", Answer(200, '{"error": "later"}'), Answer(200, '{"order": 1}'))
    daemon = make_daemon(environ={"PYTHONPATH": str(installed)})
    daemon.api("shop", receiver.url)
    backoff = {"backoff": {"strategy": "fibonacci", "delay": "50ms"}, "jitter": 0}
    for name in ("waits", "lies", "later"):
        daemon.endpoint(f"shop/{name}", f"/{name}", retry=backoff)
    daemon.start()

    waits, lies, later = (daemon.call(f"shop/{name}") for name in ("waits", "lies", "later"))
    task = daemon.finish(waits)
    assert task["status"] == "succeeded"
    delays = [item["delay"] for item in task["attempt_log"][:-1]]
    assert delays == pytest.approx([0.05, 0.1, 0.1, 0.15])
    task = daemon.finish(lies)
    assert (task["status"], task["reason"]) == ("failed", "not_retryable")
    assert task["last_status_code"] == 200
    assert task["last_error"] == "the body says error"
    assert "fibonacci" in task["attempt_log"][0]["why"]
    task = daemon.finish(later)
    assert (task["status"], task["attempts"]) == ("succeeded", 2)

    shown = {item["name"]: item for item in daemon.status()["plugins"]}["fibonacci"]
    assert shown["version"] == "1.2.3"
    assert set(shown["hooks"]) == {"after_request", "register_backoff"}


def test_without_it_its_strategy_is_unknown(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/", retry={"backoff": "fibonacci"})
    assert check(daemon) == (78, True)


def check(daemon: Daemon) -> tuple[int, bool]:
    ended = daemon.run("check")
    return ended.code, "unknown strategy 'fibonacci'" in ended.err


def test_a_type_of_endpoint_goes_the_way_of_its_api(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    """The example in the docs, with a token, and a rate that it shares with other calls."""
    (example,) = (
        block
        for block in re.findall(
            r"^```python\n(.*?)^```$", DOCS.read_text(), re.DOTALL | re.MULTILINE
        )
        if "class PingExecutor" in block
    )
    tokens = (Answer(200, f'{{"access_token": "a-token-{number}"}}') for number in (1, 2))
    receiver.on("/token", *tokens)
    receiver.on("/", 401, 204)
    daemon = make_daemon(environ={"CLIENT": "a-client-secret"}, plugins={"dirs": ["plugins"]})
    daemon.plugin("ping", example)
    oauth2 = {"token_url": f"{receiver.url}/token", "client_id": "daemon",
              "client_secret": "${secret:CLIENT}"}  # fmt: skip
    daemon.api("shop", receiver.url, auth={"oauth2": oauth2}, rate_limit="2/min")
    daemon.write("apis/shop/endpoints/ping.yaml", {"type": "ping", "url": receiver.url})
    with daemon.start():
        task = daemon.finish(daemon.call("shop/ping"))
        assert (task["status"], task["attempts"], task["last_status_code"]) == ("succeeded", 1, 204)
        heard = [item.headers["authorization"] for item in receiver.received("/")]
        assert heard == ["Bearer a-token-1", "Bearer a-token-2"]
        shown = daemon.get(f"/v1/retries/{task['id']}/request").json()
        assert shown["headers"]["Authorization"] == "***"
        first, second = daemon.batch("shop/ping", [{}, {}])
        daemon.finish(first)
        assert daemon.task(second)["waits"]["for"] == "rate_limit"


CALLING_HOURS = """
import time
from pathlib import Path
from orchestratord import Snooze, hookimpl

HERE = Path(__file__).parent

@hookimpl
def before_request(task):
    if not (HERE / "open").exists():
        raise Snooze(until=time.time() * 1000 + 3_600_000, why="calling hours, from 08:00 on")

@hookimpl
def observe(events):
    for event in events:
        if event.type == "task.snoozed":
            (HERE / "snoozed").write_text(event.waits_for)
"""


def test_why_a_hook_has_put_a_task_off(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.on("/", 200)
    with socket.create_server(("127.0.0.1", 0)) as free:
        bind = f"127.0.0.1:{free.getsockname()[1]}"
    daemon = make_daemon(plugins={"dirs": ["plugins"]}, http={"bind": bind, "token": "t" * 24})
    daemon.plugin("calling_hours", CALLING_HOURS)
    daemon.expect("written out here")
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/")
    daemon.start()
    call, why = daemon.call("shop/get"), "calling hours, from 08:00 on"
    plugins = daemon.config / "plugins"
    until((plugins / "snoozed").exists, "the event")
    until(lambda: (plugins / "snoozed").read_text() == why, "its text")
    daemon.restart()
    waits = daemon.task(call)["waits"]
    assert (waits["for"], waits["why"]) == ("snooze", why)
    assert waits["until"] == daemon.task(call)["next_try"]
    assert f"waits for  {why}, in " in daemon.ctl("show", str(call)).out
    assert f"waits for: {why}" in daemon.ctl("list").out
    with httpx.Client(headers={"Authorization": f"Bearer {'t' * 24}"}) as client:
        assert f"snooze</span> {why}" in client.get(f"http://{bind}/retries/{call}").text
        assert f"waits for: {why}" in client.get(f"http://{bind}/retries").text
    (plugins / "open").touch()
    assert daemon.ctl("retry", str(call)).code == 0
    assert daemon.finish(call)["status"] == "succeeded"
    assert daemon.rows("SELECT waits_for FROM retry_schedule") == [{"waits_for": None}]


ON_EVENTS = """
from orchestratord import NewTask, Table, Upsert, hookimpl, only_for

@hookimpl
def register_tables():
    return [Table("heard", {"type": "TEXT NOT NULL", "n": "INTEGER", "now": "REAL"}, ("type",))]

@hookimpl
def on_event(event, config, now):
    assert config.endpoints
    yield Upsert("heard", {"type": event.type}, {"now": now}, {"n": 1})

@hookimpl(specname="on_event")
@only_for(lambda type: type in ("endpoint.paused", "schedule.missed", "breaker.opened"))
def calls(event):
    yield NewTask("call", "shop/note", {"text": event.type})

@hookimpl
def before_request(task):
    if task.params.get("text") == "wrong":
        raise ValueError("wrong on purpose")
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_on_event_has_calls_made_of_what_happens(
    make_daemon: MakeDaemon, receiver: Receiver, workers: int
) -> None:
    receiver.on("/note", 200)
    receiver.on("/down", 500)
    daemon = make_daemon(plugins={"dirs": ["plugins"]}, workers=workers)
    daemon.plugin("events", ON_EVENTS)
    daemon.api("shop", receiver.url)
    daemon.api("off", receiver.url, breaker={"failures": 3})
    daemon.endpoint("shop/note", "/note", params={"text": {"type": "string"}})
    daemon.endpoint("off/get", "/down", retry={"backoff": {"strategy": "fixed", "delay": "1h"}})
    daemon.endpoint("shop/often", "/note", schedule={"every": "1s", "catch_up": False})
    daemon.start()
    daemon.expect("wrong on purpose")
    daemon.finish(daemon.call("shop/note", text="wrong"))
    assert daemon.ctl("pause", "off/get").code == 0

    def noted() -> set[str]:
        calls = daemon.tasks(endpoint="shop/note", status="succeeded")
        return {call["params"]["text"] for call in calls}

    until(lambda: "endpoint.paused" in noted(), "the call of what was paused")
    assert daemon.ctl("resume", "off/get").code == 0
    daemon.batch("off/get", [{}] * 20)
    until(lambda: "breaker.opened" in noted(), "the call of the breaker")
    assert daemon.stop() == 0
    time.sleep(2.5)
    daemon.start()
    until(lambda: "schedule.missed" in noted(), "the call of the missed slots")
    opened = [c for c in daemon.tasks() if c["params"].get("text") == "breaker.opened"]
    heard = {row["type"]: row for row in daemon.rows("SELECT * FROM heard")}
    assert heard["breaker.opened"]["n"] == len(opened)
    wanted = {"task.created", "task.succeeded", "config.adopted", "plugin.fault", "daemon.started"}
    assert wanted <= set(heard)
    assert abs(heard["schedule.missed"]["now"] - time.time()) < 600


TOKEN = """
import httpx
from orchestratord import SendError, Snooze, hookimpl

@hookimpl
async def before_request(request, task, config, send):
    try:
        answer = await send(httpx.Request("POST", task.params["login"]))
    except SendError as error:
        raise Snooze(3600, f"a token: {error.kind}")
    token = answer.json()["token"]
    config.redactor.learn("legacy", [token])
    request.headers["X-Token"] = token
"""


def test_a_token_is_asked_for_by_the_rules_of_egress_and_is_secret(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    token = "a-token-that-is-secret"
    receiver.on("/login", Answer(200, json.dumps({"token": token})))
    receiver.on("/get", Answer(200, f"you sent {token}"))
    daemon = make_daemon(plugins={"dirs": ["plugins"]})
    daemon.plugin("legacy", TOKEN)
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/get", params={"login": {"type": "string"}})
    daemon.start()
    task = daemon.finish(daemon.call("shop/get", login=f"{receiver.url}/login"))
    assert receiver.received("/get")[0].headers["x-token"] == token
    assert task["response"]["body"] == "you sent ***"
    assert token not in daemon.log()
    denied = daemon.call("shop/get", login="http://169.254.169.254/latest")
    until(lambda: daemon.task(denied)["waits_for"] == "a token: egress", "the refusal")
    assert receiver.count("/get") == 1
