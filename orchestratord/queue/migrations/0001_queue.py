"""The first version of the schema. Like every migration, a copy that never changes again."""

from __future__ import annotations

from typing import Any

from peewee import (
    SQL,
    BigIntegerField,
    Database,
    FloatField,
    IntegerField,
    Model,
    Node,
    TextField,
)

from orchestratord.queue.database import IdField
from orchestratord.queue.schema import stamp

ZERO: list[Node] = [SQL("DEFAULT 0")]
ONE: list[Node] = [SQL("DEFAULT 1")]


def up(migrator: Any, db: Database) -> None:
    class RetrySchedule(Model):
        id = IdField()
        kind = TextField()
        endpoint_id = TextField()
        webhook = TextField(constraints=[SQL("DEFAULT ''")])
        phase = TextField(null=True)
        status = TextField()
        reason = TextField(null=True)
        attempts = IntegerField(constraints=ZERO)
        max_attempts = IntegerField()
        next_try = BigIntegerField(null=True)
        params = TextField(constraints=[SQL("DEFAULT '{}'")])
        payload = TextField(null=True)
        response = TextField(null=True)
        parent_id = BigIntegerField(null=True)
        unique_key = TextField(null=True)
        locked_by = TextField(null=True)
        lease_until = BigIntegerField(null=True)
        started_at = BigIntegerField(null=True)
        last_status_code = TextField(null=True)
        last_error = TextField(null=True)
        created_at = BigIntegerField()
        updated_at = BigIntegerField()
        finished_at = BigIntegerField(null=True)
        scheduled_at = BigIntegerField()
        idempotent = IntegerField(constraints=ONE)
        granted = IntegerField(constraints=ZERO)
        deaths = IntegerField(constraints=ZERO)
        generation = IntegerField(constraints=ZERO)
        retried_at = BigIntegerField(null=True)
        cancel_requested = IntegerField(constraints=ZERO)
        format = IntegerField(constraints=ONE)

        class Meta:
            table_name = "retry_schedule"

    task = RetrySchedule
    finished, key, parent = task.finished_at, task.unique_key, task.parent_id
    for name, columns, where in (
        ("due", (task.endpoint_id, task.webhook, task.next_try), task.status == "pending"),
        ("running", (task.locked_by,), task.status == "running"),
        ("status", (task.status,), None),
        ("endpoint", (task.endpoint_id, task.status), None),
        ("created", (task.created_at,), None),
        ("finished", (task.status, finished), finished.is_null(False)),
        ("key", (task.endpoint_id, key), key.is_null(False)),
        ("parent", (parent,), parent.is_null(False)),
    ):
        task.add_index(*columns, name=f"retry_schedule_{name}", where=where, unique=name == "key")

    class AttemptRow(Model):
        id = IdField()
        task_id = BigIntegerField()
        attempt = IntegerField()
        started_at = BigIntegerField()
        duration_ms = FloatField()
        status_code = TextField(null=True)
        error = TextField(null=True)
        delay = FloatField(null=True)
        why = TextField()

        class Meta:
            table_name = "attempts"

    AttemptRow.add_index(AttemptRow.task_id, name="attempts_task")

    class EndpointState(Model):
        endpoint_id = TextField(primary_key=True)
        paused = IntegerField(constraints=ZERO)
        last_success_at = BigIntegerField(null=True)

        class Meta:
            table_name = "endpoint_state"

    class ScheduleSlot(Model):
        endpoint_id = TextField(primary_key=True)
        spec = TextField()
        last_slot = BigIntegerField()
        task_id = BigIntegerField(null=True)

        class Meta:
            table_name = "schedules"

    class BulkRow(Model):
        id = IdField()
        filter_ = TextField(column_name="filter")
        rate = FloatField(null=True)
        dry_run = IntegerField(constraints=ZERO)
        status = TextField()
        highest_id = BigIntegerField()
        cursor = BigIntegerField(constraints=ZERO)
        matched = BigIntegerField()
        moved = BigIntegerField(constraints=ZERO)
        skipped = BigIntegerField(constraints=ZERO)
        created_at = BigIntegerField()
        updated_at = BigIntegerField()
        finished_at = BigIntegerField(null=True)

        class Meta:
            table_name = "bulks"

    class Fact(Model):
        name = TextField(primary_key=True)
        value = TextField()

        class Meta:
            table_name = "meta"

    class SchemaRow(Model):
        id = IntegerField(primary_key=True)
        version = IntegerField()
        compatible_from = IntegerField()

        class Meta:
            table_name = "schema"

    tables = [RetrySchedule, AttemptRow, EndpointState, ScheduleSlot, BulkRow, Fact, SchemaRow]
    with db.bind_ctx(tables):
        db.create_tables(tables)
    stamp(db, version=1, compatible_from=1)
