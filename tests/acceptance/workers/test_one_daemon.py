"""To its users it is one daemon: one API, one status, one log, metrics and events that add up, and
limits as they are written."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sqlite3
from collections import Counter

import httpx
import pytest

from tests.acceptance.api.test_metrics import Scrape
from tests.acceptance.api.test_tcp import port_of
from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Connection, Received, Receiver
from tests.acceptance.waiting import until
from tests.acceptance.workers.crew import NAMES_ITSELF, first, followed, senders, worker_pids

pytestmark = pytest.mark.slow

BREAKS = """
import os
from orchestratord import hookimpl

@hookimpl
def after_request(outcome, task):
    if task.params.get("n") == "fault":
        raise ValueError(f"wrong in {os.getpid()}")
"""
SLOW_DISK = """
import random, time
from orchestratord.values import world

sync = world.fdatasync

def slow(descriptor):
    time.sleep(random.choice((0, 0, 0.3)))
    sync(descriptor)

world.fdatasync = slow
"""
TOKEN = "a-token-for-this-test-alone"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
NUMBERED = {"params": {"n": {}}}


@pytest.fixture(scope="module")
def daemon(make_shared: MakeDaemon, shared_receiver: Receiver) -> Daemon:
    daemon = make_shared(
        workers=2,
        concurrency=15,
        defaults={"retry": retry()},
        http={"bind": "127.0.0.1:0", "token": TOKEN},
        # Without these, no worker makes events unless someone follows them.
        plugins={"dirs": ["plugins"], "disabled": ["metrics", "tracing"]},
    )
    daemon.plugin("names", NAMES_ITSELF)
    daemon.plugin("breaks", BREAKS)
    for name, keys in {
        "crm": {},
        "one": {"concurrency": 1},
        "two": {"concurrency": 1},
        "slow": {"rate_limit": "4/s"},
        "told": {},
    }.items():
        daemon.api(name, shared_receiver.url, **keys)
        daemon.endpoint(f"{name}/get", f"/{name}/{{{{ params.n }}}}", **NUMBERED)
    return daemon.start()


class AtOnce:
    """Answers after a moment; how many it was asked for at the same time, at most."""

    def __init__(self, seconds: float = 0.02) -> None:
        self.seconds = seconds
        self.now = self.most = 0

    async def __call__(self, request: Received, connection: Connection) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(self.seconds)
        self.now -= 1
        await connection.answer(Answer(200))


def test_status_and_events_are_those_of_all_workers(
    daemon: Daemon, shared_receiver: Receiver
) -> None:
    receiver = shared_receiver
    for n in range(30):
        receiver.hold(f"/crm/{n}")
    with followed(daemon) as lines:
        ids = daemon.batch("crm/get", [{"n": n} for n in range(30)])
        until(lambda: receiver.count() == 10, "all that the API may have in flight")
        pids = worker_pids(daemon)
        assert len(pids) == 2
        assert senders(receiver) == pids
        status = daemon.status()
        assert (status["in_flight"], status["concurrency"]) == (10, 15)
        (lane,) = [lane for lane in status["lanes"] if lane["name"] == "api:crm"]
        assert (lane["in_flight"], lane["concurrency"]) == (10, 10)
        # Signals go to the supervisor, and so it is its pid that is shown.
        assert status["pid"] == daemon.pid
        assert [row["pid"] for row in status["daemons"]] == [daemon.pid]
        assert receiver.count() == 10
        for n in range(30):
            receiver.let_go(f"/crm/{n}")
        counts: Counter[tuple[str, int]] = Counter()
        for line in lines:
            if line.startswith("data: ") and "id" in (event := json.loads(line[6:])):
                counts[event["type"], event["id"]] += 1
            if sum(counts["task.succeeded", task_id] for task_id in ids) == 30:
                break
    happened = ("task.created", "task.started", "task.succeeded")
    assert counts == {(type_, task_id): 1 for type_ in happened for task_id in ids}
    # What the other worker has written is counted now and then.
    until(lambda: daemon.status()["queue"]["succeeded"] == 30, "all calls in the status")
    assert daemon.status()["in_flight"] == 0
    assert f"pid {daemon.pid}, " in (said := daemon.ctl("status").out)
    assert "2 workers" in said
    assert receiver.count() == 30
    answer = httpx.get(f"http://127.0.0.1:{port_of(daemon)}/healthz")
    assert answer.status_code == 200


def test_the_page_shows_the_pid_that_signals_reach(daemon: Daemon) -> None:
    both = "a sign of life of each worker"
    until(lambda: len(daemon.status()["daemons"][0]["workers"]) == 2, both)
    page = httpx.get(f"http://127.0.0.1:{port_of(daemon)}/daemons", headers=AUTHORIZED).text
    assert re.findall(r"pid (\d+)", page) == [str(daemon.pid)]  # and no worker's


def test_each_worker_keeps_to_a_core_with_all_its_threads(daemon: Daemon) -> None:
    cores = os.sched_getaffinity(0)
    assert os.sched_getaffinity(daemon.pid) == cores
    kept = []
    for pid in worker_pids(daemon):
        (alike,) = {
            frozenset(os.sched_getaffinity(int(thread)))
            for thread in os.listdir(f"/proc/{pid}/task")
        }
        kept.append(alike)
    if len(cores) <= len(kept):
        assert set().union(*kept) == cores
        assert all(len(one) == 1 for one in kept)
    else:
        assert kept == [cores] * len(kept)


def test_limits_are_as_written(daemon: Daemon, shared_receiver: Receiver) -> None:
    receiver = shared_receiver
    lanes = {name: AtOnce() for name in ("one", "two")}
    for n in range(12):
        for name, at_once in lanes.items():
            receiver.on(f"/{name}/{n}", at_once)
        receiver.on(f"/slow/{n}", 200)
    for name in ("one", "two", "slow"):
        daemon.batch(f"{name}/get", [{"n": n} for n in range(12)])
    daemon.settle()
    assert [at_once.most for at_once in lanes.values()] == [1, 1]
    times = sorted(item.at for item in receiver.received() if item.path.startswith("/slow/"))
    assert len(times) == 12
    # With a rate for each worker it would be 0.5; one that comes late makes it less than 1.
    assert min(later - sooner for sooner, later in zip(times, times[4:], strict=False)) > 0.7


def test_a_rate_is_kept_where_the_disk_is_slow(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    """A claim that takes a while to reach the disk begins late, and another worker's does not."""
    receiver.on("/", 200)
    receiver.on("/fails", 503, 200, 503, 200)
    daemon = make_daemon(
        workers=2, defaults={"retry": retry("500ms")}, plugins={"dirs": ["plugins"]}
    )
    daemon.plugin("slow_disk", SLOW_DISK)
    daemon.api("crm", receiver.url, rate_limit="15/s")
    daemon.endpoint("crm/get", "/")
    daemon.endpoint("crm/post", "/", method="POST")
    daemon.endpoint("crm/fails", "/fails")
    with daemon.start():
        for name, count in (("get", 75), ("post", 25), ("fails", 2)):
            daemon.batch(f"crm/{name}", [{}] * count)
        daemon.settle()
        with sqlite3.connect(daemon.database) as queue:
            begun = sorted(at for (at,) in queue.execute("SELECT started_at FROM attempts"))
    assert len(begun) == 104
    gaps = [later - sooner for sooner, later in zip(begun, begun[15:], strict=False)]
    assert min(gaps) >= 1_000
    times = sorted(item.at for item in receiver.received())
    # As they arrive: this process may be busy with something else meanwhile.
    assert min(later - sooner for sooner, later in zip(times, times[15:], strict=False)) > 0.9


def test_what_a_receiver_asks_for_counts_for_all(daemon: Daemon, shared_receiver: Receiver) -> None:
    receiver = shared_receiver
    receiver.on("/told/0", Answer(429, headers={"Retry-After": "2"}), 200)
    for n in range(1, 21):
        receiver.on(f"/told/{n}", 200)
    # It is another worker that is told: what is called here begins in the first one.
    task = daemon.call("told/get", "300ms", n=0)
    serving = first(daemon)
    os.kill(serving, signal.SIGSTOP)
    until(lambda: receiver.count("/told/0") == 1, "the answer that asks to wait")
    os.kill(serving, signal.SIGCONT)
    assert serving not in senders(receiver, "/told/0")
    told = receiver.received("/told/0")[0].at
    until(lambda: daemon.status()["daemons"][0]["waiting"], "a lane that waits")
    # The first worker answers, and says of what would be due by then what it knows itself.
    soon = daemon.call("told/get", "1s", n=20)
    until(lambda: daemon.task(soon)["waits"], "its having heard of it, too")
    called = daemon.call("told/get", n=1)
    ids = [task, soon, called, *daemon.batch("told/get", [{"n": n} for n in range(2, 20)])]
    assert {daemon.finish(task_id)["status"] for task_id in ids} == {"succeeded"}
    begun = [item.at for item in receiver.received() if item.path.startswith("/told/")]
    assert min(at for at in begun if at > told) >= told + 1.9
    assert len(begun) == 22


def test_faults_of_plugins_are_counted_from_all(daemon: Daemon, shared_receiver: Receiver) -> None:
    receiver = shared_receiver
    daemon.expect("plugin breaks: after_request")
    receiver.forget()
    receiver.hold("/crm/fault")
    daemon.batch("crm/get", [{"n": "fault"}] * 10)
    until(lambda: receiver.count("/crm/fault") == 10, "as many as both may have in flight")
    assert senders(receiver) == worker_pids(daemon)
    receiver.let_go("/crm/fault")
    daemon.settle()

    def faults() -> bool:
        plugins = {found["name"]: found for found in daemon.get("/v1/plugins").json()["plugins"]}
        assert plugins["breaks"]["faults"] <= 10
        return bool(plugins["breaks"]["faults"] == 10)

    until(faults, "the faults in all workers")


def test_the_log_is_one(daemon: Daemon) -> None:
    daemon.logged("ready: ")  # it serves before it says so
    lines = daemon.log().splitlines()
    line = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z (INFO|WARNING|ERROR) [\w.]+: \S")
    assert [text for text in lines if not line.match(text)] == []
    assert sum(" ready: " in text for text in lines) == 1


def test_metrics_are_what_the_receiver_saw_and_one_at_a_time_is_one(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    at_once = AtOnce(0.005)
    daemon = make_daemon(workers=3, concurrency=1, defaults={"retry": retry()})
    for name in ("a", "b", "c"):
        daemon.api(name, receiver.url)
        receiver.on(f"/{name}", at_once)
        daemon.endpoint(f"{name}/get", f"/{name}")
    daemon.start()
    for name in ("a", "b", "c"):
        daemon.batch(f"{name}/get", [{}] * 20)
    daemon.settle()
    assert at_once.most == 1

    def attempts(scrape: Scrape) -> float:
        labels = {"kind": "call", "status_class": "2xx", "outcome": "succeeded"}
        counted = "orchestratord_attempts_total"
        return sum(scrape.value(counted, endpoint=f"{name}/get", **labels) for name in "abc")

    until(lambda: attempts(Scrape(daemon)) >= 60, "all attempts in the metrics")
    assert attempts(Scrape(daemon)) == receiver.count() == 60
    # More than one may be in flight as soon as the files say so, and all workers take part.
    daemon.write("orchestratord.yaml", {**daemon.settings, "concurrency": 7})
    daemon.adopt()
    for name in ("a", "b", "c"):
        receiver.hold(f"/{name}")
        daemon.batch(f"{name}/get", [{}] * 10)
    until(lambda: receiver.count() == 67, "seven in flight")
    status = daemon.status()
    assert (status["in_flight"], status["concurrency"]) == (7, 7)
    assert Scrape(daemon).value("orchestratord_in_flight") == 7
    for name in ("a", "b", "c"):
        receiver.let_go(f"/{name}")
    daemon.settle()
    assert receiver.count() == 90
