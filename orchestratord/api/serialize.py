"""How things look in the API's JSON: tasks, attempts, endpoints, bulks, plugins, problems.

Texts that may hold a secret (what a caller passed, what a receiver answered) go through the
configuration's redactor on their way out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_type_hints

from typing_extensions import is_typeddict

from orchestratord.api.answer_documents import (
    ActionDocument,
    AttemptDocument,
    BulkDocument,
    EndpointDocument,
    SurveyDocument,
    TaskDocument,
    TaskPageDocument,
    Time,
)
from orchestratord.api.daemon_documents import (
    PluginDocument,
    PluginStatus,
    ProblemDocument,
    ServiceStatus,
)
from orchestratord.api.filters import FIELDS, NAMES
from orchestratord.errors import Problem
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.task import DOUBTFUL, Attempt, Status, Task, TaskExcerpt
from orchestratord.plugin.registry import PluginInfo
from orchestratord.plugin.verb_row import VerbRow
from orchestratord.queue.records import RETRY, Bulk, Done, TaskFilter
from orchestratord.values.clock import rfc3339
from orchestratord.values.redact import Redactor

if TYPE_CHECKING:
    from orchestratord.queue.operations.bulk import Survey  # peewee, which check needs not


def json_bytes(value: Any) -> bytes:
    """`value` as JSON. Raises TypeError, ValueError or RecursionError for what JSON cannot say.

    Plain ASCII: whatever a receiver answered, it does not steer the terminal that shows this.
    """
    return _ENCODER.encode(value).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_plain)


D = TypeVar("D")


def document(kind: Callable[..., D], record: object, redactor: Redactor, **given: Any) -> D:
    """A document of this kind: what is `given`, and of the record, an object or a mapping, what
    else has the names of its fields: times as texts, documents made likewise, secrets masked."""
    shown: dict[str, Any] = {}
    for name, is_time, inner in _fields_of(kind):
        if name in given:
            shown[name] = given[name]
            continue
        value = record[name] if isinstance(record, Mapping) else getattr(record, name)
        if is_time:
            shown[name] = rfc3339(value)
        elif inner is None or value is None:
            shown[name] = redactor.value(value)
        elif isinstance(value, Sequence):
            shown[name] = [document(inner, one, redactor) for one in value]
        else:
            shown[name] = document(inner, value, redactor)
    return cast("D", shown)


@lru_cache(maxsize=64)
def _fields_of(kind: Callable[..., object]) -> tuple[tuple[str, bool, Any], ...]:
    """The fields of a document; whether it is a time; which document it is, or has a list of."""
    return tuple(
        (name, hint in (Time, Time | None), _document_in(hint))
        for name, hint in get_type_hints(kind, include_extras=True).items()
    )


def _document_in(hint: Any) -> Any:
    if is_typeddict(hint):
        return hint
    return next((one for one in map(_document_in, get_args(hint)) if one is not None), None)


def task_json(task: Task, redactor: Redactor) -> TaskDocument:
    """A task as lists show it."""
    return {
        "id": task.id,
        "kind": task.kind,
        "endpoint": task.endpoint_id,
        "webhook": task.webhook or None,
        "phase": task.phase,
        "status": task.status,
        "reason": task.reason,
        "attempts": task.attempts,
        "max_attempts": task.max_attempts,
        "deaths": task.deaths,
        "looks": task.looks,
        "looked_since": rfc3339(task.looked_since),
        "waits_for": redactor.value(task.waits_for) if task.status == Status.PENDING else None,
        # The row keeps it while the task runs, for a claim that is given back.
        "next_try": rfc3339(task.next_try) if task.status == Status.PENDING else None,
        "params": redactor.data.value(task.params),
        "truncated": isinstance(task, TaskExcerpt),
        "parent_id": task.parent_id,
        "run_id": task.run_id,
        "partition": redactor.data.value(task.partition),
        "bulk_id": task.bulk_id,
        "replaces": task.replaces,
        "last_status_code": task.last_status_code,
        "last_error": redactor.value(task.last_error),
        "created_at": rfc3339(task.created_at),
        "updated_at": rfc3339(task.updated_at),
        "finished_at": rfc3339(task.finished_at),
    }


def task_page_json(
    task: Task,
    response: Mapping[str, Any] | None,
    attempts: Iterable[Attempt],
    by: int | None,
    redactor: Redactor,
) -> TaskPageDocument:
    """One task in full: what it sends, the last answer, all its attempts, oldest first, and by
    which task it is replaced.
    What it `waits` for, and its `idempotency_key`, have to be added.
    """
    return {
        **task_json(task, redactor),
        "waits": None,
        "replaced_by": by,
        "holds_partition": task.blocks and not by and task.holds_after(task.status, task.reason),
        "cancel_requested": task.cancel_requested,
        "idempotency_key": None,
        "client_key": redactor.data.value(task.unique_key),
        "payload": redactor.data.value(task.payload),
        "response": redactor.data.value(response),
        "attempt_log": [document(AttemptDocument, one, redactor) for one in attempts],
    }


def endpoint_json(
    endpoint: Endpoint, paused: bool, next_run: int | None, redactor: Redactor
) -> EndpointDocument:
    """An endpoint: its merged declaration with secrets masked, and how it stands.

    `next_run`: when its schedule calls it next (milliseconds).
    """
    shown = {name: redactor.value(value) for name, value in endpoint.shown.items()}
    stands: EndpointDocument = {
        "id": endpoint.id,
        "enabled": endpoint.enabled,
        "webhooks": shown.get("webhooks", []),
        "paused": paused,
        "next_run": rfc3339(next_run),
        "source": endpoint.source,
    }
    return cast("EndpointDocument", {"id": endpoint.id, **shown, **stands})


def bulk_json(bulk: Bulk, redactor: Redactor) -> BulkDocument:
    """A bulk and how far it has come."""
    takes_all = DOUBTFUL[0] not in bulk.filter.left_out
    return document(
        BulkDocument,
        bulk,
        redactor,
        filter=redactor.value(filter_json(bulk.filter)),
        include_ambiguous=takes_all if bulk.action == RETRY else None,
        rate=None if bulk.rate is None else format_rate(bulk.rate),
    )


def survey_json(survey: Survey, examples: Iterable[Task], redactor: Redactor) -> SurveyDocument:
    """What a bulk would do: the most numerous tasks first."""
    counts = sorted(survey.counts.items(), key=lambda item: (-item[1], item[0][1]))
    return {
        "matched": survey.matched,
        "bulk": None,
        "left_out": dict(survey.left_out),
        "counts": [
            {"reason": reason, "endpoint": redactor.text(endpoint), "tasks": number}
            for (reason, endpoint), number in counts
        ],
        "examples": [task_json(task, redactor) for task in examples],
    }


def filter_json(wanted: TaskFilter) -> dict[str, Any]:
    """Which tasks, by the names and in the words that a filter is given with; what is not said is
    left out."""
    # `tenant` is given, and stands as `webhook`.
    found: dict[str, Any] = {
        name: getattr(wanted, FIELDS.get(name, name)) for name in NAMES if name != "tenant"
    }
    for name in ("status", "reason", "id"):
        found[name] = ",".join(map(str, found[name] or ()))
    for name in ("since", "until", "ended_since"):
        found[name] = rfc3339(found[name])
    found["status_code"] = wanted.status_code and str(wanted.status_code)
    return {name: value for name, value in found.items() if value not in (None, "")}


def done_json(done: Done, redactor: Redactor) -> ActionDocument:
    """An entry of the action log."""
    entry = {"id": done.id, "at": rfc3339(done.at), "who": done.who, "action": done.action.name}
    return document(ActionDocument, done.action, redactor, **entry)


def format_rate(per_second: float) -> str:
    """A rate as people write it: `10/s`, `100/min`, `5000/h`."""
    for unit, seconds in (("s", 1), ("min", 60), ("h", 3600)):
        times = per_second * seconds
        if abs(times - round(times)) < 1e-6 and round(times) > 0:
            return f"{round(times)}/{unit}"
    return f"{per_second:g}/s"


def problems_json(problems: Sequence[Problem]) -> list[ProblemDocument]:
    """Errors or warnings of the configuration, in their order, each with its place."""
    return [
        {
            "file": problem.file,
            "line": problem.line,
            "column": problem.column,
            "key": problem.key,
            "message": problem.message,
            "hint": problem.hint or None,
            "source": problem.source or None,
        }
        for problem in problems
    ]


def plugin_json(
    plugin: PluginInfo, redactor: Redactor, rows: Iterable[VerbRow] = ()
) -> PluginDocument:
    """One plugin: whether it is loaded, what it implements, and what it did wrong."""
    return {
        "name": plugin.name,
        "version": plugin.version,
        "source": plugin.source,
        "status": plugin.status,
        "hooks": list(plugin.hooks),
        "error": redactor.value(plugin.error),
        "faults": plugin.faults,
        "last_fault": redactor.value(plugin.last_fault),
        "services": plugin_status(plugin, redactor)["services"],
        "verbs": [redactor.value(asdict(one)) for one in rows],
    }


def plugin_status(plugin: PluginInfo, redactor: Redactor) -> PluginStatus:
    """A plugin in short; its source and load error are for the list of plugins."""
    services = [document(ServiceStatus, one, redactor) for one in plugin.services.values()]
    return document(PluginStatus, plugin, redactor, services=services)
