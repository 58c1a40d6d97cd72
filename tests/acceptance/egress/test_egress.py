"""Where requests may go: the address that is dialled is checked, and nothing is sent past that."""

from __future__ import annotations

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import retry
from tests.acceptance.receiver import Receiver


def test_an_address_that_is_not_allowed_is_never_connected_to(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    with Receiver("127.0.0.2") as other:
        other.on("/", 200)
        receiver.on("/", 200)
        daemon = make_daemon()
        daemon.api("inside", receiver.url)
        daemon.api("outside", other.url)
        hook = {"name": "hook", "phase": "on_success", "url": other.url}
        dead = {"name": "dead", "phase": "on_final_failure", "url": receiver.url}
        told = {**dead, "name": "told", "phase": "after_request", "status_code": "error"}
        daemon.endpoint("inside/get", "/", webhooks=[hook])
        daemon.endpoint("outside/get", "/", webhooks=[dead, told], retry=retry())
        daemon.endpoint("outside/post", "/", method="POST", retry=retry())
        daemon.start()

        for endpoint in ("outside/get", "outside/post"):
            task = daemon.finish(daemon.call(endpoint))
            assert (task["status"], task["reason"]) == ("failed", "rejected")
            assert task["attempts"] == 1
            assert task["last_status_code"] == "error"
            # The error says what would have to be written where.
            assert f"127.0.0.2:{other.port}" in task["last_error"]
            assert "egress" in task["last_error"]
            assert "allow" in task["last_error"]

        call = daemon.finish(daemon.call("inside/get"))
        assert call["status"] == "succeeded"
        (delivery,) = daemon.deliveries(call["id"])
        assert daemon.finish(delivery["id"])["reason"] == "rejected"

        daemon.settle()
        assert other.connections == 0
        phases = sorted(item.json()["type"] for item in receiver.received() if item.body)
        assert phases == ["after_request", "on_final_failure"]


def test_what_was_refused_goes_on_once_the_line_is_written(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/", 200)
    daemon = make_daemon(egress={})
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/")
    daemon.start()
    task_id = daemon.call("shop/get")
    assert daemon.finish(task_id)["reason"] == "rejected"
    assert receiver.connections == 0
    daemon.api("shop", receiver.url, egress={"allow": [receiver.address]})
    daemon.adopt()
    assert daemon.ctl("retry", str(task_id), "--wait").code == 0
    assert receiver.count("/") == 1
