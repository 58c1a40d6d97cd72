"""The API over TCP, of a real daemon: raw requests, browsers' and programs' alike."""

from __future__ import annotations

import json
import re
import socket
import time
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until
from tests.described_api import check

pytestmark = pytest.mark.slow

TOKEN = "the-token-of-the-operators"
READ = "the-token-of-the-spectators"
SECRETS = {"TOKEN": TOKEN, "READ": READ, "NEXT": "the-token-of-next-month"}
HTTP = {"bind": "127.0.0.1:0", "token": "${secret:TOKEN}", "read_token": "${secret:READ}"}
BEARER = {"Authorization": f"Bearer {TOKEN}"}
READER = {"Authorization": f"Bearer {READ}"}


def port_of(daemon: Daemon) -> int:
    # The log is written in one go with what comes soon after.
    found = until(
        lambda: re.findall(r"http://127\.0\.0\.1:(\d+), database", daemon.log()), "its port"
    )
    return int(found[-1])


def over_tcp(daemon: Daemon, method: str, path: str, **options: Any) -> httpx.Response:
    base = f"http://127.0.0.1:{port_of(daemon)}"
    with httpx.Client(base_url=base, timeout=20, trust_env=False) as client:
        answer = client.request(method, path, **options)
    check(answer)
    return answer


def raw(daemon: Daemon, *lines: str, body: bytes = b"") -> tuple[int, str]:
    """Send a request as it is written; status and answer."""
    with socket.create_connection(("127.0.0.1", port_of(daemon)), timeout=20) as sock:
        sock.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
        answer = b""
        while chunk := sock.recv(1 << 16):
            answer += chunk
    text = answer.decode()
    head = text.partition("\r\n\r\n")[0].lower()
    for header in (
        "content-security-policy: default-src 'none'",
        "x-content-type-options: nosniff",
        "x-frame-options: deny",
        "referrer-policy: ",
        "cache-control: no-store",
    ):
        assert header in head, text
    assert "access-control" not in head
    return int(text.split()[1]), text


@pytest.fixture(scope="module")
def daemon(make_shared: MakeDaemon, shared_receiver: Receiver) -> Daemon:
    shared_receiver.on("/ok", 200)
    daemon = make_shared(environ=SECRETS, http=HTTP)
    daemon.api("shop", shared_receiver.url)
    daemon.endpoint("shop/ok", "/ok", method="POST")
    return daemon.start()


def test_the_same_api_for_programs(daemon: Daemon) -> None:
    answer = over_tcp(
        daemon, "POST", "/v1/endpoints/shop/ok/calls", headers=BEARER, json={"params": {}}
    )
    assert answer.status_code == 202
    task = over_tcp(daemon, "GET", f"/v1/retries/{answer.json()['id']}?wait=10", headers=READER)
    assert task.json()["status"] == "succeeded"
    daemon.logged(r"POST /v1/endpoints/shop/ok/calls: 202, by token, 127\.0\.0\.1")
    for path in ("/v1/status", "/metrics", "/v1/endpoints", "/openapi.json", "/"):
        assert over_tcp(daemon, "GET", path, headers=READER).status_code == 200, path
        assert over_tcp(daemon, "GET", path).status_code == 401, path
    assert "<title>Overview" in over_tcp(daemon, "GET", "/", headers=BEARER).text


def test_probes_need_no_token(daemon: Daemon) -> None:
    assert over_tcp(daemon, "GET", "/healthz").json() == {"status": "ok"}
    assert over_tcp(daemon, "GET", "/readyz").json() == {"status": "ready"}


def test_a_browser_logs_in_and_out(daemon: Daemon) -> None:
    base = f"http://127.0.0.1:{port_of(daemon)}"
    own = {"Origin": base, "Sec-Fetch-Site": "same-origin"}
    with httpx.Client(base_url=base, timeout=20, trust_env=False) as browser:
        page = browser.get("/v1/status?all", headers={"Accept": "text/html"})
        assert page.status_code == 401
        assert 'name="next" type="hidden" value="/v1/status?all"' in page.text
        wrong = browser.post("/login", data={"token": "guessed", "next": "/"}, headers=own)
        assert (wrong.status_code, len(browser.cookies)) == (401, 0)
        right = browser.post("/login", data={"token": TOKEN, "next": "/v1/status"}, headers=own)
        assert (right.status_code, right.headers["location"]) == (303, "/v1/status")
        assert re.fullmatch(
            r"orchestratord-\d+=[\w-]{40,}; Path=/; HttpOnly; SameSite=Strict",
            right.headers["set-cookie"],
        )
        assert browser.get("/v1/status").status_code == 200
        # The client adds the cookie to everything, as a browser does for another port's page.
        pause = "/v1/endpoints/shop/ok/pause"
        assert browser.post(pause).status_code == 403
        for foreign in ("http://evil.example", "http://127.0.0.1:9", "null"):
            assert browser.post(pause, headers={"Origin": foreign}).status_code == 403
        assert browser.post(pause, headers={"Sec-Fetch-Site": "same-site"}).status_code == 403
        assert not daemon.get("/v1/endpoints/shop/ok").json()["paused"]
        assert browser.post(pause, headers=own).status_code == 200
        assert browser.post(pause.replace("pause", "resume"), headers=own).status_code == 200
        assert browser.post("/logout", headers=own).status_code == 303
        assert browser.get("/v1/status").status_code == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "localhost:1", "127.1:{port}"]
)
def test_a_name_that_was_rebound(daemon: Daemon, host: str) -> None:
    host = host.format(port=port_of(daemon))
    for path in ("/", "/v1/status", "/healthz", "/login"):
        status, text = raw(
            daemon, f"GET {path} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {TOKEN}"
        )
        assert status == 421, text


def test_what_the_read_token_may_not(daemon: Daemon) -> None:
    for path in ("/v1/reload", "/v1/endpoints/shop/ok/calls", "/v1/retries/trigger"):
        assert over_tcp(daemon, "POST", path, headers=READER).status_code == 403
    answer = over_tcp(daemon, "PUT", "/v1/endpoints/shop/ok/webhooks", headers=READER, json={})
    assert answer.status_code == 403


def test_a_form_of_another_site_makes_no_call(daemon: Daemon) -> None:
    before = daemon.get("/v1/retries").json()["retries"]
    path = f"POST /v1/endpoints/shop/ok/calls HTTP/1.1\r\nHost: localhost:{port_of(daemon)}"
    token = f"Authorization: Bearer {TOKEN}"
    body = b'{"params": {}}'
    length = f"Content-Length: {len(body)}"
    as_json = "Content-Type: application/json"
    for lines, expected in (
        ((token, "Content-Type: text/plain"), 415),
        ((token, "Origin: http://evil.example", as_json), 403),
        ((token, "Sec-Fetch-Site: cross-site", as_json), 403),
        ((as_json,), 401),
        ((f"Cookie: orchestratord-{port_of(daemon)}={TOKEN}", as_json), 401),
    ):
        assert raw(daemon, path, *lines, length, body=body)[0] == expected, lines
    assert daemon.get("/v1/retries").json()["retries"] == before


def test_bounds(daemon: Daemon) -> None:
    host = f"Host: localhost:{port_of(daemon)}"
    status, _ = raw(daemon, "GET / HTTP/1.1", host, f"X: {'x' * 70_000}")
    assert status == 431
    body = b'{"params": {"x": "' + b"x" * (16 << 20) + b'"}}'
    answer = over_tcp(
        daemon, "POST", "/v1/endpoints/shop/ok/calls", content=body,
        headers={**BEARER, "Content-Type": "application/json"},
    )  # fmt: skip
    assert answer.status_code == 413


def test_silent_connections_do_not_touch_the_control_socket(daemon: Daemon) -> None:
    taken = [socket.create_connection(("127.0.0.1", port_of(daemon))) for _ in range(256)]
    try:
        with socket.create_connection(("127.0.0.1", port_of(daemon)), timeout=20) as late:
            late.sendall(
                f"GET /healthz HTTP/1.1\r\nHost: localhost:{port_of(daemon)}\r\n\r\n".encode()
            )
            assert late.recv(12) == b"HTTP/1.1 200"
            assert daemon.get("/healthz").status_code == 200
            # After a second the one that was silent for longest has to give way.
            time.sleep(1.1)
            socket.create_connection(("127.0.0.1", port_of(daemon))).close()
            taken[0].settimeout(5)
            assert taken[0].recv(1) == b""
    finally:
        for sock in taken:
            sock.close()


def test_the_daemon_never_calls_itself(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    daemon = make_daemon(
        environ=SECRETS,
        http={**HTTP, "bind": f"127.0.0.1:{port}"},
        egress={"allow": ["127.0.0.0/8"]},
        defaults={"retry": retry()},
    )
    daemon.api(
        "own", f"http://127.0.0.1:{port}", headers={"Authorization": "Bearer ${secret:TOKEN}"}
    )
    daemon.endpoint("own/status", "/v1/status")
    daemon.api("other", receiver.url)
    receiver.on("/ok", 200)
    daemon.endpoint("other/ok", "/ok")
    daemon.start()
    task = daemon.finish(daemon.call("own/status"))
    assert (task["status"], task["reason"]) == ("failed", "rejected")
    assert "own listener" in task["last_error"]
    assert daemon.finish(daemon.call("other/ok"))["status"] == "succeeded"


def test_reloads(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(environ=SECRETS, http=HTTP).start()
    base = f"http://127.0.0.1:{port_of(daemon)}"
    with httpx.Client(base_url=base, timeout=20, trust_env=False) as browser:
        assert browser.post("/login", data={"token": TOKEN}).status_code == 303
        assert browser.get("/v1/status").status_code == 200
        changed = {
            "bind": "127.0.0.1:1", "token": "${secret:NEXT}",
            "hosts": [f"127.0.0.1:{port_of(daemon)}", "queue.example.com"],
        }  # fmt: skip
        daemon.write("orchestratord.yaml", {**daemon.settings, "http": changed})
        answer = daemon.post("/v1/reload", {"diff": True})
        assert answer.json()["restart_required"] == ["http.bind"]
        assert not any(secret in answer.text for secret in SECRETS.values())
        assert browser.get("/v1/status").status_code == 401
    assert over_tcp(daemon, "GET", "/v1/status", headers=BEARER).status_code == 401
    bearer = {"Authorization": f"Bearer {SECRETS['NEXT']}"}
    assert over_tcp(daemon, "GET", "/v1/status", headers=bearer).status_code == 200
    there = {**bearer, "Host": "queue.example.com"}
    assert over_tcp(daemon, "GET", "/v1/status", headers=there).status_code == 200
    old = {**bearer, "Host": f"localhost:{port_of(daemon)}"}
    assert over_tcp(daemon, "GET", "/v1/status", headers=old).status_code == 421
    assert not any(secret in daemon.log() for secret in SECRETS.values())


def test_sessions_and_the_port_after_a_restart(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(environ=SECRETS, http=HTTP).start()
    port = port_of(daemon)
    answer = over_tcp(daemon, "POST", "/login", data={"token": READ})
    cookie = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
    assert over_tcp(daemon, "GET", "/v1/status", headers=cookie).status_code == 200
    daemon.write(
        "orchestratord.yaml", {**daemon.settings, "http": {**HTTP, "bind": f"127.0.0.1:{port}"}}
    )
    # Somebody who listens for events holds nothing up.
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        head = f"GET /v1/events HTTP/1.1\r\nHost: localhost:{port}\r\nAuthorization: Bearer {READ}"
        sock.sendall(f"{head}\r\n\r\n".encode())
        assert sock.recv(12) == b"HTTP/1.1 200"
        began = time.monotonic()
        daemon.restart()
        assert time.monotonic() - began < 15
    assert port_of(daemon) == port
    assert over_tcp(daemon, "GET", "/v1/status", headers=cookie).status_code == 401


PAGES = (
    "/", "/retries", "/retries/1", "/bulks/1", "/endpoints", "/endpoints/shop/ok",
    "/endpoints/shop/ok/webhooks", "/actions",
)  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_kept_as_the_api_is(daemon: Daemon, path: str) -> None:
    host = f"Host: 127.0.0.1:{port_of(daemon)}"
    browser = "Accept: text/html"
    bearer = f"Authorization: Bearer {TOKEN}"
    status, text = raw(daemon, f"GET {path} HTTP/1.1", host, browser)
    assert status == 401
    assert "orchestratord</h1>" in text  # the form, and nothing of the page
    assert 'aria-label="Pages"' not in text
    assert raw(daemon, f"GET {path} HTTP/1.1", host, f"{bearer}x")[0] == 401
    assert raw(daemon, f"GET {path} HTTP/1.1", "Host: evil.example", bearer)[0] == 421
    for line in ("Sec-Fetch-Site: cross-site", "Origin: http://evil.example"):
        assert raw(daemon, f"GET {path} HTTP/1.1", host, bearer, line)[0] == 403
    assert raw(daemon, f"POST {path} HTTP/1.1", host, bearer)[0] == 405
    status, text = raw(daemon, f"GET {path} HTTP/1.1", host, bearer)
    assert status in (200, 404)
    assert 'aria-label="Pages"' in text
    assert "script-src 'self'" in text


@pytest.mark.parametrize(
    "path",
    [
        "/assets/", "/assets/..", "/assets/../site.py", "/assets/..%2fsite.py", "/assets/%2e%2e/x",
        "/assets/%2fetc%2fpasswd", "/assets//etc/passwd", "/assets/dashboard.css%00.js",
        "/assets/dashboard.css", "/retries/..%2f..%2fetc%2fpasswd", "/retries/1%00",
        "/endpoints/..%2f..%2forchestratord/yaml", "/endpoints/shop/..%2fok", "/bulks/-1",
        "/templates/layout.html", "/retries/" + "9" * 40,
    ],
)  # fmt: skip
def test_no_path_leads_to_anything_else(daemon: Daemon, path: str) -> None:
    host = f"Host: 127.0.0.1:{port_of(daemon)}"
    status, text = raw(
        daemon, f"GET {path} HTTP/1.1", host, f"Authorization: Bearer {TOKEN}", "Accept: text/html"
    )
    assert status == 404, text
    assert "root:" not in text


def test_a_port_that_is_taken(make_daemon: MakeDaemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        bind = f"127.0.0.1:{other.getsockname()[1]}"
        daemon = make_daemon(environ=SECRETS, http={**HTTP, "bind": bind})
        daemon.expect("cannot listen")
        daemon.launch()
        assert daemon.wait() == 1
    refusal = rf"http\.bind: cannot listen at {bind}: .*in use; end the program"
    assert re.search(refusal, daemon.log())
    assert not daemon.socket.exists()


def test_doctor_says_who_can_listen_in(make_daemon: MakeDaemon) -> None:
    from click.testing import CliRunner

    from orchestratord.cli.main import main

    daemon = make_daemon(http={"bind": "0.0.0.0:8420", "token": "x" * 20, "hosts": ["queue.lan"]})
    command = ["doctor", "--config", str(daemon.config), "-o", "json"]
    found = json.loads(CliRunner().invoke(main, command).stdout)["findings"]
    (http,) = (finding for finding in found if finding["check"] == "http")
    assert http["status"] == "warn"
    assert "TLS" in http["remedy"]
    daemon.write("orchestratord.yaml", {**daemon.settings, "http": {"token": "x" * 20}})
    found = json.loads(CliRunner().invoke(main, command).stdout)["findings"]
    (http,) = (finding for finding in found if finding["check"] == "http")
    assert http["status"] == "ok"


def test_it_is_off_by_default(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon().start()
    assert "http://" not in until(
        lambda: next((line for line in daemon.log().splitlines() if "ready:" in line), ""),
        "the line of the start",
    )
