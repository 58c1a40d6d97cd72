"""Orders in their own transactions, while the daemon is killed and PostgreSQL restarts.

    python -m tests.acceptance.outbox.campaign --orders 10000 --kills 20 --restarts 3

Four processes commit, a third is rolled back, some stay open for seconds. At the end the orders
that the application's database has are held against what the receiver saw, and what the queue has.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from orchestratord_outbox.outbox_schema import outbox_schema

from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until
from tests.postgres import Postgres

PRODUCERS = 4
PRODUCER = Path(__file__).with_name("producer.py")
PLACES = ("queue", "shop, queue in a file", "shop, queue in PostgreSQL")
EXPECTED = (
    r"the database cannot be reached", r"claiming failed", r"cannot write task \d+ \(",
    r"cannot relay", r"a password is written out", r"database cannot be",
)  # fmt: skip


@dataclass
class Report:
    """What came of it. `wrong` is empty where each committed order was one call, and no other."""

    orders: int
    committed: int = 0
    requests: int = 0
    kills: int = 0
    restarts: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        return [
            f"{self.orders} orders in {self.seconds:.0f} s: {self.committed} committed, "
            f"{self.requests} requests; {self.kills} kills, {self.restarts} restarts",
            *(f"WRONG: {text}" for text in self.wrong[:20]),
        ]


def run(home: Path, place: str, orders: int, kills: int, restarts: int, seed: int) -> Report:
    """The campaign; `home` is an empty folder with a short path."""
    chance = random.Random(seed)
    report = Report(orders)
    with Receiver() as receiver, Postgres() as server:
        receiver.reply("/orders/", lambda request: Answer(204))
        url = server.create()
        settings = {"database": url} if place == PLACES[0] else {}
        if place != PLACES[0]:
            if place == PLACES[2]:
                settings = {"database": server.create()}
            settings |= {"databases": {"shop": {"url": url}}, "outbox": {"database": "shop"}}
            server.run(url.rpartition("/")[2], outbox_schema("public"))
        server.run(url.rpartition("/")[2], "CREATE TABLE orders (n integer PRIMARY KEY)")
        daemon = Daemon(
            home, egress={"allow": [receiver.address]}, lease="3s", log={"level": "warning"},
            **settings,
        )  # fmt: skip
        daemon.expect(*EXPECTED)
        with daemon:
            daemon.api("shop", receiver.url, concurrency=50)
            keys = {"params": {"n": {"type": "integer"}}, "retry": retry("100ms", 1000)}
            path = "/orders/{{ params.n }}"
            daemon.endpoint("shop/order", path, method="POST", idempotent=True, **keys)
            daemon.start()
            began = time.monotonic()
            _load(report, chance, daemon, server, url, orders, kills, restarts)
            _account(report, daemon, server, receiver, url)
            report.seconds = time.monotonic() - began
    return report


def _load(
    report: Report, chance: random.Random, daemon: Daemon, server: Postgres, url: str,
    orders: int, kills: int, restarts: int,
) -> None:  # fmt: skip
    events = ["kill"] * kills + ["restart"] * restarts
    chance.shuffle(events)
    pauses = [chance.uniform(0.3, 6.0) for _ in events]
    each = orders // PRODUCERS
    words = [str(each), str(sum(pauses) + len(events))]
    producers = [
        subprocess.Popen([sys.executable, PRODUCER, url, str(n * each), *words])
        for n in range(PRODUCERS)
    ]
    try:
        for event, pause in zip(events, pauses, strict=True):
            time.sleep(pause)
            if event == "kill":
                daemon.kill()
                daemon.launch()
                if chance.random() < 0.8:
                    daemon.wait_ready()
                report.kills += 1
            else:
                daemon.wait_ready()
                server.stop(chance.choice((signal.SIGINT, signal.SIGQUIT)))
                time.sleep(chance.uniform(0.0, 1.0))
                server.start()
                report.restarts += 1
        assert [producer.wait(300) for producer in producers] == [0] * PRODUCERS
    finally:
        for producer in producers:
            producer.kill()
            producer.wait()
    daemon.wait_ready()


def _account(
    report: Report, daemon: Daemon, server: Postgres, receiver: Receiver, url: str
) -> None:
    name = url.rpartition("/")[2]
    committed = {n for (n,) in server.run(name, "SELECT n FROM orders")}
    waiting = "SELECT count(*) FROM orchestratord_outbox"
    until(lambda: server.run(name, waiting) == [(0,)], "an empty outbox", 120)
    daemon.settle(120)
    keys = defaultdict(set)
    for request in receiver.received():
        keys[int(request.path.rpartition("/")[2])].add(request.headers["idempotency-key"])
        report.requests += 1
    report.committed = len(committed)
    report.wrong += [f"order {n} was committed, and not called" for n in committed - keys.keys()]
    report.wrong += [f"order {n} was not committed, and called" for n in keys.keys() - committed]
    report.wrong += [
        f"order {n} is {len(found)} calls" for n, found in keys.items() if len(found) > 1
    ]
    queue = daemon.status()["queue"]
    if queue["succeeded"] != len(committed) or queue["failed"]:
        report.wrong.append(f"the queue has other tasks than the orders: {queue}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--orders", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--place", choices=PLACES, action="append")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    wrong = False
    for place in given.place or PLACES:
        with tempfile.TemporaryDirectory(prefix="o", dir="/tmp") as home:
            report = run(Path(home), place, given.orders, given.kills, given.restarts, given.seed)
        print(f"{place}: " + "\n".join(report.lines()), flush=True)
        wrong |= bool(report.wrong)
    raise SystemExit(wrong)


if __name__ == "__main__":
    main()
