"""The unit is one that systemd takes, and leaves the daemon little that it does not need."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[3] / "systemd" / "orchestratord.service"
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
    return path


def test_systemd_understands_every_line(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True
    )
    assert done.returncode == 0
    # Other units of the machine may be complained of as well.
    assert [line for line in done.stderr.splitlines() if UNIT.name in line] == []


def test_little_is_exposed(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= MOST_EXPOSED, done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "Type=notify-reload",
        "WatchdogSec=30",
        "TimeoutStopSec=35",
        "RuntimeDirectoryMode=0750",
        "RestartPreventExitStatus=78",
    ],
)
def test_what_the_daemon_relies_on(line: str) -> None:
    assert line in UNIT.read_text().splitlines()
