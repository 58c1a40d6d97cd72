"""A table of subscriptions that is gone for good is said once, as the fault of its service."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.subscriptions.tenants import declare, settings
from tests.acceptance.waiting import until


def test_it_is_not_logged_at_each_look(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon(subscriptions=settings(receiver), egress={"allow": [receiver.address]})
    declare(daemon)
    daemon.start()
    daemon.expect("no such table: subscription_changes")
    with closing(sqlite3.connect(daemon.database)) as db:
        db.execute("DROP TABLE subscription_changes")
        db.commit()

    def faults() -> int:
        plugins = {one["name"]: one for one in daemon.status()["plugins"]}
        found: int = plugins["subscriptions"]["faults"]
        return found

    until(lambda: faults() >= 3, "it is tried again")
    said = [line for line in daemon.log().splitlines() if "no such table" in line]
    assert len(said) == 1
