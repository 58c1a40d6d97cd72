"""How a daemon with several workers ends, and where it does not begin."""

from __future__ import annotations

import json
import os
import signal
import socket
from contextlib import closing

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until
from tests.acceptance.workers.crew import (
    DIED,
    NAMES_ITSELF,
    first,
    followed,
    senders,
    serves,
    worker_pids,
)

pytestmark = pytest.mark.slow

TOKEN = "a-token-for-this-test-alone"
DEADLY = """
import os, signal
from orchestratord import hookimpl

@hookimpl
def before_request(request, task):
    if task.params.get("n") == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
"""
BLOCKS = """
import pathlib, time
from orchestratord import hookimpl

BLOCKED = pathlib.Path(__file__).with_name("blocked")

@hookimpl
def before_request(request, task):
    if task.endpoint_id == "shop/block" and not BLOCKED.exists():
        BLOCKED.touch()
        time.sleep(60)
"""

SLOW = """
import pathlib, time
from orchestratord import hookimpl

def slowly(where):
    here = pathlib.Path(__file__).with_name(where)
    if here.exists():
        here.with_name("reached").touch()
        for _ in range(100):
            time.sleep(0.01)
            yield None

@hookimpl
def check_endpoint(endpoint):
    return [found for found in slowly("reading") if found]

@hookimpl
def config_adopted(config):
    yield from slowly("adopting")
"""


def gone(pids: set[int]) -> bool:
    return not any(os.path.exists(f"/proc/{pid}/exe") for pid in pids)


def busy(daemon: Daemon, receiver: Receiver) -> tuple[list[int], set[int]]:
    """Ten calls that are under way in both workers; their ids, and the workers."""
    receiver.forget()
    receiver.hold("/get")
    ids = daemon.batch("crm/get", [{}] * 10)
    until(lambda: receiver.count() == 10, "ten calls under way")
    assert senders(receiver) == worker_pids(daemon)
    return ids, worker_pids(daemon)


def test_ways_to_end(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon(workers=2, plugins={"dirs": ["plugins"]}, drain_timeout="10s")
    daemon.plugin("names", NAMES_ITSELF)
    daemon.plugin("blocks", BLOCKS)
    daemon.api("crm", receiver.url)
    daemon.api("shop", receiver.url)
    daemon.endpoint("crm/get", "/get", params={"n": {}})
    daemon.api("uno", receiver.url)  # the only endpoint of an API has all of its slots
    daemon.endpoint("uno/one", "/one/{{ params.n }}", params={"n": {}})
    daemon.endpoint("shop/block", "/get")
    daemon.start()

    # What is killed with the supervisor goes on after a restart. The loop of one of them is held.
    ids, pids = busy(daemon, receiver)
    ids.append(daemon.call("shop/block", "300ms"))
    until((daemon.config / "plugins" / "blocked").exists, "a loop that is held")
    daemon.expect("the supervisor has died")
    daemon.kill()
    until(lambda: gone(pids) and not daemon.listens(), "the workers' end", 5)
    daemon.start()
    receiver.let_go("/get")
    assert {daemon.finish(task_id)["status"] for task_id in ids} == {"succeeded"}

    # A terminal sends Ctrl-C to all processes of the group; all drain, once.
    ids, pids = busy(daemon, receiver)
    os.killpg(daemon.pid, signal.SIGINT)
    daemon.logged("draining: up to 10s")
    receiver.let_go("/get")
    assert daemon.wait() == 0
    assert gone(pids)
    assert daemon.log().count("draining: up to 10s") == 1
    assert receiver.count() == 10
    daemon.start()
    assert {daemon.task(task_id)["status"] for task_id in ids} == {"succeeded"}

    the_first_one_leaves_last(daemon, receiver)
    daemon.start()

    # A second signal ends them, with what is under way.
    ids, pids = busy(daemon, receiver)
    daemon.expect("a second signal: aborting")
    daemon.signal(signal.SIGTERM)
    daemon.signal(signal.SIGINT)
    assert daemon.wait(8) == 1
    assert gone(pids)
    daemon.start()
    receiver.let_go("/get")
    assert {daemon.finish(task_id)["status"] for task_id in ids} == {"succeeded"}

    # What does not end within `drain_timeout` is interrupted, in all of them.
    daemon.write("orchestratord.yaml", {**daemon.settings, "drain_timeout": "500ms"})
    daemon.reload()
    busy(daemon, receiver)
    assert daemon.stop() == 0
    receiver.let_go("/get")
    assert daemon.log().count("within drain_timeout; interrupted") == 2


def the_first_one_leaves_last(daemon: Daemon, receiver: Receiver) -> None:
    """It serves the API and publishes what happens until the others have drained."""
    receiver.forget()
    for n in range(10):
        receiver.hold(f"/one/{n}")
    with followed(daemon) as lines:
        ids = daemon.batch("uno/one", [{"n": n} for n in range(10)])
        until(lambda: receiver.count() == 10, "ten calls under way")
        serving = str(first(daemon))
        here = {item.path for item in receiver.received() if item.headers["x-worker"] == serving}
        others = {item.path for item in receiver.received()} - here
        assert here
        assert others
        daemon.signal(signal.SIGTERM)
        daemon.logged("draining: up to 10s")
        for path in here:
            receiver.let_go(path)
        until(lambda: daemon.status()["in_flight"] == len(others), "the first one's end")
        assert len(daemon.finish_none(ids, 0.5)) == len(here)
        for path in others:
            receiver.let_go(path)
        told = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert daemon.wait() == 0
    assert {event["id"] for event in told if event["type"] == "task.succeeded"} == set(ids)


def test_where_it_does_not_begin(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    """A file, a socket or a port that another one has; endpoints of waiting tasks that are gone."""
    one = make_daemon(workers=2, http={"bind": "127.0.0.1:0", "token": TOKEN})
    one.api("crm", receiver.url)
    for n in range(6):
        one.endpoint(f"crm/get{n}", "/get")
    one.start()
    pids = worker_pids(one)
    for workers, settings, why in (
        (2, {"database": one.settings["database"]}, "already|in use|another"),
        (1, {"database": one.settings["database"]}, "already|in use|another"),
        (2, {"control_socket": one.settings["control_socket"]}, "socket|already"),
    ):
        other = make_daemon(workers=workers, **settings)
        other.expect(".")
        other.launch()
        assert other.wait() == 1, other.log()
        other.logged(why)
    assert worker_pids(one) == pids
    assert one.listens()
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        other = make_daemon(
            workers=2,
            http={"bind": f"127.0.0.1:{taken.getsockname()[1]}", "token": TOKEN},
        )
        other.expect(".")
        other.launch()
        assert other.wait() == 1, other.log()
        other.logged("in use")

    for n in range(6):
        one.call(f"crm/get{n}", "1h")
    assert one.stop() == 0
    alone = make_daemon(database=one.settings["database"])
    alone.api("crm", receiver.url)
    for n in range(6):
        alone.endpoint(f"crm/get{n}", "/get")
    alone.start()
    one.expect(".")
    one.launch()
    assert one.wait() == 1, one.log()
    assert alone.stop() == 0
    for n in range(1, 6):
        (one.config / "apis" / "crm" / "endpoints" / f"get{n}.yaml").unlink()
    one.launch()
    assert one.wait() == 78, one.log()
    one.start("--accept-removals")
    assert len(worker_pids(one)) == 2
    assert one.stop() == 0


def test_a_call_that_kills_its_worker_is_found(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon(workers=2, plugins={"dirs": ["plugins"]})
    daemon.plugin("deadly", DEADLY)
    daemon.plugin("names", NAMES_ITSELF)
    daemon.api("crm", receiver.url, concurrency=20)
    daemon.endpoint("crm/get", "/get", params={"n": {}})
    daemon.expect(DIED)
    daemon.start()
    receiver.hold("/get")
    neighbours = daemon.batch("crm/get", [{"n": n} for n in range(18)])
    until(lambda: receiver.count() == 18, "the neighbours under way")
    deadly = daemon.call("crm/get", "100ms", n="deadly")
    task = until_ended(daemon, deadly)
    assert (task["status"], task["reason"]) == ("failed", "poisoned")
    assert task["deaths"] == 3
    receiver.let_go("/get")

    def ended() -> bool:
        return all(daemon.task(task_id)["status"] == "succeeded" for task_id in neighbours)

    until(ended, "the neighbours' success")
    assert len([line for line in daemon.log().splitlines() if "ended by signal" in line]) == 3
    until(lambda: len(worker_pids(daemon)) == 2 and serves(daemon), "the third successor")


def until_ended(daemon: Daemon, task_id: int) -> dict[str, object]:
    """Ask again and again: the one that is asked may die meanwhile."""

    def look() -> dict[str, object] | None:
        if not daemon.listens():
            return None
        try:
            task = daemon.task(task_id)
        except Exception:
            return None
        return task if task["status"] in ("succeeded", "failed") else None

    found = until(look, f"the end of task {task_id}", 40)
    assert found is not None
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_under_way_at_the_end_is_given_up_or_brought_to_its_end(
    make_daemon: MakeDaemon, workers: int
) -> None:
    """It stopped wherever it was, or failed as the queue was closed."""
    daemon = make_daemon(workers=workers, plugins={"dirs": ["plugins"]})
    daemon.plugin("slow", SLOW)
    plugins = daemon.config / "plugins"
    daemon.api("crm", "http://localhost:9")
    before = ""
    for number, (where, taken_up) in enumerate({"reading": False, "adopting": True}.items()):
        (plugins / "reached").unlink(missing_ok=True)
        daemon.endpoint("crm/get", f"/{number}")
        daemon.start()
        (plugins / where).touch()
        daemon.endpoint("crm/get", f"/{number}/again")
        daemon.signal(signal.SIGHUP)
        until((plugins / "reached").exists, f"that it is {where}")
        assert daemon.stop() == 0
        (plugins / where).unlink()
        log = daemon.log().removeprefix(before)
        assert ("generation 2 is in force" in log) is taken_up
        # Beside one that is taken up the watcher may have begun another one of the same file.
        assert taken_up or "left the configuration as it is" in log
        before += log
