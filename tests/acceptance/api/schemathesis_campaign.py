"""The API under requests that schemathesis makes of its own description.

    python -m tests.acceptance.api.schemathesis_campaign [--examples N] [--seed N]

A real daemon is asked over TCP, with a token: by the examples of the description, at the limits of
each parameter, and by random values that fit it or do not. Found is a 5xx, a status, media type or
field that is not described, a request that does not fit and is done all the same, a method that is
not refused in the way of HTTP, and what is answered without a token.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.acceptance.api.test_tcp import port_of
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Receiver

TOKEN = "a-token-for-schemathesis"
ENDPOINTS = ("getOrder", "putOrder")

CONFIG = """
[checks]
# Which parameters a call takes is declared by its endpoint, and whether a task can be retried is
# said by how it stands: 422 and 409 are described for what the description cannot know.
positive_data_acceptance.expected-statuses = ["2xx", 401, 403, 404, 409, 412, 422, 428]
"""

LEFT_OUT = ("/v1/events", "/v1/upgrade")
"""An answer that does not end; a request that ends the process that is asked."""


@dataclass
class Report:
    """How a run ended."""

    code: int
    text: str
    seconds: float
    cpu: float
    """Seconds of schemathesis alone."""
    daemon_cpu: float

    @property
    def tested(self) -> int:
        """How many operations of the API."""
        found = re.search(r"Tested: (\d+)", self.text)
        return int(found[1]) if found else 0


def run(home: Path, *words: str) -> Report:
    """Have schemathesis ask a daemon; `words` are further options of `st run`.

    Args:
        home: an empty folder, with a short path.
    """
    with Receiver() as receiver, Daemon(home, **_settings(receiver)) as daemon:
        _declare(daemon, receiver)
        daemon.start()
        for number in range(5):
            daemon.finish(daemon.call("shop/getOrder", id=number))
        daemon.call("shop/getOrder", "1h", id=7)
        config = home / "schemathesis.toml"
        config.write_text(CONFIG)
        base = f"http://127.0.0.1:{port_of(daemon)}"
        command = [
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
            *("--config-file", str(config), "--no-color", "run", f"{base}/openapi.json"),
            *("--header", f"Authorization: Bearer {TOKEN}"),
            *("--include-path-regex", r"^/(v1/|healthz|readyz|metrics|openapi\.json)"),
            *(word for path in LEFT_OUT for word in ("--exclude-path", path)),
            *(
                "--workers",
                "4",
                "--generation-database",
                "none",
                "--request-timeout",
                "20",
                "--no-shrink",
            ),
            *words,
        ]
        began, before = time.monotonic(), os.times()
        ended = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=home, timeout=3000
        )
        after = os.times()
        ticks = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
        return Report(
            ended.returncode,
            ended.stdout + ended.stderr,
            time.monotonic() - began,
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system,
            (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK"),
        )


def _settings(receiver: Receiver) -> dict[str, Any]:
    return {
        "http": {"bind": "127.0.0.1:0", "token": TOKEN},
        "egress": {"allow": [receiver.address]},
    }


def _declare(daemon: Daemon, receiver: Receiver) -> None:
    daemon.api("shop", receiver.url)
    webhook = {"name": "ops", "phase": "on_final_failure", "url": f"{receiver.url}/hook"}
    for name in ENDPOINTS:
        daemon.endpoint(
            f"shop/{name}",
            "/orders/{{ params.id }}",
            params={"id": {"type": "integer", "default": 1}},
            retry=retry(attempts=2),
            webhooks=[webhook],
        )


def main() -> None:
    """Run it, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=200, help="random requests of a route")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="st") as folder:
        words = ("--max-examples", str(given.examples), "--seed", str(given.seed))
        report = run(Path(folder), *words)
    print(report.text)
    print(
        json.dumps({"seconds": report.seconds, "cpu": report.cpu, "daemon_cpu": report.daemon_cpu})
    )
    sys.exit(report.code)


if __name__ == "__main__":
    main()
