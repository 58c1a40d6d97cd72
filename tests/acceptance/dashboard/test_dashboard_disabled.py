"""Webhooks and subscriptions that fail or are disabled: pages count them alike, and keep up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.dashboard.browser import axe, open_browser, playwright_or_skip
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.subscriptions.tenants import Tenants, declare, settings
from tests.acceptance.waiting import until

playwright_or_skip()
from playwright.sync_api import expect  # noqa: E402

from tests.acceptance.dashboard.test_dashboard import NARROW, TOKEN, visit  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

AGES = """() => { for (const one of document.querySelectorAll("time[data-when]")) {
    delete one.dataset.when; one.textContent = "23h 59m ago"; } }"""
WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def daemon(make_daemon: MakeDaemon, receiver: Receiver) -> Daemon:
    http = {"bind": "127.0.0.1:0", "token": "${secret:TOKEN}"}
    environ = {"TOKEN": TOKEN}
    daemon = make_daemon(environ=environ, http=http, subscriptions=settings(receiver))
    declare(daemon)
    url = f"{receiver.url}/hooks"
    hooks = [
        {"name": "gone-for-accounting", "phase": "on_success", "url": f"{url}/gone"},
        {"name": "slow", "phase": "on_success", "url": f"{url}/slow", "retry": retry(delay="1h")},
    ]
    daemon.api("crm", receiver.url)
    daemon.endpoint("crm/createOrderWithAllItsPositions", "/ok", webhooks=hooks)
    daemon.endpoint("crm/job", "/job", poll={"until": "body.done", "every": "1h", "for": "2h"})
    codes = {"/hooks/gone": 410, "/hooks/slow": 500, "/hook": 410}
    receiver.reply("/", lambda request: Answer(codes.get(request.path, 200), '{"done": false}'))
    return daemon.start()


def address(daemon: Daemon) -> str:
    line = daemon.logged(r"ready: .*http://127\.0\.0\.1:")
    return next(word.strip(",") for word in line.split() if word.startswith("http://127"))


def fits(page: Page) -> None:
    """However long ago it was."""
    page.evaluate(AGES)
    assert page.evaluate(WIDE) == 0


def test_a_delivery_to_a_disabled_webhook_has_a_button_that_enables_it(
    browser: Browser, daemon: Daemon, receiver: Receiver
) -> None:
    order = "crm/createOrderWithAllItsPositions"
    daemon.call(order)
    gone = {"status": "failed", "webhook": "gone-for-accounting"}
    until(lambda: daemon.tasks(**gone), "its end by 410")
    daemon.call(order)
    missed = {"reason": "webhook_disabled"}
    [task] = until(lambda: daemon.tasks(**missed), "a missed delivery")
    until(lambda: len(daemon.tasks(webhook="slow", status_code="500")) == 2, "two failures")
    with visit(browser, address(daemon), "/webhooks", viewport=NARROW) as page:
        expect(page.locator("#webhooks")).to_contain_text("1 missed")
        expect(page.locator("#live")).to_have_attribute("data-state", "on")
        fits(page)
        page.reload()
        slow = page.locator("#webhooks tbody tr").filter(has_text="slow")
        expect(slow).to_contain_text("2 failed of 2")
        page.goto("/")
        most = page.locator("#failing tbody tr").filter(has_text="slow")
        expect(most).to_contain_text("2 of 2")
        page.goto("/retries?webhook=gone-for-accounting&status=failed")
        page.get_by_role("button", name="Retry all that match").click()
        expect(page.locator("#said")).to_contain_text("No task matches")
        expect(page.locator("#said")).to_contain_text("enable the webhook to send them")
        page.goto(f"/retries/{task['id']}")
        page.get_by_role("button", name="Enable the webhook").click()
        expect(page.locator("#said")).to_contain_text("Deliveries go to it again")
        expect(page.get_by_role("button", name="Enable the webhook")).to_have_count(0)


def test_looks_of_a_poll_are_not_attempts_that_are_missing(
    browser: Browser, daemon: Daemon
) -> None:
    task = daemon.call("crm/job")
    until(lambda: daemon.task(task)["looks"], "its first look")
    with visit(browser, address(daemon), f"/retries/{task}") as page:
        expect(page.locator("#facts")).to_contain_text("none failed")
        expect(page.locator("#facts")).not_to_contain_text("0 of")
        page.goto("/retries?endpoint=crm/job")
        expect(page.locator("#list tbody tr")).to_contain_text("1 look")
        page.goto("/endpoints/crm/job")
        expect(page.locator("#health")).to_contain_text("no attempt has ended")
        page.goto("/endpoints/shop/orderPaid")
        expect(page.locator("#health")).to_contain_text("an event has none")
        expect(page.locator("#health")).not_to_contain_text("no attempts")


def test_the_page_of_tenants_keeps_up_and_has_room_on_a_phone(
    browser: Browser, daemon: Daemon, receiver: Receiver
) -> None:
    tenants, name = Tenants(daemon, receiver.url), "a-long-tenant-name-gmbh-and-co-kg"
    daemon.request("PUT", f"/v1/tenants/{name}", json={"name": "The company of that name"})
    tenants.add(name)
    with visit(browser, address(daemon), "/tenants", viewport=NARROW) as page:
        expect(page.get_by_text("No subscription fails.")).to_be_visible()
        daemon.call("shop/orderPaid", tenant=name, order=1)
        # Without a reload.
        expect(page.get_by_role("columnheader", name="Failing subscription")).to_be_visible()
        expect(page.locator("time").first).to_contain_text("ago")
        fits(page)
        page_is_cut = "one => one.scrollWidth > one.clientWidth"
        assert not any(one.evaluate(page_is_cut) for one in page.locator(".scrolls").all())
        assert axe(page) == []
