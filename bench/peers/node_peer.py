"""What the peers on Node.js have in common: their programs, the main job, and adding one by one."""

from __future__ import annotations

import json
import subprocess
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from bench.environment.folder import Folder
from bench.environment.servers import Nginx, Postgres, Redis
from bench.peers.peer import Peer
from bench.results.figures import Figure, percentile

AT_ONCE = 64
"""Jobs that are being added."""


class NodePeer(Peer):
    """Its jobs can be `told`, and added one by one."""

    fast = True
    program: ClassVar[str]
    """The beginning of its programs' names."""
    adds: ClassVar[str]
    """What adds one job, in words, for the table."""

    def queue(self, folder: Folder, count: int) -> Sequence[str | Path]:
        return ["node", folder.node / f"{self.program}_queue.mjs", str(count)]

    def work(self, folder: Folder) -> Sequence[str | Path]:
        return ["node", folder.node / f"{self.program}_work.mjs"]

    @abstractmethod
    def waiting(self, database: Redis | Postgres) -> int:
        """How many jobs the queue has that nothing has begun with."""

    def add(self, folder: Folder, home: Path, nginx: Nginx, count: int) -> Iterator[Figure]:
        """Add `count` jobs by calls of their own, `AT_ONCE` at any time; nothing works on them."""
        command = ["node", folder.node / f"{self.program}_add.mjs", str(count), str(AT_ONCE)]
        with self._running(home, {"BENCH_URL": nginx.url()}) as (database, environ, log):
            ran = subprocess.run(  # noqa: S603
                command, env=environ, check=False, stdout=subprocess.PIPE, stderr=log, text=True
            )
            added = 0 if ran.returncode else self.waiting(database)
            if added != count:
                raise RuntimeError(f"{added} of {count} jobs were added")
        found = json.loads(ran.stdout)
        what = f"{self.name}, {self.adds}, {AT_ONCE} at once"
        yield Figure(what, count / found["seconds"], "/s")
        yield Figure(f"{what}: p50", percentile(found["took"], 0.5), "ms")
        yield Figure(f"{what}: p99", percentile(found["took"], 0.99), "ms")
