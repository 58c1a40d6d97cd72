"""The tables of the queue, each column with its meaning.

A change here needs a migration beside it (`migrations/`) and a new version in `schema`. Times are
whole milliseconds since the Unix epoch, UTC; flags are 0 or 1; JSON is kept as text.
"""

from __future__ import annotations

from peewee import (
    SQL,
    BigIntegerField,
    Expression,
    Field,
    FloatField,
    IntegerField,
    Model,
    Node,
    TextField,
)

from orchestratord.queue.database import IdField

ZERO: list[Node] = [SQL("DEFAULT 0")]
ONE: list[Node] = [SQL("DEFAULT 1")]
EMPTY: list[Node] = [SQL("DEFAULT ''")]
NO_PARAMS: list[Node] = [SQL("DEFAULT '{}'")]


class RetrySchedule(Model):
    """One row a task: a call of an endpoint, or a delivery. The first attempt is a row as well."""

    id = IdField()
    """Never used twice, not even after the row is gone."""
    kind = TextField()
    """`call`, or what a plugin's executor runs, such as `webhook`."""
    endpoint_id = TextField()
    """`api/name`; for a delivery, the endpoint that caused it."""
    webhook = TextField(constraints=EMPTY)
    """The webhook's name, empty for a call. With `endpoint_id` the key that is claimed by."""
    phase = TextField(null=True)
    """For a delivery: the phase of the lifecycle that caused it."""
    status = TextField()
    """pending, running, succeeded, failed or cancelled."""
    reason = TextField(null=True)
    """Why it failed for good."""
    attempts = IntegerField(constraints=ZERO)
    """Attempts claimed so far, the running one included."""
    max_attempts = IntegerField()
    """How many it may use, those granted by hand included."""
    next_try = BigIntegerField(null=True)
    """When it is due; while it runs, when it was; NULL when it has ended."""
    params = TextField(constraints=NO_PARAMS)
    """The call's parameters, a JSON object."""
    payload = TextField(null=True)
    """For a delivery: the body, rendered when the event happened; NULL if it did not render."""
    response = TextField(null=True)
    """The last answer, a JSON object, cut to what is worth keeping."""
    parent_id = BigIntegerField(null=True)
    """The task that caused it. No foreign key: the parent may be pruned first."""
    unique_key = TextField(null=True)
    """A client's idempotency key; it counts for 24 hours from `created_at`."""
    locked_by = TextField(null=True)
    """Who runs it: the `owner` of one opening of the store."""
    lease_until = BigIntegerField(null=True)
    """Until when the claim stands if its daemon says nothing."""
    started_at = BigIntegerField(null=True)
    """When the attempt may first have sent something; NULL while it is only claimed."""
    last_status_code = TextField(null=True)
    """Of the last attempt: a number, `error` or `ok`; NULL if it never got that far."""
    last_error = TextField(null=True)
    """Of the last attempt, one line; for a new delivery, why its payload did not render."""
    created_at = BigIntegerField()
    """When it was accepted."""
    updated_at = BigIntegerField()
    """When the row last changed."""
    finished_at = BigIntegerField(null=True)
    """When it succeeded, failed for good or was cancelled; retention counts from here."""
    scheduled_at = BigIntegerField()
    """The slot of a schedule that it runs for, else when it was to run first."""
    idempotent = IntegerField(constraints=ONE)
    """Whether the running attempt may be sent twice, as it was when it was claimed."""
    granted = IntegerField(constraints=ZERO)
    """Attempts that were added by hand to those of the configuration."""
    deaths = IntegerField(constraints=ZERO)
    """Starts that ended with the daemon's death."""
    generation = IntegerField(constraints=ZERO)
    """How often it was made to run again after it had succeeded; part of its webhook-id."""
    retried_at = BigIntegerField(null=True)
    """When it was last retried by hand; `give_up_after` counts from here."""
    cancel_requested = IntegerField(constraints=ZERO)
    """Cancelled while it ran: it ends instead of waiting for another try."""
    depth = IntegerField(constraints=ZERO)
    """How many calls led to it, one caused by the other."""
    format = IntegerField(constraints=ONE)
    """How `params`, `payload` and `response` are laid out; 1 is as described here."""

    class Meta:
        table_name = "retry_schedule"


def _index(
    name: str, *columns: Field, where: Expression | None = None, unique: bool = False
) -> None:
    RetrySchedule.add_index(*columns, name=f"retry_schedule_{name}", where=where, unique=unique)


_status, _endpoint = RetrySchedule.status, RetrySchedule.endpoint_id

# The claim: what is due of a key, in its order.
_index("due", _endpoint, RetrySchedule.webhook, RetrySchedule.next_try, where=_status == "pending")
# What a daemon holds.
_index("running", RetrySchedule.locked_by, where=_status == "running")
# Lists, newest first, by status alone and by endpoint.
_index("status", _status)
_index("endpoint", _endpoint, _status)
# `since`.
_index("created", RetrySchedule.created_at)
# Retention.
_finished = RetrySchedule.finished_at
_index("finished", _status, _finished, where=_finished.is_null(False))
# An idempotency key counts at its endpoint.
_key, _parent = RetrySchedule.unique_key, RetrySchedule.parent_id
_index("key", _endpoint, _key, where=_key.is_null(False), unique=True)
_index("parent", _parent, where=_parent.is_null(False))


class AttemptRow(Model):
    """One row an attempt, only ever added. A number may come twice, after a claim that was given
    back or a retry by hand."""

    id = IdField()
    task_id = BigIntegerField()
    """The task. Pruned with it."""
    attempt = IntegerField()
    """Its number, from 1."""
    started_at = BigIntegerField()
    duration_ms = FloatField()
    status_code = TextField(null=True)
    """A number, `error` or `ok`; NULL where nothing was sent."""
    error = TextField(null=True)
    delay = FloatField(null=True)
    """Seconds to the next try that were chosen; NULL where there is none."""
    why = TextField()
    """In words: how the delay came about, or why there is none."""

    class Meta:
        table_name = "attempts"


AttemptRow.add_index(AttemptRow.task_id, name="attempts_task")


class EndpointState(Model):
    """What the queue knows of an endpoint beyond its tasks. YAML says nothing of it."""

    endpoint_id = TextField(primary_key=True)
    paused = IntegerField(constraints=ZERO)
    """Its calls wait until it is resumed."""
    last_success_at = BigIntegerField(null=True)
    """When the last call that succeeded began."""

    class Meta:
        table_name = "endpoint_state"


class ScheduleSlot(Model):
    """How far each schedule has come. It outlives the tasks that it made."""

    endpoint_id = TextField(primary_key=True)
    spec = TextField()
    """The schedule as it was declared; one that changed starts anew."""
    last_slot = BigIntegerField()
    """The last slot that was dealt with."""
    task_id = BigIntegerField(null=True)
    """The task of the last slot that was not skipped."""
    before = TextField(null=True)
    """The schedule that `spec` took the place of."""

    class Meta:
        table_name = "schedules"


class BulkRow(Model):
    """A retry by hand, or the end, of many tasks, carried out in small steps and over restarts."""

    id = IdField()
    filter_ = TextField(column_name="filter")
    """Which tasks, a JSON object."""
    rate = FloatField(null=True)
    """Tasks a second; NULL for no limit."""
    dry_run = IntegerField(constraints=ZERO)
    """Only counted."""
    status = TextField()
    """running, finished or cancelled."""
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
    owner = TextField(null=True)
    """Which daemon carries it out, as in `locked_by` of a task."""
    lease_until = BigIntegerField(null=True)
    """Until when nobody else does, if that daemon says nothing."""
    action = TextField(constraints=[SQL("DEFAULT 'retry'")])
    """retry or cancel."""

    class Meta:
        table_name = "bulks"


class DaemonRow(Model):
    """One row for each daemon that works on the queue; it is deleted when the daemon ends, or by
    the others some time after its last sign of life. Its times are by the database's clock."""

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

    class Meta:
        table_name = "daemons"


class ActionRow(Model):
    """What people did by hand: written down before they are told that it is done."""

    id = IdField()
    at = BigIntegerField()
    who = TextField()
    """As the log has it: a user of this machine, or the token that was shown and from where."""
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


class RateRow(Model):
    """What daemons that share a queue have begun of each lane with a rate limit."""

    lane = TextField(primary_key=True)
    stamps = TextField()
    """Pairs of a time, by the database's clock, and how many began then, as JSON."""

    class Meta:
        table_name = "rates"


class Fact(Model):
    """Facts about the queue itself, by name: `instance`."""

    name = TextField(primary_key=True)
    value = TextField()

    class Meta:
        table_name = "meta"


class SchemaRow(Model):
    """The one row that says which version of the schema this is."""

    id = IntegerField(primary_key=True)
    """Always 1."""
    version = IntegerField()
    compatible_from = IntegerField()
    """The oldest version of the schema whose daemons can still use this database."""

    class Meta:
        table_name = "schema"
