"""Filling a queue with many rows quickly: past the store, into the file that it has made."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

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


@contextmanager
def without_indexes(database: Path) -> Iterator[sqlite3.Connection]:
    """A connection to fill the tables with that a store has made in this file, which none may have
    open: nothing has to outlive a crash, and indexes are made faster than they are kept. At the end
    the tasks are counted, as a daemon has counted its own."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -262144")
        indexes = connection.execute(
            "SELECT name, sql FROM sqlite_master "
            "WHERE type = 'index' AND tbl_name = 'retry_schedule' AND sql IS NOT NULL"
        ).fetchall()
        connection.execute("BEGIN")
        for name, _ in indexes:
            connection.execute(f'DROP INDEX "{name}"')
        yield connection
        for _, statement in indexes:
            connection.execute(statement)
        connection.execute("DELETE FROM task_counts")
        connection.execute(COUNT)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")


def fill(database: Path, filling: Filling) -> None:
    """Fill the tables that a store has made in this file; no store may have it open."""
    with without_indexes(database) as connection:
        connection.execute(
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
