"""The portal's pages in a real browser: what a tenant does there, by keyboard, in both themes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.dashboard.browser import axe, open_browser, playwright_or_skip
from tests.acceptance.processes import free_port
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.subscriptions.portals import Portal
from tests.acceptance.subscriptions.tenants import MakeTenants, Tenants, declare, settings

playwright_or_skip()

from playwright.sync_api import Browser, Page, expect  # noqa: E402

from tests.acceptance.dashboard.test_dashboard import NARROW, TOKEN, visit  # noqa: E402

SHOP = "shop/orderPaid"
ORDER = 9007199254740993  # more than a script can count
WIDE = "document.documentElement.scrollWidth > document.documentElement.clientWidth"

if TYPE_CHECKING:
    Size = Any


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as found:
        yield found


@pytest.fixture
def portal(make_tenants: MakeTenants) -> Portal:
    found = Portal(make_tenants, name="Acme hooks", colour="#f2c14e")
    found.tenants.put("acme")
    return found


def opened(browser: Browser, link: str, **options: Any) -> Page:
    """A page that has opened a link; what it complains about in its console is an error."""
    page = browser.new_context(**options).new_page()
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.goto(link)
    return page


def test_a_tenant_adds_an_endpoint_tests_it_and_retries_a_delivery(
    browser: Browser, portal: Portal, receiver: Receiver
) -> None:
    link = portal.link("acme")
    page = opened(browser, link)
    expect(page.get_by_role("heading", name="Endpoints")).to_be_focused()
    assert "#/" in page.url
    assert link.partition("#")[2] not in page.url
    expect(page.get_by_text("There is no endpoint yet.")).to_be_visible()
    page.get_by_role("link", name="Add an endpoint").first.press("Enter")
    port = receiver.url.rpartition(":")[2]
    page.get_by_label("Address").fill(f"http://10.0.0.1:{port}/hook")
    page.get_by_role("button", name="Add the endpoint").click()
    expect(page.get_by_role("status")).to_contain_text("url is no public address")
    page.get_by_label("Address").fill(f"{receiver.url}/hook")
    page.get_by_label("order.paid").check()
    page.get_by_role("button", name="Add the endpoint").click()
    expect(page.get_by_role("heading", name=f"{receiver.url}/hook")).to_be_focused()

    [made] = portal.tenants.of("acme")
    assert made["events"] == ["order.paid"]
    secret = portal.tenants.ask("GET", portal.tenants.one(made, "/secret")).json()["secret"]
    expect(page.get_by_text(secret)).to_have_count(0)
    page.get_by_role("button", name="Show the secret").press("Enter")
    expect(page.get_by_text(secret)).to_be_focused()
    page.get_by_role("button", name="Send a test").click()
    expect(page.get_by_role("status")).to_contain_text("The test arrived: 200")

    receiver.reply("/", lambda request: Answer(400, body=b"no such order"))
    daemon = portal.tenants.daemon
    for _ in range(2):
        daemon.finish(daemon.call(SHOP, tenant="acme", order=ORDER))
    daemon.settle()
    receiver.reply("/", lambda request: Answer(200))
    page.get_by_label("Status").select_option("failed")
    rows = page.get_by_role("table", name="Deliveries").locator("tbody tr")
    expect(rows).to_have_count(2)
    rows.first.get_by_role("link").click()
    expect(page.locator("pre").first).to_contain_text(f'"order": {ORDER}')
    expect(page.locator("pre").nth(1)).to_contain_text("content-length: 13\n\nno such order")
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_role("status")).to_contain_text("It is sent again.")
    expect(page.get_by_text("succeeded", exact=True)).to_be_visible()
    page.get_by_role("link", name="Back to the endpoint").click()
    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_role("status")).to_contain_text("1 delivery will be sent again")

    page.get_by_role("link", name="Change").click()
    expect(page.get_by_label("Address")).to_have_value(f"{receiver.url}/hook")
    expect(page.get_by_label("order.paid")).to_be_checked()
    page.get_by_label("Address").fill(f"http://10.0.0.1:{port}/hook")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("url is no public address")
    page.get_by_label("Address").fill(f"{receiver.url}/moved")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name=f"{receiver.url}/moved")).to_be_focused()
    assert portal.tenants.of("acme")[0]["events"] == ["order.paid"]

    page.get_by_role("button", name="Disable").click()
    expect(page.get_by_text("Disabled: by hand")).to_be_visible()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Rotate the secret").click()
    expect(page.get_by_role("status")).to_contain_text("There is a new secret.")
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_text("There is no endpoint yet.")).to_be_visible()
    page.reload()
    expect(page.get_by_text("Open this page by the link")).to_be_visible()
    again = opened(browser, link)
    expect(again.get_by_text("the link was opened before")).to_be_visible()
    assert axe(again) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_no_barriers_and_no_overflow(
    browser: Browser, portal: Portal, theme: str, width: int
) -> None:
    tenants = portal.tenants
    made = tenants.add("acme", "/a/long/path/that/goes/on/and/on/" + "x" * 60)
    tenants.daemon.finish(tenants.daemon.call(SHOP, tenant="acme", order=7))
    tenants.daemon.settle()
    [task] = tenants.daemon.tasks(kind="webhook")
    size = {"width": width, "height": 900}
    page = opened(browser, portal.link("acme"), color_scheme=theme, viewport=size)
    one = made["id"]
    places = ["", "new", "verify", f"s/{one}", f"s/{one}/{task['id']}", f"edit/{one}"]
    for number, place in enumerate(places):
        page.evaluate(f"location.hash = '#/{place}'")
        heading = page.get_by_role("heading", level=1)
        titles = ["Endpoints", "Add an endpoint", "How to verify", "http", "Delivery", "Change"]
        expect(heading).to_contain_text(titles[number])
        assert axe(page) == [], place
        assert not page.evaluate(WIDE), place


def test_the_page_of_tenants_has_room_on_a_phone(
    browser: Browser, make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    bind = f"127.0.0.1:{free_port()}"
    http = {"bind": bind, "token": TOKEN}
    daemon = make_daemon(subscriptions=settings(receiver), http=http)
    declare(daemon)
    receiver.reply("/", lambda request: Answer(410))
    daemon.start()
    tenants = Tenants(daemon, receiver.url)
    tenants.put("acme")
    tenants.add("acme")
    daemon.call(SHOP, tenant="acme", order=1)
    daemon.settle()
    with visit(browser, f"http://{bind}", "/tenants", viewport=NARROW) as page:
        expect(page.locator("tbody tr")).to_have_count(2)
        assert not page.evaluate(WIDE)
        assert axe(page) == []
