"""Calls with one webhook each, and so two requests: template, hooks, signature and all.

The calls are accepted while their endpoint is paused; the clock runs from its resumption.
"""

from __future__ import annotations

from pathlib import Path

from bench.daemon import SECRET, call_all, daemon, declare_post, succeeded, verify
from bench.drain import Drained, drain
from bench.servers import Nginx


def measure(home: Path, nginx: Nginx, count: int) -> Drained:
    """Make `count` calls and deliver what they tell; figures are of requests, two a call."""
    webhook = {
        "name": "told", "phase": "after_request", "url": nginx.url(1), "secret": SECRET,
    }  # fmt: skip
    with daemon(home) as made:
        declare_post(made, nginx, webhooks=[webhook])
        made.start()
        made.post("/v1/endpoints/bench/post/pause").raise_for_status()
        call_all(made, "bench/post", count)
        drained = drain(
            nginx,
            2 * count,
            lambda: 2 * count - succeeded(made),
            [made.pid],
            begin=lambda: made.post("/v1/endpoints/bench/post/resume").raise_for_status(),
        )
        made.stop()
        verify(made, 2 * count)
    return drained
