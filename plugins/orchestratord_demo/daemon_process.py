"""A real daemon in a process of its own, which keeps everything in one folder."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx

from orchestratord import OrchestratordError

START_TIMEOUT = 20.0
STOP_TIMEOUT = 40.0
ANSWER_TIMEOUT = 30.0
"""Seconds."""


class DemoFailed(OrchestratordError):
    """The demo cannot go on; the message says why."""


class DemoDaemon:
    """`orchestratord run` on a copy of a configuration, and a client for its control socket."""

    def __init__(
        self, folder: Path, config: Path, variables: Mapping[str, str], *, dashboard: bool = False
    ) -> None:
        """Copy the configuration and start the daemon.

        Args:
            folder: an empty folder for the copy, the database, the socket and the log.
            config: the configuration to copy.
            variables: what the configuration refers to.
            dashboard: serve it on a free port, unless the configuration says where.
        """
        self.config = folder / "config"
        self.socket = folder / "control.sock"
        self.log = folder / "daemon.log"
        transport = httpx.HTTPTransport(uds=str(self.socket))
        self._client = httpx.Client(
            transport=transport, base_url="http://localhost", timeout=ANSWER_TIMEOUT
        )
        shutil.copytree(config, self.config)
        self._warehouse = self.config / "warehouse.db"
        script = self.config / "warehouse.sql"
        if script.exists():
            with closing(sqlite3.connect(self._warehouse)) as database:
                database.executescript(script.read_text())
        self.dashboard: tuple[str, str] | None = None
        """Its URL, and the token."""
        if dashboard:
            self._add_dashboard()
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

    def _add_dashboard(self) -> None:
        settings = self.config / "orchestratord.yaml"
        written = settings.read_text(encoding="utf-8") if settings.exists() else ""
        if re.search(r"^http\s*:", written, re.MULTILINE):
            return
        with socket.create_server(("127.0.0.1", 0)) as free:
            bind = f"127.0.0.1:{free.getsockname()[1]}"
        token = secrets.token_urlsafe(24)
        http = json.dumps({"bind": bind, "token": token})
        settings.write_text(f"{written}\nhttp: {http}\n", encoding="utf-8")
        self.dashboard = f"http://{bind}", token

    def wait_until_ready(self) -> float:
        """Seconds until it served. Raises DemoFailed where it ends or takes too long."""
        begun = time.monotonic()
        while time.monotonic() - begun < START_TIMEOUT:
            self.check()
            if self._listens():
                with suppress(httpx.TransportError):
                    if self._client.get("/readyz").is_success:
                        return time.monotonic() - begun
            time.sleep(0.05)
        raise DemoFailed(f"the daemon was not ready within {START_TIMEOUT:g}s")

    def _listens(self) -> bool:
        """Whether its socket takes connections: httpx leaves one open that does not come about."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def check(self) -> None:
        """Raises DemoFailed where the daemon has ended."""
        if self._process.poll() is not None:
            raise DemoFailed(f"the daemon ended with exit code {self._process.returncode}")

    def get(self, path: str) -> dict[str, Any]:
        """The JSON that the API answers. Raises DemoFailed for anything but 2xx."""
        return self._request("GET", path)

    def call(self, endpoint: str, params: Mapping[str, Any]) -> int:
        """Place a call; the id of its task. Raises DemoFailed where it is not accepted."""
        path = f"/v1/endpoints/{endpoint}/calls"
        return int(self._request("POST", path, {"params": dict(params)})["id"])

    def _request(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        try:
            answer = self._client.request(method, path, json=body)
        except httpx.TransportError as error:
            self.check()
            raise DemoFailed(f"{method} {path}: {error}") from error
        if answer.is_error:
            self.check()
            raise DemoFailed(f"{method} {path}: {answer.status_code} {answer.text}")
        found: dict[str, Any] = answer.json()
        return found

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
