"""Trying what the YAML has under `tests:`, by the code that explains an attempt."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from orchestratord import (
    Conflict,
    Endpoint,
    Explanation,
    OpenedConfig,
    Report,
    Statement,
    TestCase,
    check_params,
    rough_duration,
    to_text,
)
from orchestratord_simulate.found_text import found_text

CALL, WEBHOOK = "call", "webhook"
"""Kinds of what follows."""
_EXACT = 0.0005
"""Seconds in which two delays may differ; shorter ones are not written down."""

_OF_STATEMENTS = frozenset(("database", "statement", "params"))

Path = tuple[str | int, ...]
Miss = tuple[Path, str]
"""One expectation that was not met: its key, below the test's, and a message."""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One test, and what went otherwise than expected; nothing where it passed."""

    endpoint: Endpoint
    index: int
    case: TestCase
    misses: tuple[Miss, ...]

    @property
    def label(self) -> str:
        """Its name, or its place in the list."""
        return self.case.name or f"tests.{self.index}"


async def run_cases(opened: OpenedConfig, endpoint: Endpoint) -> list[CaseResult]:
    """Carry out the tests of one endpoint, in their order. No secret is in what comes out."""
    tried: list[CaseResult] = []
    for index, case in enumerate(endpoint.tests):
        found = [
            (path, opened.config.redactor.text(message))
            for path, message in await _misses(opened, endpoint, case)
        ]
        tried.append(CaseResult(endpoint, index, case, tuple(found)))
    return tried


async def _misses(opened: OpenedConfig, endpoint: Endpoint, case: TestCase) -> list[Miss]:
    try:
        report = await opened.explainer().explain(
            endpoint,
            check_params(endpoint, case.params),
            attempt=case.attempt,
            answer=case.answer,
            now=case.now,
        )
    except Conflict as conflict:
        return [((), str(conflict))]
    shown = report.document(opened.config.redactor)
    misses: list[Miss] = [((), note) for note in report.notes]
    misses += _decided(case, report, shown)
    misses += _webhooks(case, report)
    misses += _calls(case, report)
    misses += _request(case, report)
    return misses


def _decided(case: TestCase, report: Report, shown: Mapping[str, Any]) -> Iterator[Miss]:
    expect, decision, outcome = case.expect, report.decision, report.outcome
    assert decision is not None, "each test pretends an answer"
    came: str = shown["decision"]["outcome"]
    because = f"{came}: {decision.why}"
    if decision.reason is not None:
        words = [decision.reason, outcome.error if outcome else None]
        if decision.why != decision.reason:
            words.append(decision.why)
        because = f"{came}, {': '.join(str(word) for word in words if word)}"
    because = "; ".join((because, *map(found_text, shown["expressions"])))
    if expect.outcome is not None and came != expect.outcome:
        yield ("expect", "outcome"), f"expected {expect.outcome}, came {because}"
    elif expect.reason is not None and decision.reason != expect.reason:
        yield ("expect", "reason"), f"expected {expect.reason}, came {because}"
    if expect.delay is not None:
        shortest, longest = expect.delay
        wanted = rough_duration(shortest, longest)
        if decision.delay is None:
            yield ("expect", "delay"), f"expected {wanted}, came no further attempt, but {because}"
        elif not shortest - _EXACT <= decision.delay <= longest + _EXACT:
            delay = rough_duration(decision.delay)
            yield ("expect", "delay"), f"expected {wanted}, came {delay}: {decision.why}"


def _webhooks(case: TestCase, report: Report) -> Iterator[Miss]:
    path, expected = ("expect", "webhooks"), case.expect.webhooks
    if expected is None:
        return
    for item in report.consequences:
        explanation = item.explanation
        if explanation.kind != WEBHOOK:
            continue
        if explanation.name not in expected:
            if explanation.happens:
                yield path, f"{explanation.name} fires as well: {explanation.why}"
            continue
        place = (*path, expected.index(explanation.name))
        if not explanation.happens:
            yield place, f"{explanation.name} does not fire: {explanation.why}"
        elif item.error is not None:
            yield place, f"{explanation.name} fires, and its delivery will fail: {item.error}"
    known = {item.explanation.name for item in report.consequences}
    for index, name in enumerate(expected):
        if name not in known:
            yield (*path, index), f"there is no webhook {name!r}"


def _calls(case: TestCase, report: Report) -> Iterator[Miss]:
    path, expected = ("expect", "calls"), case.expect.calls
    if expected is None:
        return
    found = [item for item in report.consequences if item.explanation.kind == CALL]
    following = [item for item in found if item.explanation.happens]
    for index, call in enumerate(expected[len(following) :], len(following)):
        why = [item.explanation.why for item in found if _is_about(item.explanation, call.call)]
        because = f": {why[0]}" if why else ""
        yield (*path, index), f"{call.call} does not follow{because}"
    for item in following[len(expected) :]:
        yield path, f"{item.explanation.name} follows as well: {item.explanation.why}"
    for index, (call, item) in enumerate(zip(expected, following, strict=False)):
        task = item.explanation.task
        came = (task.endpoint_id, task.params) if task is not None else (item.explanation.name, {})
        if came[0] != call.call:
            yield (*path, index), f"expected {call.call}, came {came[0]}"
        elif call.params is not None and _canonical(came[1]) != _canonical(call.params):
            yield (*path, index), f"expected {_canonical(call.params)}, came {_canonical(came[1])}"
        elif item.error is not None:
            yield (*path, index), f"{call.call} follows, and will fail: {item.error}"


def _is_about(explanation: Explanation, call: str) -> bool:
    return not explanation.happens and explanation.name.split(" ")[0] == call


def _request(case: TestCase, report: Report) -> Iterator[Miss]:
    path, expected, request = ("expect", "request"), case.expect.request, report.request
    if expected is None:
        return
    if request is None:
        error = report.outcome.error if report.outcome else None
        yield path, f"it cannot be made: {error}"
        return
    if isinstance(request, Statement):
        yield from _statement(case, request, path)
        return
    if not isinstance(request, httpx.Request):
        yield path, f"this endpoint sends no HTTP request; its type is {report.endpoint.type}"
        return
    for key in sorted(_OF_STATEMENTS & expected.model_fields_set):
        yield (*path, key), "this endpoint executes no statement, it sends a request"
    if expected.method is not None and request.method != expected.method.upper():
        yield (*path, "method"), f"expected {expected.method.upper()}, came {request.method}"
    if expected.url is not None and str(request.url) != expected.url:
        yield (*path, "url"), f"expected {expected.url}, came {request.url}"
    for name, value in expected.headers.items():
        came = request.headers.get(name)
        if came is None:
            yield (*path, "headers", name), f"expected {value!r}, came no such header"
        elif came != value:
            yield (*path, "headers", name), f"expected {str(value)!r}, came {came!r}"
    if expected.body is not None:
        yield from _body(expected.body, request.content.decode(errors="replace"), (*path, "body"))


def _statement(case: TestCase, statement: Statement, path: Path) -> Iterator[Miss]:
    expected = case.expect.request
    assert expected is not None
    for key in sorted(expected.model_fields_set - _OF_STATEMENTS):
        yield (*path, key), "this endpoint sends no HTTP request, it executes a statement"
    if expected.database is not None and statement.database != expected.database:
        yield (*path, "database"), f"expected {expected.database}, came {statement.database}"
    if expected.statement is not None:
        wanted, came = (" ".join(text.split()) for text in (expected.statement, statement.text))
        if came != wanted:
            yield (*path, "statement"), f"expected {wanted!r}, came {came!r}"
    if expected.params is not None:
        wanted, came = _canonical(expected.params), _canonical(statement.params)
        if came != wanted:
            yield (*path, "params"), f"expected {wanted}, came {came}"


def _body(expected: Any, text: str, path: Path) -> Iterator[Miss]:
    if isinstance(expected, str):
        if text != expected:
            yield path, f"expected {str(expected)!r}, came {text!r}"
        return
    try:
        came = _canonical(json.loads(text))
    except ValueError:
        yield path, f"expected {_canonical(expected)}, came no JSON: {text!r}"
        return
    if came != _canonical(expected):
        yield path, f"expected {_canonical(expected)}, came {came}"


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=to_text)
