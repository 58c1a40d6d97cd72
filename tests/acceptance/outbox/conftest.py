"""A daemon with an outbox, wherever that is, and the shop that commits into it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from orchestratord_outbox.outbox_schema import outbox_schema
from psycopg.types.json import Jsonb

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Receiver
from tests.postgres import Postgres

ENQUEUE = "SELECT orchestratord_enqueue(%s, %s, key => %s, delay => %s)"
ORDER = {"method": "POST", "idempotent": True, "retry": retry()}
PLACES = ("queue", "shop, queue in a file", "shop, queue in PostgreSQL")


class Shop:
    """An application whose orders are calls of `shop/order`."""

    def __init__(self, daemon: Daemon, server: Postgres, url: str) -> None:
        self.daemon = daemon
        self.server = server
        self.url = url
        """Of the database with the outbox."""
        self.name = url.rpartition("/")[2]

    def connect(self, user: str | None = None) -> psycopg.Connection[Any]:
        url = self.url if user is None else self.url.replace("tester:s3cret", f"{user}:x")
        return psycopg.connect(url)

    def run(self, statement: str, *values: Any) -> list[Any]:
        return self.server.run(self.name, statement, *values)

    def order(
        self,
        connection: psycopg.Connection[Any],
        n: Any,
        endpoint: str = "shop/order",
        key: str | None = None,
        delay: str = "0",
        **more: Any,
    ) -> int:
        """Enqueue an order in the connection's transaction; the row's id."""
        params = Jsonb({"n": n, **more})
        row = connection.execute(ENQUEUE, (endpoint, params, key, delay)).fetchone()
        assert row is not None
        return int(row[0])

    def commit(self, n: Any, **order: Any) -> int:
        """An order in a transaction of its own."""
        with self.connect() as connection:
            return self.order(connection, n, **order)


def declare(daemon: Daemon, receiver: Receiver) -> None:
    receiver.reply("/orders/", lambda request: Answer(204))
    daemon.api("shop", receiver.url)
    params = {"n": {"type": "integer", "required": True}}
    path = "/orders/{{ params.n }}"
    daemon.endpoint("shop/order", path, params=params, **ORDER)
    receiver.reply("/hooks/", lambda request: Answer(204))
    hook = {"name": "stock", "phase": "on_success", "url": f"{receiver.url}/hooks/stock"}
    placed = {"type": "event", "params": params, "webhooks": [hook]}
    daemon.write("apis/shop/endpoints/placed.yaml", placed)
    line = {"params": params, "partition": "{{ params.n % 2 }}", **ORDER}
    daemon.endpoint("shop/line", path, **line)


@pytest.fixture
def databases(postgres: Postgres) -> Iterator[Any]:
    made: list[str] = []

    def create() -> str:
        made.append(postgres.create())
        return made[-1]

    yield create
    for url in made:
        postgres.drop(url)


@pytest.fixture
def make_shop(
    databases: Any, postgres: Postgres, make_daemon: MakeDaemon, receiver: Receiver
) -> Any:
    """A shop, by where its outbox is; its daemon is not started."""

    def make(place: str, **settings: Any) -> Shop:
        queue = None if place == PLACES[1] else databases()
        if queue is not None:
            settings |= {"database": queue}
        url = queue
        if url is None or place == PLACES[2]:
            url = databases()
            settings |= {"databases": {"shop": {"url": url}}, "outbox": {"database": "shop"}}
        daemon = make_daemon(lease="3s", **settings)
        declare(daemon, receiver)
        shop = Shop(daemon, postgres, url)
        daemon.expect(r"a password is written out here")
        if place != PLACES[0]:
            shop.run(outbox_schema("public"))
        return shop

    return make


@pytest.fixture(params=PLACES)
def shop(request: pytest.FixtureRequest, make_shop: Any) -> Shop:
    """A shop with its daemon, for each place that an outbox may have."""
    made: Shop = make_shop(request.param)
    made.daemon.start()
    return made
