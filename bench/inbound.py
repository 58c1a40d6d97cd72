"""How many webhooks of a sender are taken durably: signed requests that are answered 200.

\b
    python -m bench.inbound             20,000 by 32 connections of two processes, one worker
    python -m bench.inbound --quick     a tenth of that
    python -m bench.inbound --workers 2

Each is verified (`github`), told from repeats (`dedupe`), and on disk, with fsync, as an event
before its answer. The senders share the machine with the daemon, and take about as much of it.
"""

from __future__ import annotations

import hmac
import json
import os
import socket
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import click

from bench.environment.daemon import daemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.processes import free_port

SECRET = "a-secret-of-the-sender"  # noqa: S105  # of nothing
PROCESSES = 2
CONNECTIONS = 16
"""Of each process."""


def requests(first: int, count: int) -> list[bytes]:
    """Signed requests as they go over the network, each an event of its own."""
    made = []
    for number in range(first, first + count):
        body = json.dumps({"id": f"evt_{number}", "data": {"text": "x" * 500}}).encode()
        digest = hmac.new(SECRET.encode(), body, "sha256").hexdigest()
        head = (
            "POST /in/bench HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            f"X-Hub-Signature-256: sha256={digest}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


def send(port: int, first: int, count: int) -> tuple[int, float]:
    """Send so many over connections that are kept, one after the other on each; how many were
    taken, and in how many seconds."""
    todo = requests(first, count)
    socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
    taken, began = 0, time.monotonic()
    while todo:
        busy = [(sock, todo.pop()) for sock in socks[: len(todo)]]
        for sock, request in busy:
            sock.sendall(request)
        for sock, _ in busy:
            taken += answer(sock).startswith(b"HTTP/1.1 200 ")
    seconds = time.monotonic() - began
    for sock in socks:
        sock.close()
    return taken, seconds


def cpu(made: Daemon) -> float:
    """Seconds of CPU that the daemon has used, with its workers."""
    used = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            number, _, rest = path.read_text().partition(" (")
            fields = rest.rpartition(") ")[2].split()
            if made.pid in (int(number), int(fields[1])):
                used += int(fields[11]) + int(fields[12])
    return used / os.sysconf("SC_CLK_TCK")


def answer(sock: socket.socket) -> bytes:
    """A whole answer: its head and its body, which may come apart."""
    found = b""
    while b"\r\n\r\n" not in found:
        found += sock.recv(4096)
    head, _, body = found.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += sock.recv(4096)
    return head


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="a tenth of the work")
@click.option("--workers", default=1, show_default=True, help="of the daemon")
def main(quick: bool, workers: int) -> None:
    count = 2_000 if quick else 20_000
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        port = free_port()
        bind = {"bind": f"127.0.0.1:{port}"}
        settings = {"inbound": bind, "log": {"level": "warning"}, "workers": workers}
        made = stack.enter_context(daemon(home / "d", **settings))
        inbound = {"path": "/in/bench", "verify": "github", "secret": SECRET, "dedupe": "body.id"}
        made.write("apis/in/endpoints/bench.yaml", {"type": "event", "inbound": inbound})
        made.start()
        before = cpu(made)
        pool = stack.enter_context(ProcessPoolExecutor(PROCESSES))
        each = count // PROCESSES
        jobs = [pool.submit(send, port, number * each, each) for number in range(PROCESSES)]
        found = [job.result() for job in jobs]
        taken, seconds = sum(one for one, _ in found), max(took for _, took in found)
        used = cpu(made) - before
    click.echo(f"{taken} of {count} taken, {taken / seconds:,.0f} a second")
    click.echo(f"{taken / used:,.0f} for each second of the daemon's CPU")


if __name__ == "__main__":
    main()
