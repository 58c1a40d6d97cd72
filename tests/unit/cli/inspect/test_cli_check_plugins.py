"""Wrong plugins: `check` fails for each, and names plugin, hook, file and what to do."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestratord import Table, hookimpl
from orchestratord.errors import PluginError
from orchestratord.plugin import plugin_sources
from orchestratord.plugin.host import Host
from orchestratord.plugin.registry import CORE_TABLES
from orchestratord.queue import models
from tests.unit.cli.cli_parts import GOOD, run, write


class Installed(importlib.metadata.Distribution):
    """A package of version 2.0."""

    def __init__(self, name: str, *requires: str) -> None:
        asked = "".join(f"Requires-Dist: {one}\n" for one in requires)
        self._metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n{asked}"

    def read_text(self, filename: str) -> str | None:
        return self._metadata if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Path:
        return Path(path)


HEAD = "import orchestratord as o\n\nfrom orchestratord import hookimpl\n"

WRONG = {
    "check_endpoint raises": (
        "@hookimpl\ndef check_endpoint(endpoint):\n    raise KeyError('x')\n",
        ["plugins/bad.py:6:1:", "check_endpoint KeyError: 'x'"],
    ),
    "check_endpoint returns texts": (
        "@hookimpl\ndef check_endpoint(endpoint):\n    return ['no good']\n",
        ["check_endpoint returned a str among its problems"],
    ),
    "check_endpoint returns one text": (
        "@hookimpl\ndef check_endpoint(endpoint):\n    return 'no'\n",
        ["check_endpoint returned a str among its problems"],
    ),
    "a table of the core's": (
        "@hookimpl\ndef register_tables():\n"
        "    return [o.Table('attempts', {'a': 'TEXT'}, key=('a',))]\n",
        ["plugins/bad.py:", "the table 'attempts' has a name of the queue's; choose another"],
    ),
    "async registration": (
        "@hookimpl\nasync def register_tables():\n    return []\n",
        ["plugins/bad.py:4:1:", "register_tables is an `async def`; write a `def`"],
    ),
    "async observe": (
        "@hookimpl\nasync def observe(events):\n    pass\n",
        ["observe is an `async def`; write a `def`"],
    ),
    "async explain": (
        "@hookimpl\nasync def explain(phase):\n    pass\n",
        ["explain is an `async def`; write a `def`"],
    ),
    "an asynchronous generator": (
        "@hookimpl\nasync def on_success(task):\n    yield 1\n",
        ["on_success is an `async def` that yields; return a list"],
    ),
    "a route of the core's": (
        "@hookimpl\ndef register_routes(control):\n"
        "    async def h(p, q, b): ...\n    return [o.Route('GET', '/v1/status', h)]\n",
        ["register_routes PluginError: GET /v1/status is registered by orchestratord and by bad"],
    ),
    "the same path with another name": (
        "@hookimpl\ndef register_routes(control):\n    async def h(p, q, b): ...\n"
        "    return [o.Route('GET', '/x/{a}', h), o.Route('GET', '/x/{b}', h)]\n",
        ["GET /x/{b} is registered by bad twice"],
    ),
    "no route": (
        "@hookimpl\ndef register_routes(control):\n    return [7]\n",
        ["register_routes returned 7, which is no route"],
    ),
    "register_routes raises": (
        "@hookimpl\ndef register_routes(control):\n    raise SystemExit(3)\n",
        ["plugins/bad.py:6:1:", "register_routes SystemExit: 3"],
    ),
    "a route that is a def": (
        "@hookimpl\ndef register_routes(control):\n"
        "    return [o.Route('GET', '/x', lambda p, q, b: 1)]\n",
        ["register_routes returned a Route whose handler is a `def`; write an `async def`"],
    ),
    "a route with another signature": (
        "@hookimpl\ndef register_routes(control):\n    async def h(p, q, b): ...\n"
        "    return [o.Route('GET', '/x', h, caller=True)]\n",
        ["returned a Route whose handler is called with 4 arguments: too many positional"],
    ),
    "a page that asks for too much": (
        "@hookimpl\ndef register_pages(control):\n    async def h(visit, more): ...\n"
        "    return [o.Page('/x', 'x', h)]\n",
        ["returned a Page whose show is called with 1 arguments: missing a required argument"],
    ),
    "a port that waits before it admits": (
        "@hookimpl\ndef register_ports(control):\n    async def h(request): ...\n"
        "    return [o.PortHandler('bell', h, h)]\n",
        ["returned a PortHandler whose admit is an `async def`; write a `def`"],
    ),
    "a service without its event": (
        "@hookimpl\ndef register_services(control):\n    async def h(): ...\n"
        "    return [o.Service('x', h)]\n",
        ["a Service whose run is called with 1 arguments: too many positional arguments"],
    ),
    "a part of the status that asks": (
        "@hookimpl\ndef register_status(control):\n"
        "    return [o.StatusPart('x', lambda config: 1)]\n",
        ["a StatusPart whose read is called with 0 arguments: missing a required argument"],
    ),
    "a check without the status": (
        "@hookimpl\ndef register_checks():\n    return [o.Check('x', lambda config: [])]\n",
        ["register_checks returned a Check whose look is called with 2 arguments"],
    ),
    "a gauge that waits": (
        "async def h(): ...\n@hookimpl\ndef register_metrics():\n"
        "    return [o.Gauge('bad_x', 'x', h)]\n",
        ["register_metrics returned a Gauge whose read is an `async def`; write a `def`"],
    ),
    "a strategy without n": (
        "class Odd(o.Backoff):\n    def seconds(self): return 1\n"
        "@hookimpl\ndef register_backoff():\n    return {'odd': Odd}\n",
        ["Odd.seconds is called with 2 arguments: too many positional arguments"],
    ),
    "an executor with another signature": (
        "class Odd(o.Executor):\n    type = 'oddity'\n    def standing(self, endpoint): ...\n"
        "    def prepare(self, task, target, now): ...\n"
        "    async def execute(self, request, task, target, send): ...\n"
        "@hookimpl\ndef register_executor():\n    return [Odd()]\n",
        ["returned an Odd whose standing is called with 3 arguments: too many positional"],
    ),
    "no port": (
        "@hookimpl\ndef register_ports(control):\n    return ['8080']\n",
        ["register_ports returned '8080', which is no handler"],
    ),
    "no service": (
        "@hookimpl\ndef register_services(control):\n"
        "    return [o.Service('x', lambda stop: None)]\n",
        ["register_services returned a Service x whose run is no `async def`"],
    ),
    "no editor": (
        "@hookimpl\ndef register_editor():\n    return ['vi']\n",
        ["register_editor returned 'vi', which is no Editor"],
    ),
    "an editor that is async": (
        "async def edit(file, key):\n    pass\n\n"
        "@hookimpl\ndef register_editor():\n    return [o.Editor(edit, edit)]\n",
        ["register_editor returned an Editor whose declaration is an `async def`; write a `def`"],
    ),
    "no page": (
        "@hookimpl\ndef register_pages(control):\n    return ['/x']\n",
        ["register_pages returned '/x', which is no Page"],
    ),
    "a metric of another name": (
        "@hookimpl\ndef register_metrics():\n    return [o.Counter('tasks', 'x')]\n",
        ["the metric 'tasks' is to begin with bad_"],
    ),
    "a verb of orchestratorctl's": (
        "@hookimpl\ndef register_verbs():\n    return [o.VerbRow('list', 'x', '/x')]\n",
        ["the verb 'list' is registered by orchestratord and by bad"],
    ),
    "a verb whose path no route has": (
        "@hookimpl\ndef register_verbs():\n    return [o.VerbRow('lst', 'x', '/x')]\n",
        ["register_verbs returned lst, which asks GET /x: no such route"],
    ),
    "a verb without the word of its path": (
        "@hookimpl\ndef register_verbs():\n    return [o.VerbRow('lst', 'x', '/x/{a}')]\n",
        ["plugins/bad.py:6:1:", "the verb lst: no argument a, as its path has"],
    ),
    "a verb with an argument that is none": (
        "@hookimpl\ndef register_verbs():\n"
        "    return [o.VerbRow('lst', 'x', '/x', arguments={'-q': ''})]\n",
        ["the argument '-q' is none of word, [word], --option=VALUE, --switch"],
    ),
    "a verb of two words": (
        "@hookimpl\ndef register_verbs():\n    return [o.VerbRow('a b', '', '/x')]\n",
        ["the verb 'a b' is not a word of small letters"],
    ),
    "a verb of a method that no route has": (
        "@hookimpl\ndef register_verbs():\n    return [o.VerbRow('lst', '', '/x', 'TRACE')]\n",
        ["the verb lst: its method is GET, POST, PUT, PATCH or DELETE, not TRACE"],
    ),
    "a gauge that raises": (
        "@hookimpl\ndef register_metrics():\n    return [o.Gauge('bad_x', 'x', lambda: 1 / 0)]\n",
        ["metric bad_x ZeroDivisionError: division by zero"],
    ),
    "a backoff that is broken for some n": (
        "class Odd(o.Backoff):\n    def seconds(self, n):\n        return [1, 2, 3][n]\n\n"
        "@hookimpl\ndef register_backoff():\n    return {'odd': Odd}\n",
        ["plugins/bad.py:6:1:", "backoff odd IndexError: list index out of range"],
    ),
    "a hook that is none": (
        "@hookimpl\ndef on_succes(task):\n    pass\n",
        ["plugins/bad.py:4:1:", "there is no hook 'on_succes', did you mean 'on_success'?"],
    ),
    "an argument that is none": (
        "@hookimpl\ndef on_success(taks):\n    pass\n",
        ["on_success has no argument 'taks', did you mean 'task'?"],
    ),
    "no mark": ("def on_success(task):\n    pass\n", ["but no @hookimpl above it"]),
    "a wrapper": (
        "@hookimpl(wrapper=True)\ndef on_success(task):\n    return (yield)\n",
        ["on_success is a hook wrapper; write a plain hook"],
    ),
    "on_fault of what decides nothing": (
        "@hookimpl(on_fault='retry')\ndef on_success(task):\n    pass\n",
        ["on_success is marked with on_fault, but decides nothing"],
    ),
    "on_fault that is none": (
        "@hookimpl(on_fault='stop')\ndef before_request(task):\n    pass\n",
        ["plugins/bad.py:4:1:", "on_fault='stop'; write pass, retry or reject"],
    ),
    "a name of a newer version": (
        "from orchestratord import Teleporter\n",
        [f"orchestratord {importlib.metadata.version('orchestratord')} is installed, which has no"],
    ),
    "a kind of reference of the core's": (
        "@hookimpl\ndef register_references():\n    return {'file': str}\n",
        ["the kind of reference 'file' is registered by orchestratord and by bad"],
    ),
    "a command of the core's": (
        "import click\n@hookimpl\ndef register_commands():\n    return [click.Command('run')]\n",
        ["the command 'run' is registered by orchestratord and by bad"],
    ),
    "raises at its import": (
        "raise RuntimeError('no network')\n",
        ["plugins/bad.py:4:1:", "RuntimeError: no network"],
    ),
    "exits at its import": ("import sys\nsys.exit(3)\n", ["plugins/bad.py:5:1:", "SystemExit: 3"]),
    "no Python": ("def (:\n", ["plugins/bad.py:4:", "SyntaxError"]),
    "settings that are texts": (
        "@hookimpl\ndef register_settings():\n    return ['window']\n",
        ["register_settings returned 'window', which is no Setting"],
    ),
    "a registration that is one thing": (
        "@hookimpl\ndef register_tables():\n    return o.Table('own', {'a': 'TEXT'}, key=('a',))\n",
        ["'Table' object is not iterable"],
    ),
    "a key of the core's": (
        "@hookimpl\ndef register_settings():\n    return [o.Setting('timeout', int, default=1)]\n",
        ["the key 'timeout' is registered by orchestratord and by bad"],
    ),
    "a key of orchestratord.yaml that another plugin has": (
        "@hookimpl\ndef register_daemon_settings():\n"
        "    return [o.DaemonSetting('databases', int, default=1)]\n",
        ["the key of orchestratord.yaml 'databases' is registered by sql and by bad"],
    ),
    "a backoff that is an object": (
        "@hookimpl\ndef register_backoff():\n    return {'odd': 3}\n",
        ["the backoff 'odd' is not a subclass of orchestratord.Backoff"],
    ),
    "an executor that is a class": (
        "@hookimpl\ndef register_executor():\n    return [o.Executor]\n",
        ["register_executor returned <class", "which is no Executor"],
    ),
    "a table without a key": (
        "@hookimpl\ndef register_tables():\n    return [o.Table('own', {'a': 'TEXT'}, key=())]\n",
        ["the table 'own': its key names columns it does not have"],
    ),
    "a table whose steps are texts": (
        "@hookimpl\ndef register_tables():\n"
        "    return [o.Table('own', {'a': 'TEXT'}, key=('a',), steps=['CREATE TABLE own'])]\n",
        ["the table 'own': a step is a TableStep, with lists of statements"],
    ),
    "a step that is one text": (
        "@hookimpl\ndef register_tables():\n"
        "    return [o.Table('own', {'a': 'TEXT'}, key=('a',), steps=[o.TableStep('CREATE')])]\n",
        ["the table 'own': a step is a TableStep, with lists of statements"],
    ),
    "a table that another plugin has": (
        "@hookimpl\ndef register_tables():\n"
        "    return [o.Table('outbox_taken', {'a': 'TEXT'}, key=('a',))]\n",
        ["the table 'outbox_taken' is registered by outbox and by bad"],
    ),
    "two services of one name": (
        "@hookimpl\ndef register_services(control):\n    async def run(stop): ...\n"
        "    return [o.Service('x', run), o.Service('x', run)]\n",
        ["register_services returned two services named x"],
    ),
    "a service that runs nowhere": (
        "@hookimpl\ndef register_services(control):\n    async def run(stop): ...\n"
        "    return [o.Service('x', run, where='some')]\n",
        ["register_services returned a Service that runs where='some'; write one or each"],
    ),
    "a gauge of some workers": (
        "@hookimpl\ndef register_metrics():\n"
        "    return [o.Gauge('bad_x', 'x', dict, workers='each')]\n",
        ["the gauge bad_x: workers is first, sum or max"],
    ),
    "a gauge that returns a number": (
        "@hookimpl\ndef register_metrics():\n    return [o.Gauge('bad_x', 'x', lambda: 7)]\n",
        ["metric bad_x AttributeError: 'int' object has no attribute 'items'"],
    ),
    "a part of the status that the core has": (
        "@hookimpl\ndef register_status(control):\n    return [o.StatusPart('queue', dict)]\n",
        ["register_status PluginError: the key queue of the status is registered by orchestratord"],
    ),
    "no part of the status": (
        "@hookimpl\ndef register_status(control):\n    return ['queue']\n",
        ["register_status returned 'queue', which is no StatusPart"],
    ),
    "check_config raises": (
        "@hookimpl\ndef check_config(config):\n    raise KeyError('x')\n",
        ["plugins/bad.py:6:1:", "check_config KeyError: 'x'"],
    ),
    "check_config returns texts": (
        "@hookimpl\ndef check_config(config):\n    return ['no good']\n",
        ["check_config returned a str among its problems"],
    ),
    "an endless list of services": (
        "import itertools\n@hookimpl\ndef register_services(control):\n"
        "    return itertools.repeat(7)\n",
        ["register_services returned more than 100,000 items"],
    ),
    "no check": (
        "@hookimpl\ndef register_checks():\n    return [o.Need('x')]\n",
        ["which is no Check"],
    ),
    "a kind of reference that is no word": (
        "@hookimpl\ndef register_references():\n    return {'Pass Word': str}\n",
        ["the kind of reference 'Pass Word' is not a word of small letters"],
    ),
    "a setting of no type": (
        "@hookimpl\ndef register_settings():\n    return [o.Setting('window', 3, default=1)]\n",
        ["register_settings returned window, whose type is none: "],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_check_names_what_is_wrong_with_a_plugin(tmp_path: Path, case: str) -> None:
    text, said = WRONG[case]
    odd = {"apis/shop/endpoints/odd.yaml": "path: /odd\nretry: {backoff: {strategy: odd}}\n"}
    write(
        tmp_path,
        {
            **GOOD,
            **(odd if "'odd'" in text else {}),
            "orchestratord.yaml": "plugins: {dirs: [plugins]}\n",
            "plugins/bad.py": HEAD + text,
        },
    )
    result = run("check", "--config", tmp_path)
    assert result.exit_code == 78, result.stdout
    assert "bad" in result.stderr
    for words in said:
        assert words in result.stderr
    assert "plugins.disabled" in result.stderr


def test_two_plugins_that_want_the_same(tmp_path: Path) -> None:
    port = (
        "@hookimpl\ndef register_ports(control):\n    async def h(request): ...\n"
        "    return [o.PortHandler('bell', lambda request: 0, h)]\n"
    )
    route = (
        "@hookimpl\ndef register_routes(control):\n    async def h(p, q, b): ...\n"
        "    return [o.Route('GET', '/x', h)]\n"
    )
    page = (
        "@hookimpl\ndef register_pages(control):\n    async def show(visit): ...\n"
        "    return [o.Page('/same', 'Same', show)]\n"
    )
    plugins = {f"plugins/{name}.py": HEAD + port + route + page for name in ("one", "two")}
    settings = {"orchestratord.yaml": "plugins: {dirs: [plugins]}\n"}
    result = run("check", "--config", write(tmp_path, {**GOOD, **settings, **plugins}))
    assert result.exit_code == 78
    for words in (
        "GET /x is registered by two and by one",
        "port bell is registered by two and by",
        "the page /same is registered by two and by one",
        f"(two: {tmp_path}/plugins/two.py, one: {tmp_path}/plugins/one.py)",
    ):
        assert words in result.stderr


def test_a_fault_for_each_endpoint_is_said_once(tmp_path: Path) -> None:
    more = {f"apis/shop/endpoints/e{n}.yaml": "path: /x\n" for n in range(20)}
    text = HEAD + "@hookimpl\ndef check_endpoint(endpoint):\n    return 1 / 0\n"
    settings = {"orchestratord.yaml": "plugins: {dirs: [plugins]}\n", "plugins/bad.py": text}
    result = run("check", "--config", write(tmp_path, {**GOOD, **settings, **more}))
    assert result.stderr.count("ZeroDivisionError") == 1


def test_packages_that_want_the_same_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plugin:
        @hookimpl
        def register_tables(self) -> list[Table]:
            return [Table("same", {"a": "TEXT"}, key=("a",))]

    sources = [
        plugin_sources.PluginSource(name, "entry point", Plugin, name, Installed(f"p-{name}"))
        for name in ("one", "two")
    ]
    monkeypatch.setattr("orchestratord.plugin.host.installed_plugins", lambda: sources)
    with pytest.raises(PluginError, match=r"by one and by two \(one: p-one 2.0, two: p-two 2.0\)"):
        Host().load()


def test_a_page_that_a_route_has_is_said(tmp_path: Path) -> None:
    text = HEAD + (
        "async def h(*_): ...\n@hookimpl\ndef register_routes(control):\n"
        "    return [o.Route('GET', '/same', h)]\n"
        "@hookimpl\ndef register_pages(control):\n    return [o.Page('/same', 'Same', h)]\n"
    )
    settings = {"orchestratord.yaml": "plugins: {dirs: [plugins]}\n", "plugins/bad.py": text}
    result = run("check", "--config", write(tmp_path, {**GOOD, **settings}))
    assert result.exit_code == 78
    assert "GET /same is registered by bad and by dashboard" in result.stderr


def test_what_a_package_asks_for_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> Any:
        import orchestratord

        raise ImportError("cannot import name 'New'", name=orchestratord.__name__)

    requires = ["orchestratord-x>=3", "orchestratord>=7", "httpx"]
    package = Installed("orchestratord-new", *requires)
    source = plugin_sources.PluginSource("new", "entry point", load, "new", package)
    monkeypatch.setattr("orchestratord.plugin.host.installed_plugins", lambda: [source])
    host = Host()
    host.load()
    assert "it asks for orchestratord>=7; orchestratord " in (host.plugins["new"].error or "")


def test_the_registry_knows_the_tables_of_the_core() -> None:
    found = {model._meta.table_name for model in models.QueueRow.__subclasses__()}  # type: ignore[attr-defined]
    assert found <= set(CORE_TABLES)
    assert set(CORE_TABLES) - found <= {"orchestratord_outbox", "schema_migration"}


@pytest.mark.parametrize("name", ["Retry_Schedule", "sqlite_x", "pg_x"])
def test_names_that_a_database_would_take_for_its_own(name: str) -> None:
    tables = [Table(name, {"a": "TEXT"}, ("a",))]
    host = Host()
    host.register(SimpleNamespace(register_tables=hookimpl(lambda: tables)), "bad")
    assert f"the table {name!r} has a name of the queue's" in (host.plugins["bad"].error or "")
