"""huey on Redis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.environment.folder import PROGRAMS, Folder
from bench.environment.servers import Postgres, Redis
from bench.peers.peer import Peer


class Huey(Peer):
    """A job is taken off the queue when it begins; its kept result says that it is done."""

    name = "huey"
    database = Redis
    settings = "one process of 8 threads, a requests.Session in each thread"

    def version(self, folder: Folder) -> str:
        installed = folder.python_versions()
        return f"huey {installed['huey']}, requests {installed['requests']}"

    def environ(self) -> Mapping[str, str]:
        return {"BENCH_CLIENT": "requests"}

    def queue(self, folder: Folder, count: int) -> Sequence[str | Path]:
        return [folder.bin / "python", PROGRAMS / "huey_jobs.py", str(count)]

    def work(self, folder: Folder) -> Sequence[str | Path]:
        options = ["--worker-type", "thread", "--workers", "8", "--quiet", "--no-periodic"]
        return [folder.bin / "huey_consumer", *options, "huey_jobs.huey"]

    def left(self, database: Redis | Postgres, count: int) -> int:
        assert isinstance(database, Redis)
        return count - database.ask("HLEN", "huey.results.bench")
