"""BullMQ on Redis: one process of Node.js, many jobs at once."""

from __future__ import annotations

from collections.abc import Mapping

from bench.environment.folder import Folder
from bench.environment.servers import Postgres, Redis
from bench.peers.node_peer import NodePeer

CONCURRENCY = 100


class BullMQ(NodePeer):
    """Finished jobs are kept, as it does by itself."""

    name = "bullmq"
    database = Redis
    program = "bullmq"
    adds = "add of a Queue"
    settings = f"one process, concurrency {CONCURRENCY}, undici"

    def version(self, folder: Folder) -> str:
        installed = folder.node_versions()
        return f"BullMQ {installed['bullmq']}, undici {installed['undici']}"

    def environ(self) -> Mapping[str, str]:
        return {"BENCH_CONCURRENCY": str(CONCURRENCY)}

    def left(self, database: Redis | Postgres, count: int) -> int:
        assert isinstance(database, Redis)
        return count - database.ask("ZCARD", "bull:bench:completed")

    def waiting(self, database: Redis | Postgres) -> int:
        assert isinstance(database, Redis)
        return database.ask("LLEN", "bull:bench:wait")
