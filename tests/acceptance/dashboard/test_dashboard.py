"""The dashboard in a real browser, of a real daemon."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.dashboard.browser import axe, open_browser, playwright_or_skip
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until

playwright_or_skip()
from playwright.sync_api import expect  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Response

TOKEN, READ = "the-token-of-the-operators", "the-token-of-the-spectators"
EVIL = "\"'><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def daemon(make_shared: MakeDaemon, shared_receiver: Receiver) -> Daemon:
    daemon = make_shared(
        environ={"TOKEN": TOKEN, "READ": READ},
        http={"bind": "127.0.0.1:0", "token": "${secret:TOKEN}", "read_token": "${secret:READ}"},
        operational_webhooks=[
            {
                "name": "watch",
                "url": f"{shared_receiver.url}/watch",
                "events": ["daemon.started"],
                "batch": {"every": "100ms"},
            }
        ],
    )
    shared_receiver.reply("/watch", lambda request: Answer(200))
    # Five hundred failures last for seconds on a slow machine, and would open the breaker.
    policy = retry(delay="1h", attempts=3)
    daemon.api("shop", shared_receiver.url, retry=policy, breaker="off")
    # Anchored to the clock: an hourly one would begin a call in the midst of some test.
    daemon.endpoint("shop/good", "/good", schedule={"every": "365d"})
    daemon.endpoint("shop/mended", "/mended")
    daemon.endpoint("shop/many", "/many", params={"n": {"type": "integer"}})
    daemon.endpoint("shop/night", "/night", params={"n": {"type": "integer"}})
    daemon.endpoint("shop/later", "/later", retry={"max_attempts": 15})
    daemon.write("apis/shop/endpoints/said.yaml", "type: event\n")
    numbers = {"id": {"type": "integer"}, "object": {"type": "object"}, "any": {}}
    daemon.endpoint("shop/numbers", "/numbers", params=numbers)
    follows = {"call": "shop/page", "each": "body", "params": {"n": "item"}}
    daemon.endpoint("shop/list", "/list", then=[follows])
    daemon.endpoint("shop/page", "/page/{{ params.n }}", params={"n": {"type": "integer"}})
    shared_receiver.on("/list", Answer(200, "[1, 2, 3]"))
    for number in (1, 3):
        shared_receiver.on(f"/page/{number}", 200)
    shared_receiver.on("/page/2", Answer(404, "there is no such page"))
    daemon.endpoint(
        "shop/evil",
        "/evil",
        method="POST",
        body={"json": {"text": "{{ params.text }}"}},
        params={"text": {"default": EVIL, "description": EVIL}, "list": {"type": "array"}},
        webhooks=[
            {"name": "ops", "phase": "after_request", "url": f"{shared_receiver.url}/hook"},
        ],
    )
    shared_receiver.on("/hook", 200)
    shared_receiver.on("/evil", Answer(422, EVIL, {"X-Evil": EVIL, "Content-Type": "text/html"}))
    return daemon.start()


@pytest.fixture(scope="module")
def address(daemon: Daemon) -> str:
    line = daemon.logged(r"ready: .*http://127\.0\.0\.1:")
    return next(word.strip(",") for word in line.split() if word.startswith("http://127"))


@contextmanager
def visit(
    browser: Browser, address: str, path: str = "/", token: str = TOKEN, **options: Any
) -> Iterator[Page]:
    """A page, as somebody sees it who has followed a link to it and logs in.

    What the browser complains of (a policy that is broken, a script that fails) fails the test.
    """
    options.setdefault("viewport", WIDE)
    context = browser.new_context(base_url=address, **options)
    page = context.new_page()
    complaints: list[str] = []

    def complain(message: ConsoleMessage) -> None:
        # The page that asks for the token is a 401, and what a test has refused is a refusal.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    def look(response: Response) -> None:
        if "/assets/" in response.url and not response.ok:
            complaints.append(f"{response.status} {response.url}")

    page.on("console", complain)
    page.on("response", look)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path)
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_selector("main h1", state="attached")
    yield page
    context.close()
    assert complaints == []


def done(daemon: Daemon, *names: str) -> list[dict[str, Any]]:
    """The newest entries of the action log, oldest first; their names have to be these."""
    found: list[dict[str, Any]] = daemon.get("/v1/actions", limit=len(names)).json()["actions"]
    assert [entry["action"] for entry in found][::-1] == list(names)
    return found[::-1]


def test_the_overview_says_how_many_more_fail(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.reply("/", lambda request: Answer(404))
    daemon = make_daemon()
    daemon.api("shop", receiver.url, retry=retry(delay="1h"), breaker="off")
    hook = {"phase": "on_final_failure", "url": f"{receiver.url}/hook", "retry": retry(delay="1h")}
    hooks = [{"name": f"hook-{number}", "breaker": "off", **hook} for number in range(25)]
    daemon.endpoint("shop/bad", "/bad", webhooks=hooks)
    daemon.start()
    daemon.finish(daemon.call("shop/bad"))
    until(lambda: daemon.status()["failing_counts"]["webhook"] == 25, "their first failures")
    page = daemon.get("/").text
    assert "Failing calls</h2>" in page
    assert "1, whose last failures are older</p>" in page
    assert "and 17 more, whose last failures are older</p>" in page


def test_the_list_of_no_endpoints_says_so(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.start()
    page = daemon.get("/endpoints").text
    assert "There are no endpoints: <code>orchestratord new endpoint</code> writes one." in page


# -- doing -----------------------------------------------------------------------------------------


def test_a_failed_task_is_retried_by_its_button_and_succeeds(
    browser: Browser, address: str, daemon: Daemon, shared_receiver: Receiver
) -> None:
    shared_receiver.on("/mended", 404, Answer(200, '{"mended": true}'))
    task = daemon.call("shop/mended")
    assert daemon.finish(task)["status"] == "failed"
    with visit(browser, address, "/retries?status=failed&endpoint=shop/mended") as page:
        page.get_by_role("link", name=str(task), exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("failed")
        page.get_by_role("button", name="Retry").click()
        # Nobody reloads the page.
        expect(page.get_by_role("heading", level=1)).to_contain_text("succeeded")
        expect(page.locator("#attempts li")).to_have_count(2)
        expect(page.locator("#answer")).to_contain_text('"mended": true')
        expect(page.get_by_role("button", name="Retry")).to_have_count(0)
    (entry,) = done(daemon, "retry")
    assert entry["task"] == task
    assert re.fullmatch(r"a session of token, 127\.0\.0\.1", entry["who"])


def test_keys_go_through_the_list_and_retry(
    browser: Browser, address: str, daemon: Daemon, shared_receiver: Receiver
) -> None:
    shared_receiver.on("/mended", 404, 404, 200)
    older, newer = (daemon.call("shop/mended") for _ in range(2))
    for task in (older, newer):
        assert daemon.finish(task)["status"] == "failed"
    with visit(browser, address, f"/retries?id={older},{newer}") as page:
        page.keyboard.press("j")
        expect(page.get_by_role("link", name=str(newer), exact=True)).to_be_focused()
        page.keyboard.press("j")
        page.keyboard.press("j")  # there is no further one
        expect(page.get_by_role("link", name=str(older), exact=True)).to_be_focused()
        page.keyboard.press("k")
        page.keyboard.press("r")
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_role("heading")).to_have_text("Retry 1 task?")
        page.keyboard.press("j")  # which is typed into the dialog
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
        page.keyboard.press("/")
        expect(page.get_by_label("Text")).to_be_focused()
        page.keyboard.type("jrk?")
        expect(page.get_by_label("Text")).to_have_value("jrk?")
        page.goto(f"/retries/{newer}")
        page.keyboard.press("?")
        expect(dialog.get_by_role("term")).to_have_text(["/", "j", "k", "r", "?"])
        assert axe(page) == []
        dialog.get_by_label("Use these keys").uncheck()
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
        page.keyboard.press("r")
        page.keyboard.press("?")
        expect(page.get_by_role("heading", level=1)).to_contain_text("failed")
        dialog.get_by_label("Use these keys").check()
        # The key comes while the focus is still in the dialog that closes.
        dialog.get_by_label("Use these keys").focus()
        left = page.evaluate("""() => {
            const dialog = document.querySelector("dialog[open]");
            dialog.close();
            const at = document.activeElement;
            at.dispatchEvent(new KeyboardEvent("keydown", { key: "r", bubbles: true }));
            return dialog.contains(at);
        }""")
        assert left
        expect(page.get_by_role("heading", level=1)).to_contain_text("succeeded")


def test_many_are_retried_with_progress(
    browser: Browser, address: str, daemon: Daemon, shared_receiver: Receiver
) -> None:
    shared_receiver.on("/many", *[500] * 500, 200)
    ids = daemon.batch("shop/many", [{"n": n} for n in range(500)])
    until(lambda: shared_receiver.count("/many") == 500, "500 attempts")
    until(lambda: not daemon.tasks(endpoint="shop/many", status="running"), "500 failures")
    assert len(daemon.tasks(endpoint="shop/many", status="pending")) == 500
    with visit(browser, address, "/retries?endpoint=shop/many&status=pending") as page:
        page.get_by_role("button", name="Retry all that match").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_role("heading")).to_have_text("Retry 500 tasks?")
        which = dialog.get_by_role("list").get_by_role("listitem")
        oldest = ", ".join(f"task {task_id}" for task_id in ids[:5])
        expect(which).to_have_text(["500 of shop/many", f"such as {oldest}"])
        dialog.get_by_label("At most").fill("100/s")
        dialog.get_by_role("button", name="Retry 500 tasks").click()
        page.wait_for_url("**/bulks/*")
        bar = page.locator("progress")
        seen: set[str] = set()

        def is_done() -> bool:
            seen.add(bar.get_attribute("value") or "")
            page.wait_for_timeout(50)
            return "finished" in page.locator("h1").inner_text()

        until(is_done, "the end of the bulk")
        between = [value for value in seen if 0 < float(value) < 500]
        assert between, seen
        expect(page.locator("#progress")).to_contain_text("All 500 done")
        page.get_by_role("link", name="The list").click()
        page.wait_for_url("**/retries?*endpoint=shop/many*")
    daemon.settle(endpoint="shop/many")
    assert {task["status"] for task in daemon.tasks(endpoint="shop/many")} == {"succeeded"}
    assert len(ids) == 500
    (entry,) = done(daemon, "retry many")
    assert entry["detail"]["matched"] == 500


def test_many_are_resolved(
    browser: Browser, address: str, daemon: Daemon, shared_receiver: Receiver
) -> None:
    shared_receiver.on("/night", 422)
    daemon.batch("shop/night", [{"n": n} for n in range(8)])
    daemon.settle(endpoint="shop/night")
    with visit(browser, address, "/retries?endpoint=shop/night&status=failed") as page:
        page.get_by_role("button", name="Resolve all that match").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_role("heading")).to_have_text("Resolve 8 tasks?")
        expect(dialog.get_by_label("Pause after")).to_be_hidden()
        dialog.get_by_label("They have").select_option("succeeded")
        dialog.get_by_label("Why").fill("the bank has them")
        assert axe(page) == []
        dialog.get_by_role("button", name="Resolve 8 tasks").click()
        page.wait_for_url("**/bulks/*")
        expect(page.locator("#progress")).to_contain_text("All 8 done")
        expect(page.locator("#progress")).to_contain_text("Resolved8")
    assert {task["reason"] for task in daemon.tasks(endpoint="shop/night")} == {"resolved"}
    (entry,) = done(daemon, "resolve many")
    assert entry["detail"]["resolution"] == {"as": "succeeded", "note": "the bank has them"}


def test_how_a_task_ended_is_said_and_its_parameters_are_changed(
    browser: Browser, address: str, daemon: Daemon, shared_receiver: Receiver
) -> None:
    shared_receiver.on("/night", 422)
    task = daemon.call("shop/night", n=1)
    elsewhere = daemon.call("shop/night", n=3)
    daemon.settle(endpoint="shop/night")
    shared_receiver.on("/night", 200)
    with visit(browser, address, f"/retries/{task}") as page:
        page.get_by_role("button", name="Change…").click()
        dialog = page.get_by_role("dialog")
        assert axe(page) == []
        dialog.get_by_label("Parameters").fill('{"n": 2}')
        dialog.get_by_role("button", name="Retry").click()
        page.wait_for_url(lambda url: not url.endswith(f"/{task}"))
        expect(page.locator("#facts")).to_contain_text(f"task {task}, with other parameters")
        made = int(page.url.rpartition("/")[2])
        assert daemon.finish(made)["status"] == "succeeded"
        page.goto(f"/retries/{task}")
        expect(page.locator("h1")).to_contain_text("cancelled")
        expect(page.get_by_role("button", name="Resolve…")).to_have_count(0)
        page.goto(f"/retries/{elsewhere}")
        page.get_by_role("button", name="Resolve…").click()
        dialog.get_by_label("Note").fill("it was done by the other one")
        assert axe(page) == []
        dialog.get_by_role("button", name="Resolve").click()
        expect(page.locator("h1")).to_contain_text("succeeded")
        expect(page.locator("#attempts")).to_contain_text("it was done by the other one")
    done(daemon, "retry", "resolve")


def test_what_is_typed_in_a_dialog_outlives_the_session(
    browser: Browser, address: str, daemon: Daemon
) -> None:
    task = daemon.call("shop/later", "1h")
    note = "the bank has it"
    with visit(browser, address, f"/retries/{task}") as page:
        page.get_by_role("button", name="Resolve…").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Note").fill(note)
        other = page.context.new_page()
        other.goto("/")
        other.get_by_role("button", name="Log out").click()
        other.wait_for_url("**/login")
        expect(page.locator("#notes")).to_contain_text("You are logged out")
        other.get_by_label("Token").fill(TOKEN)
        other.get_by_role("button", name="Log in").click()
        other.wait_for_selector("main h1", state="attached")
        expect(dialog.get_by_label("Note")).to_have_value(note)
        dialog.get_by_role("button", name="Resolve").click()
        expect(page.locator("#attempts")).to_contain_text(note)
    done(daemon, "resolve")


def test_a_task_that_waits_is_not_called_tried(
    browser: Browser, address: str, daemon: Daemon
) -> None:
    task = daemon.call("shop/later", "1h")
    daemon.post("/v1/endpoints/shop/later/pause")
    try:
        with visit(browser, address, f"/retries/{task}") as page:
            page.get_by_role("button", name="Try now").click()
            expect(page.locator("#said")).to_have_text("It is due now.")
            expect(page.locator("#facts")).to_contain_text("Waits for")
    finally:
        daemon.post(f"/v1/retries/{task}/cancel")
        daemon.post("/v1/endpoints/shop/later/resume")


def test_an_event_is_given_its_data(browser: Browser, address: str, daemon: Daemon) -> None:
    with visit(browser, address, "/endpoints/shop/said") as page:
        form = page.locator("#call-form")
        expect(form).not_to_contain_text("It takes no parameters.")
        form.get_by_label("Data").fill("[1]")
        form.get_by_role("button", name="Call").click()
        expect(page.locator("#call-wrong")).to_contain_text("expected a JSON object")
        assert axe(page) == []
        form.get_by_label("Data").fill('{"order": 12345678901234567890, "paid": true}')
        form.get_by_role("button", name="Call").click()
        page.wait_for_url("**/retries/*")
        made = int(page.url.rpartition("/")[2])
    assert daemon.finish(made)["params"] == {"order": 12345678901234567890, "paid": True}


def test_what_fails_while_its_page_is_open_is_changed_and_resolved(
    browser: Browser, address: str, daemon: Daemon, shared_receiver: Receiver
) -> None:
    shared_receiver.on("/night", 422)
    waiting, cancelled = (daemon.call("shop/night", "1h", n=n) for n in (1, 2))
    daemon.post(f"/v1/retries/{cancelled}/cancel")
    with visit(browser, address, f"/retries/{waiting}") as page:
        dialog = page.get_by_role("dialog")
        page.get_by_role("button", name="Try now").click()
        page.get_by_role("button", name="Change…").click()
        expect(dialog.get_by_role("heading")).to_have_text("Retry with other parameters")
        page.goto(f"/retries/{cancelled}")
        page.get_by_role("button", name="Retry").click()
        page.get_by_role("button", name="Resolve…").click()
        dialog.get_by_role("button", name="Resolve").click()
        expect(page.locator("h1")).to_contain_text("succeeded")
    done(daemon, "cancel", "retry", "retry", "resolve")


def test_numbers_are_sent_as_they_were_typed(
    browser: Browser, address: str, daemon: Daemon, shared_receiver: Receiver
) -> None:
    big = 9007199254740993  # more than a script can count
    shared_receiver.on("/numbers", 422)
    with visit(browser, address, "/endpoints/shop/numbers") as page:
        page.get_by_label("any", exact=True).fill(f'[{big}, {{"a": 1.0}}]')
        page.get_by_label("object", exact=True).fill(f'{{"id": {big}, "n": 1}}')
        page.get_by_role("button", name="Call", exact=True).click()
        page.wait_for_url("**/retries/*")
        made = int(page.url.rpartition("/")[2])
        given = {"id": None, "object": {"id": big, "n": 1}, "any": [big, {"a": 1.0}]}
        assert daemon.finish(made)["params"] == given
        page.get_by_role("button", name="Change…").click()
        dialog = page.get_by_role("dialog")
        field = dialog.get_by_label("Parameters, as JSON")
        before = field.input_value()
        field.fill('{"id": 5}')  # what is left out would keep its value
        dialog.get_by_role("button", name="Retry").click()
        expect(page.locator("#said")).to_contain_text("cannot be left out: ")
        page.get_by_role("button", name="Change…").click()
        assert field.input_value() == '{"id": 5}'
        field.fill(before.replace("null", str(big)).replace('"n": 1', '"n": 2'))
        dialog.get_by_role("button", name="Retry").click()
        page.wait_for_url(lambda url: not url.endswith(f"/{made}"))
        changed = int(page.url.rpartition("/")[2])
        assert daemon.finish(changed)["params"] == given | {
            "id": big,
            "object": {"id": big, "n": 2},
        }
        page.get_by_role("button", name="Resolve…").click()
        dialog.get_by_label("Body of the answer").fill(f'{{"id": {big}}}')
        dialog.get_by_role("button", name="Resolve").click()
        expect(page.locator("#answer")).to_contain_text(f'"id": {big}')
    done(daemon, "call", "retry", "resolve")


def test_the_selected_ones_are_cancelled(browser: Browser, address: str, daemon: Daemon) -> None:
    ids = [daemon.call("shop/later", "1h") for _ in range(4)]
    with visit(browser, address, "/retries?endpoint=shop/later") as page:
        cancel = page.get_by_role("button", name="Cancel selected")
        expect(cancel).to_be_disabled()
        for task in ids[:2]:
            page.get_by_label(f"Select task {task}").check()
        expect(page.locator("#count")).to_have_text("2 selected")
        cancel.click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_role("heading")).to_have_text("Cancel 2 tasks?")
        dialog.get_by_role("button", name="Back").click()
        assert daemon.task(ids[0])["status"] == "pending"
        cancel.click()
        dialog.get_by_role("button", name="Cancel 2 tasks").click()
        expect(page.locator("#progress")).to_contain_text("All 2 done")
    assert [daemon.task(task)["status"] for task in ids] == [*["cancelled"] * 2, *["pending"] * 2]


def test_an_endpoint_is_called_and_paused(browser: Browser, address: str, daemon: Daemon) -> None:
    with visit(browser, address, "/endpoints/shop/many") as page:
        page.get_by_label("n", exact=True).fill("9007199254740993")  # more than a script can count
        page.get_by_role("button", name="Call", exact=True).click()
        page.wait_for_url("**/retries/*")
        made = int(page.url.rpartition("/")[2])
        assert daemon.finish(made)["params"] == {"n": 9007199254740993}
        page.goto("/endpoints/shop/evil")
        page.get_by_label("list", exact=True).fill("[1, 2")
        page.get_by_role("button", name="Call", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("list: this is not JSON")
        page.get_by_label("list", exact=True).fill('{"a": 1}')
        page.get_by_role("button", name="Call", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("list: ")
        page.goto("/endpoints/shop/good")
        expect(page.locator("#runs")).to_contain_text("every 365d")
        page.get_by_role("button", name="Pause").click()
        page.get_by_role("dialog").get_by_role("button", name="Pause").click()
        expect(page.get_by_role("button", name="Resume")).to_be_visible()
        assert daemon.get("/v1/endpoints/shop/good").json()["paused"]
        page.get_by_role("button", name="Resume").click()
        expect(page.get_by_role("button", name="Pause")).to_be_visible()
        page.goto("/actions")
        expect(page.locator("#actions tbody tr").first).to_contain_text("resume")
    done(daemon, "call", "pause", "resume")


def test_by_keyboard_only(
    browser: Browser, address: str, daemon: Daemon, shared_receiver: Receiver
) -> None:
    shared_receiver.on("/mended", 404, 404, 200)
    task = daemon.call("shop/mended")
    daemon.finish(task)

    def tab_to(page: Page, name: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            focused = page.evaluate("document.activeElement.textContent.trim()")
            if focused == name:
                # Whoever cannot see the focus is lost.
                style = "getComputedStyle(document.activeElement).outlineStyle"
                assert page.evaluate(style) != "none"
                return
        raise AssertionError(f"no way to {name!r} by the tabulator key")

    with visit(browser, address) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        tab_to(page, "Retries")
        page.keyboard.press("Enter")
        page.wait_for_url("**/retries")
        tab_to(page, str(task))
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/retries/{task}")
        tab_to(page, "Retry")
        page.keyboard.press("Enter")
        until(lambda: daemon.task(task)["attempts"] == 2, "the second attempt")
        expect(page.get_by_role("heading", level=1)).to_contain_text("failed")
        # The focus stays where it was, for the page was not loaded anew.
        focus = "document.activeElement.textContent.trim()"
        until(lambda: page.evaluate(focus) == "Retry", "the focus on the button")
        page.keyboard.press("Space")
        expect(page.get_by_role("heading", level=1)).to_contain_text("succeeded")
        tab_to(page, "Overview")
        # Questions close with Escape, and nothing has happened.
        page.goto("/endpoints/shop/good")
        tab_to(page, "Pause")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        assert not daemon.get("/v1/endpoints/shop/good").json()["paused"]


# -- looking ---------------------------------------------------------------------------------------


def test_what_happens_shows_by_itself_and_not_while_nobody_looks(
    browser: Browser, address: str, daemon: Daemon, shared_receiver: Receiver
) -> None:
    shared_receiver.on("/mended", 404)
    with visit(browser, address) as page:
        expect(page.locator("#live")).to_have_attribute("data-state", "on")
        failed = page.locator("a.tile.failed b")
        before = int(failed.inner_text())
        daemon.finish(daemon.call("shop/mended"))
        expect(failed).to_have_text(str(before + 1))
        expect(page.locator("#failing")).to_contain_text("shop/mended")
        page.evaluate(
            "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        expect(page.locator("#live")).to_have_attribute("data-state", "off")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        daemon.finish(daemon.call("shop/mended"))
        page.wait_for_timeout(1500)
        assert asked == []
        page.evaluate(
            "Object.defineProperty(document, 'hidden', {value: false, configurable: true});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        expect(failed).to_have_text(str(before + 2))


def test_a_configuration_that_is_refused_is_shown_with_its_place(
    browser: Browser, address: str, daemon: Daemon
) -> None:
    with visit(browser, address, "/endpoints") as page:
        daemon.expect("the configuration is refused", r"broken\.yaml")
        path = daemon.write("apis/shop/endpoints/broken.yaml", {"path": "/x", "timeout": "soon"})
        daemon.post("/v1/reload")
        page.goto("/")
        alert = page.locator("#alerts")
        expect(alert).to_contain_text("The configuration files are refused")
        expect(alert).to_contain_text(re.compile(r"apis/shop/endpoints/broken\.yaml:\d+:\d+"))
        page.goto("/retries")
        expect(page.locator("#notes")).to_contain_text("The configuration files are refused")
        path.unlink()
        daemon.reload()
        page.goto("/")
        expect(alert).not_to_contain_text("refused")


def test_the_filter_stands_in_the_address(
    browser: Browser, address: str, daemon: Daemon, shared_receiver: Receiver
) -> None:
    shared_receiver.on("/mended", 503)
    task = daemon.call("shop/mended")
    until(lambda: daemon.task(task)["attempts"] == 1, "its attempt")
    with visit(browser, address, "/retries") as page:
        page.get_by_label("Endpoint").fill("shop/mended")
        page.get_by_label("Code").fill("5xx,error")
        page.get_by_label("Since").fill("1h")
        page.get_by_role("button", name="Show").click()
        page.wait_for_url("**/retries?endpoint=shop*")
        page.get_by_label("pending").check()
        page.wait_for_url("**status=pending*")
        assert "text=" not in page.url
        shared = page.url
    with visit(browser, address, shared) as page:
        assert page.get_by_label("Code").input_value() == "5xx,error"
        ids = page.locator("#list a.id").all_inner_texts()
        assert str(task) in ids
        page.goto("/retries?text=no-such-text-anywhere")
        expect(page.locator("#list")).to_contain_text("No task matches")
        page.goto("/retries?since=yesterday")
        expect(page.locator("#list")).to_contain_text("since: ")
        assert page.get_by_label("Since").input_value() == "yesterday"
        # The rest of the filter goes on choosing.
        page.goto("/retries?since=yesterday&endpoint=shop/mended")
        expect(page.locator("#list")).to_contain_text("The list leaves it out.")
        assert str(task) in page.locator("#list a.id").all_inner_texts()
        assert page.locator("[data-many]").count() == 0  # nothing is done by half a filter
        page.goto("/retries?wrong=1")
        expect(page.locator("main")).to_contain_text("This address makes no sense")
        page.goto("/retries/999999")
        expect(page.locator("main")).to_contain_text("There is no such thing")


def test_pages_go_on_where_the_last_one_ended(
    browser: Browser, address: str, daemon: Daemon, shared_receiver: Receiver
) -> None:
    shared_receiver.on("/many", 200)
    ids = daemon.batch("shop/many", [{}] * 120)
    daemon.settle(endpoint="shop/many")
    with visit(browser, address, f"/retries?id={','.join(map(str, ids))}") as page:
        seen = page.locator("#list a.id").all_inner_texts()
        for _ in range(2):
            page.get_by_role("link", name="Older").click()
            page.wait_for_url(f"**after={seen[-1]}")
            seen += page.locator("#list a.id").all_inner_texts()
        expect(page.get_by_role("link", name="Older")).to_have_count(0)
        assert [int(text) for text in seen] == ids[::-1]
        # The same by their end, which the address says as well.
        page.get_by_label("Order").select_option("last ended first")
        page.wait_for_url("**order=ended*")
        seen = page.locator("#list a.id").all_inner_texts()
        for number in (2, 3):
            page.get_by_role("link", name="Older").click()
            page.wait_for_url("**after=*")
            expect(page.locator("#list a.id")).not_to_have_text(seen[-50:])
            seen += page.locator("#list a.id").all_inner_texts()
            assert len(seen) == min(50 * number, 120)
    assert sorted(map(int, seen)) == ids


# -- who may do what -------------------------------------------------------------------------------


def test_who_may_only_look_sees_all_and_can_do_nothing(
    browser: Browser, address: str, daemon: Daemon, shared_receiver: Receiver
) -> None:
    shared_receiver.on("/mended", 404)
    task = daemon.call("shop/mended")
    daemon.finish(task)
    paths = ["/", "/retries", f"/retries/{task}", "/endpoints", "/endpoints/shop/many", "/actions"]
    with visit(browser, address, token=READ) as page:
        for path in paths:
            page.goto(path)
            expect(page.locator("#notes")).to_contain_text("for looking only")
            assert (
                page.locator("button[data-post], button[data-many], form[data-post]").count() == 0
            )
            assert page.locator("#list input[type=checkbox]").count() == 0
        # Nor by hand: what the page does not offer is refused as well.
        ask = "path => fetch(path, {method: 'POST'}).then(answer => answer.status)"
        for path in (f"/v1/retries/{task}/trigger", "/v1/endpoints/shop/good/pause", "/v1/reload"):
            assert page.evaluate(ask, path) == 403
    assert daemon.task(task)["attempts"] == 1


def test_scripts_in_bodies_and_names_are_text(
    browser: Browser, address: str, daemon: Daemon
) -> None:
    task = daemon.call("shop/evil")
    daemon.finish(task)
    daemon.settle(endpoint="shop/evil")
    hook = daemon.deliveries(task)[0]["id"]
    with visit(browser, address, f"/retries/{task}") as page:
        for path in (
            f"/retries/{task}",
            f"/retries/{hook}",
            "/retries",
            "/retries?text=" + "%22'><script>document.title='owned'</script>",
            "/retries?endpoint=" + "<script>document.title='owned'</script>",
            "/endpoints/shop/evil",
            "/endpoints?text=<script>document.title='owned'</script>",
            "/actions",
            "/",
        ):
            page.goto(path)
            page.wait_for_timeout(100)
            assert page.title().endswith("orchestratord"), path
            assert page.locator("main script, main img").count() == 0, path
        page.goto(f"/retries/{task}")
        expect(page.locator("#answer pre").last).to_have_text(EVIL)
        expect(page.locator("main")).to_contain_text(EVIL)  # the parameter, too
        page.goto("/endpoints/shop/evil")
        expect(page.get_by_label("text", exact=True)).to_have_attribute("placeholder", EVIL)


def test_nobody_frames_a_page_or_asks_from_elsewhere(
    browser: Browser, address: str, daemon: Daemon, shared_receiver: Receiver
) -> None:
    """A page of another origin, in the browser of somebody who is logged in."""
    port = address.rpartition(":")[2]
    page_of_others = f"""<!doctype html><title>other</title>
        <iframe src="{address}/"></iframe>
        <form id="f" method="post" action="{address}/v1/endpoints/shop/good/pause"></form>
        <img src="{address}/">"""
    headers = {"Content-Type": "text/html"}
    shared_receiver.on("/other", Answer(200, page_of_others, headers))
    with visit(browser, address) as page:
        other = page.context.new_page()
        # `localhost` and `127.0.0.1` are two sites, and ports are no border for cookies.
        other.goto(f"{shared_receiver.url}/other")
        frame = other.frames[1]
        assert frame.locator("main").count() == 0
        ask = """async (address) => {
            const options = {method: "POST", credentials: "include"};
            try { return (await fetch(address, options)).status; } catch { return "refused"; }
        }"""
        pause = f"{address}/v1/endpoints/shop/good/pause"
        assert other.evaluate(ask, pause) == "refused"
        rebound = f"http://localhost:{port}/v1/endpoints/shop/good/pause"
        assert other.evaluate(ask, rebound) == "refused"
        with other.expect_response("**/pause") as answered:
            other.evaluate("document.getElementById('f').submit()")
        assert answered.value.status == 403
    assert not daemon.get("/v1/endpoints/shop/good").json()["paused"]


def test_what_fails_now_and_how_schedules_and_webhooks_fare(
    browser: Browser, address: str, daemon: Daemon, shared_receiver: Receiver
) -> None:
    shared_receiver.on("/mended", 503)
    shared_receiver.on("/hook", 500)
    daemon.until_status(daemon.call("shop/mended"), "pending")
    daemon.finish(daemon.call("shop/evil"))
    until(lambda: any(one["webhook"] for one in daemon.status()["failing"]), "the delivery")
    with visit(browser, address) as page:
        calls, deliveries = (
            page.get_by_role("region", name=f"Failing {what}") for what in ("calls", "deliveries")
        )
        row = calls.get_by_role("row", name="shop/mended")
        expect(row).to_contain_text("503 Service Unavailable")
        expect(deliveries.get_by_role("row", name="ops")).to_contain_text("500")
        expect(calls.get_by_role("row", name="ops")).to_have_count(0)
        deliveries.get_by_role("link", name="1", exact=True).click()
        expect(page.locator("#list tbody tr")).to_have_count(1)
        page.get_by_role("link", name="Webhooks", exact=True).click()
        hook = page.locator("#webhooks tbody tr").filter(has_text="ops")
        expect(hook).to_contain_text("failing 1 in a row, 500")
        expect(hook).to_contain_text("oldest")
        expect(hook.locator("td.wide meter")).to_be_visible()
        watch = page.locator("#webhooks tbody tr").filter(has_text="watch")
        watch.get_by_role("button", name="Test").click()
        expect(page.get_by_text("An example is on its way.")).to_be_visible()
        watch.get_by_role("link", name="orchestratord").click()
        expect(page.locator("#list tbody tr")).to_have_count(2)
        page.locator("#list tbody tr a.id").last.click()
        page.get_by_role("link", name="the events that it tells of").click()
        expect(page.locator("#members")).to_contain_text("daemon.started")
        page.get_by_role("link", name="Schedules", exact=True).click()
        # A run is a call with all that follows from it.
        heads = page.locator("thead th").all_inner_texts()
        assert heads == ["Endpoint", "Next call", "Last call", "Last success", "Missed"]
        expect(page.get_by_role("row", name="shop/good")).to_contain_text("every 365d")
        expect(page.get_by_role("row", name="shop/good")).to_contain_text(re.compile(r"in \d+d"))
        page.get_by_label("Name").fill("nowhere")
        page.get_by_role("button", name="Show").click()
        expect(page.get_by_text("No endpoint with a schedule is called that.")).to_be_visible()


def test_a_row_shows_the_parameters(browser: Browser, address: str, daemon: Daemon) -> None:
    task = daemon.call("shop/numbers", "1h", id=7, any={"a": "x" * 500})
    with visit(browser, address, "/retries?endpoint=shop/numbers", token=READ) as page:
        row = page.get_by_role("row", name=str(task))
        expect(row.locator(".params")).to_contain_text("id: 7")
        assert len(row.locator(".params").inner_text()) < 200
    daemon.post(f"/v1/retries/{task}/cancel")


def test_an_unknown_address_is_a_page_for_people_and_a_problem_for_programs(
    browser: Browser, address: str, daemon: Daemon
) -> None:
    with visit(browser, address) as page:
        answered = page.goto("/no/such/page")
        assert answered is not None
        assert answered.status == 404
        expect(page.get_by_role("heading", level=1)).to_have_text("There is no such thing")
        page.get_by_role("link", name="To the overview").click()
        expect(page.locator("#states")).to_be_visible()
    answer = daemon.get("/no/such/page")
    assert answer.status_code == 404
    assert answer.json()["detail"] == "there is nothing at this path"


# -- how it looks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes_and_no_barrier_on_any_page(
    browser: Browser, address: str, daemon: Daemon, shared_receiver: Receiver, theme: Any
) -> None:
    shared_receiver.on("/mended", 503)
    task = daemon.call("shop/mended")
    until(lambda: daemon.task(task)["attempts"] == 1, "its attempt")
    bulk = daemon.post(
        "/v1/retries/trigger",
        {"filter": {"endpoint": "shop/mended", "status": "failed", "bulk": 1}},
    ).json()["bulk"]
    run = daemon.call("shop/list")
    ended = until(
        lambda: found if (found := daemon.get(f"/v1/runs/{run}").json())["end"] else None, "its end"
    )
    assert ended["counts"]["failed"] == 1
    paths = [
        "/", "/runs", f"/runs/{run}", "/daemons", "/retries",
        "/retries?text=nothing-of-that-kind", f"/retries/{task}",
        f"/bulks/{bulk}", "/bulks", "/endpoints", "/endpoints/shop/many", "/endpoints/shop/later",
        "/actions", "/batches/1", "/schedules", "/webhooks", "/webhooks?text=nothing-of-that-kind",
        "/retries/999999",
    ]  # fmt: skip
    size = WIDE if theme == "light" else NARROW
    with visit(browser, address, viewport=size, color_scheme=theme) as page:
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        red = int(re.findall(r"\d+", ground)[0])
        assert (red > 200) == (theme == "light")
        for path in paths:
            page.goto(path)
            wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert page.evaluate(wide) == 0, f"{path} is wider than the window"
            assert axe(page) == [], path
        # A choice outlives the page, and begins with its first pixel: the server writes it.
        other = "dark" if theme == "light" else "light"
        page.get_by_label("Theme").select_option(other)
        page.goto("/")
        assert page.locator("html").get_attribute("data-theme") == other
        after = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert after != ground


def test_the_names_of_pages_break_at_no_width(browser: Browser, address: str) -> None:
    with visit(browser, address) as page:
        for width in (390, 761, 900, 1100, 1440):
            page.set_viewport_size({"width": width, "height": 844})
            links = page.get_by_role("navigation", name="Pages").get_by_role("link").all()
            heights = {link.evaluate("one => one.getClientRects()[0].height") for link in links}
            assert max(heights) < 40, f"a name of two lines at {width} pixels"
            wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert page.evaluate(wide) == 0, width


def test_names_of_what_fails_have_room_on_a_phone(
    browser: Browser, address: str, daemon: Daemon, shared_receiver: Receiver
) -> None:
    shared_receiver.on("/mended", 503)
    daemon.until_status(daemon.call("shop/mended"), "pending")
    with visit(browser, address, viewport=NARROW) as page:
        for time in page.locator("#fails time").all():
            time.evaluate("one => { delete one.dataset.when; one.textContent = '23h 59m ago'; }")
        row = page.get_by_role("region", name="Failing calls").get_by_role(
            "row", name="shop/mended"
        )
        assert row.get_by_role("rowheader").evaluate("one => one.clientWidth") > 140
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(wide) == 0


def test_runs_and_workers_have_pages(browser: Browser, address: str, daemon: Daemon) -> None:
    run = daemon.call("shop/list")
    until(lambda: daemon.get(f"/v1/runs/{run}").json()["end"], "its end")
    worker = daemon.status()["daemons"][0]["workers"][0]
    assert worker["pid"] == daemon.pid
    assert worker["troubles"] == []
    with visit(browser, address, "/runs") as page:
        row = page.get_by_role("row", name=f"{run} shop/list")
        expect(row).to_contain_text("ended")
        page.get_by_role("link", name="running", exact=True).click()
        expect(row).to_have_count(0)
        page.get_by_role("link", name="ended", exact=True).click()
        row.get_by_role("link", name=str(run), exact=True).click()
        page.wait_for_url(f"**/runs/{run}")
        page.get_by_role("link", name="Daemons", exact=True).click()
        expect(page.locator("#daemons tbody tr")).to_contain_text(f"pid {daemon.pid}")


def test_without_a_script_all_can_be_looked_at(
    browser: Browser, address: str, daemon: Daemon
) -> None:
    daemon.call("shop/good")
    with visit(browser, address, "/retries", java_script_enabled=False) as page:
        page.get_by_label("Endpoint").fill("shop/*")
        page.get_by_role("button", name="Show").click()
        expect(page.locator("#list table")).to_be_visible()
