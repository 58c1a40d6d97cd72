"""The outbox, which its plugin makes by now: the number stays, since queues have noted it."""

from __future__ import annotations

from typing import Any

from peewee import Database

COMPATIBLE_FROM = 9


def up(migrator: Any, db: Database) -> None:
    pass
