"""Filling a queue with many rows quickly: past the store, into the file that it has made."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from orchestratord.model.task import Key

SPLITS = (1, 10, 100)
"""What is due and shall be claimed lies in one key, in ten, and in a hundred."""
FULL = Key("full/post")
WAITING_KEYS = 10_000
PAYLOAD = 1000
"""Bytes of each row that shall be claimed."""

# Of the rows, `due` shall be claimed, and are numbered as j; the others are as i.
ROWS = """
WITH RECURSIVE number(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM number WHERE i < :rows),
counted AS (
    SELECT i,
        iif(:together, max(i + :due - :rows, 0), i * :due / :rows) AS so_far,
        iif(:together, max(i - 1 + :due - :rows, 0), (i - 1) * :due / :rows) AS before
    FROM number
),
numbered AS (
    SELECT CASE WHEN so_far > before THEN before END AS j, i - so_far AS i FROM counted
),
placed AS (
    SELECT i, j, CASE
        WHEN j IS NOT NULL THEN 'due'
        WHEN :all_full OR i % 10 = 0 THEN 'full'
        WHEN i % 10 < 6 THEN 'succeeded'
        ELSE 'waiting'
    END AS place
    FROM numbered
)
INSERT INTO retry_schedule (
    kind, endpoint_id, status, attempts, max_attempts, next_try, payload, finished_at,
    last_status_code, created_at, updated_at, scheduled_at
)
SELECT
    'call',
    CASE place
        WHEN 'due' THEN CASE j % 3
            WHEN 0 THEN 'split1/key0'
            WHEN 1 THEN 'split10/key' || (j / 3 % 10)
            ELSE 'split100/key' || (j / 3 % 100)
        END
        WHEN 'full' THEN :full
        ELSE 'waiting/key' || (i % :keys)
    END,
    CASE place WHEN 'succeeded' THEN 'succeeded' ELSE 'pending' END,
    place = 'succeeded',
    15,
    CASE place
        WHEN 'succeeded' THEN NULL
        WHEN 'waiting' THEN :now + 86400000 + i
        ELSE :now - 60000 + i % 1000
    END,
    CASE place WHEN 'due' THEN :payload END,
    CASE place WHEN 'succeeded' THEN :now - 60000 END,
    CASE place WHEN 'succeeded' THEN '200' END,
    :now - 60000, :now - 60000, :now - 60000
FROM placed
"""


@dataclass(frozen=True, slots=True)
class Filling:
    """What a queue is filled with.

    Args:
        name: for the table.
        rows: all of them.
        due: of these, in the keys of `SPLITS`, a third each.
        together: these are the newest rows, as when they were queued one after the other; else
            they lie evenly among all, as when each was queued at another time.
        all_full: all others are due in the key `FULL`; else a tenth is, half of them have
            succeeded, and the rest is due tomorrow in `WAITING_KEYS` keys.
    """

    name: str
    rows: int
    due: int
    together: bool = False
    all_full: bool = False


COUNT = """
INSERT INTO task_counts (owner, status, tasks, at)
SELECT '', status, count(*), 0 FROM retry_schedule GROUP BY status
"""


Run = Callable[..., object]
"""Runs a statement."""


@contextmanager
def without_indexes(database: Path | str) -> Iterator[Run]:
    """To fill the tables with that a store has made in this file, or in the PostgreSQL of this URL,
    which none may have open: nothing has to outlive a crash, and indexes are made faster than they
    are kept. At the end the tasks are counted, as a daemon has counted its own."""
    is_file = isinstance(database, Path)
    with closing(_file(database) if isinstance(database, Path) else _server(database)) as session:
        indexes = session.execute(OF_FILE if is_file else OF_SERVER).fetchall()
        session.execute("BEGIN")
        for name, _ in indexes:
            session.execute(f'DROP INDEX "{name}"')
        yield session.execute
        for _, statement in indexes:
            session.execute(statement)
        session.execute("DELETE FROM task_counts")
        session.execute(COUNT)
        session.execute("COMMIT")
        session.execute("PRAGMA journal_mode = WAL" if is_file else "VACUUM ANALYZE")


OF_FILE = """
SELECT name, sql FROM sqlite_master
WHERE type = 'index' AND tbl_name = 'retry_schedule' AND sql IS NOT NULL
"""
OF_SERVER = """
SELECT indexname, indexdef FROM pg_indexes
WHERE tablename = 'retry_schedule' AND indexname NOT IN (SELECT conname FROM pg_constraint)
"""
"""The indexes that are no constraint, and how they are made."""


def _file(database: Path) -> Any:
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -262144")
    return connection


def _server(url: str) -> Any:
    session = psycopg.connect(url, autocommit=True)
    session.execute("SET synchronous_commit = off")
    session.execute("SET maintenance_work_mem = '512MB'")
    return session


def fill(database: Path, filling: Filling) -> None:
    """Fill the tables that a store has made in this file; no store may have it open."""
    with without_indexes(database) as run:
        run(
            ROWS,
            {
                "rows": filling.rows,
                "due": filling.due,
                "all_full": filling.all_full,
                "together": filling.together,
                "full": FULL.endpoint_id,
                "keys": WAITING_KEYS,
                "payload": "x" * PAYLOAD,
                "now": int(time.time() * 1000),
            },
        )
