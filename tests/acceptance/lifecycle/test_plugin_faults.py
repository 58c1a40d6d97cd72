"""Plugins that go wrong: what they do is named, is their own, and loses nothing."""

from __future__ import annotations

import re

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

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
        assert [item["delay"] for item in task["attempt_log"]] == [0.2, 0.1, None]
    else:
        daemon.logged(
            f"plugin oracle: backoff {strategy}.*{'nan' if strategy == 'nan' else 'idea'}"
        )


def test_a_plugin_that_cannot_be_loaded_is_missed_unless_it_is_optional(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/", 200)
    plugins = {"dirs": ["plugins"]}
    daemon = make_daemon(plugins=plugins)
    daemon.plugin("guard", "from orchestratord import hookimpl\n\nimport nothing_of_this_name\n")
    daemon.plugin("leaves", "raise KeyboardInterrupt\n")
    daemon.plugin("oracle", NAN)
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/")
    daemon.expect("(guard|leaves) cannot be loaded", "configuration is refused", "no folder")
    daemon.launch()
    assert daemon.wait() == 78
    daemon.logged(r"plugins/guard.py:3:1: the plugin guard cannot be loaded: ModuleNotFoundError")
    daemon.logged(r"plugins/leaves.py:1:1: the plugin leaves cannot be loaded: KeyboardInterrupt")

    optional = {**daemon.settings, "plugins": {**plugins, "optional": ["guard", "leaves"]}}
    daemon.write("orchestratord.yaml", optional)
    daemon.start()
    assert daemon.finish(daemon.call("shop/get"))["status"] == "succeeded"
    known = {item["name"]: item for item in daemon.status()["plugins"]}
    assert known["guard"]["status"] == known["leaves"]["status"] == "failed"
    assert known["guard"]["faults"] == 1
    assert known["oracle"]["status"] == known["webhooks"]["status"] == "loaded"

    for wrong in ({**plugins, "optional": ["leaves"]}, {"dirs": ["plugins", "gone"]}):
        daemon.write("orchestratord.yaml", {**daemon.settings, "plugins": wrong})
        refused = daemon.post("/v1/reload")
        assert refused.status_code == 422, refused.text
        assert daemon.finish(daemon.call("shop/get"))["status"] == "succeeded"
    assert "there is no folder" in refused.text


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


WRONG_EXECUTOR = """
from orchestratord import Executor, Target, hookimpl

class Odd(Executor):
    type = "odd"
    phases = ("", "")

    def standing(self, endpoint, webhook, config):
        return Target(endpoint, endpoint.retry, endpoint.timeout, True, "odd", 10, ())

    def prepare(self, task, target, now):
        if task.params["where"] == "prepare":
            raise KeyError("wrong before")
        return None

    async def execute(self, request, task, target, send):
        raise LookupError("wrong on purpose")

@hookimpl
def register_executor():
    return [Odd()]
"""


@pytest.mark.parametrize("where", ["prepare", "execute"])
def test_what_an_executor_raises_is_its_plugins(make_daemon: MakeDaemon, where: str) -> None:
    daemon = make_daemon(plugins={"dirs": ["plugins"]})
    daemon.plugin("odd", WRONG_EXECUTOR)
    daemon.expect("wrong")
    daemon.api("odd")
    params = {"where": {"type": "string"}}
    daemon.write(
        "apis/odd/endpoints/do.yaml",
        {"type": "odd", "params": params, "retry": {"max_attempts": 1}},
    )
    daemon.start()
    task = daemon.finish(daemon.call("odd/do", where=where))
    assert (task["status"], task["reason"]) == ("failed", "exhausted")
    logged = daemon.logged("plugin odd: executor")
    assert f"task {task['id']}" in logged
    assert ("KeyError" if where == "prepare" else "LookupError") in logged
    plugin = next(one for one in daemon.status()["plugins"] if one["name"] == "odd")
    assert plugin["faults"] == 1
    assert "wrong" in plugin["last_fault"]
    assert "Task exception was never retrieved" not in daemon.log()


SAME_ROUTE = """
from orchestratord import Answer, Route, hookimpl

@hookimpl
def register_routes(control):
    async def answer(path, query, body):
        return Answer({})
    return [Route("GET", "/v1/stock", answer)]
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_two_plugins_at_one_route_keep_the_daemon_from_its_start(
    make_daemon: MakeDaemon, workers: int
) -> None:
    daemon = make_daemon(plugins={"dirs": ["plugins"]}, workers=workers)
    daemon.plugin("one", SAME_ROUTE)
    daemon.plugin("two", SAME_ROUTE)
    daemon.expect("is registered by two and by one", "ended with code 78")
    assert daemon.run("check").code == 78
    daemon.launch()
    assert daemon.wait() == 78
    daemon.logged(
        r"CRITICAL .*GET /v1/stock is registered by two and by one \(two: .*/two.py, one:"
    )


def test_a_plugin_that_takes_long_or_exits_while_it_loads_is_named(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/", 200)
    daemon = make_daemon(plugins={"dirs": ["plugins"], "optional": ["leaves"]})
    daemon.plugin("leaves", "import os\nos._exit(3)\n")
    wait = 'import pathlib, time\nwhile not pathlib.Path(__file__).with_name("go").exists():\n'
    daemon.plugin("slow", f"{wait}    time.sleep(0.05)\n")
    daemon.expect("plugin leaves cannot be loaded", "plugin slow is still loading")
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/")
    daemon.launch()
    daemon.logged("WARNING plugins: plugin slow is still loading after 3 s")
    (daemon.config / "plugins" / "go").touch()
    daemon.logged(r"plugin leaves cannot be loaded: SystemExit: it called os._exit\(3\)")
    until(daemon.listens, "the start")
    assert daemon.finish(daemon.call("shop/get"))["status"] == "succeeded"
