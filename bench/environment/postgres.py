"""A PostgreSQL of its own, with its defaults, as orchestratord takes it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg

from bench.environment.servers import Postgres


def queue_url(server: Postgres) -> str:
    """The database as orchestratord takes it."""
    return server.url.replace("postgres://", "postgresql://", 1)


@contextmanager
def folder_for_server() -> Iterator[Path]:
    """A folder that the user of a server can reach."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "database"


@contextmanager
def server(home: Path | None = None, **options: str) -> Iterator[Postgres]:
    """A PostgreSQL with its defaults but for `options`; without `home` one that is empty."""
    with ExitStack() as stack:
        where = home or stack.enter_context(folder_for_server())
        running = stack.enter_context(Postgres(where, **options))
        while not _answers(queue_url(running)):
            time.sleep(0.05)
        yield running


def _answers(url: str) -> bool:
    """A server that listens may still be starting."""
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True
