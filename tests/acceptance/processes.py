"""Programs that tests start beside the daemon, and end again."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from tests.acceptance.waiting import PATIENCE, until


def free_port() -> int:
    """A port of 127.0.0.1 that was free just now, for programs that cannot choose one."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(
    command: Sequence[str],
    port: int,
    log: Path,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
    timeout: float = PATIENCE,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the end of the `with`; it listens when this returns."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env=None if environ is None else dict(environ),
        )
    try:

        def listens() -> bool:
            assert process.poll() is None, log.read_text(errors="replace")
            with closing(socket.socket()) as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        until(listens, f"{command[0]} at port {port}", timeout)
        yield process
    finally:
        process.kill()
        process.wait()
