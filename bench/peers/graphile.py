"""graphile-worker on PostgreSQL, with what its documentation says of high throughput."""

from __future__ import annotations

from collections.abc import Mapping

from bench.environment.folder import Folder
from bench.environment.servers import Postgres, Redis
from bench.peers.node_peer import NodePeer

CONCURRENCY = 50
LOCAL_QUEUE = 500
BATCH_DELAY = 100
"""Milliseconds that it waits for more jobs to complete in one statement."""


class Graphile(NodePeer):
    """A job is deleted when it is done."""

    name = "graphile-worker"
    database = Postgres
    program = "graphile"
    adds = "addJob of makeWorkerUtils"
    settings = (
        f"one process, concurrentJobs {CONCURRENCY}, localQueue {LOCAL_QUEUE}, "
        f"completion in batches (delay {BATCH_DELAY} ms), undici"
    )

    def version(self, folder: Folder) -> str:
        installed = folder.node_versions()
        return f"graphile-worker {installed['graphile-worker']}, undici {installed['undici']}"

    def environ(self) -> Mapping[str, str]:
        return {
            "BENCH_CONCURRENCY": str(CONCURRENCY),
            "BENCH_LOCAL_QUEUE": str(LOCAL_QUEUE),
            "BENCH_BATCH_DELAY": str(BATCH_DELAY),
        }

    def left(self, database: Redis | Postgres, count: int) -> int:
        assert isinstance(database, Postgres)
        return database.ask("SELECT count(*) FROM graphile_worker._private_jobs")

    def waiting(self, database: Redis | Postgres) -> int:
        return self.left(database, 0)
