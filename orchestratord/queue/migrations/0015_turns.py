"""What a task's partition keeps of it stands in three columns, where it was in five; and what runs
is not in the indexes by status and by endpoint.

Daemons of the versions before write the columns that are dropped: they can use the database no
more. SQLite writes each row anew for that; a queue holds what retention leaves.
"""

from __future__ import annotations

from typing import Any

from peewee import SQL, BigIntegerField, IntegerField, Node, PostgresqlDatabase

from orchestratord.queue.schema import LOCK_TIMEOUT, build_index

COMPATIBLE_FROM = 15

atomic = False  # its indexes are built while others read and write

OLD = ("partition_limit", "ordered", "blocks", "first_at")
LISTED = "(\"status\" != 'running')"
LINE = '"endpoint_id", "webhook", "partition"'
INDEXES = {
    "status": ('"status"', ', "id"', LISTED),
    "endpoint": ('"endpoint_id", "status"', ', "id"', LISTED),
    "held": (f'{LINE}, "turn_at", "next_try"', ', "id"', '("held" = 1)'),
    "head": (
        f'{LINE}, "status"',
        "",
        '((("partition_rule" >= 0) AND ("held" = 0)) AND (("status" = \'pending\') '
        'OR (("partition_rule" > 0) AND ("status" = \'running\'))))',
    ),
    "blocks": (LINE, ', "id"', '("turn_at" > 0)'),
    "stopped": (LINE, "", '(("turn_at" = 1) AND ("held" = 0))'),
    "ordered": (LINE, "", '(("turn_at" > 1) AND ("held" = 0))'),
}
"""Of each index its columns, what PostgreSQL has behind them, and which rows it holds."""

MOVE = """
UPDATE retry_schedule
SET partition_rule = CASE WHEN ordered > 0 THEN -ordered ELSE partition_limit END,
    turn_at = CASE
        WHEN ordered = 0 OR blocks = 0 THEN 0
        WHEN status NOT IN ('pending', 'running') THEN 1
        ELSE COALESCE(first_at, CASE WHEN held = 1 THEN 1 ELSE updated_at END) END
WHERE partition IS NOT NULL
"""


def up(migrator: Any, db: Any) -> None:
    postgres = isinstance(db, PostgresqlDatabase)
    zero: list[Node] = [SQL("DEFAULT 0")]
    new = {
        "partition_rule": IntegerField(null=True),
        "turn_at": BigIntegerField(constraints=zero),
    }
    there = {column.name for column in db.get_columns("retry_schedule")}
    if OLD[-1] in there:  # else it was broken off after this step
        with db.atomic():
            if postgres:
                db.execute_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            for name, field in new.items():
                add = migrator.add_column("retry_schedule", name, field, allow_not_null=True)
                migrator.migrate(add)
            db.execute_sql(MOVE)
            for name in (*INDEXES, "limit"):
                db.execute_sql(f"DROP INDEX IF EXISTS retry_schedule_{name}")
            for name in OLD:
                db.execute_sql(f'ALTER TABLE "retry_schedule" DROP COLUMN "{name}"')
            # Broken off after this, it is no more for those of before, either.
            db.execute_sql('UPDATE "schema" SET compatible_from = 15')
    for name, (on, more, where) in INDEXES.items():
        on += more if postgres else ""
        if name == "blocks" and postgres:
            where = f'({where} AND ("id" > 0))'
        index = f"retry_schedule_{name}"
        build_index(db, index, f'"retry_schedule" ({on}) WHERE {where}', unique=name == "ordered")
