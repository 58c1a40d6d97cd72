"""A text that one of the two databases cannot hold is refused, and told."""

from __future__ import annotations

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.subscriptions.tenants import Tenants, declare, settings


def test_a_text_with_nul_is_refused_at_each_door(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = make_daemon(subscriptions=settings(receiver))
    declare(daemon)
    daemon.start()
    tenants = Tenants(daemon, receiver.url)
    tenants.put("acme")
    made = tenants.add("acme", "/hook")
    path = f"/acme/subscriptions/{made['id']}"
    for method, where, body in (
        ("PATCH", path, {"description": "a\0b"}),
        ("GET", "/acme%00", None),
        ("GET", "/acme/subscriptions/a%00b", None),
    ):
        assert tenants.ask(method, where, body).status_code == 422, (method, where)
