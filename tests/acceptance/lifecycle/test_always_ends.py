"""Whatever a plugin does, the daemon goes on until it is told to stop, and then it ends."""

from __future__ import annotations

import signal

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver

pytestmark = pytest.mark.slow

DRAIN = 1.0
ALWAYS = DRAIN + 5
"""Seconds within which a daemon with this `drain_timeout` has ended, whatever happens."""
SLOW = 2.0
"""Seconds for a machine with much to do."""

HEAD = """
import asyncio, sys, threading, time
from orchestratord import hookimpl

"""
EXITS = """
def leave():
    sys.exit("on purpose")

async def task():
    raise {error}("on purpose")

tasks = set()

@hookimpl
def after_request(outcome):
    loop = asyncio.get_running_loop()
    tasks.add(loop.create_task(task()))
    loop.call_soon(leave)
"""
RAISES = """
@hookimpl
def after_request(outcome):
    raise KeyboardInterrupt

@hookimpl
async def on_success(outcome):
    raise KeyboardInterrupt

@hookimpl
def observe(events):
    raise KeyboardInterrupt
"""
SWALLOWS = """
@hookimpl
async def after_request(outcome):
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass
"""
THREADS = """
@hookimpl
def after_request(outcome):
    threading.Thread(target=time.sleep, args=(600,), name="endless").start()
"""
POOL = """
@hookimpl
async def after_request(outcome):
    await asyncio.to_thread(time.sleep, 600)
"""
EXIT = """
import atexit

@hookimpl
def after_request(outcome):
    atexit.register(time.sleep, 600)
"""
BUSY = """
@hookimpl
def on_success(outcome):
    while True:
        pass
"""
SLEEPS = """
@hookimpl
def on_success(outcome):
    time.sleep(600)
"""
BACKGROUND = """
tasks = set()

async def spin():
    while True:
        pass

@hookimpl
def on_success(outcome):
    tasks.add(asyncio.get_running_loop().create_task(spin()))
"""


def started(make_daemon: MakeDaemon, receiver: Receiver, source: str) -> Daemon:
    receiver.on("/", 200)
    daemon = make_daemon(
        plugins={"dirs": ["plugins"], "timeout": "300ms"}, drain_timeout=f"{DRAIN}s"
    )
    daemon.plugin("bad", HEAD + source)
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/")
    daemon.expect("plugin bad: ", "stands still")
    return daemon.start()


@pytest.mark.parametrize("error", ["SystemExit", "KeyboardInterrupt"])
def test_what_a_task_of_a_plugin_raises_ends_nothing(
    make_daemon: MakeDaemon, receiver: Receiver, error: str
) -> None:
    daemon = started(make_daemon, receiver, EXITS.replace("{error}", error))
    for _ in range(3):
        assert daemon.finish(daemon.call("shop/get"))["status"] == "succeeded"
    daemon.logged(rf"plugin bad: a task raised {error}: on purpose in the event loop")
    daemon.logged("plugin bad: a task raised SystemExit: on purpose")
    (plugin,) = (item for item in daemon.status()["plugins"] if item["name"] == "bad")
    assert plugin["faults"] >= 6
    assert daemon.get("/readyz").status_code == 200
    assert daemon.stop(ALWAYS + SLOW) == 0


def test_a_keyboard_interrupt_is_a_fault_like_another(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = started(make_daemon, receiver, RAISES)
    for _ in range(3):
        assert daemon.finish(daemon.call("shop/get"))["status"] == "succeeded"
    for hook in ("after_request", "on_success", "observe"):
        daemon.logged(f"plugin bad: {hook} .*KeyboardInterrupt")
    assert daemon.stop(ALWAYS + SLOW) == 0


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (SWALLOWS, "left a coroutine behind, as it swallows its cancellation: .*"),
        (THREADS, "ended without waiting for threads that go on: .*endless"),
        (POOL, "ended without waiting for threads that go on: asyncio"),
        (EXIT, "ended without waiting for threads that go on: the main one, in what a library"),
    ],
    ids=["swallows", "threads", "pool", "exit"],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_does_not_end_is_left_behind(
    make_daemon: MakeDaemon, receiver: Receiver, source: str, said: str, number: signal.Signals
) -> None:
    daemon = started(make_daemon, receiver, source)
    daemon.expect("left a coroutine", "ended without", "Task was destroyed", "coroutine ignored")
    assert daemon.finish(daemon.call("shop/get"))["status"] == "succeeded"
    daemon.signal(number)
    assert daemon.wait(ALWAYS + SLOW) == 0
    daemon.logged(said)
    daemon.logged("stopped")


@pytest.mark.parametrize(
    ("source", "who"),
    [(BUSY, "on_success"), (SLEEPS, "on_success"), (BACKGROUND, "spin")],
    ids=["busy", "sleeps", "background"],
)
def test_what_holds_the_loop_is_ended_with_the_process(
    make_daemon: MakeDaemon, receiver: Receiver, source: str, who: str
) -> None:
    daemon = started(make_daemon, receiver, source)
    daemon.call("shop/get")
    daemon.logged(f"plugin bad: {who} has blocked the event loop")
    daemon.signal(signal.SIGTERM)
    assert daemon.wait(ALWAYS + SLOW) == 1
    daemon.expect("ended now")
    daemon.logged(f"not stopped .* ended now: plugin bad: {who} holds the event loop")


def test_a_second_signal_ends_it_at_once(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = started(make_daemon, receiver, BUSY)
    daemon.call("shop/get")
    daemon.logged("plugin bad: on_success has blocked the event loop")
    daemon.signal(signal.SIGTERM)
    daemon.signal(signal.SIGINT)
    assert daemon.wait(DRAIN + SLOW) == 1
    daemon.expect("a second signal")
    daemon.logged("a second signal: aborting")


HELD = 3.0
"""Seconds of processor time after which this daemon ends whose interpreter is held; as shipped it
is 35, which would be 35 s of the suite."""
HOLDS = """
import itertools
from orchestratord.daemon import watchdog

watchdog.HELD_UP = 3.0

@hookimpl
def on_success(outcome):
    print("holds the interpreter", file=sys.stderr, flush=True)
    sum(itertools.repeat(1))
"""


def test_what_holds_the_interpreter_is_ended_with_the_process(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    """No other thread runs, and no signal's handler in Python: the kernel ends it."""
    daemon = started(make_daemon, receiver, HOLDS)
    daemon.call("shop/get")
    daemon.logged("holds the interpreter")
    daemon.signal(signal.SIGTERM)
    # Of a busy machine it gets a part only.
    assert daemon.wait(HELD * 10) == -signal.SIGPROF
    daemon.logged("in on_success")
