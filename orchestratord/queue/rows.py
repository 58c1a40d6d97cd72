"""Rows to objects and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from orchestratord.errors import NotFound
from orchestratord.queue.database import Connection
from orchestratord.task import Attempt, Task
from orchestratord.values import StatusCode

TASK_COLUMNS = tuple(field.name for field in fields(Task))
"""The columns of `retry_schedule` that make a Task, in the order of its fields."""

TASK = ", ".join(TASK_COLUMNS)
"""The same as SQL."""

GET = f"SELECT {TASK} FROM retry_schedule WHERE id = ?"  # noqa: S608

_PARAMS, _PAYLOAD, _IDEMPOTENT, _CANCEL, _CODE = (
    TASK_COLUMNS.index(name)
    for name in ("params", "payload", "idempotent", "cancel_requested", "last_status_code")
)

TASK_WITHOUT_PAYLOAD = ", ".join("NULL" if name == "payload" else name for name in TASK_COLUMNS)
"""For lists: a thousand payloads of a quarter of a megabyte each are not wanted in memory."""


def task_of(row: Sequence[Any]) -> Task:
    """The task of a row with the columns of `TASK`."""
    values = list(row)
    params = values[_PARAMS]
    values[_PARAMS] = {} if params == "{}" else json.loads(params)
    values[_IDEMPOTENT] = bool(values[_IDEMPOTENT])
    values[_CANCEL] = bool(values[_CANCEL])
    values[_CODE] = code_of(values[_CODE])
    return Task(*values)


def get(db: Connection, task_id: int) -> Task:
    """One task, on either connection. Raises NotFound."""
    row = db.one(GET, (task_id,))
    if row is None:
        raise NotFound(f"there is no task {task_id}")
    return task_of(row)


def attempt_of(row: Sequence[Any]) -> Attempt:
    """The attempt of a row with the columns of an Attempt, in its order."""
    attempt, started_at, duration_ms, code, error, delay, why = row
    return Attempt(attempt, started_at, duration_ms, code_of(code), error, delay, why)


def code_of(text: str | None) -> StatusCode:
    """A stored status code: a number again where it is one."""
    return int(text) if text is not None and text.isdecimal() else text


def code_text(code: StatusCode) -> str | None:
    """A status code as it is stored."""
    return None if code is None else str(code)


def plain(text: str | None) -> str | None:
    """`text` without what UTF-8 cannot hold: lone surrogates, from bytes that were no text."""
    if text is None or text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


def json_text(value: Mapping[str, Any]) -> str:
    """`value` as it is stored. Raises TypeError or ValueError for what JSON cannot hold."""
    if not value:
        return "{}"
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates survive as escapes
        text = json.dumps(value, separators=(",", ":"))
    return text


def same_json(stored: str, value: Mapping[str, Any]) -> bool:
    """True where `value` is what is stored, whatever the order of its keys; 1 is not true."""
    return json.dumps(json.loads(stored), sort_keys=True) == json.dumps(value, sort_keys=True)
