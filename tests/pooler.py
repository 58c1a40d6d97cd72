"""A real PgBouncer before a PostgreSQL, which gives each transaction another session."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path
from types import TracebackType

import pytest

from tests.postgres import HOST, PATIENCE, Postgres, as_postgres

CONFIG = """
[databases]
* = host={host} port={server}
[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {home}/users
pool_mode = transaction
default_pool_size = {sessions}
max_prepared_statements = {prepared}
logfile = {home}/log
"""


class Pooler:
    """One PgBouncer. A context manager.

    Args:
        server: what stands behind it.
        sessions: how many it has there at most.
        prepared: the prepared statements that it follows through its sessions; 0: none.
    """

    def __init__(self, server: Postgres, *, sessions: int = 3, prepared: int = 200) -> None:
        self._server = server
        self._home = Path(tempfile.mkdtemp(prefix="pooler-", dir="/tmp"))
        with closing(socket.socket()) as probe:
            probe.bind((HOST, 0))
            self.port: int = probe.getsockname()[1]
        (self._home / "users").write_text('"tester" "s3cret"\n')
        (self._home / "config").write_text(
            CONFIG.format(
                host=HOST, server=server.port, port=self.port, home=self._home,
                sessions=sessions, prepared=prepared,
            )
        )  # fmt: skip
        if os.geteuid() == 0:
            shutil.chown(self._home, "postgres")

    def url(self, database: str) -> str:
        """The way to a database of the server's that leads through it."""
        return database.replace(f":{self._server.port}/", f":{self.port}/")

    def __enter__(self) -> Pooler:
        self._process = subprocess.Popen(
            [program(), self._home / "config"], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **as_postgres(),
        )  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while True:
            with closing(socket.socket()) as probe:
                if probe.connect_ex((HOST, self.port)) == 0:
                    return self
            assert self._process.poll() is None, (self._home / "log").read_text()
            assert time.monotonic() < deadline, "PgBouncer did not come up"
            time.sleep(0.02)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._home, ignore_errors=True)


def program() -> str:
    """Where PgBouncer is; the test is skipped where it is not, but in CI."""
    found = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("PgBouncer is not installed, and CI is to test with it")
        pytest.skip("PgBouncer is not installed")
    return found
