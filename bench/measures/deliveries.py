"""Webhook deliveries alone: queued, then a daemon starts and delivers them.

Each is signed, has its attempt logged and its webhook's health kept, and every hook is called.
"""

from __future__ import annotations

import json
from pathlib import Path

from bench.environment.daemon import SECRET, TEXT, daemon, declare_post, enqueue, succeeded, verify
from bench.environment.servers import Nginx
from bench.measures.drain import Drained, drain
from orchestratord.model.task import NewTask
from tests.acceptance.daemon import Daemon

RECEIVERS = 6
"""Ports that they go to in turn, since ten are in flight to one at most."""


def queue(made: Daemon, nginx: Nginx, count: int) -> None:
    """Declare them, and queue `count` payloads of 1 KB, of a daemon that does not run yet."""
    webhooks = [
        {
            "name": f"told{number}",
            "phase": "after_request",
            "url": nginx.url(number),
            "secret": SECRET,
        }
        for number in range(RECEIVERS)
    ]
    payload = json.dumps({"text": TEXT})
    declare_post(made, nginx, webhooks=webhooks)
    enqueue(
        made,
        (
            NewTask(
                kind="webhook", endpoint_id="bench/post", webhook=f"told{number % RECEIVERS}",
                phase="after_request", payload=payload, max_attempts=10,
            )
            for number in range(count)
        ),
    )  # fmt: skip


def measure(home: Path, nginx: Nginx, count: int, workers: int = 1) -> Drained:
    """Deliver `count` payloads of 1 KB, by so many workers."""
    with daemon(home, workers=workers) as made:
        queue(made, nginx, count)
        made.launch()
        drained = drain(nginx, count, lambda: count - succeeded(made), [made.pid])
        made.stop()
        verify(made, count)
    return drained
