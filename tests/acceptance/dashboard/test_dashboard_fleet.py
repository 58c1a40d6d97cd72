"""The dashboard when something is wrong: a receiver is down, a daemon dies, the database goes away.

Two daemons over one PostgreSQL, and a page that nobody loads anew.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import retry
from tests.acceptance.dashboard.browser import axe, open_browser, playwright_or_skip
from tests.acceptance.receiver import Receiver
from tests.postgres import Postgres

playwright_or_skip()
from playwright.sync_api import expect  # noqa: E402

from tests.acceptance.dashboard.test_dashboard import NARROW, TOKEN, visit  # noqa: E402

LEASE = "3s"


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    url = postgres.create()
    yield url
    postgres.drop(url)


def test_a_bad_night(
    database: str, make_daemon: MakeDaemon, receiver: Receiver, postgres: Postgres
) -> None:
    receiver.on("/down", 503)
    http = {"bind": "127.0.0.1:0", "token": "${secret:TOKEN}"}
    one, two = (
        make_daemon(environ={"TOKEN": TOKEN}, http=http, database=database, lease=LEASE)
        for _ in range(2)
    )
    for daemon in (one, two):
        daemon.expect("a password is written out", r"the database cannot be reached", "cannot be")
        daemon.api("crm", receiver.url, retry=retry("400ms", attempts=500))
        daemon.endpoint("crm/down", "/down")
    one.endpoint("crm/own", "/own")
    one.start()
    line = one.logged(r"ready: .*http://127\.0\.0\.1:")
    address = next(word.strip(",") for word in line.split() if word.startswith("http://127"))
    with open_browser() as browser, visit(browser, address, viewport=NARROW) as page:
        throttled, fleet = page.locator("#throttled"), page.locator("#fleet")
        expect(fleet.locator("tr")).to_have_count(0)  # one alone is no fleet
        one.batch("crm/down", [{}] * 10)
        two.start()

        # It appears by itself, with what it lacks.
        expect(fleet.locator("tbody tr")).to_have_count(2)
        rows = fleet.locator("tbody tr")
        expect(rows.first).to_contain_text(f"pid {one.pid} this one")
        expect(rows.last).to_contain_text(f"pid {two.pid}")
        expect(rows.last).to_contain_text("crm/own")
        expect(page.locator("#since")).to_contain_text("each counts its own attempts")

        # So do the breakers, each daemon's own, when they open.
        expect(rows.last).to_contain_text("circuit breaker api:crm 503")
        two.kill()
        expect(throttled).to_contain_text("503 Service Unavailable")
        expect(throttled.locator("tbody th")).to_have_text("api:crm")
        expect(throttled.locator(".tag")).to_have_text(["circuit breaker"])
        assert axe(page) == []
        wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert not page.evaluate(wide)
        calls = page.context.new_page()
        calls.goto("/endpoints/crm/down")
        expect(calls.locator("#health")).to_contain_text("of api:crm")
        calls.close()
        expect(rows.last).to_contain_text("not heard of")

        # Nobody takes for the present what is past.
        postgres.stop(signal.SIGQUIT)
        try:
            notes = page.locator("#notes")
            expect(notes).to_contain_text("The database cannot be used now.")
            expect(page.locator("#live")).to_have_text("out of date")
            other = page.context.new_page()
            answer = other.goto("/retries")
            assert answer is not None
            assert answer.status == 503
            expect(other.locator("h1")).to_have_text("The database cannot be used now")
        finally:
            postgres.start()
        # It is asked for again by itself.
        expect(other.locator("#list")).to_be_visible(timeout=30_000)
        expect(notes).to_be_empty(timeout=30_000)
        # A task that is retried manually is the next probe, and closes the breaker.
        receiver.on("/down", 200)
        task = one.tasks(endpoint="crm/down")[0]["id"]
        page.goto(f"/retries/{task}")
        page.get_by_role("button", name="Try now").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("succeeded")
        page.goto("/")
        expect(page.locator("#throttled")).to_be_empty()
