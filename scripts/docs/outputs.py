"""Makes the output of commands in the docs: `python -m scripts.docs` writes it anew.

A block `console` holds commands behind `$ `, each with its output below it. Those of a page are
carried out one after the other in an empty folder: `orchestratord` with the example as its config
folder, all others by the shell, beside a daemon that serves the example (from what the page calls
/etc/orchestratord) and an API that it may call.

A page with `<!-- from nothing -->`, such as the tutorial, is carried out as its reader would: its
commands in one shell, its files of YAML and Python written where their first line says.

What a daemon says holds times and numbers of its own; such output is written anew only where more
than those has changed. A test says where an output is no longer true.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable
from contextlib import chdir, suppress
from importlib import metadata
from pathlib import Path

from click.testing import CliRunner
from orchestratord_demo import story
from orchestratord_demo.daemon_process import DemoDaemon
from orchestratord_demo.receiver import DemoReceiver

from orchestratord.cli.main import main as orchestratord

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]

CONFIG = "/etc/orchestratord"

_TIMEOUT = 60.0
"""Seconds for a server to begin: on a busy machine a start of the daemon took more than ten."""

_BEHIND = 10.0
"""Seconds for a delivery that a call has made."""

_RUNTIME = "/run/user/1000/orchestratord/"

_LONGEST = 300.0
"""Seconds that one command of a page may take."""

FROM_NOTHING = "<!-- from nothing -->"

_BLOCK = re.compile(r"^```console\n(?P<commands>\$ (?s:.*?))^```$", re.MULTILINE)
_FILE = re.compile(
    r"^```(?:yaml\n\# (?P<yaml>[\w./-]+)|python\n\"\"\"(?P<python>[\w./-]+\.py): )(?s:.*?)^```$",
    re.MULTILINE,
)
_COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
_MEASURED = (
    # What `doctor` says of the machine is true of that one alone.
    (
        re.compile(
            r"^\w+ +(?:program|files|disk|clock|open files|inotify) .*\n(?: +(?:→|/opt/).*\n)*",
            re.M,
        ),
        "",
    ),
    (re.compile(r"instance \w+|(?<=Idempotency-Key  )\w{20}\b"), "RANDOM"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z|\d\d:\d\d:\d\d"), "TIME"),
    (re.compile(r"\d+(?:[.,]\d+)*"), "0"),
    (re.compile(r"\b0 ?(?:µs|ms|s|m|h|d|B|KiB|MiB)(?:0[ms])?\b"), "0"),
    (re.compile(r"[ -]+"), " "),
    (re.compile(r"^ | $", re.MULTILINE), ""),
)

Run = Callable[[str, str], str]
"""Carries out a command; its output, given the one that stands there."""


def renewed(page: str, run: Run) -> str:
    """The text of a page with the output of each command as `run` gives it."""

    def block(match: re.Match[str]) -> str:
        parts = (f"$ {m[1]}\n{run(m[1], m[2])}" for m in _COMMAND.finditer(match[1]))
        return f"```console\n{''.join(parts)}```"

    return _BLOCK.sub(block, page)


def remade(page: str) -> str:
    """The text of a page with the output that its commands, one after the other, write today."""
    with tempfile.TemporaryDirectory(prefix="docs-") as folder, chdir(folder):
        if FROM_NOTHING in page:
            with Reader(Path(folder)) as reader:
                return reader.follow(page)
        with Stage() as stage:
            return renewed(page, stage.run)


class Stage:
    """What the commands of one page find: the folder they are in, and a daemon if they need one."""

    def __init__(self) -> None:
        self._daemon: DemoDaemon | None = None
        self._receiver: DemoReceiver | None = None
        self._behind: list[subprocess.Popen[bytes]] = []
        self._pid = 0
        self._stopped = False

    def run(self, command: str, before: str) -> str:
        """The output of one command; `before`, where it differs by times and numbers alone."""
        if command.startswith("orchestratord ") and not any(x in command for x in (CONFIG, "|")):
            return output_of(command)
        until = time.monotonic() + _TIMEOUT
        while True:
            output = self._beside_a_daemon(command)
            if shape(output) == shape(before):
                return before
            # What goes on behind may not have written yet what it is looked at for.
            if not (self._behind and command.startswith("cat ")) or time.monotonic() > until:
                return output
            time.sleep(0.1)

    def _beside_a_daemon(self, command: str) -> str:
        daemon = self._daemon or self._started()
        environ = {
            **{name: value for name, value in os.environ.items() if name != "COLUMNS"},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ORCHESTRATORD_CONFIG": str(daemon.config),
            "ORCHESTRATORD_SOCKET": str(daemon.socket),
            "NO_COLOR": "1",
        }
        folder = daemon.config.parent
        words = ["bash", "-c", command.replace(CONFIG, str(daemon.config))]
        if command.endswith("&"):
            words[2] = f"exec {words[2].rstrip('& ')}"
            process = subprocess.Popen(words, cwd=folder, env=environ)  # noqa: S603
            self._behind.append(process)
            while process.poll() is None and not _connected(process.pid):
                time.sleep(0.05)
            time.sleep(0.5)  # from its being connected until it is listened to
            return ""
        if CONFIG in command and not command.startswith("orchestrator"):
            # It takes files up by itself, and is to hear of these from the command that follows.
            if not self._stopped:
                # Having looked at them just now, it has no look to make up for as it goes on.
                settings = daemon.config / "orchestratord.yaml"
                settings.write_bytes(settings.read_bytes())
                time.sleep(1.0)
            os.kill(self._pid, signal.SIGSTOP)
            self._stopped = True
        process = subprocess.Popen(  # noqa: S603
            words, cwd=folder, env={**environ, "COLUMNS": "100"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if self._stopped and command.startswith("orchestrator"):
            while process.poll() is None and not _connected(process.pid):
                time.sleep(0.05)
            time.sleep(0.2)  # until it has said what it wants
            self._go_on()
        output = process.communicate()[0].decode().replace(str(daemon.config), CONFIG)
        output = output.replace(f"{Path(sys.prefix).resolve()}/", "/opt/orchestratord/")
        return output.replace(str(daemon.socket.parent), "/run/orchestratord")

    def _go_on(self) -> None:
        if self._stopped:
            os.kill(self._pid, signal.SIGCONT)
            self._stopped = False

    def _started(self) -> DemoDaemon:
        answers = {place: a for place, a in story.ANSWERS.items() if "/hooks/" not in place[1]}
        self._receiver = DemoReceiver(answers, {})
        own = Path("daemon").absolute()
        shutil.copytree(ROOT / "config", own / "example")
        # Nothing happens by itself or by chance, so that the same follows each time.
        _edit(own / "example/apis/shop/endpoints/getStock.yaml", "every: 10s", "every: monday")
        _edit(own / "example/apis/shop/api.yaml", "jitter: 0.1", "jitter: 0")
        variables = {"DEMO_PORT": str(self._receiver.port)}
        self._daemon = DemoDaemon(own, own / "example", variables)
        self._daemon.wait_until_ready()
        self._pid = self._daemon.get("/v1/status")["pid"]
        return self._daemon

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._behind:
            process.terminate()
            process.wait()
        self._go_on()
        if self._daemon is not None:
            self._daemon.stop()
        if self._receiver is not None:
            self._receiver.close()


class Reader:
    """Does what a page says, in one shell and an empty home.

    Ports that the page names may be in use here: the reader takes free ones for them.
    """

    _STEP = re.compile(rf"{_BLOCK.pattern}|{_FILE.pattern}", re.MULTILINE)
    _END = "-- the end of a command --"

    def __init__(self, home: Path) -> None:
        self._home = home
        self._ports: dict[str, str] = {}
        kept = {name: os.environ[name] for name in ("LANG", "LC_ALL") if name in os.environ}
        self._environ = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(home),
            "COLUMNS": "140",
            "NO_COLOR": "1",
            "TZ": "UTC",
        }
        self._shell = subprocess.Popen(
            ["/bin/bash"],
            cwd=home, env=self._environ, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def follow(self, page: str) -> str:
        """The page with the output that its commands write."""
        for port in sorted(set(re.findall(r"127\.0\.0\.1(?::|\", )(\d{4})\b", page))):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self._ports[port] = str(probe.getsockname()[1])

        def step(match: re.Match[str]) -> str:
            if match["commands"] is not None:
                return renewed(match[0], self._run_or_again)
            self._write((match["yaml"] and f"config/{match['yaml']}") or match["python"], match[0])
            return match[0]

        return self._STEP.sub(step, page)

    def _write(self, name: str, block: str) -> None:
        path = self._home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = block.split("\n", 1)[1].removesuffix("```")
        path.write_text(self._translated(text, self._ports))

    def _run_or_again(self, command: str, before: str) -> str:
        """As `_run`; a list is looked at until what goes on behind it is there."""
        until = time.monotonic() + _BEHIND
        while (output := self._run(command, before)) != before:
            if not command.startswith("orchestratorctl list ") or time.monotonic() > until:
                break
            time.sleep(0.1)
        return output

    def _run(self, command: str, before: str) -> str:
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        # `jobs` forgets those that have ended, as an interactive shell does at its prompt.
        line = self._translated(command, self._ports)
        self._shell.stdin.write(f"{line}\njobs > jobs.txt\necho '{self._END}'\n")
        self._shell.stdin.flush()
        lines = []
        too_long = threading.Timer(_LONGEST, os.killpg, (self._shell.pid, signal.SIGKILL))
        too_long.start()
        while (line := self._shell.stdout.readline()) and self._END not in line:
            lines.append(line)
        too_long.cancel()
        assert self._END in line, f"{command}: no end after {_LONGEST:g} s, but {lines}"
        if command.startswith("orchestratord run "):
            self._wait_for_daemon()
        back = {here: there for there, here in self._ports.items()}
        # What the shell says of a job that was killed stands elsewhere in an interactive one.
        said = "".join(line for line in lines if not re.match(r"/bin/bash: line \d+: ", line))
        output = self._translated(said, back).replace(f"{self._home}/orchestratord/", _RUNTIME)
        output = output.replace(f"{self._home}/", "")
        output = re.sub(r"(  token: )\S{40,}", r"\1…", output)
        return before if shape(output) == shape(before) else output

    def _wait_for_daemon(self) -> None:
        until = time.monotonic() + _TIMEOUT
        words = ["orchestratorctl", "status"]
        while subprocess.run(words, env=self._environ, capture_output=True).returncode:  # noqa: S603
            assert time.monotonic() < until, "the daemon of the page does not begin"
            time.sleep(0.05)

    @staticmethod
    def _translated(text: str, ports: dict[str, str]) -> str:
        for port, instead in ports.items():
            text = re.sub(rf"\b{port}\b", instead, text)
        return text

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.communicate()


def _connected(pid: int) -> bool:
    """Whether a process has a socket open."""
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if handle.readlink().name.startswith("socket:"):
                return True
    return False


def _edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def shape(output: str) -> str:
    """An output without what is another one each time, and the blanks that make up for it."""
    for pattern, instead in _MEASURED:
        output = pattern.sub(instead, output)
    return output


def output_of(command: str) -> str:
    """What a command of `orchestratord` writes, with the example as its config folder."""
    environ = {"ORCHESTRATORD_CONFIG": str(ROOT / "config"), "DEMO_PORT": None, "COLUMNS": "80"}
    result = CliRunner(env=environ).invoke(orchestratord, shlex.split(command)[1:])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    output = result.output.replace(f"{Path.cwd()}/", "").replace(str(ROOT / "config"), CONFIG)
    # Of this checkout, also where it was installed before its version was raised.
    output = output.replace(metadata.version("orchestratord"), VERSION)
    return re.sub(r"(  token: )\S{40,}", r"\1…", output)  # another one each time


def main() -> None:
    """Write the pages whose outputs have changed."""
    for path in PAGES:
        before = path.read_text()
        after = remade(before)
        if after != before:
            path.write_text(after)
            print(f"wrote {path.relative_to(ROOT)}")
