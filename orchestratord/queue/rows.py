"""Rows to objects and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from orchestratord.model.task import Attempt, Task
from orchestratord.queue.connection import Connection
from orchestratord.values.status_set import StatusCode

TASK_COLUMNS = tuple(field.name for field in fields(Task))
"""The columns of `retry_schedule` that make a Task, in the order of its fields."""

TASK = ", ".join(TASK_COLUMNS)
"""The same as SQL."""

_PARAMS, _PAYLOAD, _ERROR, _IDEMPOTENT, _CANCEL, _CODE = (
    TASK_COLUMNS.index(name)
    for name in (
        "params", "payload", "last_error", "idempotent", "cancel_requested", "last_status_code",
    )
)  # fmt: skip

# A frozen dataclass looks each field up by its name as it is made; this is half the work.
_FIELDS = tuple(getattr(Task, name).__set__ for name in TASK_COLUMNS)
_new = object.__new__

TASK_WITHOUT_PAYLOAD = ", ".join("NULL" if name == "payload" else name for name in TASK_COLUMNS)
"""For lists: a thousand payloads of a quarter of a megabyte each are not wanted in memory."""


_PAGE = 200
"""Tasks whose payloads are read at once."""

# One row, and not one for each task: each row that is fetched gives the interpreter up and has to
# wait until it gets it back. Payloads are kept out of the JSON, which would have to escape them.
PAGE_OF_TASKS = f"""
SELECT json_group_array(json_array({
    ", ".join(
        "length(CAST(payload AS BLOB))" if name == "payload" else name for name in TASK_COLUMNS
    )
})), CAST(group_concat(payload, '') AS BLOB)
FROM retry_schedule WHERE id IN (SELECT value FROM json_each(?))
"""  # noqa: S608


def task_of(row: Sequence[Any]) -> Task:
    """The task of a row with the columns of `TASK`."""
    values = list(row)
    params = values[_PARAMS]
    values[_PARAMS] = {} if params == "{}" else json.loads(params)
    values[_IDEMPOTENT] = bool(values[_IDEMPOTENT])
    values[_CANCEL] = bool(values[_CANCEL])
    values[_CODE] = code_of(values[_CODE])
    values[_PAYLOAD], values[_ERROR] = worded(values[_PAYLOAD]), worded(values[_ERROR])
    task = _new(Task)
    for put, value in zip(_FIELDS, values, strict=True):
        put(task, value)
    return task


def tasks_of(db: Connection, ids: Sequence[int]) -> list[Task]:
    """These tasks, in this order, with their payloads; those that there are not are left out."""
    found: dict[int, Task] = {}
    for start in range(0, len(ids), _PAGE):
        row = db.one(PAGE_OF_TASKS, (json.dumps(ids[start : start + _PAGE]),))
        assert row is not None
        text, payloads, at = row[0], row[1] or b"", 0
        for values in json.loads(text):
            size = values[_PAYLOAD]
            if size is not None:
                values[_PAYLOAD] = payloads[at : at + size].decode()
                at += size
            found[values[0]] = task_of(values)
    return [found[id_] for id_ in ids if id_ in found]


def attempt_of(row: Sequence[Any]) -> Attempt:
    """The attempt of a row with the columns of an Attempt, in its order."""
    attempt, started_at, duration_ms, code, error, delay, why = row
    why = worded(why) or ""
    return Attempt(attempt, started_at, duration_ms, code_of(code), worded(error), delay, why)


def code_of(text: str | None) -> StatusCode:
    """A stored status code: a number again where it is one."""
    return int(text) if text is not None and text.isdecimal() else text


def code_text(code: StatusCode) -> str | None:
    """A status code as it is stored."""
    return None if code is None else str(code)


_MARK = "\U0010ffff"
"""What no text has a use for."""


def plain(text: str | None) -> str | None:
    """`text` as it is stored: without what UTF-8 cannot hold (lone surrogates, from bytes that were
    no text), and with what PostgreSQL cannot (NUL) in other words, which `worded` undoes."""
    if text is None:
        return None
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8").replace(_MARK, f"{_MARK}1")
    return text.replace("\0", f"{_MARK}0") if "\0" in text else text


def worded(text: str | None) -> str | None:
    """What `plain` was given, but for the surrogates."""
    if text is None or text.isascii() or _MARK not in text:
        return text
    return text.replace(f"{_MARK}0", "\0").replace(f"{_MARK}1", _MARK)


def json_text(value: Mapping[str, Any]) -> str:
    """`value` as it is stored. Raises TypeError, ValueError or
    RecursionError for what JSON cannot hold."""
    if not value:
        return "{}"
    text = _encode(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # lone surrogates survive as escapes
            text = json.dumps(value, separators=(",", ":"))
    return text


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def same_json(stored: str, value: Mapping[str, Any]) -> bool:
    """True where `value` is what is stored, whatever the order of its keys; 1 is not true."""
    return json.dumps(json.loads(stored), sort_keys=True) == json.dumps(value, sort_keys=True)
