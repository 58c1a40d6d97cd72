"""Rates that daemons keep together."""

from __future__ import annotations

from typing import Any

from peewee import Database

from orchestratord.queue.schema import stamp


def up(migrator: Any, db: Database) -> None:
    db.execute_sql(  # type: ignore[no-untyped-call]  # peewee leaves it so
        """CREATE TABLE rates (
            lane text COLLATE "C" PRIMARY KEY, stamps text COLLATE "C" NOT NULL
        ) WITH (fillfactor = 50)"""
    )
    # An older daemon counts its own calls alone, and does all else as before.
    stamp(db, version=5, compatible_from=4)
