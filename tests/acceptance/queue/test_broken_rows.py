"""Rows that hold no JSON any more, as after an edit of the table: each fails alone."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until


def damage(daemon: Daemon, task_id: int, column: str, value: str | bytes) -> None:
    """Edit a row, as an administrator would."""
    with closing(sqlite3.connect(daemon.database, timeout=30)) as connection, connection:
        connection.execute(f"UPDATE retry_schedule SET {column} = ? WHERE id = ?", (value, task_id))


def test_a_row_with_broken_json_fails_alone(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.on("/", 200)
    receiver.on("/hook", 204)
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    hook = {"name": "told", "phase": "on_success", "url": f"{receiver.url}/hook"}
    daemon.endpoint("shop/get", "/", params={"n": {}}, webhooks=[hook])
    daemon.start()
    answered = daemon.finish(daemon.call("shop/get", n=0))["id"]
    daemon.post("/v1/endpoints/shop/get/pause")
    ids = daemon.batch("shop/get", [{"n": n} for n in range(6)])
    broken = {ids[1]: '{"n": ', ids[2]: "[1]", ids[3]: '{"n": NaN}', ids[4]: b'{"n": 4'}
    for id_, params in broken.items():
        damage(daemon, id_, "params", params)
    damage(daemon, answered, "response", '{"status_code": 2')

    assert len(daemon.tasks(kind="call")) == 7
    for id_ in (*ids, answered):
        assert daemon.task(id_)["params"] in ({}, {"n": ids.index(id_) if id_ in ids else 0})
        assert daemon.ctl("show", str(id_)).code == 0
    assert daemon.task(answered)["response"]["body"] == '{"status_code": 2'
    daemon.post("/v1/endpoints/shop/get/resume")
    for id_ in ids:
        ended = daemon.finish(id_)
        if id_ in broken:
            assert (ended["status"], ended["reason"]) == ("failed", "invalid")
            assert "its params are no" in ended["last_error"]
        else:
            assert ended["status"] == "succeeded"
    assert [task["id"] for task in daemon.tasks(reason="invalid")] == sorted(broken, reverse=True)
    damage(daemon, ids[1], "params", '{"n": 1}')
    assert daemon.ctl("retry", str(ids[1]), "--wait").code == 0


def test_a_delivery_with_a_broken_payload_fails_alone(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/", 200)
    receiver.on("/hook", 503, 503, 204)
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    slow = {"backoff": {"strategy": "fixed", "delay": "1h"}}
    hook = {"name": "told", "phase": "on_success", "url": f"{receiver.url}/hook", "retry": slow}
    daemon.endpoint("shop/get", "/", webhooks=[hook])
    daemon.start()
    ids = []
    for number in (1, 2):
        call = daemon.finish(daemon.call("shop/get"))
        [delivery] = daemon.deliveries(call["id"])
        ids.append(delivery["id"])
        until(lambda n=number: receiver.count("/hook") == n, "its first attempt")  # type: ignore[misc]
        daemon.until_status(delivery["id"], "pending")
    damage(daemon, ids[0], "payload", '{"type": "on_succ')
    for id_ in ids:
        assert daemon.post(f"/v1/retries/{id_}/trigger").status_code == 202
    broken, whole = (daemon.finish(id_) for id_ in ids)
    assert (broken["status"], broken["reason"]) == ("failed", "invalid")
    assert "its payload is not JSON" in broken["last_error"]
    assert whole["status"] == "succeeded"
    assert receiver.count("/hook") == 3
    listed = json.loads(daemon.ctl("list", "--reason", "invalid", "-o", "json").out)
    assert [task["id"] for task in listed["retries"]] == [ids[0]]
