"""The queue in a PostgreSQL that daemons share.

Every transaction of a daemon says for itself what it needs of its session, so that a pooler between
may give it another session each time. What SQLite is told of its indexes is left out here, and
PostgreSQL is told to follow them: it would plan by statistics that lag behind a queue.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

from peewee import PeeweeException
from pydantic_core import to_json

from orchestratord.errors import DatabaseInUse, QueueError
from orchestratord.queue.connection import Connection, Failures, Row
from orchestratord.queue.daemon_health import Code
from orchestratord.queue.database import Database, Wakeups
from orchestratord.queue.postgres.claim_postgres import (
    ANY_RUN_OUT,
    CLOCK,
    EARLIEST_KEYS,
    PostgresSession,
)
from orchestratord.queue.postgres.notify import PostgresMessenger
from orchestratord.queue.postgres.postgres_url import hidden, problem
from orchestratord.queue.postgres.vacuum import Horizon
from orchestratord.queue.records import HoldingBack
from orchestratord.queue.session import LEASE, Leases
from orchestratord.values import world

try:
    import psycopg
    from psycopg import errors as pg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
    from psycopg.pq import TransactionStatus

    from orchestratord.queue.postgres.postgres_orm import PostgresOrm
except ImportError as error:  # pragma: no cover  # what a test of the extra sees as a process
    raise QueueError(
        "a database postgresql://… takes psycopg, which is not installed: "
        "pip install 'orchestratord[postgres]'"
    ) from error

log = logging.getLogger("orchestratord.queue")

OLDEST = 130000
"""PostgreSQL 13: the first that can tell what became of a transaction by its number."""
ENCODINGS = ("UTF8", "SQL_ASCII")
"""Of databases that take every text; SQL_ASCII takes it as bytes."""

UNASKED = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "application_name": "orchestratord",
    "client_encoding": "utf8",
}
"""What libpq is told where the URL says nothing else: a server that is cut off is given up within
seconds, while a daemon may still say so before it seems to hang."""

PRIMARY = "primary" if psycopg.pq.version() >= 140000 else "read-write"
"""Which of several hosts libpq is to look for. An older one takes a primary for none that is set to
`default_transaction_read_only`, which the queue does not mind."""

STANDBY = "the server is a standby, which takes no tasks; a primary is looked for"

SETTINGS = {
    "idle_in_transaction_session_timeout": "5s",
    "lock_timeout": "1s",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
"""Of each transaction."""
SIZE = "SELECT pg_total_relation_size('retry_schedule') + pg_total_relation_size('attempts')"
STATE = "SELECT pg_xact_status($1::xid8)"
KNOWN = "SELECT 1 FROM commits WHERE writer = $1 AND number = $2"
FORGET = "DELETE FROM commits WHERE writer = $1 OR at < now() - interval '1 day'"
DURABLE = {"synchronous_commit": "on"}
"""Where the server's settings do not let COMMIT wait for the disk."""

WATCHED = 0.3
"""Seconds for which a statement waits while it is looked who holds what it waits for."""
BLOCKERS = r"""
SELECT pg_sleep(0.1); SELECT CASE pid WHEN 0 THEN 'a prepared transaction (pg_prepared_xacts)'
    ELSE format('pid %%s (%%s of %%s, %%s): %%s', pid,
        COALESCE(NULLIF(application_name, ''), backend_type), usename, state,
        left(regexp_replace(query, '\s+', ' ', 'g'), 200)) END
FROM pg_stat_activity RIGHT JOIN unnest(pg_blocking_pids(%d)) AS pid USING (pid) ORDER BY pid
"""

LOCK = 0x6F72636865737472
"""The advisory lock of the daemon that changes the schema; spells `orchestr`."""
LOCK_WAIT = 120.0
"""Seconds that others may take to change it."""

STATEMENTS = 200
"""Statements that a connection keeps prepared."""

_CHANGES = re.compile(r"\b(?:INSERT|DELETE|(?<!FOR )(?<!DO )UPDATE)\b")
_LEFT_OUT = re.compile(r"\b(?:NOT INDEXED|INDEXED BY \w+|(?<=INSERT |UPDATE )OR ROLLBACK)\b")


def is_lost(error: BaseException) -> bool:
    """True where the connection is gone, or the server does not want it."""
    if isinstance(error, PeeweeException) and error.args:
        error = error.args[0]  # it wraps them
    if isinstance(error, psycopg.OperationalError):
        if error.sqlstate is None or error.sqlstate[:3] == "57P":
            return True  # of what the server explains: it shuts down, starts, or is a standby now
        return error.sqlstate[:2] == "08" and not _is_of_statement(error)
    ended = pg.IdleInTransactionSessionTimeout | pg.TransactionTimeout
    return isinstance(error, pg.ReadOnlySqlTransaction | ended)


def _is_of_statement(error: BaseException) -> bool:
    """True where the server refuses one statement as a breach of the protocol, and keeps the
    session: behind a pooler, what was prepared has another meaning in it."""
    return isinstance(error, pg.ProtocolViolation) and error.diag.severity_nonlocalized == "ERROR"


def is_passing(error: BaseException) -> bool:
    """True for deadlocks, and a pooler that changed the session, or gave one whose transaction
    another client has spoilt."""
    taken = pg.DeadlockDetected | pg.SerializationFailure
    changed = pg.InvalidSqlStatementName | pg.DuplicatePreparedStatement | pg.InFailedSqlTransaction
    return isinstance(error, taken | changed) or _is_of_statement(error)


def is_locked(error: BaseException) -> bool:
    """True where a statement has waited for a lock for as long as it may."""
    return isinstance(error, pg.LockNotAvailable)


def is_unfit(error: BaseException) -> bool:
    """True where a value cannot be stored or breaks a constraint: it will never be taken."""
    if isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None:
        return True  # a value that psycopg does not know how to write
    values = (psycopg.DataError, psycopg.IntegrityError, OverflowError, UnicodeError)
    types = (pg.DatatypeMismatch, pg.IndeterminateDatatype, pg.UndefinedFunction)
    return isinstance(error, (*values, *types, pg.ProgramLimitExceeded))


def trouble(error: BaseException) -> Code | None:
    """What is wrong with the server, its disk, or the way to it."""
    if is_lost(error):
        return Code.UNREACHABLE
    if isinstance(error, pg.DiskFull):
        return Code.FULL
    return Code.FAILING if isinstance(error, pg.IoError) else None


FAILURES = Failures(
    (psycopg.Error, PeeweeException), trouble, is_unfit, is_lost, is_passing, is_locked
)


class PostgresServer:
    """Where the database is, and the way to it."""

    def __init__(self, url: str) -> None:
        """`url`: handed to libpq whole. Raises QueueError where libpq does not understand it."""
        if (wrong := problem(url)) is not None:
            raise QueueError(f"{hidden(url)} is not a database: {wrong}")
        said = conninfo_to_dict(url)
        unasked = {name: to for name, to in UNASKED.items() if name not in said}
        if said.get("target_session_attrs", "any") == "any":
            # Of several hosts the one that answers first may be a standby.
            unasked["target_session_attrs"] = PRIMARY
        self.conninfo = make_conninfo(url, **unasked)
        """What libpq is told."""
        self.shown = hidden(url)
        """The URL without a password."""

    def dial(self) -> psycopg.Connection[Row]:
        """A connection of psycopg's. Raises psycopg.Error."""
        raw = psycopg.connect(self.conninfo, autocommit=True, cursor_factory=psycopg.RawCursor)
        try:
            raw.prepared_max = STATEMENTS
            # No two connections have statements of one name: a pooler that gives one the session of
            # another would have it carry out the other's.
            raw._prepared._prepared_idx = int(world.token_hex(7), 16)
            # Else what comes from others over a pooler's connections would be kept for ever.
            raw.add_notify_handler(lambda _: None)
            if raw.info.server_version < OLDEST:
                major = raw.info.server_version // 10000
                raise DatabaseInUse(f"{self.shown} is PostgreSQL {major}; it takes 13 or newer")
            encoding = raw.info.parameter_status("server_encoding") or "UTF8"
            if encoding not in ENCODINGS:
                raise DatabaseInUse(
                    f"{self.shown} has the encoding {encoding}, which does not take every text: "
                    f"CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
                )
        except BaseException:
            raw.close()
            raise
        return raw


class PostgresConnection(Connection):
    """One connection; its next use makes it again, after it was lost.

    What became of a COMMIT that was not answered is seen by a row that each transaction leaves: its
    number. The number that the server gave it says only whether it is still under way, since a
    server that crashed gives the numbers again of which nothing had reached its disk.
    """

    failures = FAILURES
    for_update = " FOR UPDATE"
    skip_locked = " FOR UPDATE SKIP LOCKED"

    def __init__(
        self, server: PostgresServer, leases: Leases, horizon: Horizon, *, writes: bool
    ) -> None:
        """
        Args:
            server: where the database is.
            leases: of the claims that are made here.
            horizon: remembers what kept the server from cleaning up at the last look.
            writes: whether it is the one that writes.

        Raises psycopg.Error where the server cannot be reached.
        """
        self._server = server
        self._leases = leases
        self._horizon = horizon
        self._writes = writes
        self._prepare = True
        self._written = 0
        self._before = 0
        """What `_written` was as the transaction began."""
        self._xid: str | None = None
        """What the server calls the transaction that is under way."""
        self._unanswered: str | None = None
        """The one whose COMMIT was sent and not answered."""
        self._writer = world.token_hex(8)
        self._number = 0
        """How many of our transactions have left a row."""
        self._connect()

    def _connect(self) -> None:
        self._raw: psycopg.Connection[Row] = self._server.dial()
        if not self._prepare:
            self._raw.prepare_threshold = None
        with self._raw.cursor() as cursor:
            settings = SETTINGS
            cursor.execute("SELECT current_setting('synchronous_commit'), pg_is_in_recovery()")
            synchronous, standby = cursor.fetchone() or ("", False)
            if standby:
                # Behind the primary, it would not know of what was committed.
                self._raw.close()
                raise psycopg.OperationalError(STANDBY)
            if self._writes and synchronous == "off":
                log.warning(
                    "synchronous_commit is off for this database; it is on for the queue, which "
                    "acknowledges nothing that is not on disk"
                )
                settings = {**SETTINGS, **DURABLE}
        set_ = ", ".join(f"set_config('{name}', '{to}', true)" for name, to in settings.items())
        begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"  # whatever others are to have
        lock_wait = "set_config('lock_timeout', '{}ms', true)"
        self._begin = f"{begin}; SELECT {set_}, {lock_wait}, pg_current_xact_id()::text"
        look = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        self._look = f"{look}; SELECT {set_}, pg_is_in_recovery()"

    def all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Every row of a statement."""
        cursor = self._execute(sql, parameters)
        return cursor.fetchall() if cursor.description else []

    def one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """The first row of a statement, None for none."""
        return self._execute(sql, parameters).fetchone()

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement; the number of rows that it changed."""
        return self._execute(sql, parameters).rowcount

    def insert(self, sql: str, parameters: Sequence[Any]) -> int:
        """Insert one row; its id."""
        return int(self.all(f"{sql} RETURNING id", parameters)[0][0])

    def many(self, sql: str, types: Sequence[str], rows: Sequence[Sequence[Any]]) -> int:
        """As in the interface: one JSON text is the quickest way for many values to the server."""
        return self.run(_many(sql, tuple(types)), (_rows_text(rows),))

    def reserve(self, table: str, count: int) -> Sequence[int]:
        """As in the interface; those that are not used are never used."""
        sequence = f"SELECT nextval('{table}_id_seq') FROM generate_series(1, ?::int)"  # noqa: S608
        return sorted(id_ for (id_,) in self.all(sequence, (count,)))

    @contextmanager
    def guard(self) -> Iterator[None]:
        """As in the interface; what fails here would end the transaction for all."""
        self._raw.execute("SAVEPOINT guard", prepare=False)
        try:
            yield
        except Exception:
            with suppress(psycopg.Error):  # the connection may be what is lost
                self._raw.execute("ROLLBACK TO guard", prepare=False)
            raise
        self._raw.execute("RELEASE guard", prepare=False)

    def _execute(self, sql: str, parameters: Sequence[Any]) -> psycopg.Cursor[Row]:
        text, changes = _translated(sql)
        cursor = self._raw.cursor()
        try:
            cursor.execute(text, parameters or None)
        except (pg.InvalidSqlStatementName, pg.DuplicatePreparedStatement, pg.ProtocolViolation):
            # A pooler gives each transaction another session: from here on nothing is prepared.
            self._prepare, self._raw.prepare_threshold = False, None
            raise
        if changes > 1 or (changes and cursor.rowcount):
            self._written += 1
        return cursor

    def begin(self, lock_wait: float = 1.0) -> None:
        """Begin to write; the transaction has a number by which it is known later."""
        if self._raw.closed:
            self._connect()
        self.rollback()  # of one that failed to begin, the first statement may be carried out
        try:
            begin = self._begin.format(max(round(lock_wait * 1000), 1))
            cursor = self._raw.execute(begin, prepare=False)  # two statements, one journey
        except pg.FeatureNotSupported as error:
            # A pooler, or a name, now leads to a standby: this connection is of no use any more.
            self._raw.close()
            raise psycopg.OperationalError(STANDBY) from error
        cursor.nextset()
        row = cursor.fetchone()
        assert row is not None
        self._xid, self._before = str(row[-1]), self._written

    def blockers(self, wait: Callable[[], Any]) -> list[str]:
        """As in the interface: a second connection looks while this one waits."""
        with self._server.dial() as other:
            self.begin(WATCHED)
            try:
                row = self._raw.execute("SELECT pg_backend_pid()").fetchone()
                assert row is not None
                other.pgconn.send_query((BLOCKERS % row[0]).encode())
                with suppress(Exception):
                    wait()
            finally:
                self.rollback()
            found: list[str] = []
            while (result := other.pgconn.get_result()) is not None:
                found = [(result.get_value(n, 0) or b"").decode() for n in range(result.ntuples)]
            return found

    def commit(self) -> None:
        """Make the transaction durable."""
        xid, self._xid = self._xid, None
        if self._written == self._before:
            self._raw.execute("COMMIT", prepare=False)  # answered or not
            return
        self._unanswered = xid
        try:
            self._raw.execute(self._end, prepare=False)
        except psycopg.Error as error:
            if not is_lost(error):
                self._unanswered = None
            raise
        self._unanswered, self._number = None, self._number + 1

    @property
    def _end(self) -> str:
        """One journey: the row of this transaction takes the place of the last one's."""
        where = f"writer = '{self._writer}' AND number = {self._number}"
        values = f"('{self._writer}', {self._number + 1})"
        return (
            f"DELETE FROM commits WHERE {where}; "  # noqa: S608  # ours, and no values of others
            f"INSERT INTO commits (writer, number) VALUES {values}; COMMIT"
        )

    def rollback(self) -> None:
        """Undo the transaction, if there still is one."""
        self._xid = None
        with suppress(psycopg.Error):  # a connection that is gone has undone it already
            if self.in_transaction:
                self._raw.execute("ROLLBACK", prepare=False)

    @property
    def in_transaction(self) -> bool:
        """False once the transaction has ended, however it has."""
        ended = (TransactionStatus.IDLE, TransactionStatus.UNKNOWN)
        return self._raw.info.transaction_status not in ended

    def undo(self) -> None:
        """Undo what was written since the savepoint."""
        self._raw.execute("ROLLBACK TO operation; RELEASE operation", prepare=False)

    @property
    def written(self) -> int:
        """A number that grows with every statement that has written, or may have."""
        return self._written

    @property
    def in_doubt(self) -> bool:
        """True while it is not known whether a transaction was committed."""
        return self._unanswered is not None

    def mend(self) -> bool | None:
        """As in the interface. While the transaction is still under way, the session that was lost
        works on it."""
        self._raw.close()
        self._connect()
        if self._unanswered is None:
            return None
        try:
            state = self._raw.execute(STATE, (self._unanswered,)).fetchone()
        except psycopg.DataError:
            state = None  # the server that answers has not come that far
        if state is not None and state[0] == "in progress":
            raise psycopg.OperationalError("a COMMIT of the lost session is still under way")
        found = self._raw.execute(KNOWN, (self._writer, self._number + 1)).fetchone()
        committed = found is not None
        self._unanswered, self._number = None, self._number + committed
        return committed

    @contextmanager
    def look(self) -> Iterator[None]:
        """As in the interface."""
        if self._raw.closed:
            self._connect()
        try:
            cursor = self._raw.execute(self._look, prepare=False)  # may fail, its BEGIN carried out
            cursor.nextset()
            if (cursor.fetchone() or (False,))[-1]:
                self._raw.close()
                raise psycopg.OperationalError(STANDBY)
            yield
        finally:
            self.rollback()

    def size(self) -> int:
        """As in the interface: of the tables that grow."""
        return int(self.value(SIZE))

    def earliest_keys(self) -> list[Row]:
        """As in the interface."""
        return self.all(EARLIEST_KEYS)

    def dead_before(self, now: int) -> int:
        """As in the interface."""
        return now

    def lives(self, owner: str, until: int, now: int) -> bool:
        """As in the interface."""
        return until >= now

    def holding_back(self, longer_than: float) -> list[HoldingBack]:
        """As in the interface."""
        return self._horizon.look(self, longer_than)

    def claims_run_out(self, owner: str, held: Collection[int]) -> bool:
        """As in the interface."""
        [(now, found)] = self.all(ANY_RUN_OUT, (self._leases.since(), owner, list(held)))
        if not found:
            self._leases.looked(now)
        return bool(found)

    def clock_ms(self) -> int:
        """As in the interface."""
        return int(self.value(CLOCK))

    def close(self) -> None:
        """Close it; in the thread that made it."""
        if self._number and not self._raw.closed:
            with suppress(psycopg.Error):
                self._raw.execute(FORGET, (self._writer,))
        self._raw.close()


class PostgresDatabase(Database):
    """One database of a server; each daemon has a few connections to it."""

    failures = FAILURES
    several_daemons = True
    session_class = PostgresSession

    def __init__(self, url: str, lease: float = LEASE) -> None:
        """`url`: handed to libpq whole. Raises QueueError where libpq does not understand it.

        `lease`: seconds for which a claim stands without a word from its daemon.
        """
        self._server = PostgresServer(url)
        self._horizon = Horizon()
        self.leases = Leases(lease)
        self.shown = self._server.shown

    def open(self) -> None:
        """Nothing is to be done before the first connection."""

    def connect(self, *, writes: bool) -> Connection:
        """As in the interface."""
        try:
            return PostgresConnection(self._server, self.leases, self._horizon, writes=writes)
        except psycopg.Error as error:
            raise FAILURES.named(error) from None

    @contextmanager
    def models(self, connection: Connection) -> Iterator[PostgresOrm]:
        """As in the interface; a connection of its own."""
        orm = PostgresOrm.at(self._server.conninfo)
        orm.connect()
        try:
            yield orm
        finally:
            orm.close()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """As in the interface: a lock of a transaction, which poolers keep apart, too. It holds no
        snapshot, for which a statement that is not prepared is needed: an index that is built
        meanwhile while others work waits for all that are older."""
        # What is prepared, since it is asked again and again, a pooler may not know.
        to = self._server.conninfo
        with psycopg.connect(to, autocommit=True, prepare_threshold=None) as raw:
            deadline = world.monotonic() + LOCK_WAIT
            while True:
                # The database's own default may be stricter, which keeps the lock's snapshot.
                raw.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
                raw.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                row = raw.execute(f"SELECT pg_try_advisory_xact_lock({LOCK})").fetchone()
                if row is not None and row[0]:
                    break
                raw.execute("ROLLBACK")
                if world.monotonic() > deadline:
                    raise DatabaseInUse(
                        f"another daemon has been changing the schema of {self.shown} for "
                        f"{LOCK_WAIT:g} s"
                    )
                world.sleep(0.1)
            yield
            raw.execute("COMMIT")

    def messenger(self, owner: str, wakeups: Wakeups) -> PostgresMessenger:
        """As in the interface."""
        return PostgresMessenger(self._server.dial, owner, wakeups)


@lru_cache(maxsize=1024)
def _translated(sql: str) -> tuple[str, int]:
    """A statement as PostgreSQL reads it, and in how many of its parts it changes rows."""
    parts = _LEFT_OUT.sub("", sql).split("?")
    text = parts[0] + "".join(f"${n}{part}" for n, part in enumerate(parts[1:], 1))
    return text, len(_CHANGES.findall(text))


def _rows_text(rows: Sequence[Sequence[Any]]) -> str:
    try:
        return to_json(rows).decode()  # half the time of `json`
    except ValueError:  # lone surrogates, which are refused as they are sent
        return json.dumps(rows, ensure_ascii=False)


@lru_cache(maxsize=512)
def _many(sql: str, types: tuple[str, ...]) -> str:
    columns = ", ".join(
        f"(v ->> {n})::{kind} AS column{n + 1}" if kind != "text" else f"v ->> {n} AS column{n + 1}"
        for n, kind in enumerate(types)
    )
    rows = f"SELECT {columns} FROM jsonb_array_elements(?::jsonb) AS t (v)"  # noqa: S608
    return sql.replace("VALUES {rows}", rows)
