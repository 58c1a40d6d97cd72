"""Calls whose event goes to the one of many subscriptions that wants it; or to a webhook of the
YAML that says the same."""

from __future__ import annotations

import base64
import sqlite3
from contextlib import closing
from typing import Any

from bench.environment.daemon import LOOPBACK, SECRET, TEXT, declare_post, enqueue
from bench.environment.servers import Nginx
from orchestratord.model.task import NewTask
from tests.acceptance.daemon import Daemon

TENANT = "acme"
OTHERS_EACH = 10
"""Subscriptions that each of the other tenants has."""
PAYLOAD = {"number": "{{ params.number }}", "text": "{{ params.text }}"}
OTHER = """
INSERT INTO subscriptions (tenant, id, url, events, headers, version, key_id, salt, created_at)
SELECT ?, ?, url, events, headers, version, key_id, salt, created_at
FROM subscriptions WHERE tenant = ?
"""


def queue(made: Daemon, nginx: Nginx, count: int, *, subscriptions: int = 0) -> None:
    """Queue `count` calls of a daemon that does not run yet.

    Args:
        made: the daemon.
        nginx: what calls and deliveries go to.
        count: of the calls.
        subscriptions: how many there are, of which one wants the event; 0: a webhook of the YAML
            does.
    """
    webhook: dict[str, Any] = {"name": "told", "phase": "on_success", "payload": PAYLOAD}
    if not subscriptions:
        webhook |= {"url": nginx.url(1), "secret": SECRET}
        declare_post(made, nginx, webhooks=[webhook])
    else:
        declare_post(made, nginx, webhooks=[{**webhook, "subscribers": TENANT}])
        _subscribe(made, nginx, subscriptions)
    enqueue(
        made,
        (
            NewTask("call", "bench/post", params={"number": number, "text": TEXT}, max_attempts=10)
            for number in range(count)
        ),
    )


def _subscribe(made: Daemon, nginx: Nginx, subscriptions: int) -> None:
    port = int(nginx.url(1).split(":")[2].partition("/")[0])
    settings = {
        "key": base64.b64encode(bytes(32)).decode(),
        "require_https": False,
        "ports": [port],
        "allow": [LOOPBACK],
    }
    made.write("orchestratord.yaml", {**made.settings, "subscriptions": settings})
    made.start()
    made.request("PUT", f"/v1/tenants/{TENANT}", json={}).raise_for_status()
    body = {"url": nginx.url(1)}
    made.post(f"/v1/tenants/{TENANT}/subscriptions", body).raise_for_status()
    made.stop()
    with closing(sqlite3.connect(made.database)) as db, db:
        for number in range(1, subscriptions):
            tenant = f"other{number // OTHERS_EACH}"
            db.execute(OTHER, (tenant, f"sub_{number}", TENANT))
            if number % OTHERS_EACH == 0:
                db.execute("INSERT INTO tenants (tenant, revision) VALUES (?, 1)", (tenant,))
