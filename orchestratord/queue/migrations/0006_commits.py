"""A number that PostgreSQL's schema has now; nothing changes here."""

from __future__ import annotations

from typing import Any

from peewee import Database

from orchestratord.queue.schema import stamp


def up(migrator: Any, db: Database) -> None:
    stamp(db, version=6, compatible_from=4)
