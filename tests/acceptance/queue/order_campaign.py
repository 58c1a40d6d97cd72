"""Updates of many accounts, each account's in order, while daemons are killed; then the accounts.

    python -m tests.acceptance.queue.order_campaign [--on move] [--updates N] [--partitions M]

Callers pour in updates, a third of which are answered 500 at first; a daemon is killed again and
again meanwhile. Where the queue moves, it does so from SQLite to two daemons on PostgreSQL, halfway
and while updates wait.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestratorctl.exit_codes import CommandError
from orchestratorctl.socket_client import SocketClient
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.queue.campaign import SHOWN
from tests.acceptance.receiver import Answer, Received, Receiver
from tests.acceptance.waiting import until
from tests.acceptance.workers.crew import DIED, serves, worker_pids
from tests.acceptance.workers.worker_kills import OnPostgres
from tests.postgres import Postgres

SQLITE, WORKERS, POSTGRES, MOVE = PLACES = ("sqlite", "workers", "postgres", "move")
"""Where the queue is: in a file, of one process or two workers; on PostgreSQL, with two daemons; or
first in a file, and then there."""
BETWEEN = 1.0
"""Seconds of load between two kills."""
EXPECTED = (DIED, r"cannot write task \d+ \(", r"standing|stands still|no sign of life")
LONGEST = 0.02
"""Seconds that an answer takes, at most."""


@dataclass
class Report:
    """What came of it. `wrong` is empty where all that was promised was kept."""

    place: str
    seconds: float = 0.0
    accepted: int = 0
    partitions: int = 0
    kills: int = 0
    refused: int = 0
    """Answers 500."""
    repeated: int = 0
    """Requests that came though the one before of the same task was answered 2xx: a kill had taken
    that answer."""
    tasks: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For people."""
        tasks = ", ".join(f"{count} {name}" for name, count in sorted(self.tasks.items()))
        lines = [
            f"{self.place}: {self.accepted} updates of {self.partitions} partitions and their "
            f"deliveries in {self.seconds:.0f} s, {self.kills} kills",
            f"tasks: {tasks}; {self.refused} answers 500, {self.repeated} requests repeated",
            *(f"WRONG: {text[:300]}" for text in self.wrong[:SHOWN]),
        ]
        more = len(self.wrong) - SHOWN
        return [*lines, f"WRONG: and {more} more"] if more > 0 else lines


class Accounts:
    """What receives the updates and the deliveries, and sees which of one account overlap."""

    def __init__(self, receiver: Receiver, seed: int) -> None:
        self.done: set[str] = set()
        """Requests, by their paths, that were answered 2xx."""
        self.refused = self.repeated = 0
        self.overlaps: list[str] = []
        self._chance = random.Random(seed)
        self._busy: dict[str, tuple[str, float]] = {}
        self._failures: dict[str, int] = {}
        for prefix in ("/update/", "/told/"):
            receiver.reply(prefix, self._reply)

    def _reply(self, request: Received) -> Answer:
        account = request.path.rpartition("/")[0]
        delay, now = self._chance.random() * LONGEST, time.monotonic()
        before, ends = self._busy.get(account, ("", 0.0))
        if before != request.path and now < ends:
            self.overlaps.append(f"{request.path} came while {before} was under way")
        self._busy[account] = request.path, now + delay
        left = self._failures.setdefault(request.path, self._chance.choice((0, 0, 0, 0, 1, 3)))
        if left and request.path not in self.done:
            # Not 503, of which the daemon would send ever less at a time.
            self._failures[request.path] -= 1
            self.refused += 1
            return Answer(500, delay=delay)
        self.repeated += request.path in self.done
        self.done.add(request.path)
        return Answer(200, delay=delay)


class Callers:
    """Pour in updates, one caller for each daemon, and remember what was accepted."""

    def __init__(self, partitions: int, seed: int) -> None:
        self.accepted: dict[int, tuple[str, int]] = {}
        """Id → the account, and the number that the update carries."""
        self._names = [f"a{number}" for number in range(partitions)]
        self._chance = random.Random(seed)
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    @contextmanager
    def pouring(self, daemons: list[Daemon], most: int) -> Iterator[None]:
        """Up to so many updates in all."""
        stop = threading.Event()
        threads = [
            threading.Thread(target=self._pour, args=(SocketClient(str(one.socket)), most, stop))
            for one in daemons
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def _pour(self, client: SocketClient, most: int, stop: threading.Event) -> None:
        while not stop.wait(0.02):
            with self._lock:
                if len(self.accepted) >= most:
                    return
                numbers = list(itertools.islice(self._numbers, self._chance.choice((1, 8, 30))))
                given = [(self._chance.choice(self._names), number) for number in numbers]
            batch = [{"account": account, "n": number} for account, number in given]
            body: dict[str, Any] = {"batch": batch} if len(batch) > 1 else {"params": batch[0]}
            try:
                _, answer = client.request("POST", "/v1/endpoints/crm/update/calls", body)
            except CommandError:
                continue  # killed meanwhile: nothing was promised
            ids = answer["ids"] if len(batch) > 1 else [answer["id"]]
            with self._lock:
                self.accepted.update(zip(ids, given, strict=True))


class Campaign:
    """One run; `home` is an empty folder with a short path."""

    def __init__(
        self, place: str, home: Path, postgres: Postgres | None, updates: int, partitions: int,
        kills: int, seed: int,
    ) -> None:  # fmt: skip
        self.report = Report(place, partitions=partitions)
        self._home = home
        self._server = postgres
        self._updates = updates
        self._kills = kills
        self._chance = random.Random(seed)
        self._callers = Callers(partitions, seed + 1)
        self._seed = seed

    def run(self) -> Report:
        """Needs `postgres` where the queue is there in the end."""
        report, began = self.report, time.monotonic()
        with ExitStack() as stack:
            receiver = stack.enter_context(Receiver())
            accounts = Accounts(receiver, self._seed + 2)
            url = None
            if report.place in (POSTGRES, MOVE):
                assert self._server is not None
                url = self._server.create()
                stack.callback(self._server.drop, url)
            if report.place == MOVE:
                first = self._daemons(stack, receiver, SQLITE, None)
                self._stage(first, accounts, self._updates // 2, drained=False)
                self._move(first[0], str(url))
            last = POSTGRES if report.place == MOVE else report.place
            daemons = self._daemons(stack, receiver, last, url)
            self._stage(daemons, accounts, self._updates, drained=True)
            report.seconds = time.monotonic() - began
            self._account(daemons[0], receiver, accounts)
        return report

    def _daemons(
        self, stack: ExitStack, receiver: Receiver, place: str, url: str | None
    ) -> list[Daemon]:
        settings: dict[str, Any] = {
            "egress": {"allow": [receiver.address]}, "log": {"level": "warning"}, "lease": "3s"
        }  # fmt: skip
        made: list[Daemon] = []
        for number in range(2 if place == POSTGRES else 1):
            home = self._home / f"{place}{number}"
            home.mkdir()
            if place == POSTGRES:
                assert self._server is not None
                daemon: Daemon = OnPostgres(home, self._server, str(url), **settings)
            else:
                workers = {"workers": 2} if place == WORKERS else {}
                daemon = Daemon(home, **settings, **workers)
            stack.enter_context(daemon)
            daemon.expect(*EXPECTED, r"a password is written out here")
            keys = {"retry": retry("30ms", attempts=1000)}
            partition = {"by": "{{ params.account }}", "ordered": True}
            path = "{{ params.account }}/{{ params.n }}"
            daemon.api("crm", receiver.url)
            told = {"name": "told", "phase": "on_success", "url": f"{receiver.url}/told/{path}"}
            daemon.endpoint(
                "crm/update", f"/update/{path}", method="PUT", partition=partition, **keys,
                params={"account": {"required": True}, "n": {"required": True}},
                webhooks=[{**told, "partition": partition, **keys}],
            )  # fmt: skip
            made.append(daemon)
        return made

    def _stage(
        self, daemons: list[Daemon], accounts: Accounts, goal: int, *, drained: bool
    ) -> None:
        """Until so many updates are accepted and, if it is to be `drained`, all are carried out."""
        for daemon in daemons:
            daemon.start()
        accepted = self._callers.accepted
        enough = self.report.kills + self._kills
        end = time.monotonic() + 60 + goal
        with self._callers.pouring(daemons, goal):
            while (
                self.report.kills < enough
                or len(accepted) < goal
                or (drained and len(accounts.done) < 2 * len(accepted))
            ):
                assert time.monotonic() < end, "it does not come to an end"
                if self.report.kills >= enough and len(accepted) >= goal:
                    break
                time.sleep(BETWEEN)
                self._kill(self._chance.choice(daemons))
        if drained:
            daemons[0].settle(60 + goal)
        for daemon in daemons:
            assert daemon.stop() == 0, daemon.log()

    def _kill(self, daemon: Daemon) -> None:
        self.report.kills += 1
        if self.report.place != WORKERS:
            daemon.kill()
            daemon.start()
            return
        victim = self._chance.choice(sorted(worker_pids(daemon)))
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in worker_pids(daemon) and serves(daemon), "another worker")

    def _move(self, daemon: Daemon, url: str) -> None:
        moved = daemon.run("move-queue", f"sqlite:///{daemon.database}", url, timeout=600)
        assert moved.code == 0, moved.err

    def _account(self, daemon: Daemon, receiver: Receiver, accounts: Accounts) -> None:
        """Hold what was accepted, what the receiver saw and what the database says against each
        other."""
        report, wrong = self.report, self.report.wrong.append
        rows = {row["id"]: row for row in daemon.rows("SELECT * FROM retry_schedule")}
        by_nonce = {row["nonce"]: row for row in rows.values()}
        accepted = self._callers.accepted
        report.accepted = len(accepted)
        report.refused, report.repeated = accounts.refused, accounts.repeated
        report.wrong += accounts.overlaps
        for task_id, (account, number) in accepted.items():
            row = rows.get(task_id)
            if row is None:
                wrong(f"the update {number} of {account} was accepted as {task_id} and is lost")
            elif row["params"] != f'{{"account":"{account}","n":{number}}}':
                wrong(f"task {task_id} is not what was accepted: {row}")
        for row in rows.values():
            report.tasks[f"{row['kind']} {row['reason'] or row['status']}"] += 1
            # The third death makes it poisoned, by whatever chance; the report says how many.
            if row["status"] != "succeeded" and row["reason"] != "poisoned":
                wrong(f"task {row['id']} is {row['status']} {row['reason']} {row['last_error']}")
        latest: dict[tuple[str, str], int] = {}
        seen: set[int] = set()
        for request in receiver.received():
            sent = request.headers.get("webhook-id", "").removeprefix("msg_")
            row = by_nonce.get(sent or request.headers["idempotency-key"])
            if row is None:
                wrong(f"{request.path} came, and is no task")
                continue
            line = row["kind"], row["partition"]
            if row["id"] < latest.get(line, 0):
                wrong(f"{request.path}: task {row['id']} of {line} came after {latest[line]}")
            latest[line] = max(row["id"], latest.get(line, 0))
            seen.add(row["id"])
        for row in rows.values():
            if row["status"] == "succeeded" and row["id"] not in seen:
                wrong(f"task {row['id']} succeeded and the receiver knows nothing of it")


def main() -> int:
    parser = argparse.ArgumentParser(description="order within partitions, under kill -9")
    parser.add_argument("--on", choices=PLACES, default=MOVE)
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--partitions", type=int, default=500)
    parser.add_argument("--kills", type=int, default=10, help="at least, in each place")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    print(f"{given.updates} updates with seed {given.seed}", flush=True)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="order-"))
        server = stack.enter_context(Postgres()) if given.on in (POSTGRES, MOVE) else None
        campaign = Campaign(
            given.on, Path(folder), server, given.updates, given.partitions, given.kills, given.seed
        )
        report = campaign.run()
    print("\n".join(report.lines()))
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
