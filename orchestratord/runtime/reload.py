"""Taking up a configuration: validated as a whole, then swapped as a whole, or not at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from orchestratord.config.changes import Changes, Difference
from orchestratord.config.endpoint_file import EndpointFile
from orchestratord.config.loader import Loader, Reload
from orchestratord.engine.new.scheduler import Scheduler
from orchestratord.engine.settle.removed_tasks import RELOAD, at_start, refusal
from orchestratord.engine.worker import Worker
from orchestratord.errors import ConfigError, Problem, QueueError, Stopping, Unreachable
from orchestratord.log import LogHandler
from orchestratord.model.event import ConfigEvent, EventType
from orchestratord.model.settings import Config
from orchestratord.model.task import Effect
from orchestratord.plugin.host import Implementation
from orchestratord.plugin.isolation import HookFault, check_effects, is_ctrl_c
from orchestratord.plugin.registry import plain
from orchestratord.queue.housekeeping import undeclared
from orchestratord.queue.operations import plugin_rows
from orchestratord.runtime.systemd import SystemdNotifier
from orchestratord.runtime.team import Team, begin_step
from orchestratord.runtime.worker_seat import InForce, WorkerSeat
from orchestratord.values import doc_links, world

log = logging.getLogger("orchestratord.config")

Tables = dict[str, list[dict[str, Any]]]
Turns = Iterator[bool]

SIGHUP = "SIGHUP"
"""The cause of a reload that the signal asked for."""
COMMAND = "command"
"""The cause of a reload that was asked for over the API."""

ENDED = "tasks ended"
"""The cause of a reload of files that tasks had held, which have ended."""

HOOK = "config_adopted"

_HELP = {"help": doc_links.finding("config")}
"""Where problems of the configuration are explained."""

_TURN = 0.002
"""Seconds for which plugins may go on before everything else has its turn."""
_IN_USE = 5.0
"""Seconds for which a configuration that was replaced may still be in use."""
_MOST_NOTED = 1_000_000
"""Items that a plugin may yield at one reload; a generator need not end."""
_WRITTEN = 500
"""Effects in one transaction, and rows that are freed in one go; others wait meanwhile."""


class Reloader:
    """The configuration in force, and the one way in which it changes."""

    def __init__(
        self,
        loader: Loader,
        worker: Worker,
        scheduler: Scheduler,
        handler: LogHandler,
        notifier: SystemdNotifier,
        team: Team,
        seat: WorkerSeat | None = None,
    ) -> None:
        """
        Args:
            loader: reads the folder.
            worker: takes up each configuration, as do the
            scheduler: of the daemon, the plugins' host, and the log's
            handler: whose level and secrets it sets.
            notifier: tells systemd that a reload begins, and has ended.
            team: the other workers of the run, which take up what this one does.
            seat: of this one among them.
        """
        self._loader = loader
        self.config = loader.config
        """The configuration in force."""
        self.endpoint_file = partial(EndpointFile.read, loader)
        """Reads the file of an endpoint, by its id, for what edits it."""
        self.folder = loader.sources.folder
        """Where the files are."""
        self._store = worker.store
        self._host = worker.host
        self._worker = worker
        self._scheduler = scheduler
        self._handler = handler
        self._notifier = notifier
        self._team = team
        self._seat = seat
        self._is_first = seat is None or seat.first
        """What is told, or written, once for all workers is so by this one."""
        self._unwritten: list[Effect] = []
        self._reloads: set[asyncio.Task[None]] = set()
        """Those under way of which only the log says how they go."""
        self._freeing: set[asyncio.Task[None]] = set()
        self._stops = False
        self.elsewhere: Collection[str] = ()
        """The endpoints that other daemons of the queue declare."""
        self.cause = "start"
        """What had the configuration in force taken up."""
        self.changes = Changes()
        """What it changed."""
        self.differences: Sequence[Difference] = ()
        """The keys behind that."""
        self.last_error: tuple[int, Sequence[Problem]] | None = None
        """When the files on disk were last refused, and why; None once they are good again."""
        self._lacking: tuple[Collection[str], Collection[str]] | None = None
        """The endpoints in force and those of the files, where these were refused for what they
        lack of the others."""
        self.restart_required: tuple[str, ...] = ()

    async def begin(self, *, accept_removals: bool = False) -> None:
        """Take up the configuration that the daemon started with.

        Raises ConfigError where it lacks most of what tasks wait for, unless that is accepted.
        """
        declared = self.config.endpoints
        waiting = await self._store.write(undeclared.at_stake())
        remedy = at_start(self._store.url)
        if not accept_removals and (problems := refusal(waiting, declared, remedy)):
            raise ConfigError(problems)
        await self._store.write(undeclared.accept(waiting.keys() - declared.keys(), declared))
        await self._adopt(self.config, await self._tables())
        self._publish(self.cause, self.changes)

    async def follow(self) -> None:
        """Take up what the loader holds by now, which the first worker of the run has taken up."""
        await self._adopt(self._loader.config, await self._tables())
        begin_step(self._free_replaced(), self._freeing)

    def in_force(self) -> InForce:
        """What the other workers are to have."""
        config = self._loader.config
        return InForce(config.generation, config.adopted_at, self._loader.files)

    @property
    def error(self) -> tuple[int, Sequence[Problem]] | None:
        """Since when and why the files are refused; or else why the tasks wait of endpoints that no
        daemon declares any more."""
        return self.last_error or self._worker.removed.refused

    @property
    def status_line(self) -> str:
        """How the daemon is, in the one line of `systemctl status`."""
        if self.error is not None:
            return f"config refused: {self.error[1][0]}"
        config = self.config
        return (
            f"{len(config.endpoints)} endpoints, generation {config.generation}, "
            f"{self._worker.lanes.in_flight} in flight"
        )

    def begin_reload(self, cause: str) -> None:
        """Have a reload begin on this loop; how it goes is logged."""
        begin_step(self._reload_logged(cause), self._reloads)

    def stop(self) -> None:
        """The daemon ends: no reload begins any more, and one that is under way is given up, unless
        it is in force already."""
        self._stops = True

    async def ended(self, within: float) -> None:
        """Wait until none is under way, for up to `within` seconds; what it writes needs the
        queue."""
        for task in self._freeing:
            task.cancel()
        if self._reloads:
            await asyncio.wait(self._reloads, timeout=within)
        for task in self._reloads:
            task.cancel()
        await asyncio.gather(*self._reloads, *self._freeing, return_exceptions=True)

    def insist(self) -> None:
        """Raise Stopping where the daemon ends: nothing is taken up any more."""
        if self._stops:
            raise Stopping

    async def _reload_logged(self, cause: str) -> None:
        try:
            await self.reload(cause)
        except Stopping:
            log.info("left the configuration as it is: the daemon ends")
        except Unreachable as error:
            log.error("reloading failed; the last good configuration goes on: %s", error)
        except Exception:
            log.exception("reloading failed; the last good configuration goes on")

    async def reload(
        self, cause: str, *, accept_removals: bool = False, examined: Path | None = None
    ) -> Reload:
        """Read the folder again and take it up if it is good; reloads take turns.

        A bad configuration changes nothing: its problems are kept in `last_error` and returned.

        Args:
            cause: what asked for it.
            accept_removals: also where most of what tasks wait for is removed.
            examined: a folder of which it is only told what a reload would come to; nothing
                changes then.

        Raises Stopping where the daemon ends before anything has changed.
        """

        def judge(before: Config, found: Config) -> tuple[Problem, ...]:
            if accept_removals:
                return ()
            problems = _refusal(waiting, before.endpoints, found.endpoints)
            if problems and examined is None:
                self._lacking = before.endpoints.keys(), found.endpoints.keys()
            return problems

        async with self._team.lock:
            self.insist()
            self._notifier.reloading("reloading")
            try:
                began = world.monotonic()
                waiting = await self._store.read(undeclared.waiting())
                read = partial(self._loader.reload, cause, judge=judge, examined=examined)
                if examined is not None:
                    return await asyncio.to_thread(read)
                self._lacking = None
                # Parsing takes as long as it takes; the loop goes on meanwhile.
                result = await asyncio.to_thread(read)
                tables: Tables = {}
                if result.changed:
                    try:
                        self.insist()
                        problem = await self._team.prepare(self.in_force())
                        tables = await self._tables()
                        self.insist()
                    except BaseException:
                        self._give_up()
                        raise
                    if problem is not None:
                        self._give_up()
                        result = Reload(False, self.config, (problem,), cause=cause)
                if result.problems:
                    self._refuse(result.problems, cause)
                else:
                    await self._take_up(result, tables, began)
                    if accept_removals:
                        left = await self._store.write(undeclared.at_stake())
                        await self._remember(left.keys() - result.config.endpoints.keys())
                return result
            finally:
                if not self._stops:  # of which the service manager was told
                    self._notifier.ready(self.status_line)

    def _give_up(self) -> None:
        """What was read comes into force in no worker, this one included."""
        self._team.abort()
        self._loader.undo()

    async def judge_again(self) -> None:
        """Take up what was refused for what it lacks, once the tasks that held it have ended."""
        if self._lacking is None or self._stops:
            return
        waiting = await self._store.read(undeclared.waiting())
        if self._lacking is None or self.last_error is None:
            return  # a reload came first
        if problems := _refusal(waiting, *self._lacking):
            self.last_error = self.last_error[0], problems
        else:
            with suppress(Stopping):
                await self.reload(ENDED)

    async def _take_up(self, result: Reload, tables: Tables, began: float) -> None:
        """Put what was read in force, where it differs.

        Args:
            result: what was read.
            tables: of plugins, which compare them with it.
            began: when reading did (`world.monotonic`).
        """
        cause = result.cause
        if self.last_error is not None and not result.changed:
            log.info("the files are good again; generation %d goes on", self.config.generation)
            self._publish(cause, Changes(), began)
        self.last_error = None
        restart, self.restart_required = self.restart_required, result.restart_required
        if result.changed:
            self.cause, self.changes = cause, result.changes
            self.differences = result.differences
            removed = self.config.endpoints.keys() - result.config.endpoints.keys()
            await self._adopt(result.config, tables)
            self._team.commit(self.in_force())
            await self._remember(removed)
            self._publish(cause, result.changes, began)
            log.info(
                "configuration generation %d is in force after %.2f s: %d endpoints (%s): %s",
                result.config.generation,
                world.monotonic() - began,
                len(result.config.endpoints),
                cause,
                result.changes,
            )
            begin_step(self._free_replaced(), self._freeing)
        elif cause == SIGHUP:
            log.info("nothing has changed; generation %d goes on", self.config.generation)
        for key in result.restart_required:
            if result.changed or key not in restart:
                what = f"a file in {key}" if key in self._host.changed() else key
                log.warning("%s changed, which takes a restart; the old value goes on", what)

    async def _remember(self, removed: Collection[str]) -> None:
        """Write down what was removed on purpose: a restart within the minute asks no more."""
        try:
            await self._store.write(undeclared.accept(removed, self.config.endpoints))
        except QueueError as error:
            log.error("cannot record the removed endpoints: %s", error)

    def _publish(self, cause: str, changes: Changes, began: float | None = None) -> None:
        """The configuration is in force; `began` (`world.monotonic`) is when the reload did."""
        config, at = self.config, self._worker.clock.now_ms()
        took = None if began is None else round((world.monotonic() - began) * 1000, 1)
        about = config.generation, cause, len(config.endpoints)
        changed = changes.added, changes.changed, changes.removed, changes.daemon
        event = ConfigEvent(EventType.CONFIG_ADOPTED, at, *about, *changed, duration_ms=took)
        self._host.events.publish(event)

    def _refuse(self, problems: Sequence[Problem], cause: str) -> None:
        if self.last_error is not None and tuple(self.last_error[1]) == tuple(problems):
            return  # said already; it stands in `status` until it is mended
        self.last_error = (self._worker.clock.now_ms(), problems)
        log.error(
            "the configuration is refused, the last good one (generation %d) goes on: %d error%s",
            self.config.generation,
            len(problems),
            "" if len(problems) == 1 else "s",
        )
        for problem in problems:
            log.error("%s", problem, extra=_HELP)
        config = self.config
        about = config.generation, cause, len(config.endpoints)
        event = ConfigEvent(EventType.CONFIG_REFUSED, self.last_error[0], *about)
        error = config.redactor.text(str(problems[0]))
        self._host.events.publish(event._replace(problems=len(problems), error=error))

    async def _free_replaced(self) -> None:
        """Free the configuration before, once nothing works with it any more."""
        await asyncio.sleep(_IN_USE)
        async with self._team.lock:
            # What is only prepared may have to give way to the one before again.
            if self._loader.config is self.config:
                await asyncio.to_thread(self._loader.free_retired)

    async def refresh(self) -> None:
        """Have plugins look again at their tables, which another daemon has changed."""
        async with self._team.lock:
            await self._write(await self._noted(self.config, await self._tables()))
        self._worker.placement.standing_changed(None)

    async def _tables(self) -> Tables:
        return {
            name: await plugin_rows.rows(self._store, name)
            for name, table in self._host.registry.tables.items()
            if table.adopted and table.keep is None
        }

    async def _adopt(self, config: Config, tables: Tables) -> None:
        effects = await self._noted(config, tables)
        for rows in tables.values():
            # To free many rows in one go would keep the loop for too long.
            while rows:
                del rows[-_WRITTEN:]
                await asyncio.sleep(0)
        known = set(self.config.warnings) if self.config is not config else set()
        # All at once: no reader sees a part of it.
        self.config = config
        self._worker.placement.adopt(config)
        self._scheduler.adopt(config)
        self._handler.adopt(config.daemon.log, config.redactor)
        self._host.timeout = config.daemon.plugins.timeout
        self._host.max_params = config.daemon.max_params
        self._host.redactor = self._host.redactor.merged(config.redactor)
        if self._seat is not None and self._seat.first:
            self._seat.notify(drain_timeout=config.daemon.drain_timeout)
        for warning in config.warnings:
            if self._is_first and warning not in known:
                log.warning("%s", warning, extra=_HELP)
        await self._write(effects)

    async def _write(self, effects: list[Effect]) -> None:
        if self._is_first:
            self._unwritten += effects
        effects.clear()
        try:
            await self.write()
        except Exception as error:
            # The swap is done; what plugins keep of it in their tables follows.
            log.error("cannot write the notes of plugins on the configuration yet: %s", error)

    async def _noted(self, config: Config, tables: Tables) -> list[Effect]:
        """What plugins want written; everything else has its turns while they say it."""
        effects: list[Effect] = []
        arguments = {"config": config, "tables": tables, "elsewhere": frozenset(self.elsewhere)}
        for item in self._host.compiled(HOOK) or ():
            found: list[Effect] = []
            asked = self._asked(item, [arguments[name] for name in item.arguments], found)
            while True:
                try:
                    if not next(asked, False):
                        effects += found
                        break
                except BaseException as error:  # a plugin may raise anything
                    if is_ctrl_c(error):
                        raise
                    self._host.fault(item.plugin, HOOK, error)
                    break
                await asyncio.sleep(0)
        return effects

    def _asked(self, item: Implementation, arguments: list[Any], found: list[Effect]) -> Turns:
        """Gather what one plugin returns into `found`, piece by piece where it is a generator.

        Yields when it has gone on for long enough. Raises what the plugin raises, and HookFault
        where it returns no effects.
        """
        began = world.monotonic()
        answer = plain(item.function(*arguments))
        if isinstance(answer, str | bytes | Mapping) or not isinstance(answer, Iterable):
            found += check_effects(answer, self._host.registry, item.plugin, self._host.max_params)
            return
        for number, effect in enumerate(answer):
            if number == _MOST_NOTED:
                raise HookFault(f"yielded more than {_MOST_NOTED:,} items")
            if effect is not None:
                found += check_effects(
                    [effect], self._host.registry, item.plugin, self._host.max_params
                )
            if world.monotonic() - began > _TURN:
                yield True
                began = world.monotonic()

    async def write(self) -> None:
        """Write what plugins want noted of the configuration, if that is still to be done."""
        effects, self._unwritten = self._unwritten, []
        try:
            while effects:
                await self._worker.enqueue.write(effects[:_WRITTEN])
                del effects[:_WRITTEN]
        except BaseException:
            self._unwritten = effects + self._unwritten
            raise


def _refusal(
    waiting: Mapping[str, int], before: Collection[str], found: Collection[str]
) -> tuple[Problem, ...]:
    """Why a reload from these endpoints to those is refused.

    What other daemons declare does not count: a folder that is away is away for all of them.
    """
    at_stake = {name: waiting[name] for name in waiting if name in before}
    return refusal(at_stake, found, RELOAD)
