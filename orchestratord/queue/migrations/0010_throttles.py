"""What throttles lanes, URLs, endpoints and webhooks is kept, and of a task whether its backoff put
it off.

No table is rewritten: the column has a constant default.
"""

from __future__ import annotations

from typing import Any

from peewee import (
    SQL,
    BigIntegerField,
    CompositeKey,
    Database,
    DoubleField,
    IntegerField,
    Model,
    TextField,
)

COMPATIBLE_FROM = 9


class _Throttle(Model):
    name = TextField()
    kind = TextField()
    owner = TextField()
    host = TextField()
    since = BigIntegerField()
    until = BigIntegerField(null=True)
    why = TextField()
    served = DoubleField()

    class Meta:
        table_name = "throttles"
        primary_key = CompositeKey("name", "kind", "owner")


def up(migrator: Any, db: Database) -> None:
    added = IntegerField(constraints=[SQL("DEFAULT 0")])
    migrator.migrate(
        migrator.add_column("retry_schedule", "backed_off", added, allow_not_null=True)
    )
    with db.bind_ctx([_Throttle]):
        db.create_tables([_Throttle])
