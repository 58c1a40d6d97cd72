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
    declare_post(made, nginx, webhooks=webhooks_of(nginx, told))
    new = (
        NewTask("call", "bench/post", params={"number": number, "text": TEXT}, max_attempts=10)
        for number in range(count)
    )
    enqueue(made, new)


def measure(
    home: Path,
    nginx: Nginx,
    count: int,
    *,
    told: bool = True,
    followed: bool = False,
    workers: int = 1,
) -> Drained:
    """Make `count` calls and deliver what they tell; figures are of requests.

    Args:
        home: of the daemon.
        nginx: the receiver.
        count: of the calls.
        told: each has a webhook, and so two requests.
        followed: `then` makes one more call of each, and a second webhook wants other answers.
        workers: of the daemon.
    """
    requests = (1 + told + followed) * count
    with daemon(home, workers=workers) as made:
        webhooks = webhooks_of(nginx, told)
        keys: dict[str, Any] = {}
        if followed:
            webhooks.append({**_webhook(nginx), "name": "failed", "status_code": "5xx"})
            keys["then"] = [{"call": "bench/next", "params": {"number": "params.number"}}]
            declare_post(made, nginx, "bench/next")
        declare_post(made, nginx, webhooks=webhooks, **keys)
        made.start()
        made.post("/v1/endpoints/bench/post/pause").raise_for_status()
        call_all(made, "bench/post", count)
        drained = drain(
            nginx,
            requests,
            lambda: requests - succeeded(made),
            [made.pid],
            begin=lambda: made.post("/v1/endpoints/bench/post/resume").raise_for_status(),
        )
        made.stop()
        verify(made, requests)
    return drained


def webhooks_of(nginx: Nginx, told: bool) -> list[dict[str, Any]]:
    """The webhooks of a call: one where it is `told`."""
    return [_webhook(nginx)] if told else []


def _webhook(nginx: Nginx) -> dict[str, Any]:
    return {"name": "told", "phase": "after_request", "url": nginx.url(1), "secret": SECRET}
