"""What a request carries out of a file: byte by byte, and as the file is today."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import retry
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until


def replace(path: Path, content: bytes) -> None:
    """By a rename, as whoever replaces a file should."""
    path.parent.mkdir(exist_ok=True)
    path.with_name(f".{path.name}").write_bytes(content)
    path.with_name(f".{path.name}").rename(path)


def test_a_file_is_sent_as_it_is_and_taken_up_when_it_changes(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    first = b"<order>\r\n{{ params.id }} ${HOME} \xff\x00</order>"
    second = b"<order>another</order>"
    receiver.on("/orders", 503, 201)
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    path = daemon.config / "bodies/order.xml"
    replace(path, first)
    order = daemon.endpoint(
        "shop/order", "/orders", method="PUT", body={"file": "bodies/order.xml"}, retry=retry("1h")
    )
    daemon.start()
    task = daemon.call("shop/order")
    until(lambda: daemon.task(task)["last_status_code"] == 503, "the first attempt")
    (sent,) = receiver.received("/orders")
    assert (sent.body, sent.headers["content-type"]) == (first, "text/xml")

    replace(path, second)
    until(lambda: daemon.status()["config"]["generation"] == 2, "the change to be seen")
    assert daemon.ctl("retry", str(task), "--wait").code == 0
    assert receiver.received("/orders")[-1].body == second

    # One that is gone is a mistake in the configuration, and the last one goes on.
    daemon.expect("configuration is refused", r"body\.file: .* cannot be read")
    path.unlink()
    error = until(lambda: daemon.status()["config"]["error"], "the refusal")
    assert error["errors"][0]["file"] == str(order.relative_to(daemon.config))
    assert error["errors"][0]["key"] == "body.file"
    assert daemon.finish(daemon.call("shop/order"))["status"] == "succeeded"
    assert receiver.received("/orders")[-1].body == second
