"""The outbox: on PostgreSQL the table and the function that producers call, on both databases which
rows of an application's outbox have been taken.
"""

from __future__ import annotations

from typing import Any

from peewee import Database, PostgresqlDatabase

from orchestratord.queue.postgres.outbox_schema import outbox_schema

COMPATIBLE_FROM = 9

TAKEN = """
CREATE TABLE "outbox_taken" ("uid" {text} NOT NULL PRIMARY KEY, "at" {bigint} NOT NULL);
CREATE INDEX "outbox_taken_at" ON "outbox_taken" ("at");
"""


def up(migrator: Any, db: Database) -> None:
    run: Any = db.execute_sql  # peewee leaves it untyped
    postgres = isinstance(db, PostgresqlDatabase)
    text = 'TEXT COLLATE "C"' if postgres else "TEXT"
    bigint = "BIGINT" if postgres else "INTEGER"
    for statement in TAKEN.format(text=text, bigint=bigint).split(";")[:-1]:
        run(statement)
    if postgres:
        [(schema,)] = run("SELECT current_schema()").fetchall()
        run(outbox_schema(schema))
