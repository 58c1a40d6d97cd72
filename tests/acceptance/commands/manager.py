"""systemd's part: it listens for what a daemon says of itself."""

from __future__ import annotations

import socket
from pathlib import Path


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

    def states(self) -> list[str]:
        """Their states in order, without mere status lines and pings."""
        names = ("READY", "RELOADING", "STOPPING")
        return [name for message in self.listen() for name in names if name in message]
