"""One worker among several on one queue: what it says of itself, what it learns of the others.

No daemon leads, and no worker. Each one gives a sign of life, renews the leases of what it holds,
takes over what dead ones held, and looks every few seconds for what others have changed. Where the
queue carries messages, it hears of most of that at once; the looking goes on, and finds what was
missed. The workers of one process group are shown as one daemon.

Where one worker has a file of SQLite for itself, this only keeps its row.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import json
import logging
import math
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from orchestratord.engine.new.scheduler import Scheduler
from orchestratord.engine.worker import Worker
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.schedule_slots import spec
from orchestratord.model.settings import Config
from orchestratord.model.task import Key
from orchestratord.queue.daemon_health import Trouble
from orchestratord.queue.database import Workers
from orchestratord.queue.housekeeping import prune
from orchestratord.queue.operations import claim, daemons, manual, settle
from orchestratord.queue.records import Beat, DaemonSeen, HoldingBack, Wakeup
from orchestratord.queue.wakeup_text import FLAGS
from orchestratord.runtime.reload import Reloader
from orchestratord.runtime.throttle_keeper import ThrottleKeeper
from orchestratord.values import doc_links, world
from orchestratord.values.clock import rfc3339

log = logging.getLogger("orchestratord.fleet")

LOOK = 2.0
"""Seconds between two looks at what others have changed."""
LONGEST_LOOK = 60.0
CLEAN = 20.0
"""Seconds between two looks for what keeps the database from cleaning up."""
BUSY_LOOK = 20.0
"""A look into the whole queue that takes long is taken again after so many times as long."""
BEAT = 10.0
"""Seconds between two signs of life, at most; a third of the lease, where that is less."""
AWAY = 0.5
"""Seconds between two looks whether a database is back that could not be reached."""
GRACE = 10.0
"""Seconds after that in which no daemon is taken for dead, at most; the lease, where that is less:
the others could not give a sign of life either."""
DEAF = 60.0
"""Seconds after which plugins look at their tables again where no messages come through."""
STAGGER = (0.005, 0.03)
"""Seconds by which what others told of is begun with later: they may do it themselves."""
OLD_TRANSACTION = 300.0
"""Seconds; slots of replication may stand still for as long."""
LACKING = 20
"""Endpoints that are named of those that a daemon lacks."""
SILENT_AFTER = 15.0
"""Seconds without a sign of life from another worker after which the daemon is not ready."""
CHANGED_WITHIN = 1.0
"""Seconds in which all workers of a daemon have the configuration that one of them has."""


class Fleet:
    """What this daemon has to do with the others."""

    def __init__(
        self,
        worker: Worker,
        scheduler: Scheduler,
        reloader: Reloader,
        workers: Workers | None = None,
    ) -> None:
        """`workers`: of the process group, of which this is one; None for a daemon that has no
        others."""
        self._store = worker.store
        self._worker = worker
        self._scheduler = scheduler
        self._reloader = reloader
        self._group = self._store.owner if workers is None else workers.group
        self._number = 1 if workers is None else workers.number
        self.pid = os.getpid() if workers is None else os.getppid()
        """Of the daemon, as signals reach it."""
        self._dead: set[str] = set()
        """Workers of the group that have died, and what they held is not free yet."""
        self._beat_each = min(BEAT, self._store.lease / 3)
        self._grace = min(GRACE, self._store.lease)
        self._beaten = 0.0
        """When the last sign of life was begun (`world.monotonic`)."""
        self._started = world.monotonic()
        self.beat: float | None = None
        """When it last went on; None before, and while it does what may take long."""
        self._seen: list[DaemonSeen] = []
        """All workers of all daemons, this one included."""
        self._learned = -math.inf
        """When that was (`world.monotonic`)."""
        self._signs: Mapping[str, tuple[int, float]] = {}
        """Of the other workers of the group, by owner: the last sign of life, and since when that
        is known (`world.monotonic`), which no clock that was put forward makes longer."""
        self._now = 0
        """By the database's clock, at the last sign of life."""
        self._others: dict[str, Beat] = {}
        """What the workers of other daemons declare, by owner."""
        self._digests: dict[str, tuple[Endpoint, str]] = {}
        self._said: Beat | None = None
        self._said_for: Config | None = None
        self._wake = asyncio.Event()
        self._look_at_tables = asyncio.Event()
        """Plugins are to look at theirs again."""
        self._flags: set[str] = set()
        self._turned = False
        """A scope is throttled that was not, or the other way round, and the others are to know."""
        self._troubles: Mapping[str, Trouble] = {}
        """Those of this worker, as the others were notified of them last."""
        self.throttles = ThrottleKeeper(worker)
        self._look_at_all = False
        self.holding_back: list[HoldingBack] = []
        """What keeps the database from cleaning up."""

    # -- as it is shown --------------------------------------------------------------------------

    def daemons(self) -> list[dict[str, Any]]:
        """All daemons of the queue, as `/v1/status` shows them."""
        union: set[str] = set()
        said = {**self._others, self._store.owner: self._said or Beat()}
        found = DaemonSeen.of_each_daemon(
            replace(one, lanes=self._worker.waiting_lanes()) if self._is_this(one) else one
            for one in self._seen
        )
        for daemon in found:
            if self._alive(daemon) and daemon.owner in said:
                union |= {name for name in said[daemon.owner].endpoints if "/" in name}
        plugins = {name for beat in said.values() for name in beat.plugins}
        shown = []
        for daemon in found:
            beat = said.get(daemon.owner, Beat())
            lacks = sorted(union - beat.endpoints.keys()) if daemon.owner in said else []
            shown.append(
                {
                    "owner": daemon.owner,
                    "host": daemon.host,
                    "pid": daemon.pid,
                    "version": daemon.version,
                    "generation": daemon.generation,
                    "started_at": rfc3339(daemon.started_at),
                    "heartbeat_at": rfc3339(daemon.beat_at),
                    "alive": self._alive(daemon),
                    "this": daemon.process_group == self._group,
                    "waiting": [_shown(lane) for lane in daemon.lanes],
                    "workers": [
                        {
                            "worker": one.worker,
                            "pid": one.pid,
                            "version": one.version,
                            "started_at": rfc3339(one.started_at),
                            "heartbeat_at": rfc3339(one.beat_at),
                            "alive": self._alive(one),
                            "troubles": [trouble.why for trouble in one.troubles],
                        }
                        for one in daemon.workers
                    ],
                    "lacks": {
                        "endpoints": lacks[:LACKING],
                        "endpoints_count": len(lacks),
                        "plugins": sorted(plugins - beat.plugins.keys())
                        if daemon.owner in said
                        else [],
                    },
                }
            )
        return shown

    def troubles(self) -> list[Trouble]:
        """What keeps the other workers of this daemon from their work."""
        found = [
            replace(trouble, why=f"worker {one.worker}: {trouble.why}")
            for one in self._mates()
            for trouble in one.troubles
        ]
        for one in self._mates():
            silent = self._learned - self._signs[one.owner][1]
            if silent > SILENT_AFTER:
                why = f"worker {one.worker} has given no sign of life for {silent:.0f} s"
                found.append(Trouble("worker_silent", why, 0))
        return found

    def _mates(self) -> list[DaemonSeen]:
        """The other workers of this daemon."""
        ours = [one for one in self._seen if one.process_group == self._group]
        return [one for one in ours if not self._is_this(one)]

    def _is_this(self, worker: DaemonSeen) -> bool:
        return worker.owner == self._store.owner

    def _alive(self, daemon: DaemonSeen) -> bool:
        return daemon.lease_until > self._now

    # -- its course ------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Give the first sign of life, and learn who else is there. Everything is in force by now
        that others may speak of."""
        await self._beat()
        alive = {one.owner for one in [*filter(self._alive, self._seen), *self._mates()]}
        await self.throttles.restore(self._now, alive)

    async def run(self) -> None:
        """Go on until cancelled. Whatever fails is tried again."""
        several = self._store.several_daemons
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_throttles(self._worker.feedback.turned))
            if several:
                group.create_task(self._follow_wakeups())
                group.create_task(self._refresh())
            # One that is alone gives signs of life, and cleans up.
            await self._go_round(first_look=0.0 if several else math.inf)

    async def _go_round(self, first_look: float) -> None:
        """`first_look`: when others are looked for first (`world.monotonic`)."""
        store = self._store
        due: dict[str, float] = dict.fromkeys(("look", "queue"), first_look)
        due |= {"beat": 0.0, "clean": 0.0, "tables": world.monotonic() + DEAF}
        while True:
            now = self.beat = world.monotonic()
            if self._has_changed() or self._beaten < store.health.back_at:
                due["beat"] = 0.0
            if self._turned or self.throttles.behind:
                await self._step("keep what is throttled", self.throttles.keep)
            if now >= due["beat"]:
                due["beat"] = now + self._beat_each
                await self._step("give a sign of life", self._beat)
                await self._step("look for claims that nothing here holds", self._end_unheld)
            if now >= due["look"] or self._flags or self._dead:
                due["look"] = now + LOOK
                flags, self._flags = self._flags, set()
                await self._step("learn who else is there", self._learn)
                await self._step("learn what is throttled", self.throttles.learn)
                await self._step("look what others have changed", self._look)
                if "tables" in flags or (now >= due["tables"] and not store.listening):
                    due["tables"] = now + DEAF
                    self._look_at_tables.set()
            if now >= due["queue"] or self._look_at_all:
                self._look_at_all = False
                await self._step("look for what others have queued", self._queue)
                took = world.monotonic() - now
                due["queue"] = now + min(max(LOOK, BUSY_LOOK * took), LONGEST_LOOK)
            if now >= due["clean"] and self._number == 1:
                due["clean"] = now + CLEAN
                await self._step("look for what keeps the database from cleaning up", self._clean)
            self._wake.clear()
            now = world.monotonic()
            pause = min(due["beat"] - now, due["look"] - now, LOOK)
            if store.health.unreachable is not None:
                pause = min(pause, AWAY)
            elif self._has_changed():  # it may be of the past what was just written
                pause = 0.0
            with suppress(TimeoutError):
                async with asyncio.timeout(max(pause, 0.05)):
                    await self._wake.wait()

    def _has_changed(self) -> bool:
        """Whether the others are to know something of this worker that its row does not say."""
        if self._said_for is not self._reloader.config or self._turned:
            return True
        return self._store.several_daemons and self._troubles != self._store.health.troubles

    async def leave(self) -> None:
        """The worker ends."""
        if self._store.health.unreachable is None:  # else what became of a COMMIT may be waited for
            await self._try("keep what was throttled", self.throttles.leave)
            await self._try("take leave", lambda: self._store.write(daemons.leave()))

    def died(self, owner: str) -> None:
        """A worker of the group has died: what it held is taken over at once."""
        self._dead.add(owner)
        self._wake.set()

    async def _refresh(self) -> None:
        """Have plugins look at their tables. It may wait for a reload, and leases are renewed
        meanwhile."""
        while True:
            await self._look_at_tables.wait()
            self._look_at_tables.clear()
            await self._try("look at the tables of plugins", self._reloader.refresh)

    async def _step(self, what: str, step: Callable[[], Awaitable[object]]) -> None:
        self.beat = world.monotonic()
        await self._try(what, step)

    async def _try(self, what: str, step: Callable[[], Awaitable[object]]) -> None:
        try:
            await step()
        except Exception as error:
            if self._store.health.unreachable is None:
                log.warning("this daemon could not %s: %s", what, error)

    # -- what it says ------------------------------------------------------------------------------

    async def _beat(self) -> None:
        store, troubles = self._store, self._store.health.troubles
        turned = self._turned or self._troubles != troubles
        self._turned, self._troubles, self._beaten = False, troubles, world.monotonic()
        began = world.elapsed()
        await store.write(claim.renew(self._worker.claimed_ids()))
        self._worker.pipe.deadlines.leases.renewed = began
        config = self._reloader.config
        if self._said is None or self._said_for is not config:
            self._said = await asyncio.to_thread(self._say, config)
        self._said_for = config
        age = round((world.monotonic() - self._started) * 1000)
        lanes = self._worker.waiting_lanes()
        beat = replace(self._said, age=age, lanes=lanes, troubles=[*troubles.values()])
        self._now = await store.write(daemons.give_sign(beat))
        if world.monotonic() - self._beaten > store.lease / 3:
            store.health.back_at = world.monotonic()  # as after an outage: its table was locked
        self.throttles.set_clock(self._now)
        if turned:
            store.tell("lanes")
        await self._learn()

    async def _end_unheld(self) -> None:
        await self._worker.removed.end_unheld(self._worker.claimed_ids)

    def _say(self, config: Config) -> Beat:
        """What this daemon can carry out; in a thread."""
        endpoints: dict[str, str] = {}
        digests: dict[str, tuple[Endpoint, str]] = {}
        own = {
            name: endpoint
            for executor in self._worker.host.registry.executors
            for name in executor.own_endpoints
            if (endpoint := executor.own_endpoint(name, config)) is not None
        }
        for name, endpoint in {**config.endpoints, **own}.items():
            known = self._digests.get(name)
            if known is None or known[0] is not endpoint:
                text = json.dumps(endpoint.shown, sort_keys=True, default=str)
                known = (endpoint, hashlib.sha256(text.encode()).hexdigest()[:12])
            digests[name] = known
            endpoints[name] = known[1]
        self._digests = digests
        schedules = {
            name: spec(endpoint.schedule)
            for name, endpoint in config.endpoints.items()
            if endpoint.schedule is not None
        }
        plugins = {
            name: plugin.version or ""
            for name, plugin in self._worker.host.plugins.items()
            if plugin.status == "loaded"
        }
        declared = endpoints, schedules, plugins
        text = json.dumps(declared, sort_keys=True)
        fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
        process = socket.gethostname(), self.pid, importlib.metadata.version("orchestratord")
        place = (), self._group, self._number
        return Beat(*process, config.generation, 0, fingerprint, *declared, *place)

    # -- what it learns ---------------------------------------------------------------------------

    async def _learn(self) -> None:
        """Who else is there, and what they can carry out."""
        store, before = self._store, self._others_of(self._seen)
        self._seen = await store.read(daemons.seen())
        self._learn_of_mates()
        seen = self._others_of(self._seen)
        fingerprints = {d.owner: d.fingerprint for d in seen}
        others = {
            owner: beat
            for owner, beat in self._others.items()
            if fingerprints.get(owner) == beat.fingerprint
        }
        if new := fingerprints.keys() - others.keys():
            others |= await store.read(daemons.declared(new))
        groups = {d.process_group for d in before}
        for daemon in DaemonSeen.of_each_daemon(d for d in seen if d.process_group not in groups):
            log.info("another daemon works on the queue: %s", name_of(daemon))
        groups = {d.process_group for d in seen}
        for daemon in DaemonSeen.of_each_daemon(d for d in before if d.process_group not in groups):
            if self._alive(daemon):
                log.info("a daemon has left the queue: %s", name_of(daemon))
        self._others = others
        alive = [others[d.owner] for d in seen if d.owner in others and self._alive(d)]
        ours = self._said.endpoints if self._said is not None else {}
        elsewhere: dict[str, bool] = {}
        schedules: dict[str, set[str]] = {}
        for beat in alive:
            for name, digest in beat.endpoints.items():
                elsewhere[name] = elsewhere.get(name, True) and ours.get(name) == digest
            for name, schedule in beat.schedules.items():
                schedules.setdefault(name, set()).add(schedule)
        self._reloader.elsewhere = elsewhere.keys()
        self._worker.placement.set_elsewhere(elsewhere)
        # What one says at its next sign of life, and this one reads at its own.
        said_within = 2 * self._beat_each + LOOK if alive else 0.0
        mates = [one.started_at for one in self._mates()]
        if mates:
            said_within = max(said_within, CHANGED_WITHIN)
        self._scheduler.set_elsewhere(schedules, said_within, min(mates, default=None))

    def _others_of(self, seen: list[DaemonSeen]) -> list[DaemonSeen]:
        return [one for one in seen if one.process_group != self._group]

    def _learn_of_mates(self) -> None:
        """When the other workers of this daemon gave their last signs of life."""
        before, self._learned = self._learned, world.monotonic()
        # If longer, this one has stood still itself, or the database was away.
        known = self._signs if self._learned - before <= SILENT_AFTER / 3 else {}
        signs = {one.owner: (one.beat_at, self._learned) for one in self._mates()}
        self._signs = {
            owner: known[owner] if known.get(owner, (0,))[0] == sign[0] else sign
            for owner, sign in signs.items()
        }

    async def _follow_wakeups(self) -> None:
        """What others tell, as soon as it is heard."""
        while True:
            wakeup = await self._store.wakeups.take()
            try:
                self._follow(wakeup)
            except Exception as error:
                log.warning("ignored a message of another daemon: %s", error)

    def _follow(self, wakeup: Wakeup) -> None:
        if wakeup.due is None:
            self._look_at_all = True
        else:
            self._touch(wakeup.due)
        self._flags |= {flag for flag in FLAGS if getattr(wakeup, flag)}
        if self._flags or self._look_at_all:
            self._wake.set()

    async def _follow_throttles(self, turned: asyncio.Event) -> None:
        """The others are to know when a scope begins to be throttled, or is so no more."""
        while True:
            await turned.wait()
            turned.clear()
            self._turned = True
            self._wake.set()

    def _touch(self, due: Mapping[Key, int]) -> None:
        """Tasks of others: a moment later than they are due, since those who know of them longest
        can begin at once."""
        self._store.expect(due)
        soonest = self._worker.clock.now_ms() + round(world.uniform(*STAGGER) * 1000)  # no secret
        for key, next_try in due.items():
            self._worker.placement.touched(key, max(next_try, soonest))

    async def apply_paused(self) -> set[str]:
        """Have worker and scheduler follow what is paused by now; these endpoints."""
        paused = await self._store.read(manual.paused())
        self._worker.placement.set_paused(paused)
        self._scheduler.set_paused(paused)
        return paused

    async def _look(self) -> None:
        """What others have changed, and what dead ones left."""
        store = self._store
        if dead := set(self._dead):
            await store.write(claim.forsake(dead))
            self._dead -= dead
        await self.apply_paused()
        for endpoint_id, at in (await store.read(settle.last_success())).items():
            if at > self._worker.stats.last_success.get(endpoint_id, 0):
                self._worker.stats.last_success[endpoint_id] = at
        since = world.monotonic() - store.health.back_at
        away = store.health.unreachable or since < self._grace
        self.beat = None
        if not self._worker.lanes.draining and not away and await self._worker.take_over():
            self._look_at_all = True

    async def _queue(self) -> None:
        self._touch(await self._store.read(claim.earliest()))

    async def _clean(self) -> None:
        found = await self._store.read(prune.holding_back(OLD_TRANSACTION))
        known = {before.subject for before in self.holding_back}
        for new in found:
            if new.subject not in known:
                log.warning("%s", new.words, extra={"help": doc_links.finding("database")})
        self.holding_back = found


def _shown(lane: Mapping[str, Any]) -> dict[str, Any]:
    """A lane that waits, as `/v1/status` shows it."""
    breaker, told = lane["breaker"], lane["retry_after"]
    return {
        "lane": lane["lane"],
        "breaker": breaker and {**breaker, "since": rfc3339(breaker["since"])},
        "retry_after": told and {**told, "until": rfc3339(told["until"])},
    }


def name_of(daemon: DaemonSeen) -> str:
    """A daemon, in words."""
    return f"pid {daemon.pid} on {daemon.host}, version {daemon.version}"
