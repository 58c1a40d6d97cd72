"""BullMQ on Redis: one process of Node.js, many jobs at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.environment.folder import Folder
from bench.environment.servers import Postgres, Redis
from bench.peers.peer import Peer

CONCURRENCY = 100


class BullMQ(Peer):
    """Finished jobs are kept, as it does by itself."""

    name = "bullmq"
    database = Redis
    fast = True
    settings = f"one process, concurrency {CONCURRENCY}, undici"

    def version(self, folder: Folder) -> str:
        installed = folder.node_versions()
        return f"BullMQ {installed['bullmq']}, undici {installed['undici']}"

    def environ(self) -> Mapping[str, str]:
        return {"BENCH_CONCURRENCY": str(CONCURRENCY)}

    def queue(self, folder: Folder, count: int) -> Sequence[str | Path]:
        return ["node", folder.node / "bullmq_queue.mjs", str(count)]

    def work(self, folder: Folder) -> Sequence[str | Path]:
        return ["node", folder.node / "bullmq_work.mjs"]

    def left(self, database: Redis | Postgres, count: int) -> int:
        assert isinstance(database, Redis)
        return count - database.ask("ZCARD", "bull:bench:completed")
