"""A real daemon in a process of its own, which keeps everything in one folder."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import httpx

from orchestratord.errors import OrchestratordError

START_TIMEOUT = 20.0
STOP_TIMEOUT = 40.0
"""Seconds."""


class DemoFailed(OrchestratordError):
    """The demo cannot go on; the message says why."""


class DemoDaemon:
    """`orchestratord run` on a copy of a configuration, and a client for its control socket."""

    def __init__(self, folder: Path, config: Path, variables: Mapping[str, str]) -> None:
        """Copy the configuration and start the daemon.

        Args:
            folder: an empty folder for the copy, the database, the socket and the log.
            config: the configuration to copy.
            variables: what the configuration refers to.
        """
        self.config = folder / "config"
        self.socket = folder / "control.sock"
        self.log = folder / "daemon.log"
        shutil.copytree(config, self.config)
        self._warehouse = self.config / "warehouse.db"
        script = self.config / "warehouse.sql"
        if script.exists():
            with closing(sqlite3.connect(self._warehouse)) as database:
                database.executescript(script.read_text())
        environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("ORCHESTRATORD_")
            and name not in ("CONFIGURATION_DIRECTORY", "NOTIFY_SOCKET", "JOURNAL_STREAM")
        }
        environ |= {"STATE_DIRECTORY": str(folder), "RUNTIME_DIRECTORY": str(folder), **variables}
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C is the demo's, which then stops the daemon in order.
            self._process = subprocess.Popen(  # noqa: S603  # this very interpreter
                [sys.executable, "-m", "orchestratord", "run", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ,
                start_new_session=True,
            )
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.socket)),
            base_url="http://orchestratord",
            timeout=10,
        )

    def wait_until_ready(self) -> float:
        """Seconds until it served. Raises DemoFailed where it ends or takes too long."""
        begun = time.monotonic()
        while time.monotonic() - begun < START_TIMEOUT:
            self.check()
            try:
                if self._listens() and self._client.get("/readyz").status_code == 200:
                    return time.monotonic() - begun
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise DemoFailed(f"the daemon was not ready within {START_TIMEOUT:g}s")

    def _listens(self) -> bool:
        # Asked first: the client leaves a socket open where nobody is at the other end.
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def check(self) -> None:
        """Raises DemoFailed where the daemon has ended."""
        if self._process.poll() is not None:
            raise DemoFailed(f"the daemon ended with exit code {self._process.returncode}")

    def get(self, path: str) -> dict[str, Any]:
        """The JSON that the API answers. Raises DemoFailed for anything but 2xx."""
        return self._answer(self._request("GET", path))

    def call(self, endpoint: str, params: Mapping[str, Any]) -> int:
        """Place a call; the id of its task. Raises DemoFailed where it is not accepted."""
        path = f"/v1/endpoints/{endpoint}/calls"
        return int(self._answer(self._request("POST", path, {"params": dict(params)}))["id"])

    def _request(self, method: str, path: str, body: Any = None) -> httpx.Response:
        try:
            return self._client.request(method, path, json=body)
        except httpx.TransportError as error:
            self.check()
            raise DemoFailed(f"{method} {path}: {error}") from error

    @staticmethod
    def _answer(response: httpx.Response) -> dict[str, Any]:
        if not response.is_success:
            request = response.request
            raise DemoFailed(
                f"{request.method} {request.url.path}: {response.status_code} {response.text}"
            )
        return cast("dict[str, Any]", response.json())

    def rows(self) -> int:
        """How many items are in the table that statements write to."""
        try:
            with closing(sqlite3.connect(self._warehouse)) as database:
                count: int = database.execute("SELECT count(*) FROM items").fetchone()[0]
                return count
        except sqlite3.Error:  # an edited copy of the example has no such table
            return 0

    def stop(self) -> int:
        """Let it drain and end; its exit code. One that does not end is killed."""
        self._client.close()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
