"""From an answer to the child tasks that follow from it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import httpx

from orchestratord import (
    Budget,
    Config,
    Endpoint,
    Explanation,
    InvalidParams,
    InvalidPayload,
    NewTask,
    Outcome,
    ParamRules,
    Partition,
    Redactor,
    RunSummary,
    SchemaTooCostly,
    Task,
    TooCostly,
    UnreadableBody,
    check_params,
    free_json,
    header_items,
    hookimpl,
    only_for,
    parse_first_try,
    read_body,
    read_text,
    rfc3339,
    rule_problems,
    within_budget,
)
from orchestratord_then.declaration import THEN, Then

NAMES = frozenset({"status_code", "headers", "body", "text", "params", "task"})
OF_FAILURE = NAMES | {"reason", "error"}
OF_RUN_END = frozenset(
    "status_code params task error run_id end counts failed_endpoints first_errors started_at "
    "ended_at duration_ms".split()
)
"""What expressions can name, by what their entry follows from."""
ITEM = "item"
"""The name that `each` adds."""
WHOLE = "@"
"""All of them together, as `Expression.names` has it."""

MAX_TASKS = 100_000
"""Calls that one answer may cause; as many as a hook may return."""
MAX_SHOWN = 10_000
"""Of these, those that `explain` shows."""
MAX_BYTES = 16 * 1024 * 1024
"""Of all their parameters together, as JSON."""
PLAN_TIMEOUT = 5.0
"""Seconds of computing that working it out may take, and at most half of `plugins.timeout`."""
_PER_TASK = 50
"""Steps of a budget that a child task costs beside its expressions."""
_PER_STEP = 64
"""Characters of its parameters that cost one more."""

SUCCESS, FAILURE, RUN_END = "success", "failure", "run_end"
PHASES_OF = {SUCCESS: "on_success", FAILURE: "on_final_failure", RUN_END: "on_run_end"}
"""What an entry follows from → the phase that is reached then."""

log = logging.getLogger("orchestratord.then")

_NO_ITEM = object()


class UnreadableAnswer(Exception):
    """The answer has no body that could be looked at; the message says why."""


class AnswerDocument:
    """One answer, as expressions see it; what none of them names is not read.

    Args:
        outcome: of the attempt.
        task: the call.
        redactor: knows which headers are secret; these are left out.
        run: where it is the end of a run that is looked at.
    """

    def __init__(
        self, outcome: Outcome, task: Task, redactor: Redactor, run: RunSummary | None = None
    ) -> None:
        self._run = run
        self._outcome = outcome
        self._task = task
        self._redactor = redactor
        self._known: dict[str, Any] = {}

    def document(self, names: frozenset[str]) -> Mapping[str, Any]:
        """All that can be looked at, at least what `names` names.

        Raises UnreadableAnswer where the body is wanted, and is not all there or no JSON.
        """
        if not self._known:
            self._known = {
                "status_code": self._outcome.status_code,
                "params": self._task.params,
                "task": _about(self._task),
            }
            if self._run is not None:
                self._known |= {"run_id": self._run.id, **self._run.details()}
            if self._outcome.verdict != "success" or self._run is not None:
                self._known |= {"reason": self._task.reason, "error": self._outcome.error}
        if self._run is not None:
            return self._known
        if {"headers", WHOLE} & names and "headers" not in self._known:
            self._known["headers"] = self._headers()
        if {"body", WHOLE} & names and "body" not in self._known:
            self._known["body"] = self._body()
        if {"text", WHOLE} & names and "text" not in self._known:
            response = self._outcome.response
            self._known["text"] = read_text(response) if response is not None else ""
        return self._known

    def free(self) -> None:
        """Free what was read, in pieces; nothing is looked at any more."""
        free_json([self._known.pop("body", None)])

    def _body(self) -> Any:
        try:
            return _body(self._outcome.response)
        except UnreadableAnswer:
            if self._outcome.verdict == "success":
                raise
            return None  # a failure has any body, or none

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        response = self._outcome.response
        found = header_items(response) if response is not None else ()
        for name, value in self._redactor.headers(found):
            if value != "***":
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return headers


def _about(task: Task) -> dict[str, Any]:
    slot = rfc3339(task.scheduled_at)
    return {"id": task.id, "attempt": task.attempts, "scheduled_at": slot}


def _body(response: httpx.Response | None) -> Any:
    content = response.content if response is not None else b""
    if response is not None and response.extensions.get("truncated"):
        raise UnreadableAnswer(
            f"the answer was cut after {len(content)} bytes; ask for less at once, or give it a "
            "larger max_response"
        )
    if response is None or not content.strip():
        raise UnreadableAnswer("the answer has no body")
    try:
        return read_body(response)
    except UnreadableBody as error:
        raise UnreadableAnswer(
            f"the body of the answer is not {error.kind}: {error.detail}"
        ) from None


class Impossible(Exception):
    """What is to follow cannot be worked out; the message says what is wrong and where."""


class ChildPlan:
    """The child tasks of one answer.

    Args:
        outcome: of the attempt, a success.
        task: the call.
        endpoint: with its `then`.
        config: the configuration in force.
        budget: what all of it may cost; None for as much as it takes.
        on: what has happened: only the entries that follow from that are worked out. Those of a
            failure, and of the end of a run, are left out one by one where they cannot be.
        run: the run that has ended.
    """

    def __init__(
        self,
        outcome: Outcome,
        task: Task,
        endpoint: Endpoint,
        config: Config,
        budget: Budget | None = None,
        on: str = SUCCESS,
        run: RunSummary | None = None,
    ) -> None:
        self._on = on
        self.tasks: list[NewTask] = []
        """What was worked out so far."""
        self.reasons: list[tuple[int, str, Sequence[NewTask]]] = []
        """Of each entry of `then` that was worked out: its index, in words why, and its tasks."""
        self._timeout = min(PLAN_TIMEOUT, config.daemon.plugins.timeout / 2)
        self._budget = budget
        self._task = task
        entries = endpoint[THEN]
        self._entries = [(index, one) for index, one in enumerate(entries) if one.on == on]
        self._config = config
        self._answer = AnswerDocument(outcome, task, config.redactor.data, run)
        self._bytes = 0

    def is_of(self, task: Task) -> bool:
        """Whether it was made of this attempt of this task."""
        return (task.id, task.attempts) == (self._task.id, self._task.attempts)

    def work_out(self) -> None:
        """Make all of it, once. Raises Impossible, and TooCostly where there is a budget."""
        # Not by the clock of the wall: others compute meanwhile, and it is no fault of the answer.
        deadline = time.thread_time() + self._timeout
        try:
            for _ in self._work():
                if time.thread_time() > deadline:
                    raise Impossible(
                        f"then: takes longer than {self._timeout:g} s; split the answer"
                    )
        finally:
            if self._budget is None:
                self._answer.free()

    @property
    def has_rules(self) -> bool:
        """Whether `check_rules` has something to do."""
        called = {task.endpoint_id for task in self.tasks}
        specs = [self._config.endpoints[one].spec for one in called]
        return any(isinstance(spec, ParamRules) and spec.apart for spec in specs)

    async def check_rules(self) -> None:
        """Hold what was worked out against the rules that are asked apart. Raises Impossible."""
        for index, _, tasks in self.reasons if self.has_rules else ():
            try:
                found = await rule_problems(self._config, tasks)
                wrong = "; ".join(f"{name}: {why}" for one in found for name, why in one.items())
            except SchemaTooCostly as error:
                wrong = str(error)
            if wrong:
                self._left_out(Impossible(f"then.{index}: {tasks[0].endpoint_id}: {wrong}"))
                left_out = set(map(id, tasks))
                self.tasks = [one for one in self.tasks if id(one) not in left_out]

    # -- within --------------------------------------------------------------------------------

    def _work(self) -> Iterator[None]:
        for index, entry in self._entries:
            first = len(self.tasks)
            key = f"then.{index}"
            try:
                why = yield from self._entry(entry, key)
            except UnreadableAnswer as error:
                raise Impossible(f"{key}: {error}") from None
            except Impossible as error:
                why = self._left_out(error)
                del self.tasks[first:]
            self.reasons.append((index, why, self.tasks[first:]))

    def _left_out(self, error: Impossible) -> str:
        """Why an entry is left out; where what follows from a success is, raises it."""
        if self._on == SUCCESS:
            raise error
        # It has failed, or ended, and the others follow all the same.
        text = self._config.redactor.text(str(error))
        log.error("skipped an entry of `then` of task %s on %s: %s", self._task.id, self._on, text)
        return str(error)

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
            return said or f"it follows each {entry.on.replace('run_end', 'end of a run')}"
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
            params = check_params(target, given, most=self._config.daemon.max_params, apart=True)
        except InvalidParams as error:
            wrong = "; ".join(
                f"params.{name}: {why}" if name in target.params else f"{name}: {why}"
                for name, why in error.problems.items()
            )
            raise Impossible(f"{place}: {entry.call}: {wrong}") from None
        self._measure(params, place)
        try:
            partition = self._partition(target, params)
        except InvalidPayload as error:
            raise Impossible(f"{place}: {entry.call}: {error}") from None
        self.tasks.append(
            NewTask(
                "call",
                entry.call,
                params,
                delay=entry.delay or 0.0,
                at=self._first_try(entry, place, item),
                parent_id=self._task.id,
                max_attempts=target.retry.max_attempts,
                depth=depth,
                partition=partition,
            )
        )

    def _first_try(self, entry: Then, place: str, item: Any) -> int | None:
        """When a call is due, milliseconds; None where no time says so. Raises Impossible."""
        if entry.at is None:
            return None
        found = self._find(entry.at, f"{place}: at", item)
        try:
            return parse_first_try(found)
        except ValueError as error:
            raise Impossible(f"{place}: at: {entry.at.source} is {_kind(found)}: {error}") from None

    def _partition(self, target: Endpoint, params: Mapping[str, Any]) -> Partition | None:
        """Raises InvalidPayload."""
        rule = target.partition
        if rule is None:
            return None
        context = {"params": params}
        if self._budget is None:
            return rule.of(context)
        return within_budget(self._budget, rule.of, context)

    def _measure(self, params: Mapping[str, Any], place: str) -> None:
        """Raise Impossible for what must not be stored, or is too much."""
        size = len(json.dumps(params))
        if self._budget is not None:
            self._budget.spend(_PER_TASK + size // _PER_STEP)
        if self._config.redactor.is_in(params):
            raise Impossible(
                f"{place}: the parameters would hold a secret of this configuration, and "
                "parameters are stored"
            )
        if len(self.tasks) == MAX_TASKS:
            raise Impossible(f"{place}: more than {MAX_TASKS} calls would follow from one answer")
        self._bytes += size
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
            return look(document, self._budget)
        except ValueError as error:
            if self._budget is not None and isinstance(error, TooCostly):
                raise
            raise Impossible(f"{place}: {error}") from None


def concerned_by(on: str) -> Callable[[str, Endpoint], bool]:
    """Whether something follows from this of the tasks of a kind and endpoint."""

    def concerned(kind: str, endpoint: Endpoint) -> bool:
        return kind == "call" and any(entry.on == on for entry in endpoint[THEN])

    return concerned


def _declares(kind: str, endpoint: Endpoint) -> bool:
    return kind == "call" and bool(endpoint[THEN])


@hookimpl
@only_for(_declares)
def explain(
    phase: str,
    outcome: Outcome | None,
    task: Task,
    endpoint: Endpoint,
    config: Config,
    run: RunSummary | None,
) -> list[Explanation]:
    """The hook `explain`: what each entry of `then` makes of this phase, and why."""
    entries = endpoint[THEN]
    calls = [entry.call for entry in entries]
    names = [
        call if calls.count(call) == 1 else f"{call} (then.{index})"
        for index, call in enumerate(calls)
    ]
    phases = [PHASES_OF[entry.on] for entry in entries]
    found = [
        Explanation("call", name, own, False, f"its phase is {own}")
        for name, own in zip(names, phases, strict=True)
        if own != phase or outcome is None
    ]
    if outcome is None or phase not in phases:
        return found
    on = next(on for on, own in PHASES_OF.items() if own == phase)
    plan = ChildPlan(outcome, task, endpoint, config, None, on, run)
    failed = None
    try:
        plan.work_out()
    except Impossible as error:
        failed = str(error)
    for index, why, tasks in plan.reasons if failed is None else ():
        found += [Explanation("call", names[index], phase, True, why, new) for new in tasks]
        if not tasks:
            found.append(Explanation("call", names[index], phase, False, why))
    if failed is not None:
        failing = [name for name, own in zip(names, phases, strict=True) if own == phase]
        found += [Explanation("call", name, phase, False, failed) for name in failing]
    return found[:MAX_SHOWN]


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    return "a text" if isinstance(value, str) else "a number"
