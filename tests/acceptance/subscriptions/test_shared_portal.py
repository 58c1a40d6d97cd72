"""The portal where several processes serve it, two workers or two daemons; and what each says."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.processes import free_port
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.subscriptions.portals import exchange
from tests.acceptance.subscriptions.tenants import Tenants, declare, settings
from tests.acceptance.waiting import until
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

AT_ONCE = 8
"""Browsers that open one link at the same time, and connections of a session."""


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    url = postgres.create()
    yield url
    postgres.drop(url)


def started(
    make_daemon: MakeDaemon, receiver: Receiver, port: int, **more: object
) -> tuple[Tenants, str]:
    """A daemon with a portal, and the address of that."""
    url = f"http://127.0.0.1:{port}"
    portal = {"bind": f"127.0.0.1:{port}", "url": url}
    daemon: Daemon = make_daemon(subscriptions=settings(receiver, portal=portal), **more)
    declare(daemon)
    receiver.reply("/", lambda request: Answer())
    return Tenants(daemon.start(), receiver.url), url


def judge(tenants: Sequence[Tenants], urls: Sequence[str]) -> None:
    """A link is exchanged once wherever it is opened; a session is good everywhere."""
    tenants[0].put("acme")
    made = tenants[0].add("acme")
    opened = [(url, tenants[-1].ask("POST", "/acme/portal").json()["url"]) for url in urls]
    asked = [(url, link) for _, link in opened for url in urls for _ in range(AT_ONCE)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda one: exchange(*one), asked))
    each = len(asked) // len(opened)
    sessions = []
    for number, (_, link) in enumerate(opened):
        of_link = answers[number * each : (number + 1) * each]
        assert sorted(one.status_code for one in of_link) == [200, *[401] * (each - 1)], link
        sessions += [one.json()["session"] for one in of_link if one.status_code == 200]
    for session in sessions:
        for url in urls:
            path = f"{url}/v1/tenants/acme/subscriptions"
            for _ in range(AT_ONCE):  # over a connection each, which any worker takes
                found = httpx.get(path, headers={"Authorization": f"Bearer {session}"}, timeout=30)
                assert [one["id"] for one in found.json()["subscriptions"]] == [made["id"]]
    tenants[0].ask("DELETE", "/acme")
    for url in urls:
        path = f"{url}/v1/tenants/acme/subscriptions"
        ended = httpx.get(path, headers={"Authorization": f"Bearer {sessions[0]}"}, timeout=30)
        assert ended.status_code == 401


def test_two_workers(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    tenants, url = started(make_daemon, receiver, free_port(), workers=2)
    judge([tenants], [url])


def test_two_daemons(make_daemon: MakeDaemon, receiver: Receiver, database: str) -> None:
    both = [
        started(make_daemon, receiver, free_port(), database=database, lease=3) for _ in range(2)
    ]
    judge([tenants for tenants, _ in both], [url for _, url in both])


def test_each_daemon_has_counted_the_keys(
    make_daemon: MakeDaemon, receiver: Receiver, database: str
) -> None:
    """`doctor` on either machine says what has an older key."""
    made = settings(receiver)
    first = make_daemon(subscriptions=made, database=database, lease=3).start()
    declare(first)
    tenants = Tenants(first, receiver.url)
    tenants.put("acme")
    tenants.add("acme")
    newer = {**made, "key": [base64.b64encode(bytes(32)).decode(), made["key"]]}
    first.write("orchestratord.yaml", {**first.settings, "subscriptions": newer})
    first.reload()
    second = make_daemon(subscriptions=newer, database=database, lease=3)
    declare(second)
    second.start()

    def counted(daemon: Daemon) -> bool:
        said = daemon.status()["subscriptions"]
        return said is not None and said["older_keys"] == 1

    for daemon in (first, second):
        until(lambda daemon=daemon: counted(daemon), "its count", 20)
