"""One daemon as a process: its files, its log, its end; its API is `control`.

Everything of it is below one folder, which the test gives. The daemon is ended at the end of the
`with`, whatever happened, and what it logged at ERROR must have been expected by then.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from tests.acceptance.control import Control
from tests.acceptance.fork_server import can_fork, fork_server
from tests.acceptance.waiting import PATIENCE, until


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


def ran(command: Sequence[str], environ: Mapping[str, str], timeout: float = PATIENCE) -> Ran:
    """Run a command with these variables alone, until its end."""
    with TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process: subprocess.Popen[bytes]
        if can_fork(environ):
            process = fork_server().fork(command, environ, Path.cwd(), out, err)
        else:
            with out.open("wb") as stdout, err.open("wb") as stderr:
                process = subprocess.Popen(
                    [sys.executable, "-m", *command],
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    env=environ,
                )
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
            process.wait()
        return Ran(code, out.read_text(), err.read_text())


def retry(delay: str = "50ms", attempts: int = 15, **more: Any) -> dict[str, Any]:
    """A `retry` that a test does not wait long for, and without chance."""
    backoff = {"strategy": "fixed", "delay": delay}
    return {"backoff": backoff, "jitter": 0, "max_attempts": attempts, **more}


class Daemon(Control):
    """See above.

    Args:
        home: an empty folder of the test's own; a short path, for sockets have short names.
        environ: further environment variables of the daemon.
        **settings: keys of `orchestratord.yaml`.
    """

    def __init__(
        self, home: Path, environ: Mapping[str, str] | None = None, **settings: Any
    ) -> None:
        self.home = home
        self.config = home / "config"
        self.socket = home / "control.sock"
        self.database = home / "orchestratord.db"
        self.log_file = home / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.wrapper: list[str] = []
        """The beginning of the command line, for what is to run the daemon."""
        self.passed: list[int] = []
        """Descriptors that the process inherits."""
        self.by_command = False
        """It is started by its command line, as users do, though that takes longer."""
        self.python = sys.executable
        """The interpreter of its command line; that of another environment has another version."""
        self.expected: list[str] = []
        """Regular expressions of what may be logged at ERROR."""
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "PYTHONWARNINGS": "default",
            **(environ or {}),
        }
        self.settings: dict[str, Any] = {
            "control_socket": str(self.socket),
            "database": f"sqlite:///{self.database}",
            "drain_timeout": "5s",
            **settings,
        }
        (self.config / "apis").mkdir(parents=True)
        self.write("orchestratord.yaml", self.settings)

    # -- files --------------------------------------------------------------------------------

    def write(self, name: str, content: Any) -> Path:
        """Write a file below the config folder, whole at once; anything but a text as YAML."""
        path = self.config / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # JSON is YAML, and the dumper of PyYAML would write an older YAML than the daemon reads.
        text = content if isinstance(content, str) else json.dumps(content, indent=2)
        # In place, a daemon that is slow to look would see it empty, and complain.
        whole = path.with_name(f".{path.name}.new")
        whole.write_text(text)
        whole.replace(path)
        return path

    def api(self, name: str, base_url: str | None = None, **keys: Any) -> None:
        """Declare an API."""
        if base_url is not None:
            keys["base_url"] = base_url
        self.write(f"apis/{name}/api.yaml", keys)

    def endpoint(self, endpoint_id: str, path: str, **keys: Any) -> Path:
        """Declare an endpoint; the file."""
        api, name = endpoint_id.split("/")
        return self.write(f"apis/{api}/endpoints/{name}.yaml", {"path": path, **keys})

    def plugin(self, name: str, source: str) -> None:
        """Write a single-file plugin; `plugins.dirs` has to name `plugins`."""
        folder = self.config / "plugins"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(source)

    # -- the process ----------------------------------------------------------------------------

    def start(self, *options: str) -> Daemon:
        """Start it and wait until it answers."""
        self.launch(*options)
        self.wait_ready()
        return self

    def launch(self, *options: str) -> subprocess.Popen[bytes]:
        """Start it; it may not come up."""
        assert self.process is None or self.process.poll() is not None
        words = ["run", "--config", str(self.config), *options]
        if not (self.wrapper or self.by_command) and can_fork(self.environ):
            self.process = fork_server().fork(
                ["orchestratord", *words], self.environ, self.home, self.log_file
            )
            return self.process
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.wrapper, self.python, "-m", "orchestratord", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environ,
                cwd=self.home,
                start_new_session=True,
                pass_fds=self.passed,
            )
        return self.process

    def wait_ready(self, timeout: float = PATIENCE) -> None:
        """Wait until it answers; AssertionError with its log where it ends instead."""

        def ready() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"it ended with {self.process.returncode}:\n{self.log()}")
            return self.listens() and self.get("/readyz").status_code == 200

        until(ready, "the daemon's start", timeout)

    def listens(self) -> bool:
        """Whether somebody listens at its socket."""
        with closing(socket.socket(socket.AF_UNIX)) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        assert self.process is not None
        return self.process.wait(timeout)

    def stop(self, timeout: float = PATIENCE) -> int:
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """SIGKILL: no last words. The kernel ends its workers, if there are any, a moment later."""
        self.signal(signal.SIGKILL)
        self.wait()
        until(lambda: not self.listens(), "the end of its workers")

    def restart(self) -> None:
        """Stop it in order, and start it again."""
        assert self.stop() == 0, self.log()
        self.start()

    def __enter__(self) -> Daemon:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        code: int | None = 0
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                code = self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                self.process.kill()
                self.process.wait()
        if error is not None:
            # pytest shows it with the failure.
            print(f"--- log of the daemon in {self.home}\n{self.log()[-20_000:]}")
            return
        assert code == 0, f"it did not end in order ({code}):\n{self.log()}"
        complaints = self.complaints()
        assert not complaints, "it complained:\n" + "\n".join(complaints)

    # -- the log --------------------------------------------------------------------------------

    def log(self) -> str:
        """All that it has written so far."""
        try:
            return self.log_file.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def logged(self, pattern: str, timeout: float = PATIENCE) -> str:
        """Wait for a line that `pattern` is found in; the line."""

        def look() -> str | None:
            return next(
                (line for line in self.log().splitlines() if re.search(pattern, line)), None
            )

        found = until(look, f"{pattern!r} in the log", timeout)
        assert found is not None
        return found

    def expect(self, *patterns: str) -> None:
        """These may be logged at ERROR."""
        self.expected += patterns

    def complaints(self) -> list[str]:
        """Lines that no daemon in order writes, and that no test expected."""
        bad = re.compile(r" (ERROR|CRITICAL) |^Traceback|py\.warnings")
        log, expected = self.log(), self.expected
        if "the database goes on" in log:  # a disk that others kept busy for seconds
            expected = [*expected, r"the database has given no sign of life for \d+ s"]
        return [
            line
            for line in log.splitlines()
            if bad.search(line) and not any(re.search(text, line) for text in expected)
        ]

    # -- what stands outside ----------------------------------------------------------------------

    def ctl(self, *words: str, timeout: float = PATIENCE, **environ: str) -> Ran:
        """Run orchestratorctl."""
        known = {"PATH": os.environ["PATH"], "ORCHESTRATORD_SOCKET": str(self.socket)}
        return ran(["orchestratorctl", *words], known | environ, timeout)

    def run(self, *words: str, timeout: float = PATIENCE) -> Ran:
        """Run a command of orchestratord on its config folder."""
        command = ["orchestratord", *words, "--config", str(self.config)]
        return ran(command, self.environ, timeout)

    def rows(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """Read the database, as an operator with the sqlite3 shell would."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(statement, values)]

    def memory(self, name: str = "VmRSS") -> int:
        """Bytes of VmRSS, or of VmHWM, the most since `reset_peak`."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        match = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
        assert match is not None
        return int(match[1]) * 1024

    def reset_peak(self) -> None:
        """Forget the most memory that it has had."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
