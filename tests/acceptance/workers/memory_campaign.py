"""Steady load of many kinds, for as long as is asked for: the memory of each worker stands still.

`python -m tests.acceptance.workers.memory_campaign --minutes 60` prints a line a minute.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import PATIENCE
from tests.acceptance.workers.crew import worker_pids

MIB = 1 << 20
CLIENTS = 4
STEADY_WITHIN = 2 * MIB
"""Bytes by which a worker's memory may differ within the second half."""
LISTS = ("/v1/status", "/v1/retries?limit=20", "/v1/retries?status=failed&limit=50")


def declare(daemon: Daemon, receiver: Receiver) -> list[str]:
    """Declare endpoints of all kinds that a load has; their ids."""
    number = {"number": {"type": "integer"}}
    body = {"json": {"number": "{{ params.number }}", "text": "x" * 500}}
    hook = {"name": "told", "phase": "after_request", "url": f"{receiver.url}/hook"}
    post: dict[str, Any] = {"method": "POST", "params": number, "body": body}
    daemon.api("shop", receiver.url, concurrency=50)
    daemon.endpoint("shop/get", "/ok/{{ params.number }}", params=number)
    daemon.endpoint("shop/post", "/ok", idempotent=True, **post)
    daemon.endpoint("shop/told", "/ok", idempotent=True, webhooks=[hook], **post)
    daemon.endpoint("shop/once", "/ok", **post)
    by = "{{ params.number % 50 }}"
    daemon.endpoint("shop/parted", "/ok", idempotent=True, partition=by, **post)
    twice = {"retry": retry("1s", attempts=2), "params": number}
    daemon.api("down", receiver.url, concurrency=50, breaker="off", pace="off")
    daemon.endpoint("down/busy", "/busy", **twice)
    daemon.api("gone", "http://127.0.0.1:9", concurrency=50, breaker="off", pace="off")
    daemon.endpoint("gone/refused", "/", **twice)
    receiver.on("/ok", 200)
    receiver.on("/hook", 204)
    receiver.on("/busy", 503)
    receiver.reply("/ok/", lambda _: Answer(200, '{"found": true}'))
    shop = [f"shop/{name}" for name in ("get", "post", "told", "once", "parted")]
    return [*shop, "down/busy", "gone/refused"]


def settings(receiver: Receiver) -> dict[str, Any]:
    """Keys of `orchestratord.yaml`."""
    allow = [receiver.address, "127.0.0.1:9"]
    return {"workers": 2, "egress": {"allow": allow}, "log": {"level": "warning"}}


class Socket(http.client.HTTPConnection):
    """To the control socket at `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(self.path))


@dataclass(slots=True)
class Load:
    """So many calls a second, of all kinds in turn, on kept connections and on new ones."""

    path: Path
    endpoints: list[str]
    rate: float
    made: int = 0
    refused: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, seed: int) -> None:
        """One of `CLIENTS`, until `stop` is set."""
        chance, following = random.Random(seed), time.monotonic()
        connection = Socket(self.path)
        while not self.stop.is_set():
            following = max(following + CLIENTS / self.rate, time.monotonic() - 1)
            self.stop.wait(max(following - time.monotonic(), 0))
            if self.made % 5 == 0:
                connection.close()  # the next one opens it anew, as commands do
            self._call(connection, chance)
        connection.close()

    def _call(self, connection: Socket, chance: random.Random) -> None:
        self.made += 1
        try:
            if self.made % 50 == 0:
                connection.request("GET", chance.choice(LISTS))
            else:
                body = json.dumps({"params": {"number": self.made}})
                path = f"/v1/endpoints/{chance.choice(self.endpoints)}/calls"
                connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status not in (200, 202):
                self.refused.append(str(answer.status))
        except (OSError, http.client.HTTPException) as error:
            self.refused.append(repr(error))
            connection.close()


def memory(pid: int) -> int:
    """Bytes of a process that are of no file."""
    found = re.search(r"^RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return int(found[1]) * 1024


@dataclass(slots=True)
class Sample:
    """What was found at one moment."""

    seconds: float
    calls: int
    memory: dict[int, int]
    """By the pids of the workers."""

    def line(self) -> str:
        each = ", ".join(f"{found / MIB:.1f} MiB" for found in self.memory.values())
        return f"{self.seconds / 60:5.1f} min, {self.calls:7} calls: {each}"


def samples(
    daemon: Daemon, receiver: Receiver, load: Load, minutes: float, each: float
) -> Iterator[Sample]:
    """Load a daemon that runs for so long; a sample each so many seconds."""
    pids = sorted(worker_pids(daemon))
    began = time.monotonic()
    clients = [threading.Thread(target=load.run, args=(seed,)) for seed in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        for number in range(1, round(minutes * 60 / each) + 1):
            time.sleep(max(began + number * each - time.monotonic(), 0))
            receiver.forget()
            found = {pid: memory(pid) for pid in pids}
            yield Sample(time.monotonic() - began, load.made, found)
    finally:
        load.stop.set()
        for client in clients:
            client.join()


def spread(found: list[Sample]) -> int:
    """By how many bytes the memory of a worker differs at most in the second half."""
    half = found[len(found) // 2 :]
    each = zip(*(sample.memory.values() for sample in half), strict=True)
    return max(max(sizes) - min(sizes) for sizes in each)


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=77.0, help="calls a second")
    words = parser.parse_args()
    with Receiver() as receiver, tempfile.TemporaryDirectory() as home:
        with Daemon(Path(home), **settings(receiver)) as daemon:
            daemon.by_command = True
            endpoints = declare(daemon, receiver)
            daemon.start()
            load = Load(daemon.socket, endpoints, words.rate)
            found = []
            for sample in samples(daemon, receiver, load, words.minutes, 60.0):
                found.append(sample)
                print(sample.line(), flush=True)
        print(f"the second half differs by {spread(found) / MIB:.2f} MiB at most")
        sys.exit(spread(found) > STEADY_WITHIN or bool(load.refused))


if __name__ == "__main__":
    main()
