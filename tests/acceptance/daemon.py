"""One daemon as a process: its files, its API, its log, its end.

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
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from tests.acceptance.waiting import PATIENCE, until

LONG_POLL = 30.0
"""Seconds that the daemon keeps somebody waiting, at most."""

FINAL = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


def retry(delay: str = "50ms", attempts: int = 15, **more: Any) -> dict[str, Any]:
    """A `retry` that a test does not wait long for, and without chance."""
    backoff = {"strategy": "fixed", "delay": delay}
    return {"backoff": backoff, "jitter": 0, "max_attempts": attempts, **more}


class Daemon:
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
        self.config.mkdir(parents=True)
        self.write("orchestratord.yaml", self.settings)

    # -- files --------------------------------------------------------------------------------

    def write(self, name: str, content: Any) -> Path:
        """Write a file below the config folder, in place; anything but a text as YAML."""
        path = self.config / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # JSON is YAML, and the dumper of PyYAML would write an older YAML than the daemon reads.
        text = content if isinstance(content, str) else json.dumps(content, indent=2)
        path.write_text(text)
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

    def start(self) -> Daemon:
        """Start it and wait until it answers."""
        self.launch()
        self.wait_ready()
        return self

    def launch(self) -> subprocess.Popen[bytes]:
        """Start it; it may not come up."""
        assert self.process is None or self.process.poll() is not None
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "orchestratord", "run", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environ,
                cwd=self.home,
                start_new_session=True,
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
        """SIGKILL: no last words."""
        self.signal(signal.SIGKILL)
        self.wait()

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
                code = self.process.wait(15)
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
        return [
            line
            for line in self.log().splitlines()
            if bad.search(line) and not any(re.search(text, line) for text in self.expected)
        ]

    # -- the API --------------------------------------------------------------------------------

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request over the control socket; `options` are httpx's."""
        # Without TLS, whose certificates take longer to load than the daemon to answer.
        transport = httpx.HTTPTransport(uds=str(self.socket), verify=False)
        with httpx.Client(transport=transport, base_url="http://localhost", timeout=60) as client:
            return client.request(method, path, **options)

    def get(self, path: str, **params: Any) -> httpx.Response:
        return self.request("GET", path, params=params)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        if body is not None:
            options["json"] = body
        return self.request("POST", path, **options)

    def call(self, endpoint_id: str, delay: Any = None, /, **params: Any) -> int:
        """Make a call; its id."""
        body = {"params": params} if delay is None else {"params": params, "delay": delay}
        answer = self.post(f"/v1/endpoints/{endpoint_id}/calls", body)
        assert answer.status_code == 202, answer.text
        task_id = answer.json()["id"]
        assert isinstance(task_id, int)
        return task_id

    def batch(self, endpoint_id: str, batch: Sequence[Mapping[str, Any]]) -> list[int]:
        """Make many calls; their ids."""
        answer = self.post(f"/v1/endpoints/{endpoint_id}/calls", {"batch": list(batch)})
        assert answer.status_code == 202, answer.text
        ids: list[int] = answer.json()["ids"]
        return ids

    def task(self, task_id: int) -> dict[str, Any]:
        """A task in full."""
        answer = self.get(f"/v1/retries/{task_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def tasks(self, **filters: Any) -> list[dict[str, Any]]:
        """All tasks that the filters match, newest first."""
        found: list[dict[str, Any]] = []
        after: dict[str, Any] = {}
        while True:
            answer = self.get("/v1/retries", limit=1000, **filters, **after)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            found += page["retries"]
            if page["next"] is None:
                return found
            after = {"after": page["next"]}

    def status(self) -> dict[str, Any]:
        """The status document."""
        found: dict[str, Any] = self.get("/v1/status").json()
        return found

    def reload(self) -> dict[str, Any]:
        """Have it read its files; what it says."""
        found: dict[str, Any] = self.post("/v1/reload").json()
        return found

    def finish(self, task_id: int, timeout: float = PATIENCE) -> dict[str, Any]:
        """Wait for a task's end; the task in full."""
        deadline = time.monotonic() + timeout
        while True:
            rest = min(max(deadline - time.monotonic(), 0), LONG_POLL)
            answer = self.get(f"/v1/retries/{task_id}", wait=f"{rest:.3f}")
            assert answer.status_code == 200, answer.text
            task: dict[str, Any] = answer.json()
            if task["status"] in FINAL:
                return task
            assert time.monotonic() < deadline, f"task {task_id} has not ended: {task}"

    def finish_none(self, ids: Iterable[int], seconds: float) -> list[int]:
        """Watch tasks for so long; those that have ended meanwhile."""
        time.sleep(seconds)
        return [task_id for task_id in ids if self.task(task_id)["status"] in FINAL]

    def settle(self, timeout: float = PATIENCE, **filters: Any) -> None:
        """Wait until no task that the filters match is pending or running."""

        def idle() -> bool:
            page = self.get("/v1/retries", status="pending,running", limit=1, **filters)
            assert page.status_code == 200, page.text
            return not page.json()["retries"]

        until(idle, "the end of all tasks", timeout)

    def deliveries(self, parent: int) -> list[dict[str, Any]]:
        """The deliveries that a call has caused, oldest first."""
        found = [task for task in self.tasks(kind="webhook") if task["parent_id"] == parent]
        return found[::-1]

    def until_status(self, task_id: int, status: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """Wait until a task is in this status; the task."""

        def look() -> dict[str, Any] | None:
            task = self.task(task_id)
            return task if task["status"] == status else None

        found = until(look, f"task {task_id} {status}", timeout)
        assert found is not None
        return found

    # -- what stands outside ----------------------------------------------------------------------

    def ctl(self, *words: str, timeout: float = 30, **environ: str) -> Ran:
        """Run orchestratorctl."""
        ended = subprocess.run(
            [sys.executable, "-m", "orchestratorctl", *words],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
            env={
                "PATH": os.environ["PATH"],
                "ORCHESTRATORD_SOCKET": str(self.socket),
                **environ,
            },
        )
        return Ran(ended.returncode, ended.stdout, ended.stderr)

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
