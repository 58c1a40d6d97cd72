"""What an edit may not do: send a secret to somebody who did not get it, or show one."""

from __future__ import annotations

from typing import Any

import pytest
from config_parts import WHSEC, ConfigFolder
from edit_parts import Editing, webhook

from orchestratord.errors import ConfigError, InvalidParams

OPS = "https://ops.example.com/hook"
EVIL = "https://evil.example/x"
KEY = "${secret:KEY}"
ENVIRON = {
    "KEY": WHSEC, "OTHER": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "TEAM": "integrations",
    "HOST": "hidden.example.com", "URL": "https://whole.example.com/hook", "EMPTY": "",
    "DEFAULTS": "whsec_ZGVmYXVsdHMgaGF2ZSBzZWNyZXRzIHRvbyE=",
}  # fmt: skip
API = """\
base_url: https://api.example.com
webhooks:
  - name: shared
    phase: on_success
    url: https://shared.example.com/in
    secret: ${secret:OTHER}
    headers: {Authorization: "Bearer ${secret:OTHER}"}
"""
DAEMON = """\
defaults:
  webhooks:
    - {name: all, phase: on_retry, url: "https://all.example.com", secret: "${secret:DEFAULTS}"}
"""
FILE = f"""\
path: /x
webhooks:
  - name: ops
    phase: after_request
    url: {OPS}
    secret: {KEY}
    headers: {{X-Team: "${{TEAM}}"}}
  - name: host
    phase: after_request
    url: https://${{HOST}}:8443/hook
    headers: {{X-Key: "{KEY}"}}
  - name: whole
    phase: after_request
    url: ${{URL}}
    headers: {{X-Key: "{KEY}"}}
  - name: plain
    phase: after_request
    url: {EVIL}
"""


@pytest.fixture
def editing(config: ConfigFolder) -> Editing:
    config.daemon(DAEMON)
    return Editing(config, FILE, api=API, **ENVIRON)


def refused(editing: Editing, items: list[Any]) -> list[str]:
    before = editing.text
    with pytest.raises(ConfigError) as caught:
        editing.edit(items)
    assert editing.text == before
    # A dry run says the same.
    assert editing.edit(items, dry_run=True).problems == caught.value.problems
    found = [str(problem) for problem in caught.value.problems]
    assert not any(value in text for text in found for value in ENVIRON.values() if value)
    return found


@pytest.mark.parametrize(
    "url",
    [
        EVIL,
        "http://ops.example.com/hook",
        "https://ops.example.com:444/hook",
        "https://ops.example.com:80/hook",
        "https://ops.example.com.evil.example/hook",
        "https://evil.example/ops.example.com",
        "https://ops.example.com@evil.example/hook",
        "https://ops.example.com:443@evil.example/hook",
        "https://x@ops.example.com/hook",
        "https://ops.example.com\\@evil.example/hook",
        "https://ops.example.com\\.evil.example/hook",
        "https://ops.example.com%2eevil.example/hook",
        "https://ops.example.com\t.evil.example/hook",
        "https://ops.example.com\n.evil.example/hook",
        "https://ops.example.com\n",
        "https://ops.example.com./hook",
        "https://ops.example.com{{ params.x }}/hook",
        "https://{{ 'evil.example' }}/hook",
        "https:///ops.example.com/hook",
        "https:/ops.example.com/hook",
        "//ops.example.com/hook",
        "https:ops.example.com/hook",
        " https://ops.example.com/hook",
        "https://ops。example。com/hook",
        "https://ｏps.example.com/hook",
        "httpſ://ops.example.com/hook",
        "https://ops.example.com:４43/hook",
        "https://ops.example.com:99999999999999999999/hook",
        "https://[::1]/hook",
        "${URL}",
        "${URL}/../x",
        "https://${HOST}/hook",
        "https://${HOST:-evil.example}/hook",
        "https://ops.example.com${EMPTY}.evil.example/hook",
        "https://ops.example.com$${/hook",
        "",
        None,
        7,
        ["https://ops.example.com/hook"],
    ],
)
def test_a_secret_does_not_go_to_another_address(editing: Editing, url: Any) -> None:
    items = editing.items()
    items[0]["url"] = url
    assert refused(editing, items)


@pytest.mark.parametrize(
    "url",
    [
        OPS,
        "https://ops.example.com/another/path?and=query",
        "https://ops.example.com",
        "https://ops.example.com?x=1",
        "https://ops.example.com:443/hook",
        "HTTPS://OPS.example.COM/hook",
        "https://ops.example.com/{{ params.x }}/@evil.example",
    ],
)
def test_it_stays_where_it_is(editing: Editing, url: str) -> None:
    items = editing.items()
    items[0]["url"] = url
    assert not editing.edit(items, dry_run=True).problems


@pytest.mark.parametrize(
    "change",
    [
        # A reference that stands elsewhere, to somebody's own address.
        {"secret": KEY},
        {"secret": [KEY]},
        {"headers": {"X": KEY}},
        {"headers": {"X": f"prefix {KEY}"}},
        {"headers": {"X": "${TEAM}"}},
        {"payload": {"a": ["${TEAM}"]}},
        {"payload": "${TEAM}"},
        {"url": f"{EVIL}?q=${{TEAM}}"},
        {"url": f"{EVIL}?q={KEY}"},
        # References that stand nowhere, and what may become one.
        {"headers": {"X": "${HOME}"}},
        {"headers": {"X": "${secret:NEW}"}},
        {"headers": {"X": "${file:/etc/passwd}"}},
        {"headers": {"X": "${TEAM:-}"}},
        {"headers": {"X": "$${TEAM}"}},
        {"headers": {"X": "$$${TEAM}"}},
        {"headers": {"X": "${"}},
        {"headers": {"X": "${a${TEAM}}"}},
        {"headers": {"X": "${TEAM"}},
        {"retry": {"max_attempts": "${TEAM}"}},
        {"timeout": "${TEAM}"},
        {"phase": KEY},
        {"name": KEY},
        # Secrets that are written out.
        {"secret": WHSEC},
        {"secret": [KEY, WHSEC]},
        {"headers": {"Authorization": "Bearer abcdefgh"}},
        {"headers": {"X-Api-Key": "abcdefgh"}},
        {"headers": {"X-Api-Key": 12345678}},
    ],
)  # fmt: skip
def test_nothing_new_that_is_secret(editing: Editing, change: dict[str, Any]) -> None:
    items = editing.items()
    items[3] = {**items[3], **change}
    found = refused(editing, items)
    assert any(
        "cannot be written here" in text or "does not stand in a webhook" in text for text in found
    )
    assert all(text.startswith("apis/shop/endpoints/get.yaml:") for text in found)


def test_the_place_is_the_items_own(editing: Editing) -> None:
    items = [*editing.items(), webhook(name="mine", url=EVIL, secret=KEY)]
    with pytest.raises(ConfigError) as caught:
        editing.edit(items)
    (problem,) = caught.value.problems
    assert (problem.key, problem.line) == ("webhooks.4.secret", 22)
    assert "does not stand in a webhook of this endpoint with the same scheme" in problem.message


@pytest.mark.parametrize("name", ["shared", "all"])
def test_a_name_does_not_bring_another_ones_secret_along(editing: Editing, name: str) -> None:
    (found, *_) = refused(editing, [*editing.items(), {"name": name, "url": EVIL}])
    assert "webhooks.4.url: the reference" in found
    # Renamed, and so united with it.
    items = editing.items()
    items[3]["name"] = name
    refused(editing, items)
    # Where it goes anyway is no matter, nor is what else it says.
    own = {"name": name, "enabled": False, "timeout": "3s"}
    assert not editing.edit([*editing.items(), own], dry_run=True).problems


def test_what_overrides_may_go(config: ConfigFolder) -> None:
    text = "path: /x\nwebhooks: [{name: shared, url: 'https://moved.example.com', headers: {}}]\n"
    editing = Editing(config, text, api=API, **ENVIRON)
    assert not editing.edit([], dry_run=True).problems
    moved = {"name": "shared", "url": "https://moved.example.com/2"}
    assert not editing.edit([moved], dry_run=True).problems


def test_a_host_that_is_a_reference(editing: Editing) -> None:
    items = editing.items()
    items[1]["url"] = "https://${HOST}:8443/other"
    assert not editing.edit(items, dry_run=True).problems
    for url in (
        "https://${HOST}.evil.example:8443/hook", "https://evil.example/${HOST}:8443/hook",
        "https://${HOST}:8444/hook", "https://${HOST}@evil.example/", "http://${HOST}:8443/hook",
        "https://${HOST:-x}:8443/hook", "https://a.${HOST}:8443/hook",
    ):  # fmt: skip
        items[1]["url"] = url
        refused(editing, items)
    items = editing.items()
    # Nobody knows what the whole of it is, so nothing can be put behind it.
    for url in ("${URL}/other", "${URL}//evil.example/", "https://x${URL}", "${URL}.evil.example"):
        items[2]["url"] = url
        refused(editing, items)


@pytest.mark.parametrize("name", ["Host", "host", "HOST"])
def test_another_host_behind_the_same_address(editing: Editing, name: str) -> None:
    items = editing.items()
    items[0]["headers"] = {**items[0]["headers"], name: "evil.example"}
    assert refused(editing, items)
    items[3]["headers"] = {name: "evil.example"}
    items[0]["headers"].pop(name)
    assert not editing.edit(items, dry_run=True).problems


def test_which_references_an_item_may_hold(editing: Editing) -> None:
    ops = ("${secret:KEY}", "${TEAM}")
    host = ("${HOST}", "${secret:KEY}")
    read = editing.read()
    assert read.references == (ops, host, ("${URL}", "${secret:KEY}"), ())
    items = [*editing.items(), webhook(url="https://ops.example.com:443/else"), {"name": "shared"}]
    items[0]["url"] = EVIL
    references = editing.edit(items, dry_run=True).declaration.references
    assert references[:1] == ((),)
    assert references[4:] == (ops, ("${secret:OTHER}",))


WRITTEN = """\
path: /x
headers:
  X-Api-Key: "aaaa\\x61bbbb"
webhooks:
  - name: ops  # n
    phase: after_request
    url: https://ops.example.com/hook
    secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw  # s
    headers:
      Authorization: >-
        Bearer hunter2hunter2
        hunter2

      X-Team: a
"""
TOLD = ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "hunter2", "aaaa", "x61bbbb")


def test_secrets_that_are_written_out_stay_and_are_never_shown(config: ConfigFolder) -> None:
    editing = Editing(config, WRITTEN)
    read = editing.read()
    assert read.items[0]["secret"] == "***"
    assert read.items[0]["headers"] == {"Authorization": "***", "X-Team": "a"}
    changed = {**read.items[0], "phase": "on_retry"}
    changed["headers"] = {**changed["headers"], "X-Team": "b"}
    edit = editing.edit([changed], etag=read.etag)
    assert not any(word in repr(edit) + edit.diff for word in TOLD)
    assert "-    phase: after_request\n+    phase: on_retry\n" in edit.diff
    assert "     secret: ***  # s\n" in edit.diff
    assert "       Authorization: ***\n" in edit.diff
    expected = WRITTEN.replace("after_request", "on_retry").replace("X-Team: a", "X-Team: b")
    editing.holds(expected)


def test_a_mask_stands_for_what_stood_in_the_same_place(config: ConfigFolder) -> None:
    editing = Editing(config, WRITTEN)
    (item,) = editing.items()
    # A webhook that is renamed still is the same one.
    assert not editing.edit([{**item, "name": "renamed"}], dry_run=True).problems
    # Its secret does not go elsewhere, and is not moved to where it would be seen.
    refused(editing, [{**item, "url": EVIL}])
    for change in (
        {"payload": {"text": "***"}}, {"headers": {**item["headers"], "X-Team": "***"}},
        {"secret": ["***", "***"]}, {"headers": {"Other": "***"}},
    ):  # fmt: skip
        with pytest.raises(InvalidParams, match=r"there is none; to have \*\*\* itself there"):
            editing.edit([{**item, **change}])
    with pytest.raises(InvalidParams, match=r"webhooks\.1\.secret"):
        editing.edit([item, webhook(secret="***")])


def test_a_mask_within_a_text_is_not_written_into_the_file(config: ConfigFolder) -> None:
    """The URL of an edit of what is shown beside a mask had lost its token for good."""
    shown = "https://ops.example.com/***/hook"
    text = WRITTEN.replace("/hook", "/hunter2hunter2/hook") + "    payload: {text: '*** a'}\n"
    text = text.replace("Bearer hunter2hunter2\n        hunter2\n\n", "hunter2hunter2\n")
    editing = Editing(config, text)
    (item,) = editing.items()
    assert (item["url"], item["payload"]) == (shown, {"text": "*** a"})
    for url in (f"{shown}/new", "https://ops.example.com/***", "https://new.example.com/***/hook"):
        with pytest.raises(InvalidParams, match=r"webhooks\.0\.url: .* write the whole value"):
            editing.edit([{**item, "url": url}])
    with pytest.raises(InvalidParams, match=r"webhooks\.1\.url: .* write the whole value"):
        editing.edit([item, webhook(url=shown)])
    with pytest.raises(InvalidParams, match="itself there, write that into the YAML file"):
        editing.edit([item, webhook(payload={"text": "*** a"})])
    assert editing.text == text
    # What is shown whole may say anything.
    editing.edit([{**item, "phase": "on_retry", "payload": {"text": "*** b"}}])
    assert editing.items()[0] == {**item, "phase": "on_retry", "payload": {"text": "*** b"}}
    assert "hunter2hunter2/hook" in editing.text


def test_errors_do_not_show_secrets(editing: Editing) -> None:
    items = editing.items()
    items[0] |= {"phase": KEY, "include": [KEY], "timeout": KEY, "status_code": KEY, "enabled": KEY}
    items[0] |= {"retry": {"max_attempts": KEY}, "payload": KEY, "name": KEY}
    found = refused(editing, items)
    assert len(found) > 3


OF_AUTH = f"""\
path: /x
webhooks:
  - name: token
    phase: after_request
    url: {OPS}
    auth:
      oauth2: {{token_url: https://login.example.com/t, client_id: me, client_secret: "{KEY}"}}
  - name: other
    phase: after_request
    url: {OPS}
    auth:
      oauth2: {{token_url: https://two.example.com/t, client_id: me, client_secret: "${{TEAM}}"}}
  - name: basic
    phase: after_request
    url: {EVIL}
    auth: {{basic: {{username: me, password: "{KEY}"}}}}
"""


def test_what_says_who_calls_is_kept(config: ConfigFolder) -> None:
    editing = Editing(config, OF_AUTH, **ENVIRON)
    items = editing.items()
    assert items[0]["auth"]["oauth2"]["client_secret"] == KEY
    items[0]["timeout"] = "3s"
    items[2] = {**items[2], "url": f"{EVIL}/elsewhere", "enabled": False}
    editing.edit(items)
    for line in OF_AUTH.splitlines():
        if "auth" in line or "oauth2" in line:
            assert line in editing.text


@pytest.mark.parametrize(
    "token_url",
    ["https://evil.example/t", "https://login.example.com/other", "https://two.example.com/t"],
)
def test_no_edit_sends_a_client_secret_to_another_token_endpoint(
    config: ConfigFolder, token_url: str
) -> None:
    editing = Editing(config, OF_AUTH, **ENVIRON)
    items = editing.items()
    items[0]["auth"]["oauth2"]["token_url"] = token_url
    assert refused(editing, items)
    items = editing.items()
    secret = {"client_id": "me", "client_secret": KEY}
    items[2]["auth"] = {"oauth2": {"token_url": token_url, **secret}}
    assert refused(editing, items)
