"""orchestratorctl against a daemon: every verb, every format, every exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until


@pytest.fixture(scope="module")
def daemon(make_shared: MakeDaemon, shared_receiver: Receiver) -> Daemon:
    receiver = shared_receiver
    daemon = make_shared(defaults={"retry": retry("1h", attempts=3)})
    daemon.api("shop", receiver.url)
    receiver.on("/ok", Answer(200, '{"users": ["a"]}', {"Content-Type": "application/json"}))
    receiver.on("/fails", Answer(503, "busy"))
    receiver.on("/refuses", Answer(400, "no"))
    receiver.on("/hook", 204)
    hooks = [
        {"name": "ops", "phase": "after_request", "status_code": "5xx",
         "url": f"{receiver.url}/hook", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
        {"name": "off", "phase": "on_success", "url": f"{receiver.url}/hook", "enabled": False},
    ]  # fmt: skip
    params = {"id": {}, "limit": {"type": "integer", "default": 5}, "flag": {"type": "boolean"}}
    daemon.endpoint("shop/ok", "/ok", params=params, query={"id": "{{ params.id }}"})
    daemon.endpoint("shop/fails", "/fails", webhooks=hooks)
    daemon.endpoint("shop/refuses", "/refuses")
    daemon.endpoint("shop/off", "/ok", enabled=False)
    return daemon.start()


def data(daemon: Daemon, *words: str) -> Any:
    """The data of a command, which must be the same as JSON and as YAML."""
    ran = daemon.ctl(*words, "-o", "json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def failed(daemon: Daemon) -> int:
    """A task that has failed for good."""
    task_id = daemon.call("shop/refuses")
    daemon.finish(task_id)
    return task_id


def test_status(daemon: Daemon) -> None:
    status = data(daemon, "status")
    assert status["pid"] == daemon.pid
    assert status["config"]["endpoints"] == 4
    assert status["config"]["error"] is None
    table = daemon.ctl("status")
    assert table.code == 0
    assert table.err == ""
    assert str(daemon.pid) in table.out
    assert "\x1b" not in table.out
    as_yaml = yaml.safe_load(daemon.ctl("-o", "yaml", "status").out)
    assert as_yaml.keys() == status.keys()


def test_endpoints(daemon: Daemon) -> None:
    listed = {item["id"]: item for item in data(daemon, "endpoints")["endpoints"]}
    assert set(listed) == {"shop/ok", "shop/fails", "shop/refuses", "shop/off"}
    assert listed["shop/off"]["enabled"] is False
    one = data(daemon, "endpoints", "shop/fails")
    assert [hook["name"] for hook in one["webhooks"]] == ["ops", "off"]
    assert one["webhooks"][0]["secret"] == "***"
    assert yaml.safe_load(daemon.ctl("endpoints", "shop/fails", "-o", "yaml").out) == one
    table = daemon.ctl("endpoints").out
    assert all(name in table for name in listed)
    assert "GET /fails" in table
    assert daemon.ctl("endpoints", "shop/nosuch").code == 4


def test_call(daemon: Daemon, shared_receiver: Receiver) -> None:
    words = ("call", "shop/ok", "-p", "id=007", "-p", "limit=9", "-p", "flag=true")
    task = daemon.finish(data(daemon, *words)["id"])
    assert task["params"] == {"id": "007", "limit": 9, "flag": True}
    task = daemon.finish(data(daemon, "call", "shop/ok", "--params", '{"id": [1]}')["id"])
    assert task["params"]["id"] == [1]
    file = daemon.home / "params.json"
    file.write_text('{"id": "file"}')
    task = daemon.finish(data(daemon, "call", "shop/ok", "--params", f"@{file}")["id"])
    assert task["params"]["id"] == "file"
    assert shared_receiver.received("/ok")[-1].query == {"id": "file"}

    table = daemon.ctl("call", "shop/ok")
    assert table.code == 0
    assert "shop/ok" in table.out
    delayed = data(daemon, "call", "shop/ok", "--delay", "1h")["id"]
    assert daemon.task(delayed)["attempts"] == 0
    assert daemon.ctl("cancel", str(delayed)).code == 0


def test_call_and_wait(daemon: Daemon) -> None:
    ran = daemon.ctl("call", "shop/ok", "--wait")
    assert ran.code == 0
    assert json.loads(ran.out) == {"users": ["a"]}
    ran = daemon.ctl("call", "shop/refuses", "--wait")
    assert ran.code == 1
    assert ran.out.strip() == "no"
    assert "not_retryable" in ran.err
    ran = daemon.ctl("call", "shop/fails", "--wait", "--timeout", "200ms")
    assert ran.code == 6
    assert data(daemon, "call", "shop/ok", "--wait")["status"] == "succeeded"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 2),
        (["nosuch"], 2),
        (["call"], 2),
        (["call", "noslash"], 2),
        (["call", "shop/ok", "-p", "noequals"], 2),
        (["call", "shop/ok", "-p", "nosuch=1"], 2),
        (["call", "shop/ok", "-p", "limit=many"], 2),
        (["call", "shop/ok", "--params", "{"], 2),
        (["list", "--status", "nosuch"], 2),
        (["list", "-o", "xml"], 2),
        (["retry"], 2),
        (["retry", "--all"], 2),
        (["retry", "x"], 2),
        (["call", "shop/nosuch"], 4),
        (["show", "999999"], 4),
        (["retry", "999999"], 4),
        (["cancel", "999999"], 4),
        (["pause", "shop/nosuch"], 4),
        (["webhooks", "enable", "shop/ok", "nosuch"], 4),
        (["bulks", "999999"], 4),
        (["call", "shop/off"], 5),
        (["webhooks", "enable", "shop/fails", "off"], 5),
    ],
)
def test_exit_codes(daemon: Daemon, words: list[str], code: int) -> None:
    ran = daemon.ctl(*words)
    assert ran.code == code
    assert ran.out == ""
    assert ran.err != ""


def test_no_daemon(daemon: Daemon) -> None:
    for words in (["status"], ["call", "shop/ok"], ["retry", "1"]):
        nothing = str(daemon.home / "nothing.sock")
        ran = daemon.ctl("--connect-timeout", "0", "--socket", nothing, *words)
        assert ran.code == 3
        assert "nothing.sock" in ran.err
    assert daemon.ctl("status", "--socket", str(daemon.socket), ORCHESTRATORD_SOCKET="/x").code == 0


def test_a_daemon_that_starts_is_waited_for(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.launch()
    ran = daemon.ctl("status", "--connect-timeout", "30s")
    assert (ran.code, ran.err) == (0, "")
    assert str(daemon.pid) in ran.out
    daemon.kill()  # which leaves its socket
    daemon.launch()
    assert daemon.ctl("status", "--connect-timeout", "30s").code == 0


def test_list_and_show(daemon: Daemon) -> None:
    task_id = failed(daemon)
    page = data(daemon, "list", "--status", "failed", "--endpoint", "shop/refuses", "--limit", "1")
    assert [task["id"] for task in page["retries"]] == [task_id]
    assert {
        t["last_status_code"] for t in data(daemon, "list", "--status-code", "4xx")["retries"]
    } == {400}
    assert data(daemon, "list", "--kind", "call", "--since", "1h")["retries"]
    table = daemon.ctl("list", "--status", "failed").out
    assert str(task_id) in table
    assert "not_retryable" in table

    shown = data(daemon, "show", str(task_id))
    assert shown == daemon.task(task_id)
    page = daemon.ctl("show", str(task_id)).out
    assert "400" in page
    assert "no" in page
    assert "retry.when does not cover 400" in page


def test_retry_and_cancel(daemon: Daemon, shared_receiver: Receiver) -> None:
    shared_receiver.on("/heals", 400, 400, Answer(200, "healed"))
    daemon.endpoint("shop/heals", "/heals")
    daemon.reload()
    task_id = daemon.call("shop/heals")
    daemon.finish(task_id)
    ran = daemon.ctl("retry", str(task_id), "--wait")
    assert ran.code == 1
    ran = daemon.ctl("retry", str(task_id), "--wait")
    assert (ran.code, ran.out.strip()) == (0, "healed")
    assert daemon.ctl("retry", str(task_id)).code == 5
    assert daemon.ctl("retry", str(task_id), "--force", "--wait").code == 0

    one, two = failed(daemon), failed(daemon)
    ran = daemon.ctl("cancel", str(one), "999999", str(two))
    assert ran.code == 4
    assert daemon.task(one)["status"] == daemon.task(two)["status"] == "cancelled"
    # What is cancelled already is what was asked for; what has succeeded is not.
    assert daemon.ctl("cancel", str(one)).code == 0
    assert daemon.ctl("cancel", str(task_id)).code == 5


def test_pause_and_resume(daemon: Daemon) -> None:
    ran = daemon.ctl("pause", "shop/ok")
    assert (ran.code, ran.out) == (0, "")
    assert "shop/ok" in ran.err
    ran = daemon.ctl("call", "shop/ok", "--wait", "--timeout", "300ms")
    assert ran.code == 6
    assert "shop/ok" in daemon.ctl("status").out
    assert daemon.ctl("resume", "shop/ok").code == 0
    assert daemon.ctl("call", "shop/ok", "--wait").code == 0
    daemon.settle(endpoint="shop/ok")


def test_all_of_an_api_and_the_action_log(daemon: Daemon) -> None:
    known = {one["id"] for one in data(daemon, "endpoints")["endpoints"]}
    shop = {one for one in known if one.startswith("shop/")}
    paused = daemon.ctl("pause", "shop/*")
    assert (paused.code, len(paused.err.splitlines())) == (0, len(shop))
    assert shop == set(daemon.status()["paused"])
    assert {one["id"] for one in data(daemon, "resume", "shop/*")["endpoints"]} == shop
    assert daemon.status()["paused"] == []
    missing = daemon.ctl("pause", "shops/*")
    assert (missing.code, "there is no endpoint shops/*" in missing.err) == (4, True)
    (last,) = data(daemon, "actions", "--limit", "1")["actions"]
    assert (last["action"], last["endpoint"] in shop) == ("resume", True)
    assert "resume" in daemon.ctl("actions").out


def test_webhooks(daemon: Daemon, shared_receiver: Receiver) -> None:
    listed = data(daemon, "webhooks")["webhooks"]
    assert {item["name"]: item["enabled"] for item in listed} == {"ops": True, "off": False}
    assert data(daemon, "webhooks", "list", "shop/ok")["webhooks"] == []
    assert "ops" in daemon.ctl("webhooks", "list").out

    before = shared_receiver.count("/hook")
    task_id = data(daemon, "webhooks", "test", "shop/fails", "ops")["id"]
    assert daemon.get(f"/v1/retries/{task_id}").json()["status"] == "succeeded"
    (sent,) = shared_receiver.received("/hook")[before:]
    assert sent.json()["data"]["test"] is True
    assert daemon.ctl("webhooks", "disable", "shop/fails", "ops").code == 0
    assert daemon.ctl("webhooks", "test", "shop/fails", "ops").code == 5
    assert daemon.ctl("webhooks", "enable", "shop/fails", "ops").code == 0
    listed = data(daemon, "webhooks", "list", "shop/fails")["webhooks"]
    assert {item["name"]: item["enabled"] for item in listed} == {"ops": True, "off": False}


def test_reload(daemon: Daemon) -> None:
    daemon.write("apis/shop/api.yaml", {"base_url": "http://127.0.0.1:1", "headers": {"X": "y"}})
    daemon.expect("shop/api.yaml", "refused")
    good = json.loads((daemon.config / "apis/shop/api.yaml").read_text())
    good["base_url"] = daemon.get("/v1/endpoints/shop/ok").json().get("base_url", "")
    before = daemon.status()["config"]["generation"]
    assert data(daemon, "reload")["generation"] == before + 1
    assert "Nothing has changed" in daemon.ctl("reload").err
    daemon.write("apis/shop/api.yaml", {"base_uri": "http://127.0.0.1:1"})
    ran = daemon.ctl("reload")
    assert ran.code == 78
    assert "apis/shop/api.yaml:2:3: base_uri" in ran.err
    assert "did you mean 'base_url'?" in ran.err


def test_waiting_goes_on_over_a_restart(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.hold("/held")
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/held", "/held", timeout="60s")
    daemon.start()
    command = [sys.executable, "-m", "orchestratorctl", "--socket", str(daemon.socket)]
    with subprocess.Popen(
        [*command, "call", "shop/held", "--wait", "-o", "json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as waiting:  # fmt: skip
        try:
            until(lambda: receiver.count("/held") == 1, "the call")
            daemon.kill()
            receiver.let_go("/held")
            daemon.start()
            out, err = waiting.communicate(timeout=30)
        finally:
            waiting.kill()
    assert waiting.returncode == 0, err
    task = json.loads(out)
    assert (task["attempts"], task["deaths"]) == (1, 1)
