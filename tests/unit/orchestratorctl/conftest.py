"""The scripted daemon, and ways to run the command against it."""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import struct
import subprocess
import tempfile
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripted_daemon import CALLS, Daemon, Result, command

from orchestratorctl.main import main


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket in it."""
    path = Path(tempfile.mkdtemp(prefix="ctl-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def daemon(folder: Path) -> Iterator[Daemon]:
    daemon = Daemon(folder / "control.sock")
    daemon.start()
    yield daemon
    daemon.stop()
    assert not daemon.undescribed, "\n".join(daemon.undescribed)


@pytest.fixture
def accepted(daemon: Daemon) -> None:
    """A call of `a/b` becomes task 42."""
    daemon.on("POST", CALLS, (202, {"id": 42, "status": "pending"}))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ORCHESTRATORD_SOCKET", "XDG_RUNTIME_DIR", "COLUMNS", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ctl(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Runs the command in this process."""

    def run(*arguments: str) -> Result:
        code = main(["--socket", str(daemon.path), *arguments])
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def terminal(daemon: Daemon) -> Callable[..., Result]:
    """Runs the command in a process of its own, with a terminal for stdout and stderr alike."""

    def run(*arguments: str, columns: int = 80, **environment: str) -> Result:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = subprocess.Popen(
            command(daemon, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8", **environment},
        )
        os.close(theirs)
        seen = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux says so when the other end is closed
                break
            if not piece:
                break
            seen += piece
        os.close(ours)
        return Result(process.wait(30), seen.decode().replace("\r\n", "\n"), "")

    return run
