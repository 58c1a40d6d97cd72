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
ROUNDS, UNCOUNTED = 30, 3
SIZES = {"10 thousand": 10_000, "1 million": 1_000_000}
LARGE = {"10 million": 10_000_000}
WAITING_KEYS = 10_000
NEXT_WEEK_MS = 7 * 24 * 3600 * 1000
WITHOUT, WITH, LAST = "without", "with", "the last minute with"

FULL = Key("full/key")

FILL = """
INSERT INTO retry_schedule (kind, endpoint_id, webhook, status, attempts, max_attempts, next_try,
    payload, finished_at, last_status_code, created_at, updated_at, scheduled_at)
SELECT 'call',
    CASE i % 10 WHEN 0 THEN 'full/key' ELSE 'waiting/key' || (i / 10 % {keys}) END, '',
    CASE WHEN i % 10 > 4 THEN 'succeeded' ELSE 'pending' END, 0, 15,
    CASE WHEN i % 10 > 4 THEN NULL WHEN i % 10 = 0 THEN {now} - 60000 + i % 1009
        ELSE {now} + 86400000 + i END,
    repeat('x', 1000), CASE WHEN i % 10 > 4 THEN {now} END, '200', {now}, {now}, {now}
FROM generate_series(1, {rows}) AS i
"""
"""Half has succeeded, a tenth is due in one key, and lies everywhere in the table; the rest is due
tomorrow, in 10,000 keys or as many as have 40."""
LOADING = {"fsync": "off", "shared_buffers": "2GB", "max_wal_size": "16GB",
           "maintenance_work_mem": "1GB", "autovacuum": "off"}  # fmt: skip
"""How the server runs while rows are loaded."""


def queue_url(server: Postgres) -> str:
    """The database as orchestratord takes it."""
    return server.url.replace("postgres://", "postgresql://", 1)


@contextmanager
def folder_for_server() -> Iterator[Path]:
    """A folder that the user of a server can reach."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "database"


@contextmanager
def server(home: Path | None = None, **options: str) -> Iterator[Postgres]:
    """A PostgreSQL with its defaults but for `options`; without `home` one that is empty."""
    with ExitStack() as stack:
        where = home or stack.enter_context(folder_for_server())
        running = stack.enter_context(Postgres(where, **options))
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


def fill(url: str, rows: int) -> None:
    """Load so many rows; their indexes are built afterwards, which is quicker."""
    values = {"rows": rows, "now": int(time.time() * 1000), "keys": _keys(rows)}
    with psycopg.connect(url, autocommit=True) as session:
        indexes = session.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'retry_schedule' "
            "AND indexname NOT LIKE '%pkey'"
        ).fetchall()
        for name, _ in indexes:
            session.execute(f"DROP INDEX {name}")
        session.execute(FILL.format(**values))
        for _, definition in indexes:
            session.execute(definition)
        session.execute("VACUUM ANALYZE retry_schedule")
        session.execute("CHECKPOINT")


def _keys(rows: int) -> int:
    return min(WAITING_KEYS, rows // 100)


async def make(url: str) -> None:
    """The tables, empty."""
    await (await Store.open(url)).close()


async def claims(url: str, rows: int) -> dict[str, list[float]]:
    """What claiming and settling 100 takes (ms), in a table of so many rows."""
    store = await Store.open(url)
    one, ten, settle = "claim 100 of 1 key", "claim 100 of 10 keys", "settle 100"
    times: dict[str, list[float]] = {one: [], ten: [], settle: []}
    # Of the 10 thousand a tenth is due.
    rounds = min(ROUNDS, rows // 10 // AT_ONCE - UNCOUNTED)
    try:
        for number in range(rounds + UNCOUNTED):
            first = 10 * number
            some = [Key(f"waiting/key{n % _keys(rows)}") for n in range(first, first + 10)]
            for step, keys in ((one, [FULL]), (ten, some)):
                took, tasks = await _claim(store, keys, 1_000 if step == one else NEXT_WEEK_MS)
                settled = await _settle(store, tasks)
                if number >= UNCOUNTED:
                    times[step].append(took)
                    times[settle].append(settled)
    finally:
        await store.close()
    return times


async def _claim(store: Store, keys: Sequence[Key], ahead: int = 1_000) -> tuple[float, list[Task]]:
    """How long it takes to claim what is due, or will be in `ahead` milliseconds."""
    until = int(time.time() * 1000) + ahead
    picks = [Pick(key, AT_ONCE // len(keys), True, until) for key in keys]
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
@click.option("--memory", multiple=True, help="shared_buffers of `claims` beside the default")
@click.option("--minutes", default=10.0, show_default=True, help="how long `horizon` takes")
@click.option("--rate", default=2_000, show_default=True, help="tasks a second of `horizon`")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("~/.cache/orchestratord-bench"),
    show_default=True,
    help="where graphile-worker is installed; `none` leaves it out",
)
def main(
    what: str,
    count: int,
    large: bool,
    memory: Sequence[str],
    minutes: float,
    rate: int,
    folder: Path,
) -> None:
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
        table.head = ("ms, medians", "shared_buffers")
        for words, rows in {**SIZES, **(LARGE if large else {})}.items():
            with folder_for_server() as home:
                with server(home, **LOADING) as database:
                    asyncio.run(make(queue_url(database)))
                    fill(queue_url(database), rows)
                # The smallest one is used up by then, and fits into any.
                for size in ("128MB", *(memory if rows > SIZES["10 thousand"] else ())):
                    with server(home, shared_buffers=size) as database:
                        times = asyncio.run(claims(queue_url(database), rows))
                    table.head = (*table.head[:2], *times)
                    medians = (f"{statistics.median(took):.1f}" for took in times.values())
                    table.rows.append((words, size, *medians))
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
