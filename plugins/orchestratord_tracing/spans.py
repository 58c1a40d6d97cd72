"""From events to spans, with attributes after OpenTelemetry's conventions for HTTP clients."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode

from orchestratord import Config, Event, EventType, TaskEvent
from orchestratord_tracing.targets import Where, of_call, of_delivery

NAME = "orchestratord"

_FAILED = (EventType.TASK_RETRIED, EventType.TASK_FAILED)
_NS = 1_000_000
"""Nanoseconds of a millisecond."""


class Spans:
    """Makes a span of each attempt that has ended."""

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        """`provider`: left out, the one that is set for the process."""
        self._provider = provider
        self._tracer: trace.Tracer | None = None
        self._config: Config | None = None
        self._where: dict[tuple[str, str | None], Where] = {}

    def adopt(self, config: Config) -> None:
        """Look up where attempts go in this configuration."""
        self._config = config
        self._where.clear()

    def observe(self, events: Sequence[Event]) -> None:
        """Make a span of each attempt among these events that has ended."""
        tracer = self._tracer or self._found()
        if tracer is None:
            return
        for event in events:
            if not isinstance(event, TaskEvent) or event.type is EventType.TASK_STARTED:
                continue
            if event.started_at is not None and event.duration_ms is not None:
                self._tell(tracer, event, event.started_at, event.duration_ms)

    def _found(self) -> trace.Tracer | None:
        """The tracer, once somebody has set up what becomes of spans."""
        provider = self._provider or trace.get_tracer_provider()
        if not isinstance(provider, trace.ProxyTracerProvider):
            self._tracer = provider.get_tracer(NAME, version(NAME))
        return self._tracer

    def _tell(self, tracer: trace.Tracer, event: TaskEvent, began: int, duration: float) -> None:
        where = self._where_of(event)
        outcome = event.type.partition(".")[2]
        attributes = {
            **where.attributes,
            "orchestratord.task_id": event.id,
            "orchestratord.kind": event.kind,
            "orchestratord.attempt": event.attempt,
            "orchestratord.outcome": outcome,
        }
        if event.parent_id is not None:
            attributes["orchestratord.parent_id"] = event.parent_id
        if event.reason is not None:
            attributes["orchestratord.reason"] = event.reason
        code = event.status_code
        if where.is_http:
            if isinstance(code, int):
                attributes["http.response.status_code"] = code
            if event.attempt > 1:
                attributes["http.request.resend_count"] = event.attempt - 1
        failed = event.type in _FAILED
        if failed:
            answered = isinstance(code, int) or not where.is_http
            attributes["error.type"] = str(code) if answered and code else "no_answer"
        span = tracer.start_span(
            where.name,
            # Not a part of whatever the daemon happens to be at when it tells of it.
            context=Context(),
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=began * _NS,
        )
        if failed:
            # What a status code says needs no words.
            words = None if isinstance(code, int) else event.error
            span.set_status(Status(StatusCode.ERROR, words))
        span.end(end_time=began * _NS + round(duration * _NS))

    def _where_of(self, event: TaskEvent) -> Where:
        key = (event.endpoint, event.webhook)
        where = self._where.get(key)
        if where is None:
            where = self._where[key] = self._look_up(event)
        return where

    def _look_up(self, event: TaskEvent) -> Where:
        endpoint = self._config.endpoints.get(event.endpoint) if self._config else None
        if endpoint is None:
            where = Where(f"{event.kind} {event.endpoint}", False)
        elif event.webhook is None:
            where = of_call(endpoint)
        else:
            where = of_delivery(endpoint, event.webhook)
        where.attributes["orchestratord.model.endpoint"] = event.endpoint
        if event.webhook is not None:
            where.attributes["orchestratord.webhook"] = event.webhook
        return where.masked(self._config.redactor) if self._config else where
