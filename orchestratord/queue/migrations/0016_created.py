"""On PostgreSQL the index by creation leaves out what runs, and has the status beside.

Daemons of the version before find all that they look for; those that want the tasks since a time go
through all of the table until they are replaced.
"""

from __future__ import annotations

from typing import Any

from peewee import PostgresqlDatabase

from orchestratord.queue.schema import LOCK_TIMEOUT, build_index

COMPATIBLE_FROM = 15

atomic = False  # the index is built while others read and write

LISTED = "(\"status\" != 'running')"
NEW = "retry_schedule_created_new"
"""Until the one before is gone."""


def up(migrator: Any, db: Any) -> None:
    postgres = isinstance(db, PostgresqlDatabase)
    if not postgres:
        return
    build_index(db, NEW, f'"retry_schedule" ("created_at", "status") WHERE {LISTED}')
    with db.atomic():
        db.execute_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        db.execute_sql("DROP INDEX IF EXISTS retry_schedule_created")
        db.execute_sql(f"ALTER INDEX {NEW} RENAME TO retry_schedule_created")
