"""Which endpoints were told of as failing, so that they are not told of again."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from orchestratord.queue import facts
from orchestratord.queue.batch import Rank, reads, writes
from orchestratord.queue.connection import Connection
from orchestratord.queue.session import Session

TOLD = "failing_told:"
"""What the names of these facts begin with, before the endpoint."""


@reads
def told(db: Connection) -> dict[str, int]:
    """Endpoint → when it was told of, milliseconds since the epoch."""
    return {name: int(value) for name, value in facts.beginning_with(db, TOLD).items()}


@writes(Rank.KEEP)
def note(session: Session, told: Mapping[str, int], over: Collection[str]) -> None:
    """Remember that these were told of, and when, and forget those that do not fail any more."""
    for name, at in sorted(told.items()):
        facts.put(session.db, TOLD + name, str(at))
    for name in sorted(over):
        facts.forget(session.db, TOLD + name)
