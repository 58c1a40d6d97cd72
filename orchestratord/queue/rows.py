"""Rows to objects and back."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from pydantic_core import from_json, to_json

from orchestratord.model.partition_turn import PartitionTurn
from orchestratord.model.task import Attempt, Task, TaskExcerpt, UnreadableParams, made
from orchestratord.queue.connection import Connection
from orchestratord.values.json_body import SHORT_TEXT
from orchestratord.values.status_set import StatusCode

_FIELDS = tuple(field.name for field in fields(Task))
_TURN_FROM = len(_FIELDS) - 2
TASK_COLUMNS = (*_FIELDS[:_TURN_FROM], *PartitionTurn._fields)
"""The columns of `retry_schedule` that make a Task, in the order of its fields, of which its turn
is the last, after what `_task_of` finds out."""

TASK = ", ".join(TASK_COLUMNS)
"""These columns as SQL."""

_PARAMS, _PAYLOAD, _ERROR, _IDEMPOTENT, _CANCEL, _CODE, _ALONE = map(
    TASK_COLUMNS.index,
    "params payload last_error idempotent cancel_requested last_status_code alone".split(),
)

LISTED = 2_000
"""Characters of its parameters, as JSON, that a task has in a list."""

_IN_LIST = {"payload": "NULL", "params": f"substr(params, 1, {LISTED + 1})"}
TASK_IN_LIST = ", ".join(_IN_LIST.get(name, name) for name in TASK_COLUMNS)
"""For lists: a thousand payloads of a quarter of a megabyte each are not wanted in memory, nor so
large parameters."""


_PAGE = 200
"""Tasks whose payloads are read at once."""

# What is no text, as others may have written it, is none for JSON either.
_IN_PAGE = {"payload": "length(CAST(payload AS BLOB))", "params": "CAST(params AS TEXT)"}

# One row, and not one for each task: each row that is fetched gives the interpreter up and has to
# wait until it gets it back. Payloads are kept out of the JSON, which would have to escape them.
PAGE_OF_TASKS = f"""
SELECT json_group_array(json_array(
    {", ".join(_IN_PAGE.get(name, name) for name in TASK_COLUMNS[:_TURN_FROM])}
)), CAST(group_concat(payload, '') AS BLOB), count(partition)
FROM retry_schedule WHERE id IN (SELECT value FROM json_each(?))
"""  # noqa: S608

# Of those that have a partition, where there are some.
PAGE_OF_TURNS = f"""
SELECT json_group_array(json_array(id, {", ".join(PartitionTurn._fields)}))
FROM retry_schedule WHERE id IN (SELECT value FROM json_each(?)) AND partition IS NOT NULL
"""  # noqa: S608


def task_of(row: Sequence[Any], at: int = 0) -> Task:
    """The task of a row with the columns of `TASK`, which begin at `at`."""
    end = at + _TURN_FROM
    turn = None if row[end] is None else PartitionTurn(*row[end:])
    return _task_of(list(row[at:end]), turn)


def _task_of(values: list[Any], turn: PartitionTurn | None) -> Task:
    """The task of such a row, without its partition's columns."""
    text, maybe_large = values[_PARAMS], False
    if text == "{}":
        values[_PARAMS] = {}
    else:
        values[_PARAMS] = params = params_of(text)
        maybe_large = bool(params) and len(text) > SHORT_TEXT
    values[_IDEMPOTENT] = bool(values[_IDEMPOTENT])
    values[_CANCEL] = bool(values[_CANCEL])
    values[_ALONE] = bool(values[_ALONE])
    if values[_PAYLOAD] is not None:
        values[_PAYLOAD] = worded(values[_PAYLOAD])
    if values[_CODE] is not None or values[_ERROR] is not None:  # it was tried before
        values[_CODE], values[_ERROR] = code_of(values[_CODE]), worded(values[_ERROR])
    values += maybe_large, turn
    return made(values)


def params_of(stored: Any) -> dict[str, Any]:
    """The parameters of a row. One that was written by others and cannot be read harms no list and
    no other task: they are `UnreadableParams` then."""
    try:
        found = _decode(stored)
    except (TypeError, ValueError, RecursionError) as error:
        return UnreadableParams(f"its params are not JSON: {error}")
    if not stored.isascii() and NO_TEXT in stored:  # it would be sent changed
        return UnreadableParams("its params are not UTF-8")
    if isinstance(found, dict):
        return found
    return UnreadableParams("its params are no JSON object")


def response_of(stored: Any) -> dict[str, Any] | None:
    """The last answer of a row, with what `response_text` is not given where it says nothing; one
    that cannot be read is a body with what is stored."""
    if stored is None:
        return None
    if isinstance(stored, str):
        stored = stored.replace(NO_TEXT, _REPLACED)
    try:
        found = _decode(stored)
    except (TypeError, ValueError, RecursionError) as error:
        found = f"its response is not JSON: {error}"
    if isinstance(found, dict):
        if isinstance(found.get("headers"), list):  # as the engine writes it
            found.setdefault("body", "")
            found.setdefault("truncated", False)
        return found
    why = found if isinstance(found, str) else "its response is no JSON object"
    return {"status_code": None, "headers": {}, "body": str(stored), "invalid": why}


def listed_task_of(row: Sequence[Any]) -> Task:
    """The task of a row with the columns of `TASK_IN_LIST`."""
    text = row[_PARAMS]
    if not isinstance(text, str) or len(text) <= LISTED or NO_TEXT in text:
        return task_of(row)
    values = list(row)
    values[_PARAMS] = "{}"
    task = task_of(values)
    given = {name: getattr(task, name) for name in _FIELDS}
    return TaskExcerpt(**given | {"params": beginning_of(text[:LISTED])})


_DECODER = json.JSONDecoder()
_ESCAPE = 12
"""Characters of the longest escape in a JSON text, half of which may stand at its end."""


def beginning_of(text: str) -> dict[str, Any]:
    """What the beginning of a mapping's JSON, as `json_text` writes it, says: the first values, and
    how the next one begins."""
    found: dict[str, Any] = {}
    place, name = 0, None
    try:
        while place < len(text):
            name = None
            name, place = _DECODER.raw_decode(text, place + 1)
            value, end = _DECODER.raw_decode(text, place + 1)
            if end < len(text):  # else it may go on
                found[name] = value
                name = None
            place = end
    except ValueError:
        pass
    if isinstance(name, str):
        found[name] = _text_begun(text[place + 1 :]) + "…"
    return found


def _text_begun(text: str) -> str:
    """The characters of a JSON string that does not end; empty for anything else."""
    for cut in range(_ESCAPE + 1 if text.startswith('"') else 0):
        try:
            whole = json.loads(f'{text[: len(text) - cut]}"')
        except ValueError:
            continue
        return str(whole)
    return ""


def tasks_of(db: Connection, ids: Sequence[int]) -> list[Task]:
    """These tasks of SQLite, with their payloads, in this order; those that there are not are left
    out."""
    found: dict[int, Task] = {}
    for start in range(0, len(ids), _PAGE):
        page = json.dumps(ids[start : start + _PAGE])
        [(text, payloads, partitioned)] = db.all(PAGE_OF_TASKS, (page,))
        turns: dict[int, PartitionTurn] = {}
        if partitioned:
            [(text_of_turns,)] = db.all(PAGE_OF_TURNS, (page,))
            turns = {id_: PartitionTurn(*turn) for id_, *turn in json.loads(text_of_turns)}
        at = 0
        for values in _decode(text):
            size = values[_PAYLOAD]
            if size is not None:
                values[_PAYLOAD] = payloads[at : at + size].decode(errors="replace")
                at += size
            found[values[0]] = _task_of(values, turns.get(values[0]))
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

NO_TEXT = f"{_MARK}2"
"""What is read for bytes that are not UTF-8, as others may have written them: no row that has some
keeps the rows beside it from being read."""

_REPLACED = "\ufffd"


def plain(text: str | None) -> str | None:
    """`text` as it is stored: without what UTF-8 cannot hold (lone surrogates, from bytes that were
    no text), and with what PostgreSQL cannot (NUL) in other words, which `worded` undoes."""
    if text is None:
        return None
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8").replace(_MARK, f"{_MARK}1")
    return text.replace("\0", f"{_MARK}0") if "\0" in text else text


def worded(text: str | None) -> str | None:
    """What `plain` was given, but for the surrogates, and for what is no text at all."""
    if text is None or text.isascii() or _MARK not in text:
        return text
    text = text.replace(NO_TEXT, _REPLACED)
    return text.replace(f"{_MARK}0", "\0").replace(f"{_MARK}1", _MARK)


_ALIKE, _TEXT = frozenset({str, int, bool, type(None)}), frozenset({str})
"""Types that pydantic-core writes as Python does; a float it would write in other words."""
_DIGITS = sys.int_info.default_max_str_digits
"""Those of an integer that Python writes, and reads; pydantic-core writes more."""


def json_text(value: Mapping[str, Any]) -> str:
    """`value` as it is stored. Raises TypeError, ValueError or
    RecursionError for what JSON cannot hold."""
    if not value:
        return "{}"
    if _ALIKE.issuperset(map(type, value.values())) and _TEXT.issuperset(map(type, value)):
        try:
            text = to_json(value).decode()  # the same, of a long text in a third of the time
            if len(text) <= _DIGITS or int not in map(type, value.values()):
                return text
        except ValueError:
            pass  # lone surrogates
    text = _encode(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # lone surrogates survive as escapes
            text = json.dumps(value, separators=(",", ":"))
    return text


def response_text(record: Mapping[str, Any]) -> str:
    """An answer as it is stored: what `json_text` makes of it, in a third of the time. It holds
    nothing but texts, numbers and lists of them; and neither an empty body, nor that it was not
    truncated, since most rows would say so: `response_of` does."""
    try:
        return to_json(record).decode()
    except ValueError:  # lone surrogates
        return json_text(record)


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def same_json(stored: str, value: Mapping[str, Any]) -> bool:
    """True where `value` is what is stored, whatever the order of its keys; 1 is not true."""
    found = params_of(stored)
    if isinstance(found, UnreadableParams):
        return False
    return json.dumps(found, sort_keys=True) == json.dumps(value, sort_keys=True)


def json_digest(value: Mapping[str, Any]) -> str:
    """A digest, equal for what `same_json` calls equal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON value")


_strict: Any = json.JSONDecoder(parse_constant=_refuse)


def _decode(text: str) -> Any:
    """What a JSON text says. Raises TypeError, ValueError or RecursionError."""
    if type(text) is str and text.isascii():  # others it would have to encode first
        try:
            return from_json(text, allow_inf_nan=False, cache_strings="keys")  # a third of the time
        except ValueError:
            pass  # or halves of surrogate pairs, or nesting, that it does not take
    try:
        found, end = _strict.scan_once(text, 0)  # `decode` takes 0.4 µs more, to look for spaces
    except StopIteration:
        end = -1
    return found if end == len(text) else _strict.decode(text)
