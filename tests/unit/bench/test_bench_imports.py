"""The benchmarks need what a user has installed, and no library of the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

BLOCKED = """
import sys
for name in ("pytest", "hypothesis", "jsonschema_rs", "schemathesis"):
    sys.modules[name] = None
import bench.__main__, bench.fleet, bench.store, bench.latency, bench.inbound, bench.outbox
"""


def test_they_do_without_the_libraries_of_the_tests() -> None:
    subprocess.run([sys.executable, "-c", BLOCKED], cwd=ROOT, check=True, timeout=60)
