"""What a bulk that resolves tasks says of them.

Daemons of the version before go on: of such a bulk they find no task, and move none.
"""

from __future__ import annotations

from typing import Any

from peewee import TextField

COMPATIBLE_FROM = 15


def up(migrator: Any, db: Any) -> None:
    migrator.migrate(migrator.add_column("bulks", "resolution", TextField(null=True)))
