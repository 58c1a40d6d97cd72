"""The end of a run that is to be told is a chore; and how it went with what bulks moved is counted
as all tasks are, in rows of each owner.

Daemons of the versions before would do neither: they can use the database no more.
"""

from __future__ import annotations

from typing import Any

from peewee import PostgresqlDatabase

COMPATIBLE_FROM = 25

STEPS = """
INSERT INTO chores (kind, subject, due, at)
SELECT 'run', CAST(id AS TEXT) || ' ' || endpoint_id, 0, ended_at FROM runs
WHERE untold = 1 AND open_tasks = 0;
UPDATE runs SET ends = ends - 1 WHERE untold = 1 AND open_tasks > 0;
DROP INDEX "runs_untold";
ALTER TABLE "runs" DROP COLUMN "untold";
INSERT INTO task_counts (bulk_id, owner, status, tasks, at)
SELECT id, '', 'succeeded', succeeded, updated_at FROM bulks WHERE succeeded <> 0
UNION ALL SELECT id, '', 'failed', failed, updated_at FROM bulks WHERE failed <> 0;
ALTER TABLE "bulks" DROP COLUMN "succeeded";
ALTER TABLE "bulks" DROP COLUMN "failed";
"""
SQLITE = """
ALTER TABLE "task_counts" RENAME TO "counts_before";
CREATE TABLE "task_counts" (
    "bulk_id" INTEGER DEFAULT 0 NOT NULL, "owner" TEXT NOT NULL, "status" TEXT NOT NULL,
    "tasks" INTEGER NOT NULL, "at" INTEGER NOT NULL, PRIMARY KEY ("bulk_id", "owner", "status")
);
INSERT INTO task_counts SELECT 0, owner, status, tasks, at FROM counts_before;
DROP TABLE "counts_before";
"""
POSTGRES = """
ALTER TABLE "task_counts" ADD COLUMN "bulk_id" BIGINT DEFAULT 0 NOT NULL;
ALTER TABLE "task_counts" DROP CONSTRAINT "task_counts_pkey";
ALTER TABLE "task_counts" ADD PRIMARY KEY ("bulk_id", "owner", "status");
"""


def up(migrator: Any, db: Any) -> None:
    first = POSTGRES if isinstance(db, PostgresqlDatabase) else SQLITE
    for statement in (first + STEPS).split(";")[:-1]:
        db.execute_sql(statement)
