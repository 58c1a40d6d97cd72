"""Claims are counted, each task has a nonce, bulks say why they skipped what they skipped, daemons
which schema they know, schedules which slots they took, and starts whether the task ran alone.

No table is rewritten: what is added is null, or has a constant default.
"""

from __future__ import annotations

from typing import Any

from peewee import SQL, Database, Field, IntegerField, TextField

COMPATIBLE_FROM = 4


def up(migrator: Any, db: Database) -> None:
    def column(table: str, name: str, field: Field) -> Any:
        return migrator.add_column(table, name, field, allow_not_null=True)

    migrator.migrate(
        column("retry_schedule", "claims", IntegerField(constraints=[SQL("DEFAULT 0")])),
        column("retry_schedule", "nonce", TextField(null=True)),
        column("retry_schedule", "asked", TextField(null=True)),
        column("retry_schedule", "alone", IntegerField(constraints=[SQL("DEFAULT 0")])),
        column("schedules", "taken", TextField(null=True)),
        column("bulks", "wanted", TextField(null=True)),
        column("bulks", "why_skipped", TextField(constraints=[SQL("DEFAULT '{}'")])),
        column("daemons", "schema_version", IntegerField(constraints=[SQL("DEFAULT 7")])),
    )
