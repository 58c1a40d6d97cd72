"""What several daemons on one PostgreSQL do, and what its size and old transactions cost them.

\b
    python -m bench.fleet               1, 2 and 4 daemons, and graphile-worker beside them
    python -m bench.fleet cpu           where the time of two daemons goes
    python -m bench.fleet claims        claims and settlements at 10 thousand and 1 million rows
    python -m bench.fleet claims --large     10 million as well: 18 GB of disk and of memory
    python -m bench.fleet horizon       claims while a transaction stays open, ten minutes long

The server is one of its own with PostgreSQL's defaults, fsync included; the work is that of
`bench`: a POST of 1 KB to an nginx for each call, durably marked done.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click
import psycopg

from bench.environment.folder import Folder
from bench.environment.postgres import queue_url, server
from bench.environment.servers import Nginx
from bench.measures import shared_queue
from bench.measures.claims import AT_ONCE, claim, settle, sizes
from bench.measures.drain import Drained
from bench.measures.shared_queue import PARTS, POST
from bench.peers.graphile import Graphile
from bench.results.table import Table
from orchestratord.model.task import NewTask
from orchestratord.queue.operations import claim as claims
from orchestratord.queue.operations import effects, manual
from orchestratord.queue.operations import settle as settling
from orchestratord.queue.records import Insert
from orchestratord.queue.store import Store
from orchestratord.runtime import fleet

WITHOUT, WITH, LAST = "without", "with", "the last minute with"

# -- throughput ------------------------------------------------------------------------------------


def race(count: int, daemons: int, spent: dict[str, float] | None = None) -> Drained:
    """Empty a queue of `count` calls by so many daemons; `spent` is given the CPU seconds of each
    kind of thread."""
    with _place() as (home, nginx):
        return shared_queue.measure(home / "race", nginx, count, daemons=daemons, spent=spent)


def peer(count: int, folder: Folder) -> Drained:
    """graphile-worker at the same work, as `bench` has it."""
    with _place() as (home, nginx):
        return Graphile().measure(folder, home / "peer", nginx, count)


@contextmanager
def _place() -> Iterator[tuple[Path, Nginx]]:
    """A folder that other users get at, and a receiver."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        home = Path(name)
        home.chmod(0o755)
        with Nginx(home / "nginx") as nginx:
            yield home, nginx


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
                    new = [Insert(NewTask("call", POST.endpoint_id, {"n": 1}))] * AT_ONCE
                    await store.write(effects.enqueue(new))
                    took, tasks = await claim(store, [POST])
                    await settle(store, tasks)
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
        await store.read(manual.paused())
        await store.read(settling.last_success())
        await claims.reclaim(store)
        if began >= queue:
            store.expect(await store.read(claims.earliest()))
            took = time.monotonic() - began
            queue = began + min(max(fleet.LOOK, fleet.BUSY_LOOK * took), fleet.LONGEST_LOOK)
        await asyncio.sleep(fleet.LOOK)


# -- the command -----------------------------------------------------------------------------------


def races(count: int, rounds: int, folder: Path) -> Table:
    """All of them once a round, in turn: what disturbs the machine disturbs them alike."""
    runners: dict[str, Callable[[], Drained]] = {
        f"{number} daemon{'s' * (number > 1)}": partial(race, count, number) for number in (1, 2, 4)
    }
    if folder.name != "none":
        place = Folder(folder.expanduser())
        place.install()
        runners["graphile-worker"] = partial(peer, count, place)
    found: dict[str, list[Drained]] = {}
    for _ in range(rounds):
        for name, runner in runners.items():
            found.setdefault(name, []).append(runner())
    table = Table(("medians", "calls/s", "least", "most", "CPU s for 1,000 calls"), [])
    for name, results in found.items():
        rates = [drained.rate for drained in results]
        cpu = statistics.median(drained.cpu for drained in results)
        figures = (statistics.median(rates), min(rates), max(rates))
        table.rows.append((name, *(f"{rate:,.0f}" for rate in figures), f"{cpu:.2f}"))
    return table


def parts(count: int, rounds: int) -> Table:
    """Where the CPU time of two daemons goes, by what the kernel counts for each thread."""
    found: list[dict[str, float]] = []
    for _ in range(rounds):
        spent: dict[str, float] = {}
        race(count, 2, spent)
        found.append(spent)
    table = Table(("medians", "µs of CPU for a call"), [])
    for name in PARTS:
        seconds = statistics.median(spent[name] for spent in found)
        table.rows.append((name, f"{seconds / count * 1e6:.0f}"))
    return table


@click.command(help=__doc__)
@click.argument(
    "what", type=click.Choice(["daemons", "cpu", "claims", "horizon"]), default="daemons"
)
@click.option("--count", default=60_000, show_default=True, help="calls of `daemons` and `cpu`")
@click.option("--rounds", default=3, show_default=True, help="how often they are made")
@click.option("--large", is_flag=True, help="a table of 10 million rows as well")
@click.option("--set", "settings", multiple=True, help="NAME=VALUE: tried with the largest table")
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
    settings: Sequence[str],
    minutes: float,
    rate: int,
    rounds: int,
    folder: Path,
) -> None:
    table = Table((), [])
    if what == "daemons":
        table = races(count, rounds, folder)
    elif what == "cpu":
        table = parts(count, rounds)
    elif what == "claims":
        table = sizes(large, settings)
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
