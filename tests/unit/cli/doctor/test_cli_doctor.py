"""`doctor`: every line that is not ok comes from a thing that is really wrong."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import CliRunner, Result
from orchestratord_inbound.checks import port
from orchestratord_inbound.declaration import PORT

from orchestratord import Port
from orchestratord.cli.doctor import (
    config_checks,
    daemon_checks,
    folder_checks,
    machine_checks,
    queue_checks,
)
from orchestratord.cli.doctor.installation import Finding, Findings, Installation, look_at
from orchestratord.cli.file_modes import changed_by_others
from orchestratord.cli.main import main
from orchestratord.queue.admin import inspect
from orchestratord.queue.sqlite import file_locks


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder with a short path that every user can come to, as those of pytest are not."""
    path = Path(tempfile.mkdtemp(prefix="doc-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def folder(home: Path, made_by_init: Path) -> Path:
    """A config folder that is good, with database and socket beside it."""
    folder = Path(shutil.copytree(made_by_init, home / "conf"))
    (folder / "orchestratord.yaml").write_text(
        f"database: sqlite:///{home}/state/queue.db\ncontrol_socket: {home}/run/control.sock\n"
    )
    (home / "state").mkdir()
    (home / "run").mkdir()
    return folder


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", "--config", str(folder), *arguments])


def found(check: Callable[[Installation], Findings], case: Installation) -> list[tuple[str, str]]:
    return [(finding.status, finding.what) for finding in check(case)]


def bad(check: Callable[[Installation], Findings], case: Installation) -> Finding:
    """The one finding that is not ok."""
    (finding,) = (finding for finding in check(case) if finding.status != "ok")
    assert finding.remedy
    return finding


def tree(home: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_mode) for path in home.rglob("*")}


# -- the command ---------------------------------------------------------------------------------


def test_a_folder_that_is_good(folder: Path, home: Path) -> None:
    before = tree(home)
    result = run(folder)
    assert result.exit_code == 0, result.output
    assert tree(home) == before
    lines = result.stdout.splitlines()
    assert f"ok    config      {folder} is good: 1 API, 1 endpoint" in lines
    assert f"warn  socket      no daemon runs: there is no {home}/run/control.sock" in lines
    assert lines[lines.index(next(x for x in lines if "no daemon runs" in x)) + 1].startswith(
        " " * 18 + "→ start it with"
    )
    assert not any(line.startswith("fail") for line in lines)


def test_the_socket_that_orchestratorctl_is_told_of(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATORD_SOCKET", f"{home}/elsewhere.sock")
    assert f"no daemon runs: there is no {home}/elsewhere.sock" in run(folder).stdout


def test_in_json(folder: Path) -> None:
    result = run(folder, "-o", "json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["ok"] is True
    assert {row["check"] for row in document["findings"]} == {
        "program", "config", "files", "plugins", "database", "disk", "socket", "clock",
        "open files", "inotify",
    }  # fmt: skip
    for row in document["findings"]:
        assert set(row) == {"check", "status", "what", "remedy", "help"}
        assert bool(row["remedy"]) == bool(row["help"]) == (row["status"] != "ok")


def test_it_fails_where_something_fails(folder: Path) -> None:
    (folder / "apis/example/endpoints/getPage.yaml").write_text("pth: /\n")
    result = run(folder)
    assert result.exit_code == 1
    assert (
        f"fail  config      {folder} is bad: apis/example/endpoints/getPage.yaml" in result.stdout
    )
    assert f"orchestratord check --config {folder}" in result.stdout
    assert json.loads(run(folder, "-o", "json").stdout)["ok"] is False


def test_no_folder_at_all(home: Path) -> None:
    result = run(home / "none")
    assert result.exit_code == 1
    assert "there is no config folder" in result.stdout
    assert result.stderr == ""


def test_a_check_that_cannot_be_made_does_not_keep_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(case: Installation) -> Findings:
        raise OSError("no such luck")

    monkeypatch.setattr(queue_checks, "check_disk", broken)
    result = run(folder)
    assert result.exit_code == 1
    assert "fail  disk        cannot be checked: no such luck" in result.stdout
    assert "  inotify " in result.stdout


# -- configuration, files, plugins ---------------------------------------------------------------


def test_settings_are_read_though_an_endpoint_is_bad(folder: Path, home: Path) -> None:
    (folder / "apis/example/endpoints/getPage.yaml").write_text("pth: /\n")
    case = look_at(folder)
    assert case.config is None
    assert case.socket == home / "run/control.sock"
    assert case.database == f"sqlite:///{home}/state/queue.db"


def test_what_is_not_set_here_may_be_set_where_the_daemon_runs(folder: Path) -> None:
    (folder / "apis/example/api.yaml").write_text(
        "base_url: https://example.com\nauth: {bearer: '${credential:token}'}\n"
    )
    case = look_at(folder, {})
    assert bad(config_checks.check_config, case).status == "fail"
    case.status = {"config": {"folder": str(folder), "error": None}}
    finding = bad(config_checks.check_config, case)
    assert finding.status == "warn"
    assert "this shell's environment" in finding.remedy
    case.status = {"config": {"folder": str(folder), "error": {"at": "…", "errors": []}}}
    assert bad(config_checks.check_config, case).status == "fail"


def test_warnings_are_told(folder: Path) -> None:
    (folder / "apis/example/api.yaml").write_text("base_url: http://127.0.0.1:9\n")
    finding = bad(config_checks.check_config, look_at(folder))
    assert finding.status == "warn"
    assert "127.0.0.1 is a loopback" in finding.what


def test_who_can_read_a_secret(folder: Path, home: Path) -> None:
    (home / "token").write_text("a-secret-of-a-file")
    (home / "token").chmod(0o644)
    api = folder / "apis/example/api.yaml"
    api.write_text(f"base_url: https://example.com\nauth: {{bearer: '${{file:{home}/token}}'}}\n")
    finding = bad(config_checks.check_files, look_at(folder))
    assert (finding.status, finding.what) == (
        "warn",
        f"every user can read the secret in {home}/token",
    )
    assert finding.remedy == f"chmod o-r {home}/token"
    (home / "token").chmod(0o640)
    assert found(config_checks.check_files, look_at(folder))[0][0] == "ok"

    api.write_text("base_url: https://example.com\nauth: {bearer: written-out-secret}\n")
    api.chmod(0o644)
    finding = bad(config_checks.check_files, look_at(folder))
    assert finding.what == f"every user can read the secret in {api}"
    assert "written-out" not in str(finding)
    # Nobody comes through a folder that is closed.
    folder.chmod(0o750)
    assert found(config_checks.check_files, look_at(folder))[0][0] == "ok"


def test_who_can_change_files_and_plugins(folder: Path, home: Path) -> None:
    plugins = home / "plugins"
    plugins.mkdir()
    (plugins / "mine.py").write_text("")
    (plugins / "mine.py").chmod(0o666)
    (folder / "orchestratord.yaml").write_text(f"plugins: {{dirs: [{plugins}]}}\n")
    finding = bad(config_checks.check_files, look_at(folder))
    assert (finding.status, finding.what) == ("fail", f"every user can change {plugins}/mine.py")
    (plugins / "mine.py").chmod(0o644)
    (folder / "apis").chmod(0o777)
    finding = bad(config_checks.check_files, look_at(folder))
    assert (finding.status, finding.remedy) == ("fail", f"chmod o-w {folder}/apis")


def test_no_folder_is_looked_at_twice(folder: Path) -> None:
    (folder / "p" / "deep").mkdir(parents=True)
    bad_files = [folder / "mine.py", folder / "p" / "deep" / "other.py"]
    for path in bad_files:
        path.write_text("")
        path.chmod(0o666)
    for dirs in ([], ["."], ["p", "p/deep"], ["../" + folder.name, "./p/"]):
        assert list(changed_by_others(folder, dirs)) == bad_files


def test_plugins_that_fail_are_disabled_or_do_wrong(folder: Path) -> None:
    (folder / "orchestratord.yaml").write_text("plugins: {dirs: [p], disabled: [webhooks]}\n")
    (folder / "p").mkdir()
    (folder / "p" / "broken.py").write_text("1/0\n")
    case = look_at(folder)
    case.status = {"plugins": [{"name": "mine", "faults": 3, "last_fault": "on_retry: boom"}]}
    lines = found(config_checks.check_plugins, case)
    assert ("fail", "broken cannot be loaded: ZeroDivisionError: division by zero") in lines
    assert (
        "warn", "webhooks is disabled: its keys are not read and its tasks wait"
    ) in lines  # fmt: skip
    assert (
        "warn",
        "mine has failed 3 times since the daemon started, last in on_retry: boom",
    ) in lines
    assert lines[-1][0] == "ok"
    assert lines[-1][1].startswith(f"loaded: http, backoff {version('orchestratord')}")
    assert "webhooks" not in lines[-1][1]


# -- database and disk ---------------------------------------------------------------------------


def make_database(path: Path, rows: int = 2000) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE schema (id INTEGER, version INTEGER, compatible_from)")
        connection.execute("INSERT INTO schema VALUES (1, 1, 1)")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)")
        connection.execute("CREATE INDEX t_text ON t (text)")
        connection.executemany("INSERT INTO t (text) VALUES (?)", ([str(n)] for n in range(rows)))
        connection.commit()
    path.chmod(0o640)


def test_a_database_that_is_whole(folder: Path, home: Path) -> None:
    path = home / "state/queue.db"
    make_database(path)
    before = tree(home)
    (line,) = found(queue_checks.check_database, look_at(folder))
    size = path.stat().st_size
    assert line == ("ok", f"{path}, {size / 1024:,.1f} KiB, is whole")
    assert tree(home) == before


def test_a_database_that_is_in_use(folder: Path, home: Path) -> None:
    path = home / "state/queue.db"
    make_database(path)
    with (
        closing(sqlite3.connect(path)) as connection,
        path.with_name("queue.db.lock").open("w") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO t (text) VALUES ('uncommitted')")
        case = look_at(folder)
        lines = found(queue_checks.check_database, case)
        assert lines[0][1].endswith("is whole")
        assert lines[1] == (
            "warn",
            f"the daemon with pid {os.getpid()} holds it, and does not answer at {case.socket}",
        )
        case.status = {}
        assert found(queue_checks.check_database, case)[1][0] == "ok"
        connection.rollback()
    assert file_locks.holder(path) is None


def test_a_database_that_is_damaged(folder: Path, home: Path) -> None:
    path = home / "state/queue.db"
    make_database(path)
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 8] = os.urandom(4096 * 5)
    path.write_bytes(content)
    finding = bad(queue_checks.check_database, look_at(folder))
    assert finding.status == "fail"
    assert finding.what.startswith(f"{path} is damaged: ")
    path.write_text("no database at all, though it is long enough to be one" * 100)
    assert "file is not a database" in bad(queue_checks.check_database, look_at(folder)).what


def test_a_database_too_large_to_be_seen_whole(home: Path) -> None:
    path = home / "state.db"
    make_database(path, rows=200_000)
    assert inspect.faults(path, 60) == []
    assert inspect.faults(path, 0) is None


def test_a_database_of_a_newer_version(folder: Path, home: Path) -> None:
    path = home / "state/queue.db"
    make_database(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE schema SET compatible_from = 999")
        connection.commit()
    finding = bad(queue_checks.check_database, look_at(folder))
    assert finding.status == "fail"
    assert "knows schema 999" in finding.what


def test_a_database_that_everybody_may_open(folder: Path, home: Path) -> None:
    path = home / "state/queue.db"
    make_database(path)
    path.chmod(0o644)
    finding = bad(queue_checks.check_database, look_at(folder))
    assert finding.remedy == f"chmod o= {path}"


def test_a_network_and_a_full_disk(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = look_at(folder)
    assert found(queue_checks.check_disk, case)[0][0] in ("ok", "warn")
    mounts = tmp_path / "mountinfo"
    mounts.write_text("22 1 0:42 / / rw - nfs4 10.0.0.7:/export rw\n")
    monkeypatch.setattr(queue_checks, "MOUNTS", mounts)
    assert "(nfs4)" in bad(queue_checks.check_database, case).what
    fields = os.statvfs(folder)
    for free, status in ((0.5, "ok"), (0.1, "warn"), (0.01, "fail")):
        values: list[Any] = list(fields[:10])
        values[2:8] = [1000, int(1000 * free), int(1000 * free), 1000, 900, 900]
        result = os.statvfs_result([*values, 0])
        monkeypatch.setattr(os, "statvfs", lambda path, result=result: result)
        assert [line[0] for line in found(queue_checks.check_disk, case)] == [status]


def test_the_folders_of_files(folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "orchestratord.yaml"
    assert found(folder_checks.check_folders, look_at(folder)) == []
    read, write = home / "read", home / "write"
    named = f"files: {{read: [{read}], write: [{write}, {read}], max_file: 1GiB}}\n"
    path.write_text(path.read_text() + named)
    gone = list(folder_checks.check_folders(look_at(folder)))
    assert [finding.what for finding in gone] == [
        f"there is no folder {read}",
        f"there is no folder {write}",
    ]
    assert {finding.status for finding in gone} == {"fail"}
    read.mkdir()
    write.mkdir()
    case = look_at(folder)
    lines = found(folder_checks.check_folders, case)
    assert [status for status, _ in lines] == ["ok", "ok"]
    assert lines[0][1].endswith(f" GB free at {read}, the disk of the queue")

    # The whole disk has 100 GB.
    blocks = [1 << 10, 1 << 10, 100_000_000, 0, 0, 100, 100, 100, 0, 255, 0]
    for free, what in (
        (50_000_000, None),
        (5_500_000, "the disk of the queue; files.max_file is 1GiB, and over 95% in use"),
        (500_000, "0.5 GB free at "),
    ):
        blocks[3] = blocks[4] = free
        result = os.statvfs_result(blocks)
        monkeypatch.setattr(os, "statvfs", lambda path, result=result: result)
        for finding in folder_checks.check_folders(case):
            assert (finding.status, bool(finding.remedy)) == ("warn" if what else "ok", bool(what))
            assert (what or "51.2 GB free at ") in finding.what


@pytest.mark.parametrize(("mode", "word"), [(os.R_OK, "read"), (os.W_OK, "write in")])
def test_a_folder_of_files_that_this_user_may_not_use(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch, mode: int, word: str
) -> None:
    shared = home / "shared"
    shared.mkdir()
    path = folder / "orchestratord.yaml"
    path.write_text(path.read_text() + f"files: {{read: [{shared}], write: [{shared}]}}\n")
    case = look_at(folder)
    # Root may use each.
    monkeypatch.setattr(os, "access", lambda path, asked: not asked & mode)
    finding = bad(folder_checks.check_folders, case)
    assert (finding.status, finding.what) == ("warn", f"this user cannot {word} {shared}")


# -- socket and daemon ---------------------------------------------------------------------------


def test_sockets_that_nobody_answers(folder: Path, home: Path) -> None:
    path = home / "run/control.sock"
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(path))
    finding = bad(daemon_checks.check_socket, look_at(folder))
    assert finding.status == "warn"
    assert "was left behind" in finding.what
    path.unlink()
    path.write_text("")
    finding = bad(daemon_checks.check_socket, look_at(folder))
    assert finding.status == "fail"
    assert "is not a socket" in finding.what


def test_a_socket_whose_listener_hangs_or_is_another(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestratord.cli.doctor.installation.ANSWER_TIMEOUT", 0.1)
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(home / "run/control.sock"))
        listener.listen()
        finding = bad(daemon_checks.check_socket, look_at(folder))
    assert finding.status == "fail"
    assert "does not answer" in finding.what


def test_a_socket_where_others_can_put_one(folder: Path, home: Path) -> None:
    (home / "run").chmod(0o777)
    findings = list(daemon_checks.check_socket(look_at(folder)))
    assert findings[0].remedy == f"chmod go-w {home}/run"


def test_a_socket_that_this_user_may_not_use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = look_at(folder)
    case.refusal = PermissionError(13, "Permission denied")
    monkeypatch.setattr("orchestratorctl.socket_client._group_in_charge", lambda path: "queue")
    finding = bad(daemon_checks.check_socket, case)
    assert finding.what == f"this user may not use {case.socket}"
    assert finding.remedy.startswith(
        "the group queue may use it. Join with `sudo usermod -aG queue"
    )


def test_a_socket_with_a_path_too_long(folder: Path, home: Path) -> None:
    # One that the files say is an error of `check`.
    named = {**os.environ, "ORCHESTRATORD_SOCKET": f"{home}/{'x' * 120}"}
    finding = bad(daemon_checks.check_socket, look_at(folder, named))
    assert finding.status == "fail"
    assert "of a socket at most 107" in finding.what


def test_what_the_daemon_complains_of(folder: Path) -> None:
    case = look_at(folder)
    assert list(daemon_checks.check_daemon(case)) == []
    good = {
        "version": version("orchestratord"),
        "pid": 7,
        "uptime": 61.0,
        "config": {"folder": str(folder), "generation": 3, "error": None},
        "database": {"accepting": True},
    }
    case.status = good
    (line,) = found(daemon_checks.check_daemon, case)
    assert line[0] == "ok"
    assert "generation 3" in line[1]
    config = good["config"]
    assert isinstance(config, dict)
    for change, status, words in (
        ({"version": "0.0.1"}, "warn", "it runs version 0.0.1"),
        ({"config": {**config, "folder": "/other"}}, "warn", "another folder: /other"),
        ({"config": {**config, "error": {"at": "T"}}}, "fail", "refused the files since T"),
        ({"config": {**config, "restart_required": ["plugins"]}}, "warn", "values of plugins"),
        ({"draining": True}, "warn", "it is draining"),
        ({"lanes": [{"name": "api:a", "overload": {"rate": 9.5, "since": "2026-01-01T00:00:00Z"}}]},
         "warn", "api:a is slowed to 9.5 tasks a second since 2026-01-01T00:00:00Z"),
        ({"breakers": [{"lane": "api:a", "since": "T", "why": "503", "due": 2}]}, "warn",
         "api:a is down since T: 503; 2 endpoints or webhooks wait"),
        ({"stuck_chores": [{"id": 7, "kind": "bulk", "subject": "3"}]}, "warn",
         "the chore bulk 3 was set aside: daemons have died at it"),
        ({"health": {"troubles": [{"code": "storage_full", "why": "no room", "since": "T"}]}},
         "fail", "it is not ready since T: no room"),
    ):  # fmt: skip
        case.status = {**good, **change}  # type: ignore[dict-item]
        finding = bad(daemon_checks.check_daemon, case)
        assert finding.status == status
        assert words in finding.what
    trial = {"name": "api:a", "overload": {"rate": 9.5, "since": "2999-01-01T00:00:00Z"}}
    case.status = {**good, "lanes": [trial]}  # type: ignore[dict-item]
    assert [line[0] for line in found(daemon_checks.check_daemon, case)] == ["ok"]


# -- the machine ---------------------------------------------------------------------------------


def test_a_clock_that_is_wrong(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Installation(folder, {})
    monkeypatch.setattr(machine_checks, "_synchronised", lambda: None)
    assert found(machine_checks.check_clock, case)[0][0] == "ok"
    monkeypatch.setattr(machine_checks, "_synchronised", lambda: False)
    assert bad(machine_checks.check_clock, case).status == "warn"
    monkeypatch.setattr(machine_checks, "_synchronised", lambda: True)
    monkeypatch.setattr(machine_checks.world, "time", iter((1.8e9, 1.8e9 + 60)).__next__)
    assert "moved by +59.8 s" in bad(machine_checks.check_clock, case).what
    monkeypatch.setattr(machine_checks.world, "time", lambda: 0.0)
    lines = found(machine_checks.check_clock, case)
    assert lines[0] == ("fail", "the clock says 1970-01-01T00:00:00Z")


def test_open_files(folder: Path) -> None:
    (folder / "orchestratord.yaml").write_text("concurrency: 100000\n")
    case = look_at(folder)
    case.status = {"pid": os.getpid()}
    finding = bad(machine_checks.check_files_limit, case)
    assert finding.what.startswith(f"the daemon, pid {os.getpid()}, may open ")
    assert "LimitNOFILE=100200" in finding.remedy
    (folder / "orchestratord.yaml").write_text("concurrency: 1\n")
    assert found(machine_checks.check_files_limit, look_at(folder))[0][0] == "ok"


def test_inotify(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Installation(folder, {})
    monkeypatch.setattr(machine_checks, "_INOTIFY", tmp_path)
    assert "does not report" in bad(machine_checks.check_inotify, case).what
    (tmp_path / "max_user_watches").write_text("8192\n")
    (tmp_path / "max_user_instances").write_text("128\n")
    assert found(machine_checks.check_inotify, case) == [
        ("ok", "8192 watches and 128 instances; 5 folders to watch")
    ]
    monkeypatch.setattr(machine_checks, "_instance_left", lambda: False)
    assert "max_user_instances, 128" in bad(machine_checks.check_inotify, case).what
    (tmp_path / "max_user_watches").write_text("10\n")
    assert "max_user_watches is 10" in bad(machine_checks.check_inotify, case).what


# -- certificates --------------------------------------------------------------------------------


def test_certificates_of_apis(folder: Path) -> None:
    def write(**dates: datetime) -> Installation:
        ca = trustme.CA()
        leaf = ca.issue_cert("x", **dates)
        (folder / "ca.pem").write_bytes(ca.cert_pem.bytes())
        (folder / "both.pem").write_bytes(leaf.private_key_and_cert_chain_pem.bytes())
        (folder / "both.pem").chmod(0o600)
        api = folder / "apis/example/api.yaml"
        api.write_text("base_url: https://a.example\ntls: {ca: ca.pem, cert: both.pem}\n")
        return look_at(folder)

    check = config_checks.check_certificates
    assert found(check, look_at(folder)) == []
    now, day = datetime.now(UTC), timedelta(days=1)
    ((status, what),) = found(check, write(not_after=now + 90 * day))
    assert (status, what) == (
        "ok",
        f"2 certificates of APIs; the first to end does so on {now + 90 * day:%Y-%m-%d}",
    )
    soon = bad(check, write(not_after=now + 3 * day))
    assert soon.what == f"tls.cert of example (both.pem) expires on {now + 3 * day:%Y-%m-%d}"
    case = write(not_before=now - 9 * day, not_after=now - day)
    ended = bad(check, case)
    assert (ended.status, ended.what) == (
        "fail",
        f"tls.cert of example (both.pem) expired on {now - day:%Y-%m-%d}",
    )
    (folder / "both.pem").chmod(0o644)
    secret = bad(config_checks.check_files, case)
    assert secret.what == f"every user can read the secret in {folder}/both.pem"


CHECKS = """
from orchestratord import Check, Need, hookimpl

def look(config, status):
    yield Need("one thing")
    yield Need("another thing", f"{len(config.endpoints)} are too few", "add some")
    raise SystemExit("out of order")

@hookimpl
def register_checks():
    return [Check("stock", look)]
"""


def test_register_checks_have_lines_of_their_own(folder: Path) -> None:
    (folder / "plugins").mkdir()
    (folder / "plugins" / "stock.py").write_text(CHECKS)
    with (folder / "orchestratord.yaml").open("a") as file:
        file.write("plugins: {dirs: [plugins]}\n")
    findings = json.loads(run(folder, "-o", "json").stdout)["findings"]
    found = [(one["status"], one["what"]) for one in findings if one["check"] == "stock"]
    assert found == [
        ("ok", "one thing"),
        ("fail", "another thing: 1 are too few"),
        ("fail", "cannot be checked by the plugin stock: out of order"),
    ]


def test_the_port_for_senders_is_tried() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        bind = f"127.0.0.1:{free.getsockname()[1]}"
        config: Any = {PORT: Port(bind=bind)}
        assert [need.fault for need in port(config, {})] == [""]
    (need,) = port(config, {})
    assert need.fault == "Connection refused"
    assert list(port(config, None)) == list(port({PORT: None}, {})) == []  # type: ignore[arg-type]


def test_a_plugin_of_another_version_than_what_runs(folder: Path) -> None:
    case = look_at(folder, {})
    case.status = {"plugins": [{"name": "sql", "version": "0.1", "faults": 0}]}
    said = found(config_checks.check_plugins, case)
    here = version("orchestratord")
    assert ("warn", f"the daemon runs sql 0.1, and {here} is installed") in said
