"""What the relay keeps in the queue: which rows are taken, which are to be marked, and which it
looks at by themselves."""

from __future__ import annotations

from orchestratord import QueueRows, Table, TableStep
from orchestratord_outbox.outbox_schema import outbox_schema

_INDEX = "CREATE INDEX outbox_taken_at ON outbox_taken (at)"

TAKEN = Table(
    "outbox_taken",
    {"uid": "TEXT NOT NULL", "at": "INTEGER NOT NULL"},
    key=("uid",),
    adopted=False,
    steps=(
        TableStep(
            sqlite=(
                "CREATE TABLE outbox_taken (uid TEXT NOT NULL PRIMARY KEY, at INTEGER NOT NULL)",
                _INDEX,
            ),
            postgres=(
                'CREATE TABLE outbox_taken (uid text COLLATE "C" PRIMARY KEY, at bigint NOT NULL)',
                _INDEX,
                outbox_schema(),
            ),
        ),
    ),
)
"""The rows of an application's outbox that have made their call, by their `uid`, until they are
seen to be gone. On PostgreSQL the queue's own outbox is made with it; a row of that goes in the
transaction that makes its call, and none stands here."""

REFUSALS = Table(
    "outbox_refusals",
    {
        "uid": "TEXT NOT NULL",
        "outbox": "TEXT NOT NULL",
        "row": "INTEGER NOT NULL",
        "endpoint": "TEXT NOT NULL",
        "reason": "TEXT NOT NULL",
        "problem": "TEXT NOT NULL",
    },
    key=("uid",),
    adopted=False,
)
"""Rows that make no call and are to be marked, with what the mark is to be. Its outbox may be in
another database, so the queue keeps it until the row is marked, together with what plugins write of
it: the daemon that relays next marks the row, and asks no plugin again."""

LOOKS = Table(
    "outbox_looks",
    {"uid": "TEXT NOT NULL", "relay": "TEXT NOT NULL", "deaths": "INTEGER NOT NULL"},
    key=("uid",),
    adopted=False,
)
"""Which relay looks at a row by itself, and how many have died of it; with an empty `uid`, who
relays."""

_THOSE = """
FROM orchestratord_outbox
WHERE id IN (SELECT v::bigint FROM jsonb_array_elements_text(?::jsonb) AS t (v))
"""

OWN_ROWS = QueueRows(
    lock=f"""SELECT id::text {_THOSE} AND coalesce(refused_at, 'infinity') = 'infinity'
        FOR UPDATE SKIP LOCKED""",
    take=f"DELETE {_THOSE}",
)
"""In the queue's own database; a row that others just change is looked at another time. Written so
that rows are found by their ids: the index of those that wait looks shorter, and is not."""
