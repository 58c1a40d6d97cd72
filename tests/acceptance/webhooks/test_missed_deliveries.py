"""What a webhook misses while it is disabled: kept, bounded, replayed, and no failure."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

MISSED = ("failed", "webhook_disabled", 0)


def started(make_daemon: MakeDaemon, receiver: Receiver, **keys: Any) -> Daemon:
    receiver.on("/get", 200)
    receiver.on("/hook", 204)
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    hook = {"name": "ops", "phase": "on_success", "url": f"{receiver.url}/hook", "retry": retry()}
    daemon.endpoint("shop/get", "/get", webhooks=[hook | keys])
    daemon.start()
    return daemon


def shown(daemon: Daemon) -> dict[str, Any]:
    (webhook,) = daemon.get("/v1/webhooks").json()["webhooks"]
    found: dict[str, Any] = webhook
    return found


def ends(daemon: Daemon) -> list[tuple[str, str, int]]:
    return [(one["status"], one["reason"], one["attempts"]) for one in daemon.tasks(webhook="ops")]


@pytest.mark.parametrize("gone", [False, True], ids=["by hand", "by 410"])
def test_what_a_disabled_webhook_misses_is_replayed_after_a_kill(
    make_daemon: MakeDaemon, receiver: Receiver, gone: bool
) -> None:
    daemon = started(make_daemon, receiver)
    if gone:
        receiver.on("/hook", 410)
        daemon.finish(daemon.call("shop/get"))
        until(lambda: not shown(daemon)["enabled"], "that it is disabled")
        receiver.on("/hook", 204)
    else:
        assert daemon.ctl("webhooks", "disable", "shop/get", "ops").code == 0
    asked = receiver.count("/hook")
    for _ in range(3):
        daemon.finish(daemon.call("shop/get"))
        daemon.kill()
        daemon.start()
    daemon.settle()
    assert ends(daemon)[:3] == [MISSED] * 3
    assert receiver.count("/hook") == asked
    assert shown(daemon)["missed"] == 3 + gone
    enabled = daemon.ctl("webhooks", "enable", "shop/get", "ops", "--replay")
    assert f"{3 + gone} deliveries that failed since" in enabled.err
    until(lambda: receiver.count("/hook") == asked + 3 + gone, "what it missed")
    daemon.settle()
    assert {one["status"] for one in daemon.tasks(webhook="ops")} == {"succeeded"}
    assert shown(daemon)["missed"] == 0


def test_the_oldest_go_and_are_counted(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = started(make_daemon, receiver, keep_missed={"for": "1d", "max": 5})
    daemon.ctl("webhooks", "disable", "shop/get", "ops")
    for _ in range(8):
        daemon.finish(daemon.call("shop/get"))
    daemon.settle()
    newest = [one["id"] for one in daemon.tasks(webhook="ops")][:5]
    daemon.restart()  # which looks at once
    until(lambda: shown(daemon)["missed_deleted"] == 3, "that the oldest are deleted")
    assert [one["id"] for one in daemon.tasks(webhook="ops")] == newest
    daemon.stop()
    with sqlite3.connect(daemon.database) as queue:
        queue.execute(
            "UPDATE retry_schedule SET finished_at = finished_at - 86400000 WHERE id = ?",
            (newest[-1],),
        )
    queue.close()
    daemon.start()
    until(lambda: shown(daemon)["missed_deleted"] == 4, "that what is too old is deleted")
    assert [one["id"] for one in daemon.tasks(webhook="ops")] == newest[:4]


def test_missed_deliveries_are_no_failures(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = started(make_daemon, receiver)
    daemon.ctl("webhooks", "disable", "shop/get", "ops")
    for _ in range(4):
        daemon.finish(daemon.call("shop/get"))
    daemon.settle()
    until(lambda: daemon.status()["queue"]["missed"] == 4, "that it is known")
    status = daemon.status()
    assert (status["queue"]["failed"], status["queue"]["missed"]) == (0, 4)
    assert (status["failing"], status["failing_counts"]["webhook"]) == ([], 0)
    assert "4 missed" in daemon.ctl("status").out
    metrics = daemon.get("/metrics").text
    assert 'orchestratord_tasks{status="missed"} 4' in metrics
    assert "orchestratord_final_failures_total{" not in metrics
    labels = 'endpoint="shop/get",status="missed",webhook="ops"'
    assert f"orchestratord_deliveries_total{{{labels}}} 4" in metrics
    assert "waiting tasks have failed" not in daemon.log()
    resolved = daemon.ctl("resolve", "--all", "--as", "failed", "--endpoint", "shop/get")
    assert resolved.code == 0
    assert ends(daemon) == [MISSED] * 4
    named = ("--reason", "webhook_disabled", "--as", "failed")
    daemon.ctl("resolve", "--all", "--endpoint", "shop/get", *named)
    until(lambda: {end[1] for end in ends(daemon)} == {"resolved"}, "that they are resolved")
    assert shown(daemon)["missed"] == 0
