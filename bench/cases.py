"""All that can be measured, by name.

A race sends requests and is told by their rate; a measure has figures of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import dashboard, overload
from bench.environment.daemon import CONCURRENCY, ROOM
from bench.environment.folder import Folder
from bench.environment.servers import Nginx
from bench.measures import (
    accept,
    calls,
    commands,
    connections,
    counts,
    crowd,
    deliveries,
    events,
    front_door,
    hanging,
    lateness,
    locked,
    memory,
    pruned,
    shared_queue,
    startup,
)  # fmt: skip
from bench.measures.drain import Drained
from bench.peers.bullmq import BullMQ
from bench.peers.dramatiq import Dramatiq, LeanDramatiq
from bench.peers.graphile import Graphile
from bench.peers.huey import Huey
from bench.peers.node_peer import NodePeer
from bench.peers.peer import Peer
from bench.results.figures import Figure

SENT = 20_000
"""Requests of a race, for those that send up to some thousands a second."""
SENT_BY_FAST = 60_000
"""For those that would be through with it before they are warm."""
PEERS: tuple[Peer, ...] = (Huey(), Dramatiq(), LeanDramatiq(), BullMQ(), Graphile())
WORKERS = 2
"""As many as the machine of the figures in the docs has cores."""
DAEMONS = 2
QUICK = 10
"""A quick run does a tenth."""


@dataclass(frozen=True, slots=True)
class Race:
    """One contestant."""

    name: str
    what: str
    requests: int
    settings: str
    run: Callable[[Path, Nginx], Drained]


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing that is measured of orchestratord alone."""

    name: str
    settings: str
    run: Callable[[Path, Nginx], Iterable[Figure]]


Case = Race | Measure


def own(quick: bool) -> Iterator[Case]:
    """What is measured of orchestratord."""
    part = QUICK if quick else 1
    sent = SENT // part
    made = SENT // 2 // part
    yield Race(
        "deliveries",
        "orchestratord, webhook deliveries",
        sent,
        f"concurrency {ROOM}; {deliveries.RECEIVERS} receivers (ports), ten deliveries in "
        "flight to each; payload of 1 KB, signed",
        partial(deliveries.measure, count=sent),
    )
    yield Race(
        "calls",
        "orchestratord, calls with a webhook each",
        2 * made,
        f"concurrency {ROOM}, of the API {CONCURRENCY}; two requests a call: a POST of 1 KB from a "
        "template, and a webhook with the standard envelope, signed",
        partial(calls.measure, count=made),
    )
    alone = f"concurrency {ROOM}, of the API {CONCURRENCY}; a POST of 1 KB from a template a call"
    yield Race("calls-alone", "orchestratord, calls of one request", sent, alone,
               partial(calls.measure, count=sent, told=False))  # fmt: skip
    for name, what, race in (
        ("deliveries", "webhook deliveries", partial(deliveries.measure, count=sent)),
        ("calls", "calls with a webhook each", partial(calls.measure, count=made)),
        ("calls-alone", "calls of one request", partial(calls.measure, count=sent, told=False)),
    ):
        yield Race(
            f"{name}-{WORKERS}",
            f"orchestratord with {WORKERS} workers, {what}",
            sent,
            f"the same, and workers: {WORKERS}",
            partial(race, workers=WORKERS),
        )
    yield Race(
        "calls-then",
        "orchestratord, calls with a webhook and one more call each",
        3 * made,
        "as calls; `then` makes the further call, and a second webhook, for 5xx, does not match",
        partial(calls.measure, count=made, followed=True),
    )
    for name, what, fleet in (
        ("", "", {}),
        (f"-{WORKERS}", f" with {WORKERS} workers", {"workers": WORKERS}),
        (f"-{DAEMONS}-daemons", f", {DAEMONS} daemons", {"daemons": DAEMONS}),
    ):
        yield Race(
            f"calls-postgres{name}",
            f"orchestratord on PostgreSQL{what}, calls with a webhook each",
            2 * made,
            f"as calls; concurrency {shared_queue.CONCURRENCY:,} of a daemon",
            partial(shared_queue.measure, count=made, told=True, **fleet),
        )
    yield Measure(
        "accept",
        "one connection, one batch after the other; the endpoint is paused",
        _alone(partial(accept.measure, count=100_000 // part)),
    )
    for workers in (1, WORKERS):
        yield Measure(
            "front-door" if workers == 1 else f"front-door-{workers}",
            "params of 1 KB; one call after the other on each connection; the endpoint is paused",
            _alone(partial(front_door.measure, count=20_000 // part, workers=workers)),
        )
    yield Measure(
        "events",
        f"{events.CONNECTIONS} connections; each event's data are checked by its schema",
        _alone(partial(events.measure, count=20_000 // part)),
    )
    yield Measure(
        "lateness",
        f"concurrency {ROOM}, of the API {CONCURRENCY}; arrival by the receiver's log",
        lateness.measure,
    )
    yield Measure(
        f"lateness-{WORKERS}",
        f"the same, and workers: {WORKERS}",
        partial(lateness.measure, workers=WORKERS),
    )
    yield Measure(
        "hanging",
        "concurrency as shipped: 100, and 10 in each API",
        partial(hanging.measure, in_front=20_000 // part, each=2_000 // part),
    )
    yield Measure(
        "overload",
        "a receiver that serves 200 in any second, and answers 503 beyond; retries as by default",
        _alone(partial(overload.measure_overload, calls=5_000 // part)),
    )
    yield Measure(
        "refusals",
        "receivers that refuse at random, or each call once; tried again after 100 ms",
        _alone(partial(overload.measure_refusals, tasks=3_000, seconds=20 // part)),
    )
    for seconds in (1.0,) if quick else (1.0, 5.0):
        yield Measure(
            f"crowd-{seconds:g}s",
            f"concurrency {5_000 // part:,}, of the API too; a connection for each",
            _alone(partial(crowd.measure, in_flight=5_000 // part, seconds=seconds)),
        )
    yield Measure(
        "connections",
        "just after the crowd has connected",
        _alone(partial(connections.measure, count=3_000 // part)),
    )
    yield Measure(
        "locked",
        f"PostgreSQL with its defaults; a call every {locked.EACH * 1000:g} ms and what it takes",
        _alone(partial(locked.measure, seconds=60 // part)),
    )
    if os.geteuid() == 0:
        yield Measure(
            "pruned",
            "the queue has filled a disk of its own; then retention removes all of it",
            _alone(partial(pruned.measure, megabytes=128 // part)),
        )
    yield Measure(
        "counts",
        f"{dashboard.ENDPOINTS} endpoints; of ten tasks nine have succeeded, half of the rest wait",
        _alone(partial(counts.measure, sizes=(1_000_000 // part, 10_000_000 // part))),
    )
    for name, waiting in (("memory", 0), ("memory-million", 1_000_000 // part)):
        yield Measure(
            name,
            f"concurrency {ROOM}, of the API {CONCURRENCY}",
            partial(memory.measure, count=made, waiting=waiting),
        )
    yield Measure(
        "startup",
        f"READY=1 to the service manager; the median of {startup.STARTS} starts; no task waits",
        _alone(partial(startup.measure, endpoints=1_000 // part)),
    )
    yield Measure(
        "commands",
        f"the median of {commands.RUNS} runs, beside a daemon that does nothing",
        _alone(partial(commands.measure, endpoints=1_000 // part)),
    )


def peers(folder: Folder) -> Iterator[Case]:
    """The other queues; they have to be installed by the time that one is run."""
    for peer in PEERS:
        count = SENT_BY_FAST if peer.fast else SENT
        run = partial(peer.measure, folder, count=count)
        yield Race(peer.name, peer.name, count, peer.settings, run)
    for node in (peer for peer in PEERS if isinstance(peer, NodePeer)):
        for workers in (1, WORKERS):
            several = f"-{workers}" if workers > 1 else ""
            yield Race(
                f"{node.name}-calls{several}",
                f"{node.name}{f' with {workers} processes' if several else ''}, jobs that POST and "
                "queue one that posts the signed envelope",
                SENT,
                f"{node.settings}{f', {workers} such processes' if several else ''}",
                partial(node.measure, folder, count=SENT // 2, told=True, workers=workers),
            )
        run_add = partial(node.add, folder, count=SENT)
        yield Measure(f"{node.name}-add", f"{node.settings}; nothing works on the jobs", run_add)
    for peer in PEERS:
        run_late = partial(peer.lateness, folder, count=lateness.COUNT)
        yield Measure(f"{peer.name}-lateness", peer.settings, run_late)


def _alone(run: Callable[[Path], Iterable[Figure]]) -> Callable[[Path, Nginx], Iterable[Figure]]:
    """For what needs no receiver, or brings its own."""
    return lambda home, nginx: run(home)
