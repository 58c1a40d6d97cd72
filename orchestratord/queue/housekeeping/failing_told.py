"""Which endpoints were told of as failing, so that they are not told of again."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from orchestratord.queue.batch import Rank, reads, writes
from orchestratord.queue.connection import Connection
from orchestratord.queue.models import Fact, sql
from orchestratord.queue.session import Session

TOLD = "failing_told:"
"""What the names of these facts begin with, before the endpoint."""

ALL = "SELECT name, value FROM meta WHERE name >= ? AND name < ?"


@reads
def told(db: Connection) -> dict[str, int]:
    """Endpoint → when it was told of, milliseconds since the epoch."""
    rows = db.all(ALL, (TOLD, TOLD + "\uffff"))
    return {name.removeprefix(TOLD): int(value) for name, value in rows}


@writes(Rank.KEEP)
def note(session: Session, told: Mapping[str, int], over: Collection[str]) -> None:
    """Remember that these were told of, and when, and forget those that do not fail any more."""
    for name, at in sorted(told.items()):
        new = Fact.insert(name=TOLD + name, value=str(at))
        new = new.on_conflict(conflict_target=[Fact.name], preserve=[Fact.value])
        session.db.run(*sql(new))
    for name in sorted(over):
        session.db.run(*sql(Fact.delete().where(Fact.name == TOLD + name)))
