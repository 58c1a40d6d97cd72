"""The delay that an attempt has chosen is kept beside the next try, which a breaker brings forward.

What waits for its backoff as this is done waits until its next try. Daemons of the version before
go on, and bring forward what they always did. No table is rewritten: the column is null.
"""

from __future__ import annotations

from typing import Any

from peewee import BigIntegerField

COMPATIBLE_FROM = 15

WAITS = """
UPDATE retry_schedule SET backoff_until = next_try WHERE status = 'pending' AND backed_off = 1
"""


def up(migrator: Any, db: Any) -> None:
    migrator.migrate(
        migrator.add_column("retry_schedule", "backoff_until", BigIntegerField(null=True))
    )
    db.execute_sql(WAITS)
