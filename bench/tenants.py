"""Tenants that are made while events go out: what each costs the other.

\b
    python -m bench.tenants             200 tenants while 1,000 events a second go out
    python -m bench.tenants --rate 500 --tenants 50

Events go to ten tenants in turn. Each new tenant gets a subscription, and an event at once. The
receiver is nginx; it and the sender of the events share the machine with the daemon.
"""

from __future__ import annotations

import base64
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import click

from bench.environment.daemon import LOOPBACK, daemon
from bench.environment.servers import Nginx
from tests.acceptance.daemon import Daemon

EVENT = {
    "type": "event",
    "params": {"tenant": {"type": "string"}, "number": {"type": "integer"}},
    "webhooks": [
        {
            "name": "customers",
            "phase": "on_success",
            "subscribers": "{{ params.tenant }}",
            "payload": {"type": "bench", "data": {"number": "{{ params.number }}"}},
        }
    ],
}
STEADY = 10
"""Tenants that are there before, to which the events go."""
EACH = 0.1
"""Seconds of a batch of events, and of a new tenant."""


@dataclass
class Sender(threading.Thread):
    """Sends events at a steady rate, in batches, until it is stopped."""

    made: Daemon
    rate: int
    sent: int = 0
    seconds: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        began = time.monotonic()
        while not self.stop.is_set():
            due = round((time.monotonic() - began + EACH) * self.rate)
            numbers = range(self.sent, min(due, self.sent + self.rate))
            batch = [{"tenant": f"steady{one % STEADY}", "number": one} for one in numbers]
            if batch:
                self.made.batch("bench/event", batch)
                self.sent += len(batch)
            self.stop.wait(max(0.0, began + self.sent / self.rate - time.monotonic()))
        self.seconds = time.monotonic() - began


@dataclass(frozen=True)
class Report:
    """What a run has shown."""

    sent: int
    """Events."""
    seconds: float
    """In which they were sent."""
    longest: float
    """Seconds that a tenant with its subscription took to be made, at most."""
    behind: int
    """Deliveries that were pending when the last tenant was made."""
    delivered: int
    """Deliveries in the end, which are the events and one of each new tenant."""

    def line(self) -> str:
        return (
            f"{self.sent / self.seconds:,.0f} events a second for {self.seconds:.0f} s; a tenant "
            f"with its subscription took {self.longest * 1000:.0f} ms at most; {self.behind} "
            f"deliveries were pending at the end, and all {self.delivered:,} succeeded"
        )


def settings(url: str) -> dict[str, object]:
    """What `subscriptions:` has to say for a receiver on this machine."""
    return {
        "key": base64.b64encode(bytes(32)).decode(),
        "require_https": False,
        "ports": [urlsplit(url).port],
        "allow": [LOOPBACK],
    }


def make(made: Daemon, tenant: str, url: str) -> float:
    """Make a tenant with a subscription; the seconds that it took."""
    began = time.monotonic()
    made.request("PUT", f"/v1/tenants/{tenant}", json={}).raise_for_status()
    made.post(f"/v1/tenants/{tenant}/subscriptions", {"url": url}).raise_for_status()
    return time.monotonic() - began


def run(made: Daemon, url: str, tenants: int, rate: int) -> Report:
    """Make tenants while events go out.

    Args:
        made: a daemon that runs, and that has `EVENT` as bench/event.
        url: the receiver.
        tenants: how many are made, ten a second.
        rate: events a second.
    """
    for number in range(STEADY):
        make(made, f"steady{number}", url)
    sender = Sender(made, rate)
    sender.start()
    longest, began = 0.0, time.monotonic()
    try:
        for number in range(tenants):
            time.sleep(max(0.0, began + number * EACH - time.monotonic()))
            longest = max(longest, make(made, f"new{number}", url))
            made.call("bench/event", tenant=f"new{number}", number=number)
        behind = made.status()["queue"]["pending"]
    finally:
        sender.stop.set()
        sender.join()
    made.settle(timeout=120)
    delivered = made.status()["queue"]["succeeded"] - sender.sent - tenants
    return Report(sender.sent, sender.seconds, longest, behind, delivered)


@click.command(help=__doc__)
@click.option("--rate", default=1000, show_default=True, help="events a second")
@click.option("--tenants", default=200, show_default=True, help="that are made meanwhile")
@click.option("--workers", default=1, show_default=True, help="of the daemon")
def main(rate: int, tenants: int, workers: int) -> None:
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        nginx = stack.enter_context(Nginx(home / "n"))
        url = nginx.url()
        log = {"level": "warning"}
        made = stack.enter_context(
            daemon(home / "d", log=log, workers=workers, subscriptions=settings(url))
        )
        made.api("bench", "http://127.0.0.1:9")
        made.write("apis/bench/endpoints/event.yaml", EVENT)
        made.start()
        report = run(made, url, tenants, rate)
    click.echo(report.line())
    if report.delivered != report.sent + tenants:
        raise click.ClickException(f"{report.sent + tenants} deliveries were to succeed")


if __name__ == "__main__":
    main()
