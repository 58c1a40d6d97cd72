"""The status document: how the daemon is, in one answer that costs a few milliseconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from orchestratord.api.daemon_documents import (
    ChangesDocument,
    ConfigStatus,
    DatabaseStatus,
    DifferenceDocument,
    ProblemDocument,
    QueueStatus,
    ReloadDocument,
    TroubleDocument,
    WorkerStatus,
)
from orchestratord.api.serialize import document, problems_json
from orchestratord.config.changes import Changes
from orchestratord.config.loader import Reload
from orchestratord.errors import Problem
from orchestratord.queue.daemon_health import FATAL, DaemonHealth, Trouble
from orchestratord.queue.housekeeping import prune
from orchestratord.queue.reports.backlog import DueTasks
from orchestratord.queue.store import Store
from orchestratord.runtime.fleet import Fleet
from orchestratord.runtime.reload import Reloader
from orchestratord.values.clock import rfc3339
from orchestratord.values.rate_limit import RateLimit, RateWindow
from orchestratord.values.redact import Redactor

MAX_LANES = 20
"""Lanes that are shown, the busiest ones."""

MAX_PARTITIONS = 20
"""Partitions that are named which a failed task holds."""
MAX_CHANGES = 20
"""Endpoints of each kind that are named as added, removed or changed."""
MAX_RELOADED = 1_000
"""Endpoints named in the answer to a reload."""


def queue_status(
    counts: Mapping[str, int], due: DueTasks, now: int, redactor: Redactor
) -> QueueStatus:
    """How many tasks there are in each status, how late the oldest one that is due is, and which
    partitions a failed task holds.

    `counts`: with how many of those that failed are `missed` or `resolved`. `now`: milliseconds
    since the epoch; the age is in seconds, None where nothing is due.
    """
    found: dict[str, Any] = {
        **counts,
        "failed": max(counts["failed"] - counts["missed"] - counts["resolved"], 0),
        "due": due.tasks,
        "oldest_due_age": None if due.oldest is None else max(now - due.oldest, 0) / 1000,
        "held": due.held,
        "held_partitions": due.stopped,
        "held_by": [
            {
                "endpoint": redactor.text(key.endpoint_id),
                "webhook": redactor.text(key.webhook) or None,
                "partition": redactor.data.text(value),
                "task": task_id,
            }
            for key, value, task_id in due.stopped_by
        ],
    }
    return cast("QueueStatus", found)


def troubles_status(
    health: DaemonHealth, redactor: Redactor, others: Iterable[Trouble] = (), *, draining: bool
) -> list[TroubleDocument]:
    """What keeps the daemon from its work: `code`, why, and since when; `others` is what keeps its
    other workers from theirs."""
    found = [Trouble("draining", "the daemon is draining", 0)] if draining else []
    if health.fatal is not None:
        found.append(Trouble(FATAL, health.fatal, 0))
    return [
        document(TroubleDocument, one, redactor, since=rfc3339(one.since or None))
        for one in (*found, *health.troubles.values(), *others)
    ]


def config_status(reloader: Reloader) -> ConfigStatus:
    """The configuration in force and, where the files are in error, why they were refused last."""
    config, error = reloader.config, reloader.error
    redactor = config.redactor
    return {
        "folder": redactor.text(str(config.folder)),
        "generation": config.generation,
        "adopted_at": rfc3339(config.adopted_at),
        "cause": reloader.cause,
        "changes": changes_json(reloader.changes, redactor, MAX_CHANGES),
        "endpoints": len(config.endpoints),
        "error": error and {"at": rfc3339(error[0]), "errors": _problems(error[1], redactor)},
        "warnings": _problems(config.warnings, redactor),
        "restart_required": list(reloader.restart_required),
    }


async def database_status(store: Store, fleet: Fleet, redactor: Redactor) -> DatabaseStatus:
    """The database: whether it takes new work, and what keeps it from cleaning up."""
    return {
        "url": redactor.text(store.url),
        "size": await store.read(prune.size()),
        "accepting": store.health.accepting,
        "unreachable": store.health.unreachable and redactor.text(store.health.unreachable),
        "listening": store.listening,
        "holding_back": [found.words for found in fleet.holding_back],
    }


def _problems(problems: Sequence[Problem], redactor: Redactor) -> list[ProblemDocument]:
    shown: list[ProblemDocument] = redactor.value(problems_json(problems))
    return shown


def changes_json(changes: Changes, redactor: Redactor, limit: int) -> ChangesDocument:
    """What a reload changed; at most `limit` ids of each kind, but all of them counted."""
    kinds = {"added": changes.added, "removed": changes.removed, "changed": changes.changed}
    shown: Any = {kind: [*map(redactor.text, ids[:limit])] for kind, ids in kinds.items()}
    counts = {kind: len(ids) for kind, ids in kinds.items()}
    return cast("ChangesDocument", {**shown, "daemon": list(changes.daemon), "counts": counts})


def reload_json(reload: Reload, *, diff: bool) -> ReloadDocument:
    """The answer to a reload that was asked for; with `diff`, the keys that differ."""
    config = reload.config
    redactor = config.redactor
    answer: ReloadDocument = {
        "generation": config.generation,
        "changed": reload.changed,
        "adopted_at": rfc3339(config.adopted_at),
        "cause": reload.cause,
        "changes": changes_json(reload.changes, redactor, MAX_RELOADED),
        "restart_required": list(reload.restart_required),
        "warnings": _problems(config.warnings, redactor),
    }
    if diff:
        answer["diff"] = [
            document(
                DifferenceDocument,
                item,
                redactor,
                endpoint=redactor.text(item.endpoint) or None,
                key=redactor.text(item.key) or None,
            )
            for item in reload.differences
        ]
    return answer


def worker_status(
    snapshot: Mapping[str, Any], redactor: Redactor, limit: int | None = MAX_LANES
) -> WorkerStatus:
    """What the worker is at, and at most `limit` of its lanes.

    A lane may be named after a receiver whose URL is a secret.
    """
    lanes = sorted(
        snapshot["lanes"], key=lambda lane: (-lane["in_flight"], -lane["due"], lane["name"])
    )
    breakers = [
        {"lane": lane["name"], "due": lane["due"], **lane["breaker"]}
        for lane in (*lanes, *snapshot["throttled"])
        if lane["breaker"] is not None
    ]
    shown = {"lanes": lanes[:limit], "throttled": snapshot["throttled"][:limit]}
    return document(WorkerStatus, {**snapshot, **shown, "breakers": breakers}, redactor)


def lanes_by_day(snapshot: Mapping[str, Any]) -> set[str]:
    """The lanes of a worker's snapshot whose rate is of a day."""
    limited = (lane for lane in snapshot["lanes"] if lane["rate"] is not None)
    return {lane["name"] for lane in limited if RateLimit.parse(lane["rate"]["limit"]).is_kept}


def with_rates(
    snapshot: Mapping[str, Any], rates: Mapping[str, tuple[int, Sequence[Sequence[int]]]], now: int
) -> Mapping[str, Any]:
    """A snapshot of the worker, in which rates are what all daemons have begun together.

    Args:
        snapshot: what this one knows.
        rates: see `claim.rates`.
        now: milliseconds since the epoch, by the clock of this one.
    """
    lanes = []
    for lane in snapshot["lanes"]:
        rate = lane["rate"]
        if rate is not None and lane["name"] in rates:
            theirs, stamps = rates[lane["name"]]
            window = RateWindow(RateLimit.parse(rate["limit"]), stamps)
            free, following = window.free(theirs), window.next_free(theirs)
            until = None if free or following is None else now + following - theirs
            lane = {**lane, "rate": {**rate, "used": window.used, "next": until}}
        lanes.append(lane)
    return {**snapshot, "lanes": lanes}
