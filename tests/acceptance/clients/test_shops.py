"""The shops of the Python client's examples, while the daemon restarts: no customer has an error.

What they show beside that, and the long form:

    SHOP_RESTARTS=20 pytest -s tests/acceptance/clients/test_shops.py
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import orchestratord_client
import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.processes import free_port, serving
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until

CLIENT = Path(orchestratord_client.__file__).parents[1]
RESTARTS = int(os.environ.get("SHOP_RESTARTS", "2"))
CUSTOMERS = 3
"""Of each shop, at once."""

SHOPS = {
    "flask": ["-m", "flask", "--app", "flask_shop", "run", "--port"],
    "fastapi": ["-m", "uvicorn", "fastapi_shop:app", "--port"],
}


@contextmanager
def shop(words: Sequence[str], daemon: Daemon, folder: Path) -> Iterator[str]:
    """Run a shop; its URL."""
    port = free_port()
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(CLIENT),
        "ORCHESTRATORD_SOCKET": str(daemon.socket),
        "SHOP_DATABASE": str(folder / "shop.db"),
    }
    command = [sys.executable, *words, str(port)]
    with serving(command, port, folder / "shop.log", CLIENT / "examples", environ):
        yield f"http://127.0.0.1:{port}"


@dataclass
class Customers:
    """Order from a shop, each one thing after the other, until it closes."""

    url: str
    numbers: Iterator[int]
    ordered: dict[int, int] = field(default_factory=dict)
    """The number of each order that was taken → its task."""
    errors: list[str] = field(default_factory=list)
    longest: float = 0.0
    """Seconds that one had to wait for the answer."""

    def buy(self, closed: threading.Event) -> None:
        with httpx.Client(timeout=90, trust_env=False) as http:
            while not closed.is_set():
                number, began = next(self.numbers), time.monotonic()
                answer = http.put(f"{self.url}/orders/{number}", json={"item": "umbrella"})
                self.longest = max(self.longest, time.monotonic() - began)
                if answer.status_code == 200:
                    self.ordered[number] = answer.json()["task"]
                else:
                    self.errors.append(f"{answer.status_code} {answer.text}")
                time.sleep(0.01)

    def until_taken(self, orders: int) -> None:
        """Wait until so many were taken."""
        until(lambda: len(self.ordered) >= orders, f"{orders} orders at {self.url}")


def restart(daemon: Daemon, number: int) -> None:
    """As systemd would, in one of three ways."""
    if number % 3 == 0:
        daemon.restart()
    elif number % 3 == 1:
        daemon.kill()
        daemon.start()
    else:
        assert daemon.stop() == 0
        time.sleep(1)
        daemon.start()


@pytest.mark.slow
def test_shops_while_the_daemon_restarts(
    make_daemon: MakeDaemon, receiver: Receiver, tmp_path: Path
) -> None:
    daemon = make_daemon()
    receiver.on("/ship", 200)
    daemon.api("warehouse", receiver.url)
    params = {"number": {"type": "integer"}, "item": {}}
    body = {"json": {"number": "{{ params.number }}", "item": "{{ params.item }}"}}
    daemon.endpoint("warehouse/ship", "/ship", method="PUT", params=params, body=body)
    daemon.start()
    closed = threading.Event()
    with ExitStack() as stack:
        groups: dict[str, Customers] = {}
        for place, (name, words) in enumerate(SHOPS.items()):
            (folder := tmp_path / name).mkdir()
            url = stack.enter_context(shop(words, daemon, folder))
            groups[name] = Customers(url, itertools.count(place * 1_000_000))
        pool = stack.enter_context(ThreadPoolExecutor())
        stack.callback(closed.set)
        buying = [
            pool.submit(customers.buy, closed)
            for customers in groups.values()
            for _ in range(CUSTOMERS)
        ]
        for number in range(RESTARTS):
            for customers in groups.values():
                customers.until_taken(len(customers.ordered) + 20)
            restart(daemon, number)
        closed.set()
        for future in buying:
            future.result()
        for customers in groups.values():
            sold, task_id = next(iter(customers.ordered.items()))
            daemon.finish(task_id)
            seen = httpx.get(f"{customers.url}/orders/{sold}/task/{task_id}", trust_env=False)
            assert seen.json().items() >= {"number": sold, "shipped": True}.items()
    for name, customers in groups.items():
        print(
            f"{name}: {RESTARTS} restarts, {len(customers.ordered)} orders, "
            f"{len(customers.errors)} errors, the longest wait {customers.longest:.2f} s"
        )
        assert not customers.errors
    daemon.settle()
    sold_by_all = {
        number: one for group in groups.values() for number, one in group.ordered.items()
    }
    tasks = {task["params"]["number"]: task["id"] for task in daemon.tasks(status="succeeded")}
    assert tasks == sold_by_all
    assert len(daemon.tasks()) == len(sold_by_all), "an order was made twice"
    assert {request.json()["number"] for request in receiver.received("/ship")} == set(sold_by_all)
