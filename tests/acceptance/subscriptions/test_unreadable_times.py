"""Lists of subscriptions, webhooks and tasks show rows whose times no calendar has."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from tests.acceptance.daemon import Daemon
from tests.acceptance.subscriptions.tenants import MakeTenants
from tests.acceptance.subscriptions.test_confidential_addresses import PAGES
from tests.acceptance.subscriptions.test_subscriptions import SHOP

TABLES = ("tenants", "subscriptions", "webhooks", "bulks", "runs", "actions", "schedules")


@pytest.mark.parametrize("moment", [2**60, -(2**60)])
def test_no_list_fails(make_tenants: MakeTenants, moment: int) -> None:
    tenants = make_tenants()
    daemon = tenants.daemon
    assert isinstance(daemon, Daemon)
    tenants.put("acme")
    made = tenants.add("acme")
    daemon.endpoint("shop/daily", "/hook", schedule={"every": "day"})
    daemon.restart()
    daemon.call(SHOP, tenant="acme", order=1)
    daemon.settle()
    bulk = {"filter": {"text": "x"}, "as": "failed"}
    answer = daemon.request("POST", "/v1/retries/resolve", json=bulk)
    assert answer.status_code == 202
    [delivery] = daemon.tasks(tenant="acme")
    with closing(sqlite3.connect(daemon.database)) as db:
        changed = set()
        for table in TABLES:
            for _, name, *_ in db.execute(f"PRAGMA table_info({table})"):
                if name.endswith(("_at", "until", "since")) or name in ("at", "last_slot"):
                    done = db.execute(f"UPDATE {table} SET {name} = ?", (moment,))
                    changed |= {table} if done.rowcount else set()
        for name in ("created_at", "updated_at", "finished_at", "scheduled_at"):
            db.execute(f"UPDATE retry_schedule SET {name} = ?", (moment,))
        db.commit()
    assert {"tenants", "subscriptions", "bulks", "actions", "schedules"} <= changed
    for path in (
        "/v1/status", "/v1/tenants", "/v1/tenants/acme", "/v1/tenants/acme/subscriptions",
        f"/v1/tenants/acme/subscriptions/{made['id']}", "/v1/webhooks", "/v1/retries", "/v1/runs",
        f"/v1/retries/{delivery['id']}", "/v1/bulks", "/v1/actions", "/v1/schedules",
        "/v1/retries?order=ended", *PAGES, f"/retries/{delivery['id']}", "/bulks", "/schedules",
        "/runs", "/actions",
    ):  # fmt: skip
        answer = daemon.get(path)
        assert answer.status_code < 500, (path, answer.text[:300])
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.get("/v1/tenants").status_code == 200
