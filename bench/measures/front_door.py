"""Single calls over HTTP, at both ports of the API; each is on disk when it is answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

from bench.environment.daemon import TEXT, daemon
from bench.environment.processes import Meter
from bench.measures import closed_loop
from bench.results.figures import Figure, percentile
from tests.acceptance.processes import free_port

CONNECTIONS = (64, 256)
CONTROL, TCP = "the control socket", "the TCP port"
PATH = "/v1/endpoints/bench/post"
TOKEN = "t" * 32


def measure(home: Path, count: int, workers: int = 1) -> Iterator[Figure]:
    """Make `count` calls at each port over so many connections, of an endpoint that is paused."""
    by = f" by {workers} workers" if workers > 1 else ""
    cores = []
    with ProcessPoolExecutor(1) as pool:
        for number, (port, connections) in enumerate(product((CONTROL, TCP), CONNECTIONS)):
            tcp = ("127.0.0.1", free_port())
            http = {"bind": f"{tcp[0]}:{tcp[1]}", "token": TOKEN}
            with daemon(home / str(number), workers=workers, http=http) as made:
                made.api("bench", "http://127.0.0.1/")
                made.endpoint("bench/post", "/", params={"text": {"type": "string"}})
                made.start()
                made.post(f"{PATH}/pause").raise_for_status()
                meter = Meter([made.pid])
                address = tcp if port == TCP else str(made.socket)
                sent = pool.submit(
                    closed_loop.send, address, _request(http["bind"]), count, connections
                ).result()
                cpu = meter.cpu
                made.stop()
                stored = [row["id"] for row in made.rows("SELECT id FROM retry_schedule")]
            if sorted(json.loads(body)["id"] for body in sent.bodies) != sorted(stored):
                raise RuntimeError(f"{count} calls were accepted, and {len(stored)} are stored")
            cores.append(sent.core)
            what = f"single calls{by}, {connections} connections to {port}"
            yield Figure(what, count / sent.seconds, "/s")
            yield Figure(f"{what}: p50", percentile(sent.took, 0.5) * 1000, "ms")
            yield Figure(f"{what}: p99", percentile(sent.took, 0.99) * 1000, "ms")
            yield Figure(f"{what}: longest", max(sent.took) * 1000, "ms")
            yield Figure(f"{what}: CPU of the daemon for a call", cpu / count * 1000, "ms")
    yield Figure(f"single calls{by}: what the sender took of a core, at most", max(cores), "")


def _request(host: str) -> bytes:
    body = json.dumps({"params": {"text": TEXT}})
    return (
        f"POST {PATH}/calls HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()
