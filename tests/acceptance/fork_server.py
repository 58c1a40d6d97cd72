"""Daemons and commands as forks of a process that has imported already what they need.

A daemon's start is a second of processor time, nearly all of it imports, and the tests start
hundreds; `check` and `doctor` take no less. A fork is a process as any other: its own files,
signals, threads and end, and a child of the process that runs the tests.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import runpy
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Forked(subprocess.Popen[bytes]):
    """A process that was forked for us, and is our child."""

    def __init__(self, pid: int, args: Sequence[str]) -> None:
        self.args = args
        self.pid = pid
        self.returncode = None
        self.stdin = self.stdout = self.stderr = None
        self._child_created = True
        self._waitpid_lock = threading.Lock()
        self._communication_started = False


class ForkServer:
    """The process that forks. It ends with the tests."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.acceptance.fork_server", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={"PATH": os.environ["PATH"], "HOME": "/", "PYTHONWARNINGS": "default"},
                cwd=ROOT,
            )
        self._stream = ours.makefile("rwb")
        ours.close()
        self._one_at_a_time = threading.Lock()
        atexit.register(self._end)

    def _end(self) -> None:
        self._stream.close()
        self._process.wait()

    def fork(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        folder: Path,
        out: Path,
        err: Path | None = None,
    ) -> Forked:
        """Run `orchestratord` or `orchestratorctl` in `folder`, in a session of its own.

        It appends to `out` what it writes; with `err`, its stderr to that.
        """
        request = [list(command), dict(environ), str(folder), str(out), str(err or out)]
        with self._one_at_a_time, _adopting():
            self._stream.write(json.dumps(request).encode() + b"\n")
            self._stream.flush()
            pid = int(self._stream.readline())
        return Forked(pid, command)


@cache
def fork_server() -> ForkServer:
    """The one for all tests of this process."""
    return ForkServer()


def can_fork(environ: Mapping[str, str]) -> bool:
    """Whether none of these variables has to be there when the interpreter begins."""
    early = {"LD_PRELOAD", "PYTHONPATH", "TZ"}
    return early.isdisjoint(environ)


@contextmanager
def _adopting() -> Iterator[None]:
    """Let grandchildren whose parent ends be our children."""
    set_child_subreaper = 36
    libc = ctypes.CDLL(None)
    libc.prctl(set_child_subreaper, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(set_child_subreaper, 0, 0, 0, 0)


# -- In the server -----------------------------------------------------------------------------


def _fork_twice() -> int:
    """Fork a process that is not our child; its pid, and 0 in itself."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        with open(reader) as pipe:
            pid = int(pipe.read())
        # Only once it has ended the other one has its new parent.
        os.waitpid(child, 0)
        return pid
    os.close(reader)
    pid = os.fork()
    if pid:
        os.write(writer, str(pid).encode())
        os._exit(0)
    os.close(writer)
    return 0


def _next_request(descriptor: int) -> list[Any] | None:
    """Fork for each request; the request, in the fork, and None at the end."""
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rwb") as stream:
        for line in stream:
            pid = _fork_twice()
            if pid == 0:
                request: list[Any] = json.loads(line)
                return request
            stream.write(b"%d\n" % pid)
            stream.flush()
    return None


def _run(command: list[str], environ: dict[str, str], folder: str, out: str, err: str) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, out, append),
        (2, err, append),
    ):
        opened = os.open(path, flags, 0o666)
        os.dup2(opened, number)
        os.close(opened)
    sys.path[0] = folder
    sys.argv = command
    try:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if command[1:2] == ["run"]:
            raise
        # The interpreter's own end takes longer than most commands.
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))


if __name__ == "__main__":
    for module in ("orchestratord.daemon.daemon", "orchestratord.cli.main", "orchestratorctl.main"):
        import_module(module)
    for plugin in entry_points(group="orchestratord"):
        plugin.load()
    if request := _next_request(int(sys.argv[1])):
        _run(*request)
