"""Counting all tasks anew: people's SQL, and daemons of before schema 18, change rows uncounted.

What is counted and what is there are read at one moment, and the difference is added, whatever is
counted meanwhile. Of several daemons that have found the same, one adds it.
"""

from __future__ import annotations

import logging
from collections import Counter

from orchestratord.queue import facts, task_counts
from orchestratord.queue.batch import Rank, long_reads, writes
from orchestratord.queue.connection import BY_RUNNING, BY_STATUS, LISTED, RUNNING, Connection
from orchestratord.queue.session import Session
from orchestratord.queue.store import Store

log = logging.getLogger("orchestratord.queue")

EACH_MS = 600_000
"""All daemons together count anew once within this time."""
SILENT_MS = 24 * 3600 * 1000
"""Rows of an owner that have not changed for so long are added to those without an owner."""

THERE = f"""
SELECT status, count(*) FROM retry_schedule {BY_STATUS} WHERE {LISTED} GROUP BY status
UNION ALL SELECT 'running', count(*) FROM retry_schedule {BY_RUNNING} WHERE {RUNNING}
"""  # noqa: S608  # these are hints and conditions
"""How many tasks there are of each status."""

COUNTED = "tasks_counted"
"""The fact when all tasks were last counted anew, in milliseconds since the epoch."""
SILENT = "DELETE FROM task_counts WHERE owner <> '' AND at < ? RETURNING bulk_id, status, tasks"


async def recount(store: Store) -> None:
    """Correct what is counted, and add up what dead daemons have counted: at a start, now and then,
    and once another program is known to have written."""
    changes = store.foreign_changes
    last, off = await store.read(_look(store.clock.now_ms(), changes != store.recounted_at))
    if off is not None and await store.write(_correct(last, off)) and off:
        words = ", ".join(f"{status} {count:+d}" for status, count in off.items())
        log.warning("corrected the numbers of tasks, which something else has changed: %s", words)
    store.recounted_at = changes


@long_reads
def _look(db: Connection, now: int, at_once: bool) -> tuple[str | None, dict[str, int] | None]:
    """When tasks were last counted anew, and of which status there are how many more than are
    counted; None where that was lately, and is not to be done `at_once`."""
    last = facts.get(db, COUNTED)
    if not at_once and now - EACH_MS < int(last or 0) <= now:
        return last, None
    known, there = task_counts.total(db), Counter[str](dict(db.all(THERE)))
    return last, {name: there[name] - known[name] for name in known if there[name] != known[name]}


@writes(Rank.KEEP)
def _correct(session: Session, last: str | None, off: dict[str, int]) -> bool:
    """Add what was found; False where another daemon has done so since `last`."""
    db, now = session.db, session.now()
    if facts.get(db, COUNTED, db.for_update) != last:
        return False
    facts.put(db, COUNTED, str(now))
    more = Counter({(task_counts.ALL, status): tasks for status, tasks in off.items()})
    for bulk_id, status, tasks in db.all(SILENT, (now - SILENT_MS,)):
        more[bulk_id, status] += tasks
    task_counts.add(db, "", now, more)
    return True
