"""The daemon as systemd sees it: notifications, signals, its one instance, its exit codes."""

from __future__ import annotations

import json
import re
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.commands.manager import Manager
from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[3] / "docs"

GATE = """
import asyncio, logging, pathlib
from orchestratord import hookimpl

OPEN = pathlib.Path(__file__).with_name("open")

@hookimpl
async def before_request(request, task):
    logging.getLogger("gate").info("a hook is entered")
    while not OPEN.exists():
        await asyncio.sleep(0.02)
"""


HOLDS_THE_LOOP = """
import pathlib, time
from orchestratord import hookimpl

@hookimpl
def before_request(request, task):
    while pathlib.Path(__file__).with_name("held").exists():
        time.sleep(0.02)
"""


@pytest.fixture
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    manager = Manager(tmp_path_factory.mktemp("n") / "notify")
    with closing(manager.socket):
        yield manager


def test_what_systemd_is_told(
    make_daemon: MakeDaemon, receiver: Receiver, manager: Manager
) -> None:
    environ = {
        "NOTIFY_SOCKET": str(manager.path),
        "WATCHDOG_USEC": "1000000",
    }
    daemon = make_daemon(environ=environ, plugins={"dirs": ["plugins"]})
    daemon.plugin("holds", HOLDS_THE_LOOP)
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/")
    daemon.launch()
    until(lambda: manager.states() == ["READY"], "READY=1")
    # It is ready when it says so: the socket answers at once.
    assert daemon.get("/readyz").status_code == 200
    assert manager.heard[0]["STATUS"]

    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    daemon.endpoint("shop/get", "/other")
    daemon.signal(signal.SIGHUP)
    until(lambda: manager.states() == ["READY", "RELOADING", "READY"], "a reload")
    (reloading,) = [message for message in manager.heard if "RELOADING" in message]
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert before <= int(reloading["MONOTONIC_USEC"]) <= after
    assert daemon.get("/v1/endpoints/shop/get").json()["path"] == "/other"
    daemon.reload()
    until(lambda: manager.states()[-2:] == ["RELOADING", "READY"] and len(manager.states()) >= 5,
          "a reload that was asked for over the API")  # fmt: skip

    # A bad configuration ends the reload as well: systemctl must not hang on it.
    daemon.expect("orchestratord.config", "config")
    daemon.endpoint("shop/get", "/", retry={"backoff": "nothing"})
    daemon.signal(signal.SIGHUP)
    until(lambda: manager.states()[-2:] == ["RELOADING", "READY"] and len(manager.states()) >= 7,
          "the end of a bad reload")  # fmt: skip

    manager.hears_pings()
    # systemd ends, and starts again, what gives no sign of life for WATCHDOG_USEC.
    held = daemon.config / "plugins" / "held"
    held.touch()
    receiver.on("/other", 200)
    daemon.expect("plugin holds: before_request has blocked the event loop")
    daemon.call("shop/get", "200ms")
    until(lambda: "WATCHDOG" not in manager.heard_within(1.2), "an end of the pings")
    held.unlink()
    manager.hears_pings()
    assert daemon.stop() == 0
    assert manager.states()[-1] == "STOPPING"


def test_a_second_signal_aborts(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.hold("/held")
    daemon = make_daemon(drain_timeout="60s")
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/held", "/held", timeout="60s")
    daemon.expect("a second signal")
    daemon.start()
    task_id = daemon.call("shop/held")
    until(lambda: receiver.count("/held") == 1, "the call")
    daemon.signal(signal.SIGTERM)
    daemon.logged("draining")
    assert daemon.process is not None
    assert daemon.process.poll() is None
    daemon.signal(signal.SIGINT)
    assert daemon.wait(5) not in (0, None)

    receiver.let_go("/held")
    daemon.start()
    assert daemon.finish(task_id)["status"] == "succeeded"


def test_a_drain_waits_for_what_is_in_flight(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.hold("/held")
    daemon = make_daemon(drain_timeout="30s")
    daemon.api("shop", receiver.url, concurrency=2)
    daemon.endpoint("shop/held", "/held", method="POST", timeout="60s")
    daemon.start()
    ids = daemon.batch("shop/held", [{}] * 4)
    until(lambda: receiver.count("/held") == 2, "two calls in flight")
    daemon.signal(signal.SIGTERM)
    daemon.logged("draining")
    receiver.let_go("/held")
    assert daemon.wait() == 0
    assert receiver.count("/held") == 2
    assert not daemon.socket.exists()
    states = {row["id"]: row["status"] for row in daemon.rows("SELECT * FROM retry_schedule")}
    assert sorted(states[task_id] for task_id in ids) == ["pending", "pending"] + ["succeeded"] * 2

    daemon.start()
    daemon.settle()
    assert {daemon.task(task_id)["status"] for task_id in ids} == {"succeeded"}
    assert receiver.count("/held") == 4


def test_a_drain_does_not_wait_for_a_hook_that_takes_its_time(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/", 200)
    daemon = make_daemon(drain_timeout="300ms", plugins={"dirs": ["plugins"], "timeout": "60s"})
    daemon.plugin("gate", GATE)
    daemon.api("shop", receiver.url)
    for method in ("GET", "POST"):
        daemon.endpoint(f"shop/{method}", "/", method=method)
    daemon.start()
    ids = [daemon.call(f"shop/{method}") for method in ("GET", "POST")]
    until(lambda: daemon.log().count("a hook is entered") == 2, "both calls to be held back")
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 40
    rows = {row["id"]: row for row in daemon.rows("SELECT * FROM retry_schedule")}
    assert {(rows[i]["status"], rows[i]["attempts"]) for i in ids} == {("pending", 0)}
    assert receiver.count("/") == 0

    (daemon.config / "plugins" / "open").touch()
    daemon.start()
    assert [daemon.finish(task_id)["status"] for task_id in ids] == ["succeeded"] * 2


def test_sigterm_under_load_loses_nothing(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.hold("/stuck")
    receiver.on("/get", 200)
    receiver.on("/post", 200)
    daemon = make_daemon(drain_timeout="1s")
    for api in ("quick", "stuck", "other"):
        daemon.api(api, receiver.url, concurrency=5)
    n = {"params": {"n": {}}, "query": {"n": "{{ params.n }}"}}
    daemon.endpoint("quick/get", "/get", **n)
    daemon.endpoint("quick/post", "/post", method="POST", **n)
    daemon.endpoint("stuck/post", "/stuck", method="POST", timeout="60s", **n)
    daemon.endpoint("other/get", "/stuck", timeout="60s", **n)
    daemon.start()
    ids: dict[str, list[int]] = {}
    for name in ("stuck/post", "other/get", "quick/get", "quick/post"):
        count = 20 if "quick" not in name else 1500
        ids[name] = daemon.batch(name, [{"n": f"{name} {i}"} for i in range(count)])
    until(lambda: receiver.count("/stuck") == 10, "what will be stuck")
    until(lambda: receiver.count("/get") > 50, "load")
    daemon.signal(signal.SIGTERM)
    began = time.monotonic()
    assert daemon.wait() == 0
    assert time.monotonic() - began < 40

    rows = {row["id"]: row for row in daemon.rows("SELECT * FROM retry_schedule")}
    assert set(rows) == {task_id for some in ids.values() for task_id in some}
    assert "running" not in {row["status"] for row in rows.values()}
    # Under way and not to be repeated: those five, and not one of those that waited behind them.
    stuck = [rows[task_id] for task_id in ids["stuck/post"]]
    assert [row["reason"] for row in stuck].count("ambiguous") == 5
    assert [row["status"] for row in stuck].count("pending") == 15
    # Under way and safe to repeat: back to pending, at no cost.
    other = [rows[task_id] for task_id in ids["other/get"]]
    assert {(row["status"], row["attempts"]) for row in other} == {("pending", 0)}

    receiver.let_go("/stuck")
    daemon.start()
    daemon.settle(40)
    for name, some in ids.items():
        states = [daemon.task(task_id)["status"] for task_id in some[:20]]
        assert states.count("succeeded") == (15 if name == "stuck/post" else 20)
    left = daemon.tasks(status="failed")
    assert {(task["endpoint"], task["reason"]) for task in left} == {("stuck/post", "ambiguous")}
    for path in ("/get", "/post"):
        seen = [item.query["n"] for item in receiver.received(path)]
        assert len(seen) == len(set(seen)) == 1500


def test_one_instance_only(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.on("/", 200)
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/")
    daemon.start()
    second = Daemon(daemon.home / "second", database=f"sqlite:///{daemon.database}")
    second.launch()
    assert second.wait() not in (0, 78)
    assert f"in use by the daemon with pid {daemon.pid}: end that, or set `dat" in second.log()
    assert daemon.finish(daemon.call("shop/get"))["status"] == "succeeded"


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ({"control_socket": "{}/s.sock"}, "control_socket: cannot listen at {}/s.sock: "),
        ({"database": "sqlite:///{}/q.db"}, "the database {}/q.db cannot be opened: "),
        ({"http": {"bind": "192.0.2.7:8420", "token": "x" * 16}}, "http.bind: cannot listen at "),
    ],
    ids=["socket", "database", "port"],
)
def test_what_is_in_its_way_ends_it_with_1_and_a_remedy(
    make_daemon: MakeDaemon, setting: dict[str, Any], remedy: str
) -> None:
    """78 is for files alone: a restart may well help here."""
    daemon = make_daemon()
    blocked = daemon.home / "a-file"
    blocked.write_text("")
    ((key, value),) = setting.items()
    daemon.settings[key] = value.format(blocked) if isinstance(value, str) else value
    daemon.write("orchestratord.yaml", daemon.settings)
    daemon.expect("CRITICAL orchestratord: ")
    daemon.launch()
    assert daemon.wait() == 1
    assert remedy.format(blocked) in daemon.log()
    assert re.search("let this user write|write an address of this machine", daemon.log())
    assert "Traceback" not in daemon.log()


def test_a_socket_that_a_dead_daemon_left_is_no_obstacle(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = make_daemon()
    daemon.start()
    mode = daemon.socket.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660
    daemon.kill()
    assert daemon.socket.exists()
    daemon.start()
    assert daemon.get("/healthz").status_code == 200


@pytest.mark.parametrize("name", ["apis/shop/endpoints/get.yaml", "orchestratord.yaml"])
def test_it_does_not_start_with_a_bad_configuration(make_daemon: MakeDaemon, name: str) -> None:
    daemon = make_daemon()
    daemon.api("shop", "https://api.example.com")
    daemon.endpoint("shop/get", "/", retry={"backoff": "expo"})
    daemon.write(name, (daemon.config / name).read_text().replace("{", "{\n  nosuchkey: 1,\n", 1))
    daemon.expect("CRITICAL orchestratord: (apis/shop/endpoints/get|orchestratord).yaml:")
    daemon.launch()
    assert daemon.wait() == 78
    assert f"{name}:2:3" in daemon.log()
    # All of it at once, each with its place and what might have been meant.
    assert "did you mean 'exponential'?" in daemon.log()
    assert not daemon.database.exists()
    assert not daemon.socket.exists()


def test_the_log_as_json(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.on("/", 503)
    daemon = make_daemon(log={"format": "json", "level": "info"})
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/", retry=retry(attempts=1))
    daemon.start()
    task_id = daemon.call("shop/get")
    daemon.finish(task_id)
    line = daemon.logged('"task_id"')
    entry = json.loads(line)
    assert entry["task_id"] == task_id
    assert entry["reason"] == "exhausted"
    assert entry["level"] == "warning"
    fields = {name for text in daemon.log().splitlines() for name in json.loads(text)}
    page = (DOCS / "how-to" / "ship-the-log.md").read_text()
    rows = re.findall(r"^\| (`.+?) \|", page, re.MULTILINE)
    assert {"attempt", "method", "peer_uid"} <= fields
    assert fields <= set(re.findall(r"`(\w+)`", " ".join(rows)))
