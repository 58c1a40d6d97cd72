"""Files that calls send, and answers that they save: whole, from the folders that are named, and
beside other calls."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Received, Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

LARGE = os.urandom(3 << 20)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("out", "in"):
        (tmp_path / "files" / name).mkdir(parents=True)
    return tmp_path / "files/out", tmp_path / "files/in"


@pytest.fixture
def daemon(make_daemon: MakeDaemon, receiver: Receiver, folders: tuple[Path, Path]) -> Daemon:
    read, write = folders
    daemon = make_daemon(
        files={"read": [str(read)], "write": [str(write)]}, defaults={"retry": retry()}
    )
    daemon.api("shop", receiver.url)
    path = {"path": {"required": True}}
    daemon.endpoint(
        "shop/upload", "/upload", method="PUT", params=path, body={"file": "{{ params.path }}"}
    )
    daemon.endpoint(
        "shop/form", "/form", method="POST", params=path,
        body={"multipart": {
            "kind": "scan {{ task.id }}", "tags": "{{ ['a', 'b'] }}",
            "file": {"path": "{{ params.path }}", "type": "text/x-scan", "name": 'a"{{ task.id }}'},
            "other": {"path": "{{ params.path }}"},
        }},
    )  # fmt: skip
    daemon.endpoint(
        "shop/download", "/download", params={"name": {"required": True}},
        save={"folder": str(write), "name": "{{ params.name }}"},
        then=[{"call": "shop/told", "params": {"path": "body.path", "size": "body.size"}}],
    )  # fmt: skip
    daemon.endpoint(
        "shop/told", "/told", method="POST", body={"json": {"a": "{{ params | tojson }}"}},
        params={"path": {}, "size": {"type": "integer"}},
    )  # fmt: skip
    receiver.on("/told", 200)
    return daemon


def fields_of(received: Received) -> list[Message]:
    head = f"Content-Type: {received.headers['content-type']}\r\n\r\n".encode()
    found = message_from_bytes(head + received.body).get_payload()
    assert isinstance(found, list)
    return [one for one in found if isinstance(one, Message)]


def test_a_file_is_sent_as_it_is(
    daemon: Daemon, receiver: Receiver, folders: tuple[Path, Path]
) -> None:
    (folders[0] / "sub").mkdir()
    (folders[0] / "sub/large.csv").write_bytes(LARGE)
    (folders[0] / "empty").write_bytes(b"")
    (folders[0] / "link").symlink_to("sub/large.csv")
    receiver.on("/upload", 503, 200)
    daemon.start()
    for path in (str(folders[0] / "sub/large.csv"), "sub/large.csv", "link", "empty"):
        task = daemon.finish(daemon.call("shop/upload", path=path))
        assert task["status"] == "succeeded", task["last_error"]
    bodies = [one.body for one in receiver.received("/upload")]
    assert bodies == [LARGE] * 4 + [b""], "and a retry reads it anew"
    assert receiver.received("/upload")[0].headers["content-length"] == str(len(LARGE))
    told = daemon.run("explain", "shop/upload", "-p", "path=link").out
    assert "(what is in link)" in told


def test_a_form_with_files(daemon: Daemon, receiver: Receiver, folders: tuple[Path, Path]) -> None:
    (folders[0] / "a b.txt").write_bytes(LARGE)
    receiver.on("/form", 200)
    daemon.start()
    task = daemon.finish(daemon.call("shop/form", path="a b.txt"))
    assert task["status"] == "succeeded", task["last_error"]
    (received,) = receiver.received("/form")
    fields = fields_of(received)
    named = [(f.get_param("name", header="content-disposition"), f.get_filename()) for f in fields]
    assert named == [
        ("kind", None), ("tags", None), ("tags", None), ("file", f"a%22{task['id']}"),
        ("other", "a b.txt"),
    ]  # fmt: skip
    assert fields[0].get_payload() == f"scan {task['id']}"
    assert [f.get_content_type() for f in fields[3:]] == ["text/x-scan", "text/plain"]
    assert received.body.count(LARGE) == 2


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/etc/passwd", "is in no folder of files.read"),
        ("../in/x", "is in no folder of files.read"),
        ("out", "is in no folder of files.read"),
        (".", "is in no folder of files.read"),
        ("secret", "is in no folder of files.read"),
        ("folder/passwd", "is in no folder of files.read"),
        ("pipe", "is no regular file"),
        ("sub", "is no regular file"),
        ("a\0b", "is no path"),
        ("huge", "has 1,073,741,825 bytes; files.max_file is 1,073,741,824"),
    ],
)
def test_what_is_not_sent(
    daemon: Daemon, receiver: Receiver, folders: tuple[Path, Path], path: str, said: str
) -> None:
    (folders[0] / "secret").symlink_to("/etc/passwd")
    (folders[0] / "out").symlink_to(folders[1])
    (folders[0] / "folder").symlink_to("/etc")
    (folders[0] / "sub").mkdir()
    os.mkfifo(folders[0] / "pipe")
    with (folders[0] / "huge").open("wb") as huge:
        huge.truncate((1 << 30) + 1)
    receiver.on("/upload", 200)
    daemon.start()
    task = daemon.finish(daemon.call("shop/upload", path=path))
    assert (task["status"], task["reason"], task["attempts"]) == ("failed", "rejected", 1)
    assert said in task["last_error"]
    assert receiver.count("/upload") == 0


def test_a_file_that_is_not_there_yet(
    daemon: Daemon, receiver: Receiver, folders: tuple[Path, Path]
) -> None:
    receiver.on("/upload", 200)
    daemon.start()
    task = daemon.call("shop/upload", path="late")
    until(lambda: daemon.task(task)["attempts"] >= 2, "two attempts")
    assert "No such file" in daemon.task(task)["last_error"]
    (folders[0] / "late").write_bytes(b"here")
    assert daemon.finish(task)["status"] == "succeeded"
    assert [one.body for one in receiver.received("/upload")] == [b"here"]
    assert daemon.status()["throttled"] in ({}, []), "it says nothing of the receiver"


def test_a_file_that_changes_ends_the_attempt(
    daemon: Daemon, receiver: Receiver, folders: tuple[Path, Path]
) -> None:
    growing = folders[0] / "growing"
    growing.write_bytes(LARGE * 16)  # more than what buffers on the way hold

    def grow() -> None:
        with growing.open("ab") as file:
            file.write(b"more")

    daemon.start()
    with TrickyServer(grow) as server:
        daemon.api("slow", server.url, egress={"allow": [server.address]})
        daemon.endpoint(
            "slow/upload", "/", method="PUT", params={"path": {"required": True}},
            body={"file": "{{ params.path }}"}, retry=retry("50ms"),
        )  # fmt: skip
        until(lambda: daemon.reload() and daemon.status()["config"]["generation"] > 1, "a reload")
        task = daemon.finish(daemon.call("slow/upload", path="growing"))
    assert (task["status"], task["attempts"]) == ("succeeded", 2)
    assert "growing changed while it was sent" in task["attempt_log"][0]["error"]
    assert server.bodies == [LARGE * 16 + b"more"]


def test_an_answer_is_saved(daemon: Daemon, receiver: Receiver, folders: tuple[Path, Path]) -> None:
    answer = Answer(200, LARGE, {"Content-Type": "application/xml"})
    receiver.on("/download", 503, Answer(404, b"no"), answer)
    daemon.start()
    target = folders[1] / "report.xml"
    target.write_bytes(b"an older one")
    first = daemon.finish(daemon.call("shop/download", name="report.xml"))
    assert (first["status"], first["response"]["body"]) == ("failed", "no")
    assert target.read_bytes() == b"an older one"
    task = daemon.finish(daemon.call("shop/download", name="report.xml"))
    assert task["status"] == "succeeded", task["last_error"]
    assert target.read_bytes() == LARGE
    digest = hashlib.sha256(LARGE).hexdigest()
    about = {"path": str(target), "size": len(LARGE), "sha256": digest}
    assert json.loads(task["response"]["body"]) == about
    daemon.settle()
    (told,) = receiver.received("/told")
    assert json.loads(told.json()["a"]) == {"path": str(target), "size": len(LARGE)}
    assert os.listdir(folders[1]) == ["report.xml"]
    assert receiver.received("/download")[-1].headers["accept-encoding"] == "identity"


def test_what_is_not_done_yet_is_not_saved(
    daemon: Daemon, receiver: Receiver, folders: tuple[Path, Path]
) -> None:
    daemon.endpoint(
        "shop/export", "/export", poll={"until": "status_code == `200`", "every": "1s"},
        save={"folder": str(folders[1]), "name": "export.csv"},
    )  # fmt: skip
    receiver.on("/export", Answer(202, b"busy"), Answer(202, b""), Answer(200, b"a,b"))
    target = folders[1] / "export.csv"
    target.write_bytes(b"an older one")
    daemon.start()
    call = daemon.call("shop/export")
    until(lambda: daemon.task(call)["looks"] == 2, "two looks")
    assert target.read_bytes() == b"an older one"
    assert daemon.finish(call)["status"] == "succeeded"
    assert target.read_bytes() == b"a,b"
    assert os.listdir(folders[1]) == ["export.csv"]


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".", "", "a\nb", "x" * 256, "é" * 200])
def test_what_is_no_name(
    daemon: Daemon, receiver: Receiver, folders: tuple[Path, Path], name: str
) -> None:
    receiver.on("/download", Answer(200, b"x"))
    daemon.start()
    task = daemon.finish(daemon.call("shop/download", name=name))
    assert (task["status"], task["reason"]) == ("failed", "invalid_payload")
    assert "is not the name of a file in a folder" in task["last_error"]
    assert receiver.count("/download") == 0
    assert os.listdir(folders[1]) == []


def test_what_cannot_be_saved(
    make_daemon: MakeDaemon, receiver: Receiver, folders: tuple[Path, Path]
) -> None:
    _, write = folders
    gone = write.with_name("gone")
    daemon = make_daemon(files={"write": [str(write), str(gone)], "max_file": "1MiB"})
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/large", "/large", save={"folder": str(write), "name": "large"})
    again = {"retry": retry("50ms", 3)}
    daemon.endpoint("shop/gone", "/x", save={"folder": str(gone), "name": "x"}, **again)
    daemon.endpoint("shop/taken", "/x", save={"folder": str(write), "name": "taken"}, **again)
    (write / "taken").mkdir()
    receiver.on("/large", Answer(200, LARGE))
    receiver.on("/x", Answer(200, b"x"))
    daemon.start()
    task = daemon.finish(daemon.call("shop/large"))
    assert (task["status"], task["reason"], task["attempts"]) == ("failed", "not_retryable", 1)
    assert "200, but the answer is larger than files.max_file" in task["last_error"]
    task = daemon.finish(daemon.call("shop/gone"))
    assert (task["reason"], receiver.count("/x")) == ("exhausted", 0)
    task = daemon.finish(daemon.call("shop/taken"))
    assert (task["reason"], receiver.count("/x")) == ("exhausted", 3)
    assert "200, but the answer cannot be saved: " in task["last_error"]
    assert task["last_status_code"] == 200
    assert task["response"]["truncated"]
    assert task["response"]["body"] == ""
    assert "attempt 3 200, failed (exhausted): 200, but the answer cannot be saved" in daemon.log()
    until(lambda: os.listdir(write) == ["taken"], "nothing is left")


def test_what_was_sent_counts_though_its_answer_cannot_be_saved(
    make_daemon: MakeDaemon, receiver: Receiver, folders: tuple[Path, Path]
) -> None:
    write = folders[1]
    (write / "taken").mkdir()
    receiver.on("/x", Answer(200, b"x"))
    daemon = make_daemon(files={"write": [str(write)]}, defaults={"retry": retry()})
    daemon.api("shop", receiver.url, rate_limit="2/h")
    daemon.endpoint("shop/get", "/x", save={"folder": str(write), "name": "taken"})
    daemon.endpoint("shop/post", "/x", method="POST", save={"folder": str(write), "name": "taken"})
    daemon.start()
    task = daemon.finish(daemon.call("shop/post"))
    assert (task["reason"], task["last_status_code"]) == ("ambiguous", 200)
    call = daemon.call("shop/get")
    until(lambda: "rate_limit" in str(daemon.task(call)["waits"]), "the rate")
    assert (daemon.task(call)["attempts"], receiver.count("/x")) == (1, 2)


def test_what_a_crash_left_goes_at_the_start(
    daemon: Daemon, receiver: Receiver, folders: tuple[Path, Path]
) -> None:
    release = threading.Event()
    with TrickyServer(lambda: release.wait(30) and None, answer=LARGE) as server:
        daemon.api("slow", server.url, egress={"allow": [server.address]})
        daemon.endpoint("slow/download", "/", save={"folder": str(folders[1]), "name": "whole"})
        daemon.start()
        call = daemon.call("slow/download")
        until(lambda: os.listdir(folders[1]), "the file to be begun")
        daemon.kill()
        (left,) = os.listdir(folders[1])
        assert left.startswith(".orchestratord-")
        (folders[1] / ".orchestratord-notes").write_text("mine")
        (folders[1] / left).rename(folders[1] / ".orchestratord-0123456789abcdef.part")
        release.set()
        daemon.start()
        assert daemon.finish(call)["status"] == "succeeded"
        until(
            lambda: set(os.listdir(folders[1])) == {"whole", ".orchestratord-notes"},
            "what was left to be gone",
        )
    assert (folders[1] / "whole").read_bytes() == LARGE


def test_nothing_is_touched_where_nothing_happens(
    daemon: Daemon, receiver: Receiver, folders: tuple[Path, Path]
) -> None:
    words = ("shop/download", "-p", "name=x", "--status-code", "200", "--body", "hello")
    told = daemon.run("explain", *words).out
    assert f'\\"path\\": \\"{folders[1]}/x\\", \\"size\\": 5' in told, "what follows sees it"
    told = daemon.run("explain", "shop/upload", "-p", "path=none", "--status-code", "200").out
    assert "succeeded" in told
    assert os.listdir(folders[1]) == []


def test_a_body_that_is_sent_again_elsewhere(
    daemon: Daemon, receiver: Receiver, folders: tuple[Path, Path]
) -> None:
    (folders[0] / "large").write_bytes(LARGE)
    daemon.api("shop", receiver.url, follow_redirects=True)
    receiver.on("/upload", Answer(307, b"", {"Location": "/kept"}))
    receiver.on("/form", Answer(303, b"", {"Location": "/seen"}))
    for path in ("/kept", "/seen"):
        receiver.on(path, 200)
    daemon.start()
    assert daemon.finish(daemon.call("shop/upload", path="large"))["status"] == "succeeded"
    assert daemon.finish(daemon.call("shop/form", path="large"))["status"] == "succeeded"
    (kept,), (seen,) = receiver.received("/kept"), receiver.received("/seen")
    assert (kept.method, kept.body == LARGE) == ("PUT", True)
    assert (seen.method, seen.body) == ("GET", b"")


def test_a_gibibyte_each_way_beside_other_calls(
    make_daemon: MakeDaemon, receiver: Receiver, folders: tuple[Path, Path]
) -> None:
    read, write = folders
    size = 1 << 30
    with (read / "huge").open("wb") as huge:
        huge.truncate(size)
    receiver.on("/other", 200)
    with SinkServer(size) as server:
        daemon = make_daemon(
            files={"read": [str(read)], "write": [str(write)]},
            egress={"allow": [server.address, receiver.address]},
        )
        daemon.api("huge", server.url, timeout="10m")
        daemon.api("shop", receiver.url)
        daemon.endpoint("huge/up", "/", method="PUT", body={"file": "{{ 'huge' }}"})
        daemon.endpoint("huge/down", "/", save={"folder": str(write), "name": "down"})
        daemon.endpoint("shop/other", "/other")
        daemon.start()
        alone = sorted(took(daemon) for _ in range(50))
        for name in ("huge/up", "huge/down"):
            daemon.reset_peak()
            idle, began = daemon.memory(), time.monotonic()
            call = daemon.call(name)
            beside: list[float] = []
            while daemon.task(call)["status"] == "running" or not beside:
                beside.append(took(daemon))
                time.sleep(0.02)
            seconds = time.monotonic() - began
            task = daemon.finish(call)
            assert task["status"] == "succeeded", task["last_error"]
            grown = daemon.memory("VmHWM") - idle
            beside.sort()
            print(
                f"{name}: {seconds:.1f} s, {grown / 2**20:.1f} MiB more, another call "
                f"{beside[len(beside) // 2] * 1000:.0f} ms (median; alone "
                f"{alone[25] * 1000:.0f}), at most {beside[-1] * 1000:.0f} ms, {len(beside)} calls"
            )
            assert grown < 32 << 20
            assert beside[len(beside) // 2] < 10 * alone[25]
        assert server.received == size
        assert (write / "down").stat().st_size == size


def took(daemon: Daemon) -> float:
    """Seconds that a call takes which waits for its answer."""
    began = time.monotonic()
    daemon.finish(daemon.call("shop/other"))
    return time.monotonic() - began


class SinkServer:
    """Takes what is sent, and sends so many bytes."""

    def __init__(self, size: int) -> None:
        self.size, self.received = size, 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.url = f"http://{self.address}"

    def __enter__(self) -> SinkServer:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *words: object) -> None:
        self._socket.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with connection:
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        head, _, body = head.partition(b"\r\n\r\n")
        if head.startswith(b"PUT"):
            self.received = len(body)
            while self.received < self.size:
                self.received += len(connection.recv(1 << 20))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            return
        piece = b"x" * (1 << 20)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self.size)
        for _ in range(self.size >> 20):
            connection.sendall(piece)


class TrickyServer:
    """Reads half of what is sent, or sends half of its answer, and does something then; once."""

    def __init__(self, between: Callable[[], None], answer: bytes = b"") -> None:
        outer = self
        self.bodies: list[bytes] = []
        self.waits = True

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                length = int(self.headers["Content-Length"])
                body = self.rfile.read(length // 2)
                if outer.waits:
                    outer.waits = False
                    between()
                body += self.rfile.read(length - len(body))
                if len(body) == length:
                    outer.bodies.append(body)
                    self.send_response(200)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                try:
                    self.wfile.write(answer[: len(answer) // 2])
                    if outer.waits:
                        outer.waits = False
                        between()
                    self.wfile.write(answer[len(answer) // 2 :])
                except OSError:
                    self.close_connection = True

            def log_message(self, *words: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.address}"

    def __enter__(self) -> TrickyServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *words: object) -> None:
        self._server.shutdown()
        self._server.server_close()
