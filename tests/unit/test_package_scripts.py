"""The scripts of the Debian package, whatever name the configuration has."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy/debian/orchestratord.postinst"


@pytest.mark.parametrize("kind", ["yaml", "yml", "json", None])
def test_it_is_configured_with_each_name_that_the_daemon_reads(
    tmp_path: Path, kind: str | None
) -> None:
    config, programs = tmp_path / "config", tmp_path / "programs"
    config.mkdir()
    programs.mkdir()
    for name in ("systemd-sysusers", "chown"):
        (programs / name).write_text('#!/bin/sh\necho "$0" "$@" >>"$LOG"\n')
        (programs / name).chmod(0o755)
    if kind:
        (config / f"orchestratord.{kind}").write_text("{}\n")
    script = SCRIPT.read_text().replace("/etc/orchestratord", str(config))
    ended = subprocess.run(
        ["sh", "-c", script, "postinst", "configure"],
        env={"PATH": f"{programs}:{os.environ['PATH']}", "LOG": str(tmp_path / "log")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert config.stat().st_mode & 0o7777 == 0o2750
    for file in config.iterdir():
        assert file.stat().st_mode & 0o777 == 0o640
        assert f" {file}\n" in (tmp_path / "log").read_text()
