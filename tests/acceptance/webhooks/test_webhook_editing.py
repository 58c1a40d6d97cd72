"""Webhooks written over the API of a real daemon: what the file says, and who hears of it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.api.test_tcp import BEARER, HTTP, READER, SECRETS, over_tcp, port_of
from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until

KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PATH = "/v1/endpoints/shop/get/webhooks"
FILE = "apis/shop/endpoints/get.yaml"
YAML = """\
# What the shop knows of an order.
path: /ok   # of the API

webhooks:
  # Operations are told of everything that went well.
  - name: ops  # on call
    phase: on_success
    url: {url}/hooks/ops
    secret: ${{secret:KEY}}  # theirs

# Patience.
timeout: 5s
"""


@pytest.fixture
def daemon(make_daemon: MakeDaemon, receiver: Receiver) -> Daemon:
    receiver.on("/ok", 200)
    receiver.reply("/hooks", lambda request: Answer(200))
    daemon = make_daemon(environ={**SECRETS, "KEY": KEY}, http=HTTP, defaults={"retry": retry()})
    daemon.api("shop", receiver.url)
    daemon.write(FILE, YAML.format(url=receiver.url))
    return daemon.start()


def text(daemon: Daemon) -> str:
    return (daemon.config / FILE).read_text()


def put(daemon: Daemon, webhooks: Any, etag: str | None, **query: Any) -> httpx.Response:
    headers = {} if etag is None else {"If-Match": etag}
    body = {"webhooks": webhooks}
    return daemon.request("PUT", PATH, json=body, headers=headers, params=query)


def fired(daemon: Daemon, receiver: Receiver) -> dict[str, Any]:
    """Who hears of a call that succeeds: path → request."""
    receiver.forget()
    task = daemon.finish(daemon.call("shop/get"))
    assert task["status"] == "succeeded"
    daemon.settle()
    return {item.path: item for item in receiver.received() if item.path.startswith("/hooks")}


def test_a_webhook_is_added_changed_and_removed(daemon: Daemon, receiver: Receiver) -> None:
    before = text(daemon)
    answer = daemon.get(PATH)
    read = answer.json()
    assert answer.headers["etag"] == read["etag"]
    assert (read["file"], read["writable"], read["reason"]) == (FILE, True, None)
    assert read["references"] == [["${secret:KEY}"]]
    chat = {
        "name": "chat", "phase": "on_success", "url": f"{receiver.url}/hooks/chat",
        "secret": "${secret:KEY}", "payload": {"text": "{{ endpoint }}: {{ status_code }}"},
    }  # fmt: skip

    tried = put(daemon, [*read["webhooks"], chat], read["etag"], dry_run="true").json()
    assert (tried["written"], tried["problems"]) == (False, [])
    assert (text(daemon), set(fired(daemon, receiver))) == (before, {"/hooks/ops"})

    answer = put(daemon, [*read["webhooks"], chat], read["etag"])
    added = answer.json()
    assert (answer.status_code, added["written"], added["problems"]) == (200, True, [])
    assert added["diff"] == tried["diff"]
    assert added["generation"] == daemon.status()["config"]["generation"] == 2
    listed = f"""\

  - name: chat
    phase: on_success
    url: {receiver.url}/hooks/chat
    secret: ${{secret:KEY}}
    payload:
      text: "{{{{ endpoint }}}}: {{{{ status_code }}}}"
"""
    head, tail = before.split("\n\n# Patience")
    assert text(daemon) == f"{head}\n{listed[1:]}\n# Patience{tail}"
    heard = fired(daemon, receiver)
    assert heard["/hooks/chat"].json() == {"text": "shop/get: 200"}
    assert heard["/hooks/chat"].headers["webhook-signature"].startswith("v1,")

    changed = [{**added["webhooks"][0], "url": f"{receiver.url}/hooks/other"}, chat]
    answer = put(daemon, changed, answer.headers["etag"])
    assert answer.status_code == 200, answer.text
    assert set(fired(daemon, receiver)) == {"/hooks/other", "/hooks/chat"}
    answer = put(daemon, changed[:1], answer.headers["etag"])
    assert set(fired(daemon, receiver)) == {"/hooks/other"}
    assert text(daemon) == before.replace("/hooks/ops", "/hooks/other")
    answer = put(daemon, [], answer.headers["etag"])
    assert fired(daemon, receiver) == {}
    lines = text(daemon).splitlines()
    assert [line for line in before.splitlines() if line in lines or not line] == lines
    # The watcher sees nothing that was not taken up.
    assert daemon.reload()["changed"] is False
    daemon.logged(
        r"webhooks of shop/get written to apis/shop/endpoints/get\.yaml by .*generation 5"
    )


def test_over_tcp(daemon: Daemon, receiver: Receiver) -> None:
    before = text(daemon)
    read = over_tcp(daemon, "GET", PATH, headers=READER).json()
    match = {"If-Match": read["etag"]}
    body = {"webhooks": [{**read["webhooks"][0], "enabled": False}]}
    assert over_tcp(daemon, "PUT", PATH, json=body, headers=match).status_code == 401
    answer = over_tcp(daemon, "PUT", PATH, json=body, headers={**READER, **match})
    assert (answer.status_code, answer.json()["code"]) == (403, "read_only")
    own = {"Origin": f"http://127.0.0.1:{port_of(daemon)}"}
    cookie = over_tcp(daemon, "POST", "/login", data={"token": SECRETS["TOKEN"]}, headers=own)
    session = {"Cookie": cookie.headers["set-cookie"].partition(";")[0], **match}
    for foreign in ({}, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = over_tcp(daemon, "PUT", PATH, json=body, headers={**session, **foreign})
        assert (answer.status_code, answer.json()["code"]) == (403, "cross_site")
    assert text(daemon) == before
    answer = over_tcp(daemon, "PUT", PATH, json=body, headers={**session, **own})
    assert answer.status_code == 200, answer.text
    assert text(daemon) == before.replace("# theirs\n", "# theirs\n    enabled: false\n")
    daemon.logged(r"written to .* by a session of token, 127\.0\.0\.1")
    body["webhooks"][0]["enabled"] = True
    again = {**BEARER, "If-Match": answer.headers["etag"]}
    assert over_tcp(daemon, "PUT", PATH, json=body, headers=again).status_code == 200
    assert set(fired(daemon, receiver)) == {"/hooks/ops"}


def test_what_is_refused(daemon: Daemon, receiver: Receiver) -> None:
    before = text(daemon)
    read = daemon.get(PATH).json()
    (ops,), etag = read["webhooks"], read["etag"]

    def refused(status: int, code: str, webhooks: Any, etag: str | None = etag) -> dict[str, Any]:
        answer = put(daemon, webhooks, etag)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        assert text(daemon) == before
        assert KEY not in answer.text
        found: dict[str, Any] = answer.json()
        return found

    refused(428, "if_match_required", [ops], None)
    refused(412, "outdated", [], '"another"')
    refused(422, "invalid_params", {"name": "x"})
    found = refused(422, "bad_config", [ops, {"name": "x", "phase": "on_sucess", "url": "ftp://x"}])
    assert [(e["file"], e["line"], e["key"]) for e in found["errors"]] == [
        (FILE, 11, "webhooks.1.phase"), (FILE, 12, "webhooks.1.url")
    ]  # fmt: skip

    # The secret of one address is not sent to another one.
    evil = "https://evil.example/"
    mine = {"name": "x", "phase": "on_success", "url": evil}
    for stolen in (
        {**ops, "url": evil},
        {**ops, "url": f"{receiver.url}@evil.example/"},
        {**ops, "headers": {"Host": "evil.example"}},
        {**ops, "secret": "${file:/etc/passwd}"},
        {**mine, "secret": ops["secret"]},
        {**mine, "url": evil + "?k=${secret:TOKEN}"},
    ):
        found = refused(422, "bad_config", [ops, stolen] if stolen["name"] == "x" else [stolen])
        assert "write it into the file manually" in found["errors"][0]["message"]

    # Other files, and links to them.
    path = daemon.config / FILE
    for other in ("shop/..%2f..%2forchestratord", "..%2fshop/get", "shop/get.yaml", "shop/%2e%2e"):
        url = f"/v1/endpoints/{other}/webhooks"
        answer = daemon.request("PUT", url, json={"webhooks": []}, headers={"If-Match": "*"})
        assert answer.status_code == 404, other
    outside = daemon.home / "outside.yaml"
    path.rename(outside)
    path.symlink_to(outside)
    found = daemon.get(PATH).json()
    assert (found["writable"], "leads out of the config folder" in found["reason"]) == (False, True)
    refused(403, "not_writable", [], found["etag"])
    path.unlink()
    outside.rename(path)

    # Changed by hand meanwhile.
    hand = before.replace("# Patience.", "# A lot of patience.")
    daemon.write(FILE, hand)
    before = hand
    refused(412, "outdated", [])
    assert put(daemon, [], daemon.get(PATH).headers["etag"]).status_code == 200
    assert "# A lot of patience." in text(daemon)
    assert daemon.status()["config"]["error"] is None


def test_many_write_at_once_and_nothing_is_lost(daemon: Daemon, receiver: Receiver) -> None:
    before = text(daemon)

    def add(number: int) -> int:
        new = {"name": f"w{number}", "phase": "on_success", "url": f"{receiver.url}/hooks/{number}"}
        refusals = 0
        while True:
            read = daemon.get(PATH).json()
            answer = put(daemon, [*read["webhooks"], new], read["etag"])
            if answer.status_code == 200:
                return refusals
            assert answer.status_code == 412, answer.text
            refusals += 1

    with ThreadPoolExecutor(6) as pool:
        refusals = sum(pool.map(add, range(6)))
    assert refusals > 0
    heard = until(lambda: fired(daemon, receiver), "deliveries")
    assert set(heard) == {"/hooks/ops", *(f"/hooks/{number}" for number in range(6))}
    head, gap, tail = before.partition("\n\n# Patience")
    assert text(daemon).startswith(head)
    assert text(daemon).endswith(gap + tail)
    assert daemon.status()["config"]["generation"] == 7


def test_a_disk_that_runs_full(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    """The files of the APIs on a real disk of 256 KiB, in a mount namespace that ends with it."""
    unshare = shutil.which("unshare")
    if unshare is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    alone = [unshare, "--mount", "--propagation", "private", "sh", "-c"]
    daemon = make_daemon(environ={"KEY": KEY})
    daemon.api("shop", receiver.url)
    daemon.write(FILE, YAML.format(url=receiver.url))
    disk = daemon.config / "apis"
    mounted = f"cp -r '{disk}' '{disk}.all' && mount -t tmpfs -o size=256k tmpfs '{disk}'"
    if subprocess.run([*alone, f"{mounted} && rm -r '{disk}.all'"], capture_output=True).returncode:
        pytest.skip("this machine mounts nothing")
    daemon.wrapper = [
        *alone, f"{mounted} && cp -r '{disk}.all/.' '{disk}' && rm -r '{disk}.all' && exec \"$@\"",
        "sh",
    ]  # fmt: skip
    with daemon.start():
        inside = Path(f"/proc/{daemon.pid}/root")  # as the daemon sees it
        path = inside / str(daemon.config / FILE)[1:]
        ballast = inside / str(disk)[1:] / "ballast"
        read = daemon.get(PATH).json()
        with pytest.raises(OSError, match="No space left"):
            ballast.write_bytes(b"x" * (1 << 20))
        before = path.read_bytes()
        new = {"name": "new", "phase": "on_success", "url": f"{receiver.url}/hooks/new"}
        answer = put(daemon, [*read["webhooks"], new], read["etag"])
        assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
        assert path.read_bytes() == before
        assert [one.name for one in path.parent.iterdir()] == ["get.yaml"]
        assert daemon.get(PATH).json()["etag"] == read["etag"]
        # With room again the same is written.
        ballast.unlink()
        answer = put(daemon, [*read["webhooks"], new], read["etag"])
        assert answer.json()["written"], answer.text
        assert b"  - name: new\n" in path.read_bytes()


def test_what_a_draft_would_do(daemon: Daemon, receiver: Receiver) -> None:
    path = "/v1/endpoints/shop/get/explain"
    before = text(daemon)
    (ops,) = daemon.get(PATH).json()["webhooks"]
    chat = {"name": "chat", "phase": "on_retry", "url": f"{receiver.url}/hooks/chat"}

    def firing(**asked: Any) -> list[str]:
        answer = daemon.post(path, asked)
        assert answer.status_code == 200, answer.text
        assert KEY not in answer.text
        return [one["name"] for one in answer.json()["consequences"] if one["happens"]]

    draft = {"webhooks": [ops, chat]}
    assert firing(status_code=200) == firing(status_code=200, draft=draft) == ["ops"]
    assert firing(status_code=503) == []
    assert firing(status_code=503, draft=draft) == ["chat"]
    assert firing(phase="on_retry", status_code=200, draft=draft) == ["chat"]
    stolen = {**chat, "secret": ops["secret"], "url": "https://evil.example"}
    refused = daemon.post(path, {"draft": {"webhooks": [stolen]}})
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_config")
    assert daemon.post(path, {"draft": {"path": "/x"}}).status_code == 404
    assert over_tcp(daemon, "GET", f"{path}?status_code=200", headers=READER).status_code == 200
    assert text(daemon) == before
    assert daemon.status()["config"]["generation"] == 1


def test_an_edit_while_the_daemon_ends_changes_no_file(daemon: Daemon, receiver: Receiver) -> None:
    read, before = daemon.get(PATH).json(), text(daemon)
    receiver.hold("/ok")
    daemon.call("shop/get")
    until(lambda: receiver.count("/ok") == 1, "a call under way")
    daemon.process.send_signal(signal.SIGTERM)
    until(lambda: "draining" in daemon.log(), "the end's begin")
    answer = put(daemon, [], read["etag"])
    assert (answer.status_code, answer.json()["code"]) == (503, "stopping")
    assert text(daemon) == before
    receiver.let_go("/ok")
    daemon.process.wait(60)


def test_without_the_editor_nothing_is_edited(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    plugins = {"disabled": ["editor"]}
    daemon = make_daemon(environ={**SECRETS, "KEY": KEY}, http=HTTP, plugins=plugins)
    daemon.api("shop", receiver.url)
    daemon.write(FILE, YAML.format(url=receiver.url))
    daemon.start()
    explain = {"status_code": 200, "draft": {"webhooks": []}}
    for answer in (
        daemon.get(PATH),
        put(daemon, [], "*"),
        put(daemon, [], "*", dry_run="true"),
        daemon.post("/v1/endpoints/shop/get/explain", json=explain),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        assert "the plugin editor is disabled; take it out of plugins.disabled" in answer.text
    assert text(daemon) == YAML.format(url=receiver.url)
    assert daemon.get("/endpoints/shop/get/webhooks").status_code == 404
    assert "/endpoints/shop/get/webhooks" not in daemon.get("/endpoints/shop/get").text


def test_the_form_loads_its_own_files_and_the_dashboards(daemon: Daemon) -> None:
    assert '<a href="/endpoints/shop/get/webhooks">' in daemon.get("/endpoints/shop/get").text
    page = daemon.get("/endpoints/shop/get/webhooks").text
    assert "<title>Webhooks of shop/get – orchestratord</title>" in page
    assert "Operations are told" not in page
    assert "${secret:KEY}" in page
    assert 'data-live="config.*,webhook.*"' in page
    (script,) = re.findall(r'<script src="(/assets/webhook-editor[^"]+)"', page)
    imported = re.findall(r'from "\./([^"]+)"', daemon.get(script).text)
    assert {name.split(".")[0] for name in imported} == {
        "dashboard",
        "webhook-form",
        "webhook-merge",
    }
    styles = re.findall(r'<link rel="stylesheet" href="([^"]+)"', page)
    assert any("webhooks" in style for style in styles)
    for address in (*styles, *(f"/assets/{name}" for name in imported)):
        assert daemon.get(address).status_code == 200


BROKEN = """\
from orchestratord import Editor, hookimpl

def broken(file, key, *about, **how):
    if about:
        return "done"
    raise SystemExit(f"no idea of {file.name}")

@hookimpl
def register_editor():
    return [Editor(broken, broken)]
"""


def test_an_editor_that_raises_is_named(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    plugins = {"disabled": ["editor"], "dirs": ["plugins"]}
    daemon = make_daemon(plugins=plugins)
    daemon.api("shop", receiver.url)
    daemon.write(FILE, "path: /ok\n")
    daemon.plugin("other_editor", BROKEN)
    daemon.expected += ["other_editor"]
    daemon.start()
    answer = daemon.get(PATH)
    assert answer.status_code == 500
    daemon.logged(f"no idea of {FILE}")
    rows = {row["name"]: row for row in daemon.get("/v1/plugins").json()["plugins"]}
    assert "no idea of" in rows["other_editor"]["last_fault"]
    assert put(daemon, [], "*").status_code == 500
    daemon.logged("other_editor: register_editor returned str, which is no Edit")
