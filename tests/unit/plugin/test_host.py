"""Finding, loading, disabling and registering plugins."""

from __future__ import annotations

import importlib.metadata
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from orchestratord.errors import PluginError
from orchestratord.model.backoff import Backoff
from orchestratord.model.endpoint import Endpoint, Setting
from orchestratord.model.task import Explanation, Table, Task
from orchestratord.plugin.executor import Executor
from orchestratord.plugin.hook_marks import hookimpl, only_for
from orchestratord.plugin.hookspecs import PHASES
from orchestratord.plugin.host import Host, Reached
from orchestratord.testing import Rig, task

LOG = "orchestratord.plugins"

File = Callable[..., Path]


@pytest.fixture
def plugin_file(tmp_path: Path) -> Iterator[File]:
    """`plugin_file(name, source)` writes a single-file plugin and gives its folder."""
    before = set(sys.modules)

    def write(name: str, source: str, folder: str = "plugins") -> Path:
        (tmp_path / folder).mkdir(exist_ok=True)
        head = "from orchestratord import *\nfrom orchestratord import hookimpl\n"
        (tmp_path / folder / name).write_text(head + source)
        return tmp_path / folder

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("orchestratord_plugin_"):
            del sys.modules[name]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`installed(name=source, …)`: a distribution with these entry points, and no other one."""
    site = tmp_path / "site"

    def install(**sources: str) -> None:
        info = site / "some_plugins-1.2.3.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: some-plugins\nVersion: 1.2.3\n"
        )
        lines = ["[orchestratord]"]
        for name, source in sources.items():
            (site / f"installed_{name}.py").write_text(
                "from orchestratord import hookimpl, Setting\n" + source
            )
            lines.append(f"{name} = installed_{name}")
            monkeypatch.delitem(sys.modules, f"installed_{name}", raising=False)
        (info / "entry_points.txt").write_text("\n".join(lines))
        monkeypatch.syspath_prepend(str(site))
        distribution = importlib.metadata.PathDistribution(info)
        monkeypatch.setattr(
            importlib.metadata,
            "entry_points",
            lambda *, group: distribution.entry_points.select(group=group),
        )

    return install


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host for which no plugin is installed."""
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [])
    return Host()


SUCCESS = "@hookimpl\ndef on_success(task):\n    return []\n"


# -- finding --------------------------------------------------------------------------------------


def test_the_shipped_plugins_load_through_the_entry_points() -> None:
    host = Host()
    host.load()
    shipped = {point.name for point in importlib.metadata.entry_points(group="orchestratord")}
    assert {"backoff", "metrics", "tracing", "webhooks"} <= shipped
    assert {name for name, info in host.plugins.items() if info.status == "loaded"} == shipped
    assert {"fixed", "linear", "exponential", "list"} <= host.registry.backoffs.keys()
    assert "webhooks" in host.registry.settings


def test_a_single_file_is_a_plugin(empty: Host, plugin_file: File) -> None:
    folder = plugin_file(
        "my-plugin.py", SUCCESS + "@hookimpl\ndef on_retry(task):\n    return []\n"
    )
    plugin_file("_private.py", "raise SystemExit")
    plugin_file(".hidden.py", "raise SystemExit")
    (folder / "notes.txt").write_text("no plugin")
    empty.load([folder])
    [info] = empty.plugins.values()
    assert (info.name, info.version, info.status) == ("my-plugin", "file", "loaded")
    assert info.hooks == ("on_retry", "on_success")
    assert info.source == str(folder / "my-plugin.py")


def test_a_file_may_hold_dataclasses_and_find_itself(empty: Host, plugin_file: File) -> None:
    folder = plugin_file(
        "typed.py",
        "import dataclasses, sys\n"
        "@dataclasses.dataclass\nclass A:\n    x: 'int' = 1\n"
        "assert sys.modules[__name__].A is A\n" + SUCCESS,
    )
    empty.load([folder])
    assert empty.plugins["typed"].status == "loaded"


def test_an_installed_plugin_has_the_version_of_its_distribution(
    installed: Callable[..., None],
) -> None:
    installed(hello=SUCCESS)
    host = Host()
    host.load()
    info = host.plugins["hello"]
    assert (info.version, info.source, info.hooks) == ("1.2.3", "entry point", ("on_success",))


# -- what cannot be loaded harms only itself ------------------------------------------------------

BROKEN = {
    "raises": "raise ValueError('no')",
    "exits": "import sys\nsys.exit(3)",
    "exits_hard": "raise SystemExit",
    "cancels": "import asyncio\nraise asyncio.CancelledError",
    "interrupts_generators": "raise GeneratorExit",
    "no_python": "def (",
    "imports_nothing": "import a_module_that_is_not_there",
    "unknown_argument": "@hookimpl\ndef on_success(tusk):\n    return []",
    "unknown_hook": "@hookimpl\ndef on_sucess(task):\n    return []",
    "old_wrapper": "@hookimpl(hookwrapper=True)\ndef on_success(task):\n    yield",
    "new_wrapper": "@hookimpl(wrapper=True)\ndef before_request(request):\n    return (yield)",
    "raising_registration": "@hookimpl\ndef register_settings():\n    raise ValueError('no')",
    "exiting_registration": "@hookimpl\ndef register_settings():\n    raise SystemExit",
    "async_registration": "@hookimpl\nasync def register_settings():\n    return []",
    "no_settings": "@hookimpl\ndef register_settings():\n    return ['key']",
    "no_backoff": "@hookimpl\ndef register_backoff():\n    return {'odd': int}",
    "no_mapping": "@hookimpl\ndef register_backoff():\n    return 5",
    "no_executor": "@hookimpl\ndef register_executor():\n    return [Executor]",
    "no_table": "@hookimpl\ndef register_tables():\n    return [{'name': 'x'}]",
    "bad_str": (
        "class Bad(Exception):\n    def __str__(self):\n        raise SystemExit\nraise Bad\n"
    ).replace("SystemExit", "ValueError"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_plugin_that_cannot_be_loaded_is_named_and_the_others_load(
    name: str, empty: Host, plugin_file: File, caplog: pytest.LogCaptureFixture
) -> None:
    folder = plugin_file(f"{name}.py", BROKEN[name])
    plugin_file("a_good_one.py", SUCCESS)
    plugin_file("z_good_one.py", SUCCESS)
    empty.load([folder])
    info = empty.plugins[name]
    assert info.status == "failed"
    assert info.error
    assert info.hooks == ()
    assert f"plugin {name} cannot be loaded" in caplog.text
    assert empty.plugins["a_good_one"].status == empty.plugins["z_good_one"].status == "loaded"
    compiled = empty.compiled("on_success")
    assert compiled is not None
    assert {item.plugin for item in compiled} == {"a_good_one", "z_good_one"}
    assert empty.compiled("before_request") is None


def test_an_installed_plugin_whose_import_exits_is_listed_as_failed(
    installed: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    installed(bad="raise SystemExit('bye')", good=SUCCESS)
    host = Host()
    host.load()
    assert host.plugins["bad"].status == "failed"
    assert host.plugins["bad"].error == "SystemExit: bye"
    assert host.plugins["good"].status == "loaded"
    assert "plugin bad cannot be loaded: SystemExit: bye" in caplog.text


def test_what_a_failed_plugin_had_registered_is_taken_back(empty: Host, plugin_file: File) -> None:
    folder = plugin_file(
        "half.py",
        "@hookimpl\ndef register_settings():\n    return [Setting('mine', int, default=0)]\n"
        "@hookimpl\ndef register_tables():\n    raise ValueError\n",
    )
    plugin_file(
        "other.py",
        "@hookimpl\ndef register_settings():\n    return [Setting('mine', int, default=1)]\n",
    )
    empty.load([folder])
    assert empty.plugins["half"].status == "failed"
    assert empty.registry.settings["mine"].default == 1
    assert empty.registry.owners["key", "mine"] == "other"


@pytest.mark.parametrize(
    ("source", "said", "line"),
    [
        ("def (", "SyntaxError: invalid syntax", 3),
        ("\nraise ValueError('no')", "ValueError: no", 4),
        ("@hookimpl\ndef on_sucess(task): ...", "'on_sucess', did you mean 'on_success'?", 3),
        ("@hookimpl\ndef on_success(tsk): ...", "no argument 'tsk', did you mean 'task'?", 3),
        ("@hookimpl\ndef observe(*, events): ...", "given events by its position", 3),
        ("def before_request(request): ...", "before_request has the name of a hook, but no @", 3),
        ("@hookimpl(wrapper=True)\ndef on_retry():\n    yield", "on_retry is a hook wrapper", 3),
    ],
)
def test_what_is_wrong_with_a_plugin_is_said_plainly(
    empty: Host, plugin_file: File, source: str, said: str, line: int
) -> None:
    empty.load([plugin_file("wrong.py", source)])
    info = empty.plugins["wrong"]
    assert info.status == "failed"
    assert said in (info.error or "")
    assert info.line == line
    assert info.faults == 1


def test_all_of_its_hooks_that_are_wrong_are_said(empty: Host, plugin_file: File) -> None:
    source = "def observe(events): ...\n@hookimpl\ndef on_retry(task, request, *more): ...\n"
    empty.load([plugin_file("wrong.py", source)])
    error = empty.plugins["wrong"].error
    assert error is not None
    assert error.startswith("observe has the name of a hook, but no @hookimpl above it; ")
    assert "on_retry has no argument 'request'" in error
    assert "more" not in error


# -- names given twice ----------------------------------------------------------------------------


def test_two_plugins_of_one_name_are_an_error_that_names_both(
    empty: Host, plugin_file: File
) -> None:
    first, second = plugin_file("same.py", SUCCESS), plugin_file("same.py", SUCCESS, "more")
    with pytest.raises(PluginError, match="two plugins are named 'same'") as caught:
        empty.load([first, second])
    assert str(first / "same.py") in str(caught.value)
    assert str(second / "same.py") in str(caught.value)


def test_a_file_with_the_name_of_an_installed_plugin_is_an_error(
    installed: Callable[..., None], plugin_file: File
) -> None:
    installed(hello=SUCCESS)
    with pytest.raises(PluginError, match=r"'hello': entry point and .*hello\.py"):
        Host().load([plugin_file("hello.py", SUCCESS)])


class Odd(Backoff):
    def seconds(self, n: int) -> float:
        return 1.0


class Carrier(Executor):
    type = "pigeon"

    def standing(self, endpoint: Any, webhook: str, config: Any) -> Any: ...

    def prepare(self, task: Any, target: Any, now: float) -> Any: ...

    async def execute(self, request: Any, task: Any, target: Any, send: Any) -> Any: ...


class Lazy:
    """As Django's settings and connections are: it raises where it is asked for anything."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("settings are not configured")


def test_hooks_of_a_module_are_found_among_all_that_it_imports() -> None:
    class Notes:
        @hookimpl
        def on_success(self) -> None: ...

    @hookimpl
    def on_retry() -> None: ...

    host, plugin = Host(), ModuleType("mine")
    found = {"on_retry": on_retry, "on_success": Notes().on_success}
    vars(plugin).update(found, Notes=Notes, lazy=Lazy(), Any=Any)
    host.register(plugin, "mine")
    assert host.plugins["mine"].error is None
    assert host.plugins["mine"].hooks == ("on_retry", "on_success")


def registering(hook: str, answer: Any) -> Any:
    class Plugin:
        pass

    def register() -> Any:
        return answer

    setattr(Plugin, hook, staticmethod(hookimpl(register)))
    return Plugin()


TWICE = [
    ("register_settings", [Setting("mine", int, default=0)], "key 'mine'"),
    ("register_backoff", {"odd": Odd}, "backoff 'odd'"),
    ("register_executor", [Carrier()], "executor 'call pigeon'"),
    ("register_tables", [Table("mine", {"a": "TEXT"}, ("a",))], "table 'mine'"),
]


@pytest.mark.parametrize(("hook", "answer", "what"), TWICE)
def test_a_name_that_two_plugins_register_is_an_error_that_names_both(
    hook: str, answer: Any, what: str, empty: Host
) -> None:
    empty.register(registering(hook, answer), "first")
    with pytest.raises(PluginError, match=f"the {what} is registered by first and by second"):
        empty.register(registering(hook, answer), "second")
    # The first one is not harmed by the second one's claim.
    assert empty.registry.owners[tuple(what.replace("'", "").split(" ", 1))] == "first"  # type: ignore[index]
    assert len(empty.registry.executors) == (hook == "register_executor")


@pytest.mark.parametrize(("hook", "answer", "what"), [t for t in TWICE if isinstance(t[1], list)])
def test_a_name_that_one_plugin_registers_twice_is_an_error(
    hook: str, answer: Any, what: str, empty: Host
) -> None:
    with pytest.raises(PluginError, match=f"the {what} is registered by only twice"):
        empty.register(registering(hook, answer * 2), "only")


@pytest.mark.parametrize("key", ["retry", "timeout", "headers", "schedule", "concurrency"])
def test_a_plugin_cannot_take_a_key_of_the_core(key: str, empty: Host) -> None:
    plugin = registering("register_settings", [Setting(key, int, default=0)])
    with pytest.raises(PluginError, match=f"'{key}' is registered by orchestratord and by mine"):
        empty.register(plugin, "mine")


def test_a_plugin_cannot_take_a_key_of_an_endpoint_type(empty: Host) -> None:
    from orchestratord.engine.http_executor import HttpPlugin

    empty.register(HttpPlugin(), "http")
    plugin = registering("register_settings", [Setting("path", int, default=0)])
    with pytest.raises(PluginError, match="'path' is registered by http and by mine"):
        empty.register(plugin, "mine")


def test_a_plugin_cannot_replace_the_cores_strategy_or_name(empty: Host) -> None:
    with pytest.raises(PluginError, match="'fixed' is registered by orchestratord and by mine"):
        empty.register(registering("register_backoff", {"fixed": Odd}), "mine")
    with pytest.raises(PluginError, match="no plugin can be named 'orchestratord'"):
        empty.register(registering("register_backoff", {}), "orchestratord")
    assert empty.registry.backoffs["fixed"].name == "fixed"


# -- disabled -------------------------------------------------------------------------------------

REGISTERS = """
class Slow(Backoff):
    def seconds(self, n):
        return 1.0

class Pigeon(Executor):
    type = "pigeon"
    def standing(self, endpoint, webhook, config): ...
    def prepare(self, task, target, now): ...
    async def execute(self, request, task, target, send): ...

class Delivery(Pigeon):
    kind = "webhook"

@hookimpl
def register_settings():
    return [Setting("mine", int, default=0)]

@hookimpl
def register_backoff():
    return {"slow": Slow}

@hookimpl
def register_executor():
    return [Pigeon(), Delivery()]

@hookimpl
def register_tables():
    return [Table("mine", {"a": "TEXT"}, ("a",))]

@hookimpl
def on_success(task):
    return []
"""


def test_a_disabled_plugins_names_are_remembered_and_nothing_else(
    empty: Host, plugin_file: File
) -> None:
    empty.load([plugin_file("off.py", REGISTERS)], disabled=["off"])
    registry = empty.registry
    assert empty.plugins["off"].status == "disabled"
    assert registry.disabled_keys == {"mine": "off"}
    assert registry.disabled_backoffs == {"slow": "off"}
    assert registry.disabled_types == {"pigeon": "off"}
    assert (registry.settings, registry.tables, registry.executors) == ({}, {}, [])
    assert set(registry.backoffs) == {"fixed"}
    assert empty.compiled("on_success") is None


def test_without_being_disabled_the_same_plugin_is_in_force(empty: Host, plugin_file: File) -> None:
    empty.load([plugin_file("on.py", REGISTERS)])
    registry = empty.registry
    assert registry.disabled_keys == registry.disabled_types == registry.disabled_backoffs == {}
    assert set(registry.call_executors()) == {"pigeon"}
    assert registry.executor("webhook", "whatever") is registry.executors[1]
    assert registry.executor("call", "pigeon") is registry.executors[0]
    assert registry.executor("call", "http") is None
    assert registry.backoffs["slow"].name == "slow"


def test_a_disabled_plugin_that_cannot_be_imported_is_disabled_all_the_same(
    empty: Host, plugin_file: File, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, LOG)
    empty.load([plugin_file("broken.py", "raise SystemExit(1)")], disabled=["broken"])
    assert empty.plugins["broken"].status == "disabled"
    assert empty.plugins["broken"].error == "SystemExit: 1"
    assert "plugin broken is disabled; its keys are not known" in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]


def test_a_disabled_name_that_is_not_installed_is_said(
    empty: Host, caplog: pytest.LogCaptureFixture
) -> None:
    empty.load(disabled=["webhoks"])
    assert "plugins.disabled names 'webhoks', which is not installed" in caplog.text


# -- compiling ------------------------------------------------------------------------------------


def test_a_hook_that_nobody_implements_compiles_to_none(empty: Host) -> None:
    for hook in (*PHASES, "announce"):
        assert empty.compiled(hook) is None


def test_a_hook_is_compiled_anew_when_a_plugin_is_added(empty: Host) -> None:
    assert empty.compiled("on_success") is None
    empty.register(registering("on_success", []), "late")
    compiled = empty.compiled("on_success")
    assert compiled is not None
    assert [item.plugin for item in compiled] == ["late"]
    assert empty.compiled("on_success") is compiled


def test_a_plugin_can_ask_to_be_first_or_last(empty: Host, plugin_file: File) -> None:
    for name, options in (
        ("b_last.py", "trylast=True"), ("c_mid.py", ""), ("d_first.py", "tryfirst=True"),
    ):  # fmt: skip
        folder = plugin_file(name, f"@hookimpl({options})\ndef on_success(task):\n    return []\n")
    empty.load([folder])
    compiled = empty.compiled("on_success")
    assert compiled is not None
    assert [item.plugin for item in compiled] == ["d_first", "c_mid", "b_last"]


class Choosy:
    """Wants to be asked about the deliveries of one endpoint, and notes how often it was asked
    whether it does."""

    def __init__(self) -> None:
        self.questions = 0
        self.told: list[tuple[str, str]] = []

    def concerned(self, kind: str, endpoint: Endpoint) -> bool:
        self.questions += 1
        return kind == "webhook" and endpoint.id == "demo/wanted"

    def plugin(self) -> object:
        told = self.told

        class Plugin:
            @hookimpl
            @only_for(self.concerned)
            def on_final_failure(self, task: Task, endpoint: Endpoint | None) -> None:
                told.append((task.kind, endpoint.id if endpoint else "gone"))

        return Plugin()


async def test_a_hook_is_only_asked_about_the_tasks_that_it_is_for() -> None:
    choosy = Choosy()
    rig = Rig(choosy.plugin(), name="choosy")
    wanted, other = rig.endpoint("demo/wanted"), rig.endpoint("demo/other")
    for endpoint in (wanted, other, wanted):
        for kind in ("webhook", "call"):
            about = task(endpoint_id=endpoint.id, kind=kind)
            reached = Reached(about, endpoint, rig.config(endpoint))
            await rig.host.collect("on_final_failure", reached)
    assert choosy.told == [("webhook", "demo/wanted"), ("webhook", "demo/wanted")]
    assert choosy.questions == 4  # once for each kind of each endpoint that was read
    assert rig.host.concerned("on_final_failure", "call", other) is None
    # Who is asked changes with the plugins; and of what is gone, nothing can be told.
    rig.host.register(registering("on_final_failure", []), "eager")
    concerned = rig.host.concerned("on_final_failure", "call", other) or ()
    assert [item.plugin for item in concerned] == ["eager"]
    await rig.host.collect("on_final_failure", Reached(task(), None, rig.config()))
    assert choosy.told[-1] == ("call", "gone")


def fails(kind: str, endpoint: Endpoint) -> object:
    return 1 / 0


def exits(kind: str, endpoint: Endpoint) -> object:
    raise SystemExit(3)


async def waits(kind: str, endpoint: Endpoint) -> bool:
    return False


@pytest.mark.parametrize(
    ("question", "words"),
    [(fails, "ZeroDivisionError"), (exits, "SystemExit: 3"), (waits, "TypeError: it is an `async")],
)
async def test_a_hook_whose_question_fails_is_asked(
    question: Callable[[str, Endpoint], object], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    class Plugin:
        @hookimpl
        @only_for(question)
        def on_success(self, task: Task) -> None:
            told.append(task.kind)

    rig = Rig(Plugin(), name="broken")
    endpoint = rig.endpoint("demo/get")
    await rig.host.collect("on_success", Reached(task(), endpoint, rig.config(endpoint)))
    assert told == ["call"]
    assert f"plugin broken: on_success {words}" in caplog.text


async def test_what_is_announced_goes_by_the_phase_too() -> None:
    told: list[str] = []

    class Plugin:
        @hookimpl
        @only_for(lambda kind, endpoint, phase: phase == "on_success")
        def announce(self, phase: str) -> None:
            told.append(phase)

    rig = Rig(Plugin())
    endpoint = rig.endpoint("demo/get")
    about = Reached(task(), endpoint, rig.config(endpoint))
    for phase in ("after_request", "on_success"):
        about.phase = phase
        await rig.host.collect("announce", about)
    assert told == ["on_success"]


def test_explain_only_asks_those_that_a_task_is_for() -> None:
    class Plugin:
        @hookimpl
        @only_for(lambda kind, endpoint: endpoint.id == "demo/wanted")
        def explain(self, phase: str, task: Task) -> Iterable[Explanation]:
            return [Explanation("call", task.endpoint_id, phase, happens=True, why="always")]

    rig = Rig(Plugin())
    for name in ("demo/wanted", "demo/other"):
        found = rig.explain("on_success", task=task(endpoint_id=name), endpoint=rig.endpoint(name))
        assert [item.name for item in found] == [name] * (name == "demo/wanted")


def test_what_is_not_called_for_tasks_cannot_be_for_some_of_them() -> None:
    class Plugin:
        @hookimpl
        @only_for(lambda kind, endpoint: False)
        def observe(self) -> None: ...

    with pytest.raises(PluginError, match="observe is marked only_for, but is not called for"):
        Rig(Plugin())


def test_endpoints_are_equal_whoever_has_been_asked_about_them() -> None:
    rig = Rig(Choosy().plugin())
    first, second = rig.endpoint("demo/get"), rig.endpoint("demo/get")
    assert rig.host.concerned("on_final_failure", "webhook", first) is None
    assert first.remembered
    assert replace(first, enabled=True).remembered == {}
    assert first == replace(second, retry=first.retry)


# -- asking ---------------------------------------------------------------------------------------


def test_each_plugin_is_asked_by_itself(
    empty: Host, plugin_file: File, caplog: pytest.LogCaptureFixture
) -> None:
    answers = {
        "a_list": "return [1]",
        "b_raises": "raise ValueError('no')",
        "c_generates": "yield 1\n    yield 2",
        "d_exits": "raise SystemExit(2)",
        "e_none": "return None",
        "f_number": "return 5",
        "g_generator_raises": "yield 1\n    raise SystemExit(3)",
        "i_last": "return (config,)",
    }
    for name, body in answers.items():
        folder = plugin_file(f"{name}.py", f"@hookimpl\ndef check_endpoint(config):\n    {body}\n")
    plugin_file("h_async.py", "@hookimpl\nasync def check_endpoint(config):\n    return []\n")
    empty.load([folder])
    found = dict(empty.ask("check_endpoint", {"config": "C", "endpoint": None}))
    assert found == {"a_list": [1], "c_generates": [1, 2], "e_none": [], "i_last": ["C"]}
    for name in ("b_raises", "d_exits", "f_number", "g_generator_raises", "h_async"):
        assert re.search(f"plugin {name}(:| cannot be loaded:) check_endpoint", caplog.text)
        assert empty.plugins[name].faults == 1
    assert empty.plugins["b_raises"].last_fault == "check_endpoint: ValueError: no"
    assert empty.plugins["a_list"].faults == 0


# -- faults that come again -----------------------------------------------------------------------


def fail(host: Host, text: str, *, elsewhere: bool = False) -> None:
    try:
        if elsewhere:
            raise KeyError(text)
        raise KeyError(text)
    except KeyError as error:
        host.fault("odd", f"executor (task {text})", error)


async def test_a_fault_is_logged_once_and_then_counted(
    empty: Host, caplog: pytest.LogCaptureFixture
) -> None:
    empty.register(object(), "odd")
    for number in range(5):
        fail(empty, str(number))
    assert [(one.exc_info is not None, one.getMessage()) for one in caplog.records] == [
        (True, "plugin odd: executor (task 0) KeyError: '0'")
    ]
    fail(empty, "7", elsewhere=True)
    assert len(caplog.records) == 2, "another place is another fault"
    assert empty.plugins["odd"].faults == 6
    await empty.log_repeated()
    counted = caplog.records[-1]
    assert counted.getMessage() == "plugin odd: executor (task 4) KeyError: '4' (4 times more)"
    assert (len(caplog.records), counted.exc_info) == (3, None)
    fail(empty, "8")
    await empty.log_repeated()
    assert caplog.records[-1].getMessage().endswith("'8' (1 times more)")
    await empty.log_repeated()
    fail(empty, "9")
    assert caplog.records[-1].exc_info is not None, "it had gone, and is news again"
    assert len(caplog.records) == 5
