"""What daemons know of each other; of a bulk retry, who carries it out."""

from __future__ import annotations

from typing import Any

from peewee import BigIntegerField, Database, IntegerField, Model, TextField

from orchestratord.queue.schema import stamp


def up(migrator: Any, db: Database) -> None:
    class DaemonRow(Model):
        owner = TextField(primary_key=True)
        host = TextField()
        pid = IntegerField()
        version = TextField()
        generation = IntegerField()
        fingerprint = TextField()
        declared = TextField()
        started_at = BigIntegerField()
        beat_at = BigIntegerField()
        lease_until = BigIntegerField()

        class Meta:
            table_name = "daemons"

    with db.bind_ctx([DaemonRow]):
        db.create_tables([DaemonRow])
    migrator.migrate(
        migrator.add_column("bulks", "owner", TextField(null=True)),
        migrator.add_column("bulks", "lease_until", BigIntegerField(null=True)),
        migrator.add_column("schedules", "before", TextField(null=True)),
    )
    stamp(db, version=3, compatible_from=1)
