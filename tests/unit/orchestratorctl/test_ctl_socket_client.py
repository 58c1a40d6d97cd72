from __future__ import annotations

import grp
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from scripted_daemon import DROP, Daemon, Result, a_problem

from orchestratorctl import socket_client
from orchestratorctl.exit_codes import (
    CommandError,
    Lost,
    NoDaemon,
    RequestRefused,
    TimedOut,
    combine,
)
from orchestratorctl.main import main
from orchestratorctl.socket_client import (
    SocketClient,
    endpoint_path,
    find_socket,
    usual_places,
)
from orchestratord.config.validate.socket_path import LONGEST_PATH, socket_path


@pytest.fixture
def client(daemon: Daemon) -> SocketClient:
    return SocketClient(str(daemon.path))


def test_a_request_is_plain_http_with_json(daemon: Daemon, client: SocketClient) -> None:
    daemon.on("POST", "/v1/x", (202, {"id": 1}))
    assert client.request("POST", "/v1/x", {"a": "ü"}, {"X-Y": "z"}) == (202, {"id": 1})
    (request,) = daemon.requests
    assert request.body == {"a": "ü"}
    assert request.headers["host"] == "localhost"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-y"] == "z"


def test_a_post_without_a_body_says_so(daemon: Daemon, client: SocketClient) -> None:
    daemon.on("POST", "/v1/x", (200, b""))
    assert client.post("/v1/x") == {}
    assert daemon.requests[0].headers["content-length"] == "0"
    assert "content-type" not in daemon.requests[0].headers


def test_a_query_leaves_out_what_is_none(daemon: Daemon, client: SocketClient) -> None:
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
    assert "no orchestratord answers at" in result.err


def test_a_connection_lost_after_the_request_is_no_missing_daemon(
    daemon: Daemon, ctl: Callable[..., Result]
) -> None:
    daemon.on("GET", "/v1/status", DROP)
    result = ctl("status")
    assert result.code == 1
    assert "closed the connection before it answered" in result.err
    assert "may have carried out" not in result.err
    daemon.on("POST", "/v1/endpoints/a/b/calls", DROP)
    result = ctl("call", "a/b")
    assert result.code == 1
    assert "It may have carried out the request." in result.err
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
            SocketClient(str(folder / "s")).get("/v1/status")
        thread.join()


def test_a_daemon_that_is_silent_times_out(folder: Path) -> None:
    silent = pytest.raises(TimedOut, match=r"not answered within 0\.2 s")
    with _listening(folder / "s"), silent as caught:  # the kernel connects, no answer comes
        SocketClient(str(folder / "s")).request("POST", "/v1/x", timeout=0.2)
    assert caught.value.exit_code == 6
    assert "may have carried out" in caught.value.details[0]


def test_a_daemon_with_too_many_connections(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_client, "CONNECT_TIMEOUT", 0.2)
    with _listening(folder / "s", backlog=0), socket.socket(socket.AF_UNIX) as first:
        first.connect(str(folder / "s"))
        with pytest.raises(NoDaemon, match="accepts no connection"):
            SocketClient(str(folder / "s")).get("/v1/status")


def test_patience_outlives_a_restart(
    daemon: Daemon, client: SocketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_client, "AWAY_PAUSE", 0.01)
    daemon.on("GET", "/v1/x", DROP, a_problem(503, "draining"), (200, {"here": True}))
    daemon.stop()
    away = []

    def note() -> None:
        away.append(len(daemon.requests))
        if len(away) == 3:
            daemon.start()

    assert client.get_over_restarts("/v1/x", away=note) == {"here": True}
    assert away == [0, 0, 0, 1, 2]


def test_waiting_ends(
    daemon: Daemon, client: SocketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_client, "AWAY_PAUSE", 0.01)
    monkeypatch.setattr(socket_client, "AWAY_TIMEOUT", 0.1)
    daemon.on("GET", "/v1/x", a_problem(404, "gone"))
    with pytest.raises(RequestRefused, match="gone"):
        client.get_over_restarts("/v1/x")
    daemon.stop()
    with pytest.raises(NoDaemon):
        client.get_over_restarts("/v1/x")
    monkeypatch.setattr(socket_client, "AWAY_TIMEOUT", 60)
    with pytest.raises(TimedOut, match="no daemon"):
        client.get_over_restarts("/v1/x", deadline=time.monotonic() + 0.1)


def test_one_exit_code_for_many() -> None:
    assert combine([]) == combine([0, 0]) == 0
    assert combine([0, 4, 4]) == 4
    assert combine([4, 5]) == 1
    assert CommandError("x").exit_code == 1


def _listening(path: Path, backlog: int = 5) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(backlog)
    return listener


# -- where the socket is ---------------------------------------------------------------------------


def give_to_a_group(path: Path) -> str:
    """The name of the file's group, which is another than root's from now on."""
    if path.stat().st_gid == 0:
        os.chown(path, -1, next(group.gr_gid for group in grp.getgrall() if group.gr_gid))
    return grp.getgrgid(path.stat().st_gid).gr_name


@pytest.fixture
def places(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The two usual places, in a folder of the test."""
    system = folder / "run" / "control.sock"
    own = folder / "user" / "orchestratord" / "control.sock"
    for path in (system, own):
        path.parent.mkdir(parents=True)
    monkeypatch.setattr(socket_client, "SYSTEM_SOCKET", str(system))
    monkeypatch.setattr(socket_client, "SESSIONS", str(folder / "sessions"))
    monkeypatch.setenv("HOME", str(folder / "home"))
    return system, own


def test_the_first_that_is_given_then_the_first_that_exists(places: tuple[Path, Path]) -> None:
    system, own = places
    environment = {"XDG_RUNTIME_DIR": str(own.parent.parent)}
    named = {**environment, "ORCHESTRATORD_SOCKET": "/b"}
    system.touch()
    own.touch()
    assert find_socket("/a", named) == "/a"
    assert find_socket(None, named) == "/b"
    assert find_socket(None, {**environment, "ORCHESTRATORD_SOCKET": ""}) == str(system)
    system.unlink()
    assert find_socket(None, environment) == str(own)


def test_a_socket_that_was_left_behind_hides_no_daemon(
    places: tuple[Path, Path], daemon: Daemon
) -> None:
    system, own = places
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(system))
    environment = {"XDG_RUNTIME_DIR": str(own.parent.parent)}
    assert find_socket(None, environment) == str(system)
    own.symlink_to(daemon.path)
    assert find_socket(None, environment) == str(own)


@pytest.mark.parametrize(
    "environment",
    [
        {"RUNTIME_DIRECTORY": "/run/one:/run/two", "XDG_RUNTIME_DIR": "/run/user/7"},
        {"XDG_RUNTIME_DIR": "/run/user/7", "HOME": "/home/ann"},
        {"HOME": "/home/ann"},
        {},
    ],
)
@pytest.mark.parametrize("user", [0, 1000])
def test_wherever_a_daemon_listens_by_default_it_is_looked_for(
    environment: dict[str, str], user: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    listens = socket_path(None, Path("/etc/orchestratord"), environment)
    assert str(listens) in usual_places(environment)


@pytest.mark.parametrize("user", [0, 1000])
def test_cron_finds_the_daemon_of_a_session(user: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    session = {"XDG_RUNTIME_DIR": f"/run/user/{user}", "HOME": "/home/ann"}
    listens = socket_path(None, Path("/home/ann/config"), session)
    assert str(listens) in usual_places({"HOME": "/home/ann"})


def test_nothing_there_names_all_places(
    places: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    system, own = places
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(own.parent.parent))
    assert main(["status", "--connect-timeout", "0"]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert str(system) in err
    assert str(own) in err
    assert "systemctl start orchestratord" in err
    assert "If it is starting, add --connect-timeout 30s." in err
    assert "--socket" in err


def test_a_folder_that_may_not_be_entered_is_no_empty_folder(
    places: tuple[Path, Path], daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, own = places
    look = os.stat

    def stat(path: str) -> os.stat_result:
        if path == str(system):
            raise PermissionError(13, "Permission denied")
        return look(path)

    monkeypatch.setattr("orchestratorctl.socket_client.os.stat", stat)
    environment = {"XDG_RUNTIME_DIR": str(own.parent.parent)}
    assert find_socket(None, environment) == str(system)
    own.touch()  # nothing listens there
    assert find_socket(None, environment) == str(system)
    own.unlink()
    own.symlink_to(daemon.path)
    assert find_socket(None, environment) == str(own)


def test_a_daemon_that_starts_is_waited_for(folder: Path, daemon: Daemon) -> None:
    path = folder / "late.sock"
    timer = threading.Timer(0.3, path.symlink_to, [daemon.path])
    timer.start()
    daemon.on("GET", "/v1/status", (200, {}))
    assert main(["--socket", str(path), "status"]) == 0
    timer.join()


def test_a_socket_that_a_dead_daemon_left_is_waited_for(folder: Path, daemon: Daemon) -> None:
    path = folder / "stale.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))

    def replace() -> None:
        path.unlink()
        path.symlink_to(daemon.path)

    timer = threading.Timer(0.3, replace)
    timer.start()
    daemon.on("GET", "/v1/retries", (200, {"retries": [], "next": None}))
    assert main(["--connect-timeout", "5s", "--socket", str(path), "list"]) == 0
    timer.join()


@pytest.mark.parametrize("words", [["list"], ["status", "--connect-timeout", "200ms"]])
def test_what_does_not_come_is_not_waited_for_longer(folder: Path, words: list[str]) -> None:
    began = time.monotonic()
    assert main(["--socket", str(folder / "gone.sock"), *words]) == 3
    assert time.monotonic() - began < 4


def test_what_is_no_socket_is_not_waited_for(folder: Path) -> None:
    path = folder / "notes.txt"
    path.touch()
    began = time.monotonic()
    assert main(["--socket", str(path), "status"]) == 3
    assert main(["--socket", "/tmp/" + "x" * 200, "status"]) == 3
    assert time.monotonic() - began < 4


def test_named_but_missing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "gone.sock"
    assert main(["--socket", str(path), "list"]) == 3
    err = capsys.readouterr().err
    assert f"no daemon at {path}: the socket does not exist" in err


def test_a_socket_without_a_daemon(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "stale.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert main(["--socket", str(path), "list"]) == 3
    assert "no daemon listens there" in capsys.readouterr().err


def test_a_file_that_is_no_socket(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "notes.txt"
    path.touch()
    assert main(["--socket", str(path), "list"]) == 3
    assert "it is not a socket" in capsys.readouterr().err


def test_a_path_that_no_socket_can_have(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--socket", "/tmp/" + "x" * 200, "list"]) == 3
    assert f"too long: the kernel takes {LONGEST_PATH} bytes" in capsys.readouterr().err


def test_permission_denied_names_the_group_of_the_nearest_visible_folder(folder: Path) -> None:
    path = folder / "closed" / "control.sock"
    path.parent.mkdir(mode=0o750)
    path.touch()
    group = give_to_a_group(path)
    failure = socket_client._unreachable(str(path), PermissionError(13, "Permission denied"))
    assert isinstance(failure, NoDaemon)
    assert str(failure) == f"permission denied at {path}"
    assert f"The group {group} may use it" in failure.details[0]
    assert f"usermod -aG {group} $USER" in failure.details[0]


def test_nobody_is_told_to_join_the_group_of_root(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(folder / "control.sock")
    with monkeypatch.context() as patch:
        patch.setattr("os.stat", lambda path: SimpleNamespace(st_gid=0))
        failure = socket_client._unreachable(path, PermissionError(13, "Permission denied"))
    assert list(failure.details) == ["Run the command as the daemon's user or as root."]


def test_a_socket_that_one_may_not_use(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "control.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0o660)
        group = give_to_a_group(folder)
        folder.chmod(0o750)
        if os.geteuid() != 0:
            path.chmod(0)
            code = main(["--socket", str(path), "list"])
        else:
            main(["--socket", str(path) + "x", "list"])  # what is imported late is imported now
            groups = os.getgroups()
            os.setgroups([])
            os.setegid(65534)
            os.seteuid(65534)
            try:
                code = main(["--socket", str(path), "list"])
            finally:
                os.seteuid(0)
                os.setegid(0)
                os.setgroups(groups)
    assert code == 3
    err = capsys.readouterr().err
    assert f"permission denied at {path}" in err
    assert f"The group {group} may use it" in err
