"""The baseline: all tables, from the models."""

from __future__ import annotations

from typing import Any

from peewee import Database, PostgresqlDatabase

from orchestratord.queue.models import POSTGRES_TABLES, TABLES

COMPATIBLE_FROM = 15


def up(migrator: Any, db: Database) -> None:
    tables = POSTGRES_TABLES if isinstance(db, PostgresqlDatabase) else TABLES
    with db.bind_ctx(tables):
        db.create_tables(tables)
