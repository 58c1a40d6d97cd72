"""The command line of curl sends what it shows."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from orchestratord.simulate.report import curl

CURL = shutil.which("curl")
BODY = '@it\'s "all" $HOME `here`\n{"a": \'b\'} \\ é'


def sent_by(command: str) -> tuple[str, dict[str, str], bytes]:
    """What a real curl sends when it is told so: the first line, headers and the body."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        received: list[bytes] = []

        def answer() -> None:
            peer, _ = server.accept()
            with peer:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += peer.recv(65536)
                head, _, body = data.partition(b"\r\n\r\n")
                length = 0
                for line in head.split(b"\r\n"):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                while len(body) < length:
                    body += peer.recv(65536)
                received.append(head + b"\r\n\r\n" + body)
                peer.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        here = command.replace("PORT", str(port)).replace("curl", "curl -sS --max-time 5", 1)
        subprocess.run(["sh", "-c", here], check=True, timeout=10)
        thread.join(5)
    head, _, body = received[0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(":", 1) for line in lines)
    return first, {name.lower(): value.strip() for name, value in headers.items()}, body


@pytest.mark.skipif(CURL is None, reason="curl is not on this machine")
@pytest.mark.parametrize(
    ("method", "body"),
    [
        *((method, BODY) for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")),
        *((method, None) for method in ("GET", "HEAD", "POST", "DELETE")),
    ],
)
def test_a_real_curl_sends_the_same(method: str, body: str | None) -> None:
    headers = {"User-Agent": "orchestratord", "X-Quote": "it's $1", "X-Empty": ""}
    if body is not None:
        headers["Content-Type"] = "text/plain"
    url = "http://127.0.0.1:PORT/a%2Fb/[1]/{x}?q=1&r=it's"
    first, came, content = sent_by(curl(method, url, headers, body))
    assert first == f"{method} /a%2Fb/[1]/{{x}}?q=1&r=it's HTTP/1.1"
    for name, value in headers.items():
        assert came[name.lower()] == value
    assert content == (body or "").encode()
    assert ("content-type" in came) == (body is not None)


def test_what_curl_does_by_itself_is_left_to_it() -> None:
    headers = {"Host": "a.test", "Content-Length": "1", "Accept-Encoding": "gzip", "A": "b"}
    assert curl("GET", "https://a.test/", headers, None) == (
        "curl https://a.test/ \\\n  -H 'A: b' \\\n  --compressed"
    )


@pytest.mark.skipif(CURL is None, reason="curl is not on this machine")
def test_a_body_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "it's a body").write_bytes(b"raw\r\n@x")
    headers = {"Content-Type": "text/plain"}
    command = curl(
        "POST", "http://127.0.0.1:PORT/x", headers, None, str(tmp_path / "it's a body"),
        [("--max-redirs", "0")],
    )  # fmt: skip
    assert "--max-redirs 0" in command
    assert sent_by(command)[2] == b"raw\r\n@x"
