"""Tasks know their last bulk, and which task they replace; bulks how it went with what they moved.

No table is rewritten: what is added is null, or has a constant default. What daemons of the
versions before end of a bulk is not counted as succeeded or failed.
"""

from __future__ import annotations

from typing import Any

from peewee import SQL, BigIntegerField, Node, PostgresqlDatabase

from orchestratord.queue.schema import LOCK_TIMEOUT, build_index

COMPATIBLE_FROM = 9

atomic = False  # its index is built while others read and write


def up(migrator: Any, db: Any) -> None:
    postgres = isinstance(db, PostgresqlDatabase)
    zero: list[Node] = [SQL("DEFAULT 0")]
    added: dict[str, dict[str, BigIntegerField]] = {
        "retry_schedule": {
            "bulk_id": BigIntegerField(null=True),
            "replaces": BigIntegerField(null=True),
        },
        "bulks": {
            "succeeded": BigIntegerField(constraints=zero),
            "failed": BigIntegerField(constraints=zero),
            "stop_after": BigIntegerField(constraints=zero),
            "stop_at": BigIntegerField(null=True),
            "ended_at": BigIntegerField(null=True),
            "untold": BigIntegerField(constraints=zero),
        },
    }
    with db.atomic():
        if postgres:
            db.execute_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        for table, columns in added.items():
            there = {column.name for column in db.get_columns(table)}
            for name, field in columns.items():
                if name not in there:  # else it was broken off after this step
                    migrator.migrate(migrator.add_column(table, name, field, allow_not_null=True))
        db.execute_sql("UPDATE bulks SET ended_at = finished_at WHERE ended_at IS NULL")
    on = '"bulk_id", "status"' + (', "id"' if postgres else "")
    build_index(db, "retry_schedule_bulk", f'"retry_schedule" ({on}) WHERE ("bulk_id" IS NOT NULL)')
