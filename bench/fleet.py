"""What several daemons on one PostgreSQL do, and what its size and old transactions cost them.

\b
    python -m bench.fleet               1, 2 and 4 daemons, and graphile-worker beside them
    python -m bench.fleet claims        claims and settlements at 10 thousand and 1 million rows
    python -m bench.fleet claims --large     10 million as well; it takes long, and 15 GB of disk
    python -m bench.fleet horizon       claims while a transaction stays open, ten minutes long

The server is one of its own with PostgreSQL's defaults, fsync included; the work is that of
`bench`: a POST of 1 KB to an nginx for each call, durably marked done.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
import psycopg

from bench.daemon import BATCH, TEXT, daemon, declare_post
from bench.drain import Drained, drain
from bench.folder import Folder
from bench.peers.graphile import Graphile
from bench.servers import Nginx, Postgres
from bench.table import Table
from orchestratord import fleet
from orchestratord.queue.records import Insert, Pick, Settlement
from orchestratord.queue.store import Store
from orchestratord.task import Attempt, Key, NewTask, Task
from tests.acceptance.control import Control

POST = Key("bench/post")
CONCURRENCY = 1_000
"""Of each daemon. 64 are in flight at once, as many as its API may have; some hundreds more are
claimed ahead, for which graphile-worker has a local queue of 500."""
AT_ONCE = 100
ROUNDS = 30
SIZES = {"10 thousand": 10_000, "1 million": 1_000_000}
LARGE = {"10 million": 10_000_000}
WAITING_KEYS = 10_000
WITHOUT, WITH, LAST = "without", "with", "the last minute with"

FILL = """
INSERT INTO retry_schedule (kind, endpoint_id, webhook, status, attempts, max_attempts, next_try,
    payload, finished_at, last_status_code, created_at, updated_at, scheduled_at)
SELECT 'call',
    CASE i % 10 WHEN 0 THEN 'full/key' ELSE 'waiting/key' || (i % %(keys)s) END, '',
    CASE WHEN i % 10 > 4 THEN 'succeeded' ELSE 'pending' END, 0, 15,
    CASE WHEN i % 10 > 4 THEN NULL WHEN i % 10 = 0 THEN %(now)s - 60000 + i % 1000
        ELSE %(now)s + 86400000 + i END,
    repeat('x', 1000), CASE WHEN i % 10 > 4 THEN %(now)s END, '200', %(now)s, %(now)s, %(now)s
FROM generate_series(1, %(rows)s::int) AS i
"""
"""Half has succeeded, a tenth is due in one key, the rest is due tomorrow in 10,000 keys."""


def queue_url(server: Postgres) -> str:
    """The database as orchestratord takes it."""
    return server.url.replace("postgres://", "postgresql://", 1)


@contextmanager
def server() -> Iterator[Postgres]:
    """A PostgreSQL with its defaults, in a folder that its user can reach."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        Path(folder).chmod(0o755)
        with Postgres(Path(folder) / "database") as running:
            while not _answers(queue_url(running)):
                time.sleep(0.05)
            yield running


def _answers(url: str) -> bool:
    """A server that listens may still be starting."""
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


# -- throughput ------------------------------------------------------------------------------------


def race(count: int, daemons: int) -> Drained:
    """Empty a queue of `count` calls by so many daemons."""
    with tempfile.TemporaryDirectory(prefix="bench-") as home, ExitStack() as stack:
        database = stack.enter_context(server())
        nginx = stack.enter_context(Nginx(Path(home) / "nginx"))
        asyncio.run(_queue(queue_url(database), count))
        started = []
        for number in range(daemons):
            made = stack.enter_context(
                daemon(
                    Path(home) / f"d{number}",
                    database=queue_url(database),
                    concurrency=CONCURRENCY,
                )
            )
            declare_post(made, nginx)
            made.expect("a password is written out")
            started.append(made.start())
        first: Control = started[0]
        return drain(
            nginx, count,
            lambda: database.ask("SELECT count(*) FROM retry_schedule WHERE status <> 'succeeded'"),
            [made.pid for made in started], [database.pid],
            lambda: first.post("/v1/endpoints/bench/post/resume"),
        )  # fmt: skip


async def _queue(url: str, count: int) -> None:
    store = await Store.open(url)
    try:
        await store.pause(POST.endpoint_id, True)
        for first in range(0, count, BATCH):
            numbers = range(first, min(first + BATCH, count))
            await store.enqueue(
                [Insert(NewTask("call", POST.endpoint_id, {"number": n, "text": TEXT}))
                 for n in numbers]
            )  # fmt: skip
    finally:
        await store.close()


def peer(count: int, folder: Folder) -> Drained:
    """graphile-worker at the same work, as `bench` has it."""
    with tempfile.TemporaryDirectory(prefix="bench-") as home:
        Path(home).chmod(0o755)
        with Nginx(Path(home) / "nginx") as nginx:
            return Graphile().measure(folder, Path(home) / "peer", nginx, count)


# -- claims ----------------------------------------------------------------------------------------


async def claims(url: str, rows: int, due: int) -> dict[str, list[float]]:
    """What claiming and settling 100 takes (ms), in a table of so many rows."""
    store = await Store.open(url)
    times: dict[str, list[float]] = {"claim 100 of 1 key": [], "claim 100 of 10 keys": [],
                                     "settle 100": []}  # fmt: skip
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(
            FILL.replace("%(", "\0(").replace("%", "%%").replace("\0(", "%("),
            {"rows": rows, "now": int(time.time() * 1000), "keys": WAITING_KEYS},
        )
        session.execute("VACUUM ANALYZE retry_schedule")
        session.execute("CHECKPOINT")
    try:
        for step, keys in (
            ("claim 100 of 1 key", [POST]),
            ("claim 100 of 10 keys", [Key(f"bench/post{n}") for n in range(10)]),
        ):
            for key in keys:
                await store.enqueue([Insert(NewTask("call", key.endpoint_id, {"text": TEXT}))
                                     for _ in range(due // len(keys))])  # fmt: skip
            for number in range(-3, ROUNDS):
                took, tasks = await _claim(store, keys)
                settled = await _settle(store, tasks)
                if number >= 0:
                    times[step].append(took)
                    times["settle 100"].append(settled)
    finally:
        await store.close()
    return times


async def _claim(store: Store, keys: Sequence[Key]) -> tuple[float, list[Task]]:
    now = int(time.time() * 1000) + 1000
    picks = [Pick(key, AT_ONCE // len(keys), True, now) for key in keys]
    began = time.perf_counter()
    tasks = (await store.claim(picks)).tasks
    took = (time.perf_counter() - began) * 1000
    if len(tasks) != AT_ONCE:
        raise RuntimeError(f"{len(tasks)} were claimed")
    return took, tasks


async def _settle(store: Store, tasks: Sequence[Task]) -> float:
    now = int(time.time() * 1000)
    attempt = Attempt(1, now, 1.5, 200, None, None, "succeeded")
    done = [
        Settlement(task, "succeeded", now, status_code=200, attempt=attempt, last_success_at=now)
        for task in tasks
    ]
    began = time.perf_counter()
    settled = await asyncio.gather(*map(store.settle, done))
    if not all(item.accepted for item in settled):
        raise RuntimeError("a settlement was not accepted")
    return (time.perf_counter() - began) * 1000


# -- a transaction that stays open -----------------------------------------------------------------


async def horizon(url: str, seconds: float, rate: int) -> dict[str, list[float]]:
    """Claims under a load of `rate` tasks a second, while a session is idle in a transaction.

    The daemon's other work goes on beside them: looking for what others have queued, for what dead
    ones held, and at what is paused, with the pauses that `fleet` makes.
    """
    store = await Store.open(url)
    times: dict[str, list[float]] = {WITHOUT: [], WITH: [], LAST: []}
    looking = asyncio.create_task(_look(store))
    try:
        with psycopg.connect(url) as idle:
            for phase, length in ((WITHOUT, min(seconds / 4, 30)), (WITH, seconds)):
                if phase == WITH:
                    idle.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                    idle.execute("SELECT count(*) FROM retry_schedule")
                end, turn = time.monotonic() + length, time.monotonic()
                while (now := time.monotonic()) < end:
                    await store.enqueue([Insert(NewTask("call", POST.endpoint_id, {"n": 1}))
                                         for _ in range(AT_ONCE)])  # fmt: skip
                    took, tasks = await _claim(store, [POST])
                    await _settle(store, tasks)
                    times[phase].append(took)
                    if phase == WITH and now > end - 60:
                        times[LAST].append(took)
                    turn += AT_ONCE / rate
                    await asyncio.sleep(max(turn - time.monotonic(), 0))
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        await store.close()
    return times


async def _look(store: Store) -> None:
    """What a daemon does every few seconds."""
    queue = 0.0
    while True:
        began = time.monotonic()
        await store.paused()
        await store.last_success()
        await store.reclaim()
        if began >= queue:
            store.expect(await store.earliest())
            took = time.monotonic() - began
            queue = began + min(max(fleet.LOOK, fleet.BUSY_LOOK * took), fleet.LONGEST_LOOK)
        await asyncio.sleep(fleet.LOOK)


# -- the command -----------------------------------------------------------------------------------


@click.command(help=__doc__)
@click.argument("what", type=click.Choice(["daemons", "claims", "horizon"]), default="daemons")
@click.option("--count", default=60_000, show_default=True, help="calls of `daemons`")
@click.option("--large", is_flag=True, help="a table of 10 million rows as well")
@click.option("--minutes", default=10.0, show_default=True, help="how long `horizon` takes")
@click.option("--rate", default=2_000, show_default=True, help="tasks a second of `horizon`")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("~/.cache/orchestratord-bench"),
    show_default=True,
    help="where graphile-worker is installed; `none` leaves it out",
)
def main(what: str, count: int, large: bool, minutes: float, rate: int, folder: Path) -> None:
    table = Table((), [])
    if what == "daemons":
        table.head = ("", "calls/s", "CPU s for 1,000 calls")
        for number in (1, 2, 4):
            found = race(count, number)
            words = f"{number} daemon{'s' * (number > 1)}"
            table.rows.append((words, f"{found.rate:,.0f}", f"{found.cpu:.2f}"))
        if folder.name != "none":
            place = Folder(folder.expanduser())
            place.install()
            found = peer(count, place)
            table.rows.append(("graphile-worker", f"{found.rate:,.0f}", f"{found.cpu:.2f}"))
    elif what == "claims":
        for words, rows in {**SIZES, **(LARGE if large else {})}.items():
            with server() as database:
                times = asyncio.run(claims(queue_url(database), rows, AT_ONCE * (ROUNDS + 3)))
            table.head = ("ms, medians", *times)
            table.rows.append((words, *(f"{statistics.median(t):.1f}" for t in times.values())))
    else:
        with server() as database:
            times = asyncio.run(horizon(queue_url(database), minutes * 60, rate))
        table.head = ("claim of 100, ms", "median", "99 %", "worst", "claims")
        for phase, took in times.items():
            took.sort()
            high = took[int(len(took) * 0.99)]
            table.rows.append((f"{phase} an open transaction", f"{statistics.median(took):.1f}",
                               f"{high:.1f}", f"{took[-1]:.1f}", f"{len(took):,}"))  # fmt: skip
    click.echo(table.text())


if __name__ == "__main__":
    main(prog_name="python -m bench.fleet")
