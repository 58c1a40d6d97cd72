"""Taking up a configuration: validated as a whole, then swapped as a whole, or not at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from orchestratord.clock import Clock
from orchestratord.config.loader import Loader, Reload
from orchestratord.engine.scheduler import Scheduler
from orchestratord.engine.worker import Worker
from orchestratord.errors import Problem
from orchestratord.host import Host
from orchestratord.isolation import HookFault, check_effects
from orchestratord.queue.store import Store
from orchestratord.settings import Config
from orchestratord.task import Effect

log = logging.getLogger("orchestratord.config")

Tables = dict[str, list[dict[str, Any]]]

SIGHUP = "SIGHUP"
"""The cause of a reload that the signal asked for."""


class Adoption:
    """The configuration in force, and the one way in which it changes."""

    def __init__(
        self,
        loader: Loader,
        store: Store,
        host: Host,
        worker: Worker,
        scheduler: Scheduler,
        clock: Clock,
        adopted: Callable[[Config], None],
    ) -> None:
        """`adopted` is told of each configuration once everybody else has taken it up."""
        self._loader = loader
        self._store = store
        self._host = host
        self._worker = worker
        self._scheduler = scheduler
        self._clock = clock
        self._adopted = adopted
        self._lock = asyncio.Lock()
        self._unwritten: list[Effect] = []
        self.cause = "start"
        """What caused the last adoption."""
        self.last_error: tuple[int, Sequence[Problem]] | None = None
        """When the files on disk were last refused, and why; None once they are good again."""
        self.restart_required: tuple[str, ...] = ()

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._loader.config

    async def begin(self) -> None:
        """Take up the configuration that the daemon started with."""
        await self._adopt(self.config, await self._tables())

    async def reload(self, cause: str) -> Reload:
        """Read the folder again and take it up if it is good; for whoever asks first, in turn.

        A bad configuration changes nothing: its problems are kept in `last_error` and returned.
        """
        async with self._lock:
            tables = await self._tables()
            # Parsing takes as long as it takes; the loop goes on meanwhile.
            result = await asyncio.to_thread(self._loader.reload, cause)
            if result.problems:
                self._refuse(result.problems)
                return result
            if self.last_error is not None and not result.changed:
                log.info("the files are good again; generation %d goes on", self.config.generation)
            self.last_error = None
            self.restart_required = result.restart_required
            if result.changed:
                self.cause = cause
                await self._adopt(result.config, tables)
                log.info(
                    "configuration generation %d is in force: %d endpoints (%s)",
                    result.config.generation,
                    len(result.config.endpoints),
                    cause,
                )
            elif cause == SIGHUP:
                log.info("nothing has changed; generation %d goes on", self.config.generation)
            for key in result.restart_required:
                log.warning("%s changed, which takes a restart; the old value goes on", key)
            return result

    def _refuse(self, problems: Sequence[Problem]) -> None:
        if self.last_error is not None and tuple(self.last_error[1]) == tuple(problems):
            return  # said already; it stands in `status` until it is mended
        self.last_error = (self._clock.now_ms(), problems)
        log.error(
            "the configuration is refused, the last good one (generation %d) goes on: "
            "%d problem(s)",
            self.config.generation,
            len(problems),
        )
        for problem in problems:
            log.error("%s", problem)

    async def _tables(self) -> Tables:
        return {name: await self._store.rows(name) for name in self._host.registry.tables}

    async def _adopt(self, config: Config, tables: Tables) -> None:
        effects: list[Effect] = []
        for plugin, answer in self._host.ask(
            "config_adopted", {"config": config, "tables": tables}
        ):
            try:
                effects += check_effects(answer, self._host.registry, plugin)
            except HookFault as fault:
                self._host.fault(plugin, "config_adopted", fault)
        self._worker.adopt(config)
        self._scheduler.adopt(config)
        self._adopted(config)
        for warning in config.warnings:
            log.warning("%s", warning)
        self._unwritten += effects
        try:
            await self.write()
        except Exception as error:
            # The swap is done; what plugins keep of it in their tables follows.
            log.error("what plugins note of the configuration is not written yet: %s", error)

    async def write(self) -> None:
        """Write what plugins want noted of the configuration, if that is still to be done."""
        effects, self._unwritten = self._unwritten, []
        try:
            if effects:
                await self._worker.write(effects)
        except BaseException:
            self._unwritten = effects + self._unwritten
            raise
