"""What has to be true at the end of a universe, whatever went wrong in it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.universe import Universe

COLUMNS = (
    "id, kind, endpoint_id, webhook, phase, status, reason, attempts, params, parent_id, idempotent"
)
ENDED = ("succeeded", "failed", "cancelled")


def rows(universe: Universe) -> list[dict[str, Any]]:
    """All tasks, as another program sees them."""
    with closing(sqlite3.connect(universe.path)) as db:
        db.row_factory = sqlite3.Row
        found = db.execute(f"SELECT {COLUMNS} FROM retry_schedule ORDER BY id").fetchall()
    return [dict(row) for row in found]


def all_ended(universe: Universe) -> bool:
    """Whether no task waits or runs."""
    with closing(sqlite3.connect(universe.path)) as db:
        waiting = "SELECT 1 FROM retry_schedule WHERE status IN ('pending', 'running') LIMIT 1"
        return db.execute(waiting).fetchone() is None


def check(universe: Universe) -> None:
    """Say what is wrong."""
    try:
        found = rows(universe)
    except sqlite3.Error as error:
        universe.broken("the queue cannot be read", error)
        return
    for one in CHECKS:
        one(universe, found)


def ends(universe: Universe, found: list[dict[str, Any]]) -> None:
    """Everything has ended, an hour after the last fault."""
    for row in found:
        if row["status"] not in ENDED:
            universe.broken(f"task {row['id']} of {row['endpoint_id']} is still {row['status']}")


def acknowledged(universe: Universe, found: list[dict[str, Any]]) -> None:
    """What was acknowledged is there, and nothing is there twice."""
    calls = [row for row in found if row["kind"] == "call"]
    ids = {row["id"] for row in calls}
    for call in universe.calls:
        if call.id is not None and call.id not in ids:
            universe.broken(f"call {call.number} was acknowledged as {call.id}, and is lost")
    for params, count in Counter(row["params"] for row in calls).items():
        if count > 1:
            universe.broken(f"the call with {params} is there {count} times")


def successes(universe: Universe, found: list[dict[str, Any]]) -> None:
    """Each success had its 2xx, and nothing was sent more often than it was tried."""
    calls = [one for one in universe.network.arrivals if one.host != "hooks.test"]
    good = {one.task for one in calls if one.status == 200}
    sent = Counter(one.task for one in calls)
    for row in found:
        if row["kind"] != "call":
            continue
        if row["status"] == "succeeded" and row["id"] not in good:
            universe.broken(f"task {row['id']} succeeded, and no receiver says so")
        # What was under way as its process died is no attempt, unless it may be repeated.
        tries = row["attempts"] + (row["reason"] == "ambiguous")
        if not row["idempotent"] and sent[row["id"]] > tries:
            universe.broken(f"task {row['id']} was sent {sent[row['id']]} times, not {tries}")


def deliveries(universe: Universe, found: list[dict[str, Any]]) -> None:
    """One delivery for each end that asks for one, and none else."""
    wanted: Counter[tuple[int, str]] = Counter()
    for row in found:
        if row["kind"] == "call" and row["status"] in ("succeeded", "failed"):
            phase = "on_success" if row["status"] == "succeeded" else "on_final_failure"
            wanted[row["id"], phase] += 1
    made = Counter((row["parent_id"], row["phase"]) for row in found if row["kind"] == "webhook")
    for key in wanted.keys() | made.keys():
        if wanted[key] != made[key]:
            universe.broken(f"{made[key]} deliveries for {key}, not {wanted[key]}")


CHECKS = (ends, acknowledged, successes, deliveries)
"""What `check` goes through; a new check is a function, and stands here."""
