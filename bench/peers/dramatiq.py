"""dramatiq on Redis: a process for each core, eight threads in each, as it does by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.environment.folder import PROGRAMS, Folder
from bench.environment.servers import Postgres, Redis
from bench.peers.peer import Peer


class Dramatiq(Peer):
    """With the HTTP client that its documentation uses."""

    name = "dramatiq"
    database = Redis
    settings = "2 processes × 8 threads, a requests.Session in each thread"
    client = "requests"

    def version(self, folder: Folder) -> str:
        installed = folder.python_versions()
        return f"dramatiq {installed['dramatiq']}, {self.client} {installed[self.client]}"

    def environ(self) -> Mapping[str, str]:
        return {"BENCH_CLIENT": self.client}

    def queue(self, folder: Folder, count: int) -> Sequence[str | Path]:
        return [folder.bin / "python", PROGRAMS / "dramatiq_jobs.py", str(count)]

    def work(self, folder: Folder) -> Sequence[str | Path]:
        return [folder.bin / "dramatiq", "--processes", "2", "--threads", "8", "dramatiq_jobs"]

    def left(self, database: Redis | Postgres, count: int) -> int:
        # A message is deleted when it is acknowledged, and not before. What is delayed lies apart.
        assert isinstance(database, Redis)
        queues = ("bench", "bench.DQ")
        return sum(database.ask("HLEN", f"dramatiq:{queue}.msgs") for queue in queues)


class LeanDramatiq(Dramatiq):
    """With a client that does less for its user."""

    name = "dramatiq-urllib3"
    settings = "2 processes × 8 threads, a urllib3.PoolManager in each thread"
    client = "urllib3"
