"""Endpoints and webhooks that fail now: whose last attempt failed, by what the table says of it.

A key fails where it has tasks that failed for good, or wait for another try, since it last
succeeded. So it is known after a restart, and of other daemons too; and what was retried with
success, cancelled or deleted counts no more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from orchestratord.model.task import Key, Reason
from orchestratord.queue.batch import long_reads
from orchestratord.queue.connection import (
    BY_ENDPOINT,
    BY_READY,
    BY_REASON,
    BY_RUNNING,
    LISTED,
    READY,
    Connection,
    Row,
)
from orchestratord.queue.rows import code_of, worded
from orchestratord.values.status_set import StatusCode

# ruff: noqa: S608  # what is pasted here are hints and constants, never values

LOOKED = 20_000
"""Failed tasks that are looked at in all."""
LEAST_LOOKED = 100
"""Of an endpoint, however many endpoints have some."""
MOST_ENDPOINTS = 200
"""Whose failed tasks are looked at: those that made one last."""
MOST_KEYS = 500
"""Whose waiting tasks are looked at."""
LOOKED_WAITING = 100
"""Waiting tasks of one key that are looked at: those that are due last, among which those are
that were put off."""

NO_FAILURES = {
    "missed": "reason = 'webhook_disabled' AND attempts = 0",
    "resolved": "reason = 'resolved'",
}
"""Failed tasks that are no failure → how they are found. What a webhook misses while it is
disabled says nothing of its receiver; of what a person has resolved nothing is left to do."""

# The newest first. Where PostgreSQL takes a status to be frequent, it would walk all tasks from the
# newest on instead: it does not, for an order that only the index of endpoints has.
_IS_FAILED = (
    "{0} <> 'running' AND {0} >= 'failed' AND {0} <= 'failed' AND (reason IS NULL OR NOT ("
    f"{' OR '.join(NO_FAILURES.values())})) ORDER BY {{0}} DESC, id DESC"
)

# One look into the index an endpoint, and one more for its failed tasks.
ENDPOINTS = f"""
WITH RECURSIVE walk (endpoint_id) AS (
    SELECT (SELECT endpoint_id FROM retry_schedule {BY_ENDPOINT}
        WHERE endpoint_id > '' AND {LISTED} ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT task.endpoint_id FROM retry_schedule AS task {BY_ENDPOINT}
        WHERE task.endpoint_id > walk.endpoint_id AND task.{LISTED}
        ORDER BY task.endpoint_id LIMIT 1)
    FROM walk WHERE walk.endpoint_id IS NOT NULL
)
SELECT walk.endpoint_id, (SELECT task.id FROM retry_schedule AS task {BY_ENDPOINT}
    WHERE task.endpoint_id = walk.endpoint_id
        AND {_IS_FAILED.format("task.status")} LIMIT 1)
FROM walk WHERE walk.endpoint_id IS NOT NULL
"""

FAILED = f"""
SELECT found.webhook, found.finished_at > COALESCE(known.last_success_at, 0) AS fresh, found.reason,
    count(*), min(found.id), max(found.id), min(found.finished_at), max(found.finished_at),
    sum(found.attempts)
FROM (SELECT id, endpoint_id, webhook, reason, finished_at, attempts
    FROM retry_schedule {BY_ENDPOINT}
    WHERE endpoint_id = ? AND {_IS_FAILED.format("status")} LIMIT ?) AS found
LEFT JOIN endpoint_state AS known ON known.endpoint_id = CASE found.webhook
    WHEN '' THEN found.endpoint_id ELSE found.endpoint_id || '#' || found.webhook END
GROUP BY found.webhook, fresh, found.reason
"""

# A manual retry changes `updated_at`, too: what waits since then says nothing yet.
WAITING = f"""
SELECT count(*), min(id), max(id), min(updated_at), max(updated_at), sum(attempts)
FROM (SELECT id, attempts, updated_at, retried_at, last_error FROM retry_schedule {BY_READY}
    WHERE {READY} AND endpoint_id = ? AND webhook = ? ORDER BY next_try DESC LIMIT ?) AS found
WHERE attempts > 0 AND last_error IS NOT NULL AND updated_at > ?
    AND (retried_at IS NULL OR updated_at > retried_at)
"""

LAST_SUCCESS = "SELECT last_success_at FROM endpoint_state WHERE endpoint_id = ?"

COUNT = f"SELECT count(*) FROM retry_schedule {BY_REASON} WHERE status = 'failed' AND {{}}"

LATEST = "SELECT reason, last_status_code, last_error FROM retry_schedule WHERE id = ?"

# Those of which the next attempt is under way.
RUNNING = f"""
SELECT endpoint_id, webhook, count(*), min(id), max(id), min(updated_at), max(updated_at),
    sum(attempts - 1)
FROM retry_schedule {BY_RUNNING}
WHERE status = 'running' AND attempts > 1 AND last_error IS NOT NULL
GROUP BY endpoint_id, webhook
"""

TRIED = """
SELECT min(started_at), max(started_at), max(started_at + duration_ms) FROM attempts
WHERE task_id = ? AND started_at > ?
"""

_GONE = frozenset({Reason.ENDPOINT_REMOVED.value, Reason.WEBHOOK_REMOVED.value})
"""Why tasks fail that say nothing of their receiver."""


@dataclass(slots=True)
class FailingKey:
    """A key whose last attempt failed. Times are milliseconds since the epoch."""

    key: Key
    failed: int = 0
    """Tasks that have failed for good since it last succeeded."""
    waiting: int = 0
    """Those that wait for another try, or are tried again just now."""
    failures: int = 0
    """Attempts of all these."""
    complete: bool = True
    """Whether all were looked at; there may be more else."""
    since: int = 0
    """When the first of these attempts began."""
    last: int = 0
    """When the last one ended."""
    reason: str | None = None
    """Why the latest one failed for good; None where it waits for another try."""
    status_code: StatusCode = None
    error: str | None = None
    _oldest: int = field(default=1 << 62)
    _latest: int = 0

    def add(self, row: Row, *, waiting: bool) -> None:
        """Count a group of tasks."""
        count, oldest, latest, since, last, attempts = row
        self.since = min(self.since or since, since)
        if last >= self.last:
            self.last, self._latest = last, latest
        self._oldest = min(self._oldest, oldest)
        self.failures += int(attempts)
        if waiting:
            self.waiting += count
        else:
            self.failed += count

    def look(self, db: Connection, succeeded_at: int) -> bool:
        """Learn when and how it failed; False where it has succeeded since."""
        _, began, ended = db.one(TRIED, (self._latest, 0)) or (None, None, None)
        if began is not None:
            if began <= succeeded_at:
                return False  # it may have ended after that, but had begun before
            self.last = round(ended)
        row = db.one(LATEST, (self._latest,))
        if row is None:
            return False
        self.reason, self.status_code, self.error = row[0], code_of(row[1]), worded(row[2])
        first = db.one(TRIED, (self._oldest, succeeded_at))
        if first is not None and first[0] is not None:
            self.since = min(self.since, first[0])
        return True


class Failing(NamedTuple):
    """Who fails now."""

    keys: list[FailingKey]
    """The latest failure first; calls and deliveries apart."""
    complete: bool
    """Whether all endpoints and all their failed tasks were looked at; more may fail else."""


@long_reads
def failing(db: Connection) -> Failing:
    """Who fails now."""
    found: dict[Key, FailingKey] = {}
    groups, all_looked_at = _failed(db)
    for key, row, complete in groups:
        item = found.setdefault(key, FailingKey(key))
        item.add(row, waiting=False)
        item.complete = item.complete and complete
    successes: dict[Key, int] = {}
    for number, (endpoint_id, webhook, _) in enumerate(db.earliest_keys()):
        if number >= MOST_KEYS:
            all_looked_at = False
            break
        key = Key(endpoint_id, webhook)
        successes[key] = db.value(LAST_SUCCESS, (key.name,), 0)
        group = db.one(WAITING, (*key, LOOKED_WAITING, successes[key]))
        if group is not None and group[0]:
            item = found.setdefault(key, FailingKey(key))
            item.add(group, waiting=True)
            item.complete = item.complete and group[0] < LOOKED_WAITING
    for endpoint_id, webhook, *numbers in db.all(RUNNING):
        key = Key(endpoint_id, webhook)
        found.setdefault(key, FailingKey(key)).add(tuple(numbers), waiting=True)
    for key in found.keys() - successes.keys():
        successes[key] = db.value(LAST_SUCCESS, (key.name,), 0)
    shown = [item for key, item in found.items() if item.look(db, successes[key])]
    return Failing(sorted(shown, key=lambda item: -item.last), all_looked_at)


@long_reads
def no_failures(db: Connection) -> dict[str, int]:
    """How many failed tasks there are of each kind of `NO_FAILURES`."""
    return {name: int(db.value(COUNT.format(where))) for name, where in NO_FAILURES.items()}


def _failed(db: Connection) -> tuple[list[tuple[Key, Row, bool]], bool]:
    """Tasks that failed for good since their key last succeeded, by key, each with whether those
    are all of its endpoint; whether all of all endpoints were looked at."""
    found: list[tuple[Key, Row, bool]] = []
    newest = [row for row in db.all(ENDPOINTS) if row[1] is not None]
    newest.sort(key=lambda row: -row[1])
    all_looked_at = len(newest) <= MOST_ENDPOINTS
    del newest[MOST_ENDPOINTS:]
    limit = max(LOOKED // max(len(newest), 1), LEAST_LOOKED)
    for endpoint_id, _ in newest:
        groups = db.all(FAILED, (endpoint_id, limit))
        complete = sum(group[3] for group in groups) < limit
        all_looked_at &= complete
        for webhook, fresh, reason, *row in groups:
            if fresh and reason not in _GONE:
                found.append((Key(endpoint_id, webhook), tuple(row), complete))
    return found, all_looked_at
