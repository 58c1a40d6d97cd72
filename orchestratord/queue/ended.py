"""Tasks by when they ended, the last one first: what has failed just now, whenever it was made."""

from __future__ import annotations

from orchestratord.queue import filters
from orchestratord.queue.database import BY_FINISHED, Connection
from orchestratord.queue.records import Place, TaskFilter
from orchestratord.task import FINAL, Status

# ruff: noqa: S608  # what is pasted here are hints and conditions, never values

LAST = f"""
SELECT finished_at, id FROM retry_schedule {BY_FINISHED}
WHERE status = ? AND finished_at IS NOT NULL AND {{where}}
ORDER BY finished_at DESC, id DESC LIMIT ? OFFSET ?
"""
BEFORE = "(finished_at, id) < (?, ?)"
FROM = "(finished_at, id) >= (?, ?)"


def last(
    db: Connection, wanted: TaskFilter, limit: int, after: Place | None
) -> tuple[list[Place], Place | None]:
    """Up to `limit` places, the last one that ended first, and the one to go on after, if any.

    Of each status only so many tasks are looked at for one page, since but for the status no index
    helps: a page may be short or empty though another one follows.
    """
    conditions = filters.conditions(db, wanted)
    if conditions is None:
        return [], None
    bounds: filters.Conditions = [] if after is None else [(BEFORE, [*after])]
    ended = [status for status in wanted.status or tuple(Status) if status in FINAL]
    floor: Place | None = None
    if conditions:
        floors = [
            place
            for status in ended
            for place in _walk(db, status, bounds, 1, offset=filters.LOOKED - 1)
        ]
        floor = max(floors, default=None)
        if floor is not None:
            bounds.append((FROM, [*floor]))
    found = [
        place
        for status in dict.fromkeys(ended)
        for place in _walk(db, status, bounds + conditions, limit + 1)
    ]
    found.sort(reverse=True)
    if len(found) > limit:
        return found[:limit], found[limit - 1]
    return found, floor


def _walk(
    db: Connection, status: str, conditions: filters.Conditions, limit: int, offset: int = 0
) -> list[Place]:
    where = " AND ".join(condition for condition, _ in conditions) or "1 = 1"
    values = [value for _, values in conditions for value in values]
    rows = db.all(LAST.format(where=where), (str(status), *values, limit, offset))
    return [Place(*row) for row in rows]
