"""What each writing connection has committed last, for when nobody knows."""

from __future__ import annotations

from typing import Any

from peewee import Database

from orchestratord.queue.schema import stamp


def up(migrator: Any, db: Database) -> None:
    db.execute_sql(  # type: ignore[no-untyped-call]  # peewee leaves it so
        """CREATE TABLE commits (
            writer text COLLATE "C" NOT NULL, number bigint NOT NULL,
            at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (writer, number)
        )"""
    )
    stamp(db, version=6, compatible_from=4)
