"""The command as a process: what it loads, what it writes, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from scripted_daemon import Daemon, Result, a_task, command

HEAVY = {
    "orchestratord",
    "peewee",
    "httpx",
    "pydantic",
    "yaml",
    "click",
    "rich",
    "jinja2",
    "pluggy",
    "asyncio",
    "typing",
    "dataclasses",
}
NASTY = {
    "id": 1,
    "last_error": "\x1b[2J\u202e\x9b\x7f \ud800 \U000e0041 ü → 日本",
    "params": {"a": "b"},
}


def ran(daemon: Daemon, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(daemon, *arguments),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=30,
        check=False,
        **options,
    )


def test_the_start_loads_nothing_heavy() -> None:
    code = (
        "import sys, orchestratorctl.main\n"
        "import orchestratorctl.verbs.daemon_verbs, orchestratorctl.verbs.task_verbs\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    # -S: what the environment's own start-up files load is not ours to answer for.
    root = os.path.dirname(os.path.dirname(sys.modules["orchestratorctl"].__file__ or ""))
    out = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": root},
    ).stdout
    loaded = set(out.split())
    assert "orchestratorctl" in loaded
    assert loaded & HEAVY == set()


def test_importing_every_module_needs_nothing_but_the_standard_library() -> None:
    code = (
        "import pkgutil, importlib, sys, orchestratorctl\n"
        "for m in pkgutil.walk_packages(orchestratorctl.__path__, 'orchestratorctl.'):\n"
        "    if not m.name.endswith('__main__'):\n"
        "        importlib.import_module(m.name)\n"
        "own = {'orchestratorctl', '__main__'}\n"
        "print(*{n.partition('.')[0] for n in sys.modules} - sys.stdlib_module_names - own)"
    )
    root = os.path.dirname(os.path.dirname(sys.modules["orchestratorctl"].__file__ or ""))
    out = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": root},
    ).stdout
    assert out.split() == []


def test_data_and_words_have_a_stream_each(daemon: Daemon) -> None:
    daemon.on("GET", "/v1/retries", (200, {"retries": [a_task(5)], "next": 5}))
    result = ran(daemon, "list", "--limit", "1")
    assert result.returncode == 0
    assert result.stdout.splitlines()[1].split()[0] == "5"
    assert result.stderr == "There are more than these 1; --limit shows more.\n"
    assert "\x1b" not in result.stdout


def test_json_is_harmless_and_whole(daemon: Daemon) -> None:
    daemon.on("GET", "/v1/retries/1", (200, NASTY))
    out = ran(daemon, "show", "1", "-o", "json").stdout
    assert out.replace("\n", "").isprintable()
    assert "ü → 日本" in out
    assert json.loads(out) == NASTY


def test_yaml_is_harmless_and_whole(daemon: Daemon) -> None:
    document = {**NASTY, "last_error": "\x1b[2J\u202e ü", "at": "12:30", "on": "no", "n": None}
    daemon.on("GET", "/v1/retries/1", (200, document))
    out = ran(daemon, "show", "1", "-o", "yaml").stdout
    assert out.replace("\n", "").isprintable()
    assert yaml.safe_load(out) == document
    assert list(yaml.safe_load(out)) == list(document)
    daemon.on("GET", "/v1/retries/1", (200, {"last_error": "ü → 日本"}))
    assert ran(daemon, "show", "1", "-o", "yaml").stdout == "last_error: ü → 日本\n"


def test_tables_of_nasty_texts_are_harmless(daemon: Daemon) -> None:
    nasty = a_task(
        1,
        endpoint="\x1b[2Ja/b\n\r",
        webhook="\u202eops",
        reason="\x07",
        last_status_code="\x1b]0;x",
    )
    daemon.on("GET", "/v1/retries", (200, {"retries": [nasty], "next": None}))
    daemon.on("GET", "/v1/retries/1", (200, nasty | NASTY))
    for arguments in (["list"], ["show", "1"]):
        out = ran(daemon, *arguments).stdout
        assert out.replace("\n", "").isprintable()
    assert len(ran(daemon, "list").stdout.splitlines()) == 2


def test_an_encoding_that_lacks_a_character_is_no_error(daemon: Daemon) -> None:
    daemon.on("GET", "/v1/retries", (200, {"retries": [a_task(1, webhook="ops")], "next": None}))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = ran(daemon, "list", env=environment)
    assert result.returncode == 0
    assert "salesforce/getUsers \\u2192 ops" in result.stdout


def test_a_reader_that_has_seen_enough(daemon: Daemon) -> None:
    tasks = [a_task(n) for n in range(1000, 0, -1)]
    daemon.on("GET", "/v1/retries", (200, {"retries": tasks, "next": None}))
    process = subprocess.Popen(
        command(daemon, "list", "--limit", "1000"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(20) == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_an_output_that_cannot_be_written(daemon: Daemon) -> None:
    daemon.on("GET", "/v1/retries/1", (200, a_task(1)))
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            command(daemon, "show", "1"),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr == (
        "orchestratorctl: the output cannot be written: No space left on device\n"
    )


def test_an_interrupt_while_waiting_says_that_the_task_goes_on(daemon: Daemon) -> None:
    daemon.on("POST", "/v1/endpoints/a/b/calls", (202, {"id": 42, "status": "pending"}))
    daemon.on("GET", "/v1/retries/42", (200, a_task(42)))
    process = subprocess.Popen(
        command(daemon, "call", "a/b", "--wait"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not daemon.asked("GET", "/v1/retries/42"):
        time.sleep(0.01)
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert out == ""
    assert err == "Task 42 goes on. Follow it with: orchestratorctl show 42\n"


def test_the_socket_from_the_environment(daemon: Daemon) -> None:
    daemon.on("GET", "/v1/status", (200, {"version": "1"}))
    result = subprocess.run(
        [sys.executable, "-m", "orchestratorctl", "status", "-o", "json"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "ORCHESTRATORD_SOCKET": str(daemon.path)},
    )
    assert json.loads(result.stdout) == {"version": "1"}


def test_hints_are_for_a_terminal_only(
    daemon: Daemon, terminal: Callable[..., Result], ctl: Callable[..., Result]
) -> None:
    daemon.on("POST", "/v1/endpoints/a/b/calls", (202, {"id": 42, "status": "pending"}))
    assert ctl("call", "a/b").err == ""
    assert "Follow it with: orchestratorctl show 42" in terminal("call", "a/b").out
