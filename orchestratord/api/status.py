"""The status document: how the daemon is, in one answer that costs a few milliseconds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestratord.api.serialize import plugin_json, problems_json
from orchestratord.config.changes import Changes
from orchestratord.config.loader import Reload
from orchestratord.engine.stats import Failing
from orchestratord.errors import Problem
from orchestratord.model.task import Status
from orchestratord.plugin.registry import PluginInfo
from orchestratord.queue.operations import claim, prune
from orchestratord.queue.store import Store
from orchestratord.runtime.fleet import Fleet
from orchestratord.runtime.reload import Reloader
from orchestratord.values.clock import rfc3339
from orchestratord.values.rate_limit import RateLimit, RateWindow
from orchestratord.values.redact import Redactor

MAX_LANES = 20
"""Lanes that are shown, the busiest ones."""
MAX_FAILING = 20
"""Endpoints and webhooks that are shown as failing, the latest ones."""

MAX_CHANGES = 20
"""Endpoints of each kind that are named as added, removed or changed."""
MAX_RELOADED = 1_000
"""The same, in the answer to a reload."""


async def queue_status(store: Store, now: int) -> dict[str, Any]:
    """How many tasks there are in each status, and how late the oldest one that is due is.

    `now`: milliseconds since the epoch; the age is in seconds, None where nothing is due.
    """
    counts = await store.counts()
    due, oldest = await store.read(claim.due(now))
    return {
        **{status.value: counts.get(status, 0) for status in Status},
        "due": due,
        "oldest_due_age": None if oldest is None else max(now - oldest, 0) / 1000,
    }


def config_status(reloader: Reloader) -> dict[str, Any]:
    """The configuration in force and, where the files are in error, why they were refused last."""
    config, error = reloader.config, reloader.last_error
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


async def database_status(store: Store, fleet: Fleet, redactor: Redactor) -> dict[str, Any]:
    """The database: whether it takes new work, and what keeps it from cleaning up."""
    return {
        "url": redactor.text(store.url),
        "size": await store.read(prune.size()),
        "accepting": store.health.accepting,
        "unreachable": store.health.unreachable and redactor.text(store.health.unreachable),
        "listening": store.listening,
        "holding_back": list(fleet.holding_back),
    }


def _problems(problems: Sequence[Problem], redactor: Redactor) -> list[dict[str, Any]]:
    return [
        {name: redactor.value(value) for name, value in problem.items()}
        for problem in problems_json(problems)
    ]


def changes_json(changes: Changes, redactor: Redactor, limit: int) -> dict[str, Any]:
    """What a reload changed; at most `limit` ids of each kind, but all of them counted."""
    kinds = {"added": changes.added, "removed": changes.removed, "changed": changes.changed}
    return {
        **{kind: [redactor.text(id_) for id_ in ids[:limit]] for kind, ids in kinds.items()},
        "daemon": list(changes.daemon),
        "counts": {kind: len(ids) for kind, ids in kinds.items()},
    }


def reload_json(reload: Reload, *, diff: bool) -> dict[str, Any]:
    """The answer to a reload that was asked for; with `diff`, the keys that differ."""
    config = reload.config
    redactor = config.redactor
    answer: dict[str, Any] = {
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
            {
                "endpoint": redactor.text(item.endpoint) or None,
                "key": redactor.text(item.key) or None,
                "before": redactor.value(item.before),
                "after": redactor.value(item.after),
            }
            for item in reload.differences
        ]
    return answer


def worker_status(
    snapshot: Mapping[str, Any], redactor: Redactor, limit: int | None = MAX_LANES
) -> dict[str, Any]:
    """What the worker is at, and at most `limit` of its lanes.

    A lane may be named after a receiver whose URL is a secret.
    """
    lanes = sorted(
        snapshot["lanes"], key=lambda lane: (-lane["in_flight"], -lane["due"], lane["name"])
    )
    return {
        "in_flight": snapshot["in_flight"],
        "concurrency": snapshot["concurrency"],
        "next_due": rfc3339(snapshot["next_due"]),
        "draining": snapshot["draining"],
        "lanes": [_lane(lane, redactor) for lane in lanes[:limit]],
        "breakers": [
            {
                "lane": redactor.text(lane["name"]),
                "due": lane["due"],
                **_breaker(lane["breaker"], redactor),
            }
            for lane in lanes
            if lane["breaker"] is not None
        ],
        "rates": snapshot["rates"],
        "failing": [_failing(item, redactor) for item in snapshot["failing"][:MAX_FAILING]],
    }


def with_rates(
    snapshot: Mapping[str, Any], rates: Mapping[str, tuple[int, Sequence[Sequence[int]]]], now: int
) -> Mapping[str, Any]:
    """A snapshot of the worker, in which rates are what all daemons have begun together.

    Args:
        snapshot: what this one knows.
        rates: see `Store.rates`.
        now: milliseconds since the epoch, by the clock of this one.
    """
    lanes = []
    for lane in snapshot["lanes"]:
        rate = lane["rate"]
        if rate is not None and lane["name"] in rates:
            theirs, stamps = rates[lane["name"]]
            window = RateWindow(RateLimit.parse(rate["limit"]))
            for at, count in stamps:
                window.charge(count, at)
            free, following = window.free(theirs), window.next_free(theirs)
            until = None if free or following is None else now + following - theirs
            lane = {**lane, "rate": {**rate, "used": window.used, "next": until}}
        lanes.append(lane)
    return {**snapshot, "lanes": lanes}


def _lane(lane: Mapping[str, Any], redactor: Redactor) -> dict[str, Any]:
    rate, breaker, told = lane["rate"], lane["breaker"], lane["retry_after"]
    return {
        **lane,
        "name": redactor.text(lane["name"]),
        "rate": rate and {**rate, "next": rfc3339(rate["next"])},
        "breaker": breaker and _breaker(breaker, redactor),
        "retry_after": told and {**told, "until": rfc3339(told["until"])},
    }


def _breaker(breaker: Mapping[str, Any], redactor: Redactor) -> dict[str, Any]:
    return {
        **breaker,
        "since": rfc3339(breaker["since"]),
        "why": redactor.text(breaker["why"]),
        "next_probe": rfc3339(breaker["next_probe"]),
    }


def _failing(item: Failing, redactor: Redactor) -> dict[str, Any]:
    return {
        "endpoint": redactor.text(item.key.endpoint_id),
        "webhook": redactor.text(item.key.webhook) or None,
        "failures": item.failures,
        "since": rfc3339(item.since),
        "last": rfc3339(item.last),
        "status_code": item.status_code,
        "error": item.error and redactor.text(item.error),
    }


def process_status(version: str, instance: str, started_at: int, now: int) -> dict[str, Any]:
    """Which daemon this is, and for how long it has run (seconds)."""
    return {
        "version": version,
        "pid": os.getpid(),
        "instance": instance,
        "started_at": rfc3339(started_at),
        "uptime": max(now - started_at, 0) / 1000,
    }


def plugins_status(plugins: Iterable[PluginInfo], redactor: Redactor) -> list[dict[str, Any]]:
    """The plugins in short; their sources and load errors are for the list of plugins."""
    names = ("name", "version", "status", "hooks", "faults", "last_fault")
    return [
        {name: value for name, value in plugin_json(plugin, redactor).items() if name in names}
        for plugin in plugins
    ]
