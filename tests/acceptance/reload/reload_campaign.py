"""Good and bad saves in turn, under load, and every way of changing files, many times.

    python -m tests.acceptance.reload.reload_campaign [--saves 1000] [--rounds 50]

No bad file may be taken up, each good one has to be, and no call may be lost or made twice.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from orchestratorctl.exit_codes import CommandError
from orchestratorctl.socket_client import SocketClient
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.reload import ways
from tests.acceptance.waiting import until

CALLERS = 2
AT_ONCE = 4
"""Ways that are tried out beside each other."""
BAD = (
    "path: /bad\nretry: {backoff: expo}\n",
    "path: /bad\npth: /bad\n",
    "path: /bad\ntimeout: soon\n",
    "path: /bad\nheaders: {X: '${NOT_SET_ANYWHERE}'}\n",
    "path: /bad\nwebhooks:\n  - {phase: after_requst, url: 'https://ops.example.com/'}\n",
    "path: /bad/{{ params.nothing }}\n",
    "path: /bad\npath: /worse\n",
    "path: /bad\nquery: {a: [1\n",
    "path: /bad # \x00\n",
)
"""Each is refused for another reason."""


@dataclass
class Report:
    """What came of it. `wrong` is empty where all that was promised was kept."""

    good: int = 0
    bad: int = 0
    calls: int = 0
    latencies: list[float] = field(default_factory=list)
    """Seconds from each good save to its adoption."""
    wrong: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For people."""
        ordered = sorted(self.latencies)
        return [
            f"saves      {self.good} good, all adopted; {self.bad} bad, all refused",
            f"calls      {self.calls} meanwhile, each made once",
            f"adopted    median {statistics.median(ordered) * 1e3:.0f} ms after the save, "
            f"p99 {ordered[len(ordered) * 99 // 100] * 1e3:.0f} ms, "
            f"worst {ordered[-1] * 1e3:.0f} ms",
            *(f"WRONG: {text[:300]}" for text in self.wrong[:20]),
        ]


class Load:
    """Calls of the endpoint that is being edited, and of one beside it, for as long as it is on."""

    def __init__(self, daemon: Daemon) -> None:
        self.accepted: list[int] = []
        self.refused: list[str] = []
        self._client = SocketClient(str(daemon.socket))
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._pour, args=(name,))
            for name in ("shop/get", "shop/beside")[:CALLERS]
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _pour(self, endpoint: str) -> None:
        while not self._stop.wait(0.02):
            try:
                _, answer = self._client.request("POST", f"/v1/endpoints/{endpoint}/calls", {})
            except CommandError as failure:
                self.refused.append(f"{endpoint}: {failure}")
            else:
                self.accepted.append(answer["id"])


def alternate(daemon: Daemon, receiver: Receiver, saves: int) -> Report:
    """Save good and bad files in turn, `saves` of them, while calls are made.

    The daemon is to be stopped, with the API `shop`.
    """
    report = Report()
    receiver.reply("/", lambda _: Answer(200))
    query = '\nquery: {task: "{{ task.id }}"}\n'
    file = daemon.config / ways.FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("path: /0" + query)
    (file.parent / "beside.yaml").write_text("path: /beside" + query)
    daemon.expect(r"ERROR config: ")
    daemon.start()

    def path() -> object:
        return daemon.get("/v1/endpoints/shop/get").json()["path"]

    with Load(daemon) as load:
        for n in range(1, saves + 1):
            if n % 2:
                file.write_text(f"path: /{n}{query}")
                saved = time.monotonic()
                until(lambda n=n: path() == f"/{n}", f"the adoption of save {n}")  # type: ignore[misc]
                report.latencies.append(time.monotonic() - saved)
                report.good += 1
                if daemon.status()["config"]["error"] is not None:
                    report.wrong.append(f"save {n} is good, and an error is shown")
            else:
                file.write_text(BAD[n // 2 % len(BAD)])
                until(lambda: daemon.status()["config"]["error"], f"the refusal of save {n}")
                report.bad += 1
                if path() != f"/{n - 1}":
                    report.wrong.append(f"save {n} is bad, and {path()} is in force")
    report.calls = len(load.accepted)
    report.wrong += [f"refused: {text}" for text in load.refused]
    for task_id in load.accepted:
        task = daemon.finish(task_id, 60)
        if (task["status"], task["attempts"]) != ("succeeded", 1):
            report.wrong.append(f"task {task_id} is {task['status']} after {task['attempts']}")
    seen = Counter(int(item.query["task"]) for item in receiver.received() if "task" in item.query)
    report.wrong += [
        f"call {task_id} came {seen[task_id]} times"
        for task_id in load.accepted
        if seen[task_id] != 1
    ]
    if any("bad" in item.path or "worse" in item.path for item in receiver.received()):
        report.wrong.append("a bad path was called")
    return report


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--saves", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=50)
    asked = parser.parse_args()
    wrong = False
    with tempfile.TemporaryDirectory(prefix="reload-") as folder, Receiver() as receiver:
        allow = {"allow": [receiver.address]}
        if asked.saves:
            with Daemon(Path(folder) / "saves", egress=allow) as daemon:
                daemon.api("shop", receiver.url)
                report = alternate(daemon, receiver, asked.saves)
                print(*report.lines(), sep="\n", flush=True)
                wrong = bool(report.wrong)

        def try_out(way: str) -> str:
            home = Path(folder) / f"w{[*ways.WAYS].index(way)}"
            with Daemon(home, egress=allow) as daemon:
                daemon.api("shop", receiver.url)
                daemon.endpoint("shop/get", "/0")
                began = time.monotonic()
                reloads = ways.go(daemon, way, asked.rounds)
                took = (time.monotonic() - began) / asked.rounds
            return f"{asked.rounds} of {asked.rounds}, by {reloads} reloads, {took:.2f} s each"

        # Nearly all of the time is waiting, so that they do not get in each other's way.
        with ThreadPoolExecutor(AT_ONCE) as pool:
            tried = {pool.submit(try_out, way): way for way in (ways.WAYS if asked.rounds else ())}
            for ended in as_completed(tried):
                error = ended.exception()
                print(f"{tried[ended]:24}{error or ended.result()}", flush=True)
                wrong = wrong or error is not None
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
