"""Plugins that are not shipped: they do what they are for, and what they do wrong is their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until

PROJECT = Path(__file__).parent / "plugin_project"

HOOKS = "from orchestratord import hookimpl\nimport asyncio, sys\n"

FAULTY = {
    "raises": """
@hookimpl
def after_request(outcome, task):
    raise ValueError("wrong on purpose")
@hookimpl
def on_success(outcome, task):
    raise ValueError("wrong on purpose")
""",
    "exits": """
@hookimpl
def before_request(request):
    sys.exit("away on purpose")
@hookimpl
async def after_request(outcome):
    sys.exit("away on purpose")
@hookimpl
def on_success(outcome):
    raise SystemExit(3)
""",
    "cancels": """
@hookimpl
def before_request(request):
    asyncio.current_task().cancel()
@hookimpl
async def after_request(outcome):
    asyncio.current_task().cancel()
    await asyncio.sleep(0)
@hookimpl
def on_success(outcome):
    raise asyncio.CancelledError
""",
    "hangs": """
@hookimpl
async def before_request(request):
    await asyncio.sleep(3600)
@hookimpl
async def on_success(outcome):
    await asyncio.Event().wait()
""",
    "nonsense": """
@hookimpl
def before_request(request):
    return "a request"
@hookimpl
def after_request(outcome):
    return {"verdict": "success"}
@hookimpl
def on_success(outcome):
    return [42]
""",
}

NAN = """
from orchestratord import Backoff, hookimpl

class Nan(Backoff):
    def seconds(self, n):
        return float("nan")

class Raising(Backoff):
    def seconds(self, n):
        raise RuntimeError("no idea")

class Huge(Backoff):
    def seconds(self, n):
        return 1e300 if n < 2 else -5

@hookimpl
def register_backoff():
    return {"nan": Nan, "raising": Raising, "huge": Huge}
"""

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


def test_hooks_that_go_wrong_are_named_and_nothing_is_lost(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/", 200)
    receiver.reply("/hook", lambda request: Answer(204))
    daemon = make_daemon(plugins={"dirs": ["plugins"], "timeout": "300ms"})
    for name, source in FAULTY.items():
        daemon.plugin(name, HOOKS + source)
    hooks = [
        {"name": phase, "phase": phase, "url": f"{receiver.url}/hook/{phase}"}
        for phase in ("before_request", "after_request", "on_success")
    ]
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/", webhooks=hooks)
    daemon.expect(r"plugin (raises|exits|cancels|hangs|nonsense): ")
    daemon.start()

    ids = [daemon.call("shop/get") for _ in range(5)]
    tasks = [daemon.finish(task_id) for task_id in ids]
    daemon.settle()
    assert {(task["status"], task["attempts"]) for task in tasks} == {("succeeded", 1)}
    assert receiver.count("/") == 5
    for phase in ("before_request", "after_request", "on_success"):
        assert receiver.count(f"/hook/{phase}") == 5
    assert {task["status"] for task in daemon.tasks()} == {"succeeded"}

    log = daemon.log()
    for name, hook, words in (
        ("raises", "after_request", "wrong on purpose"),
        ("raises", "on_success", "wrong on purpose"),
        ("exits", "before_request", "away on purpose"),
        ("exits", "after_request", "away on purpose"),
        ("exits", "on_success", "SystemExit"),
        ("cancels", "after_request", "cancelled itself"),
        ("cancels", "on_success", "CancelledError"),
        ("hangs", "before_request", "300ms|0.3s"),
        ("hangs", "on_success", "300ms|0.3s"),
        ("nonsense", "before_request", "str"),
        ("nonsense", "after_request", "dict"),
        ("nonsense", "on_success", "int"),
    ):
        assert re.search(rf"plugin {name}: {hook} .*({words})", log), (name, hook)
    plugins = {item["name"]: item for item in daemon.status()["plugins"]}
    for name in FAULTY:
        assert plugins[name]["status"] == "loaded"
        assert plugins[name]["faults"] >= 5


@pytest.mark.parametrize("strategy", ["nan", "raising", "huge"])
def test_a_backoff_that_makes_no_sense(
    make_daemon: MakeDaemon, receiver: Receiver, strategy: str
) -> None:
    receiver.on("/", 503, 503, 200)
    daemon = make_daemon(plugins={"dirs": ["plugins"]})
    daemon.plugin("oracle", NAN)
    daemon.api("shop", receiver.url)
    policy = {"backoff": strategy, "jitter": 0, "max_delay": "200ms"}
    daemon.endpoint("shop/get", "/", retry=policy)
    daemon.expect("plugin oracle: backoff (nan|raising)")
    daemon.start()
    task = daemon.finish(daemon.call("shop/get"))
    assert task["status"] == "succeeded"
    assert task["attempts"] == 3
    assert all(0 <= item["delay"] <= 0.2 for item in task["attempt_log"][:-1])
    if strategy == "huge":
        assert [item["delay"] for item in task["attempt_log"]] == [0.2, 0, None]
    else:
        daemon.logged(
            f"plugin oracle: backoff {strategy}.*{'nan' if strategy == 'nan' else 'idea'}"
        )


def test_plugins_that_cannot_be_loaded_are_shown_and_the_others_load(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/", 200)
    daemon = make_daemon(plugins={"dirs": ["plugins"]})
    daemon.plugin("broken", "import nothing_of_this_name\n")
    daemon.plugin("leaves", "raise SystemExit(0)\n")
    daemon.plugin("tells", TELLS)
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/")
    daemon.expect("plugin (broken|leaves) cannot be loaded")
    daemon.start()
    assert daemon.finish(daemon.call("shop/get"))["status"] == "succeeded"
    states = {item["name"]: item["status"] for item in daemon.status()["plugins"]}
    assert states["broken"] == states["leaves"] == "failed"
    assert states["tells"] == states["webhooks"] == states["backoff"] == "loaded"


def test_a_hook_that_blocks_the_loop_is_named_by_the_watchdog(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/", 200)
    daemon = make_daemon(plugins={"dirs": ["plugins"]})
    daemon.plugin(
        "sleeper",
        "import time\nfrom orchestratord import hookimpl\n"
        "@hookimpl\ndef after_request(outcome):\n    time.sleep(4)\n",
    )
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/")
    daemon.expect("plugin sleeper: after_request has blocked the event loop")
    daemon.start()
    task_id = daemon.call("shop/get")
    daemon.logged("plugin sleeper: after_request has blocked the event loop")
    assert daemon.finish(task_id)["status"] == "succeeded"


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
    assert delays == pytest.approx([0.05, 0.05, 0.1, 0.15])
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
    ended = subprocess.run(
        [sys.executable, "-m", "orchestratord", "check", "--config", str(daemon.config)],
        capture_output=True,
        text=True,
        check=False,
        env=daemon.environ,
    )
    return ended.returncode, "unknown strategy 'fibonacci'" in ended.stderr
