"""Requests that say far more than is taken: refused as soon as that is seen, and nobody waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import httpx
import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.undisturbed import undisturbed, unscheduled

pytestmark = pytest.mark.slow

SIZE = 14_000_000
BODIES: dict[str, Callable[[], bytes]] = {
    "numbers": lambda: b'{"params":{"a":[%b]}}' % b",".join([b"1"] * (SIZE // 2)),
    "lists": lambda: b'{"params":{"a":[%b]}}' % b",".join([b"[]"] * (SIZE // 3)),
    "objects": lambda: b'{"params":{"a":[%b]}}' % b",".join([b'{"a":1}'] * (SIZE // 8)),
    "names": lambda: b'{"params":{%b}}' % b",".join(b'"k%d":1' % n for n in range(SIZE // 11)),
    "unknown keys": lambda: b"{%b}" % b",".join(b'"k%d":1' % n for n in range(SIZE // 11)),
    "one large call of a batch": lambda: (
        b'{"batch":[{},{"a":[%b]}]}' % b",".join([b"1"] * (SIZE // 2))
    ),
    "calls": lambda: b'{"batch":[%b]}' % b",".join([b"{}"] * (SIZE // 3)),
    "wrong calls": lambda: b'{"batch":[%b]}' % b",".join([b"1"] * 120_000),
    "unknown params": lambda: b'{"params":{%b}}' % b",".join(b'"p%d":1' % n for n in range(3_000)),
    "a long name": lambda: b'{"params":{"%b":1}}' % (b"n" * 200_000),
    "a long number": lambda: b'{"params":{"a":0.%b}}' % (b"1" * 200_000),
}


@pytest.fixture(scope="module")
def daemon(make_shared: MakeDaemon, shared_receiver: Receiver) -> Iterator[Daemon]:
    daemon = make_shared()
    daemon.api("shop", shared_receiver.url)
    names = ("amount", "customer", "currency", "delivery", "email", "first", "note", "order")
    daemon.endpoint("shop/book", "/book", params={name: {} for name in names})
    daemon.start()
    yield daemon
    daemon.stop()


def others_go_on(daemon: Daemon, within: float = 1.0) -> AbstractContextManager[None]:
    """Others are answered meanwhile."""

    def ask() -> None:
        assert daemon.get("/healthz").status_code == 200

    return undisturbed(daemon, ask, within)


def send(daemon: Daemon, path: str, body: bytes) -> httpx.Response:
    transport = httpx.HTTPTransport(uds=str(daemon.socket), verify=False)
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=120) as client:
        return client.post(path, content=body, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("what", BODIES)
def test_what_is_too_much_is_refused_in_a_moment(daemon: Daemon, what: str) -> None:
    body = BODIES[what]()
    with others_go_on(daemon):
        began = time.monotonic() - unscheduled(daemon)
        answer = send(daemon, "/v1/endpoints/shop/book/calls", body)
        took = time.monotonic() - unscheduled(daemon) - began
    assert answer.status_code == (400 if what == "a long number" else 422), answer.text[:500]
    assert took < 8
    assert len(answer.content) < 1_000_000


def test_a_query_and_a_filter_of_thousands_of_unknown_names(daemon: Daemon) -> None:
    names = [f"name{number}" for number in range(5_000)]
    with others_go_on(daemon):
        answer = daemon.get("/v1/retries", **dict.fromkeys(names[:4_000], "1"))
        assert answer.status_code == 422
        assert len(answer.json()["errors"]) == 100
        answer = daemon.post("/v1/retries/cancel", {"filter": dict.fromkeys(names, 1)})
        assert answer.status_code == 422
        assert len(answer.json()["errors"]) == 100
