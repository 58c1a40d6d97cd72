"""Makes the pictures of the dashboard in the docs: `python -m scripts.docs.screenshots [FOLDER]`.

A daemon runs a small shop against a receiver on this machine, and a browser looks at its pages. The
hour before is made up; all else has happened. With a folder, every
page is written there, wide and narrow, light and dark.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from tests.acceptance.daemon import Daemon
from tests.acceptance.dashboard.browser import open_browser
from tests.acceptance.receiver import Answer, Received, Receiver

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-for-the-pictures"  # noqa: S105  # of a daemon that lives for a minute
IMAGES = ROOT / "docs" / "images"
WIDE, NARROW = 1440, 390
HEIGHTS = {WIDE: 900, NARROW: 844}

PICTURES = {
    "overview": ("overview", WIDE, "light"),
    "retries": ("retries", WIDE, "light"),
    "task": ("task", WIDE, "dark"),
    "endpoint": ("endpoint", WIDE, "light"),
    "webhooks": ("webhooks", WIDE, "light"),
    "webhooks-review": ("webhooks-review", WIDE, "light"),
    "overview-narrow": ("overview", NARROW, "dark"),
    "retries-narrow": ("retries", NARROW, "light"),
}
"""The name of each picture → its page, its width, its theme."""

HISTORY = """
import random
import time

from orchestratord import EventType, TaskEvent, hookimpl
from orchestratord_dashboard import history

NAMES = ["shop/getOrder"] * 6 + ["shop/createOrder"] * 3 + ["weather/getForecast"] * 2 + [
    "crm/syncContacts", "billing/sendInvoice"]


@hookimpl
def config_adopted(config):
    if config.generation > 1:
        return
    chance = random.Random(7)
    now = int(time.time() * 1000)
    history.since = now - 26 * 3_600_000
    for minute in range(24 * 60, 0, -1):
        busy = 40 + 19 * ((minute // 7) % 5) / 4
        down = 17 <= minute < 26
        for _ in range(int(chance.gauss(busy, 3)) if minute <= 60 else int(busy / 2)):
            name = chance.choice(NAMES)
            fails = chance.random() < (0.5 if down and name == "crm/syncContacts" else 0.015)
            fails = fails or (down and chance.random() < 0.35)
            kind = EventType.TASK_SUCCEEDED
            if fails:
                kind = EventType.TASK_RETRIED if chance.random() < 0.8 else EventType.TASK_FAILED
            took = chance.lognormvariate(4.2, 0.5) * (4 if down else 1)
            at = now - minute * 60_000
            event = TaskEvent(kind, at, 1, "call", name, None, "", 1, started_at=at,
                              duration_ms=took)
            history.observe([event])
"""


def answer(request: Received) -> Answer:
    """What the shop, and all others, say."""
    path = request.path
    if path.startswith("/crm"):
        return Answer(503, '{"error": "maintenance until 14:00"}', delay=0.04)
    if path.startswith("/billing"):
        return Answer(422, '{"error": "the invoice has no <address>", "field": "address"}')
    if path.endswith("1013"):
        return Answer(404, '{"error": "no such order"}')
    if path.startswith("/weather"):
        return Answer(429, "slow down", {"Retry-After": "40"})
    if path.startswith("/hooks"):
        return Answer(200, "ok")
    return Answer(200, '{"order": 1001, "state": "shipped"}', delay=0.02)


@contextmanager
def stage(folder: Path) -> Iterator[tuple[Daemon, str]]:
    """A daemon in which something has happened, and its address."""
    with Receiver() as receiver:
        receiver.reply("/", answer)
        daemon = Daemon(
            folder,
            environ={"ORDERS": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
            egress={"allow": [receiver.address]},
            http={"bind": "127.0.0.1:0", "token": TOKEN},
            plugins={"dirs": ["plugins"]},
        )
        daemon.plugin("history", HISTORY)
        declare(daemon, receiver.url)
        with daemon:
            daemon.start()
            yield daemon, address_of(daemon)


def address_of(daemon: Daemon) -> str:
    """Where its dashboard is."""
    line = daemon.logged(r"ready: .*http://127\.0\.0\.1:")
    return next(word.strip(",") for word in line.split() if word.startswith("http://127"))


def declare(daemon: Daemon, url: str) -> None:
    """The APIs of the pictures."""
    hook = {
        "name": "ops",
        "phase": "after_request",
        "status_code": ["5xx", "error"],
        "url": f"{url}/hooks/ops",
    }
    retry = {"backoff": {"strategy": "exponential", "delay": "30s"}, "max_attempts": 8}
    daemon.api("shop", f"{url}/shop", retry=retry, webhooks=[hook])
    daemon.write("apis/shop/endpoints/getOrder.yaml", GET_ORDER.replace("URL", url))
    daemon.endpoint("shop/createOrder", "/orders", method="POST", body={"json": {"a": 1}})
    daemon.endpoint("shop/getStock", "/stock", schedule={"every": "15m"})
    daemon.api("crm", f"{url}/crm", retry=retry, webhooks=[hook])
    daemon.endpoint("crm/syncContacts", "/contacts")
    daemon.api("billing", f"{url}/billing", retry=retry)
    daemon.endpoint(
        "billing/sendInvoice",
        "/invoices",
        method="POST",
        params={"invoice": {"type": "integer"}},
        body={"json": {"invoice": "{{ params.invoice }}"}},
    )
    daemon.api("weather", f"{url}/weather", retry={"max_attempts": 6})
    daemon.endpoint(
        "weather/getForecast", "/{{ params.city }}", params={"city": {"required": True}}
    )


def happen(daemon: Daemon) -> None:
    """Something for the pages to show."""
    chance = random.Random(3)  # noqa: S311  # the same at each run
    daemon.batch("shop/getOrder", [{"id": 1000 + chance.randrange(40)} for _ in range(60)])
    daemon.batch("billing/sendInvoice", [{"invoice": number} for number in range(7001, 7008)])
    daemon.batch("crm/syncContacts", [{}] * 9)
    daemon.batch("weather/getForecast", [{"city": city} for city in ("Paris", "Lima", "Oslo")])
    for hours in (1, 3, 20):
        daemon.call("shop/createOrder", f"{hours}h")
    for what in ("pause", "resume"):
        daemon.post(f"/v1/endpoints/shop/getStock/{what}")
    endpoint = "/v1/endpoints/billing/sendInvoice"
    base = daemon.get(endpoint).json()["base_url"].removesuffix("/billing")
    hooks = daemon.get(f"{endpoint}/webhooks").json()
    new = {"name": "desk", "phase": "on_final_failure", "url": f"{base}/hooks/desk"}
    etag = {"If-Match": hooks["etag"]}
    daemon.request("PUT", f"{endpoint}/webhooks", json={"webhooks": [new]}, headers=etag)
    deadline = time.monotonic() + 20
    while daemon.tasks(status="running") and time.monotonic() < deadline:
        time.sleep(0.1)
    failed = {"endpoint": "billing/*", "status": "failed"}
    daemon.post("/v1/retries/trigger", {"filter": failed, "rate": "1/s"})


def shots(daemon: Daemon) -> dict[str, str]:
    """The pages, by the names of their pictures."""
    failed = daemon.tasks(endpoint="crm/syncContacts", kind="call")[0]["id"]
    return {
        "overview": "/",
        "retries": "/retries?status=failed,pending",
        "task": f"/retries/{failed}",
        "bulk": "/bulks/1",
        "endpoints": "/endpoints",
        "endpoint": "/endpoints/shop/getOrder",
        "webhooks": "/endpoints/shop/getOrder/webhooks",
        "webhooks-review": "/endpoints/shop/getOrder/webhooks",
        "all-webhooks": "/webhooks",
        "schedules": "/schedules",
        "bulks": "/bulks",
        "runs": "/runs",
        "daemons": "/daemons",
        "actions": "/actions",
    }


def edit(page: Page) -> None:
    """Open a webhook."""
    page.locator("#tools").wait_for()
    page.locator("#own summary").first.click()
    page.get_by_label("Status code", exact=True).fill("404")
    page.locator("#firing .fires", has_text="orders").wait_for()
    page.evaluate("scrollTo(0, 0)")


def review(page: Page) -> None:
    """Change it, and look at what changes in the file."""
    edit(page)
    page.get_by_label("Status codes").first.fill("404, 410")
    page.get_by_label("URL").first.press("End")
    page.keyboard.type("/{{ params.id }}")
    page.get_by_role("button", name="Review changes").click()
    page.get_by_role("dialog").wait_for()


PREPARED = {"webhooks": edit, "webhooks-review": review}
"""What is done on a page before its picture is taken."""

GET_ORDER = """\
# What the shop knows of an order.
path: /orders/{{ params.id }}
params:
  id: {type: integer, required: true, description: the order's number}
  details: {type: boolean, default: false}
  fields: {type: array, default: [state]}
schedule: {every: day, at: "06:30", timezone: Europe/Paris, params: {id: 1}}

webhooks:
  # For a call about an order that there is not.
  - name: orders
    phase: after_request
    status_code: 404         # nothing else is theirs
    url: URL/hooks/orders
    secret: ${secret:ORDERS} # rotated each spring

  - name: chat
    phase: on_final_failure
    url: URL/hooks/chat
    payload:
      text: "{{ endpoint }} failed for good: {{ error }}"
"""


@contextmanager
def logged_in(browser: Browser, address: str, **options: Any) -> Iterator[Page]:
    """A page in a browser that has logged in."""
    context = browser.new_context(base_url=address, **options)
    page = context.new_page()
    page.goto("/login")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/")
    yield page
    context.close()


def take(page: Page, name: str, path: str, file: Path, full: bool) -> None:
    """One picture of the page of this name."""
    response = page.goto(path)
    assert response is not None
    assert response.ok, f"{path}: {response.status} {page.content()}"
    page.wait_for_selector("#live[data-state=on], body[data-live='']")
    if name in PREPARED:
        PREPARED[name](page)
    page.screenshot(path=file, full_page=full, animations="disabled")
    print(f"{file.name}: {file.stat().st_size // 1024} KB")


def main() -> None:
    """Make them all."""
    every = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    (every or IMAGES).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, stage(Path(folder)) as (daemon, address):
        happen(daemon)
        with open_browser() as browser:
            if every is None:
                for name, (page, width, theme) in PICTURES.items():
                    size = {"width": width, "height": HEIGHTS[width]}
                    with logged_in(browser, address, viewport=size, color_scheme=theme) as tab:
                        take(tab, page, shots(daemon)[page], IMAGES / f"{name}.png", full=False)
                return
            for width, height in HEIGHTS.items():
                for theme in ("light", "dark"):
                    size = {"width": width, "height": height}
                    with logged_in(browser, address, viewport=size, color_scheme=theme) as tab:
                        for name, path in shots(daemon).items():
                            take(tab, name, path, every / f"{name}-{width}-{theme}.png", full=True)


if __name__ == "__main__":
    main()
