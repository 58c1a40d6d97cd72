"""From events to spans, with attributes after OpenTelemetry's conventions for HTTP clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode

from orchestratord import Config, Endpoint, Event, EventType, Redactor, TaskEvent

NAME = "orchestratord"

_FAILED = (EventType.TASK_RETRIED, EventType.TASK_FAILED)
_NS = 1_000_000
"""Nanoseconds of a millisecond."""


Attributes = dict[str, str | int]


@dataclass(frozen=True, slots=True)
class SpanTarget:
    """Where the attempts of one key go: the span's name, and its attributes.

    `is_http` is False where the endpoint's type is another one.
    """

    name: str
    is_http: bool
    attributes: Attributes = field(default_factory=dict)

    def masked(self, redactor: Redactor) -> SpanTarget:
        """A copy without secrets: a webhook may be named after a receiver that is one."""
        return SpanTarget(redactor.text(self.name), self.is_http, redactor.value(self.attributes))


class Spans:
    """Makes a span of each attempt that has ended."""

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        """`provider`: left out, the one that is set for the process."""
        self._provider = provider
        self._tracer: trace.Tracer | None = None
        self._config: Config | None = None
        self._targets: dict[tuple[str, str | None], SpanTarget] = {}

    def adopt(self, config: Config) -> None:
        """Look up where attempts go in this configuration."""
        self._config = config
        self._targets.clear()

    def observe(self, events: Sequence[Event]) -> None:
        """Make a span of each attempt among these events that has ended."""
        tracer = self._tracer or self._found()
        if tracer is None:
            return
        for event in events:
            if not isinstance(event, TaskEvent) or event.type is EventType.TASK_STARTED:
                continue
            if event.started_at is not None and event.duration_ms is not None:
                self._record(tracer, event, event.started_at, event.duration_ms)

    def _found(self) -> trace.Tracer | None:
        """The tracer, once it is set up what becomes of spans."""
        provider = self._provider or trace.get_tracer_provider()
        if not isinstance(provider, trace.ProxyTracerProvider):
            self._tracer = provider.get_tracer(NAME, version(NAME))
        return self._tracer

    def _record(self, tracer: trace.Tracer, event: TaskEvent, began: int, duration: float) -> None:
        key = (event.endpoint, event.webhook)
        target = self._targets.get(key)
        if target is None:
            target = self._targets[key] = self._look_up(event)
        outcome = event.type.partition(".")[2]
        attributes = {
            **target.attributes,
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
        if target.is_http:
            if isinstance(code, int):
                attributes["http.response.status_code"] = code
            if event.attempt > 1:
                attributes["http.request.resend_count"] = event.attempt - 1
        failed = event.type in _FAILED
        if failed:
            answered = isinstance(code, int) or not target.is_http
            attributes["error.type"] = str(code) if answered and code else "no_answer"
        span = tracer.start_span(
            target.name,
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

    def _look_up(self, event: TaskEvent) -> SpanTarget:
        endpoint = self._config.endpoints.get(event.endpoint) if self._config else None
        if endpoint is None:
            target = SpanTarget(f"{event.kind} {event.endpoint}", False)
        elif event.webhook is None:
            target = of_call(endpoint)
        else:
            target = of_delivery(endpoint, event.webhook)
        target.attributes["orchestratord.endpoint"] = event.endpoint
        if event.webhook is not None:
            target.attributes["orchestratord.webhook"] = event.webhook
        return target.masked(self._config.redactor) if self._config else target


def of_call(endpoint: Endpoint) -> SpanTarget:
    """Where the calls of an endpoint go."""
    if endpoint.type != "http":
        return SpanTarget(f"{endpoint.type} {endpoint.id}", False, _statement(endpoint))
    method = str(getattr(endpoint.spec, "method", "GET"))
    base = str(endpoint.shown.get("base_url", ""))
    path = endpoint.shown.get("path", "")
    # One that a parameter says is known of no call before its answer.
    template = _path(base).rstrip("/") + (path if isinstance(path, str) else "")
    attributes: Attributes = {"http.request.method": method, **_server(base)}
    if template:
        attributes["url.template"] = template
    return SpanTarget(f"{method} {template}".rstrip(), True, attributes)


def _statement(endpoint: Endpoint) -> Attributes:
    """Which database, and what is executed there, without the values of parameters."""
    names = {"database": "db.namespace", "statement": "db.query.text"}
    return {name: str(endpoint.shown[key]) for key, name in names.items() if key in endpoint.shown}


def of_delivery(endpoint: Endpoint, webhook: str) -> SpanTarget:
    """Where the deliveries of a webhook go.

    The path of its URL is left out: many a receiver takes what stands there for a password.
    """
    declared: Mapping[str, Any] = next(
        (item for item in endpoint.shown.get("webhooks", ()) if item.get("name") == webhook), {}
    )
    server = _server(str(declared.get("url", "")))
    return SpanTarget(f"POST {webhook}", True, {"http.request.method": "POST", **server})


def _server(url: str) -> Attributes:
    """Host and port; nothing where one of them is a secret, or cannot be told."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return {}
    if not host or "*" in host:
        return {}
    default = {"http": 80, "https": 443}.get(parts.scheme)
    number = port or default
    return {"server.address": host} | ({"server.port": number} if number else {})


def _path(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:
        return ""
