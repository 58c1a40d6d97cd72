"""The end of a run that is to be told is a chore.

Daemons of the versions before would not tell it: they can use the database no more.
"""

from __future__ import annotations

from typing import Any

COMPATIBLE_FROM = 25

STEPS = """
INSERT INTO chores (kind, subject, due, at)
SELECT 'run', CAST(id AS TEXT) || ' ' || endpoint_id, 0, ended_at FROM runs
WHERE untold = 1 AND open_tasks = 0;
UPDATE runs SET ends = ends - 1 WHERE untold = 1 AND open_tasks > 0;
DROP INDEX "runs_untold";
ALTER TABLE "runs" DROP COLUMN "untold";
"""


def up(migrator: Any, db: Any) -> None:
    for statement in STEPS.split(";")[:-1]:
        db.execute_sql(statement)
