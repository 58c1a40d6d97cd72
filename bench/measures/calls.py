"""Calls with one webhook each, and so two requests: template, hooks, signature and all; or without.

The calls are accepted while their endpoint is paused; the clock runs from its resumption.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.environment.daemon import (
    SECRET,
    TEXT,
    call_all,
    daemon,
    declare_post,
    enqueue,
    succeeded,
    verify,
)
from bench.environment.servers import Nginx
from bench.measures.drain import Drained, drain
from orchestratord.model.task import NewTask
from tests.acceptance.daemon import Daemon


def queue(made: Daemon, nginx: Nginx, count: int, *, told: bool = False) -> None:
    """Declare calls, `told` by a webhook or not, and queue `count`, of a daemon that does not run
    yet."""
    declare_post(made, nginx, webhooks=_webhooks(nginx, told))
    new = (
        NewTask("call", "bench/post", params={"number": number, "text": TEXT}, max_attempts=10)
        for number in range(count)
    )
    enqueue(made, new)


def measure(
    home: Path, nginx: Nginx, count: int, *, told: bool = True, workers: int = 1
) -> Drained:
    """Make `count` calls and deliver what they tell; figures are of requests, two a call.

    Args:
        home: of the daemon.
        nginx: the receiver.
        count: of the calls.
        told: each has a webhook; without one it is one request.
        workers: of the daemon.
    """
    each = 2 if told else 1
    with daemon(home, workers=workers) as made:
        declare_post(made, nginx, webhooks=_webhooks(nginx, told))
        made.start()
        made.post("/v1/endpoints/bench/post/pause").raise_for_status()
        call_all(made, "bench/post", count)
        drained = drain(
            nginx,
            each * count,
            lambda: each * count - succeeded(made),
            [made.pid],
            begin=lambda: made.post("/v1/endpoints/bench/post/resume").raise_for_status(),
        )
        made.stop()
        verify(made, each * count)
    return drained


def _webhooks(nginx: Nginx, told: bool) -> list[dict[str, Any]]:
    url = nginx.url(1)
    webhook = {"name": "told", "phase": "after_request", "url": url, "secret": SECRET}
    return [webhook] if told else []
