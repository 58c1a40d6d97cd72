"""Statements on a database of SQLite."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

from orchestratord_sql.statement_run import (
    StaleConnection,
    StatementCancelled,
    StatementFailed,
    StatementRun,
)

BUSY = 5.0
"""Seconds to wait for others that write; then the attempt fails, and there may be another."""
_STEPS = 50_000
"""Instructions of SQLite between two looks at whether the statement is to end."""
_RETRYABLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOMEM,
    }
)
"""What may go well another time."""


class SqliteDriver:
    """A connection to SQLite; see `statement_run.Driver`."""

    def __init__(self, path: Path, run: StatementRun) -> None:
        """Open the database. Raises StatementFailed where there is none."""
        self.broken = False
        self._path = path
        try:
            self._file = path.stat()
        except FileNotFoundError:
            # SQLite would make one, and a wrong path would go unseen.
            raise StatementFailed(f"there is no database {path}", retryable=True) from None
        except OSError as error:
            raise StatementFailed(f"{path}: {error.strerror}", retryable=True) from None
        try:
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=rw",
                uri=True,
                isolation_level=None,
                timeout=min(BUSY, run.left),
                check_same_thread=False,  # only for `interrupt`
            )
            self._connection.execute("PRAGMA foreign_keys = ON")
        except sqlite3.Error as error:
            raise _failure(error, run) from None

    def execute(self, run: StatementRun) -> None:
        connection, reads = self._connection, run.scan.reads
        if self._is_replaced():
            raise StaleConnection(f"another file is at {self._path}")
        connection.set_progress_handler(lambda: run.over, _STEPS)
        try:
            self._wait_at_most(min(BUSY, run.left))
            connection.execute(f"PRAGMA query_only = {int(reads)}")
            connection.execute("BEGIN" if reads else "BEGIN IMMEDIATE")
            run.check()
            _keep(connection.execute(run.scan.text, run.values), run)
            run.accept()
            self._wait_at_most(min(BUSY, run.left))
            run.commit()
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            undone = not run.committing or connection.in_transaction
            raise _failure(error, run, maybe_done=not undone) from None
        except (OverflowError, UnicodeEncodeError) as error:
            raise StatementFailed(
                f"a parameter cannot be bound: {error}", retryable=False
            ) from None
        finally:
            connection.set_progress_handler(None, 0)
            self._roll_back()

    def _is_replaced(self) -> bool:
        """Whether another file is at its path than the one that is open."""
        try:
            return not os.path.samestat(self._path.stat(), self._file)
        except OSError:
            return True

    def _wait_at_most(self, seconds: float) -> None:
        """For how long to wait for others. No interrupt ends that."""
        self._connection.execute(f"PRAGMA busy_timeout = {round(seconds * 1000)}")

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.rollback()
        except sqlite3.Error:
            self.broken = True

    def refresh(self) -> None:
        """Nothing is left behind."""

    def interrupt(self) -> None:
        self._connection.interrupt()

    def sever(self) -> None:
        """Nothing that could be dropped; it ends by itself after `BUSY` seconds at most."""

    def close(self) -> None:
        self._connection.close()


def _keep(cursor: sqlite3.Cursor, run: StatementRun) -> None:
    result, reads = run.result, run.scan.reads
    try:
        if cursor.description is not None:
            result.columns([column[0] for column in cursor.description])
            for row in cursor:
                # What writes is done only when its last row has been taken.
                if not result.row(row) and reads:
                    break
        if cursor.rowcount >= 0:
            result.affected = cursor.rowcount
    finally:
        cursor.close()


def _failure(error: sqlite3.Error, run: StatementRun, *, maybe_done: bool = False) -> Exception:
    code: Any = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF == sqlite3.SQLITE_INTERRUPT:
        if run.left > 0:
            return StatementCancelled()
        return StatementFailed(
            f"did not end within {run.seconds:g}s, and was interrupted", retryable=True
        )
    retryable = code is not None and code & 0xFF in _RETRYABLE
    return StatementFailed(str(error), retryable=retryable, maybe_done=maybe_done)
