"""The Python client against a real daemon: over its socket and over TCP, threads and asyncio."""

from __future__ import annotations

import asyncio
import gzip
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import orchestratord_client as oc
import psycopg
import pytest
from click.testing import CliRunner
from orchestratord_client import protocol
from psycopg.rows import dict_row

from orchestratord.cli.main import main
from tests.acceptance.api.test_tcp import HTTP, READ, SECRETS, TOKEN, port_of
from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Receiver
from tests.postgres import Postgres

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def daemon(make_shared: MakeDaemon, shared_receiver: Receiver) -> Daemon:
    receiver = shared_receiver
    daemon = make_shared(environ=SECRETS, http=HTTP, defaults={"retry": retry("1h")})
    daemon.api("shop", receiver.url)
    receiver.on("/ok", 200)
    receiver.on("/fails", 503)
    typed = {"id": {"type": "integer", "required": True}, "note": {}}
    daemon.endpoint("shop/ok", "/ok", method="POST", params=typed)
    daemon.endpoint("shop/fails", "/fails", params={"id": {}})
    order = {"id": {"type": "integer", "required": True}, "item": {"type": "string"}}
    daemon.endpoint("shop/sendOrder", "/ok", method="POST", params=order)
    daemon.endpoint("shop/off", "/ok", enabled=False)
    return daemon.start()


@pytest.fixture
def client(daemon: Daemon) -> Iterator[oc.Client]:
    with oc.Client(daemon.socket, deadline=20) as client:
        yield client


@pytest.fixture
async def async_client(daemon: Daemon) -> AsyncIterator[oc.AsyncClient]:
    async with oc.AsyncClient(str(daemon.socket), deadline=20) as client:
        yield client


def test_a_call_is_made_waited_for_and_looked_at(client: oc.Client) -> None:
    made = client.call("shop/ok", {"id": 7, "note": "ü"})
    assert (made.status, made.repeated) == ("pending", False)
    task = client.wait(made.id, timeout=20)
    assert task.succeeded
    assert task.ended
    assert task.params == {"id": 7, "note": "ü"}
    assert (task.kind, task.endpoint, task.last_status_code) == ("call", "shop/ok", 200)
    assert task.created_at.tzinfo is not None
    (attempt,) = task.attempt_log
    assert (attempt.attempt, attempt.status_code) == (1, 200)
    assert client.get(made.id) == task
    assert not task.more, "an attribute is missing"
    assert not attempt.more, "an attribute is missing"


def test_a_key_makes_one_call(client: oc.Client) -> None:
    first = client.call("shop/ok", {"id": 8}, key="order-8")
    again = client.call("shop/ok", {"id": 8}, key="order-8")
    assert (again.id, again.repeated) == (first.id, True)
    with pytest.raises(oc.IdempotencyKeyReused) as caught:
        client.call("shop/ok", {"id": 9}, key="order-8")
    assert (caught.value.status, caught.value.code) == (422, "idempotency_key_reused")
    assert client.call("shop/ok", {"id": 8}).id != first.id


def test_a_batch_is_made_once_under_its_key(client: oc.Client) -> None:
    batch = [{"id": number} for number in range(100, 105)]
    ids = client.call_many("shop/ok", batch, key="batch-1")
    assert client.call_many("shop/ok", batch, key="batch-1") == ids
    assert len(set(ids)) == 5
    assert [client.get(task_id).params["id"] for task_id in ids] == [100, 101, 102, 103, 104]
    with pytest.raises(oc.IdempotencyKeyReused):
        client.call_many("shop/ok", [{"id": 100}, {"id": 0}], key="batch-1")
    with pytest.raises(oc.InvalidParams) as caught:
        client.call_many("shop/ok", [{"id": 1}, {"id": "x"}])
    assert [error["key"] for error in caught.value.errors] == ["batch.1.id"]
    assert client.call_many("shop/ok", []) == []


def test_a_time(client: oc.Client) -> None:
    at = datetime(2030, 11, 24, 22, tzinfo=UTC)
    for given in (at, at.isoformat(), at.astimezone(timezone(timedelta(hours=5)))):
        task = client.get(client.call("shop/ok", {"id": 1}, at=given).id)
        assert task.next_try == at
    (id_,) = client.call_many("shop/ok", [{"id": 1}], at=at)
    assert client.get(id_).next_try == at
    with pytest.raises(oc.InvalidParams):
        client.call("shop/ok", {"id": 1}, at=at, delay=5)


def test_delays(client: oc.Client) -> None:
    before = datetime.now(UTC)
    for delay in (3600, "1h", timedelta(hours=1)):
        task = client.get(client.call("shop/ok", {"id": 1}, delay=delay).id)
        assert task.next_try is not None
        assert timedelta(minutes=59) < task.next_try - before < timedelta(minutes=61)
        assert client.cancel(task.id).status == "cancelled"


def test_lists_go_over_all_pages(client: oc.Client) -> None:
    ids = client.call_many("shop/fails", [{"id": number} for number in range(7)], delay="1h")
    listed = list(client.list(endpoint="shop/fails", status=("pending", "running"), page_size=3))
    assert [task.id for task in listed] == sorted(ids, reverse=True)
    assert not listed[0].more, "an attribute is missing"
    assert not list(client.list(endpoint="shop/fails", until=timedelta(days=1)))
    since = datetime.now(UTC) - timedelta(hours=1)
    assert len(list(client.list(id=ids[:2], since=since, order="newest"))) == 2
    with pytest.raises(oc.InvalidParams):
        list(client.list(nosuch="x"))
    for task_id in ids:
        client.cancel(task_id)


def test_retries_and_cancels(client: oc.Client) -> None:
    waiting = client.call("shop/fails", {"id": 1}).id
    with pytest.raises(oc.WaitTimeout) as caught:
        client.wait(waiting, timeout=0.3)
    assert caught.value.task_id == waiting
    assert client.retry(waiting).id == waiting
    assert client.cancel(waiting).id == waiting
    assert client.wait(waiting).status == "cancelled"
    done = client.wait(client.call("shop/ok", {"id": 2}).id)
    with pytest.raises(oc.Conflict):
        client.retry(done.id)
    with pytest.raises(oc.Conflict):
        client.cancel(done.id)
    assert client.retry(done.id, force=True).id == done.id
    assert client.wait(done.id).attempts == 2


def test_refusals_have_classes(client: oc.Client) -> None:
    with pytest.raises(oc.NotFound):
        client.call("shop/nosuch")
    with pytest.raises(oc.NotFound):
        client.get(999_999_999)
    with pytest.raises(oc.Conflict):
        client.call("shop/off")
    with pytest.raises(oc.InvalidParams) as caught:
        client.call("shop/ok", {"id": "x", "more": 1})
    assert {error["key"] for error in caught.value.errors} == {"id", "more"}
    assert "id:" in str(caught.value)
    with pytest.raises(oc.TooLarge):
        client.call("shop/ok", {"id": 1, "note": "x" * (17 << 20)})
    with pytest.raises(ValueError, match="JSON"):
        client.call("shop/ok", {"id": 1, "note": float("nan")})
    with pytest.raises(ValueError, match=r"called api/name, which 'shop\.ok' is not"):
        client.call("shop.ok", {"id": 1})


def test_events(daemon: Daemon, client: oc.Client) -> None:
    made: list[int] = []

    def call() -> None:
        made.append(client.call("shop/ok", {"id": 1}).id)

    with closing(client.events(type="task.*", endpoint="shop/ok")) as events:
        timer = threading.Timer(0.3, call)
        timer.start()
        found = [next(events) for _ in range(2)]
        timer.join()
    assert [event.type for event in found] == ["task.created", "task.started"]
    assert {event.data["id"] for event in found} == set(made)
    with pytest.raises(oc.InvalidParams):
        next(client.events(type="nosuch"))


def test_over_tcp(daemon: Daemon) -> None:
    url = f"http://127.0.0.1:{port_of(daemon)}"
    with oc.Client(url, token=TOKEN) as client:
        assert client.wait(client.call("shop/ok", {"id": 3}).id).succeeded
    with oc.Client(url, token=READ) as reader, pytest.raises(oc.Forbidden):
        reader.call("shop/ok", {"id": 3})
    with oc.Client(url) as stranger, pytest.raises(oc.NotAuthorized):
        stranger.get(1)
    elsewhere = oc.Client(url.replace("127.0.0.1", "127.1"), token=TOKEN)
    with elsewhere as client, pytest.raises(oc.UnknownHost):
        client.get(1)


def test_no_daemon_is_waited_for_up_to_the_deadline(tmp_path: Path) -> None:
    began = time.monotonic()
    client = oc.Client(tmp_path / "gone", deadline=0.5)
    with client, pytest.raises(oc.DaemonUnreachable, match="gone"):
        client.call("shop/ok")
    assert time.monotonic() - began > 0.4
    with oc.Client(tmp_path / "gone") as client, pytest.raises(oc.WaitTimeout):
        client.wait(1, timeout=0.3)


def test_what_is_no_daemon(shared_receiver: Receiver) -> None:
    shared_receiver.on("/v1/retries/1", 200)
    with oc.Client(shared_receiver.url) as client, pytest.raises(oc.UnexpectedAnswer):
        client.get(1)


@pytest.mark.parametrize("compressed", [True, False])
async def test_no_answer_is_larger_than_it_may_be(
    shared_receiver: Receiver, compressed: bool
) -> None:
    """65 KB that were 64 MiB, or as much as they say: nothing is decoded, and no more is read."""
    path, size = "/v1/retries/1", protocol.LARGEST + 1
    body = gzip.compress(b" " * size) if compressed else b" " * size
    headers = {"Content-Encoding": "gzip"} if compressed else {}
    shared_receiver.on(path, Answer(200, body, headers))
    why = "what is compressed" if compressed else "more than 64 MiB"
    with oc.Client(shared_receiver.url) as client, pytest.raises(oc.UnexpectedAnswer, match=why):
        client.get(1)
    async with oc.AsyncClient(shared_receiver.url) as client_:
        with pytest.raises(oc.UnexpectedAnswer, match=why):
            await client_.get(1)
    deep = b'{"id":' * 100_000
    shared_receiver.on(path, Answer(200, deep), Answer(400, deep))
    with oc.Client(shared_receiver.url) as client:
        with pytest.raises(oc.UnexpectedAnswer):
            client.get(1)
        with pytest.raises(oc.BadRequest):
            client.get(1)


async def test_the_same_with_asyncio(async_client: oc.AsyncClient) -> None:
    client = async_client
    made = await client.call("shop/ok", {"id": 7}, key="async-7")
    assert (await client.call("shop/ok", {"id": 7}, key="async-7")).repeated
    assert (await client.wait(made.id, timeout=20)).succeeded
    assert (await client.get(made.id)).id == made.id
    ids = await client.call_many("shop/fails", [{"id": 1}, {"id": 2}], delay="1h")
    listed = [task.id async for task in client.list(id=ids, page_size=1)]
    assert listed == sorted(ids, reverse=True)
    async with aclosing(client.events(type="task.cancelled")) as events:
        following = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.3)
        assert (await client.cancel(ids[0])).status == "cancelled"
        event = await following
        assert (event.type, event.data["id"]) == ("task.cancelled", ids[0])
    assert (await client.retry(ids[1])).id == ids[1]
    assert (await client.cancel(ids[1])).id == ids[1]
    with pytest.raises(oc.Conflict):
        await client.call("shop/off")
    with pytest.raises(oc.WaitTimeout):
        await client.wait((await client.call("shop/ok", {"id": 1}, delay=60)).id, timeout=0.1)


def test_the_examples_of_its_readme(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (Path(oc.__file__).parents[1] / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5
    monkeypatch.setenv("ORCHESTRATORD_SOCKET", str(daemon.socket))
    names: dict[str, object] = {}
    with oc.Client(daemon.socket) as other:
        # What the loop over events is to see.
        timer = threading.Timer(1, other.call, ("shop/sendOrder", {"id": 5, "item": "boots"}))
        for block in blocks:
            if ".events(" in block:
                timer.start()
            exec(compile(block, "README.md", "exec"), names)
        timer.join()
    names["client"].close()  # type: ignore[attr-defined]
    said = capsys.readouterr().out
    assert "succeeded 200 1" in said
    assert "[{'key': 'id', 'message': 'is required'}]" in said
    assert said.count("succeeded") == 3


def test_a_call_in_a_transaction_of_the_application(postgres: Postgres, tmp_path: Path) -> None:
    made = CliRunner().invoke(main, ["outbox", "schema"])
    assert made.exit_code == 0, made.output
    url = postgres.create()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(made.stdout)
        connection.execute("CREATE TABLE orders (id int, item text)")
    readme = (Path(oc.__file__).parents[1] / "README.md").read_text()
    block = re.search(r"^```python outbox\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert block is not None
    exec(compile(block[1], "README.md", "exec"), {"DATABASE": url})
    with psycopg.connect(url) as connection:
        more = oc.enqueue(connection, "shop/sendOrder", {"id": 31}, delay=timedelta(minutes=5))
        assert connection.execute("SELECT id FROM orders").fetchall() == [(30,)]
        connection.row_factory = dict_row  # type: ignore[assignment]
        assert oc.enqueue(connection, "shop/sendOrder", {"id": 32}, delay=1.5) > more
        at = datetime(2030, 11, 24, 22, tzinfo=UTC)
        last = oc.enqueue(connection, "shop/sendOrder", {"id": 34}, key="k", at=at)
        query = "SELECT at, key, params FROM orchestratord_outbox WHERE id = %s"
        (row,) = connection.execute(query, (last,)).fetchall()
        assert row == {"at": at, "key": "k", "params": {"id": 34}}  # type: ignore[comparison-overlap]
        with pytest.raises(ValueError, match="delay or at"):
            oc.enqueue(connection, "shop/sendOrder", at=at, delay=5)
        with pytest.raises(ValueError, match="no zone"):
            oc.enqueue(connection, "shop/sendOrder", at=datetime(2030, 1, 1))
        connection.rollback()

    async def twice() -> int:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            return await oc.enqueue_async(connection, "shop/sendOrder", key="order-33")

    assert asyncio.run(twice()) > more
