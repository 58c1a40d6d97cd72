"""One statement on its way: its deadline, how it ends, and what the database answered, as JSON.

The loop that waits for a statement and the thread that carries it out share a `StatementRun`.
"""

from __future__ import annotations

import base64
import errno
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any, Protocol

import httpx

from orchestratord import world
from orchestratord_sql.placeholders import Scan

MAX_ROWS = 10_000
"""Rows that are kept of an answer."""
EXCERPT = 18_000
"""Bytes of the shorter form, for where a whole answer is too long."""


class QueryResult:
    """Keeps the first rows of an answer, up to a number of rows and of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._room = max_bytes
        self._names: list[str] = []
        self._rows: list[str] = []
        self._truncated = False
        self.affected: int | None = None
        """How many rows were written; None where that is not known, or none could be."""

    def columns(self, names: Sequence[str]) -> None:
        """The names of the columns; of two that are the same, one gets a number."""
        taken: set[str] = set()
        for name in names:
            unique, number = name, 1
            while unique in taken:
                number += 1
                unique = f"{name}_{number}"
            taken.add(unique)
            self._names.append(unique)

    def row(self, values: Sequence[Any]) -> bool:
        """Keep a row; False where there is no room for it or any further one."""
        if self._truncated or len(self._rows) >= MAX_ROWS:
            self._truncated = True
            return False
        plain = dict(zip(self._names, map(plain_value, values), strict=True))
        text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
        size = len(text.encode("utf-8", "surrogatepass"))
        if size > self._room:
            self._truncated = True
            return False
        self._room -= size
        self._rows.append(text)
        return True

    def data(self) -> Any:
        """The answer as data."""
        return json.loads(self._content(self._rows, self._truncated))

    def response(self) -> httpx.Response:
        """The answer, as hooks and webhooks see the one to an HTTP call."""
        content = self._content(self._rows, self._truncated)
        extensions: dict[str, Any] = {}
        if len(content) > EXCERPT:
            extensions["excerpt"] = self._excerpt()
        if self._truncated:
            extensions["truncated"] = True
        headers = {"Content-Type": "application/json"}
        return httpx.Response(200, headers=headers, content=content, extensions=extensions)

    def _excerpt(self) -> bytes:
        room = EXCERPT - len(self._content([], True))
        rows: list[str] = []
        for row in self._rows:
            room -= len(row.encode("utf-8", "replace")) + 1
            if room < 0:
                break
            rows.append(row)
        return self._content(rows, True)

    def _content(self, rows: Sequence[str], truncated: bool) -> bytes:
        head = {"rows_affected": self.affected, "columns": self._names}
        text = json.dumps(head, ensure_ascii=False, separators=(",", ":"))[:-1]
        text += f',"rows":[{",".join(rows)}],"truncated":{"true" if truncated else "false"}}}'
        return text.encode("utf-8", "replace")


_KEYS = ("rows_affected", "columns", "rows", "truncated")


def fake_answer(body: Any, *, reads: bool) -> dict[str, Any]:
    """An answer that no database gave, completed by what a database would have said.

    Args:
        body: what the answer is supposed to hold; a text is read as JSON, None holds nothing.
        reads: the statement only reads.

    Raises:
        ValueError: no database answers so.
    """
    given = json.loads(body) if isinstance(body, str) else body
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise ValueError(f"a database answers with a mapping of {', '.join(_KEYS)}")
    for key in given:
        if key not in _KEYS:
            raise ValueError(f"a database answers with {', '.join(_KEYS)}; there is no {key!r}")
    rows = given.get("rows", [])
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError("rows is a list of mappings, of columns to values")
    complete = {
        "rows_affected": None if reads else len(rows),
        "columns": list(rows[0]) if rows else [],
        "rows": rows,
        "truncated": False,
    }
    return complete | dict(given)


def plain_value(value: Any) -> Any:
    """A value of a database as one that JSON has.

    Numbers that are exact stay so, as texts; times are RFC 3339; bytes are base64.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else json.dumps(value)  # as `NaN`, `-Infinity`
    if isinstance(value, Decimal | timedelta):
        return str(value)
    if isinstance(value, datetime | date | time_of_day):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(item) for item in value]
    return str(value)


class StatementCancelled(Exception):
    """The attempt has ended: its statement is not to be committed."""


class StaleConnection(Exception):
    """A connection that was used before is closed, and nothing was sent over it."""


class StatementFailed(Exception):
    """A statement failed.

    Args:
        message: what the database says.
        retryable: it may go well another time.
        maybe_done: it is not known whether it was committed.
    """

    def __init__(self, message: str, *, retryable: bool, maybe_done: bool = False) -> None:
        self.message = message
        self.retryable = retryable
        self.maybe_done = maybe_done
        self.shortage = False
        """No file descriptor was left, which says nothing of the database."""
        self.unreached = False
        """No connection stood, which says nothing of the statement."""
        super().__init__(message)


def nothing_opens() -> bool:
    """Whether no file descriptor is left at this moment."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False


class StatementRun:
    """A statement on its way.

    Args:
        scan: the statement.
        values: of its parameters, by name.
        seconds: within which it has to have ended, from now on.
        result: takes the answer.
        accept: called once the answer is there and before it is committed; raises StatementFailed
            where it is not what was wanted.
    """

    def __init__(
        self,
        scan: Scan,
        values: dict[str, Any],
        seconds: float,
        result: QueryResult,
        accept: Callable[[], None] = lambda: None,
    ) -> None:
        self.scan = scan
        self.values = values
        self.seconds = seconds
        self._ends = world.monotonic() + seconds
        self.result = result
        self.accept = accept
        self._lock = world.Lock()
        self._cancelled = False
        self.committing = False
        """It may have been carried out, whatever becomes of the connection."""

    @property
    def left(self) -> float:
        """Seconds that are left of its time; not less than 0."""
        return max(self._ends - world.monotonic(), 0.0)

    @property
    def over(self) -> bool:
        """It is to end: it was cancelled, or its time is over."""
        return not self.committing and (self._cancelled or world.monotonic() > self._ends)

    def check(self) -> None:
        """To be called by the thread before it goes on. Raises StatementCancelled."""
        if self._cancelled:
            raise StatementCancelled

    def commit(self) -> None:
        """To be called by the thread before it sends COMMIT. Raises StatementCancelled."""
        with self._lock:
            self.check()
            self.committing = True

    def cancel(self) -> bool:
        """To be called by the loop: have nothing committed. False where it is too late for that."""
        with self._lock:
            self._cancelled = True
            return not self.committing


class Driver(Protocol):
    """A connection to a database. All but `interrupt` and `sever` belongs to its one thread."""

    broken: bool
    """It can be used no more."""

    def execute(self, run: StatementRun) -> None:
        """Carry out a statement in a transaction of its own; its answer goes to `run.result`.

        Raises StatementFailed, StatementCancelled, and StaleConnection before anything was sent.
        """
        ...

    def refresh(self) -> None:
        """Forget what the last statement may have left behind in the session."""
        ...

    def interrupt(self) -> None:
        """End the statement that runs, if one does; from any thread."""
        ...

    def sever(self) -> None:
        """Drop the connection under whatever it is at; from any thread."""
        ...

    def close(self) -> None:
        """Close it."""
        ...
