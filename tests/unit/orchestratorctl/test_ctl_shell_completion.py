"""Completion: what is offered where, and that real shells offer it."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from scripted_daemon import DROP, Daemon, Result, a_task

from orchestratorctl.argument_types import STATUSES
from orchestratorctl.main import main
from orchestratorctl.verb_table import SHELLS

pytestmark = pytest.mark.slow

ENDPOINTS = {"endpoints": [{"id": "shop/getOrder", "paused": True}, {"id": "weather/get"}]}
TASKS = {
    "retries": [
        a_task(42, endpoint="shop/getOrder", status="failed"),
        a_task(
            41, endpoint="shop/getOrder", status="pending", webhook="ops", last_status_code=None
        ),
    ],
    "next": None,
}


@pytest.fixture
def answering(daemon: Daemon) -> Daemon:
    daemon.on("GET", "/v1/endpoints", (200, ENDPOINTS))
    daemon.on("GET", "/v1/retries", (200, TASKS))
    daemon.on("GET", "/v1/webhooks", (200, {"webhooks": [{"name": "ops", "phase": "on_success"}]}))
    return daemon


@pytest.fixture
def offered(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """The candidates after these words, the last of which is being written."""
    monkeypatch.setenv("ORCHESTRATORD_SOCKET", str(daemon.path))

    def ask(*words: str, shell: str = "bash", code: int = 0) -> list[str]:
        assert main(["__complete", shell, *words]) == code
        out, err = capsys.readouterr()
        assert err == ""
        return out.splitlines()

    return ask


# -- what is offered -----------------------------------------------------------------------------


def test_verbs(offered: Callable[..., list[str]]) -> None:
    assert {"status", "list", "retry", "webhooks", "completion"} <= set(offered(""))
    assert "__complete" not in offered("")
    assert offered("re") == ["retry", "resolve", "resume", "reload"]
    assert offered("-o", "json", "stat") == ["status"]
    assert offered("webhooks", "") == ["list", "enable", "disable", "test"]
    assert offered("nonsense", "") == []
    assert offered("no") == []
    assert offered() == offered("")


def test_options(offered: Callable[..., list[str]]) -> None:
    assert offered("retry", "--fo") == ["--force"]
    assert offered("list", "--s") == ["--socket", "--status", "--status-code", "--since"]
    assert "--force" not in offered("list", "-")
    assert offered("retry", "--", "-") == []


def test_values_of_options(offered: Callable[..., list[str]], answering: Daemon) -> None:
    assert offered("list", "-o", "") == ["table", "json", "yaml"]
    assert offered("list", "--status", "") == list(STATUSES)
    assert offered("list", "--kind", "w") == ["webhook"]
    assert offered("list", "--endpoint", "sh") == ["shop/getOrder"]
    assert offered("list", "--limit", "") == []
    assert offered("completion", "") == list(SHELLS)


def test_bash_takes_words_apart(offered: Callable[..., list[str]], answering: Daemon) -> None:
    assert offered("list", "--endpoint", "=", "sh") == ["shop/getOrder"]
    assert offered("list", "--endpoint", "=") == ["shop/getOrder", "weather/get"]
    assert offered("list", "--endpoint=sh", shell="fish") == ["--endpoint=shop/getOrder\tpaused"]
    assert offered("list", "--endpoint=sh", shell="zsh") == ["--endpoint=shop/getOrder:paused"]


def test_ids_of_endpoints(offered: Callable[..., list[str]], answering: Daemon) -> None:
    for verb in ("call", "endpoints", "pause", "resume"):
        assert offered(verb, "") == ["shop/getOrder", "weather/get"]
    assert offered("call", "w") == ["weather/get"]
    assert offered("call", "weather/get", "") == []
    assert offered("call", "-p", "a=b", "--wait", "w") == ["weather/get"]
    assert offered("call", "-p", "a", "=", "b", "--delay", "5s", "w") == ["weather/get"]


def test_parameters(offered: Callable[..., list[str]], daemon: Daemon) -> None:
    params = {"id": {"description": "of the order"}, "limit": {"type": "integer"}, "x": {}}
    daemon.on("GET", "/v1/endpoints/shop/getOrder", (200, {"id": "a/b", "params": params}))
    call = ("call", "shop/getOrder", "-p")
    assert offered(*call, "") == ["id=", "limit=", "x="]
    assert offered(*call, "i", shell="fish") == ["id=\tof the order"]
    assert offered(*call, "l", shell="zsh") == ["limit=:integer"]
    assert offered(*call, "id", "=", "7", "-p", "l") == ["limit="]
    assert offered(*call, "id", "=", "7") == []
    assert offered("call", "-p", "") == []
    daemon.on("GET", "/v1/endpoints/shop/getOrder", (200, {"id": "a/b"}))
    assert offered(*call, "") == []


def test_ids_of_tasks(offered: Callable[..., list[str]], answering: Daemon) -> None:
    assert offered("show", "") == ["42", "41"]
    assert offered("show", "42", "") == []
    assert offered("retry", "42", "") == ["42", "41"]
    assert offered("cancel", "", shell="fish") == [
        "42\tfailed shop/getOrder 503",
        "41\tpending shop/getOrder ops",
    ]
    assert offered("bulks", "") == []
    asked = [request.query.get("status") for request in answering.asked("GET", "/v1/retries")]
    assert asked == [None, "pending,failed,cancelled", "pending,running"]


def test_names_of_webhooks(offered: Callable[..., list[str]], answering: Daemon) -> None:
    assert offered("webhooks", "enable", "shop/getOrder", "") == ["ops"]
    (request,) = answering.asked("GET", "/v1/webhooks")
    assert request.query == {"endpoint": "shop/getOrder"}


def test_names_with_colons(offered: Callable[..., list[str]], daemon: Daemon) -> None:
    daemon.on("GET", "/v1/webhooks", (200, {"webhooks": [{"name": "a:b=c"}]}))
    words = ("webhooks", "test", "shop/getOrder")
    assert offered(*words, "a:", shell="zsh") == ["a\\:b=c"]
    assert offered(*words, "a", ":", "b") == ["b=c"]
    assert offered(*words, "a", ":", "b", "=") == ["c"]


def test_the_socket_that_was_named_is_asked(
    offered: Callable[..., list[str]], answering: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATORD_SOCKET", "/nowhere")
    assert offered("call", "w") == []
    assert offered("--socket", str(answering.path), "call", "w") == ["weather/get"]
    assert offered(f"--socket={answering.path}", "call", "w", shell="zsh") == ["weather/get"]


def test_files_are_left_to_the_shell(offered: Callable[..., list[str]]) -> None:
    assert offered("--socket", "", code=3) == []
    assert offered("list", "--socket", "/t", code=3) == []


@pytest.mark.parametrize("reply", [DROP, (500, {}), (200, {}), (200, {"endpoints": ["x", None]})])
def test_it_is_silent_where_nothing_can_be_known(
    offered: Callable[..., list[str]], daemon: Daemon, reply: object
) -> None:
    daemon.on("GET", "/v1/endpoints", reply)
    assert offered("call", "") == []


def test_what_the_daemon_says_is_harmless(
    offered: Callable[..., list[str]], daemon: Daemon
) -> None:
    nasty = {**a_task(7), "endpoint": "\x1b[2J\na/b", "last_status_code": "\t"}
    daemon.on("GET", "/v1/retries", (200, {"retries": [nasty]}))
    (line,) = offered("show", "", shell="fish")
    assert line.replace("\t", "", 1).isprintable()


def test_the_scripts(ctl: Callable[..., Result]) -> None:
    for shell in SHELLS:
        assert "__complete" in ctl("completion", shell).out
    assert ctl("completion", "bash", "-o", "json").json["shell"] == "bash"
    assert ctl("completion", "tcsh").code == 2


def test_the_scripts_need_no_daemon(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith("#compdef orchestratorctl\n")


# -- real shells ---------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path, answering: Daemon) -> str:
    """A PATH on which `orchestratorctl` is what is tested here, and speaks to the daemon."""
    program = tmp_path / "orchestratorctl"
    program.write_text(
        f"#!/bin/sh\nORCHESTRATORD_SOCKET={answering.path} exec {sys.executable} "
        '-m orchestratorctl "$@"\n'
    )
    program.chmod(0o755)
    return f"{tmp_path}{os.pathsep}{os.environ['PATH']}"


def shell(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    return program


def completed(path: str, *command: str) -> list[str]:
    done = subprocess.run(
        command, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("call ''", ["shop/getOrder", "weather/get"]),
        ("call w", ["weather/get"]),
        ("list --endpoint = sh", ["shop/getOrder"]),
        ("retry 4", ["42", "41"]),
        ("webhooks enable shop/getOrder ''", ["ops"]),
        ("sta", ["status"]),
        ("nothing ''", []),
    ],
)
def test_bash(path: str, words: str, expected: list[str]) -> None:
    script = (
        'eval "$(orchestratorctl completion bash)"\n'
        "[[ $(complete -p orchestratorctl) == *'-F _orchestratorctl orchestratorctl' ]] || exit 9\n"
        f"COMP_WORDS=(orchestratorctl {words})\n"
        "COMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n"
        "_orchestratorctl\n"
        'for word in "${COMPREPLY[@]}"; do printf "%s\\n" "$word"; done\n'
    )
    assert completed(path, shell("bash"), "--norc", "-c", script) == expected


def test_fish(path: str) -> None:
    program = shell("fish")

    def ask(line: str) -> list[str]:
        script = f"orchestratorctl completion fish | source; complete -C '{line}'"
        return completed(path, program, "--no-config", "-c", script)

    assert ask("orchestratorctl call ") == ["shop/getOrder\tpaused", "weather/get"]
    assert ask("orchestratorctl sta") == ["status\tshow the state of the daemon"]
    assert ask("orchestratorctl webhooks enable shop/getOrder ") == ["ops\ton_success"]
    assert ask("orchestratorctl list --endpoint=w") == ["--endpoint=weather/get"]


class Terminal:
    """A shell with a terminal."""

    def __init__(self, command: list[str], environ: dict[str, str]) -> None:
        self.handle, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True
        )
        os.close(theirs)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.handle, text.encode())

    def wait_for(self, text: str, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} did not come: {self.seen!r}"
            if select.select([self.handle], [], [], left)[0]:
                self.seen += os.read(self.handle, 65536).decode(errors="replace")

    def close(self) -> None:
        os.close(self.handle)
        self.process.kill()
        self.process.wait()


@pytest.mark.parametrize(
    ("name", "options", "setup"),
    [
        ("bash", ["--norc", "--noprofile", "-i"], ":"),
        ("zsh", ["-f", "-i"], "autoload -Uz compinit; compinit -D -u"),
    ],
)
def test_at_the_tabulator_key(
    path: str, tmp_path: Path, name: str, options: list[str], setup: str, answering: Daemon
) -> None:
    answering.on("GET", "/v1/endpoints/weather/get", (200, {"params": {"city": {}}}))
    program = shell(name)
    (tmp_path / "a-file-of-mine").touch()
    environ = {"PATH": path, "TERM": "dumb", "HOME": str(tmp_path), "PS1": "> "}
    terminal = Terminal([program, *options], environ)
    try:
        terminal.type(f'cd {tmp_path}; {setup}; eval "$(orchestratorctl completion {name})"\n')
        terminal.type("echo rea''dy\n")
        terminal.wait_for("ready")
        terminal.type("orchestratorctl call we\t")
        terminal.wait_for("call weather/get ")
        terminal.type("\x15orchestratorctl call weather/get -p ci\tOslo")
        terminal.wait_for("-p city=Oslo")
        terminal.type("\x15orchestratorctl list --endpoint=sh\t")
        terminal.wait_for("--endpoint=shop/getOrder")
        terminal.type("\x15orchestratorctl list --socket a-fi\t")
        terminal.wait_for("--socket a-file-of-mine")
        terminal.type("\x15exit\n")
    finally:
        terminal.close()
