from __future__ import annotations

import grp
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestratorctl import control_socket
from orchestratorctl.control_socket import find
from orchestratorctl.failures import NoDaemon
from orchestratorctl.main import main


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
    monkeypatch.setattr(control_socket, "SYSTEM_SOCKET", str(system))
    return system, own


def test_the_first_that_is_given_then_the_first_that_exists(places: tuple[Path, Path]) -> None:
    system, own = places
    environment = {"XDG_RUNTIME_DIR": str(own.parent.parent)}
    named = {**environment, "ORCHESTRATORD_SOCKET": "/b"}
    system.touch()
    own.touch()
    assert find("/a", named) == "/a"
    assert find(None, named) == "/b"
    assert find(None, {**environment, "ORCHESTRATORD_SOCKET": ""}) == str(system)
    system.unlink()
    assert find(None, environment) == str(own)


def test_nothing_there_names_all_places(
    places: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    system, own = places
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(own.parent.parent))
    assert main(["status"]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert str(system) in err
    assert str(own) in err
    assert "systemctl start orchestratord" in err
    assert "--socket" in err


def test_a_folder_that_may_not_be_entered_is_no_empty_folder(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    system, own = places
    look = os.stat

    def stat(path: str) -> os.stat_result:
        if path == str(system):
            raise PermissionError(13, "Permission denied")
        return look(path)

    monkeypatch.setattr("orchestratorctl.control_socket.os.stat", stat)
    environment = {"XDG_RUNTIME_DIR": str(own.parent.parent)}
    assert find(None, environment) == str(system)
    own.touch()
    assert find(None, environment) == str(own)


def test_named_but_missing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "gone.sock"
    assert main(["--socket", str(path), "list"]) == 3
    err = capsys.readouterr().err
    assert f"no daemon at {path}: there is no such socket" in err


def test_a_socket_without_a_daemon(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "stale.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert main(["--socket", str(path), "list"]) == 3
    assert "nobody listens there" in capsys.readouterr().err


def test_a_file_that_is_no_socket(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "notes.txt"
    path.touch()
    assert main(["--socket", str(path), "list"]) == 3
    assert "that is no socket" in capsys.readouterr().err


def test_a_path_that_no_socket_can_have(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--socket", "/tmp/" + "x" * 200, "list"]) == 3
    assert "too long" in capsys.readouterr().err


def test_permission_denied_names_the_group_of_the_nearest_visible_folder(folder: Path) -> None:
    path = folder / "closed" / "control.sock"
    path.parent.mkdir(mode=0o750)
    path.touch()
    group = give_to_a_group(path)
    failure = control_socket.unreachable(str(path), PermissionError(13, "Permission denied"))
    assert isinstance(failure, NoDaemon)
    assert str(failure) == f"permission denied at {path}"
    assert f"The group '{group}' may use it" in failure.details[0]
    assert f"usermod -aG {group} $USER" in failure.details[0]


def test_nobody_is_told_to_join_the_group_of_root(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(folder / "control.sock")
    with monkeypatch.context() as patch:
        patch.setattr("os.stat", lambda path: SimpleNamespace(st_gid=0))
        failure = control_socket.unreachable(path, PermissionError(13, "Permission denied"))
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
    assert f"The group '{group}' may use it" in err
