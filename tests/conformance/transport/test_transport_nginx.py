"""Against nginx, which counts what reaches it in its access log, over TLS."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from orchestratord.errors import SendError
from orchestratord.http.client import HttpClient, SendOptions

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

CONFIG = """
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr crit;
events {{ worker_connections 512; }}
http {{
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  log_format counted "$connection $server_protocol $request_method $request_uri $status";
  access_log {folder}/access counted;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/cert; ssl_certificate_key {folder}/key;
    keepalive_requests 50; client_max_body_size 100k; root {folder}/files;
    gzip on; gzip_types text/plain; default_type text/plain;
    location /hook {{ return 200 "ok"; }}
    location /moved {{ return 302 /hook; }}
    location /echo {{ return 200 "$request_method $request_uri $http_x_a $content_length"; }}
  }}
}}
"""


@dataclass
class Nginx:
    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def log(self) -> list[list[str]]:
        return [line.split(" ") for line in (self.folder / "access").read_text().splitlines()]


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[Nginx]:
    folder = tmp_path_factory.mktemp("nginx")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(str(folder / "key"))
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(str(folder / "cert"), append=True)
    (folder / "files").mkdir()
    (folder / "files" / "large").write_bytes(b"0123456789" * 300_000)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    # As root it would hand over to a user who may not read the folder.
    user = "user root; " if os.geteuid() == 0 else ""
    (folder / "conf").write_text(user + CONFIG.format(folder=folder, port=port))
    assert NGINX is not None
    server = subprocess.Popen(
        [NGINX, "-e", "stderr", "-c", str(folder / "conf"), "-p", str(folder)],
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(250):
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None
            time.sleep(0.02)
        yield Nginx(port, folder)
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def to_nginx(nginx: Nginx, send: Any, trusting: ssl.SSLContext) -> Any:
    """`to_nginx(method, path, …)`; its log begins anew."""
    os.truncate(nginx.folder / "access", 0)

    async def to_nginx(method: str, path: str, *, options: Any = None, **kwargs: Any) -> Any:
        options = {"ssl_context": trusting, **(options or {})}
        return await send(method, nginx.url + path, options=options, **kwargs)

    return to_nginx


async def logged(nginx: Nginx, count: int) -> list[list[str]]:
    """The lines of the log once there are so many; nginx writes them after it has answered."""
    async with asyncio.timeout(60):
        while len(nginx.log()) < count:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    return nginx.log()


async def test_what_comes_back(nginx: Nginx, to_nginx: Any) -> None:
    response = await to_nginx("POST", "/echo/a%2Fb?c=%20d", headers={"X-A": "1"}, content=b"body")
    assert response.text == "POST /echo/a%2Fb?c=%20d 1 4"
    assert response.http_version == "HTTP/1.1"
    assert [line[1] for line in await logged(nginx, 1)] == ["HTTP/1.1"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
async def test_methods(nginx: Nginx, to_nginx: Any, method: str) -> None:
    for _ in range(3):
        response = await to_nginx(method, "/hook")
        assert response.status_code == 200
        assert response.content == (b"" if method == "HEAD" else b"ok")
    lines = await logged(nginx, 3)
    assert [line[2] for line in lines] == [method] * 3
    assert len({line[0] for line in lines}) == 1


async def test_every_request_arrives_once(nginx: Nginx, to_nginx: Any) -> None:
    """More than a connection carries: nginx closes after fifty."""
    waiting = list(range(400))
    outcomes: dict[int, Any] = {}

    async def work() -> None:
        while waiting:
            number = waiting.pop()
            try:
                outcomes[number] = await to_nginx("POST", f"/hook?{number}", content=b"x" * 1024)
            except SendError as error:
                outcomes[number] = error
                if not error.sent:
                    waiting.append(number)  # it was not processed, so it is ours to send again

    await asyncio.gather(*(work() for _ in range(30)))
    assert all(isinstance(outcome, httpx.Response) for outcome in outcomes.values()), [
        str(outcome) for outcome in outcomes.values() if isinstance(outcome, SendError)
    ]
    lines = await logged(nginx, 400)
    arrived = Counter(line[3] for line in lines)
    assert arrived == Counter(f"/hook?{number}" for number in range(400))
    connections = Counter(line[0] for line in lines)
    assert max(connections.values()) <= 50


async def test_a_body_that_nginx_does_not_want(nginx: Nginx, to_nginx: Any) -> None:
    response = await to_nginx("POST", "/hook", content=bytes(1_000_000))
    assert response.status_code == 413
    assert (await to_nginx("POST", "/hook", content=bytes(99_000))).content == b"ok"
    assert [line[4] for line in await logged(nginx, 2)] == ["413", "200"]


async def test_large_answers(nginx: Nginx, to_nginx: Any) -> None:
    whole = b"0123456789" * 300_000
    response = await to_nginx("GET", "/large", options={"max_response": 3_000_000})
    assert response.content == whole
    packed = await to_nginx(
        "GET", "/large", headers={"Accept-Encoding": "gzip"}, options={"max_response": 3_000_000}
    )
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == whole
    cut = await to_nginx("GET", "/large")
    assert (cut.content, cut.extensions["truncated"]) == (whole[:1_048_576], True)
    assert (await to_nginx("GET", "/hook")).content == b"ok"
    assert len(await logged(nginx, 4)) == 4


async def test_a_redirect(nginx: Nginx, to_nginx: Any) -> None:
    assert (await to_nginx("GET", "/moved")).status_code == 302
    response = await to_nginx("GET", "/moved", options={"follow_redirects": True})
    assert (response.content, response.url.path) == (b"ok", "/hook")
    assert [line[3] for line in await logged(nginx, 3)] == ["/moved", "/moved", "/hook"]


async def test_over_uvloop_too(nginx: Nginx, authority: trustme.CA, loopback: Any) -> None:
    uvloop = pytest.importorskip("uvloop")
    context = ssl.create_default_context()
    authority.configure_trust(context)

    async def main() -> list[httpx.Response]:
        client = HttpClient()
        options = SendOptions(timeout=10, egress=loopback, ssl_context=context)
        request = httpx.Request("POST", f"{nginx.url}/hook", content=bytes(90_000))
        responses = await asyncio.gather(
            *(client.send(request, options=options) for _ in range(20))
        )
        await client.aclose()
        return list(responses)

    def run() -> list[httpx.Response]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main())

    responses = await asyncio.to_thread(run)
    assert {(response.content, response.http_version) for response in responses} == {
        (b"ok", "HTTP/1.1")
    }
