"""How often a call has looked whether it is done, and since when.

Daemons of the version before go on: they take each look for an attempt that failed. No table is
rewritten.
"""

from __future__ import annotations

from typing import Any

from peewee import SQL, BigIntegerField, IntegerField

COMPATIBLE_FROM = 15


def up(migrator: Any, db: Any) -> None:
    looks, since = IntegerField(constraints=[SQL("DEFAULT 0")]), BigIntegerField(null=True)
    migrator.migrate(
        migrator.add_column("retry_schedule", "looks", looks, allow_not_null=True),
        migrator.add_column("retry_schedule", "looked_since", since),
    )
