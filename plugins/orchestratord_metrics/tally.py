"""From what happened to what is counted."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from orchestratord import ConfigEvent, Event, EventType, TaskEvent
from orchestratord_metrics.counts import Counts

DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Seconds; an attempt may take 30 by default."""
LATENESS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800, 7200)
"""Seconds; a task may have been paused, or its daemon stopped."""

# An enumeration's members are found slowly.
_CREATED, _STARTED = EventType.TASK_CREATED, EventType.TASK_STARTED
_OUTCOMES = {
    EventType.TASK_SUCCEEDED: "succeeded",
    EventType.TASK_RETRIED: "retried",
    EventType.TASK_FAILED: "failed",
    EventType.TASK_CANCELLED: "cancelled",
    EventType.TASK_SNOOZED: "snoozed",
}
_CLASSES: dict[object, str] = {None: "none"}
"""Of each status code that was seen."""


class Tally:
    """Everything that is counted since the daemon started."""

    def __init__(self) -> None:
        of_task = ("endpoint", "kind")
        self.created = Counts(
            "orchestratord_tasks_created", "Tasks that were accepted or followed.", of_task
        )
        self.attempts = Counts(
            "orchestratord_attempts",
            "Attempts that have ended.",
            (*of_task, "status_class", "outcome"),
        )
        self.durations = Counts(
            "orchestratord_attempt_duration_seconds",
            "How long attempts took.",
            of_task,
            DURATIONS,
        )
        self.retries = Counts(
            "orchestratord_retries",
            "Attempts that failed and are followed by another one.",
            of_task,
        )
        self.deliveries = Counts(
            "orchestratord_deliveries",
            "Deliveries of webhooks that have ended.",
            ("endpoint", "webhook", "status"),
        )
        self.final_failures = Counts(
            "orchestratord_final_failures", "Tasks that failed for good.", (*of_task, "reason")
        )
        self.lateness = Counts(
            "orchestratord_lateness_seconds",
            "How long after they were due attempts began.",
            ("kind",),
            LATENESS,
        )
        self.config_changes = Counts(
            "orchestratord_config_changes",
            "Configurations that were adopted or refused.",
            ("result",),
        )

    def all(self) -> Sequence[Counts]:
        """In the order in which they are shown."""
        return (
            self.created,
            self.attempts,
            self.durations,
            self.retries,
            self.deliveries,
            self.final_failures,
            self.lateness,
            self.config_changes,
        )

    def observe(self, events: Sequence[Event]) -> None:
        """Count these events."""
        for event in events:
            if isinstance(event, TaskEvent):
                kind = event.type
                if kind is _STARTED:
                    if event.lateness_ms is not None:
                        self.lateness.add((event.kind,), event.lateness_ms / 1000)
                elif kind is _CREATED:
                    self.created.add((event.endpoint, event.kind))
                elif (outcome := _OUTCOMES.get(kind)) is not None:
                    self._ended(event, outcome)
            elif isinstance(event, ConfigEvent):
                adopted = event.type is EventType.CONFIG_ADOPTED
                self.config_changes.add(("adopted" if adopted else "refused",))

    def _ended(self, event: TaskEvent, outcome: str) -> None:
        of_task = endpoint, kind = event.endpoint, event.kind
        if event.started_at is not None:
            code = event.status_code
            self.attempts.add((endpoint, kind, _CLASSES.get(code) or _class_of(code), outcome))
            if event.duration_ms is not None:
                self.durations.add(of_task, event.duration_ms / 1000)
        if outcome == "retried":
            self.retries.add(of_task)
            return
        if outcome == "failed":
            self.final_failures.add((endpoint, kind, event.reason or ""))
        if event.webhook is not None and outcome != "snoozed":
            self.deliveries.add((endpoint, event.webhook, outcome))

    def forget(self, declared: Collection[str]) -> None:
        """Drop what was counted of endpoints that are not among those that are `declared`."""
        for counted in self.all():
            counted.forget(declared)


def _class_of(code: int | str | None) -> str:
    """`2xx` for a number; the word where it is one, such as `error`."""
    if isinstance(code, int):
        name = f"{code // 100}xx" if 100 <= code < 600 else "other"
        _CLASSES[code] = name
        return name
    return code or "none"
