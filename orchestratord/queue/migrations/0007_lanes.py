"""What daemons know of each other's lanes: which of them wait for their receiver."""

from __future__ import annotations

from typing import Any

from peewee import Database, TextField

from orchestratord.queue.schema import stamp


def up(migrator: Any, db: Database) -> None:
    migrator.migrate(migrator.add_column("daemons", "lanes", TextField(null=True)))
    stamp(db, version=7, compatible_from=4)
