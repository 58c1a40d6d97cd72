"""One statement over many rows.

A statement is made for 1, 2, 4, … rows, so that any number of rows takes a few statements out of
a few, and each of them stays prepared.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from orchestratord.queue.database import Connection
from orchestratord.queue.jobs import Singly

MOST = 256
"""Rows in one statement."""


class ManyRows:
    """A statement with `{rows}` where its rows go."""

    def __init__(self, sql: str, columns: int) -> None:
        """`columns`: values in a row. Without ROLLBACK for a conflict, SQLite would keep a copy of
        each page that the statement changes; so it has to be a transaction that can be repeated."""
        self._sql = sql
        self._row = f"({', '.join('?' * columns)})"

    def run(self, db: Connection, rows: Sequence[Sequence[Any]]) -> int:
        """Run it for all of them, in their order; the number of rows that were changed.

        Raises Singly where the database does not take one of them; what it did is undone then, or
        is for the caller to undo.
        """
        changed = done = 0
        try:
            while left := len(rows) - done:
                size = min(1 << left.bit_length() - 1, MOST)
                values = list(chain.from_iterable(rows[done : done + size]))
                changed += db.run(self.text(size), values)
                done += size
        except Exception as error:
            raise Singly(str(error)) from error
        return changed

    def text(self, size: int) -> str:
        """The statement for `size` rows."""
        return _text(self._sql, self._row, size)


@lru_cache(maxsize=256)
def _text(sql: str, row: str, size: int) -> str:
    return sql.format(rows=", ".join([row] * size))
