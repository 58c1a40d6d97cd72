"""A file of SQLite that daemons share by PostgreSQL's rule: a claim is taken over once its lease
has run out; whether its owner lives is not asked."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from peewee import SqliteDatabase

from orchestratord.model.task import Task
from orchestratord.queue.connection import BY_RUNNING
from orchestratord.queue.rows import task_of
from orchestratord.queue.session import released, turn
from orchestratord.queue.sqlite import claim_sqlite
from orchestratord.queue.sqlite.shared_file import SharedConnection, SharedFile, SharedSession
from orchestratord.values.clock import Clock

RAN_OUT = f"""
SELECT id FROM retry_schedule {BY_RUNNING} WHERE status = 'running' AND EXISTS (
    SELECT 1 FROM json_each(?) AS one WHERE lease_until < one.value ->> 'now'
    AND NOT (locked_by = one.value ->> 'owner'
        AND retry_schedule.id IN (SELECT value FROM json_each(one.value, '$.held'))))
"""
TAKE_UNSTARTED = claim_sqlite.TAKE_UNSTARTED.replace(claim_sqlite.OF_DEAD, RAN_OUT)
TAKE_STARTED = claim_sqlite.TAKE_STARTED.replace(claim_sqlite.OF_DEAD, RAN_OUT)
RENEW = """
UPDATE retry_schedule SET lease_until = ? WHERE status = 'running' AND locked_by = ?
AND lease_until < ? AND id IN (SELECT value FROM json_each(?))
"""


def _whose(now: int, owner: str, held: Collection[int]) -> str:
    return json.dumps([{"now": now, "owner": owner, "held": sorted(held)}])


class LeasedConnection(SharedConnection):
    file: LeasedFile

    def lives(self, owner: str, until: int, now: int) -> bool:
        return until >= now

    def claims_run_out(self, owner: str, held: Collection[int]) -> bool:
        whose = _whose(self.file.clock.now_ms(), owner, held)
        row = self.one(f"SELECT EXISTS ({RAN_OUT})", (whose,))
        return row is not None and bool(row[0])


@dataclass(slots=True)
class LeasedSession(SharedSession):
    def __post_init__(self) -> None:
        assert isinstance(self.db, LeasedConnection)
        self.db.file.clock = self.clock

    def reclaim(self, held: Collection[int]) -> tuple[int, list[Task]]:
        whose = _whose(self.leases.now(self.clock), self.owner, held)
        back = self.db.all(TAKE_UNSTARTED, (*released(self.now()), whose))
        for row in back:
            self.unstarted(row)
        values = (self.owner, self.leases.until(self.clock), whose, claim_sqlite.RECLAIM_PAGE)
        rows = self.db.all(TAKE_STARTED, values)
        return len(back), sorted((task_of(row) for row in rows), key=turn)

    def renew(self, held: Collection[int]) -> int:
        now, lease = self.leases.now(self.clock), round(self.leases.seconds * 1000)
        values = (now + lease, self.owner, now + lease * 2 // 3, json.dumps(sorted(held)))
        return self.db.run(RENEW, values)


class LeasedFile(SharedFile):
    session_class = LeasedSession
    clock: Clock

    def _connection(self, database: SqliteDatabase, writes: bool) -> LeasedConnection:
        turn = self._turn if writes else None
        made = LeasedConnection(
            database, self.path, self.failures, self._main_file, self._journal, turn
        )
        made.file = self
        return made
