"""One statement over many rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestratord.queue.database import Connection
from orchestratord.queue.jobs import Singly


class ManyRows:
    """A statement with `VALUES {rows}` where its rows go."""

    def __init__(self, sql: str, *types: str) -> None:
        """`types`: of the columns of a row, which are called `column1` and so on: bigint, text or
        float8."""
        self.sql = sql
        self.types = types

    def run(self, db: Connection, rows: Sequence[Sequence[Any]]) -> int:
        """Run it for all of them, in their order; the number of rows that were changed.

        Raises Singly where the database does not take one of them; what it did is undone then, or
        is for the caller to undo.
        """
        if not rows:
            return 0
        try:
            return db.many(self.sql, self.types, rows)
        except Exception as error:
            raise Singly(str(error)) from error
