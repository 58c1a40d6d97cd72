"""The tables of the queue, each column with its meaning, for both databases.

What the two do not share stands here as well: types in `PostgresTables`, columns of an index in
`_index`, settings of a table in its Meta. Times are whole milliseconds since the Unix epoch, UTC;
flags are 0 or 1; JSON is kept as text.

A new column is a field here and one file in `migrations/`, whose docstring says how.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peewee import (
    SQL,
    BigIntegerField,
    CompositeKey,
    DoubleField,
    Expression,
    Field,
    IntegerField,
    Model,
    ModelIndex,
    PostgresqlDatabase,
    Query,
    TextField,
)

from orchestratord.queue.tables.run_table import RunRow as RunRow
from orchestratord.queue.tables.table_parts import (
    EMPTY,
    NO_PARAMS,
    ONE,
    REWRITTEN,
    ZERO,
    IdField,
    QueueIndex,
    QueueRow,
)

CLOCK = "clock"
"""The fact what time it was when the daemon of a file was last alive: a mark of its `Clock`."""


class RetrySchedule(QueueRow):
    """One row a task: a call of an endpoint, or a delivery. The first attempt is a row as well."""

    # First what indexes are over: PostgreSQL compares all of it whenever a row changes, and walks
    # through the columns in front to find each. A queue of before has its columns in another order.
    id = IdField()
    """Never used twice, not even after the row is gone."""
    created_at = BigIntegerField()
    """When it was accepted."""
    turn_at = BigIntegerField(constraints=ZERO)
    """While no later one of its ordered partition may run, since it has not ended or holds: when
    its turn came, from which `give_up_after` counts; 1 where it has not come, or it has ended. Else
    0."""
    held = IntegerField(constraints=ZERO)
    """1: it is pending, and waits for its turn in its partition; no claim sees it."""
    status = TextField()
    """pending, running, succeeded, failed or cancelled."""
    endpoint_id = TextField()
    """`api/name`; for a delivery, the endpoint of its parent."""
    webhook = TextField(constraints=EMPTY)
    """The webhook's name, empty for a call. With `endpoint_id` the key that is claimed by."""
    next_try = BigIntegerField(null=True)
    """When it is due; while it runs, when it was; NULL when it has ended."""
    lease_until = BigIntegerField(null=True)
    """Until when the claim stands if its daemon says nothing."""
    finished_at = BigIntegerField(null=True)
    """When it succeeded, failed for good or was cancelled; retention counts from here."""
    locked_by = TextField(null=True)
    """Who runs it: the `owner` of one opening of the store."""
    unique_key = TextField(null=True)
    """A client's idempotency key; it counts for 24 hours from `created_at`."""
    parent_id = BigIntegerField(null=True)
    """The task that it follows from. No foreign key: the parent may be pruned first."""
    bulk_id = BigIntegerField(null=True)
    """The last bulk that moved it. No foreign key: the bulk may be pruned first."""
    run_id = BigIntegerField(null=True)
    """Of a call: the run that it belongs to, which is the id of the call that began it. NULL for
    deliveries, and for a call that has no run: nothing caused it, and it has no child tasks."""
    partition = TextField(null=True)
    """The value of its partition, as it was rendered when the task was accepted; NULL for none."""
    partition_rule = IntegerField(null=True)
    """How many of its partition may run at once in all daemons, 0 for no bound; -1: it goes in the
    order of ids, and goes on where one has failed; -2: and holds then. NULL where there is none."""

    kind = TextField()
    """`call`, or what a plugin's executor runs, such as `webhook`."""
    phase = TextField(null=True)
    """For a delivery: the phase of the lifecycle that it tells of."""
    reason = TextField(null=True)
    """Why it failed for good."""
    attempts = IntegerField(constraints=ZERO)
    """Attempts that an answer or an error ended, and the running one."""
    max_attempts = IntegerField()
    """How many it may use, those granted manually included."""
    started_at = BigIntegerField(null=True)
    """When the attempt may first have sent something; NULL while it is only claimed."""
    last_status_code = TextField(null=True)
    """Of the last attempt: a number, `error` or `ok`; NULL if it never got that far."""
    last_error = TextField(null=True)
    """Of the last attempt, one line; for a new delivery, why its payload did not render."""
    updated_at = BigIntegerField()
    """When the row last changed."""
    scheduled_at = BigIntegerField()
    """The slot of a schedule that it runs for, else when it was to run first."""
    idempotent = IntegerField(constraints=ONE)
    """Whether the running attempt may be sent twice, as it was when it was claimed."""
    granted = IntegerField(constraints=ZERO)
    """Attempts that were added manually to those of the configuration."""
    deaths = IntegerField(constraints=ZERO)
    """Starts that ended with the daemon's death."""
    generation = IntegerField(constraints=ZERO)
    """How often it was made to run again after it had succeeded."""
    retried_at = BigIntegerField(null=True)
    """When it was last retried manually; `give_up_after` counts from here."""
    cancel_requested = IntegerField(constraints=ZERO)
    """Cancelled while it ran: it ends instead of waiting for another try."""
    format = IntegerField(constraints=ONE)
    """How `params`, `payload` and `response` are laid out; 1 is as described here."""
    depth = IntegerField(constraints=ZERO)
    """How many calls led to it, one caused by the other."""
    claims = IntegerField(constraints=ZERO)
    """How often it was claimed or taken over: tells one claim from another."""
    nonce = TextField(null=True)
    """Random, and new where it runs again after it had succeeded: what its receiver tells a repeat
    by. NULL in rows of daemons before schema 8, which go by their id and the queue's name."""
    asked = TextField(null=True)
    """Where there is a `unique_key`: a digest of the parameters as the client sent them, before
    defaults. NULL where these are `params`."""
    alone = IntegerField(constraints=ZERO)
    """Of a poison candidate that has started: nothing else was under way in its daemon."""
    backed_off = IntegerField(constraints=ZERO)
    """1: its backoff put it off until `next_try`, after a failure that was counted, and not
    Retry-After, a hook, or a person. 2: and it was tried early since, as a breaker closed."""
    backoff_until = BigIntegerField(null=True)
    """When the delay is over that the last attempt which counted has chosen. One that begins
    earlier, since a breaker closed, costs nothing. NULL where a person has retried it since."""
    looks = IntegerField(constraints=ZERO)
    """How often an answer said that it is not done yet (`poll`); a manual retry begins anew."""
    looked_since = BigIntegerField(null=True)
    """When the first of them came; NULL where there is none."""
    waits_for = TextField(null=True)
    """Of one that a hook put off: why, in its words; until it is settled again, or retried."""
    replaces = BigIntegerField(null=True)
    """The task that it was made of, with other parameters, and whose place in an ordered partition
    it takes: that one lets go of it once this one has succeeded."""

    # Where they are large, SQLite keeps what stands behind them in other pages.
    params = TextField(constraints=NO_PARAMS)
    """The call's parameters, a JSON object."""
    payload = TextField(null=True)
    """For a delivery: the body, rendered when the event happened; NULL if it did not render."""
    response = TextField(null=True)
    """The last answer, a JSON object, cut to what is worth keeping."""

    class Meta:
        table_name = "retry_schedule"
        # A row that is claimed and settled is written several times within its page; the table is
        # vacuumed for what a queue does to it.
        postgres = (
            "fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, "
            "autovacuum_vacuum_threshold = 1000, autovacuum_analyze_scale_factor = 0.02, "
            "autovacuum_vacuum_cost_delay = 1"
        )


def _index(
    name: str,
    *columns: Field,
    postgres: tuple[Field, ...] = (),
    where: Expression | None = None,
    postgres_where: Expression | None = None,
    unique: bool = False,
) -> None:
    """`postgres`, `postgres_where`: the columns there and which rows, where they are others."""
    options: dict[str, Any] = {"name": f"retry_schedule_{name}", "where": where, "unique": unique}
    index = QueueIndex(RetrySchedule, columns, **options)
    if postgres_where is not None:
        options["where"] = postgres_where
    index.postgres = ModelIndex(RetrySchedule, postgres or columns, **options)
    RetrySchedule.add_index(index)


_id, _status, _endpoint = RetrySchedule.id, RetrySchedule.status, RetrySchedule.endpoint_id

# What is in the order of ids needs no more in SQLite: each of its indexes ends with the rowid.
# The claim: what is due of a key, in its order, but for what waits for its turn in a partition.
_ready = (_endpoint, RetrySchedule.webhook, RetrySchedule.next_try)
_held = RetrySchedule.held
_index("ready", *_ready, postgres=(*_ready, _id), where=(_status == "pending") & (_held == 0))
# What a daemon holds; where daemons share a queue, what they have let go of.
_leases = (RetrySchedule.lease_until,)
_index("running", RetrySchedule.locked_by, postgres=_leases, where=_status == "running")
# Lists, newest first, by status alone and by endpoint. What runs is few, and in `running`: each
# claim and each settlement would change these indexes twice for it, and not once.
_rests = _status != "running"
_index("status", _status, postgres=(_status, _id), where=_rests)
_index("endpoint", _endpoint, _status, postgres=(_endpoint, _status, _id), where=_rests)
# `since`. SQLite changes an index only where one of its columns changes; PostgreSQL adds each new
# version of a row to all of them. So there what runs is not in this one either; and since the
# status changes with each version, PostgreSQL does not look, again and again, for versions of the
# same row that it could take out of a full page, of which a queue leaves it none.
_created = (RetrySchedule.created_at,)
_index("created", *_created, postgres=(*_created, _status), postgres_where=_rests)
# Retention.
_finished = RetrySchedule.finished_at
_index("finished", _status, _finished, where=_finished.is_null(False))
# An idempotency key counts at its endpoint.
_key, _parent = RetrySchedule.unique_key, RetrySchedule.parent_id
_index("key", _endpoint, _key, where=_key.is_null(False), unique=True)
_index("parent", _parent, where=_parent.is_null(False))
# The tasks of a bulk, and how many of them have not ended. No other task is in it.
_bulk = (RetrySchedule.bulk_id, _status)
_index("bulk", *_bulk, postgres=(*_bulk, _id), where=RetrySchedule.bulk_id.is_null(False))
# Partitions. Whose turn it is: of those that wait, in their order; whether one has its turn; how
# many of one with a limit run. Of ordered ones: all that later ones wait for, which hold one though
# they have ended, and that no two are ever ready or running at once. SQLite asks for each index
# whether a row belongs there, wherever a column changes that it names: so only one of these names
# the status, which every claim changes.
_partition, _rule = RetrySchedule.partition, RetrySchedule.partition_rule
_turn = RetrySchedule.turn_at
_line = (_endpoint, RetrySchedule.webhook, _partition)
_held_by = (*_line, _turn, RetrySchedule.next_try)
_index("held", *_held_by, postgres=(*_held_by, _id), where=_held == 1)
_limited = (_rule > 0) & (_status == "running")
_fair_head = (_rule >= 0) & (_held == 0) & ((_status == "pending") | _limited)
_index("head", *_line, _status, where=_fair_head)
_blocks = _turn > 0
_blocked = (*_line, _id)
_index("blocks", *_line, postgres=_blocked, where=_blocks, postgres_where=_blocks & (_id > 0))
_index("stopped", *_line, where=(_turn == 1) & (_held == 0))
_index("ordered", *_line, where=(_turn > 1) & (_held == 0), unique=True)
# Lists, and which later ones of a partition have started. PostgreSQL would take it, and `blocks`,
# for the others too, and go through all of a partition: so a statement has to say `id > 0`.
_any = _partition.is_null(False)
_listed = (_partition, _id)
_index("partition", _partition, postgres=_listed, where=_any, postgres_where=_any & (_id > 0))
# What failed for a reason. Of a task that succeeds it costs nothing: it has none.
_reason = (RetrySchedule.reason, _status)
_index("reason", *_reason, postgres=(*_reason, _id), where=RetrySchedule.reason.is_null(False))
# The tasks of a run, in the order of ids.
_run = RetrySchedule.run_id
_index("run", _run, postgres=(_run, _id), where=_run.is_null(False))


class AttemptRow(QueueRow):
    """One row an attempt, only ever added. A number may come twice, after a claim that was given
    back or a manual retry."""

    id = IdField()
    task_id = BigIntegerField()
    """The task. Pruned with it."""
    attempt = IntegerField()
    """Its number, from 1."""
    started_at = BigIntegerField()
    duration_ms = DoubleField()
    status_code = TextField(null=True)
    """A number, `error` or `ok`; NULL where nothing was sent."""
    error = TextField(null=True)
    delay = DoubleField(null=True)
    """Seconds to the next try that were chosen; NULL where there is none."""
    why = TextField()
    """In words: how the delay came about, or why there is none."""

    class Meta:
        table_name = "attempts"


AttemptRow.add_index(AttemptRow.task_id, name="attempts_task")


class EndpointState(QueueRow):
    """What the queue knows of an endpoint beyond its tasks. YAML says nothing of it."""

    endpoint_id = TextField(primary_key=True)
    """`api/name`; or `api/name#webhook`, of which only the last success is known."""
    paused = IntegerField(constraints=ZERO)
    """Its calls wait until it is resumed."""
    last_success_at = BigIntegerField(null=True)
    """When the last call, or delivery, that succeeded began."""

    class Meta:
        table_name = "endpoint_state"
        postgres = REWRITTEN


class ScheduleSlot(QueueRow):
    """How far each schedule has come. It outlives the tasks that it made."""

    endpoint_id = TextField(primary_key=True)
    spec = TextField()
    """The schedule as it was declared; one that changed starts anew."""
    last_slot = BigIntegerField()
    """The slot that was dealt with last."""
    task_id = BigIntegerField(null=True)
    """The task of the last slot that was not skipped."""
    before = TextField(null=True)
    """The schedule that `spec` took the place of."""
    taken = TextField(null=True)
    """The slots that were dealt with, which never are again: a JSON list of the first and the last
    of each run of them. NULL in rows of daemons before schema 8, which know `last_slot` alone."""

    class Meta:
        table_name = "schedules"


class BulkRow(QueueRow):
    """A manual retry, or the end, of many tasks, carried out in small steps and over restarts."""

    id = IdField()
    filter_ = TextField(column_name="filter")
    """Which tasks, a JSON object."""
    rate = DoubleField(null=True)
    """Tasks a second; NULL for no limit."""
    dry_run = IntegerField(constraints=ZERO)
    """Only counted."""
    status = TextField()
    """running, paused, finished (all are moved) or cancelled."""
    highest_id = BigIntegerField()
    """The newest task when it was created; later ones are left alone."""
    cursor = BigIntegerField(constraints=ZERO)
    """Tasks up to this id have been looked at, and are not looked at again."""
    matched = BigIntegerField()
    moved = BigIntegerField(constraints=ZERO)
    skipped = BigIntegerField(constraints=ZERO)
    created_at = BigIntegerField()
    updated_at = BigIntegerField()
    finished_at = BigIntegerField(null=True)
    action = TextField(constraints=[SQL("DEFAULT 'retry'")])
    """retry, cancel or resolve."""
    why_skipped = TextField(constraints=NO_PARAMS)
    """How many were skipped and why, a JSON object: `changed`, or the reason for which they would
    only wait or fail again."""
    stop_after = BigIntegerField(constraints=ZERO)
    """Failures after which it pauses; 0 for never."""
    stop_at = BigIntegerField(null=True)
    """After how many failures it pauses next: `stop_after` more than when it was last resumed."""
    ended_at = BigIntegerField(null=True)
    """When the last of those that it moved had ended."""
    resolution = TextField(null=True)
    """Of a resolve: `as` and `note`, a JSON object."""

    class Meta:
        table_name = "bulks"


class ChoreRow(QueueRow):
    """What the daemon itself does later, in steps; deleted with the last of them."""

    id = IdField()
    kind = TextField()
    """`bulk`: what a bulk still has to do; `slice`: new tasks that are to be written; `batch`: a
    closed batch whose delivery is; `run`: the end of a run that hooks are to be told of."""
    subject = TextField()
    """What it is about: the id of the bulk or the batch; the name of the slice, which grows with
    the time; the id of the run and its endpoint."""
    due = BigIntegerField(null=True)
    """When its next step is; NULL where it was set aside, as daemons have died at it."""
    at = BigIntegerField()
    """When that was written."""
    owner = TextField(null=True)
    """Which daemon is at it, as in `locked_by` of a task."""
    lease_until = BigIntegerField(null=True)
    """Until when no other daemon is, if that one says nothing."""
    failures = IntegerField(constraints=ZERO)
    """How often its step has failed since one was last taken."""
    deaths = IntegerField(constraints=ZERO)
    """How many daemons have died at it since."""
    data = TextField(null=True)
    """The tasks of a slice, a JSON list."""

    class Meta:
        table_name = "chores"
        postgres = REWRITTEN


ChoreRow.add_index(ChoreRow.kind, ChoreRow.subject, name="chores_subject", unique=True)
ChoreRow.add_index(ChoreRow.due, ChoreRow.id, name="chores_due")


class DaemonRow(QueueRow):
    """One row for each worker of each daemon on the queue. It is deleted when that ends, when its
    supervisor says that it has died, or some time after its last sign of life. Its times are by the
    database's clock."""

    owner = TextField(primary_key=True)
    """As in `locked_by` of a task."""
    host = TextField()
    pid = IntegerField()
    version = TextField()
    generation = IntegerField()
    """Of its configuration."""
    fingerprint = TextField()
    """Changes with `declared`."""
    declared = TextField()
    """What it can carry out, a JSON object: `endpoints` with a digest of each, and `plugins`."""
    started_at = BigIntegerField()
    beat_at = BigIntegerField()
    """Its last sign of life."""
    lease_until = BigIntegerField()
    """When it is taken for dead if there is none till then."""
    lanes = TextField(null=True)
    """Its lanes that wait for their receiver, a JSON list; null from older daemons."""
    schema_version = IntegerField(constraints=[SQL("DEFAULT 7")])
    """The version of the schema that it knows; daemons before 8 do not say it."""
    process_group = TextField(null=True)
    """The same for all workers of a daemon; null from daemons before 22, whose other workers have
    no row."""
    worker = IntegerField(constraints=[SQL("DEFAULT 1")])
    """Its number in that, from 1."""
    troubles = TextField(null=True)
    """What keeps it from its work, a JSON list."""

    class Meta:
        table_name = "daemons"


class ActionRow(QueueRow):
    """What people did manually: written down before they are told that it is done."""

    id = IdField()
    at = BigIntegerField()
    who = TextField()
    """As the log has it: a user of this machine, as `root (uid 0, pid 4711)`, or the token that was
    shown and from where."""
    action = TextField()
    """In words: `retry`, `cancel`, `pause`, …."""
    endpoint_id = TextField(null=True)
    webhook = TextField(null=True)
    task_id = BigIntegerField(null=True)
    """No foreign key: the task is pruned first."""
    bulk_id = BigIntegerField(null=True)
    detail = TextField(constraints=NO_PARAMS)
    """What else there is to say, a JSON object."""

    class Meta:
        table_name = "actions"


ActionRow.add_index(ActionRow.at, name="actions_at")


class RateRow(QueueRow):
    """What daemons that share a queue have begun of each lane with a rate limit."""

    lane = TextField(primary_key=True)
    stamps = TextField()
    """Pairs of a time, by the database's clock, and how many began then, as JSON."""

    class Meta:
        table_name = "rates"
        postgres = REWRITTEN


class ThrottleRow(QueueRow):
    """What throttles a lane, a URL, an endpoint or a webhook, for other daemons and the next start;
    written when it begins and ends. Its times are by the database's clock."""

    name = TextField()
    """Of the lane, the URL, `api/name` or `api/name#webhook`; secrets are masked."""
    kind = TextField()
    """breaker or retry_after; overload from daemons before schema 17; lifted where a person ended
    all of these."""
    owner = TextField()
    """Whose breaker it is, as in `locked_by` of a task; empty for what holds for all."""
    host = TextField()
    """The machine of that daemon."""
    since = BigIntegerField()
    until = BigIntegerField(null=True)
    """When it ends by itself; NULL where that is not known."""
    why = TextField()
    served = DoubleField(default=0.0)
    """How many tasks a second the receiver took before, for daemons before schema 17."""

    class Meta:
        table_name = "throttles"
        primary_key = CompositeKey("name", "kind", "owner")


class TaskCountRow(QueueRow):
    """How many tasks have a status: the sum over all owners. What an opening of the store changes
    it counts in rows of its own."""

    bulk_id = BigIntegerField(constraints=ZERO)
    """A bulk, of which those count that it moved and that ended so since, though they may be pruned
    by now; 0 for all tasks."""
    owner = TextField()
    """As in `locked_by` of a task; empty for what those had who are gone."""
    status = TextField()
    tasks = BigIntegerField()
    at = BigIntegerField()
    """When it last changed."""

    class Meta:
        table_name = "task_counts"
        primary_key = CompositeKey("bulk_id", "owner", "status")
        postgres = REWRITTEN


class BatchMemberRow(QueueRow):
    """An event that a webhook with `batch` tells of with others; written with its cause."""

    id = IdField()
    group_key = TextField()
    """What is told of together."""
    batch_id = BigIntegerField(null=True)
    """Its batch; NULL until that has closed."""
    endpoint_id = TextField()
    webhook = TextField()
    phase = TextField()
    task_id = BigIntegerField(null=True)
    """What it happened to. No foreign key: the task may be pruned first."""
    reason = TextField(null=True)
    status_code = TextField(null=True)
    detail = TextField(null=True)
    """All that there is to say of it, JSON; of what happened to a task, of the first ones until
    their batch was told of."""
    most = IntegerField()
    """With how many members a batch closes that it is the first of …"""
    closes_at = BigIntegerField()
    """… and when."""
    at = BigIntegerField()
    """When it was written; with `once`, by the clock that all daemons go by."""
    once = TextField(null=True)
    """What it is about, where daemons may write the same."""

    class Meta:
        table_name = "batch_members"


_batched = BatchMemberRow.batch_id
for _name, _columns, _where in (
    ("open", (BatchMemberRow.group_key, BatchMemberRow.id), _batched.is_null()),
    ("batch", (_batched, BatchMemberRow.id), _batched.is_null(False)),
    ("at", (BatchMemberRow.at,), _batched.is_null(False)),
    (
        "once",
        (BatchMemberRow.group_key, BatchMemberRow.once, BatchMemberRow.at),
        BatchMemberRow.once.is_null(False),
    ),
):
    BatchMemberRow.add_index(
        ModelIndex(BatchMemberRow, _columns, name=f"batch_members_{_name}", where=_where)
    )


class BatchRow(QueueRow):
    """A batch that has closed, and the delivery that tells of it."""

    id = IdField()
    first_member = BigIntegerField(unique=True)
    """So that of several daemons one closes it."""
    endpoint_id = TextField()
    """Of the first member, as the two below."""
    webhook = TextField()
    phase = TextField()
    opened_at = BigIntegerField()
    closed_at = BigIntegerField()
    members = BigIntegerField(constraints=ZERO)
    task_id = BigIntegerField(null=True)
    """The delivery; NULL until it is written."""

    class Meta:
        table_name = "batches"


class Fact(QueueRow):
    """Facts about the queue itself, by name: `instance`, `clock`, `removed_endpoints`,
    `tasks_counted`, `service:plugin/name` for each role and who holds it, `missed_slots:api/name`
    for each schedule of which some were, `failing_told:api/name` for each endpoint that was told of
    as failing, and `steps:table` for how many steps a plugin's table has had."""

    name = TextField(primary_key=True)
    value = TextField()

    class Meta:
        table_name = "meta"


class SchemaRow(QueueRow):
    """The one row that says which version of the schema this is."""

    id = IntegerField(primary_key=True)
    """Always 1."""
    version = IntegerField()
    compatible_from = IntegerField()
    """The oldest version of the schema whose daemons can still use this database."""

    class Meta:
        table_name = "schema"


class _Timestamp(Field):
    field_type = "TIMESTAMPTZ"


class CommitRow(QueueRow):
    """On PostgreSQL alone: how many transactions each writing connection has committed, for when
    the answer to a COMMIT is lost."""

    writer = TextField()
    number = BigIntegerField()
    at = _Timestamp(constraints=[SQL("DEFAULT now()")])

    class Meta:
        table_name = "commits"
        primary_key = CompositeKey("writer", "number")


TABLES: tuple[type[Model], ...] = (
    RetrySchedule, AttemptRow, EndpointState, ScheduleSlot, BulkRow, DaemonRow,
    ActionRow, RateRow, ThrottleRow, BatchMemberRow, BatchRow, RunRow, TaskCountRow,
    ChoreRow, Fact, SchemaRow,
)  # fmt: skip
"""Of both databases."""
POSTGRES_TABLES: tuple[type[Model], ...] = (*TABLES, CommitRow)


class _Common(PostgresqlDatabase):
    """What both databases understand; never connected."""

    param = "?"


_common = _Common(None)


def sql(query: Query) -> tuple[str, Sequence[Any]]:
    """A query as connections of the queue take it: its text with question marks, and its values.

    It takes some 50 µs each time: for what is done now and then.
    """
    text, values = query.bind(_common).sql()
    return text, values
