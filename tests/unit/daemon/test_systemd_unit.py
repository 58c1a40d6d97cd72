"""The unit is one that systemd takes, and leaves the daemon little that it does not need."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from orchestratord_deploy.systemd_command import systemd

from orchestratord.api.server.server import BACKLOG
from orchestratord.daemon.run import EX_CONFIG
from orchestratord.daemon.shutdown import GRACE
from orchestratord.daemon.watchdog import ENDED_AFTER, LOOP
from orchestratord.model.settings import DaemonSettings

UNIT = Path(__file__).parents[3] / "systemd" / "orchestratord.service"
SOCKET = UNIT.with_suffix(".socket")
MOST_EXPOSED = 1.5


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a command that exists here."""
    if shutil.which("systemd-analyze") is None:
        message = "systemd-analyze is not installed (Debian package systemd)"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    text = UNIT.read_text()
    command = "ExecStart=/opt/orchestratord/bin/orchestratord run"
    assert command in text
    path = tmp_path / UNIT.name
    path.write_text(text.replace(command, "ExecStart=/bin/true run"))
    shutil.copy(SOCKET, tmp_path)
    return path


def test_systemd_understands_every_line(unit: Path) -> None:
    units = [str(unit), str(unit.with_name(SOCKET.name))]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True
    )
    assert done.returncode == 0
    # Other units of the machine may be complained of as well.
    names = UNIT.name, SOCKET.name
    assert [line for line in done.stderr.splitlines() if any(n in line for n in names)] == []


def test_workers_may_keep_to_a_core() -> None:
    """What is left of the last lines that name system calls, as systemd reads them."""
    filters = re.findall(r"^SystemCallFilter=(.+)$", UNIT.read_text(), re.M)
    assert "@resources" in filters[-2]  # has sched_setaffinity in it
    assert filters[-1] == "sched_setaffinity"


def test_little_is_exposed(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= MOST_EXPOSED, done.stdout


NEEDED = {
    "Unit": {
        # What cannot be mended ends the daemon each time: tries go on for as long as that takes.
        "StartLimitIntervalSec": "0",
        # A clock that is set after the start is a jump, which is followed a minute later only.
        "Wants": "network-online.target time-sync.target",
        "After": "network-online.target time-sync.target",
    },
    "Service": {
        "Type": "notify-reload",
        "Restart": "on-failure",
        "RestartPreventExitStatus": str(EX_CONFIG),
        # The socket's folder is for the group, as the socket is.
        "RuntimeDirectoryMode": "0750",
        # The socket of the socket unit would go with the folder.
        "RuntimeDirectoryPreserve": "yes",
        # A dump would hold secrets; what eats memory is ended, and nothing else on the machine.
        "LimitCORE": "0",
        "MemoryMax": "1G",
        # `pid` would hide which boot this is, and who has locked the database.
        "ProcSubset": "all",
        # Else the log could not say which user was at the socket.
        "PrivateUsers": None,
    },
}
"""What the daemon relies on, and why."""


def keys(section: str) -> dict[str, str]:
    text = UNIT.read_text().split(f"[{section}]\n")[1].split("\n[")[0]
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [(section, key, value) for section, some in NEEDED.items() for key, value in some.items()],
)
def test_what_the_daemon_relies_on(section: str, key: str, value: str | None) -> None:
    assert keys(section).get(key) == value


def test_the_socket_unit_has_the_place_and_the_owner_of_the_services() -> None:
    lines = SOCKET.read_text().splitlines()
    service = keys("Service")
    for line in (
        f"ListenStream=/run/{service['RuntimeDirectory']}/control.sock",
        f"SocketUser={service['User']}",
        f"SocketGroup={service['Group']}",
        "SocketMode=0660",
        f"Backlog={BACKLOG}",
    ):
        assert line in lines


def test_a_config_folder_that_is_there_keeps_its_owner_and_mode(tmp_path: Path) -> None:
    def told(config: Path) -> str:
        words = ["install", "--dry-run", "--config", str(config)]
        return CliRunner().invoke(systemd, words, catch_exceptions=False).output

    new = tmp_path / "new"
    mode = keys("Service")["ConfigurationDirectoryMode"]
    assert f"install -d -m {mode} -o root -g orchestratord {new}\n" in told(new)
    assert "install -d" not in told(tmp_path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives a folder to any group")
def test_what_root_makes_in_the_config_folder_is_the_daemons_to_read(tmp_path: Path) -> None:
    folder, group = tmp_path / "config", 65534
    mode = keys("Service")["ConfigurationDirectoryMode"]
    subprocess.run(["install", "-d", "-m", mode, "-g", str(group), str(folder)], check=True)
    command = [sys.executable, "-m", "orchestratord", "init", str(folder)]
    subprocess.run(command, check=True, umask=0o027, capture_output=True)
    for path in folder.rglob("*"):
        assert path.stat().st_gid == group, path
        assert path.stat().st_mode & 0o040, path


def test_the_daemon_is_faster_than_systemd() -> None:
    """It knows the reason, and says it; what systemd does is for what cannot even do that."""
    service = keys("Service")
    assert float(service["WatchdogSec"]) > ENDED_AFTER[LOOP]
    assert float(service["TimeoutStopSec"]) > DaemonSettings().drain_timeout + GRACE


def test_without_all_of_proc_it_could_not_tell_boots_and_locks() -> None:
    """What `ProcSubset=pid` would leave it, in a mount namespace of its own."""
    unshare = shutil.which("unshare")
    mount = 'mount -t proc -o subset=pid proc /proc && exec "$@"'
    alone = [unshare or "", "--mount", "--propagation", "private", "sh", "-c", mount, "sh"]
    if unshare is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("this machine or user mounts nothing")
    program = """
from orchestratord.queue.sqlite import file_locks
from orchestratord.values import clock
print(bool(clock._boot()), file_locks._LOCKS.exists())
"""
    for command, known in (([], True), (alone, False)):
        done = subprocess.run(
            [*command, sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        assert done.stdout == f"{known} {known}\n"
