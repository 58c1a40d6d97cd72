"""What holds for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import orchestratord_webhooks
import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says something about the machine, and nothing about the code.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


@pytest.fixture(autouse=True)
def webhooks_that_nobody_disabled() -> Iterator[None]:
    """A process has the plugin once; what one test's webhooks went through is none of another's."""
    yield
    orchestratord_webhooks.health.__init__()  # type: ignore[misc]
