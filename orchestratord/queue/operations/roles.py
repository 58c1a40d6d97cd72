"""What one daemon does for all: a role, by its name, that one holds for as long as it says so.

One that is killed loses it after `HELD_MS`, and one that stands still for longer may find that
another holds it by now.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from orchestratord.errors import RoleLost
from orchestratord.queue import facts
from orchestratord.queue.batch import Rank, Write, reads, writes
from orchestratord.queue.connection import Connection
from orchestratord.queue.session import Session

HELD_MS = 4_000
"""For how long a role is held; its holder says so again after a third of that."""


@writes(Rank.CLAIM)
def hold_role(session: Session, role: str) -> str | None:
    """Take a role, or go on to hold it; None where another one does, and lives.

    Returns who held it before: one that has died, or this daemon, also where none did.
    """
    holder, until = role_holder(session.db, role, session.db.for_update)
    now = session.leases.now(session.clock)
    if holder not in (None, session.owner) and session.db.lives(holder, until, now):
        return None
    if holder != session.owner or until < now + HELD_MS * 2 // 3:
        # In a file it is held once, for as long as this owner lives.
        until = max(now + HELD_MS, session.db.dead_before(now))
        facts.put(session.db, role, f"{session.owner} {until}")
    return holder or session.owner


@writes(Rank.KEEP)
def release_role(session: Session, role: str) -> None:
    """The daemon ends: another one may hold it at once."""
    if role_holder(session.db, role, session.db.for_update)[0] == session.owner:
        facts.forget(session.db, role)


@reads
def held_elsewhere(db: Connection, role: str, owner: str) -> bool:
    """Whether another daemon than `owner` holds it, and lives: then `hold_role` need not be
    tried."""
    holder, until = role_holder(db, role)
    return holder not in (None, owner) and db.lives(holder, until, db.clock_ms())


T = TypeVar("T")


def fenced(operation: Write[T], role: str | None) -> Write[T]:
    """An operation that raises RoleLost, and writes nothing, where another daemon holds the role,
    and keeps all others from it until COMMIT; without a role, the operation as it is."""
    if role is None:
        return operation

    def insist(session: Session) -> None:
        if role_holder(session.db, role, session.db.for_update)[0] != session.owner:
            raise RoleLost

    def do(session: Session) -> T:
        insist(session)
        return operation.run(session)

    def batch(session: Session, items: Sequence[Any]) -> Sequence[Any]:
        insist(session)
        assert operation.batch is not None
        return operation.batch(session, items)

    room = operation.needs_room
    if operation.batch is None:
        return Write(operation.rank, do, needs_room=room)
    return Write(operation.rank, None, batch, operation.item, needs_room=room)


def role_holder(db: Connection, role: str, lock: str = "") -> tuple[str | None, int]:
    """Who holds a role, None for no daemon; and until when, if it says nothing."""
    owner, _, until = (facts.get(db, role, lock) or "").partition(" ")
    return owner or None, int(until or 0)
