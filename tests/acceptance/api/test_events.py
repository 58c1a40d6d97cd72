"""Events of a real daemon: followed, over a restart too, and observed by plugins."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

OBSERVER = """
import json
from pathlib import Path

from orchestratord import hookimpl

FILE = Path(__file__).parent / "observed"


@hookimpl
def observe(events):
    with FILE.open("a") as file:
        for event in events:
            file.write(json.dumps([event.type, event.at]) + "\\n")
"""

BLOCKS = """
import time

from orchestratord import hookimpl


@hookimpl
def observe(events):
    if any(event.type == "task.created" for event in events):
        time.sleep(3)
"""

BROKEN = """
from orchestratord import hookimpl


@hookimpl
def observe(events):
    raise SystemExit("no")
"""


class Follower:
    """`orchestratorctl events -o json` as a process, and what it has shown so far."""

    def __init__(self, daemon: Daemon, *words: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "orchestratorctl", "events", "-o", "json", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"], "ORCHESTRATORD_SOCKET": str(daemon.socket)},
        )
        self.events: list[dict[str, Any]] = []
        self._words = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.events.append(json.loads(line))

    def until(self, condition: Callable[[list[dict[str, Any]]], Any], what: str) -> None:
        until(lambda: condition(self.events), f"{what} among the events")

    def types(self, task_id: int) -> list[str]:
        return [event["type"] for event in self.events if event.get("id") == task_id]

    def end(self) -> tuple[int, str]:
        """Interrupt it; its exit code, and its words."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(20)
            self._reader.join()
            assert self._process.stdout is not None
            assert self._process.stderr is not None
            self._words = self._process.stderr.read()
            self._process.stdout.close()
            self._process.stderr.close()
        return self._process.returncode, self._words


@contextmanager
def following(daemon: Daemon, *words: str) -> Iterator[Follower]:
    """Follow while the block lasts."""
    follower = Follower(daemon, *words)
    try:
        yield follower
    finally:
        follower.end()


def begun(daemon: Daemon, follower: Follower, endpoint: str) -> None:
    """Make calls until one is followed."""

    def seen() -> bool:
        daemon.finish(daemon.call(endpoint))
        return bool(follower.events)

    until(seen, "the first event")


@pytest.fixture
def shop(make_daemon: MakeDaemon, receiver: Receiver) -> Callable[..., Daemon]:
    def make(**settings: Any) -> Daemon:
        daemon = make_daemon(defaults={"retry": retry("50ms", attempts=2)}, **settings)
        daemon.api("shop", receiver.url)
        daemon.api("other", receiver.url)
        receiver.on("/ok", Answer(200, "{}"))
        receiver.on("/fails", Answer(503, "busy"))
        receiver.on("/gone", 410)
        hook = {"name": "ops", "phase": "on_success", "url": f"{receiver.url}/gone"}
        daemon.endpoint("shop/ok", "/ok")
        daemon.endpoint("shop/fails", "/fails")
        daemon.endpoint("shop/tells", "/ok", webhooks=[hook])
        daemon.endpoint("other/ok", "/ok")
        return daemon

    return make


def test_what_happens_is_followed(shop: Callable[..., Daemon]) -> None:
    daemon = shop().start()
    with following(daemon) as follower:
        begun(daemon, follower, "other/ok")
        ok, fails, tells = (daemon.call(f"shop/{name}") for name in ("ok", "fails", "tells"))
        daemon.post("/v1/endpoints/shop/ok/pause")
        daemon.endpoint("shop/new", "/ok")
        assert daemon.reload()["generation"] == 2
        daemon.write("apis/shop/endpoints/new.yaml", "path: [\n")
        assert daemon.ctl("reload").code == 78
        (daemon.config / "apis/shop/endpoints/new.yaml").unlink()
        daemon.expect("new.yaml", "refused")
        daemon.reload()
        follower.until(
            lambda events: (
                {"webhook.disabled", "config.refused"} <= {e["type"] for e in events}
                and "task.failed" in follower.types(fails)
                and "task.succeeded" in follower.types(ok)
            ),
            "all that was done",
        )
        assert follower.types(ok) == ["task.created", "task.started", "task.succeeded"]
        assert follower.types(fails) == [
            "task.created", "task.started", "task.retried", "task.started", "task.failed",
        ]  # fmt: skip
        by_type = {event["type"]: event for event in follower.events}
        (failed,) = (
            e for e in follower.events if (e["type"], e.get("id")) == ("task.failed", fails)
        )
        assert failed.items() >= {
            "reason": "exhausted", "attempt": 2, "status_code": 503, "endpoint": "shop/fails",
        }.items()  # fmt: skip
        delivery = next(e for e in follower.events if e.get("parent_id") == tells)
        assert (delivery["type"], delivery["webhook"]) == ("task.created", "ops")
        assert by_type["webhook.disabled"]["endpoint"] == "shop/tells"
        assert by_type["endpoint.paused"]["endpoint"] == "shop/ok"
        assert by_type["config.refused"]["generation"] == 2
        assert "new.yaml" in by_type["config.refused"]["error"]
        adopted = [e for e in follower.events if e["type"] == "config.adopted"]
        assert adopted[0]["added"] == ["shop/new"]
        assert adopted[0]["cause"] in ("command", "file change")  # whichever came first
        code, words = follower.end()
    assert (code, words) == (130, "")


def test_filters(shop: Callable[..., Daemon]) -> None:
    daemon = shop().start()
    with following(daemon, "--endpoint", "shop/*", "--type", "task.failed,task.succeeded") as one:
        begun(daemon, one, "shop/ok")
        for name in ("shop/fails", "other/ok", "shop/ok"):
            daemon.finish(daemon.call(name))
        one.until(lambda events: any(e["type"] == "task.failed" for e in events), "the failure")
        assert {e["endpoint"] for e in one.events} == {"shop/ok", "shop/fails"}
        assert {e["type"] for e in one.events} == {"task.failed", "task.succeeded"}


def test_a_restart_is_followed_through(shop: Callable[..., Daemon]) -> None:
    daemon = shop().start()
    with following(daemon) as follower:
        begun(daemon, follower, "shop/ok")
        daemon.restart()
        follower.until(
            lambda events: any(e["type"] == "daemon.started" for e in events), "the restart"
        )
        task_id = daemon.call("shop/ok")
        follower.until(lambda _: "task.succeeded" in follower.types(task_id), "the call after it")
        types = [e["type"] for e in follower.events]
        assert types.index("daemon.draining") < types.index("daemon.started")
        code, words = follower.end()
    assert code == 130
    assert "The daemon does not answer" in words
    assert "missed" in words


def test_a_stop_waits_for_no_follower(shop: Callable[..., Daemon]) -> None:
    daemon = shop().start()
    transport = httpx.HTTPTransport(uds=str(daemon.socket), verify=False)
    with (
        httpx.Client(transport=transport, base_url="http://localhost", timeout=20) as client,
        client.stream("GET", "/v1/events") as response,
    ):
        lines = response.iter_lines()
        assert next(lines).startswith("id: ")
        daemon.signal(signal.SIGTERM)
        rest = list(lines)  # ends without an error: the daemon has ended the answer
    assert daemon.wait(10) == 0
    assert "event: daemon.draining" in rest


def test_an_observer_sees_all_of_it(shop: Callable[..., Daemon]) -> None:
    daemon = shop(plugins={"dirs": ["plugins"]})
    daemon.plugin("observer", OBSERVER)
    daemon.start()
    daemon.settle()
    daemon.finish(daemon.call("shop/ok"))
    assert daemon.stop() == 0
    lines = (daemon.config / "plugins" / "observed").read_text().splitlines()
    assert [json.loads(line)[0] for line in lines] == [
        "config.adopted", "daemon.started", "task.created", "task.started", "task.succeeded",
        "daemon.draining",
    ]  # fmt: skip


def test_an_observer_that_breaks_or_blocks_harms_only_itself(shop: Callable[..., Daemon]) -> None:
    daemon = shop(plugins={"dirs": ["plugins"]})
    daemon.plugin("broken", BROKEN)
    daemon.plugin("blocks", BLOCKS)
    daemon.expect("plugin broken: observe SystemExit: no", "has blocked the event loop")
    daemon.start()
    assert daemon.finish(daemon.call("shop/ok"))["status"] == "succeeded"
    daemon.logged("plugin blocks: observe has blocked the event loop")
    plugins = {item["name"]: item for item in daemon.status()["plugins"]}
    assert plugins["broken"]["faults"] > 0
    assert plugins["broken"]["last_fault"] == "observe: SystemExit: no"
    assert plugins["blocks"]["faults"] == 0


def test_watch(shop: Callable[..., Daemon]) -> None:
    daemon = shop().start()
    daemon.finish(daemon.call("shop/ok"))
    daemon.finish(daemon.call("shop/fails"))
    until(lambda: daemon.status()["failing"], "that it fails")
    ran = daemon.ctl("watch", "--once", COLUMNS="80")
    assert ran.code == 0
    assert "shop/fails" in ran.out
    assert "503" in ran.out
    assert "1 failed" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    document = daemon.ctl("watch", "--once", "-o", "json").json()
    assert document["rates"]["succeeded"] > 0
    assert document["rates"]["retried"] > 0
    (failing,) = document["failing"]
    assert failing["endpoint"] == "shop/fails"
    assert failing["failures"] == 2
