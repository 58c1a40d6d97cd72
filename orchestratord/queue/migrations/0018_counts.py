"""How many tasks each status has is kept, and an index finds tasks by their reason.

Daemons of the versions before go on, and change tasks without counting them: those of this version
count anew from time to time.
"""

from __future__ import annotations

from typing import Any

from peewee import PostgresqlDatabase

from orchestratord.queue.schema import build_index

COMPATIBLE_FROM = 15

atomic = False  # its index is built while others read and write

COUNTS = """
CREATE TABLE IF NOT EXISTS "task_counts" (
    "owner" {text} NOT NULL, "status" {text} NOT NULL, "tasks" {bigint} NOT NULL,
    "at" {bigint} NOT NULL, PRIMARY KEY ("owner", "status")
) {room}
"""
FILL = """
INSERT INTO task_counts (owner, status, tasks, at)
SELECT '', status, count(*), 0 FROM retry_schedule GROUP BY status
ON CONFLICT (owner, status) DO NOTHING
"""


def up(migrator: Any, db: Any) -> None:
    postgres = isinstance(db, PostgresqlDatabase)
    text = 'TEXT COLLATE "C"' if postgres else "TEXT"
    bigint, room = ("BIGINT", "WITH (fillfactor = 50)") if postgres else ("INTEGER", "")
    with db.atomic():
        db.execute_sql(COUNTS.format(text=text, bigint=bigint, room=room))
        db.execute_sql(FILL)
    on = '"reason", "status"' + (', "id"' if postgres else "")
    where = '"reason" IS NOT NULL'
    build_index(db, "retry_schedule_reason", f'"retry_schedule" ({on}) WHERE ({where})')
