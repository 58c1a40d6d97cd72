"""APIs behind a private authority, a client's certificate and a proxy: nginx and tinyproxy."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until

NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr crit;
events {{ worker_connections 512; }}
http {{
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  log_format shown "$ssl_client_serial $ssl_client_verify $status";
  access_log {folder}/access shown;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/cert; ssl_certificate_key {folder}/key;
    ssl_client_certificate {folder}/ca; ssl_verify_client on; ssl_session_cache off;
    location / {{ return 200 "ok"; }}
  }}
}}
"""
TINYPROXY = """
Listen 127.0.0.1
Port {port}
LogFile "{folder}/log"
LogLevel Connect
BasicAuth daemon proxy-password-1
"""


def find(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is not installed, and CI is to test with it")
        pytest.skip(f"{name} is not installed")
    return path


@contextmanager
def serving(command: list[str], port: int) -> Iterator[None]:
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(250):
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None
            time.sleep(0.02)
        yield
    finally:
        server.terminate()
        server.wait(10)


def free_port() -> int:
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass
class Private:
    """An nginx that shows a private authority's certificate and wants one of it, too."""

    ca: trustme.CA
    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def log(self) -> list[list[str]]:
        return [line.split(" ") for line in (self.folder / "access").read_text().splitlines()]


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Private]:
    nginx, ca, port = find("nginx"), trustme.CA(), free_port()
    folder = tmp_path_factory.mktemp("nginx")
    certificate = ca.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(str(folder / "key"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert"))
    ca.cert_pem.write_to_path(str(folder / "ca"))
    # As root it would hand over to a user who may not read the folder.
    user = "user root; " if os.geteuid() == 0 else ""
    (folder / "conf").write_text(user + NGINX.format(folder=folder, port=port))
    with serving([nginx, "-e", "stderr", "-c", f"{folder}/conf", "-p", str(folder)], port):
        yield Private(ca, port, folder)


def write(folder: Path, ca: trustme.CA, client: trustme.CA | None = None) -> None:
    """Write ca, cert and key, each by a rename, as whoever rotates them should."""
    folder.mkdir(exist_ok=True)
    certificate = (client or ca).issue_cert("daemon.example")
    for name, content in (
        ("ca.pem", ca.cert_pem.bytes()),
        ("key.pem", certificate.private_key_pem.bytes()),
        ("cert.pem", certificate.cert_chain_pems[0].bytes()),
    ):
        (folder / f".{name}").write_bytes(content)
        (folder / f".{name}").rename(folder / name)


def declare(daemon: Daemon, private: Private, **keys: Any) -> Path:
    folder = daemon.config / "tls"
    write(folder, private.ca)
    names = {"ca": "tls/ca.pem", "cert": "tls/cert.pem", "key": "tls/key.pem"}
    daemon.api("private", private.url, **{"tls": names, **keys})
    daemon.endpoint("private/get", "/")
    return folder


@pytest.fixture
def daemon(make_daemon: MakeDaemon, private: Private, receiver: Receiver) -> Daemon:
    allow = [private.address, receiver.address, "127.0.0.1"]
    return make_daemon(egress={"allow": allow}, defaults={"retry": retry()})


def test_a_private_authority_and_a_certificate_that_is_rotated(
    daemon: Daemon, private: Private
) -> None:
    folder = declare(daemon, private)
    daemon.start()
    assert daemon.finish(daemon.call("private/get"))["status"] == "succeeded"
    first = until(private.log, "a line of the log")[-1]
    assert first[1:] == ["SUCCESS", "200"]

    # Calls go on while the files are replaced, one after the other.
    write(folder, private.ca)
    ids: list[int] = []

    def shown() -> bool:
        ids.extend(daemon.batch("private/get", [{}] * 5))
        return private.log()[-1][0] != first[0]

    until(shown, "another certificate")
    daemon.settle()
    assert {daemon.task(task_id)["attempts"] for task_id in ids} == {1}
    assert {line[2] for line in private.log()} == {"200"}

    # A new one that is broken is not taken; the old one goes on, and it is said.
    daemon.expect("configuration is refused", "tls.key")
    (folder / "key.pem").write_bytes(trustme.CA().issue_cert("x").private_key_pem.bytes())
    error = until(lambda: daemon.status()["config"]["error"], "a refusal")
    assert error["errors"][0]["message"] == "does not fit the certificate"
    assert error["errors"][0]["key"] == "tls.key"
    assert daemon.finish(daemon.call("private/get"))["status"] == "succeeded"
    write(folder, private.ca)
    until(lambda: daemon.status()["config"]["error"] is None, "the mended files")


def test_a_wrong_certificate_is_final_and_clear(daemon: Daemon, private: Private) -> None:
    folder = declare(daemon, private)
    other = trustme.CA()
    write(folder, other, private.ca)
    daemon.api("public", private.url)
    daemon.endpoint("public/get", "/")
    without = {"tls": {"ca": str(private.folder / "ca")}}
    daemon.api("nameless", private.url, **without)
    daemon.endpoint("nameless/get", "/")
    (daemon.config / "theirs").mkdir()
    write(daemon.config / "theirs", private.ca, other)
    names = {"ca": "theirs/ca.pem", "cert": "theirs/cert.pem", "key": "theirs/key.pem"}
    daemon.api("theirs", private.url, tls=names)
    daemon.endpoint("theirs/get", "/")
    before = len(private.log())
    daemon.start()
    ended = {}
    for api in ("private", "public", "nameless", "theirs"):
        task = daemon.finish(daemon.call(f"{api}/get"))
        assert (task["status"], task["reason"], task["attempts"]) == ("failed", "not_retryable", 1)
        ended[api] = (task["last_status_code"], task["last_error"])
    assert ended["private"][0] == "error"
    assert ended["private"][1].startswith(
        "the certificate of 127.0.0.1 is not signed by tls.ca (tls/ca.pem) ("
    )
    assert ended["public"][1].endswith("; a private authority is named in tls.ca")
    # nginx says by its status what it thinks of ours.
    assert [ended[api][0] for api in ("nameless", "theirs")] == [400, 400]
    until(lambda: len(private.log()) == before + 2, "two lines of the log, and no more")


def test_through_a_proxy(
    daemon: Daemon, private: Private, receiver: Receiver, tmp_path: Path
) -> None:
    tinyproxy, port = find("tinyproxy"), free_port()
    (tmp_path / "conf").write_text(TINYPROXY.format(port=port, folder=tmp_path))
    daemon.environ["PROXY_PASSWORD"] = "proxy-password-1"
    proxy = f"http://daemon:${{secret:PROXY_PASSWORD}}@127.0.0.1:{port}"
    declare(daemon, private, proxy=proxy)
    oauth2 = {"token_url": f"{receiver.url}/token", "client_id": "daemon",
              "client_secret": "${secret:PROXY_PASSWORD}"}  # fmt: skip
    daemon.api("plain", receiver.url, proxy=proxy, auth={"oauth2": oauth2})
    daemon.endpoint("plain/get", "/a?b=c")
    hook = {"name": "ops", "phase": "on_success", "url": f"{receiver.url}/hook"}
    daemon.endpoint("plain/hooked", "/a", webhooks=[hook])
    receiver.on("/a", 200)
    receiver.on("/token", Answer(200, '{"access_token": "a-token-0001"}'))
    receiver.on("/hook", 204)
    with serving([tinyproxy, "-d", "-c", f"{tmp_path}/conf"], port):
        daemon.start()
        for endpoint in ("private/get", "plain/get", "plain/hooked"):
            task = daemon.finish(daemon.call(endpoint))
            assert (task["status"], task["attempts"]) == ("succeeded", 1), task
        until(lambda: receiver.count("/hook"), "the webhook")
        log = (tmp_path / "log").read_text()
    assert re.search(rf"Request.*: CONNECT 127\.0\.0\.1:{private.port} HTTP/1\.1", log)
    assert re.search(rf"Request.*: GET http://127\.0\.0\.1:{receiver.port}/a\?b=c HTTP/1\.1", log)
    assert re.search(rf"Request.*: POST http://127\.0\.0\.1:{receiver.port}/token HTTP/1\.1", log)
    assert "/hook" not in log, "a proxy is its API's, not the receivers'"
    shown = daemon.get("/v1/endpoints/plain/get").json()
    assert shown["proxy"] == f"http://daemon:***@127.0.0.1:{port}"
    stored = daemon.database.read_bytes() + daemon.log().encode()
    assert b"proxy-password-1" not in stored

    # With the proxy gone, it is the network's error, and tried again.
    task = daemon.finish(daemon.call("plain/get"), 30)
    assert (task["reason"], task["attempts"]) == ("exhausted", 15)
    assert task["last_error"] == f"no connection to 127.0.0.1:{port}: Connection refused"
