"""A real PostgreSQL for tests: Debian's, on a port and a folder of its own.

One server serves a whole run; each test has a database of its own. It does not wait for the disk,
which only matters where a machine goes down; killed, it loses nothing either. So it may as well be
in memory, where there is enough: half of what a database costs is making and deleting its files.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.network import NETWORK, Host

HOST = "127.0.0.1"
PATIENCE = 60.0
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "100",
    "autovacuum_naptime": "10s",
    "log_min_messages": "fatal",
    # Without it a database is written to disk for each one that is made.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    # So that a crash loses what nobody has waited for, as it may anywhere.
    "wal_writer_delay": "10s",
}


MEMORY = Path("/dev/shm")
ENOUGH = 4 << 30
"""Bytes that have to be free in memory: a container may have 64 MB there."""


def new_home() -> Path:
    """A folder for a server: in memory, or on the disk."""
    root = Path("/tmp")
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ENOUGH:
        root = MEMORY
    return Path(tempfile.mkdtemp(prefix="pg-", dir=root))


def programs() -> Path | None:
    """The folder of the newest PostgreSQL that is installed."""

    def version(path: Path) -> int:
        return int(re.sub(r"\D", "", path.parent.name) or 0)

    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=version)
    if found:
        return found[-1]
    there = shutil.which("initdb")
    return Path(there).resolve().parent if there else None


class Postgres:
    """One server. A context manager."""

    def __init__(self, home: Path | None = None, host: Host | None = None, **settings: str) -> None:
        """`host`: the machine that it runs on, if not this one."""
        self._home = home or new_home()
        if in_memory := self._home.is_relative_to(MEMORY):
            settings = {"max_wal_size": "256MB", **settings}
        self._strategy = {"strategy": "file_copy"} if in_memory else {}
        """Of `create`: a third of the time in memory, and three times as much on a disk."""
        self._settings = {**SETTINGS, **settings}
        self._host = host
        self.address = HOST
        """Where this process finds it."""
        if host is not None:
            self.address = host.address(0)
            self._settings["listen_addresses"] = "*"
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        with closing(socket.socket()) as probe:
            probe.bind((HOST, 0))
            self.port: int = probe.getsockname()[1]

    def url(self, database: str) -> str:
        return f"postgresql://tester:s3cret@{self.address}:{self.port}/{database}"

    def create(self, template: str = "template0", **options: str) -> str:
        """A new database, with what `template` holds; its URL."""
        name = f"queue{next(self._numbers)}"
        options = self._strategy | options
        said = "".join(f" {key.upper()} {value}" for key, value in options.items())
        self.run("postgres", f"CREATE DATABASE {name} TEMPLATE {template}{said}")
        return self.url(name)

    def drop(self, url: str) -> None:
        self.run("postgres", f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def run(self, database: str, statement: str, *values: Any) -> list[Any]:
        """Run a statement as an administrator would, in a session of its own."""
        import psycopg  # is an extra, and most tests need none

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def __enter__(self) -> Postgres:
        data = self._home / "data"
        data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            self._home.chmod(0o755)
            shutil.chown(data, "postgres")
        self._fill(data)
        self.start()
        return self

    def _fill(self, data: Path) -> None:
        self._call("initdb", "--auth=trust", "--username=tester", "--no-sync", "-E", "UTF8",
                   "--locale=C.UTF-8", "-D", str(data))  # fmt: skip
        if self._host is not None:
            with (data / "pg_hba.conf").open("a") as file:
                file.write(f"host all all {NETWORK} trust\n")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def start(self, *, wait: bool = True) -> None:
        """Start it, and wait until it answers."""
        options = [word for key, to in self._settings.items() for word in ("-c", f"{key}={to}")]
        with (self._home / "log").open("ab") as log:
            within = self._host.within("postgres") if self._host is not None else []
            self._process = subprocess.Popen(
                [*within, self._program("postgres"), "-D", self._home / "data",
                 "-p", str(self.port), *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                **({} if within else as_postgres()),
            )  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while wait and not self.answers():
            assert self._process.poll() is None, (self._home / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL did not come up"
            time.sleep(0.02)

    def answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT ends all sessions, SIGQUIT is an immediate shutdown, like a crash."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
            self._process.kill()
            self._process.wait()

    def _program(self, name: str) -> Path:
        folder = programs()
        assert folder is not None
        return folder / name

    def _call(self, name: str, *words: str) -> None:
        subprocess.run(
            [self._program(name), *words], check=True, stdout=subprocess.DEVNULL, **as_postgres()
        )


class Standby(Postgres):
    """A server that follows another one until it takes its place."""

    def __init__(self, primary: Postgres, **settings: str) -> None:
        super().__init__(**settings)
        self._primary = primary

    def _fill(self, data: Path) -> None:
        self._call("pg_basebackup", "--dbname", self._primary.url("postgres"), "-D", str(data),
                   "--checkpoint=fast", "--no-sync", "--write-recovery-conf")  # fmt: skip

    def promote(self) -> None:
        """It is the primary from now on."""
        self._call("pg_ctl", "promote", "-D", str(self._home / "data"))


def as_postgres() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    return {"user": "postgres", "group": "postgres", "extra_groups": []}


class Line:
    """The way to a server, which a test can cut at a chosen moment.

    With `cut_at`, the next message to the server that holds this is delivered, and whatever the
    server answers is lost together with the connection. Unless it `delivers`, the message is lost
    as well, and the line is down.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.cut_at: bytes | None = None
        self.delivers = True
        self.down = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.down:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self.target))
                for pair in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if up and self.cut_at is not None and self.cut_at in data:
                    self.cut_at = None
                    source.close()  # no answer comes back
                    if not self.delivers:
                        self.down = True
                        break
                    target.sendall(data)
                    time.sleep(0.1)
                    break
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def close(self) -> None:
        self._listener.close()
