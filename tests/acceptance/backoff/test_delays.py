"""The delays that are chosen and recorded. How exactly they are kept: `python -m bench.latency`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver

DELAYS: dict[str, tuple[Any, list[float]]] = {
    "fixed": ({"strategy": "fixed", "delay": "100ms"}, [0.1, 0.1, 0.1, 0.1]),
    "linear": ({"strategy": "linear", "delay": "50ms"}, [0.05, 0.1, 0.15, 0.2]),
    "exponential": (
        {"strategy": "exponential", "delay": "30ms", "factor": 3},
        [0.03, 0.1, 0.27, 0.3],
    ),
    "list": ({"strategy": "list", "delays": ["40ms", "0s", "80ms"]}, [0.04, 0.1, 0.1, 0.1]),
}


@pytest.fixture(scope="module")
def daemon(make_shared: MakeDaemon, shared_receiver: Receiver) -> Daemon:
    daemon = make_shared()
    daemon.api("shop", shared_receiver.url, breaker="off")
    for name, (backoff, _) in DELAYS.items():
        shared_receiver.on(f"/{name}", 500)
        daemon.endpoint(
            f"shop/{name}",
            f"/{name}",
            retry={"backoff": backoff, "max_attempts": 5, "max_delay": "300ms", "jitter": 0},
        )
    shared_receiver.on("/jitter", 500)
    daemon.endpoint(
        "shop/jitter",
        "/jitter",
        retry={
            "backoff": {"strategy": "fixed", "delay": "200ms"},
            "max_attempts": 8,
            "jitter": 0.5,
        },
    )
    return daemon.start()


@pytest.mark.parametrize("name", DELAYS)
def test_each_strategy_is_followed_and_written_down(
    daemon: Daemon, shared_receiver: Receiver, name: str
) -> None:
    task = daemon.finish(daemon.call(f"shop/{name}"))
    assert (task["status"], task["reason"]) == ("failed", "exhausted")
    log = task["attempt_log"]
    assert [item["delay"] for item in log[:-1]] == pytest.approx(DELAYS[name][1])
    assert log[-1]["delay"] is None
    assert [item["attempt"] for item in log] == [1, 2, 3, 4, 5]
    assert all(item["why"].startswith(name) for item in log[:-1])
    assert log[-1]["why"] == "attempt 5 of 5 was the last"

    # Never early: each attempt begins when the one before has ended and its delay is over.
    starts = [datetime.fromisoformat(item["started_at"]).timestamp() for item in log]
    for first, second, item in zip(starts, starts[1:], log, strict=False):
        assert second - first >= item["delay"] - 0.002
    seen = [item.at for item in shared_receiver.received(f"/{name}")]
    for first, second, item in zip(seen, seen[1:], log, strict=False):
        assert second - first >= item["delay"] - 0.002


def test_jitter_is_drawn_around_the_delay(daemon: Daemon) -> None:
    task = daemon.finish(daemon.call("shop/jitter"))
    delays = [item["delay"] for item in task["attempt_log"][:-1]]
    assert len(delays) == 7
    assert all(0.1 <= delay <= 0.3 for delay in delays)
    assert len(set(delays)) == 7
    assert all("jitter" in item["why"] for item in task["attempt_log"][:-1])
