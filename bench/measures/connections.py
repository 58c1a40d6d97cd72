"""How long a probe and a command wait beside a crowd of connections, and a sender beside it."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from bench import inbound
from bench.environment.daemon import daemon
from bench.results.figures import Figure
from orchestratord.api.server.server import MAX_CONNECTIONS
from tests.acceptance.processes import free_port

UNSIGNED = MAX_CONNECTIONS + 4
"""More connections than a port has places."""
LIMIT = 60.0
IN = {
    "type": "event",
    "inbound": {"path": "/in/bench", "verify": "github", "secret": inbound.SECRET},
}


def measure(home: Path, count: int) -> Iterator[Figure]:
    """Seconds for each, just after `count` connections to the control socket, or `UNSIGNED` to the
    port of `inbound`, were made that ask for nothing, or wait."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    home.mkdir()
    port = free_port()
    try:
        with daemon(home / "d", inbound={"bind": f"127.0.0.1:{port}"}) as made:
            made.write("apis/in/endpoints/bench.yaml", IN)
            made.endpoint("later/get", "/")
            made.api("later", "http://127.0.0.1:9")
            made.start()
            task = made.call("later/get", "1h")
            wait = f"GET /v1/retries/{task}?wait=30 HTTP/1.1\r\nHost: d\r\n\r\n".encode()
            for what, sent in (("half requests", b"G"), ("that wait", wait)):
                with ExitStack() as stack:
                    _crowd(stack, socket.AF_UNIX, str(made.socket), sent, count)
                    began = time.monotonic()
                    assert made.get("/readyz").status_code == 200
                    probe = time.monotonic() - began
                    assert made.ctl("status", timeout=LIMIT).code == 0
                    command = time.monotonic() - began - probe
                crowd = f"beside {count:,} {what} at the control socket"
                yield Figure(f"/readyz {crowd}", probe, "s")
                yield Figure(f"a command {crowd}", command, "s")
            with ExitStack() as stack:
                _crowd(stack, socket.AF_INET, ("127.0.0.1", port), b"P", UNSIGNED)
                began = time.monotonic()
                with socket.create_connection(("127.0.0.1", port), LIMIT) as sock:
                    sock.sendall(inbound.requests(0, 1)[0])
                    assert inbound.answer(sock).startswith(b"HTTP/1.1 200 ")
                signed = time.monotonic() - began
            yield Figure(f"a signed request beside {UNSIGNED} half ones", signed, "s")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _crowd(stack: ExitStack, family: int, address: str | tuple[str, int], sent: bytes,
           count: int) -> None:  # fmt: skip
    for _ in range(count):
        sock = stack.enter_context(socket.socket(family))
        sock.settimeout(LIMIT)
        sock.connect(address)
        sock.sendall(sent)
