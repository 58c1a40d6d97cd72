"""Members of batches: events that a webhook tells of together, written with their causes.

What several daemons may tell of has a name, and is written last in the transaction, under one lock
of all daemons: each sees what the others have told of, and waits for them with nothing left to
lock, against deadlocks.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestratord.model.task import BatchMember
from orchestratord.queue.connection import Connection, ManyRows
from orchestratord.queue.rows import code_text, plain

# ruff: noqa: S608  # what is pasted here are columns, never values

log = logging.getLogger("orchestratord.queue")

IN_FULL = 10
"""Members of a batch of which all is kept that there is to say; of those that happened to no task,
which says it, too, of each."""

OPEN = "SELECT count(*) FROM batch_members WHERE group_key = ? AND batch_id IS NULL"

_COLUMNS = (
    "group_key, endpoint_id, webhook, phase, task_id, reason, status_code, detail, most, "
    "closes_at, at, once"
)

MEMBERS = ManyRows(
    f"INSERT OR ROLLBACK INTO batch_members ({_COLUMNS}) VALUES {{rows}}",
    *"text text text text bigint text text text bigint bigint bigint text".split(),
)
NAMED = f"INSERT INTO batch_members ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

TOLD = """
SELECT id FROM batch_members WHERE group_key = ? AND once = ? AND at > ? AND id > ?
ORDER BY at, id LIMIT 1
"""
"""The first one of this name after a time and a member. By time, as its index has it: by id, a
database could go through all members."""
ENDED = """
SELECT id FROM batch_members WHERE group_key = ? AND once = ? AND at <= ?
ORDER BY at DESC, id DESC LIMIT 1
"""
"""The last end that was told of by a time."""
MOST_REMEMBERED = 1_000

_Name = tuple[str, str]
"""A group, and what names an event there."""


@dataclass(slots=True)
class BatchMembers:
    """What a transaction writes, and what this daemon has told of."""

    named: list[BatchMember] = field(default_factory=list)
    """What is written last."""
    _told: dict[_Name, int] = field(default_factory=dict)
    """Of what each daemon finds out for itself: the last member that was written here, or found to
    tell of it."""
    _new: dict[_Name, int] = field(default_factory=dict)
    """Those of this transaction."""

    def begin(self, committed: bool) -> None:
        """Forget what the last transaction wrote; `committed`: whether that was."""
        if committed:
            if len(self._told) >= MOST_REMEMBERED:
                self._told.clear()
            self._told |= self._new
        self._new = {}
        self.named = []

    def add(self, db: Connection, members: Sequence[BatchMember], now: int) -> None:
        """Write these at `now` (milliseconds), in their order; those with `once` are noted, for
        `write_named`. Raises Singly."""
        places: dict[str, int] = {}
        rows = []
        for one in members:
            if one.once is not None:
                self.named.append(one)
                continue
            place = places[one.group] if one.group in places else _place(db, one)
            places[one.group] = place + 1
            rows.append(_row(one, place, now, now))
        MEMBERS.run(db, rows)

    def write_named(self, db: Connection, now: int, shared_now: int) -> None:
        """Write what was noted and is not told of yet, while no other daemon does.

        Args:
            db: the writing connection.
            now: milliseconds since the epoch, by the clock of this daemon.
            shared_now: the same by the clock that all daemons go by.
        """
        for one in self.named:
            try:
                with db.guard():
                    self._write_named(db, one, now, shared_now)
            except Exception as error:  # as what a plugin made up may fail anywhere
                failures = db.failures
                if isinstance(error, failures.errors) and not failures.is_unfit(error):
                    raise
                log.error("skipped a plugin's write to %s: %s", one.webhook, error)

    def _write_named(self, db: Connection, one: BatchMember, now: int, shared_now: int) -> None:
        name = plain(one.group) or "", plain(one.once) or ""
        since, last = -1, 0
        if one.since is not None:
            since = one.since + shared_now - now
            last = self._new.get(name) or self._told.get(name, 0)
            if one.ended_by is not None:
                end, began = one.ended_by
                place = name[0], plain(end), began + shared_now - now
                last = max(last, db.value(ENDED, place, 0))
        id_ = db.value(TOLD, (*name, since, last))
        if id_ is None:
            id_ = db.insert(NAMED, _row(one, _place(db, one), now, shared_now))
        if one.since is not None:
            self._new[name] = id_


def _place(db: Connection, one: BatchMember) -> int:
    """How many members wait in its group."""
    return int(db.value(OPEN, (plain(one.group),)))


def _row(one: BatchMember, place: int, now: int, at: int) -> tuple[Any, ...]:
    # Those beyond `most` are the first ones of the batches that follow.
    in_full = place % one.most < IN_FULL or one.task_id is None
    return (
        plain(one.group), plain(one.endpoint_id), plain(one.webhook), plain(one.phase),
        one.task_id, plain(one.reason), code_text(one.status_code),
        plain(one.detail) if in_full else None, one.most, now + round(one.every * 1000), at,
        plain(one.once),
    )  # fmt: skip
