"""The night again, in a browser: thousands have failed, and one person retries them.

`NIGHT_TASKS` sets how many; 5,000 of them take three minutes, and more than pytest has patience
for on a busy machine: `-o faulthandler_timeout=900`. With `NIGHT_PICTURES`, a folder, each
page is kept there as a picture, wide and narrow, light and dark, and axe-core looks at all four.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.dashboard.browser import axe, open_browser, playwright_or_skip
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until

playwright_or_skip()
from playwright.sync_api import expect  # noqa: E402

from tests.acceptance.dashboard.test_dashboard import NARROW, TOKEN, WIDE, visit  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import FloatRect, Page, ViewportSize

TASKS = int(os.environ.get("NIGHT_TASKS", "120"))
PICTURES = os.environ.get("NIGHT_PICTURES")
COLUMN = '{"error": {"message": "no such column: nmae"}}'
SPACE = "\N{NARROW NO-BREAK SPACE}"
"""Between thousands."""
HIGHEST = 1_600
"""Pixels of a picture; lists go on."""
PATIENCE = 20_000 + TASKS * 30
"""Milliseconds."""


def look(page: Page, name: str, *, only_pictured: bool = False) -> None:
    """No barriers, and nothing wider than the window, of what is on the page now; `only_pictured`:
    of what other tests look at, too."""
    if only_pictured and not PICTURES:
        return
    sizes: list[ViewportSize] = [WIDE, NARROW]  # type: ignore[list-item]
    for size in sizes if PICTURES else sizes[:1]:
        page.set_viewport_size(size)
        for theme in ("light", "dark") if PICTURES else ("light",):
            page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
            wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert page.evaluate(wide) == 0, f"{name} is wider than the window"
            assert axe(page) == [], name
            if PICTURES:
                file = Path(PICTURES) / f"{name}-{size['width']}-{theme}.png"
                height = min(page.evaluate("document.documentElement.scrollHeight"), HIGHEST)
                clip: FloatRect = {"x": 0, "y": 0, "width": size["width"], "height": height}
                page.screenshot(path=file, full_page=True, clip=clip, animations="disabled")
    page.set_viewport_size(sizes[0])
    page.emulate_media(color_scheme="light")


def test_the_night_in_a_browser(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.on("/", Answer(422, COLUMN))
    receiver.on("/alerts", 200)
    daemon = make_daemon(
        environ={"TOKEN": TOKEN}, http={"bind": "127.0.0.1:0", "token": "${secret:TOKEN}"}
    )
    daemon.api("shop", receiver.url)
    hook = {
        "name": "ops", "phase": "on_final_failure", "url": f"{receiver.url}/alerts",
        "batch": {"every": "5m", "max": TASKS},
    }  # fmt: skip
    daemon.endpoint("shop/night", "/", params={"n": {"type": "integer"}}, webhooks=[hook])
    daemon.start()
    line = daemon.logged(r"ready: .*http://127\.0\.0\.1:")
    address = next(word.strip(",") for word in line.split() if word.startswith("http://127"))
    daemon.batch("shop/night", [{"n": n} for n in range(TASKS)])
    until(lambda: receiver.count("/alerts") == 1, "one alert for all of them", PATIENCE / 1000)
    daemon.settle(endpoint="shop/night")
    count = f"{TASKS:,}".replace(",", SPACE)
    with open_browser() as browser, visit(browser, address) as page:
        expect(page.locator("main")).to_contain_text("shop/night")
        expect(page.locator("main")).to_contain_text("no such column: nmae")
        look(page, "overview", only_pictured=True)
        page.goto("/retries?endpoint=shop/night&status=failed")
        expect(page.locator("#list")).to_contain_text("no such column: nmae")
        look(page, "failed", only_pictured=True)
        page.get_by_role("button", name="Retry all that match").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_role("heading")).to_have_text(f"Retry {count} tasks?")
        dialog.get_by_label("At most").fill("50/s")
        dialog.get_by_label("Pause after").fill("20")
        look(page, "dialog")
        dialog.get_by_role("button", name=f"Retry {count} tasks").click()
        page.wait_for_url("**/bulks/*")
        expect(page.locator("h1")).to_contain_text("paused", timeout=PATIENCE)
        expect(page.get_by_role("alert")).to_contain_text(re.compile(r"It has paused: [2-9]\d"))
        daemon.settle(endpoint="shop/night")
        look(page, "paused")
        number = page.url.rpartition("/")[2]
        bulk = daemon.get(f"/v1/bulks/{number}").json()
        # A daemon that got no processor makes up for a second of its rate.
        assert 20 <= bulk["failed"] <= bulk["moved"] <= 20 + 2 * 50
        page.get_by_role("link", name="See why").click()
        expect(page.locator("#list tbody tr")).to_have_count(bulk["failed"])
        look(page, "see-why", only_pictured=True)
        page.goto("/bulks")
        look(page, "bulks", only_pictured=True)

        receiver.on("/", 200)
        page.goto(f"/bulks/{number}")
        page.get_by_role("button", name="Resume").click()
        expect(page.locator("h1")).to_contain_text("running")
        look(page, "resumed", only_pictured=True)
        expect(page.locator("h1")).to_contain_text("finished", timeout=PATIENCE)
        bulk = daemon.get(f"/v1/bulks/{number}").json()
        rest = f"{TASKS - bulk['failed']:,}".replace(",", SPACE)
        succeeded = re.compile(rf"Succeeded\s*{rest}(?!\d)")
        expect(page.locator("#progress")).to_contain_text(succeeded, timeout=PATIENCE)
        look(page, "finished")
        page.get_by_role("link", name=str(bulk["failed"]), exact=True).click()
        page.wait_for_url("**/retries?bulk=*")
        expect(page.locator("#list tbody tr")).to_have_count(bulk["failed"])
        # Those that it paused for are what is left of the night.
        page.get_by_role("button", name="Retry all that match").click()
        dialog.get_by_role("button", name=f"Retry {bulk['failed']} tasks").click()
        expect(page.locator("#progress")).to_contain_text(f"All {bulk['failed']} done")
        daemon.settle(endpoint="shop/night")
        page.goto("/webhooks")
        expect(page.locator("#webhooks")).to_contain_text("100.0 %")
        look(page, "webhooks", only_pictured=True)
        [alert, *_] = daemon.tasks(kind="webhook")
        page.goto(f"/retries/{alert['id']}")
        look(page, "alert", only_pictured=True)
        page.goto("/")
        look(page, "mended", only_pictured=True)
    assert {task["status"] for task in daemon.tasks(endpoint="shop/night")} == {"succeeded"}
    names = [one["action"] for one in daemon.get("/v1/actions").json()["actions"]]
    assert names == ["retry many", "resume bulk", "retry many"]
