"""Bulks that cancel, and the log of what people did."""

from __future__ import annotations

from typing import Any

from peewee import SQL, BigIntegerField, Database, Model, TextField

from orchestratord.queue.database import IdField
from orchestratord.queue.schema import stamp


def up(migrator: Any, db: Database) -> None:
    class ActionRow(Model):
        id = IdField()
        at = BigIntegerField()
        who = TextField()
        action = TextField()
        endpoint_id = TextField(null=True)
        webhook = TextField(null=True)
        task_id = BigIntegerField(null=True)
        bulk_id = BigIntegerField(null=True)
        detail = TextField(constraints=[SQL("DEFAULT '{}'")])

        class Meta:
            table_name = "actions"

    ActionRow.add_index(ActionRow.at, name="actions_at")
    with db.bind_ctx([ActionRow]):
        db.create_tables([ActionRow])
    db.execute_sql(  # type: ignore[no-untyped-call]  # peewee leaves it so
        "ALTER TABLE bulks ADD COLUMN action TEXT DEFAULT 'retry' NOT NULL"
    )
    # A daemon of an older version would go on with a bulk that cancels as if it retried.
    stamp(db, version=4, compatible_from=4)
