"""What the peers have in common: jobs are queued, then workers start and empty the queue."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, ClassVar

from bench.environment.daemon import SECRET
from bench.environment.folder import PROGRAMS, Folder
from bench.environment.servers import Nginx, Postgres, Redis
from bench.measures.drain import Drained, drain
from bench.results.figures import Figure, percentile

BODY = '{"text": "' + "x" * 1000 + '"}'
DELAY = 8.0
"""Seconds until jobs are due whose lateness counts: the workers have to be up by then."""
LIMIT = 60.0
"""Seconds after which they are not going to come."""
ENDS_WITHIN = 15.0
"""Seconds that workers have to end in after SIGTERM; nothing is in flight by then."""


class Peer(ABC):
    """One way to send N requests with one queue. All is declared in the class's attributes."""

    name: ClassVar[str]
    """For the command line."""
    database: ClassVar[type[Redis | Postgres]]
    fast: ClassVar[bool] = False
    """Whether it needs many jobs, to be measured for more than a moment."""
    settings: ClassVar[str]
    """In words, for the table."""

    @abstractmethod
    def version(self, folder: Folder) -> str:
        """Name and version, for the table."""

    @abstractmethod
    def queue(self, folder: Folder, count: int) -> Sequence[str | Path]:
        """The command that queues `count` jobs and ends."""

    @abstractmethod
    def work(self, folder: Folder) -> Sequence[str | Path]:
        """The command of the workers."""

    @abstractmethod
    def left(self, database: Redis | Postgres, count: int) -> int:
        """How many of `count` jobs are not down as done."""

    def environ(self) -> Mapping[str, str]:
        """Further variables of both."""
        return {}

    def measure(
        self,
        folder: Folder,
        home: Path,
        nginx: Nginx,
        count: int,
        *,
        told: bool = False,
        workers: int = 1,
    ) -> Drained:
        """Carry out `count` jobs, as fast as it can; figures are of requests.

        Args:
            folder: where it is installed.
            home: an empty folder.
            nginx: the receiver.
            count: of the jobs.
            told: each queues one more, which posts the signed envelope; of a `NodePeer`.
            workers: how many times its command of the workers is run.

        Raises:
            RuntimeError: also for several workers by `chrt -f`, which leaves others no time: two
                processes of Node.js would keep the database from both cores for good.
        """
        if workers > 1 and os.sched_getscheduler(0) == os.SCHED_FIFO:
            raise RuntimeError("several processes of a peer do not run by chrt -f; take nice")
        jobs = 2 * count if told else count
        environ = {"BENCH_URL": nginx.url()}
        if told:
            environ |= {"BENCH_WEBHOOK": nginx.url(1), "BENCH_SECRET": SECRET}
        with self._queued(folder, home, environ, count) as (database, start):
            pids = [start() for _ in range(workers)]
            return drain(nginx, jobs, lambda: self.left(database, jobs), pids, [database.pid])

    def lateness(self, folder: Folder, home: Path, nginx: Nginx, count: int) -> Iterator[Figure]:
        """Milliseconds by which `count` jobs that are due in one instant are late."""
        due = time.time() + DELAY
        environ = {"BENCH_URL": nginx.logged_url, "BENCH_DUE": str(int(due * 1000))}
        with self._queued(folder, home, environ, count) as (_, workers):
            workers()
            while nginx.count() < count:
                if time.time() > due + LIMIT:
                    raise RuntimeError(f"{nginx.count()} of {count} requests came")
                time.sleep(0.1)
            late = [(when - due) * 1000 for when, _ in nginx.arrivals()]
        what = f"{self.name}, {count:,} due in one instant: lateness"
        yield Figure(f"{what}, median", percentile(late, 0.5), "ms")
        yield Figure(f"{what}, 99 %", percentile(late, 0.99), "ms")

    @contextmanager
    def _queued(
        self, folder: Folder, home: Path, environ: Mapping[str, str], count: int
    ) -> Iterator[tuple[Redis | Postgres, Callable[[], int]]]:
        """A database with `count` jobs, and what starts the workers and returns their process."""
        with self._running(home, environ) as (database, ours, log), ExitStack() as stack:

            def start() -> int:
                workers = subprocess.Popen(  # noqa: S603
                    self.work(folder), env=ours, stdin=subprocess.DEVNULL, stdout=log,
                    stderr=log, start_new_session=True,
                )  # fmt: skip
                stack.callback(_end, workers)
                return workers.pid

            ran = subprocess.run(  # noqa: S603
                self.queue(folder, count), env=ours, check=False, stdout=log, stderr=log
            )
            queued = 0 if ran.returncode else self.left(database, count)
            if queued != count:
                raise RuntimeError(f"{queued} of {count} jobs were queued")
            yield database, start

    @contextmanager
    def _running(
        self, home: Path, environ: Mapping[str, str]
    ) -> Iterator[tuple[Redis | Postgres, Mapping[str, str], BinaryIO]]:
        """A database, the variables of its programs, and their log, whose end errors quote."""
        home.mkdir()
        with (
            self.database(home / "database") as database,
            (home / "log").open("wb") as log,
        ):
            ours = {
                **os.environ,
                "PYTHONPATH": str(PROGRAMS),
                "NODE_ENV": "production",
                "BENCH_DATABASE": database.url,
                "BENCH_BODY": BODY,
                **self.environ(),
                **environ,
            }
            try:
                yield database, ours, log
            except RuntimeError as error:
                said = (home / "log").read_text()[-3000:]
                raise RuntimeError(f"{error}; it said:\n{said}") from error


def _end(workers: subprocess.Popen[bytes]) -> None:
    workers.send_signal(signal.SIGTERM)
    try:
        workers.wait(ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        os.killpg(workers.pid, signal.SIGKILL)
        workers.wait()
