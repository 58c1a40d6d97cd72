"""What a task waits for that a hook has put off.

Daemons of the version before go on: what they put off says nothing. No table is rewritten.
"""

from __future__ import annotations

from typing import Any

from peewee import TextField

COMPATIBLE_FROM = 15


def up(migrator: Any, db: Any) -> None:
    migrator.migrate(migrator.add_column("retry_schedule", "waits_for", TextField(null=True)))
