"""Keeping a hook's fault its plugin's own, and checking what hooks return."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import math
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import compress, islice
from operator import attrgetter
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import httpx

from orchestratord.errors import Reject, Snooze
from orchestratord.model.http_message import Response
from orchestratord.model.outcome import Outcome
from orchestratord.model.recurring_rows import RecurringRows
from orchestratord.model.task import (
    MOST_MEMBERS,
    BatchMember,
    Delete,
    Effect,
    Kind,
    NewChore,
    NewTask,
    RowEffect,
    RowKind,
    Table,
    Upsert,
    row_of,
)
from orchestratord.plugin.background_service import Service, Where
from orchestratord.plugin.long_work import seconds_queued
from orchestratord.plugin.registry import Registry
from orchestratord.values import world
from orchestratord.values.durations import MAX_DURATION
from orchestratord.values.json_body import is_larger

log = logging.getLogger("orchestratord.plugins")


PLAIN_ANSWERS = frozenset({type(None), list, tuple, Outcome, RecurringRows})
"""The types of what is neither awaited nor listed."""


MAX_RETURNED = 100_000
"""Items that a hook may return; as many as an answer's `then` may become. So many new tasks are
written in slices."""


def is_ctrl_c(error: BaseException) -> bool:
    """True for a KeyboardInterrupt that the user of a command caused.

    A daemon has handlers of its own for its signals, so that there the plugin raised it.
    """
    if not isinstance(error, KeyboardInterrupt):
        return False
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler


def listed(items: Iterable[Any]) -> list[Any]:
    """What a hook returned, as a list. Raises HookFault where it does not end, or is too much."""
    found = list(islice(items, MAX_RETURNED + 1))
    if len(found) > MAX_RETURNED:
        raise HookFault(f"returned more than {MAX_RETURNED:,} items")
    return found


_LOOK_AGAIN = 0.05
"""Seconds, at least, until it is looked again whether a hook has had its time."""


class HookFault(Exception):
    """A hook did something that it may not; the message says what."""


class HookTimeout(HookFault):
    """A hook has had its time."""


async def call(
    function: Callable[..., Any],
    arguments: list[Any],
    timeout: float,  # noqa: ASYNC109
) -> Any:
    """Call a hook, await it if it is awaitable, for at most `timeout` seconds.

    Raises Reject and Snooze where the hook does, and HookFault for everything else that it raises,
    SystemExit and a cancellation of its own included.
    """
    running = asyncio.current_task()
    before = running.cancelling() if running else 0
    result, raised = ask(function, arguments)
    return await settle(result, raised, timeout, running, before)


def ask(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[Any, BaseException | None]:
    """The first half of `call`: what the function returned, or what it raised."""
    try:
        result = function(*arguments)
        # The usual answers need no closer look.
        return (result if type(result) in PLAIN_ANSWERS else _listed(result)), None
    except BaseException as error:  # SystemExit and CancelledError are the plugin's here
        if is_ctrl_c(error):
            raise
        return None, error


async def settle(
    result: Any,
    raised: BaseException | None,
    timeout: float,  # noqa: ASYNC109
    running: asyncio.Task[Any] | None,
    before: int,
) -> Any:
    """The second half of `call`, which can be left out for a plain answer without a cancellation.

    `before` is how often `running` was cancelled before the function was asked.
    """
    if running is not None and running.cancelling() > before:
        await _undo_cancel(running, before)
    if raised is not None:
        raise _refusal_or_fault(raised)
    if type(result) in PLAIN_ANSWERS or not inspect.isawaitable(result):
        return result
    return await _wait(result, timeout)


def words(error: BaseException) -> str:
    """An exception in one line, whatever its own `__str__` may do."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def _refusal_or_fault(raised: BaseException) -> BaseException:
    if isinstance(raised, Reject | Snooze | HookFault):
        return raised
    fault = HookFault(f"raised {words(raised)}")
    fault.__cause__ = raised
    return fault


def _listed(result: Any) -> Any:
    """The items of a generator: what runs only when they are asked for is the hook's, too."""
    if isinstance(result, Iterator) and not inspect.isawaitable(result):
        return listed(result)
    return result


async def _wait(awaitable: Any, timeout: float) -> Any:  # noqa: ASYNC109
    # A task of its own: what cancels itself or hangs cannot take the attempt with it.
    task = asyncio.ensure_future(contained(awaitable))
    end = world.monotonic() + timeout
    try:
        done, _ = await asyncio.wait((task,), timeout=timeout)
        # While others are before what it does off the loop, its own time stands still.
        while not done and (left := end + (seconds_queued(task) or 0.0) - world.monotonic()) > 0:
            done, _ = await asyncio.wait((task,), timeout=max(left, _LOOK_AGAIN))
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.cancel()
        raise HookTimeout(f"took longer than plugins.timeout ({timeout:g}s)")
    if task.cancelled():
        raise HookFault("cancelled itself")
    raised, result = task.result()
    if raised is not None:
        raise _refusal_or_fault(raised)
    return result


async def contained(awaitable: Any) -> tuple[BaseException | None, Any]:
    """Await, and hand a raised exception back as a value: a SystemExit would end the loop."""
    try:
        return None, _listed(await awaitable)
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return error, None


async def _undo_cancel(running: asyncio.Task[Any], before: int) -> None:
    """Take back a cancel that a plain hook called on the task that it runs in."""
    while running.cancelling() > before:
        running.uncancel()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        log.debug("a hook cancelled the task that it ran in; taken back")


def check_decision(hook: str, result: Any, before: Any) -> None:
    """Raise HookFault where a deciding hook returned something that it may not.

    `before` is what it was given to decide about.
    """
    if hook.startswith("after_"):
        check_outcome(result)
    elif hook == "before_request" and not isinstance(result, httpx.Request):
        raise HookFault(f"returned {type(result).__name__}, not an httpx.Request or None")
    elif hook == "before_execute" and not isinstance(result, type(before)):
        raise HookFault(f"returned {type(result).__name__}, not a {type(before).__name__} or None")


def check_outcome(outcome: object) -> None:
    """Raise HookFault for what is no outcome, and for one that cannot be written down or counted
    with afterwards, when it could not be told any more whose it is."""
    if not isinstance(outcome, Outcome):
        raise HookFault(f"returned {type(outcome).__name__}, not an Outcome")
    status_code = outcome.status_code
    if (
        type(outcome.response) is Response
        and type(status_code) is int
        and 0 <= status_code < 1000
        and outcome.verdict in _VERDICTS
        and outcome.error is None
        and outcome.retry_after is None
        and outcome.final_reason is None
        and outcome.delay is None
    ):
        return  # a success as the client makes it: nearly all of them
    for name, allowed in _OUTCOME.items():
        value = getattr(outcome, name)
        if type(value) not in allowed and not isinstance(value, allowed):
            raise HookFault(f"returned an Outcome whose {name} is a {type(value).__name__}")
    if outcome.verdict not in _VERDICTS:
        raise HookFault(f"returned an Outcome whose verdict is {outcome.verdict!r}")
    code = "" if status_code is None else str(status_code)
    if len(code) > _LONGEST_CODE or not (code.isascii() and code.isprintable()):
        raise HookFault("returned an Outcome whose status_code is none")
    try:
        _ = outcome.response.content if outcome.response is not None else b""
    except Exception as error:  # a stream that was not read
        raise HookFault(f"returned a response that cannot be read: {error}") from error
    if outcome.final_reason is not None and len(outcome.final_reason) > _LONGEST_REASON:
        raise HookFault(f"returned an Outcome whose reason is longer than {_LONGEST_REASON}")
    if outcome.delay is not None and (math.isnan(outcome.delay) or outcome.delay < 0):
        raise HookFault(f"returned an Outcome whose delay is {outcome.delay!r}")


_NOTHING = type(None)
_VERDICTS = ("success", "retry", "failure")
# Tuples: isinstance takes five times as long for a union.
_OUTCOME: Mapping[str, tuple[type, ...]] = {
    "verdict": (str,),
    "status_code": (int, str, _NOTHING),
    "response": (Response, httpx.Response, _NOTHING),
    "error": (str, _NOTHING),
    "retry_after": (str, _NOTHING),
    "final_reason": (str, _NOTHING),
    "delay": (int, float, _NOTHING),
}
_LONGEST_REASON = 100
"""Characters of a reason; it is one word in a column of the table."""
_LONGEST_CODE = 32
"""Characters of a status code."""


def valid_refusal(refusal: Reject | Snooze) -> bool:
    """True where a snooze has a delay that can be waited for, or a time, and not both."""
    if isinstance(refusal, Reject):
        return True
    if refusal.until is None:
        return _is_delay(refusal.delay)
    until = refusal.until
    if refusal.delay is not None or isinstance(until, bool) or not isinstance(until, int | float):
        return False
    return _is_delay(max(until / 1000 - world.time(), 0.0))


_EFFECTS = tuple(kind.__name__ for kind in get_args(Effect))


def check_effects(
    result: Any, registry: Registry, plugin: str, max_params: int = 256 << 10
) -> list[Effect]:
    """What a telling hook returned, as a list; HookFault where it is something else, or too large.

    `max_params`: bytes that the parameters of a call may have as JSON.
    """
    if result is None:
        return []
    effects: list[Effect] = _effects_of(result)
    known, room = registry.row_kinds[plugin], _LARGEST_SUM
    for effect in effects:
        if type(effect) is Upsert:  # as nearly all
            row, kind = effect._checked = row_of(effect)
            are_texts = known.get(kind)
            if are_texts is None:
                are_texts = _check_kind(kind, registry, plugin)
            texts = "".join(compress(row, are_texts))
            if texts.isascii() and len(texts) <= _LARGEST_TEXT:
                room -= len(texts)
            else:
                room -= _size_of_texts(effect, texts, row, kind)
        else:
            room -= _size_of_other(effect, registry, plugin, max_params)
        if room < 0:
            raise HookFault(_TOO_LARGE)
    return effects


_MOST_RECURRING = 100
"""Rows that are written with each success of a key."""


def check_recurring(recurring: RecurringRows, registry: Registry, plugin: str) -> None:
    """Raise HookFault where these may not be written, or not several times at once."""
    if type(recurring.until) is not int:
        raise HookFault(f"returned RecurringRows until {recurring.until!r}, no whole number")
    rows = recurring.upserts(0)
    if len(rows) > _MOST_RECURRING:
        raise HookFault(f"returned RecurringRows with more than {_MOST_RECURRING} rows")
    for row in rows:
        if not {int, float}.issuperset(map(type, row.add.values())):
            raise HookFault(f"returned RecurringRows that add what is no number to {row.table}")
        if not row.add.keys().isdisjoint(row.values):
            raise HookFault(f"returned RecurringRows that set and add one column of {row.table}")
    check_effects(rows, registry, plugin)


def _size_of_other(effect: Effect, registry: Registry, plugin: str, max_params: int) -> int:
    """The bytes of what is no plain upsert. Raises HookFault for what may not be returned."""
    if isinstance(effect, NewTask):
        _check_task(effect)
    elif isinstance(effect, Upsert | Delete):
        kind = row_of(effect)[1] if isinstance(effect, Upsert) else _deleted(effect)[1]
        _check_kind(kind, registry, plugin)
    elif isinstance(effect, NewChore):
        if effect.kind not in registry.chores:
            raise HookFault(f"returned a NewChore of a kind that no plugin does: {effect.kind!r}")
    elif not isinstance(effect, BatchMember):
        raise HookFault(
            f"returned a {type(effect).__name__} among its effects; "
            f"allowed are {', '.join(_EFFECTS[:-1])} and {_EFFECTS[-1]}"
        )
    return _size_of(effect, max_params)


def _effects_of(result: Any) -> list[Any]:
    if type(result) is list and len(result) <= MAX_RETURNED:
        return result.copy()
    if isinstance(result, str | bytes | Mapping) or not isinstance(result, Iterable):
        raise HookFault(f"returned {type(result).__name__}, not a list of {', '.join(_EFFECTS)}")
    try:
        return listed(result)
    except BaseException as error:
        if isinstance(error, HookFault) or is_ctrl_c(error):
            raise
        raise HookFault(f"raised {words(error)}") from error


_LONGEST_NAME = 512
"""Characters of a name in a task."""
_LARGEST_TEXT = 1 << 20
"""Bytes of a payload, and of a text in a table of a plugin's own."""
_LARGEST_PARAMS = 16 << 20
"""Bytes of what a delivery is given of its call's parameters: the most that `max_params` may be."""
_LARGEST_SUM = 64 << 20
"""Bytes of all payloads, texts and calls' parameters that a hook returns together."""
_TOO_LARGE = f"returned more than {_LARGEST_SUM >> 20} MiB"
_NAMES = ("kind", "endpoint_id", "webhook", "phase", "unique_key")
_names_of = attrgetter(*_NAMES)


def check_sizes(effects: Iterable[Effect], max_params: int) -> None:
    """Raise HookFault where effects are larger than what may be stored, or a `BatchMember` is none;
    see `check_effects`."""
    room = _LARGEST_SUM
    for effect in effects:
        room -= _size_of(effect, max_params)
        if room < 0:
            raise HookFault(_TOO_LARGE)


def _size_of(effect: Effect, max_params: int) -> int:
    if isinstance(effect, NewTask):
        try:
            return _size_of_task(effect, max_params)
        except (TypeError, ValueError, RecursionError) as error:
            raise HookFault(f"returned a NewTask whose params are not JSON: {error}") from error
    if isinstance(effect, BatchMember):
        _check_member(effect)
        return _size(effect.detail, "the detail of a BatchMember") if effect.detail else 0
    if isinstance(effect, NewChore):
        return _size(effect.data, "the data of a NewChore", _LARGEST_PARAMS)
    if isinstance(effect, Upsert):
        row, kind = effect._checked = row_of(effect)
    else:
        row, kind = _deleted(effect)
    texts = "".join(value for value in row if isinstance(value, str))
    return _size_of_texts(effect, texts, row, kind)


def _size_of_task(task: NewTask, max_params: int) -> int:
    names = _names_of(task)
    if len("".join(filter(None, names))) > _LONGEST_NAME:  # all of them together
        for name, value in zip(_NAMES, names, strict=True):
            if value is not None and len(value) > _LONGEST_NAME:
                raise HookFault(f"returned a NewTask whose {name} is longer than {_LONGEST_NAME}")
    most = max_params if task.kind == Kind.CALL else _LARGEST_PARAMS
    for given in (task.params, task.asked):
        if given and is_larger(given, most):
            said = "max_params" if task.kind == Kind.CALL else "any may be"
            raise HookFault(
                f"returned a NewTask whose params are larger, as JSON, than {said}: {most} bytes"
            )
    size = 0  # of a delivery: its parameters are its call's, and the same for all of them
    if task.params and task.kind == Kind.CALL:
        size = len(json.dumps(task.params, allow_nan=False))
    return size + (_size(task.payload, "the payload of a NewTask") if task.payload else 0)


def _size_of_texts(effect: RowEffect, texts: str, row: tuple[Any, ...], kind: RowKind) -> int:
    """The bytes of the texts of a row, which are put together in `texts`."""
    size = len(texts.encode("utf-8", "replace"))
    if size > _LARGEST_TEXT:  # all of them together
        _, key, values, add, _ = kind
        for name, value in zip((*key, *values, *add), row, strict=True):
            if isinstance(value, str):
                _size(value, f"a text in {effect.table}.{name}")
    return size


def _size(text: str, what: str, most: int = _LARGEST_TEXT) -> int:
    size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    if size > most:
        raise HookFault(f"returned {what} of more than {most >> 20} MiB")
    return size


def _check_task(task: NewTask) -> None:
    types = tuple(map(type, _values_of(task)))
    if types not in _types_in_order:
        for (name, allowed), type_ in zip(_TASK.items(), types, strict=True):
            if type_ not in allowed and (not issubclass(type_, allowed) or type_ is bool):
                raise HookFault(f"returned a NewTask whose {name} is a {type_.__name__}")
        if len(_types_in_order) >= _MOST_KINDS:
            _types_in_order.clear()
        _types_in_order.add(types)
    if task.kind not in _KINDS or bool(task.webhook) != (task.kind == Kind.WEBHOOK):
        raise HookFault(
            f"returned a NewTask of kind {task.kind!r} and webhook {task.webhook!r}; "
            "a call has none, the delivery of a webhook has one"
        )
    if not _is_delay(task.delay):
        raise HookFault(f"returned a NewTask whose delay is {task.delay!r}")
    if task.at is not None and not _is_delay(max(task.at / 1000 - world.time(), 0.0)):
        raise HookFault(f"returned a NewTask whose at is {task.at!r}")


_KINDS = frozenset(Kind)


def _types(hint: Any) -> tuple[type, ...]:
    """The classes whose instances an annotation allows; where it says float, int is meant too."""
    hints = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    found = tuple(get_origin(one) or one for one in hints)
    return (*found, int) if float in found else found


_TASK = {name: _types(hint) for name, hint in get_type_hints(NewTask).items()}
_values_of = attrgetter(*_TASK)
_types_in_order: set[tuple[type, ...]] = set()
"""The types of the fields of tasks that were found in order: nearly all tasks have the same."""
_MEMBER = {name: _types(hint) for name, hint in get_type_hints(BatchMember).items()}


def _check_member(member: BatchMember) -> None:
    for name, allowed in _MEMBER.items():
        value = getattr(member, name)
        if not isinstance(value, allowed) or isinstance(value, bool):
            raise HookFault(f"returned a BatchMember whose {name} is a {type(value).__name__}")
        if isinstance(value, str) and name != "detail" and len(value) > _LONGEST_NAME:
            raise HookFault(f"returned a BatchMember whose {name} is longer than {_LONGEST_NAME}")
    if (end := member.ended_by) is not None and not (
        [type(part) for part in end] == [str, int]
        and len(end[0]) <= _LONGEST_NAME
        and abs(end[1]) < 1 << 62
    ):
        raise HookFault("returned a BatchMember whose ended_by is not a text and a time")
    if not _is_delay(member.every) or not 0 < member.most <= MOST_MEMBERS:
        raise HookFault(
            f"returned a BatchMember whose batch closes after {member.every!r} s or with "
            f"{member.most!r} members; at most {MOST_MEMBERS} can be closed at once"
        )


_STORABLE = (str, int, float, _NOTHING)
_MOST_KINDS = 1_000
"""Kinds of rows of a plugin that are known to be in order."""


def _check_kind(kind: RowKind, registry: Registry, plugin: str) -> tuple[bool, ...]:
    """Of each value of a row of this kind, whether it is a text. Raises HookFault where the plugin
    may write none such."""
    name, key, values, add, types = kind
    table: Table | None = registry.tables.get(name)
    if table is None or registry.owners.get(("table", name)) != plugin:
        raise HookFault(f"writes the table {name!r}, which is not its own")
    if set(key) != set(table.key):
        raise HookFault(f"writes {name} with another key than {', '.join(table.key)}")
    for column, type_ in zip((*key, *values, *add), types, strict=True):
        if column not in table.columns:
            raise HookFault(f"writes {name}, which has no column {column}")
        if not issubclass(type_, _STORABLE):
            raise HookFault(f"writes a {type_.__name__} into {name}.{column}")
    known = registry.row_kinds[plugin]
    if len(known) >= _MOST_KINDS:
        known.clear()
    are_texts = known[kind] = tuple(issubclass(one, str) for one in types)
    return are_texts


def _deleted(effect: Delete) -> tuple[tuple[Any, ...], RowKind]:
    """What `row_of` tells of an upsert."""
    row = tuple(effect.key.values())
    return row, (effect.table, tuple(effect.key), (), (), tuple(map(type, row)))


def _is_delay(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value <= MAX_DURATION
    )


def check_service(service: object) -> Service:
    """What a plugin registers as a service. Raises HookFault where it is none."""
    if not isinstance(service, Service):
        raise HookFault(f"returned {service!r}, which is not a Service")
    if not isinstance(service.name, str) or not service.name:
        raise HookFault(f"returned a Service whose name is {service.name!r}")
    if service.where not in get_args(Where):
        raise HookFault(f"returned a Service that runs where={service.where!r}; write one or each")
    if not inspect.iscoroutinefunction(service.run):
        raise HookFault(f"returned a Service {service.name} whose run is no `async def`")
    return service
