"""The servers that a benchmark needs, on loopback ports and in a folder of its own.

Each is a context manager: started when entered, gone when left.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

HOST = "127.0.0.1"
WAIT = 20.0
"""Seconds in which a server has to be up."""
RECEIVERS = 10
"""Ports of nginx that answer alike; each is a receiver of its own to who sends."""


class Missing(Exception):
    """A program is not installed; the message says what to install."""


def free_ports(count: int) -> list[int]:
    """So many ports that nothing listens at."""
    probes = [socket.create_server((HOST, 0)) for _ in range(count)]
    try:
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def listens(port: int) -> bool:
    """Whether a server listens at this port."""
    with closing(socket.socket()) as probe:
        return probe.connect_ex((HOST, port)) == 0


class Server:
    """A process that is up once it listens at its port."""

    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def command(self) -> Sequence[str | Path]:
        """How it is started, after everything that it needs has been written."""
        raise NotImplementedError

    def user(self) -> str | None:
        """Whom it runs as, if not as ourselves."""
        return None

    def __enter__(self) -> Self:
        self.home.mkdir(parents=True, exist_ok=True)
        command = self.command()
        log = self.home / "log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, **as_user(self.user()),
            )  # fmt: skip
        deadline = time.monotonic() + WAIT
        while not listens(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise RuntimeError(f"{command[0]} did not come up:\n{log.read_text()[-4000:]}")
            time.sleep(0.02)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Nginx(Server):
    """The receiver: answers every request with 200 and keeps its connections.

    `settings` says the same in words, for the table.
    """

    settings = "nginx: one worker process, `return 200`, keep-alive, no access log"

    def __init__(self, home: Path) -> None:
        *self.ports, self.logged_port, port = free_ports(RECEIVERS + 2)
        super().__init__(home, port)
        self._polls = 0
        self._connection = http.client.HTTPConnection(HOST, self.port)

    def url(self, receiver: int = 0) -> str:
        """Where to send to."""
        return f"http://{HOST}:{self.ports[receiver]}/"

    @property
    def logged_url(self) -> str:
        """Where to send to what shall stand in `arrivals`."""
        return f"http://{HOST}:{self.logged_port}/"

    def command(self) -> Sequence[str | Path]:
        # Its modules and mime types would come from the packaged file, which is not read.
        (self.home / "nginx.conf").write_text(f"""
            daemon off;
            {"user nobody nogroup;" if os.geteuid() == 0 else ""}
            worker_processes 1;
            pid {self.home}/pid;
            error_log stderr;
            events {{ worker_connections 16384; }}
            worker_rlimit_nofile 16500;
            http {{
                access_log off;
                keepalive_requests 1000000000;
                keepalive_timeout 1h;
                client_body_temp_path {self.home}/body;
                log_format arrivals '$msec $http_x_job';
                server {{
                    {" ".join(f"listen {HOST}:{port} backlog=4096;" for port in self.ports)}
                    location / {{ return 200; }}
                }}
                server {{
                    listen {HOST}:{self.logged_port} backlog=4096;
                    access_log {self.home}/arrivals arrivals buffer=64k flush=100ms;
                    location / {{ return 200; }}
                }}
                server {{
                    listen {HOST}:{self.port};
                    location / {{ stub_status; }}
                }}
            }}
        """)
        program = find("nginx", "nginx", "/usr/sbin")
        return [program, "-e", "stderr", "-p", self.home, "-c", self.home / "nginx.conf"]

    def count(self) -> int:
        """How many requests have come, but for those that ask this."""
        self._polls += 1
        self._connection.request("GET", "/")
        text = self._connection.getresponse().read().decode()
        return int(text.split("\n")[2].split()[2]) - self._polls

    def arrivals(self) -> list[tuple[float, str]]:
        """Of each request at `logged_url`: when (seconds since the epoch) and its header X-Job."""
        time.sleep(0.3)
        lines = (self.home / "arrivals").read_text().splitlines()
        return [(float(when), job) for when, _, job in (line.partition(" ") for line in lines)]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()
        super().__exit__(kind, error, trace)


class Redis(Server):
    """Redis as its documentation advises for data that shall last: the append-only file."""

    settings = "Redis: append-only file, fsync every second (its documentation's advice)"

    def __init__(self, home: Path) -> None:
        super().__init__(home, *free_ports(1))

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def command(self) -> Sequence[str | Path]:
        program = find("redis-server", "redis-server")
        keys = {
            "bind": HOST,
            "port": str(self.port),
            "dir": str(self.home),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        return [program, *(word for key, value in keys.items() for word in (f"--{key}", value))]

    def ask(self, *words: str) -> int:
        """One command whose answer is a number."""
        with closing(socket.create_connection((HOST, self.port))) as connection:
            parts = [f"${len(word)}\r\n{word}\r\n" for word in words]
            connection.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
            answer = connection.recv(4096).decode()
        if not answer.startswith(":"):
            raise RuntimeError(f"Redis answered {words[0]} with {answer!r}")
        return int(answer[1:])


class Postgres(Server):
    """PostgreSQL with its own defaults, and so with fsync at each commit.

    It refuses to run as root; then it is the user postgres, who has to get at `home`. Where there
    is a database in `home` already, it goes on with that.
    """

    settings = "PostgreSQL: its defaults (fsync and synchronous_commit are on)"

    def __init__(self, home: Path, **options: str) -> None:
        """`options`: of its configuration, beside the defaults."""
        super().__init__(home, *free_ports(1))
        self._options = [word for key, to in options.items() for word in ("-c", f"{key}={to}")]

    @property
    def url(self) -> str:
        return f"postgres://bench@{HOST}:{self.port}/postgres"

    def user(self) -> str | None:
        return "postgres" if os.geteuid() == 0 else None

    def command(self) -> Sequence[str | Path]:
        data = self.home / "data"
        if not data.exists():
            self._make(data)
        return [
            postgres_program("postgres"), "-D", data, "-p", str(self.port), "-k", data,
            "-c", f"listen_addresses={HOST}", *self._options,
        ]  # fmt: skip

    def _make(self, data: Path) -> None:
        data.mkdir(mode=0o700)
        if (user := self.user()) is not None:
            shutil.chown(data, user)
        initdb: list[str | Path] = ["--auth=trust", "--username=bench", "--no-sync", "-D", data]
        subprocess.run(  # noqa: S603
            [postgres_program("initdb"), *initdb], check=True, stdout=subprocess.DEVNULL,
            **as_user(user),
        )  # fmt: skip

    def ask(self, statement: str) -> int:
        """One statement whose answer is a number."""
        # Not by psql, which takes a tenth of a second of what is measured to start.
        with psycopg.connect(self.url) as session:
            row = session.execute(statement.encode()).fetchone()
        assert row is not None
        return int(row[0])


def as_user(name: str | None) -> dict[str, Any]:
    """For `subprocess`: run as this user, with none of our own groups; None: as ourselves."""
    return {} if name is None else {"user": name, "group": name, "extra_groups": []}


def find(program: str, package: str, folder: str | Path = "/usr/bin") -> Path:
    """Where a program is. Raises Missing, which names Debian's package."""
    found = shutil.which(program, path=f"{folder}:{os.environ['PATH']}")
    if found is None:
        raise Missing(f"{program} is not installed: apt-get install {package}")
    return Path(found)


def postgres_program(name: str) -> Path:
    """A program of the newest PostgreSQL server that Debian has installed."""

    def version(path: Path) -> int:
        return int(re.sub(r"\D", "", path.parts[-3]) or 0)

    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=version)
    return found[-1] if found else find(name, "postgresql")


def version_of(command: Sequence[str | Path]) -> str:
    """The first number with a dot in what a program says of its version."""
    ran = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    match = re.search(r"\d+(\.\d+)+", ran.stdout + ran.stderr)
    return match[0] if match else "?"
