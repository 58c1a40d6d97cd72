"""Taking up a configuration: validated as a whole, then swapped as a whole, or not at all."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any

from orchestratord.config.changes import Changes
from orchestratord.config.edit.editor import Editor
from orchestratord.config.loader import Loader, Reload
from orchestratord.engine.scheduler import Scheduler
from orchestratord.engine.worker import Worker
from orchestratord.errors import Problem
from orchestratord.log import LogHandler
from orchestratord.model.event import ConfigEvent, EventType
from orchestratord.model.settings import Config
from orchestratord.model.task import Effect
from orchestratord.plugin.host import Host, Implementation
from orchestratord.plugin.isolation import check_effects
from orchestratord.plugin.registry import plain
from orchestratord.queue.operations import plugin_rows
from orchestratord.queue.store import Store
from orchestratord.runtime.systemd import SystemdNotifier
from orchestratord.values.clock import Clock

log = logging.getLogger("orchestratord.config")

Tables = dict[str, list[dict[str, Any]]]
Turns = Iterator[bool]

SIGHUP = "SIGHUP"
"""The cause of a reload that the signal asked for."""

HOOK = "config_adopted"

_TURN = 0.002
"""Seconds for which plugins may go on before everything else has its turn."""
_IN_USE = 5.0
"""Seconds for which a configuration that was replaced may still be in use."""
_WRITTEN = 500
"""Effects in one transaction, and rows that are freed in one go; others wait meanwhile."""


class Reloader:
    """The configuration in force, and the one way in which it changes."""

    def __init__(
        self,
        loader: Loader,
        store: Store,
        host: Host,
        worker: Worker,
        scheduler: Scheduler,
        clock: Clock,
        handler: LogHandler,
        notifier: SystemdNotifier,
    ) -> None:
        """
        Args:
            loader: reads the folder.
            store: the queue.
            host: the plugins.
            worker: takes up each configuration, as do the
            scheduler: of the daemon, the plugins' host, and the log's
            handler: whose level and secrets it sets.
            clock: says when.
            notifier: tells systemd that a reload begins, and has ended.
        """
        self._loader = loader
        self._config = loader.config
        self.editor = Editor(loader)
        """Writes what endpoints say back to their files."""
        self._store = store
        self._host = host
        self._worker = worker
        self._scheduler = scheduler
        self._clock = clock
        self._handler = handler
        self._notifier = notifier
        self._lock = asyncio.Lock()
        self._unwritten: list[Effect] = []
        self._background: set[asyncio.Task[None]] = set()
        self.elsewhere: Collection[str] = ()
        """The endpoints that other daemons of the queue declare."""
        self.cause = "start"
        """What had the configuration in force taken up."""
        self.changes = Changes()
        """What it changed."""
        self.last_error: tuple[int, Sequence[Problem]] | None = None
        """When the files on disk were last refused, and why; None once they are good again."""
        self.restart_required: tuple[str, ...] = ()

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._config

    async def begin(self) -> None:
        """Take up the configuration that the daemon started with."""
        await self._adopt(self._config, await self._tables())
        self._tell(self.cause, self.changes)

    @property
    def status_line(self) -> str:
        """How the daemon is, in the one line of `systemctl status`."""
        if self.last_error is not None:
            return f"config refused: {self.last_error[1][0]}"
        config = self._config
        return (
            f"{len(config.endpoints)} endpoints, generation {config.generation}, "
            f"{self._worker.lanes.in_flight} in flight"
        )

    def begin_reload(self, cause: str) -> None:
        """Have a reload begin on this loop; how it goes is logged."""
        self._run(self._reload_logged(cause))

    def _run(self, step: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(step)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _reload_logged(self, cause: str) -> None:
        try:
            await self.reload(cause)
        except Exception:
            log.exception("reloading failed; the last good configuration goes on")

    async def reload(self, cause: str, *, diff: bool = False) -> Reload:
        """Read the folder again and take it up if it is good; reloads take turns.

        A bad configuration changes nothing: its problems are kept in `last_error` and returned.

        Args:
            cause: what asked for it.
            diff: name the keys that differ, too.
        """
        async with self._lock:
            self._notifier.reloading("reloading")
            try:
                began = time.monotonic()
                # Parsing takes as long as it takes; the loop goes on meanwhile.
                result = await asyncio.to_thread(self._loader.reload, cause, diff=diff)
                if result.problems:
                    self._refuse(result.problems, cause)
                else:
                    await self._take_up(result, began)
                return result
            finally:
                self._notifier.ready(self.status_line)

    async def _take_up(self, result: Reload, began: float) -> None:
        """Put what was read in force, where it differs; `began` is when reading did."""
        cause = result.cause
        if self.last_error is not None and not result.changed:
            log.info("the files are good again; generation %d goes on", self.config.generation)
            self._tell(cause, Changes(), began)
        self.last_error = None
        restart, self.restart_required = self.restart_required, result.restart_required
        if result.changed:
            self.cause, self.changes = cause, result.changes
            await self._adopt(result.config, await self._tables())
            self._tell(cause, result.changes, began)
            log.info(
                "configuration generation %d is in force after %.2f s: %d endpoints (%s): %s",
                result.config.generation,
                time.monotonic() - began,
                len(result.config.endpoints),
                cause,
                result.changes,
            )
            self._run(self._free_replaced())
        elif cause == SIGHUP:
            log.info("nothing has changed; generation %d goes on", self.config.generation)
        for key in result.restart_required:
            if result.changed or key not in restart:
                log.warning("%s changed, which takes a restart; the old value goes on", key)

    def _tell(self, cause: str, changes: Changes, began: float | None = None) -> None:
        """The configuration is in force; `began` (`time.monotonic`) is when the reload did."""
        config, at = self._config, self._clock.now_ms()
        took = None if began is None else round((time.monotonic() - began) * 1000, 1)
        self._host.events.publish(
            ConfigEvent(
                EventType.CONFIG_ADOPTED, at, config.generation, cause, len(config.endpoints),
                changes.added, changes.changed, changes.removed, changes.daemon,
                duration_ms=took,
            )
        )  # fmt: skip

    def _refuse(self, problems: Sequence[Problem], cause: str) -> None:
        if self.last_error is not None and tuple(self.last_error[1]) == tuple(problems):
            return  # said already; it stands in `status` until it is mended
        self.last_error = (self._clock.now_ms(), problems)
        log.error(
            "the configuration is refused, the last good one (generation %d) goes on: %d error%s",
            self.config.generation,
            len(problems),
            "" if len(problems) == 1 else "s",
        )
        for problem in problems:
            log.error("%s", problem)
        config = self._config
        self._host.events.publish(
            ConfigEvent(
                EventType.CONFIG_REFUSED, self.last_error[0], config.generation, cause,
                len(config.endpoints), problems=len(problems),
                error=config.redactor.text(str(problems[0])),
            )
        )  # fmt: skip

    async def _free_replaced(self) -> None:
        """Free the configuration before, once nothing works with it any more."""
        await asyncio.sleep(_IN_USE)
        await asyncio.to_thread(self._loader.free_retired)

    async def refresh(self) -> None:
        """Have plugins look again at their tables, which another daemon has changed."""
        async with self._lock:
            await self._write(await self._noted(self._config, await self._tables()))
        self._worker.placement.standing_changed(None)

    async def _tables(self) -> Tables:
        return {
            name: await plugin_rows.rows(self._store, name) for name in self._host.registry.tables
        }

    async def _adopt(self, config: Config, tables: Tables) -> None:
        effects = await self._noted(config, tables)
        for rows in tables.values():
            # To free many rows in one go would keep the loop for too long.
            while rows:
                del rows[-_WRITTEN:]
                await asyncio.sleep(0)
        known = set(self._config.warnings) if self._config is not config else set()
        # All at once: no reader sees a part of it.
        self._config = config
        self._worker.placement.adopt(config)
        self._scheduler.adopt(config)
        self._handler.adopt(config.daemon.log, config.redactor)
        self._host.timeout = config.daemon.plugins.timeout
        self._host.redactor = self._host.redactor.merged(config.redactor)
        for warning in config.warnings:
            if warning not in known:
                log.warning("%s", warning)
        await self._write(effects)

    async def _write(self, effects: list[Effect]) -> None:
        self._unwritten += effects
        effects.clear()
        try:
            await self.write()
        except Exception as error:
            # The swap is done; what plugins keep of it in their tables follows.
            log.error("what plugins note of the configuration is not written yet: %s", error)

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
                except KeyboardInterrupt:
                    raise
                except BaseException as error:  # a plugin may raise anything
                    self._host.fault(item.plugin, HOOK, error)
                    break
                await asyncio.sleep(0)
        return effects

    def _asked(self, item: Implementation, arguments: list[Any], found: list[Effect]) -> Turns:
        """Gather what one plugin returns into `found`, piece by piece where it is a generator.

        Yields when it has gone on for long enough. Raises what the plugin raises, and HookFault
        where it returns no effects.
        """
        began = time.monotonic()
        answer = plain(item.function(*arguments))
        if isinstance(answer, str | bytes | Mapping) or not isinstance(answer, Iterable):
            found += check_effects(answer, self._host.registry, item.plugin)
            return
        for effect in answer:
            if effect is not None:
                found += check_effects([effect], self._host.registry, item.plugin)
            if time.monotonic() - began > _TURN:
                yield True
                began = time.monotonic()

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
