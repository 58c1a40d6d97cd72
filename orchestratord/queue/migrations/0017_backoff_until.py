"""The delay that an attempt has chosen is kept beside the next try, which a breaker brings forward.

Daemons of the version before go on, and bring forward what they always did. No table is rewritten:
the column is null.
"""

from __future__ import annotations

from typing import Any

from peewee import BigIntegerField

COMPATIBLE_FROM = 15


def up(migrator: Any, db: Any) -> None:
    added = BigIntegerField(null=True)
    migrator.migrate(migrator.add_column("retry_schedule", "backoff_until", added))
