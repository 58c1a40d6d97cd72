"""A row that makes no task, as the queue notes it with what plugins write of that.

Its mark is in the row, which may be in another database: so the queue keeps what the mark is to be
until it is made. Which daemon ends in between does not matter, the one that relays next marks the
row, and asks no plugin again.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from orchestratord.queue import facts
from orchestratord.queue.batch import Rank, reads, writes
from orchestratord.queue.connection import Connection
from orchestratord.queue.operations.effects import Effects, apply_effects
from orchestratord.queue.outbox.outbox_take import insist_on_relay
from orchestratord.queue.records import Inserted
from orchestratord.queue.session import Session

NOTED = "outbox_refusal:"
"""How the name of the fact begins, before the name of the outbox's database; the queue's own has
none. There is one of each: rows are refused one after the other."""


class NotedRefusal(NamedTuple):
    """Which row is to be marked, and with what."""

    id: int
    uid: str
    endpoint: str
    """As it is told of."""
    reason: str
    problem: dict[str, Any]
    """As the API would have answered."""


@writes(Rank.NEW)
def note_refusal(
    session: Session, outbox: str | None, refusal: NotedRefusal, effects: Effects
) -> list[Inserted]:
    """Write what plugins have to say of a row, and that it is to be marked, together; one result
    for each `Insert` among it.

    Args:
        session: of the transaction.
        outbox: the name of its database; None for the queue's own.
        refusal: of the row.
        effects: what the plugins want written.

    Raises RelayMoved.
    """
    insist_on_relay(session)
    inserted = apply_effects(session, effects)
    facts.put(session.db, _name(outbox), json.dumps(refusal._asdict(), default=str))
    return inserted


@writes(Rank.KEEP)
def forget_refusal(session: Session, outbox: str | None) -> None:
    """The row that was noted last is marked. Raises RelayMoved."""
    insist_on_relay(session)
    facts.forget(session.db, _name(outbox))


@reads
def noted_refusal(db: Connection, outbox: str | None) -> NotedRefusal | None:
    """The row that may still be to be marked, if there is one."""
    if (text := facts.get(db, _name(outbox))) is None:
        return None
    said = json.loads(text)  # by a later version perhaps, with more in it
    return NotedRefusal(*(said[name] for name in NotedRefusal._fields))


def _name(outbox: str | None) -> str:
    return NOTED + (outbox or "")
