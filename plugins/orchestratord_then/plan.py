"""From an answer to the calls that follow from it, worked out step by step."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from orchestratord import (
    Config,
    Endpoint,
    Explanation,
    InvalidParams,
    NewTask,
    Outcome,
    Task,
    check_params,
)
from orchestratord_then.answer import ITEM, Answer, Unreadable
from orchestratord_then.declaration import THEN, Then

MAX_TASKS = 10_000
"""Calls that one answer may cause; as many as are taken in one batch."""
MAX_BYTES = 16 * 1024 * 1024
"""Of all their parameters together, as JSON."""
PATIENCE = 5.0
"""Seconds that working it out may take, and at most half of `plugins.timeout`."""

PHASE = "on_success"

_END = object()
_NO_ITEM = object()


class Impossible(Exception):
    """What is to follow cannot be worked out; the message says what is wrong and where."""


class Plan:
    """The tasks that follow from one answer.

    Args:
        outcome: of the attempt, a success.
        task: the call.
        endpoint: with its `then`.
        config: the configuration in force.
    """

    def __init__(self, outcome: Outcome, task: Task, endpoint: Endpoint, config: Config) -> None:
        self.tasks: list[NewTask] = []
        """What was worked out so far."""
        self.reasons: list[tuple[int, str, Sequence[NewTask]]] = []
        """Of each entry of `then` that was worked out: its index, in words why, and its tasks."""
        self.patience = min(PATIENCE, config.daemon.plugins.timeout / 2)
        """Seconds that it may take."""
        self._task = task
        self._entries = endpoint[THEN]
        self._config = config
        self._answer = Answer(outcome, task, config.redactor)
        self._bytes = 0
        self._steps = self._work()

    def is_of(self, task: Task) -> bool:
        """Whether it was made of this attempt of this task."""
        return (task.id, task.attempts) == (self._task.id, self._task.attempts)

    def advance(self, steps: int) -> bool:
        """Go on for so many steps; True where it is complete. Raises Impossible."""
        return any(next(self._steps, _END) is _END for _ in range(steps))

    # -- within --------------------------------------------------------------------------------

    def _work(self) -> Iterator[None]:
        for index, entry in enumerate(self._entries):
            first = len(self.tasks)
            key = f"then.{index}"
            try:
                why = yield from self._entry(entry, key)
            except Unreadable as error:
                raise Impossible(f"{key}: {error}") from None
            self.reasons.append((index, why, self.tasks[first:]))

    def _entry(self, entry: Then, key: str) -> Generator[None, None, str]:
        """The tasks of one entry; returns in words why these. A step is an item of `each`."""
        when = entry.when
        once = when is None or ITEM not in when.names
        if when is not None and once and not self._holds(when, key, _NO_ITEM):
            return f"`when` is not true: {when.source}"
        said = "" if when is None else f"`when` is true: {when.source}"
        if entry.each is None:
            self._add(entry, key, _NO_ITEM)
            yield
            return said or "it follows each success"
        items = self._find(entry.each, f"{key}.each", _NO_ITEM)
        if not isinstance(items, list):
            raise Impossible(f"{key}.each: {entry.each.source} is {_kind(items)}, and not a list")
        if not items:
            return f"{entry.each.source} is empty"
        added = 0
        for number, item in enumerate(items):
            place = f"{key}, item {number}"
            if once or (when is not None and self._holds(when, place, item)):
                self._add(entry, place, item)
                added += 1
            yield
        if added == len(items):
            return f"each of {len(items)} in {entry.each.source}"
        return f"{added} of {len(items)} in {entry.each.source}, by `when`: {when and when.source}"

    def _add(self, entry: Then, place: str, item: Any) -> None:
        target = self._config.endpoints.get(entry.call)
        if target is None:
            raise Impossible(f"{place}: there is no endpoint {entry.call}")
        depth = self._task.depth + 1
        if entry.limit is not None and depth >= entry.limit:
            raise Impossible(
                f"{place}: {entry.call} would be call {depth + 1} of a chain, and limit is "
                f"{entry.limit}"
            )
        given: dict[str, Any] = {}
        for name, value in entry.params.items():
            found = value.constant
            if value.expression is not None:
                found = self._find(value.expression, f"{place}: params.{name}", item)
            if found is not None:
                given[name] = found
        try:
            params = check_params(target, given)
        except InvalidParams as error:
            wrong = "; ".join(f"params.{name}: {why}" for name, why in error.problems.items())
            raise Impossible(f"{place}: {entry.call}: {wrong}") from None
        self._measure(params, place)
        self.tasks.append(
            NewTask(
                "call",
                entry.call,
                params,
                parent_id=self._task.id,
                max_attempts=target.retry.max_attempts,
                depth=depth,
            )
        )

    def _measure(self, params: Mapping[str, Any], place: str) -> None:
        """Raise Impossible for what must not be stored, or is too much."""
        if self._config.redactor.value(params) != params:
            raise Impossible(
                f"{place}: the parameters would hold a secret of this configuration, and "
                "parameters are stored"
            )
        if len(self.tasks) == MAX_TASKS:
            raise Impossible(f"{place}: more than {MAX_TASKS} calls would follow from one answer")
        self._bytes += len(json.dumps(params))
        if self._bytes > MAX_BYTES:
            raise Impossible(
                f"{place}: the parameters of what follows from one answer would have more than "
                f"{MAX_BYTES >> 20} MiB"
            )

    def _find(self, expression: Any, place: str, item: Any) -> Any:
        return self._over(expression.search, expression, place, item)

    def _holds(self, expression: Any, place: str, item: Any) -> bool:
        return bool(self._over(expression.holds, expression, f"{place}: when", item))

    def _over(self, look: Any, expression: Any, place: str, item: Any) -> Any:
        document = self._answer.document(expression.names)
        if item is not _NO_ITEM:
            document = {**document, ITEM: item}
        try:
            return look(document)
        except ValueError as error:
            raise Impossible(f"{place}: {error}") from None


def explanations(
    phase: str, outcome: Outcome | None, task: Task, endpoint: Endpoint, config: Config
) -> list[Explanation]:
    """What each entry of `then` makes of this phase, and why."""
    entries = endpoint[THEN]
    calls = [entry.call for entry in entries]
    names = [
        call if calls.count(call) == 1 else f"{call} (then.{index})"
        for index, call in enumerate(calls)
    ]
    if phase != PHASE or outcome is None:
        why = f"its phase is {PHASE}"
        return [Explanation("call", name, PHASE, False, why) for name in names]
    plan = Plan(outcome, task, endpoint, config)
    failed = None
    try:
        while not plan.advance(MAX_TASKS):
            pass
    except Impossible as error:
        failed = str(error)
    found: list[Explanation] = []
    for index, why, tasks in plan.reasons if failed is None else ():
        found += [Explanation("call", names[index], PHASE, True, why, new) for new in tasks]
        if not tasks:
            found.append(Explanation("call", names[index], PHASE, False, why))
    if failed is not None:
        found += [Explanation("call", name, PHASE, False, failed) for name in names]
    return found


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return (
        "a mapping"
        if isinstance(value, dict)
        else "a text"
        if isinstance(value, str)
        else ("a number")
    )
