"""The editor of webhooks in a real browser: what it writes and refuses, and who hears of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.dashboard.browser import axe, open_browser, playwright_or_skip
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.subscriptions import tenants
from tests.acceptance.waiting import until

playwright_or_skip()
from playwright.sync_api import expect  # noqa: E402

from tests.acceptance.dashboard.test_dashboard import NARROW, READ, TOKEN, done, visit  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
FILE = "apis/shop/endpoints/get.yaml"
PAGE = "/endpoints/shop/get/webhooks"
YAML = """\
# What the shop knows of an order.
path: /ok   # of the API

webhooks:
  # Operations are told.
  - name: ops  # on call
    phase: on_success
    url: {url}/hooks/ops  # theirs
    secret: ${{secret:KEY}}  # never here
    headers: {{X-Team: a}}  # who asks

  # The chat.
  - name: chat
    phase: on_final_failure
    url: https://chat.example.com/x

# Patience.
timeout: 5s
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def shared_daemon(make_shared: MakeDaemon, shared_receiver: Receiver) -> Daemon:
    daemon = make_shared(
        environ={"TOKEN": TOKEN, "READ": READ, "KEY": KEY},
        http={"bind": "127.0.0.1:0", "token": "${secret:TOKEN}", "read_token": "${secret:READ}"},
        subscriptions={"key": tenants.KEY},
    )
    audit = {"name": "audit", "phase": "on_retry", "url": "https://audit.example.com/"}
    daemon.api("shop", shared_receiver.url, retry=retry(delay="1h"), webhooks=[audit])
    daemon.write(FILE, YAML.format(url=shared_receiver.url))
    shared_receiver.on("/ok", 200)
    shared_receiver.reply("/hooks", lambda request: Answer(200))
    return daemon.start()


@pytest.fixture
def daemon(shared_daemon: Daemon, shared_receiver: Receiver) -> Daemon:
    """With its file as it was at first."""
    shared_daemon.write(FILE, YAML.format(url=shared_receiver.url))
    shared_daemon.reload()
    return shared_daemon


@pytest.fixture(scope="module")
def address(shared_daemon: Daemon) -> str:
    line = shared_daemon.logged(r"ready: .*http://127\.0\.0\.1:")
    return next(word.strip(",") for word in line.split() if word.startswith("http://127"))


def text(daemon: Daemon) -> str:
    return (daemon.config / FILE).read_text()


def heard(daemon: Daemon, receiver: Receiver) -> dict[str, Any]:
    receiver.forget()
    assert daemon.finish(daemon.call("shop/get"))["status"] == "succeeded"
    daemon.settle(endpoint="shop/get")
    return {item.path: item for item in receiver.received() if item.path.startswith("/hooks")}


def hook(page: Page, name: str) -> Locator:
    """The form of a webhook, opened."""
    found = page.locator("#own > li").filter(
        has=page.locator(".name", has_text=re.compile(f"^{name}$"))
    )
    if found.locator("> details").get_attribute("open") is None:
        found.locator("> details > summary").click()
    return found


def write(page: Page) -> str:
    """Look at the difference, and write it; the difference."""
    page.get_by_role("button", name="Review changes").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_have_text(f"What changes in {FILE}")
    shown = dialog.locator(".diff").inner_text()
    dialog.get_by_role("button", name="Write it").click()
    expect(dialog).to_have_count(0)
    expect(page.locator("#saved")).to_contain_text("Written.")
    return shown


def test_a_webhook_is_added_changed_and_removed(
    browser: Browser, address: str, daemon: Daemon, shared_receiver: Receiver
) -> None:
    before = text(daemon)
    generation = daemon.status()["config"]["generation"]
    with visit(browser, address, "/endpoints/shop/get") as page:
        page.get_by_role("link", name="Edit").click()
        page.wait_for_url(f"**{PAGE}")
        page.get_by_label("Status code", exact=True).fill("200")
        fires = page.locator("#firing .fires")
        expect(fires).to_have_text(re.compile(r"^ops fires"))

        page.get_by_role("button", name="Add a webhook").click()
        new = page.locator("#own > li").last
        new.get_by_label("Name", exact=True).fill("mine")
        new.get_by_label("Phase").select_option("on_success")
        new.get_by_label("URL").fill(f"{shared_receiver.url}/hooks/mine")
        # Who would fire is shown while it is written.
        expect(fires).to_have_count(2)
        expect(fires.last).to_contain_text("mine")
        new.get_by_label("Secret").select_option("${secret:KEY}")
        new.get_by_text("Headers, payload").click()
        new.get_by_role("button", name="Add a header").click()
        new.get_by_label("Name of a header").fill("X-From")
        new.get_by_label("Value of").fill("editor")
        new.get_by_label("JSON of its own").check()
        new.get_by_label("Payload").fill('{"text": "{{ endpoint }}: {{ status_code }}"}')
        new.get_by_label("Divided by").fill("{{ endpoint }}")
        new.get_by_label("Within a partition").select_option("hold")
        expect(new.get_by_label("At once in a partition")).to_have_count(1)
        expect(new.get_by_label("At once in a partition")).to_be_hidden()
        expect(new.get_by_role("button", name="Send a test")).to_be_disabled()
        shown = write(page)
        assert "+  - name: mine" in shown
        assert KEY not in page.content()
        expect(page.locator("#saved")).to_contain_text(f"generation {generation + 1} is in force")
        expect(page.locator("#facts")).to_contain_text(f"generation {generation + 1}")
        added = f"""\

  - name: mine
    phase: on_success
    url: {shared_receiver.url}/hooks/mine
    secret: ${{secret:KEY}}
    headers:
      X-From: editor
    payload:
      text: "{{{{ endpoint }}}}: {{{{ status_code }}}}"
    partition:
      by: "{{{{ endpoint }}}}"
      ordered: true
      on_failure: hold
"""
        head, tail = before.split("\n# Patience")
        assert text(daemon) == f"{head}{added}\n# Patience{tail}"
        got = heard(daemon, shared_receiver)
        assert got["/hooks/mine"].json() == {"text": "shop/get: 200"}
        assert got["/hooks/mine"].headers["x-from"] == "editor"
        assert got["/hooks/mine"].headers["webhook-signature"].startswith("v1,")

        mine = hook(page, "mine")
        mine.get_by_role("button", name="Send a test").click()
        expect(mine.locator(".tested")).to_contain_text("It arrived: answered 200 in")
        mine.get_by_label("URL").fill(f"{shared_receiver.url}/hooks/other")
        mine.get_by_label("Status codes").fill("2xx, 404")
        mine.get_by_label("Only when").fill("status_code == `200`")
        mine.get_by_text("Headers, payload").click()
        mine.get_by_label("Within a partition").select_option("")
        mine.get_by_label("At once in a partition").fill("2")
        mine.get_by_role("button", name="Move up").click()
        shown = write(page)
        assert "+    status_code: [2xx, 404]" in shown
        assert '+    when: "status_code == `200`"' in shown, shown
        assert "+      concurrency: 2" in shown
        assert "-      ordered: true" in shown
        assert set(heard(daemon, shared_receiver)) == {"/hooks/ops", "/hooks/other"}
        assert text(daemon).index("name: mine") < text(daemon).index("# The chat.")

        hook(page, "ops").get_by_label("Enabled").uncheck()
        hook(page, "mine").get_by_role("button", name="Remove").click()
        chat = hook(page, "chat")
        chat.get_by_text("Headers, payload").click()
        expect(chat.get_by_label("Events at most")).to_be_hidden()
        chat.get_by_label("A delivery tells of").select_option("several events, a batch")
        expect(chat.get_by_label("A batch closes after")).to_have_value("5m")
        chat.get_by_label("Events at most").fill("50")
        chat.get_by_label("Disabled after").fill("5d")
        chat.get_by_label("Divided by").fill("{{ endpoint }}")
        refused = chat.locator("[data-key=partition] > .wrong")
        expect(refused).to_contain_text("a batch has no partition")
        chat.get_by_label("Divided by").fill("")
        expect(refused).to_be_hidden()
        write(page)
        assert heard(daemon, shared_receiver) == {}
        switched = before.replace("# who asks\n", "# who asks\n    enabled: false\n")
        url = "    url: https://chat.example.com/x\n"
        keys = "    batch:\n      every: 5m\n      max: 50\n    disable_after: 5d\n"
        assert text(daemon) == switched.replace(url, url + keys)

        # A comment beside a key stays where only the key beside it is changed or taken out.
        commented = text(daemon).replace("every: 5m", "every: 5m  # as they look")
        daemon.write(FILE, commented)
        expect(page.locator("#own .name")).to_have_text(["ops", "chat"])
        page.reload()
        chat = hook(page, "chat")
        chat.get_by_text("Headers, payload").click()
        expect(chat.get_by_label("A delivery tells of")).to_have_value("batch")
        chat.get_by_label("Events at most").fill("")
        chat.get_by_label("Disabled after").fill("")
        write(page)
        gone = "      max: 50\n    disable_after: 5d\n"
        assert text(daemon) == commented.replace(gone, "")
        chat.get_by_text("Headers, payload").click()
        chat.get_by_label("A delivery tells of").select_option("one event")
        write(page)
        assert text(daemon) == switched
    entry = done(daemon, "edit webhooks")[0]
    assert entry["endpoint"] == "shop/get"


def test_a_webhook_says_who_calls(
    browser: Browser, address: str, daemon: Daemon, shared_receiver: Receiver
) -> None:
    before = text(daemon)
    with visit(browser, address, PAGE) as page:
        choice = hook(page, "ops").get_by_label("Says who calls by")
        choice.select_option("bearer ${secret:KEY}")
        write(page)
        written = yaml.safe_load(text(daemon))["webhooks"]
        assert written[0]["auth"] == {"bearer": "${secret:KEY}"}
        sent = heard(daemon, shared_receiver)["/hooks/ops"]
        assert sent.headers["authorization"] == f"Bearer {KEY}"
        choice = hook(page, "ops").get_by_label("Says who calls by")
        expect(choice.locator("option:checked")).to_have_text("bearer ${secret:KEY}")
        choice.select_option("nothing")
        write(page)
        assert text(daemon) == before
        assert "authorization" not in heard(daemon, shared_receiver)["/hooks/ops"].headers
        # No reference stands at its address yet.
        other = hook(page, "chat").get_by_label("Says who calls by")
        expect(other.locator("option")).to_have_text(["nothing"])


def test_what_is_kept_of_missed_deliveries(browser: Browser, address: str, daemon: Daemon) -> None:
    before = text(daemon)
    with visit(browser, address, PAGE) as page:
        for most, kept in (("50", "    keep_missed:\n      max: 50\n"), ("", "")):
            chat = hook(page, "chat")
            chat.get_by_text("Headers, payload").click()
            chat.get_by_label("Missed deliveries at most").fill(most)
            write(page)
            url = "    url: https://chat.example.com/x\n"
            assert text(daemon) == before.replace(url, url + kept)
            page.reload()


def test_an_answer_may_say_that_it_is_tried_again(
    browser: Browser, address: str, daemon: Daemon
) -> None:
    before = text(daemon)
    with visit(browser, address, PAGE) as page:
        chat = hook(page, "chat")
        chat.get_by_text("Headers, payload").click()
        field = chat.get_by_label("Tried again if the answer has")
        field.fill("body.status = 'busy'")
        expect(chat.locator("[data-key='retry.if'] > .wrong")).to_contain_text("is not JMESPath")
        field.fill("body.status == 'busy'")
        expect(chat.locator("[data-key='retry.if'] > .wrong")).to_be_hidden()
        assert """+      if: "body.status == 'busy'\"""" in write(page)
        page.reload()
        hook(page, "chat").get_by_text("Headers, payload").click()
        expect(field).to_have_value("body.status == 'busy'")
        field.fill("")
        write(page)
    assert text(daemon) == before


def test_a_secret_does_not_go_to_another_address(
    browser: Browser, address: str, daemon: Daemon
) -> None:
    before = text(daemon)
    with visit(browser, address, PAGE) as page:
        ops = hook(page, "ops")
        ops.get_by_label("URL").fill("https://evil.example/hook")
        said = "the reference ${secret:KEY} does not stand in a webhook of this endpoint"
        expect(page.locator("#problems")).to_contain_text(said)
        expect(ops.locator("[data-key=secret] > .wrong")).to_contain_text(said)
        expect(ops.get_by_label("Secret")).to_have_attribute("aria-invalid", "true")
        page.get_by_role("button", name="Review changes").click()
        expect(page.locator("#problems")).to_be_focused()
        expect(page.get_by_role("dialog")).to_have_count(0)
        page.get_by_role("link", name="ops, secret").click()
        expect(ops.get_by_label("Secret")).to_be_focused()
        # Without it, anybody may be told.
        ops.get_by_label("Secret").select_option("")
        expect(page.locator("#problems")).to_be_empty()
        expect(ops.locator("[data-key=secret] .hint")).to_contain_text("No reference stands at")
        # Nor without the page.
        smuggled = page.evaluate(
            """async (path) => {
              const read = await (await fetch(path)).json();
              read.webhooks[0].url = "https://ops@evil.example/";
              const headers = {"Content-Type": "application/json", "If-Match": read.etag};
              const body = JSON.stringify(read);
              const answer = await fetch(path, {method: "PUT", headers, body});
              return [answer.status, await answer.text()];
            }""",
            "/v1/endpoints/shop/get/webhooks",
        )
        assert smuggled[0] == 422
        assert "does not stand in a webhook" in smuggled[1]
        page.on("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Discard").click()
    assert text(daemon) == before


def test_problems_stand_beside_their_fields(browser: Browser, address: str, daemon: Daemon) -> None:
    with visit(browser, address, PAGE) as page:
        page.get_by_role("button", name="Add a webhook").click()
        new = page.locator("#own > li").last
        page.wait_for_timeout(600)
        expect(page.locator("#problems")).to_be_empty()  # it has only just been begun
        page.get_by_role("button", name="Review changes").click()
        expect(new.locator("[data-key=url] > .wrong")).to_have_text("is required")
        new.get_by_label("URL").fill("ftp://example.com")
        expect(new.locator("[data-key=url] > .wrong")).to_contain_text("http:// or https://")
        new.get_by_label("URL").fill("https://new.example.com/{{ params.nothing }}")
        new.get_by_text("Headers, payload").click()
        new.get_by_label("Attempts at most").fill("none")
        expect(new.locator("[data-key='retry.max_attempts'] > .wrong")).to_contain_text("number")
        new.get_by_label("A delivery tells of").select_option("several events, a batch")
        new.get_by_label("Events at most").fill("20000")
        expect(new.locator("[data-key='batch.max'] > .wrong")).to_contain_text("10000")
        new.get_by_label("Disabled after").fill("soon")
        expect(new.locator("[data-key=disable_after] > .wrong")).to_contain_text("duration")
        new.get_by_label("JSON of its own").check()
        new.get_by_label("Payload").fill('{"text": ')
        expect(new.locator("[data-key=payload] > .wrong")).to_contain_text("This is not JSON")
        expect(new.locator("> details > summary .mark")).to_contain_text("problem")
        new.get_by_label("a text of its own").check()
        new.get_by_label("Payload").fill("{{ nothing }}")
        expect(new.locator("[data-key=payload] > .wrong")).to_contain_text("is not known")
        assert axe(page) == []
        page.get_by_role("button", name="Discard").click()
        expect(page.locator("#own > li")).to_have_count(2)


def test_subscribers_take_the_place_of_a_url(
    browser: Browser, address: str, daemon: Daemon
) -> None:
    before = text(daemon)
    with visit(browser, address, PAGE) as page:
        page.get_by_role("button", name="Add a webhook").click()
        new = page.locator("#own > li").last
        new.get_by_label("Phase").select_option("on_success")
        new.get_by_label("Subscribers").fill("{{ nothing }}")
        expect(new.locator("[data-key=subscribers] > .wrong")).to_contain_text("is not known")
        new.get_by_label("Subscribers").fill("{{ task_id }}")
        wrong = new.locator("[data-key=subscribers] > .wrong")
        expect(wrong).to_contain_text("write a payload beside it")
        new.get_by_text("Headers, payload").click()
        new.get_by_label("JSON of its own").check()
        new.get_by_label("Payload").fill('{"type": "order.paid"}')
        expect(wrong).to_be_hidden()
        expect(new.locator("[data-key=url] > .wrong")).to_be_hidden()
        expect(new.locator("> details > summary .what")).to_have_text("on_success to subscribers")
        assert axe(page) == []
        page.get_by_role("button", name="Discard").click()
        expect(page.locator("#own > li")).to_have_count(2)
    assert text(daemon) == before


def test_the_file_changes_meanwhile(browser: Browser, address: str, daemon: Daemon) -> None:
    with visit(browser, address, PAGE) as page:
        ops = hook(page, "ops")
        ops.get_by_label("Phase").select_option("after_request")
        expect(page.locator("#firing .fires")).to_have_count(1)
        by_hand = text(daemon).replace("on_final_failure", "on_retry").replace("patience", "haste")
        by_hand = by_hand.replace("X-Team: a", "X-Team: b")
        daemon.write(FILE, by_hand)
        page.get_by_role("button", name="Review changes").click()
        conflict = page.get_by_role("alert")
        expect(conflict).to_contain_text("The file has changed since you opened it")
        expect(conflict).to_contain_text("chat: phase is on_retry, was on_final_failure")
        expect(conflict).to_contain_text("ops: phase is after_request, was on_success")
        assert axe(page) == []
        conflict.get_by_role("button", name="Apply mine to it").click()
        expect(page.locator("#conflict")).to_contain_text("Review them before they are written")
        shown = write(page)
        assert "-    phase: on_success\n+    phase: after_request" in shown
        assert text(daemon) == by_hand.replace("on_success", "after_request")

        # While the difference is looked at.
        hook(page, "chat").get_by_label("Status codes").fill("5xx")
        page.get_by_role("button", name="Review changes").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        daemon.write(FILE, text(daemon).replace("after_request", "on_success"))
        page.get_by_role("dialog").get_by_role("button", name="Write it").click()
        expect(page.get_by_role("alert")).to_contain_text("ops: phase is on_success")
        page.get_by_role("button", name="Take the file’s, discard mine").click()
        expect(hook(page, "chat").get_by_label("Status codes")).to_have_value("")
        # Whoever has changed nothing sees what changed without being asked.
        daemon.write(FILE, text(daemon).replace("name: chat", "name: talk"))
        expect(page.locator("#own .name").last).to_have_text("talk")
        assert "status_code" not in text(daemon)


def test_what_is_unsaved_outlives_the_session(
    browser: Browser, address: str, daemon: Daemon
) -> None:
    """A session ends with its daemon, or elsewhere; what was typed is still on the page."""
    with visit(browser, address, PAGE) as page:
        hook(page, "chat").get_by_label("Status codes").fill("5xx")
        other = page.context.new_page()
        other.goto("/")
        other.get_by_role("button", name="Log out").click()
        other.wait_for_url("**/login")
        expect(page.locator("#notes")).to_contain_text("You are logged out")
        page.get_by_role("button", name="Review changes").click()
        expect(page.locator("#problems")).to_contain_text("You are logged out")
        other.get_by_label("Token").fill(TOKEN)
        other.get_by_role("button", name="Log in").click()
        other.wait_for_selector("main h1", state="attached")
        assert "+    status_code: 5xx" in write(page)
    assert "status_code: 5xx" in text(daemon)


def test_by_keyboard_only(
    browser: Browser, address: str, daemon: Daemon, shared_receiver: Receiver
) -> None:
    def tab_to(name: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                "(() => { const e = document.activeElement; return "
                "[e.labels?.[0]?.textContent, e.ariaLabel, e.textContent].map(t => t?.trim()); })()"
            )
            if name in focused:
                style = "getComputedStyle(document.activeElement).outlineStyle"
                assert page.evaluate(style) != "none"
                return
        raise AssertionError(f"no way to {name!r} by the tabulator key")

    with visit(browser, address, PAGE) as page:
        expect(page.get_by_role("button", name="Add a webhook")).to_be_visible()
        tab_to("Add a webhook")
        page.keyboard.press("Enter")
        page.keyboard.type("typed")  # the focus is in the new one's name
        tab_to("Phase")
        page.keyboard.type("on_s")
        tab_to("URL")
        page.keyboard.type(f"{shared_receiver.url}/hooks/typed")
        tab_to("Move up")
        page.keyboard.press("Enter")
        expect(page.locator("#own .name").nth(1)).to_have_text("typed")
        expect(page.locator(":focus")).to_have_text("Move up")
        expect(page.locator("#problems")).to_be_empty()
        tab_to("Review changes")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.locator("#review")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        # The way out of the question comes first, and then the way on.
        page.keyboard.press("Enter")
        expect(page.locator("#saved")).to_contain_text("Written.")
        expect(page.locator("#saved")).to_be_focused()
    until(lambda: "name: typed" in text(daemon), "the file")
    assert set(heard(daemon, shared_receiver)) == {"/hooks/ops", "/hooks/typed"}


def test_who_may_only_look(browser: Browser, address: str, daemon: Daemon) -> None:
    with visit(browser, address, PAGE, token=READ) as page:
        expect(page.locator("#notes")).to_contain_text("for looking only")
        expect(page.locator("#own .name")).to_have_text(["ops", "chat"])
        expect(page.locator("#inherited")).to_contain_text("apis/shop/api.yaml:")
        assert page.locator("main button:visible, main input:not(#ask input)").count() == 0
        page.goto(f"{PAGE}?status_code=200")
        expect(page.locator("#firing .fires")).to_contain_text("ops fires")
        page.goto(f"{PAGE}?phase=wrong&status_code=<b>")
        expect(page.locator("#firing")).to_contain_text("unknown phase")
        assert KEY not in page.content()
        assert axe(page) == []
        page.goto("/endpoints/shop/none/webhooks")
        expect(page.locator("main")).to_contain_text("There is no such thing")


def test_what_cannot_be_written_says_why(browser: Browser, address: str, daemon: Daemon) -> None:
    path = daemon.config / FILE
    outside = daemon.home / "outside.yaml"
    path.rename(outside)
    path.symlink_to(outside)
    try:
        with visit(browser, address, PAGE) as page:
            expect(page.locator("#facts")).to_contain_text(
                f"Read-only: {FILE} is a symbolic link that leads out of the config folder."
            )
            expect(page.locator("#own .name").first).to_have_text("ops")
            expect(page.get_by_role("button", name="Add a webhook")).to_be_hidden()
            ops = page.locator("#own > li").first
            ops.get_by_role("button", name="Send a test").click()
            expect(ops.locator(".tested")).to_contain_text("It arrived")
    finally:
        path.unlink()
        outside.rename(path)


def test_a_disabled_webhook_is_enabled_and_what_failed_is_replayed(
    browser: Browser, address: str, daemon: Daemon, shared_receiver: Receiver
) -> None:
    gone = {"/hooks/ops": True}
    shared_receiver.reply("/hooks", lambda request: Answer(410 if gone["/hooks/ops"] else 200))
    daemon.finish(daemon.call("shop/get"))
    daemon.settle(endpoint="shop/get")
    [failed, *_] = daemon.tasks(reason="webhook_disabled")
    gone["/hooks/ops"] = False
    with visit(browser, address, "/webhooks") as page:
        row = page.locator("#webhooks tr").filter(has_text="ops")
        expect(row).to_contain_text("disabled")
        expect(row.get_by_role("button", name="Enable", exact=True)).to_be_visible()
        expect(row.get_by_role("link", name="1 missed")).to_be_visible()
        assert axe(page) == []
        row.get_by_role("button", name="Enable and replay").click()
        expect(page.locator("#said")).to_contain_text("those that failed because of it are sent")
        expect(row.get_by_role("button")).to_have_count(0)
    assert daemon.finish(failed["id"])["status"] == "succeeded"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_barriers_and_no_overflow(
    browser: Browser, address: str, daemon: Daemon, theme: str
) -> None:
    for size in (None, NARROW):
        options: dict[str, Any] = {"color_scheme": theme} | ({"viewport": size} if size else {})
        with visit(browser, address, PAGE, **options) as page:
            hook(page, "ops").get_by_text("Headers, payload").click()
            expect(page.get_by_role("button", name="Add a webhook")).to_be_visible()
            assert axe(page) == []
            hook(page, "ops").get_by_label("Name", exact=True).fill("renamed")
            page.get_by_role("button", name="Review changes").click()
            expect(page.get_by_role("dialog")).to_be_visible()
            assert axe(page) == []
            wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
            assert not page.evaluate(wide)
            page.get_by_role("button", name="Back").click()
            page.get_by_role("button", name="Discard").click()
