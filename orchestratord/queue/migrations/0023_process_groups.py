"""Each worker has a row in `daemons`, which names its process group and says what keeps it from its
work.

Daemons of the versions before go on, and show each worker as a daemon. Workers of the versions
before share no file with those of this one: they know each other by locks.
"""

from __future__ import annotations

from typing import Any

from peewee import SQL, IntegerField, TextField

COMPATIBLE_FROM = 15


def up(migrator: Any, db: Any) -> None:
    number = IntegerField(constraints=[SQL("DEFAULT 1")])
    migrator.migrate(
        migrator.add_column("daemons", "process_group", TextField(null=True)),
        migrator.add_column("daemons", "worker", number, allow_not_null=True),
        migrator.add_column("daemons", "troubles", TextField(null=True)),
    )
