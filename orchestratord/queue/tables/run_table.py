"""The table of runs."""

from __future__ import annotations

from peewee import BigIntegerField, IntegerField, TextField

from orchestratord.queue.tables.table_parts import REWRITTEN, ZERO, QueueRow


class RunRow(QueueRow):
    """A run: a call that nothing caused, and all calls that follow from it, with how many of them
    have ended how. It begins with the first child task, or as the call is accepted where
    hooks are to be told of its end; and outlives its tasks."""

    id = BigIntegerField(primary_key=True)
    """The call that began it."""
    endpoint_id = TextField()
    """Of that call."""
    tasks = IntegerField()
    """How many calls belong to it; those that wait in slices are counted."""
    open_tasks = IntegerField()
    """How many of them have not ended."""
    succeeded = IntegerField()
    failed = IntegerField()
    cancelled = IntegerField()
    ends = IntegerField(constraints=ZERO)
    """How often it has ended: a manual retry may open it again."""
    created_at = BigIntegerField()
    """When the call that began it was accepted."""
    ended_at = BigIntegerField(null=True)
    """When the last of its calls ended; NULL while one has not."""

    class Meta:
        table_name = "runs"
        postgres = REWRITTEN


# Retention.
RunRow.add_index(RunRow.ended_at, name="runs_ended", where=RunRow.ended_at.is_null(False))
