"""kill -9 while subscriptions are made, rotated and deleted: what was acknowledged is there. And
while events are matched with dear filters: each that matches is delivered, and made once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import httpx
import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.subscriptions.tenants import Tenants, declare, settings
from tests.acceptance.waiting import PATIENCE, until
from tests.postgres import Postgres

# httpcore leaves the socket open that a killed daemon did not take.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore:unclosed <socket:ResourceWarning",
        "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning",
    ),
]

CLIENTS, KILLS, EACH = 4, 4, 25
"""Clients, kills, and subscriptions that are acknowledged before each."""


@dataclass
class Client(threading.Thread):
    """Makes, rotates and deletes; asks again until each is acknowledged."""

    daemons: Sequence[Daemon]
    url: str
    number: int
    there: dict[str, str] = field(default_factory=dict)
    """What was acknowledged: the secret of each subscription."""
    gone: set[str] = field(default_factory=set)
    made: int = 0
    wrong: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.tenant = f"tenant{self.number % 2}"
        self._random = random.Random(self.number)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                self._one()
        except Exception as error:
            self.wrong.append(repr(error))

    def _ask(self, method: str, path: str, **options: object) -> httpx.Response:
        for _ in range(600):
            daemon = self._random.choice(list(self.daemons))
            try:
                answer = Tenants(daemon, self.url).ask(method, path, **options)  # type: ignore[arg-type]
            except (httpx.HTTPError, OSError):
                self.stop.wait(0.05)
                continue
            if answer.status_code < 500:
                return answer
            self.stop.wait(0.05)
        raise AssertionError(f"no answer to {method} {path}")

    def _one(self) -> None:
        many = f"/{self.tenant}/subscriptions"
        key = f"{self.number}-{self.made}"
        body = {"url": f"{self.url}/{key}"}
        made = self._ask("POST", many, body=body, headers={"Idempotency-Key": key})
        if made.status_code not in (200, 201):
            raise AssertionError(made.text)
        id_ = made.json()["id"]
        if id_ in self.there or id_ in self.gone:
            self.wrong.append(f"{id_} was made twice")
        self.there[id_] = made.json()["secret"]
        self.made += 1
        chosen = self._random.choice([*self.there])
        if self._random.random() < 0.3:
            self.there[chosen] = self._ask("POST", f"{many}/{chosen}/rotate").json()["secret"]
        elif self._random.random() < 0.3:
            del self.there[chosen]
            self.gone.add(chosen)
            if self._ask("DELETE", f"{many}/{chosen}").status_code not in (200, 404):
                self.wrong.append(f"{chosen} was not deleted")


def judge(daemons: Sequence[Daemon], receiver: Receiver) -> None:
    """Kill one after the other while clients go on, and compare."""
    for daemon in daemons:
        daemon.expect(r"took over from a dead daemon", r"the supervisor has died", r"a password")
        daemon.start()
    for tenant in ("tenant0", "tenant1"):
        Tenants(daemons[0], receiver.url).put(tenant)
    clients = [Client(daemons, receiver.url, number) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    for kill in range(KILLS):
        goal = sum(client.made for client in clients) + EACH
        until(lambda goal=goal: _made(clients) >= goal, "more subscriptions")
        daemons[kill % len(daemons)].kill()
        daemons[kill % len(daemons)].start()
    for client in clients:
        client.stop.set()
    for client in clients:
        client.join(PATIENCE)
    assert [wrong for client in clients for wrong in client.wrong] == []
    tenants = Tenants(daemons[-1], receiver.url)
    for tenant in ("tenant0", "tenant1"):
        mine = [client for client in clients if client.tenant == tenant]
        acknowledged = {id_: secret for client in mine for id_, secret in client.there.items()}
        found = tenants.of(tenant)
        assert len({one["url"] for one in found}) == len(found)  # each once
        assert {one["id"] for one in found} == acknowledged.keys()
        for one in found:
            shown = tenants.ask("GET", tenants.one(one, "/secret")).json()["secret"]
            assert shown == acknowledged[one["id"]]


def _made(clients: Sequence[Client]) -> int:
    assert all(client.is_alive() for client in clients), [one.wrong for one in clients]
    return sum(client.made for client in clients)


EVENTS = 40
FILTERS = ["data.order", f"data.order && ({' | '.join(['[@,@]'] * 7)})", "data.order > `1000`"]
"""The second one takes more steps than are taken on the loop."""


def judge_matching(daemons: Sequence[Daemon], receiver: Receiver) -> None:
    """Kill one after the other while events are matched, and count what was made."""
    for daemon in daemons:
        daemon.expect(r"took over from a dead daemon", r"the supervisor has died", r"a password")
        daemon.start()
    chance = random.Random(60)
    tenants = Tenants(daemons[0], receiver.url)
    made = {}
    for tenant in ("tenant0", "tenant1"):
        tenants.put(tenant)
        made[tenant] = [tenants.add(tenant), *(tenants.add(tenant, when=one) for one in FILTERS)]
    sent: list[int] = []
    for kill in range(KILLS):
        victim, other = daemons[kill % len(daemons)], daemons[(kill + 1) % len(daemons)]
        orders = [
            {"tenant": f"tenant{number % 2}", "order": number + 1} for number in range(EVENTS)
        ]
        sent += other.batch("shop/orderPaid", orders)
        time.sleep(chance.random() * 0.15)
        victim.kill()
        victim.start()
    one = daemons[-1]
    until(lambda: one.get("/v1/retries", parent=sent[-1]).json()["retries"], "the last matching")

    def rests() -> bool:
        made = len(one.tasks(endpoint="subscriptions"))
        return made >= KILLS * EVENTS * 3 and not one.tasks(status="pending,running")

    until(rests, "all deliveries", 120)
    came: dict[tuple[int, str], int] = {}
    for task in one.tasks(endpoint="subscriptions"):
        place = task["parent_id"], task["webhook"]
        came[place] = came.get(place, 0) + 1
    wanted = [[f"{tenant}/{one['id']}" for one in made[tenant][:3]] for tenant in made]
    assert came == {(id_, name): 1 for n, id_ in enumerate(sent) for name in wanted[n % 2]}


@pytest.mark.parametrize("workers", [1, 2])
def test_matching_on_sqlite(
    workers: int, declared: Callable[..., Daemon], receiver: Receiver
) -> None:
    judge_matching([declared(workers=workers)], receiver)


def test_matching_with_two_daemons(
    database: str, declared: Callable[..., Daemon], receiver: Receiver
) -> None:
    judge_matching([declared(database=database, lease=3) for _ in range(2)], receiver)


@pytest.fixture
def declared(make_daemon: MakeDaemon, receiver: Receiver) -> Callable[..., Daemon]:
    receiver.reply("/", lambda request: Answer())

    def make(**more: object) -> Daemon:
        daemon = make_daemon(subscriptions=settings(receiver, max_per_tenant=1000), **more)
        declare(daemon)
        return daemon

    return make


@pytest.mark.parametrize("workers", [1, 2])
def test_on_sqlite(workers: int, declared: Callable[..., Daemon], receiver: Receiver) -> None:
    judge([declared(workers=workers)], receiver)


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    url = postgres.create()
    yield url
    postgres.drop(url)


def test_with_two_daemons(
    database: str, declared: Callable[..., Daemon], receiver: Receiver
) -> None:
    judge([declared(database=database, lease=3) for _ in range(2)], receiver)
