"""Traces by OpenTelemetry's API, where it is installed: a span for each attempt.

Spans are made of what `observe` is told, with the times at which the attempt began and ended. An
attempt itself costs nothing more, and knows nothing of its span.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from orchestratord import Config, Event, hookimpl

if TYPE_CHECKING:
    from orchestratord_tracing.spans import Spans


def is_installed() -> bool:
    """Whether OpenTelemetry's API can be imported."""
    try:
        return find_spec("opentelemetry.trace") is not None
    except ModuleNotFoundError:
        return False


if is_installed():
    _spans: Spans | None = None

    @hookimpl
    def config_adopted(config: Config) -> None:
        global _spans
        if _spans is None:
            # Commands that only load the plugin need no API.
            from orchestratord_tracing.spans import Spans

            _spans = Spans()
        _spans.adopt(config)

    @hookimpl
    def observe(events: Sequence[Event]) -> None:
        if _spans is not None:
            _spans.observe(events)
