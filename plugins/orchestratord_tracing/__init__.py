"""Traces by OpenTelemetry's API, where it is installed: a span for each attempt.

Spans are made of what `observe` is told, with the times at which the attempt began and ended. An
attempt itself costs nothing more, and knows nothing of its span.
"""

from __future__ import annotations

import os
import sys
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


def is_set_up() -> bool:
    """Whether there may be a provider: what sets one up has imported the API, or the environment
    names one."""
    return "opentelemetry.trace" in sys.modules or "OTEL_PYTHON_TRACER_PROVIDER" in os.environ


if is_installed():
    _spans: Spans | None = None
    _config: Config | None = None

    @hookimpl
    def config_adopted(config: Config) -> None:
        global _config
        _config = config
        if _spans is not None:
            _spans.adopt(config)

    @hookimpl
    def observe(events: Sequence[Event]) -> None:
        global _spans
        if _spans is None:
            # The API is imported only where spans may be wanted: that takes 5 ms of a start.
            if _config is None or not is_set_up():
                return
            from orchestratord_tracing.spans import Spans

            _spans = Spans()
            _spans.adopt(_config)
        _spans.observe(events)
