from __future__ import annotations

from collections.abc import Iterator

import orchestratord_backoff
import orchestratord_webhooks
import pytest
from webhook_parts import Receiver

from orchestratord.testing import Rig


@pytest.fixture
def rig() -> Rig:
    """The webhooks plugin beside the backoff plugin, as they ship."""
    rig = Rig(orchestratord_webhooks, name="webhooks", beside=[orchestratord_backoff])
    rig.adopt(rig.config())  # forgets what the last test taught it
    orchestratord_webhooks.deliveries.bind("q1", {})
    return rig


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()
