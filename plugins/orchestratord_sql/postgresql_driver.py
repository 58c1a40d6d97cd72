"""Statements on a database of PostgreSQL, by psycopg.

A query that only reads is fetched through a cursor in the database, so that no more than is kept
comes over the network. All else is executed as it is, and its rows are counted to the last.
"""

from __future__ import annotations

import contextlib
import math
import socket
from datetime import datetime
from os import dup
from typing import Any

import psycopg
from psycopg.adapt import Buffer, Loader
from psycopg.conninfo import conninfo_to_dict

from orchestratord_sql.statement_run import StaleConnection, StatementFailed, StatementRun

_FETCH = 200
"""Rows that are fetched at once."""
_CANCEL = 2.0
"""Seconds in which the database takes a request to cancel."""
_FIRST = 2.0
"""Seconds that a connection may take at least; libpq takes less for none."""

_RETRYABLE = (
    "08",  # connections
    "25P03",  # idle_in_transaction_session_timeout
    "40001",  # serialization_failure
    "40003",  # statement_completion_unknown
    "40P01",  # deadlock_detected
    "53",  # resources that are used up
    "55P03",  # lock_not_available
    "57014",  # query_canceled
    "57P01",  # admin_shutdown
    "57P02",  # crash_shutdown
    "57P03",  # cannot_connect_now
    "58",  # errors of the system
)
"""Codes, and classes of them: their first two characters."""
_UNKNOWN = frozenset({"40003", "08007"})
"""It is not known whether it was committed."""
_CANCELED = "57014"


class PostgresqlDriver:
    """A connection to PostgreSQL; see `statement_run.Driver`."""

    def __init__(self, url: str, run: StatementRun) -> None:
        """Connect. Raises StatementFailed."""
        self.broken = False
        self._fresh = True
        try:
            self._connection = psycopg.connect(
                url,
                autocommit=True,  # BEGIN and COMMIT are written out below
                prepare_threshold=None,
                connect_timeout=_seconds(url, run.left),
                client_encoding="utf8",
                fallback_application_name="orchestratord",
            )
        except psycopg.Error as error:
            raise StatementFailed(_one_line(str(error)), retryable=True) from None
        for name in ("date", "time", "timetz", "timestamp", "timestamptz"):
            self._connection.adapters.register_loader(name, _Moment)
        self._connection.adapters.register_loader("interval", _Text)

    def execute(self, run: StatementRun) -> None:
        connection, fresh = self._connection, self._fresh
        self._fresh = False
        try:
            self._begin(run, fresh)
            run.check()
            _execute(connection, run)
            run.accept()
            run.commit()
            connection.execute("COMMIT")
        except psycopg.Error as error:
            raise self._failure(error, run) from None
        except UnicodeEncodeError as error:
            raise StatementFailed(
                f"a parameter cannot be bound: {error}", retryable=False
            ) from None
        finally:
            self._roll_back()

    def _begin(self, run: StatementRun, fresh: bool) -> None:
        # In the database too, should this process die or the network be cut.
        milliseconds = max(math.ceil(run.left * 1000), 1)
        mode = "READ ONLY" if run.scan.reads else "READ WRITE"
        begin = (
            f"BEGIN {mode}; SET LOCAL statement_timeout = {milliseconds}; "
            f"SET LOCAL idle_in_transaction_session_timeout = {milliseconds}"
        )
        try:
            self._connection.execute(begin.encode())
        except psycopg.OperationalError as error:
            if self._connection.closed and not fresh:
                raise StaleConnection(_one_line(str(error))) from None
            raise

    def _roll_back(self) -> None:
        connection = self._connection
        try:
            if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                connection.execute("ROLLBACK")
        except psycopg.Error:
            connection.close()
        self.broken = bool(connection.closed)

    def _failure(self, error: psycopg.Error, run: StatementRun) -> StatementFailed:
        code, lost = error.sqlstate or "", bool(self._connection.closed)
        message = _message(error)
        if code == _CANCELED and run.over:
            message = f"did not end within {run.seconds:g}s, and was cancelled in the database"
        retryable = (
            code.startswith(_RETRYABLE)
            or (not code and lost)
            or isinstance(error, psycopg.errors.ConnectionTimeout)
        )
        # An answer to COMMIT says what became of it; where none came, it is not known.
        maybe_done = code in _UNKNOWN or (run.committing and lost)
        return StatementFailed(message, retryable=retryable, maybe_done=maybe_done)

    def refresh(self) -> None:
        self._connection.execute("DISCARD ALL")

    def interrupt(self) -> None:
        self._connection.cancel_safe(timeout=_CANCEL)

    def sever(self) -> None:
        # A descriptor of its own: the connection goes on to use, and to close, the other one.
        with socket.socket(fileno=dup(self._connection.fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._connection.close()


def _execute(connection: psycopg.Connection[Any], run: StatementRun) -> None:
    result, scan = run.result, run.scan
    values = [run.values[name] for name in scan.names]
    text = scan.numbered().encode()
    if scan.reads:
        with psycopg.RawServerCursor(connection, "answer") as reading:
            reading.execute(text, values)
            result.columns([column.name for column in reading.description or ()])
            while rows := reading.fetchmany(_FETCH):
                if not all(result.row(row) for row in rows):
                    return
        return
    with psycopg.RawCursor(connection) as cursor:
        cursor.execute(text, values)
        if cursor.description is not None:
            result.columns([column.name for column in cursor.description])
            for row in cursor:
                if not result.row(row):
                    break
        writes = not (cursor.statusmessage or "").startswith(("SELECT", "FETCH", "SHOW"))
        if writes and cursor.rowcount >= 0:
            result.affected = cursor.rowcount


def _seconds(url: str, left: float) -> int:
    """For how long to try to connect: what is left, or less where the URL says so."""
    try:
        told = int(conninfo_to_dict(url).get("connect_timeout") or 0)
    except ValueError:
        told = 0
    longest = math.ceil(max(left, _FIRST))
    return min(told, longest) if told > 0 else longest


def _message(error: psycopg.Error) -> str:
    """What the database says, without the statement around it, and with the code of the error."""
    said = error.diag.message_primary or _one_line(str(error)) or type(error).__name__
    if error.diag.message_detail:
        said += f" ({error.diag.message_detail})"
    return f"{error.sqlstate}: {said}" if error.sqlstate else said


def _one_line(text: str) -> str:
    return " ".join(text.split())


class _Text(Loader):
    """The value as PostgreSQL writes it."""

    def load(self, data: Buffer) -> Any:
        return bytes(data).decode()


class _Moment(_Text):
    """A date or a time as RFC 3339 has it; what Python has no time for, as PostgreSQL writes it."""

    def load(self, data: Buffer) -> Any:
        text = bytes(data).decode()
        if " " in text:
            with contextlib.suppress(ValueError):
                return datetime.fromisoformat(text)
        return text
