"""What the outbox costs an application, and how soon a call follows its COMMIT.

\b
    python -m bench.outbox              all of it, with the outbox in the queue's PostgreSQL
    python -m bench.outbox --apart      in a PostgreSQL of the application's, the queue in a file

Rows a second are those that the relay takes while the endpoint is paused; what a COMMIT costs is
measured by transactions with one INSERT, alone and with a call; from COMMIT to the receiver, at one
of this process, on an idle machine. The server has PostgreSQL's defaults, fsync included.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import psycopg
from orchestratord_outbox.outbox_schema import outbox_schema

from bench.environment.daemon import daemon
from bench.environment.postgres import queue_url, server
from bench.results.table import Table
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until

SESSIONS = 4
"""That commit at the same time."""
ORDER = "INSERT INTO orders VALUES (%s)"
CALL = "SELECT orchestratord_enqueue('shop/order', jsonb_build_object('n', %s::int))"
KINDS = (
    ("an order", (ORDER,), False),
    ("an order and a call", (ORDER, CALL), False),
    ("an order and a call, with NOTIFY", (ORDER, CALL), True),
)
ROUNDS = 5
GAP = 0.05
"""Seconds between two orders whose way to the receiver is measured."""
DROP = "DROP TRIGGER IF EXISTS orchestratord_outbox_notify ON orchestratord_outbox"


@contextmanager
def shop(apart: bool) -> Iterator[tuple[Daemon, Receiver, str]]:
    """A daemon that is not started, its receiver, and the database with the outbox."""
    with ExitStack() as stack:
        url = queue_url(stack.enter_context(server()))
        receiver = stack.enter_context(Receiver())
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        settings: dict[str, Any] = {"database": url}
        if apart:
            settings = {"databases": {"shop": {"url": url}}, "outbox": {"database": "shop"}}
        made = stack.enter_context(daemon(home / "d", **settings, log={"level": "warning"}))
        receiver.reply("/orders/", lambda request: Answer(204))
        made.api("shop", receiver.url)
        made.endpoint("shop/order", "/orders/{{ params.n }}", method="POST", idempotent=True,
                      params={"n": {"type": "integer"}})  # fmt: skip
        made.expect("a password is written out", "cannot relay")
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE orders (n integer)")
            connection.execute(outbox_schema("public"))
        yield made, receiver, url


def rows_a_second(made: Daemon, url: str, count: int) -> float:
    """How many rows the relay takes, once it has begun."""
    made.start()
    made.post("/v1/endpoints/shop/order/pause")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO orchestratord_outbox (endpoint, params, key) SELECT 'shop/order', "
            "jsonb_build_object('n', n), 'order-' || n FROM generate_series(1, %s) AS t (n)",
            (count,),
        )
        began = time.monotonic()
        left = "SELECT 1 FROM orchestratord_outbox LIMIT 1"
        until(lambda: connection.execute(left).fetchone() is None, "an empty outbox", 600)
    taken = count / (time.monotonic() - began)
    made.stop()
    return taken


def commits(url: str, statements: tuple[str, ...], count: int) -> tuple[float, float]:
    """Transactions of these statements: the median in milliseconds of one at a time, and how many
    a second `SESSIONS` make together."""

    def commit(took: list[float]) -> None:
        with psycopg.connect(url) as connection:
            for number in range(count):
                began = time.perf_counter()
                for statement in statements:
                    connection.execute(statement, (number,))
                connection.commit()
                took.append((time.perf_counter() - began) * 1000)

    alone: list[float] = []
    commit(alone)
    threads = [threading.Thread(target=commit, args=([],)) for _ in range(SESSIONS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statistics.median(alone), SESSIONS * count / (time.monotonic() - began)


def delays(url: str, receiver: Receiver, first: int, count: int) -> list[float]:
    """Milliseconds from the answer to COMMIT until the request is there."""
    committed: dict[int, float] = {}
    with psycopg.connect(url) as connection:
        for number in range(first, first + count):
            connection.execute(CALL, (number,))
            connection.commit()
            committed[number] = time.monotonic()
            time.sleep(GAP)
    wanted = {f"/orders/{number}": number for number in committed}

    def found() -> dict[int, float]:
        return {wanted[one.path]: one.at for one in receiver.received() if one.path in wanted}

    until(lambda: len(found()) == count, "all orders")
    return sorted((at - committed[number]) * 1000 for number, at in found().items())


@click.command(help=__doc__)
@click.option("--apart", is_flag=True, help="the outbox in a PostgreSQL of the application's")
@click.option("--count", default=20_000, show_default=True, help="rows that the relay takes")
@click.option("--commits", "transactions", default=1_000, show_default=True, help="of each kind")
@click.option("--orders", default=200, show_default=True, help="whose way is measured")
def main(apart: bool, count: int, transactions: int, orders: int) -> None:
    with shop(apart) as (made, _, url):
        click.echo(f"the relay takes {rows_a_second(made, url, count):,.0f} rows a second\n")
    with shop(apart) as (_, _, url):
        table = Table(("a transaction", "median ms", f"a second by {SESSIONS}"), [])
        found: dict[str, list[tuple[float, float]]] = {}
        for _ in range(ROUNDS):  # in turn: what else the machine does falls on each of them
            for what, statements, notify in KINDS:
                with psycopg.connect(url) as connection:
                    connection.execute(outbox_schema("public", notify=True) if notify else DROP)
                measured = commits(url, statements, transactions // ROUNDS)
                found.setdefault(what, []).append(measured)
        for what, rounds in found.items():
            median, rate = (statistics.median(column) for column in zip(*rounds, strict=True))
            table.rows.append((what, f"{median:.2f}", f"{rate:,.0f}"))
        click.echo(table.text() + "\n")
    with shop(apart) as (made, receiver, url):
        made.start()
        delays(url, receiver, 0, 20)  # the first ones find nothing warm
        table = Table(("from COMMIT to the receiver, ms", "median", "95 %", "worst"), [])
        for what, notify, first in (("without NOTIFY", False, 1000), ("with NOTIFY", True, 2000)):
            with psycopg.connect(url) as connection:
                connection.execute(outbox_schema("public", notify=True) if notify else DROP)
            took = delays(url, receiver, first, orders)
            high = took[int(len(took) * 0.95)]
            table.rows.append((what, f"{statistics.median(took):.0f}", f"{high:.0f}",
                               f"{took[-1]:.0f}"))  # fmt: skip
        click.echo(table.text())


if __name__ == "__main__":
    main(prog_name="python -m bench.outbox")
