"""What daemons know of each other's lanes: which of them wait for their receiver."""

from __future__ import annotations

from typing import Any

from peewee import Database

from orchestratord.queue.schema import stamp


def up(migrator: Any, db: Database) -> None:
    db.execute_sql(  # type: ignore[no-untyped-call]  # peewee leaves it so
        'ALTER TABLE daemons ADD COLUMN lanes text COLLATE "C"'
    )
    stamp(db, version=7, compatible_from=4)
