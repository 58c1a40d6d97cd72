"""What it was measured on, and with which versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sqlite3
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from bench.environment.folder import Folder
from bench.environment.servers import Postgres, Redis, find, postgres_program, version_of

SYNCS = 50


def machine() -> list[str]:
    """Lines on the machine."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        f"{len(os.sched_getaffinity(0))} cores of {model[1] if model else platform.machine()}, "
        f"{memory:.0f} GiB of memory, Linux {platform.release()}",
        f"{_file_system()}, where a write of 4 KiB with fdatasync takes {_sync_ms():.2f} ms",
    ]


def own_versions() -> list[str]:
    """Lines on what orchestratord ran with."""
    installed = importlib.metadata.version
    return [
        f"orchestratord {installed('orchestratord')}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version} (synchronous=FULL)",
        f"nginx {version_of([find('nginx', 'nginx', '/usr/sbin'), '-v'])}",
    ]


def peer_versions(folder: Folder) -> list[str]:
    """Lines on what the peers ran with, and how their databases are set."""
    python, node = folder.python_versions(), folder.node_versions()
    names = ("dramatiq", "huey", "redis", "hiredis", "requests", "urllib3")
    program = str(folder.bin / "python")
    return [
        f"Python {version_of([program, '--version'])}: "
        + ", ".join(f"{name} {python[name]}" for name in names),
        f"Node.js {version_of([find('node', 'nodejs'), '--version'])}: "
        + ", ".join(f"{name} {version}" for name, version in node.items()),
        Redis.settings,
        Postgres.settings,
        f"Redis {version_of([find('redis-server', 'redis-server'), '--version'])}, "
        f"PostgreSQL {version_of([postgres_program('postgres'), '--version'])}",
    ]


def _file_system() -> str:
    folder = tempfile.gettempdir()
    ran = subprocess.run(  # noqa: S603
        ["/usr/bin/stat", "--file-system", "--format=%T", folder],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return f"temporary files on {ran.stdout.strip()}"


def _sync_ms() -> float:
    took = []
    with tempfile.TemporaryFile() as file:
        for number in range(SYNCS):
            began = time.perf_counter()
            os.pwrite(file.fileno(), b"x" * 4096, number * 4096)
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)
