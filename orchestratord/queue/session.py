"""What an operation of the queue sees while the writer runs it inside a transaction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from binascii import b2a_base64
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from orchestratord.model.partition_turn import CONTINUE
from orchestratord.model.task import Key, Status, Table, Task
from orchestratord.queue import task_counts
from orchestratord.queue.batch_members import BatchMembers
from orchestratord.queue.connection import Connection, ManyRows, Row
from orchestratord.queue.records import Claimed, FairTurn, Line, LineTurn, OrderedTurn, Pick
from orchestratord.queue.run_counts import RunCounts
from orchestratord.queue.task_counts import ALL
from orchestratord.values import world
from orchestratord.values.clock import Clock

LEASE = 90.0
"""Seconds for which a claim stands without a word from its daemon, if nothing else is said."""


SUCCESS = ManyRows(
    """
INSERT OR ROLLBACK INTO endpoint_state (endpoint_id, last_success_at) VALUES {rows}
ON CONFLICT (endpoint_id) DO UPDATE SET last_success_at = excluded.last_success_at
WHERE excluded.last_success_at > COALESCE(endpoint_state.last_success_at, 0)
""",
    "text",
    "bigint",
)

ONCE = Key("once")
"""What is locked to write what several daemons may tell of; no endpoint is called so."""

PAUSED = """
INSERT INTO endpoint_state (endpoint_id, paused) VALUES (?, ?)
ON CONFLICT (endpoint_id) DO UPDATE SET paused = excluded.paused
"""

OUTCOMES = (Status.SUCCEEDED, Status.FAILED)
"""How it went with what bulks have moved."""

NOTED = (
    *("moves", "due", "successes", "paused", "runs", "chore_added"),
    *("touched", "elected", "missed", "later"),
)
"""What a session notes for one transaction, and begins each with none of."""

_LETTERS = bytes.maketrans(b"+/", b"Zz")


def random_nonce() -> str:
    """A new nonce: 20 letters and digits, which are safe in a URL and as the name of a file.

    Two of them are the same as rarely as numbers of 118 random bits, as two letters come twice as
    often as the others. Each row has one, so that it is no longer than it has to be.
    """
    return b2a_base64(world.urandom(15), newline=False).translate(_LETTERS).decode()


@dataclass(slots=True)
class Session(ABC):
    """The writing connection, and who writes. How each database claims is its session's."""

    db: Connection
    owner: str
    """Random for this opening of the store; stands in `locked_by`."""
    clock: Clock
    tables: Mapping[str, Table]
    """Those of plugins, by name."""
    instance: str
    """Random, made with the database and kept in it; part of each webhook-id."""
    leases: Leases
    """For how long claims stand."""
    statements: dict[Any, Any] = field(default_factory=dict)
    """Those that were made for what plugins write, by its shape."""
    gathered: dict[Any, Any] = field(default_factory=dict)
    """Those of each kind of upserts; None for one that is not written together with others."""
    moves: Counter[tuple[int, str]] = field(default_factory=Counter)
    """By how much each status has more or fewer tasks than is written by now, as in
    `task_counts`."""
    due: dict[Key, int] = field(default_factory=dict)
    """What became pending in the transaction: each key, and its earliest `next_try`."""
    successes: dict[tuple[str, str], int] = field(default_factory=dict)
    """Keys that had a success in the transaction, and when that began; for `write_noted`, as the
    two that follow."""
    paused: dict[str, int] = field(default_factory=dict)
    """Endpoints whose calls wait from now on, 1, or go on, 0."""
    runs: RunCounts = field(default_factory=RunCounts)
    """What the transaction changes in the counts of runs."""
    chore_added: bool = False
    """The transaction has added a chore."""
    last_in_line: int = 0
    """By what the last chore of a line stands behind others, microseconds since the epoch."""
    touched: dict[Line, bool] = field(default_factory=dict)
    """Lines of partitions in which the transaction has changed something, and whether they may have
    a limit."""
    elected: dict[Key, int] = field(default_factory=dict)
    """Keys of which tasks had their turn come in the transaction, and when the first is due."""
    unsure: set[Line] = field(default_factory=set)
    """Lines whose next one others were just changing in an earlier transaction. They elect after
    that; unless they undo it, for which these are looked at again."""
    missed: set[Line] = field(default_factory=set)
    """Those of this transaction."""
    late: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)
    """As `successes`: those of earlier transactions that others kept from being written, and since
    when (`world.monotonic`)."""
    later: dict[tuple[str, str], int] = field(default_factory=dict)
    """Those of this transaction."""
    revisited: bool = False
    """What is `unsure` and `late` is tried again in the transaction."""
    members: BatchMembers = field(default_factory=BatchMembers)
    """Those of batches."""

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return self.clock.now_ms()

    def moved(self, source: str | None, target: str | None, count: int = 1) -> None:
        """Note that `count` tasks changed their status; None is outside of the table."""
        if count and source != target:
            if source is not None:
                self.moves[ALL, source] -= count
            if target is not None:
                self.moves[ALL, target] += count

    def outcome(self, bulk_id: int | None, status: str, count: int = 1) -> None:
        """Note that `count` more tasks that a bulk has moved ended so; nothing for None."""
        if bulk_id is not None and status in OUTCOMES:
            self.moves[bulk_id, status] += count

    def succeeded(self, endpoint_id: str, webhook: str, at: int) -> None:
        """Note that a task of this key, which began at `at`, succeeded."""
        key = endpoint_id, webhook
        if at > self.successes.get(key, 0):
            self.successes[key] = at

    def waits(self, key: Key, next_try: int) -> None:
        """Note that a task of `key` is pending and due at `next_try`."""
        known = self.due.get(key)
        if known is None or next_try < known:
            self.due[key] = next_try
        self.heard(key, next_try)

    def write_noted(self) -> None:
        """Write what was noted of runs, of successes, of what is told of once and of how many tasks
        there are, just before COMMIT, or behind an operation that is done alone.

        All daemons change the same few rows, and wait for each other there. Every transaction locks
        in this order, against deadlocks: tasks, bulks, throttles, runs, endpoints, what is told of
        once. Raises Singly.
        """
        self.chore_added |= self.runs.write(self.db, self.now())
        self.runs = RunCounts()
        for name in sorted(self.paused):
            self.db.run(PAUSED, (name, self.paused[name]))
        self.paused = {}
        if self.successes:
            keys = {Key(*key).name: key for key in self.successes}
            found = sorted((name, self.successes[key]) for name, key in keys.items())
            self.later |= {keys[name]: self.successes[keys[name]] for name in self.succeed(found)}
            self.successes = {}
        if self.members.named:
            self.lock_order((ONCE,))
            self.members.write_named(self.db, self.now(), self.leases.now(self.clock))
            self.members.named = []
        self.write_moves()

    def succeed(self, found: Sequence[tuple[str, int]]) -> Collection[str]:
        """Write when those of these names had their last success; the names of which others have
        locked the row."""
        SUCCESS.run(self.db, found)
        return ()

    def write_moves(self) -> None:
        """Write how many tasks there are, also before what a bulk counts is read. Raises Singly."""
        task_counts.add(self.db, self.owner, self.now(), self.moves)
        self.moves = Counter()

    def noted(self) -> Callable[[], None]:
        """Forgets what is noted from now on, when it is called: that was undone."""
        before = {name: copy(getattr(self, name)) for name in NOTED}
        named = list(self.members.named)

        def forget() -> None:
            for name, value in before.items():
                setattr(self, name, value)
            self.members.named = named

        return forget

    def begin(self, committed: bool) -> None:
        """Forget what was noted for the last transaction; `committed`: whether that was."""
        self.members.begin(committed)
        if committed:
            now, late = world.monotonic(), self.late
            if self.revisited:
                self.unsure, self.late = set(), {}
            self.unsure = self.unsure | self.missed
            again = {key: (at, late.get(key, (at, now))[1]) for key, at in self.later.items()}
            self.late = self.late | again
        self.revisited = False
        for name in NOTED:
            setattr(self, name, type(getattr(self, name))())

    def revisit(self) -> None:
        """Do what others kept from being done in earlier transactions."""
        self.revisited = True
        self.touched |= dict.fromkeys(self.unsure, True)
        for key, (at, _) in self.late.items():
            self.succeeded(*key, at)

    def write_late(self) -> None:
        """Write what is `late`, and wait for the session that has locked its rows."""
        SUCCESS.run(self.db, sorted((Key(*key).name, at) for key, (at, _) in self.late.items()))

    # -- whose turn it is in a partition -------------------------------------------------------

    def touch(self, task: Task) -> None:
        """Note that something has changed in the partition of a task, if it has one."""
        if (turn := task.turn) is not None:
            self.touch_rule(task.key, turn.partition, turn.partition_rule)

    def touch_rule(self, key: Key, partition: str, rule: int | None) -> None:
        """Note that something has changed in a partition, by the columns of a task's row."""
        rule = rule or 0
        self.touch_line(Line(*key, partition, rule < 0), max(rule, 0))

    def touch_line(self, line: Line, limit: int) -> None:
        """Note that something has changed in a line; `limit`: that of the task that has changed."""
        self.touched[line] = bool(limit) or self.touched.get(line, False)

    def elect(self) -> None:
        """Give each partition that was touched its head: at most one pending task that claims can
        see, whose turn it is. Just before COMMIT, or behind an operation that is done alone.

        Of an ordered one that is the first by its id of those that have not let it go. Of any other
        the one that is due first, if fewer run than its limit; where it was due before now, it
        stands at the end of its key's line, so that partitions take turns.
        """
        if not self.touched:
            return
        lines = sorted(self.touched)
        self.lock_lines([line for line in lines if line.ordered or self.touched[line]])
        now = self.now()
        turns = self._turns(lines, now)
        # In this order: no two of an ordered partition are ever ready at once.
        back = [turn.instead_of for turn in turns if turn.instead_of is not None]
        held = {None, *(self.step_back(back) if back else ())}
        ids = [turn.id for turn in turns if turn.instead_of in held]
        ready = self.step_forward(ids, now) if ids else ()
        for turn in turns:
            if turn.id in ready:
                self.has_turn(turn.line.key, max(turn.next_try, now))
            else:
                self.missed.add(turn.line)
        self.touched = {}

    def has_turn(self, key: Key, due: int) -> None:
        """Note that the turn of a task of `key` has come, which is due then."""
        self.waits(key, due)
        self.elected[key] = min(due, self.elected.get(key, due))

    def _turns(self, lines: Sequence[Line], now: int) -> list[LineTurn]:
        """Whose turn it is in lines where that is another one than before."""
        turns: list[LineTurn] = []
        fair = [line for line in lines if not line.ordered]
        limited = {line for line in fair if self.touched[line]}
        for one in self.fair_turns(fair, limited) if fair else ():
            if one.head is not None:
                head_due = one.head_next_try or 0
                if head_due <= now or one.next_try >= head_due:
                    continue
            elif one.limit and one.running >= one.limit:
                continue
            turns.append(LineTurn(fair[one.place], one.id, one.next_try, one.head))
        ordered = [line for line in lines if line.ordered]
        for first in self.ordered_turns(ordered) if ordered else ():
            if first.ready_status != Status.RUNNING:
                line = ordered[first.place]
                turns.append(LineTurn(line, first.id, first.next_try, first.ready))
        return turns

    def unstarted(self, row: Row) -> None:
        """Note that a claim was released which had not started; `row` is of it."""
        status, endpoint_id, webhook, next_try, partition, rule, run_id, replaces = row
        self.moved(Status.RUNNING, status)
        self.runs.move(run_id, Status.RUNNING, status)
        if next_try is not None:
            self.waits(Key(endpoint_id, webhook), next_try)
        if partition is not None:
            self.touch_rule(Key(endpoint_id, webhook), partition, rule)
        if replaces is not None and status == Status.CANCELLED:
            self.release_place(replaces, held=True)

    def release_place(self, place: int, *, held: bool) -> None:
        """What replaces a task has ended: that holds its ordered partition no more. `held`: unless
        a failure of it has the partition wait for a person."""
        row = self.db.one(RELEASE_PLACE, (self.now(), place, CONTINUE, int(held)))
        if row is not None:
            endpoint_id, webhook, partition = row
            self.touch_line(Line(endpoint_id, webhook, partition, True), 0)

    # -- what each database does in its own way ------------------------------------------------

    @abstractmethod
    def claim(self, picks: Sequence[Pick]) -> Claimed:
        """Take up to so many due tasks of each key; `Claimed.whole` has the tasks."""

    @abstractmethod
    def reclaim(self, held: Collection[int]) -> tuple[int, list[Task]]:
        """Take over what other owners held and have lost: how many claims had not started and are
        pending again, and a page of those that had, which are ours now.

        `held`: the tasks that we know to hold; they stay as they are.
        """

    def lock_order(self, keys: Collection[Key]) -> None:  # noqa: B027  # not every database has that
        """Keep others from accepting tasks of these until the transaction has ended, so that those
        of ordered partitions are committed in the order of their ids."""

    def lock_lines(self, lines: Sequence[Line]) -> None:  # noqa: B027  # not every database has that
        """Keep others from electing in these until the transaction has ended."""

    @abstractmethod
    def fair_turns(self, lines: Sequence[Line], locked: Collection[Line]) -> list[FairTurn]:
        """Of lines that are not ordered, those in which tasks are held.

        Those in `locked` are. The others need not be, as long as no limit is in play.
        """

    @abstractmethod
    def ordered_turns(self, lines: Sequence[Line]) -> list[OrderedTurn]:
        """Of ordered lines, those of which the first one that has not let it go is held."""

    @abstractmethod
    def step_back(self, ids: Sequence[int]) -> Collection[int]:
        """Hold these; those of them that others were not just changing."""

    @abstractmethod
    def step_forward(self, ids: Sequence[int], now: int) -> Collection[int]:
        """Hold these no longer; those of them that others were not just changing. They are due now
        where they were due before."""

    def renew(self, held: Collection[int]) -> int:
        """Renew the leases of tasks that we hold, as far as they need it; how many did."""
        return 0

    def heard(self, key: Key, next_try: int) -> None:  # noqa: B027  # not every database has that
        """A task of `key` is due at `next_try`, which may be before what was claimed last; from any
        thread."""


def due_by(now: int, picks: Sequence[Pick]) -> list[Pick]:
    """One of each key, as none is to be claimed twice; what was written until `now` is due, too."""
    distinct = {pick.key: pick for pick in picks}.values()
    return [pick._replace(due_before=max(pick.due_before, now)) for pick in distinct]


def room_behind(picks: Sequence[Pick], tasks: Sequence[Task]) -> list[tuple[Pick, Line, int]]:
    """Where tasks were claimed and left room: from which of their partitions to claim more, and how
    many of each. One with many tasks that are quick is claimed in full batches so, and not one by
    one; those that are ordered or have a limit go by their heads."""
    quick = {pick.key: pick.quick for pick in picks if pick.quick}
    if not quick:
        return []
    counts = Counter(task.key for task in tasks)
    lines: dict[Key, dict[Line, None]] = {}
    for task in tasks:
        if task.ordered or task.partition_limit or task.partition is None:
            continue
        if task.partition in quick.get(task.key, ()):
            line = Line(task.endpoint_id, task.webhook, task.partition, False)
            lines.setdefault(task.key, {})[line] = None
    found: list[tuple[Pick, Line, int]] = []
    for pick in picks:
        mine = lines.get(pick.key, {})
        room = pick.limit - counts[pick.key]
        for number, line in enumerate(mine):
            if each := -(-room // (len(mine) - number)):
                found.append((pick, line, each))
                room -= each
    return found


# -- What tells a claim of ours from another -------------------------------------------------------

RUNNING = "retry_schedule.status || '' = 'running'"
"""So that rows whose ids are known are found by these: to PostgreSQL the index of what runs looks
shorter, and is full of entries that are dead and cannot be removed yet."""

HELD = f"id = ? AND {RUNNING} AND locked_by = ? AND claims = ?"
"""The fence: true while a claim stands. Parameters from `fence`."""

RELEASE_PLACE = """
UPDATE retry_schedule SET turn_at = 0, updated_at = ?
WHERE id = ? AND turn_at = 1 AND held = 0 AND (status <> 'failed' OR partition_rule = ? OR ? = 0)
RETURNING endpoint_id, webhook, partition
"""


def as_far_ahead(column: str, now: str = "CAST(? AS bigint)") -> str:
    """SQL of a time that stays while its row is written anew: by a clock that was put back since
    it was written, it is as far ahead as it was then."""
    return f"{column} - CASE WHEN updated_at > {now} THEN updated_at - {now} ELSE 0 END"


RELEASE_CLAIM = f"""
UPDATE retry_schedule
SET status = CASE WHEN cancel_requested = 1 THEN 'cancelled' ELSE 'pending' END,
    next_try = CASE WHEN cancel_requested = 1 THEN NULL ELSE {as_far_ahead("next_try")} END,
    backoff_until = {as_far_ahead("backoff_until")},
    finished_at = CASE WHEN cancel_requested = 1 THEN CAST(? AS bigint) END,
    held = CASE WHEN cancel_requested = 0 AND partition_rule >= 0 THEN 1 ELSE 0 END,
    turn_at = CASE WHEN cancel_requested = 1 THEN 0 ELSE turn_at END,
    attempts = attempts - 1, started_at = NULL, locked_by = NULL, lease_until = NULL,
    cancel_requested = 0, updated_at = ?
{{which}}
RETURNING status, endpoint_id, webhook, next_try, partition, partition_rule, run_id, replaces
"""  # noqa: S608  # what is pasted are columns and a parameter
"""For `Session.unstarted`; `which` says of what rows."""


def released(now: int) -> tuple[int, ...]:
    """The parameters of `RELEASE_CLAIM`. A task that was claimed by a clock that was ahead is due
    as long before or after now as it was before or after its claim."""
    return (now,) * 6


def fence(task: Task) -> tuple[int, str | None, int]:
    """What `HELD` compares."""
    return task.id, task.locked_by, task.claims


def turn(task: Task) -> tuple[int, int]:
    """What the tasks of a key are in order by."""
    return task.next_try or 0, task.id


# -- How long a claim stands, and by which clock ---------------------------------------------------

LOOK_BACK_MS = 10_000
"""How long before the last look a lease may have run out, to be found by the next one: a claim may
reach the database late."""
ALL_EACH = 300.0
"""Seconds between two looks at all of them, however long ago they ran out."""


class Leases:
    """The lease of one daemon's claims: how long they stand, and by which clock.

    One file has one daemon, and its clock is good enough. Where daemons share a database they go by
    the clock of that: each knows how far its own is from it, as of the last time that it asked.
    """

    def __init__(self, seconds: float) -> None:
        """`seconds`: how long a claim stands without a word from its daemon."""
        self.seconds = seconds
        self._looked = 0
        self._all_again = 0.0
        self._database: tuple[int, float] | None = None

    def asked(self, now: int) -> None:
        """The database's clock stands at `now` (milliseconds)."""
        self._database = (now, world.elapsed())

    def now(self, clock: Clock) -> int:
        """Milliseconds since the epoch, by the clock that leases go by."""
        if self._database is None:
            return clock.now_ms()
        then, at = self._database
        return then + int((world.elapsed() - at) * 1000)  # also while the machine slept

    def until(self, clock: Clock) -> int:
        """When the lease of a claim runs out that is made now."""
        return self.now(clock) + round(self.seconds * 1000)

    def since(self) -> int:
        """From when on (milliseconds) leases may have run out that no daemon has taken over."""
        return 0 if world.monotonic() >= self._all_again else self._looked - LOOK_BACK_MS

    def looked(self, now: int) -> None:
        """Of those that `since` began with, none has run out at `now`."""
        if world.monotonic() >= self._all_again:
            self._all_again = world.monotonic() + ALL_EACH
        self._looked = now
