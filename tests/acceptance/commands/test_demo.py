"""`orchestratord demo`, for real: it promises something, and exits with 0 only if that happened."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def folder() -> Iterator[Path]:
    """For temporary files, with a path that is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="demo-", dir="/tmp") as name:
        yield Path(name)


COMMAND = [sys.executable, "-m", "orchestratord", "demo"]


def environ(folder: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    return {**kept, "TMPDIR": str(folder), "PYTHONWARNINGS": "", **more}


def test_the_demo_keeps_its_promises(folder: Path) -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=90, env=environ(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    assert "Everything that was promised happened." in done.stdout
    assert "FAILED" not in done.stdout
    for words in (
        "Retry-After 3s won",
        "exponential 1s·2^1=2s",
        "ambiguous",
        "not_retryable",
        "exhausted",
        "signature ok",
        "warehouse/saveItem   ok",
        "the receiver answers 503",
        "$ orchestratorctl retry ",
    ):
        assert words in done.stdout
    assert list(folder.iterdir()) == []


def test_the_demo_in_a_terminal_can_be_kept_and_interrupted(folder: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "--keep"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environ(folder, TERM="xterm", COLUMNS="100"),
    )
    os.close(theirs)
    seen = ""
    deadline = time.monotonic() + 90
    try:
        while "In another terminal:" not in seen and time.monotonic() < deadline:
            seen += os.read(ours, 65536).decode(errors="replace")
        socket = re.search(r"ORCHESTRATORD_SOCKET=(\S+)", seen) or re.search(
            r"ORCHESTRATORD_SOCKET=(\S+)", seen + os.read(ours, 65536).decode(errors="replace")
        )
        assert socket is not None, seen
        status = subprocess.run(
            [sys.executable, "-m", "orchestratorctl", "--socket", socket[1], "status"],
            capture_output=True,
            text=True,
        )
        assert status.returncode == 0, status.stderr
        found = re.search(r"The dashboard is at (http://\S+)\s+token: (\S+)", seen)
        assert found is not None, seen
        page = httpx.get(found[1], headers={"Authorization": f"Bearer {found[2]}"})
        assert page.status_code == 200
        assert "shop/getOrder" in page.text
        process.send_signal(signal.SIGINT)
        while True:
            try:
                more = os.read(ours, 65536).decode(errors="replace")
            except OSError:  # Linux: the other side of a terminal was closed
                break
            seen += more
        assert process.wait(30) == 0, seen
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert "\x1b[32m" in seen
    assert "waiting: #" in seen
    assert "Everything that was promised happened." in seen
    assert list(folder.iterdir()) == []


def test_the_demo_that_cannot_start_says_why(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.mkdir()
    (config / "orchestratord.yaml").write_text("no_such_key: 1\n")
    done = subprocess.run(
        [*COMMAND, "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environ(tmp_path),
    )
    assert done.returncode == 1
    assert "The demo failed: the daemon ended with exit code 78" in done.stdout
    assert "orchestratord.yaml:1:1: no_such_key" in done.stdout
