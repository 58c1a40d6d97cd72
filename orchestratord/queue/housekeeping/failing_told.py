"""Which endpoints were told of as failing, so that they are not told of again."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from orchestratord.queue import facts
from orchestratord.queue.batch import Rank, reads, writes
from orchestratord.queue.connection import Connection
from orchestratord.queue.operations.effects import apply_effects
from orchestratord.queue.records import Inserted, StoredEffect
from orchestratord.queue.session import Session

TOLD = "failing_told:"
"""What the names of these facts begin with, before the endpoint."""

TELL = """
INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value
WHERE meta.value = ?
"""


@reads
def told(db: Connection) -> dict[str, int]:
    """Endpoint → when it was told of, milliseconds since the epoch."""
    return {name: int(value) for name, value in facts.beginning_with(db, TOLD).items()}


@writes(Rank.KEEP)
def note_over(session: Session, over: Collection[str]) -> None:
    """Forget those that do not fail any more."""
    for name in sorted(over):
        facts.forget(session.db, TOLD + name)


@writes(Rank.KEEP)
def tell(
    session: Session, name: str, at: int, before: int | None, effects: Sequence[StoredEffect]
) -> list[Inserted] | None:
    """Note that an endpoint is told of as failing, and what follows from that; None where another
    daemon has told of it since it was found told of `before`, or not at all."""
    if not session.db.run(TELL, (TOLD + name, str(at), str(before))):
        return None
    return apply_effects(session, effects)
