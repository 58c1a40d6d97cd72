"""Tasks have a partition, its rule, and whether they wait for their turn in it.

What waits for its turn is in no index that claims go by: daemons of the versions before know
nothing of that, and can use the table no more. No table is rewritten: what is added is null, or has
a constant default.
"""

from __future__ import annotations

from typing import Any

from peewee import SQL, BigIntegerField, IntegerField, Node, PostgresqlDatabase, TextField

from orchestratord.queue.schema import LOCK_TIMEOUT, build_index

COMPATIBLE_FROM = 9

atomic = False  # its indexes are built while others read and write

LINE = '"endpoint_id", "webhook", "partition"'
INDEXES = {
    "ready": (
        '"endpoint_id", "webhook", "next_try"',
        ', "id"',
        '(("status" = \'pending\') AND ("held" = 0))',
    ),
    "held": (f'{LINE}, "ordered", "next_try"', ', "id"', '("held" = 1)'),
    "head": (
        LINE,
        "",
        '(((("partition" IS NOT NULL) AND ("status" = \'pending\')) AND ("held" = 0)) '
        'AND ("ordered" = 0))',
    ),
    "limit": (LINE, "", '(("partition_limit" > 0) AND ("status" = \'running\'))'),
    "blocks": (LINE, ', "id"', '("blocks" = 1)'),
    "stopped": (LINE, "", '(("blocks" = 1) AND ("status" = \'failed\'))'),
    "ordered": (
        LINE,
        "",
        '((("ordered" > 0) AND ("held" = 0)) AND ("status" IN (\'pending\', \'running\')))',
    ),
    "partition": ('"partition"', ', "id"', '("partition" IS NOT NULL)'),
}
"""Of each index its columns, what PostgreSQL has behind them, and which rows it holds."""


def up(migrator: Any, db: Any) -> None:
    postgres = isinstance(db, PostgresqlDatabase)
    zero: list[Node] = [SQL("DEFAULT 0")]
    columns = {
        "partition": TextField(null=True),
        "partition_limit": IntegerField(constraints=zero),
        "ordered": IntegerField(constraints=zero),
        "held": IntegerField(constraints=zero),
        "blocks": IntegerField(constraints=zero),
        "first_at": BigIntegerField(null=True),
    }
    there = {column.name for column in db.get_columns("retry_schedule")}
    with db.atomic():
        if postgres:
            db.execute_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        for name, field in columns.items():
            if name not in there:  # else it was broken off after this step
                add = migrator.add_column("retry_schedule", name, field, allow_not_null=True)
                migrator.migrate(add)
    for name, (on, more, where) in INDEXES.items():
        on += more if postgres else ""
        if name == "partition" and postgres:
            where += ' AND ("id" > 0)'
        index = f"retry_schedule_{name}"
        build_index(db, index, f'"retry_schedule" ({on}) WHERE {where}', unique=name == "ordered")
    # Its place has the index `ready`.
    db.execute_sql(f"DROP INDEX {'CONCURRENTLY ' if postgres else ''}IF EXISTS retry_schedule_due")
