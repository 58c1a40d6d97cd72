"""Calls belong to a run, which counts how they ended.

Daemons of the versions before would end calls without counting them, so that runs never end: they
can use the database no more. No table is rewritten: the column is null.
"""

from __future__ import annotations

from typing import Any

from peewee import BigIntegerField, PostgresqlDatabase

from orchestratord.queue.schema import LOCK_TIMEOUT, build_index

COMPATIBLE_FROM = 13

atomic = False  # its index is built while others read and write

RUNS = """
CREATE TABLE IF NOT EXISTS "runs" (
    "id" {bigint} NOT NULL PRIMARY KEY, "endpoint_id" {text} NOT NULL,
    "tasks" INTEGER NOT NULL, "open_tasks" INTEGER NOT NULL, "succeeded" INTEGER NOT NULL,
    "failed" INTEGER NOT NULL, "cancelled" INTEGER NOT NULL, "ends" INTEGER NOT NULL DEFAULT 0,
    "untold" INTEGER NOT NULL DEFAULT 0, "created_at" {bigint} NOT NULL, "ended_at" {bigint}
) {room};
CREATE INDEX IF NOT EXISTS "runs_untold" ON "runs" ("id") WHERE ("untold" = 1);
CREATE INDEX IF NOT EXISTS "runs_ended" ON "runs" ("ended_at") WHERE ("ended_at" IS NOT NULL);
"""


def up(migrator: Any, db: Any) -> None:
    postgres = isinstance(db, PostgresqlDatabase)
    text = 'TEXT COLLATE "C"' if postgres else "TEXT"
    bigint, room = ("BIGINT", "WITH (fillfactor = 50)") if postgres else ("INTEGER", "")
    there = {column.name for column in db.get_columns("retry_schedule")}
    with db.atomic():
        if postgres:
            db.execute_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        if "run_id" not in there:  # else it was broken off after this step
            migrator.migrate(
                migrator.add_column("retry_schedule", "run_id", BigIntegerField(null=True))
            )
        for statement in RUNS.format(text=text, bigint=bigint, room=room).split(";")[:-1]:
            db.execute_sql(statement)
    on = '"run_id", "id"' if postgres else '"run_id"'
    build_index(db, "retry_schedule_run", f'"retry_schedule" ({on}) WHERE ("run_id" IS NOT NULL)')
