"""An older version fills a queue in every state, and this one takes it over while calls go on.

    VERSIONS=c6f3393,706bb125 pytest -s --all tests/acceptance/upgrade/test_versions.py

Each commit is built into a wheel, and installed with what it asks for.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, ClassVar

import httpx
import pytest

from orchestratorctl.exit_codes import CommandError, RequestRefused
from orchestratorctl.socket_client import SocketClient
from orchestratord.queue import schema
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Connection, Received, Receiver
from tests.acceptance.waiting import until
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

RELEASED = "c6f3393,706bb125"
"""Commits whose daemons may be at work now: of 1.0.0, and of 1.1.0."""
VERSIONS = os.environ.get("VERSIONS", RELEASED).split(",")
ROOT = Path(__file__).parents[3]
LEASE = 3
CLIENTS = 3
LOAD = 40
"""Calls, at least, that are accepted before a change, and after it."""
BULK = 20
"""Calls that a bulk is sending again as the versions change."""
LINES, LINE = 3, 4
"""Ordered partitions, and the calls of each."""
TYPES = {"n": {"type": "integer"}, "line": {"type": "integer"}}


@dataclass(frozen=True)
class Version:
    """An older version in an environment of its own. `schema`: the one that it knows."""

    python: str
    schema: int

    @property
    def can_stay(self) -> bool:
        """Whether it can use a queue that this version has brought on."""
        return schema.compatible_from() <= self.schema


def install(commit: str, home: Path) -> Version:
    """The version of a commit, in an empty folder."""
    python = f"{home}/venv/bin/python"
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("git", "-C", str(ROOT), "archive", "-o", f"{home}/source.tar", commit)
    (home / "source").mkdir()
    run("tar", "-xf", "source.tar", "-C", "source")
    run(sys.executable, "-m", "venv", "venv")
    run(*pip, "wheel", "--no-deps", "-w", "dist", "./source")
    [wheel] = (home / "dist").glob("*.whl")
    run(*pip, "install", "--no-compile", "-c", "source/constraints.txt", f"{wheel}[postgres]")
    known = run(python, "-c", "from orchestratord.queue import schema; print(schema.VERSION)")
    return Version(python, int(known))


@pytest.fixture(scope="module")
def installed() -> Iterator[Callable[[str], Version]]:
    """Install the version of a commit, once."""
    with TemporaryDirectory() as folder:
        yield cache(lambda commit: install(commit, Path(mkdtemp(dir=folder))))


class AnyVersion(Daemon):
    """A daemon of whichever version; the older ones' answers are not those described here."""

    checks: ClassVar[tuple[Callable[[httpx.Response], None], ...]] = ()


@dataclass
class World:
    """What the receiver answers, which is another thing once all is `mended`."""

    receiver: Receiver
    mended: bool = False
    order: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """What each ordered partition has sent and the receiver has accepted."""

    def __post_init__(self) -> None:
        for path, broken in (("/line", 503), ("/down", 503), ("/later", 503), ("/hook/flaky", 503)):
            self.receiver.reply(path, self._until_mended(broken))
        for path, code in (("/ok", 200), ("/order", 200), ("/tick", 200), ("/gone", 404)):
            self.receiver.on(path, code)
        self.receiver.on("/tree", Answer(200, "{}", {"Content-Type": "application/json"}))
        self.receiver.on("/unsure", _hang_up)
        self.receiver.on("/expired", 503)
        self.receiver.on("/hook/shut", 410)
        self.receiver.reply("/hook/", lambda request: Answer(200))
        self.receiver.hold("/hung")

    def _until_mended(self, broken: int) -> Callable[[Received], Answer]:
        def reply(request: Received) -> Answer:
            if not self.mended:
                return Answer(broken)
            if request.path == "/line":
                self.order[request.headers["x-line"]].append(int(request.headers["x-n"]))
            return Answer(200)

        return reply

    def mend(self) -> None:
        """Have all that failed succeed from now on."""
        self.mended = True
        self.receiver.let_go("/hung")


async def _hang_up(request: Received, connection: Connection) -> None:
    connection.writer.transport.abort()


def declare(daemon: Daemon, receiver: Receiver) -> None:
    """Endpoints whose calls end, or wait, in every way."""

    def hook(name: str, phase: str = "on_success", **keys: Any) -> dict[str, Any]:
        keys.setdefault("retry", retry("300ms", 500))
        return {"name": name, "phase": phase, "url": f"{receiver.url}/hook/{name}", **keys}

    def endpoint(name: str, path: str, *webhooks: Any, method: str = "PUT", **keys: Any) -> None:
        keys.setdefault("retry", retry("300ms", 500))
        daemon.endpoint(f"shop/{name}", path, method=method, webhooks=list(webhooks), **keys)

    n = {"params": {"n": {"type": "integer"}}}
    daemon.api("shop", receiver.url, concurrency=50, breaker="off")
    endpoint("order", "/order", hook("ordered", payload={"n": "{{ params.n }}"}), method="POST",
             idempotent=False, body={"json": {"n": "{{ params.n }}"}}, **n)  # fmt: skip
    endpoint(
        "line", "/line", partition={"by": "{{ params.line }}", "ordered": True}, params=TYPES,
        headers={"X-Line": "{{ params.line }}", "X-N": "{{ params.n }}"},
    )  # fmt: skip
    endpoint("later", "/later", retry=retry("1h"))
    endpoint("down", "/down", retry=retry("50ms", 1), headers={"X-Id": "{{ task.id }}"})
    endpoint("hung", "/hung", timeout="120s")
    endpoint("gone", "/gone")
    endpoint("unsure", "/unsure", method="POST", idempotent=False)
    endpoint("expired", "/expired", retry={**retry("2s"), "give_up_after": "1s"})
    endpoint("paused", "/ok")
    endpoint("leaf", "/ok")
    endpoint("tree", "/tree", hook("run", "on_run_end"), method="GET",
             then=[{"call": "shop/leaf", "each": "[body, body, body]"}])  # fmt: skip
    endpoint("shut", "/ok", hook("shut"))
    endpoint("flaky", "/ok", hook("flaky"))
    endpoint("batched", "/ok", hook("batch", batch={"every": "20s"}))
    endpoint("unreadable", "/ok", hook("unreadable", payload="{{ params.n.no.such }}"), **n)
    endpoint("tick", "/tick", schedule={"every": "1s"}, method="GET",
             headers={"X-Slot": "{{ task.scheduled_at }}", "X-Id": "{{ task.id }}"})  # fmt: skip
    daemon.write("apis/shop/endpoints/event.yaml", {"type": "event", "webhooks": [hook("event")]})


@dataclass
class Filled:
    """What a queue holds, by what was asked of it."""

    ids: dict[str, list[int]]
    bulk: int


def fill(daemon: Daemon, world: World) -> Filled:
    """Have tasks in every state, and a bulk under way."""
    ids: dict[str, list[int]] = defaultdict(list)

    def call(name: str, **params: Any) -> int:
        ids[name].append(daemon.call(f"shop/{name}", **params))
        return ids[name][-1]

    assert daemon.post("/v1/endpoints/shop/paused/pause").status_code == 200
    assert daemon.post("/v1/endpoints/shop/leaf/pause").status_code == 200
    for index in range(LINES * LINE):
        call("line", line=index % LINES, n=index // LINES)
    ids["down"] = daemon.batch("shop/down", [{}] * BULK)
    names = "later hung gone unsure expired paused tree shut flaky batched batched event"
    for name in names.split():
        call(name)
    call("unreadable", n=1)
    ids["delayed"] = [daemon.call("shop/order", "1h", n=-1) for _ in range(2)]
    assert daemon.post(f"/v1/retries/{ids['delayed'][0]}/cancel").status_code == 202
    for name in "gone unsure expired tree shut flaky batched event unreadable down".split():
        for id_ in ids[name]:
            daemon.finish(id_)
    until(lambda: world.receiver.count("/hung") and world.receiver.count("/later"), "what waits")
    until(lambda: world.receiver.count("/hook/shut"), "the webhook that is shut")
    until(lambda: daemon.tasks(webhook="flaky", status="pending"), "a delivery that waits")
    until(lambda: daemon.tasks(webhook="unreadable", status="failed"), "a failed delivery")
    ids["leaf"] = [task["id"] for task in daemon.tasks(endpoint="shop/leaf")]
    assert len(ids["leaf"]) == 3
    bulk = daemon.post("/v1/retries/trigger", {"filter": {"endpoint": "shop/down"}, "rate": "5/s"})
    assert bulk.json()["matched"] == BULK, bulk.text
    return Filled(ids, bulk.json()["bulk"])


class Load:
    """Clients that make one call after the other, each until it is accepted."""

    def __init__(self, *daemons: Daemon) -> None:
        self._daemons = daemons
        self._numbers = itertools.count()
        self._ended = threading.Event()
        self.accepted: dict[int, int] = {}
        """The ids of calls by their `n`."""
        self.refused: list[str] = []

    def more(self) -> None:
        """Wait until so many more are accepted."""
        count = len(self.accepted) + LOAD
        until(lambda: self.refused or len(self.accepted) >= count, "calls")
        assert not self.refused

    def _work(self, daemon: Daemon) -> None:
        while not self._ended.is_set():
            n = next(self._numbers)
            while n not in self.accepted and not self.refused:
                self._try(daemon, n)
            self._ended.wait(0.02)

    def _try(self, daemon: Daemon, n: int) -> None:
        path, key = "/v1/endpoints/shop/order/calls", {"Idempotency-Key": f"order-{n}"}
        client = SocketClient(str(daemon.socket))
        try:
            _, answer = client.request("POST", path, {"params": {"n": n}}, key)
        except RequestRefused as refusal:
            self.refused.append(str(refusal))
        except CommandError:
            self._ended.wait(0.1)  # between two versions
        else:
            self.accepted[n] = answer["id"]

    @contextmanager
    def __call__(self) -> Iterator[None]:
        clients = [
            threading.Thread(target=self._work, args=(daemon,))
            for daemon in self._daemons
            for _ in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        try:
            yield
        finally:
            self._ended.set()
            for client in clients:
                client.join()


def check_kept(before: Sequence[dict[str, Any]], daemon: Daemon, filled: Filled) -> None:
    """What had ended has ended in the same way, and what waits is due when it was."""
    now = {task["id"]: task for task in daemon.tasks()}
    moving = {*filled.ids["down"], *filled.ids["hung"], *filled.ids["line"]}
    for task in before:
        kept = now.get(task["id"])
        assert kept is not None, f"lost: {task}"
        same = ["kind", "endpoint", "webhook", "params", "parent_id", "created_at"]
        if task["status"] in ("succeeded", "failed", "cancelled") and task["id"] not in moving:
            same += ["status", "reason", "attempts", "last_status_code", "finished_at"]
        elif task["id"] in (*filled.ids["later"], *filled.ids["delayed"]):
            same += ["status", "next_try", "attempts"]
        assert {key: kept[key] for key in same} == {key: task[key] for key in same}


def batched(world: World) -> list[int]:
    """The calls that deliveries of batches tell of."""
    told = [request.json()["data"]["first"] for request in world.receiver.received("/hook/batch")]
    return [one["task_id"] for first in told for one in first]


def finish(daemon: Daemon, world: World, filled: Filled) -> None:
    """Have all that waits succeed, and end."""
    world.mend()
    for name in ("paused", "leaf"):
        assert daemon.post(f"/v1/endpoints/shop/{name}/resume").status_code == 200
    for id_ in filled.ids["later"]:
        assert daemon.post(f"/v1/retries/{id_}/trigger").status_code == 202
    filled.ids["batched"] += [daemon.call("shop/batched") for _ in range(2)]
    until(lambda: len(batched(world)) >= len(filled.ids["batched"]), "the deliveries of batches")
    for name in "paused later hung line down leaf".split():
        daemon.settle(endpoint=f"shop/{name}")
    daemon.settle(kind="webhook")
    until(lambda: daemon.get(f"/v1/bulks/{filled.bulk}").json()["finished_at"], "the bulk's end")


def check(daemon: Daemon, world: World, filled: Filled, load: Load, killed: bool) -> None:
    """Nothing was lost, doubled, or out of order."""
    receiver = world.receiver
    tasks = {task["id"]: task for task in daemon.tasks()}
    ways = Counter((task["status"], task["reason"]) for task in tasks.values())
    print(f"{len(load.accepted)} calls; {dict(ways)}")
    for reason in "not_retryable ambiguous expired webhook_disabled invalid_payload".split():
        assert ways["failed", reason] >= 1, ways
    sent = Counter(request.json()["n"] for request in receiver.received("/order"))
    assert len(set(load.accepted.values())) == len(load.accepted)
    for n, id_ in load.accepted.items():
        task = tasks[id_]
        unsure = killed and task["reason"] == "ambiguous"
        assert (task["status"] == "succeeded" and sent[n] == 1) or (unsure and sent[n] <= 1), task
    assert set(sent) <= set(load.accepted)
    for name in "later paused hung line leaf".split():
        assert {tasks[id_]["status"] for id_ in filled.ids[name]} == {"succeeded"}, name
    for line, numbers in world.order.items():
        assert list(dict.fromkeys(numbers)) == list(range(LINE)), line
        assert killed or len(numbers) == LINE, numbers
    assert len(world.order) == LINES
    again = Counter(request.headers["x-id"] for request in receiver.received("/down"))
    assert all(killed or count == 2 for count in again.values()), again
    slots = defaultdict(set)
    for request in receiver.received("/tick"):
        slots[request.headers["x-slot"]].add(request.headers["x-id"])
    assert all(len(ids) == 1 for ids in slots.values()), slots
    for hook in ("flaky", "event", "run"):
        ids = {request.headers["webhook-id"] for request in receiver.received(f"/hook/{hook}")}
        assert len(ids) == 1, (hook, ids)
    assert killed or sorted(batched(world)) == sorted(filled.ids["batched"])
    of_orders = Counter(r.headers["webhook-id"] for r in receiver.received("/hook/ordered"))
    succeeded = sum(tasks[id_]["status"] == "succeeded" for id_ in load.accepted.values())
    assert len(of_orders) == succeeded
    n, id_ = next(iter(load.accepted.items()))
    same = {"params": {"n": n}}, {"Idempotency-Key": f"order-{n}"}
    repeat = daemon.post("/v1/endpoints/shop/order/calls", same[0], headers=same[1])
    assert (repeat.status_code, repeat.json()["id"]) == (200, id_)


@contextmanager
def running(
    tmp_path_factory: pytest.TempPathFactory, receiver: Receiver, **settings: Any
) -> Iterator[AnyVersion]:
    allow = {"allow": [receiver.address]}
    with AnyVersion(tmp_path_factory.mktemp("d"), egress=allow, **settings) as daemon:
        daemon.by_command = True
        daemon.expect("a password is written out", "knows schema")
        declare(daemon, receiver)
        yield daemon


@pytest.mark.parametrize("commit", VERSIONS)
def test_two_versions_share_a_queue(
    commit: str, installed: Callable[[str], Version], tmp_path_factory: pytest.TempPathFactory,
    receiver: Receiver, postgres: Postgres,
) -> None:  # fmt: skip
    """Where the older one can use the newer schema; else it ends, and what it had is taken over."""
    old, world = installed(commit), World(receiver)
    settings = {"lease": LEASE, "drain_timeout": "1s", "database": postgres.create()}
    with (
        running(tmp_path_factory, receiver, **settings) as older,
        running(tmp_path_factory, receiver, **settings) as newer,
    ):
        if not old.can_stay:
            older.expect("the database refused: column")
        older.python = old.python
        older.start()
        filled, load = fill(older, world), Load(older, newer)
        with load():
            load.more()
            before = older.tasks()
            newer.start()
            load.more()
            older.kill()
            load.more()
            older.python = sys.executable
            older.start()
            load.more()
        check_kept(before, newer, filled)
        finish(newer, world, filled)
        check(newer, world, filled, load, killed=True)


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
@pytest.mark.parametrize("commit", VERSIONS)
def test_this_version_takes_a_queue_over(
    commit: str, database: str, installed: Callable[[str], Version],
    tmp_path_factory: pytest.TempPathFactory, receiver: Receiver, postgres: Postgres,
) -> None:  # fmt: skip
    """On SQLite the older one is stopped, on PostgreSQL it is killed."""
    old, world, killed = installed(commit), World(receiver), database == "postgres"
    settings: dict[str, Any] = {"lease": LEASE, "drain_timeout": "1s"}
    if killed:
        settings["database"] = postgres.create()
    with running(tmp_path_factory, receiver, **settings) as daemon:
        daemon.python = old.python
        daemon.start()
        filled, load = fill(daemon, world), Load(daemon)
        with load():
            load.more()
            until(lambda: world.receiver.count("/down") > BULK, "the bulk's first steps")
            before = daemon.tasks()
            daemon.kill() if killed else daemon.stop()
            daemon.python = sys.executable
            daemon.start()
            load.more()
        check_kept(before, daemon, filled)
        finish(daemon, world, filled)
        check(daemon, world, filled, load, killed)
        assert daemon.stop() == 0
        daemon.python = old.python
        if old.can_stay:
            daemon.start()
            daemon.finish(daemon.call("shop/order", n=-2))
        else:
            daemon.launch()
            assert daemon.wait() != 0
            assert "needs a version of orchestratord that knows schema" in daemon.log()
            daemon.python = sys.executable
            daemon.start()
            assert len(daemon.tasks()) >= len(before)
