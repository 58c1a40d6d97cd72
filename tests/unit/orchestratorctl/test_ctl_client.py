from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from scripted_daemon import DROP, Daemon, Result, a_problem

from orchestratorctl import client as client_module
from orchestratorctl.client import Client, endpoint_path
from orchestratorctl.failures import Failure, Lost, NoDaemon, Problem, TimedOut, combine


@pytest.fixture
def client(daemon: Daemon) -> Client:
    return Client(str(daemon.path))


def test_a_request_is_plain_http_with_json(daemon: Daemon, client: Client) -> None:
    daemon.on("POST", "/v1/x", (202, {"id": 1}))
    assert client.request("POST", "/v1/x", {"a": "ü"}, {"X-Y": "z"}) == (202, {"id": 1})
    (request,) = daemon.requests
    assert request.body == {"a": "ü"}
    assert request.headers["host"] == "localhost"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-y"] == "z"


def test_a_post_without_a_body_says_so(daemon: Daemon, client: Client) -> None:
    daemon.on("POST", "/v1/x", (200, b""))
    assert client.post("/v1/x") == {}
    assert daemon.requests[0].headers["content-length"] == "0"
    assert "content-type" not in daemon.requests[0].headers


def test_a_query_leaves_out_what_is_none(daemon: Daemon, client: Client) -> None:
    daemon.on("GET", "/v1/x", (200, {}))
    client.get("/v1/x", {"a": "1&2 ü", "b": None, "c": 3})
    assert daemon.requests[0].query == {"a": "1&2 ü", "c": "3"}


def test_names_are_percent_encoded_in_paths() -> None:
    assert endpoint_path("a/b", "webhooks", "x/y z?", "test") == (
        "/v1/endpoints/a/b/webhooks/x%2Fy%20z%3F/test"
    )


@pytest.mark.parametrize(
    ("status", "members", "exit_code"),
    [
        (400, {}, 2),
        (401, {}, 1),
        (404, {}, 4),
        (409, {}, 5),
        (412, {}, 5),
        (422, {}, 2),
        (422, {"code": "bad_config"}, 78),
        (500, {}, 1),
        (503, {}, 1),
        (507, {}, 1),
    ],
)
def test_exit_codes_of_refusals(
    daemon: Daemon,
    ctl: Callable[..., Result],
    status: int,
    members: dict[str, str],
    exit_code: int,
) -> None:
    daemon.on("GET", "/v1/status", a_problem(status, "so it is", **members))
    result = ctl("status")
    assert (result.code, result.out) == (exit_code, "")
    assert result.err == "orchestratorctl: so it is\n"


def test_every_error_of_a_refusal_is_a_line(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    errors = [
        {"file": "apis/a/api.yaml", "line": 3, "column": 5, "key": "retry", "message": "no\x1b"},
        {"key": "params.id", "message": "missing"},
        "something else",
    ]
    daemon.on("GET", "/v1/status", a_problem(422, "bad", errors=errors))
    assert ctl("status").err.splitlines() == [
        "orchestratorctl: bad",
        "apis/a/api.yaml:3:5: retry: no\\u001b",
        "params.id: missing",
        "something else",
    ]


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b'"x"', b"\xff"])
def test_a_refusal_that_is_no_problem_document_says_its_status(
    daemon: Daemon, ctl: Callable[..., Result], body: bytes
) -> None:
    daemon.on("GET", "/v1/status", (502, body))
    result = ctl("status")
    assert result.code == 1
    assert result.err == "orchestratorctl: the daemon answered 502 Bad Gateway\n"


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b"null"])
def test_an_answer_from_somebody_else(
    daemon: Daemon, ctl: Callable[..., Result], body: bytes
) -> None:
    daemon.on("GET", "/v1/status", (200, body))
    result = ctl("status")
    assert result.code == 1
    assert "is no orchestratord" in result.err


def test_a_connection_lost_after_the_request_is_no_missing_daemon(
    daemon: Daemon, ctl: Callable[..., Result]
) -> None:
    daemon.on("GET", "/v1/status", DROP)
    result = ctl("status")
    assert result.code == 1
    assert "closed the connection before it had answered" in result.err
    assert "not known" not in result.err
    daemon.on("POST", "/v1/endpoints/a/b/calls", DROP)
    result = ctl("call", "a/b")
    assert result.code == 1
    assert "Whether it did what was asked is not known." in result.err
    assert len(daemon.asked("POST", "/v1/endpoints/a/b/calls")) == 1


@pytest.mark.parametrize(
    "sent", [b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", b"HTTP/1.1"]
)
def test_half_an_answer_is_none(folder: Path, sent: bytes) -> None:
    with _listening(folder / "s") as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(sent)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Lost):
            Client(str(folder / "s")).get("/v1/status")
        thread.join()


def test_a_daemon_that_is_silent_times_out(folder: Path) -> None:
    silent = pytest.raises(TimedOut, match=r"not answered within 0\.2 s")
    with _listening(folder / "s"), silent as caught:  # the kernel connects, nobody answers
        Client(str(folder / "s")).request("POST", "/v1/x", timeout=0.2)
    assert caught.value.exit_code == 6
    assert "not known" in caught.value.details[0]


def test_a_daemon_with_too_many_connections(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "CONNECT_TIMEOUT", 0.2)
    with _listening(folder / "s", backlog=0), socket.socket(socket.AF_UNIX) as first:
        first.connect(str(folder / "s"))
        with pytest.raises(NoDaemon, match="takes no connection"):
            Client(str(folder / "s")).get("/v1/status")


def test_patience_outlives_a_restart(
    daemon: Daemon, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "AWAY_PAUSE", 0.01)
    daemon.on("GET", "/v1/x", DROP, a_problem(503, "draining"), (200, {"here": True}))
    daemon.stop()
    away = []

    def note() -> None:
        away.append(len(daemon.requests))
        if len(away) == 3:
            daemon.start()

    assert client.get_patiently("/v1/x", away=note) == {"here": True}
    assert away == [0, 0, 0, 1, 2]


def test_patience_ends(daemon: Daemon, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "AWAY_PAUSE", 0.01)
    monkeypatch.setattr(client_module, "PATIENCE", 0.1)
    daemon.on("GET", "/v1/x", a_problem(404, "gone"))
    with pytest.raises(Problem, match="gone"):
        client.get_patiently("/v1/x")
    daemon.stop()
    with pytest.raises(NoDaemon):
        client.get_patiently("/v1/x")
    monkeypatch.setattr(client_module, "PATIENCE", 60)
    with pytest.raises(TimedOut, match="no daemon"):
        client.get_patiently("/v1/x", deadline=time.monotonic() + 0.1)


def test_one_exit_code_for_many() -> None:
    assert combine([]) == combine([0, 0]) == 0
    assert combine([0, 4, 4]) == 4
    assert combine([4, 5]) == 1
    assert Failure("x").exit_code == 1


def _listening(path: Path, backlog: int = 5) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(backlog)
    return listener
