"""Rates that daemons keep together."""

from __future__ import annotations

from typing import Any

from peewee import Database, Model, TextField

from orchestratord.queue.schema import stamp


def up(migrator: Any, db: Database) -> None:
    class RateRow(Model):
        lane = TextField(primary_key=True)
        stamps = TextField()

        class Meta:
            table_name = "rates"

    with db.bind_ctx([RateRow]):
        db.create_tables([RateRow])
    # An older daemon counts its own calls alone, and does all else as before.
    stamp(db, version=5, compatible_from=4)
