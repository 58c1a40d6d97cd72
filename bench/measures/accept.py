"""Accepting calls: batches of a thousand over the control socket, each on disk when answered."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

from bench.environment.daemon import BATCH, TEXT, daemon
from bench.results.figures import Figure

SIZES = {"params of 20 bytes": {}, "params of 1 KB": {"text": TEXT}}
PATH = "/v1/endpoints/bench/post"


def measure(home: Path, count: int) -> Iterator[Figure]:
    """Make `count` calls of each size, of an endpoint that is paused."""
    for number, (what, params) in enumerate(SIZES.items()):
        with daemon(home / str(number)) as made:
            made.api("bench", "http://127.0.0.1/")
            declared = {
                "number": {"type": "integer"},
                **{key: {"type": "string"} for key in params},
            }
            made.endpoint("bench/post", "/", params=declared)
            made.start()
            made.post(f"{PATH}/pause").raise_for_status()
            rate = count / _took(made.socket, count, params)
            made.stop()
            stored = made.rows("SELECT COUNT(*) AS tasks FROM retry_schedule")[0]["tasks"]
            if stored != count:
                raise RuntimeError(f"{count} calls were accepted, and {stored} are stored")
        yield Figure(f"calls accepted in batches of {BATCH:,}, {what}", rate, "/s")


def _took(socket: Path, count: int, params: Mapping[str, str]) -> float:
    """Seconds from the first request to the last answer, one after the other."""
    bodies = [
        json.dumps({"batch": [{"number": first + i, **params} for i in range(BATCH)]}).encode()
        for first in range(0, count, BATCH)
    ]
    transport = httpx.HTTPTransport(uds=str(socket), verify=False)
    headers = {"content-type": "application/json"}
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=60) as client:
        began = time.monotonic()
        for body in bodies:
            answer = client.post(f"{PATH}/calls", content=body, headers=headers)
            if answer.status_code != 202:
                raise RuntimeError(f"{answer.status_code}: {answer.text[:500]}")
        return time.monotonic() - began
