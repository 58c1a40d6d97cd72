"""How long the chain of calls is that led to a task."""

from __future__ import annotations

from typing import Any

from peewee import Database

from orchestratord.queue.schema import stamp


def up(migrator: Any, db: Database) -> None:
    db.execute_sql(  # type: ignore[no-untyped-call]  # peewee leaves it so
        "ALTER TABLE retry_schedule ADD COLUMN depth INTEGER DEFAULT 0 NOT NULL"
    )
    # An older daemon counts no chain, and does all else as before.
    stamp(db, version=2, compatible_from=1)
