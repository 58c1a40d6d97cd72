"""systemd's part: it listens for what a daemon says of itself."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from tests.acceptance.waiting import until


class Manager:
    """What listens where `$NOTIFY_SOCKET` says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(0)
        self.heard: list[dict[str, str]] = []

    def listen(self) -> list[dict[str, str]]:
        """All messages so far."""
        while True:
            try:
                text = self.socket.recv(65536).decode()
            except BlockingIOError:
                return self.heard
            self.heard.append(dict(line.split("=", 1) for line in text.splitlines()))

    def heard_within(self, seconds: float) -> set[str]:
        """The names in all messages of that time, which begins now."""
        before = len(self.listen())
        time.sleep(seconds)
        return {name for message in self.listen()[before:] for name in message}

    def hears_pings(self) -> None:
        """Two come, from now on."""
        before = len(self.listen())
        until(
            lambda: len([m for m in self.listen()[before:] if m.get("WATCHDOG") == "1"]) >= 2,
            "the watchdog's pings",
        )

    def states(self) -> list[str]:
        """Their states in order, without mere status lines and pings."""
        names = ("READY", "RELOADING", "STOPPING")
        return [name for message in self.listen() for name in names if name in message]
