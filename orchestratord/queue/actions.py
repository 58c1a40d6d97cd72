"""The action log: what people did by hand, and who they were."""

from __future__ import annotations

import json
from typing import Any

from orchestratord.queue.database import Connection
from orchestratord.queue.records import Done
from orchestratord.queue.session import Session
from orchestratord.task import Action

RECORD = """
INSERT INTO actions (at, who, action, endpoint_id, webhook, task_id, bulk_id, detail)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""

NEWEST = """
SELECT id, at, who, action, endpoint_id, webhook, task_id, bulk_id, detail FROM actions
WHERE id < ? ORDER BY id DESC LIMIT ?
"""

_ANY = (1 << 63) - 1


def record(session: Session, who: str, action: Action) -> int:
    """Write one down; its number."""
    values = (action.name, action.endpoint, action.webhook, action.task, action.bulk)
    return session.db.insert(
        RECORD, (session.now(), who, *values, json.dumps(action.detail, default=dict))
    )


def newest(db: Connection, limit: int, after: int | None) -> list[Done]:
    """Up to `limit`, newest first, older than `after`."""
    rows = db.all(NEWEST, (_ANY if after is None else after, limit))
    return [_done(*row) for row in rows]


def _done(id_: int, at: int, who: str, name: str, *rest: Any) -> Done:
    endpoint, webhook, task, bulk, detail = rest
    return Done(id_, at, who, Action(name, endpoint, webhook, task, bulk, json.loads(detail)))
