"""Runs what plugins have beside the worker: begins it again, stops it, and tells how it is.

A service of which one is to run is a role (`queue/operations/roles.py`): who holds it runs it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import copy_context
from typing import Any

from orchestratord.errors import OrchestratordError, Unreachable
from orchestratord.plugin.background_service import ROLE, Service, ServiceState
from orchestratord.plugin.host import Host
from orchestratord.plugin.isolation import HookFault, contained
from orchestratord.plugin.route import Control
from orchestratord.plugin.served import plugin_services
from orchestratord.queue.operations.roles import HELD_MS, held_elsewhere, hold_role, release_role
from orchestratord.queue.store import Store
from orchestratord.values import world

HOLD = 1.0
"""Seconds between two times that a role is taken, or kept."""
HELD = HELD_MS / 1000
"""Seconds after which another daemon may have a role that could not be kept."""
AGAIN = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Seconds until a service that has ended is begun again."""
SETTLED = 60.0
"""Seconds after which one that has run is begun again as the first time."""
AWAY = "the database cannot be reached"
"""Why a service waits that needed it: no fault of its plugin."""
LEFT = 1.0
"""Seconds for which one that is cancelled may go on, at the drain."""
CANCELLED = 10.0
"""The same where its role was lost: it may wait for a server that is away, as its holder does."""

Run = asyncio.Task[tuple[BaseException | None, Any]]


class PluginServices:
    """The services of all plugins, in this worker."""

    def __init__(self, host: Host, store: Store) -> None:
        self._host = host
        self._store = store
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, control: Control, *, first: bool) -> None:
        """Ask plugins for their services, and begin them.

        Args:
            control: what they may ask of the daemon.
            first: this is the worker of its daemon that runs those of which there is one.
        """
        for plugin, service in plugin_services(self._host, control):
            state = ServiceState(service.name, service.where)
            self._host.plugins[plugin].services[service.name] = state
            if service.where == "each":
                part = self._look_after(plugin, service, state, None)
            elif first:
                part = self._look_after_one(plugin, service, state)
            else:
                continue
            self._tasks.append(asyncio.create_task(part, name=f"{plugin} {service.name}"))

    async def ended(self, within: float) -> None:
        """Have all of them end: `within` these seconds, or be cancelled."""
        self._stopping.set()
        for timeout in (within, LEFT * 2):
            left = [task for task in self._tasks if not task.done()]
            if left:
                await asyncio.wait(left, timeout=timeout)
            for task in left:
                task.cancel()

    async def _look_after_one(self, plugin: str, service: Service, state: ServiceState) -> None:
        role = _Role(self._store, f"service:{plugin}/{service.name}")
        try:
            await self._look_after(plugin, service, state, role)
        finally:
            if state.state != "running":  # else it goes on, and is another's once this one is dead
                await role.release()

    async def _look_after(
        self, plugin: str, service: Service, state: ServiceState, role: _Role | None
    ) -> None:
        """Have it run, again and again, while this daemon holds its role."""
        tries = 0
        while not self._stopping.is_set():
            if role is not None and not await role.hold():
                state.state = "elsewhere"
                await self._pause(HOLD)
                continue
            began = world.monotonic()
            try:
                fault = await self._run(plugin, service, state, role)
            except asyncio.CancelledError:  # the daemon has waited for it long enough
                if state.state == "running":
                    self._host.fault(plugin, f"service {service.name}", HookFault(*_GOES_ON))
                raise
            if fault is None:
                continue
            error: str | None = AWAY
            if not isinstance(fault, Unreachable):  # which the daemon itself announces
                self._host.fault(plugin, f"service {service.name}", fault)
                error = self._host.plugins[plugin].last_fault
            state.state, state.error = "waiting", error
            tries = 0 if world.monotonic() - began >= SETTLED else tries
            again_at = world.monotonic() + AGAIN[min(tries, len(AGAIN) - 1)]
            tries += 1
            while (left := again_at - world.monotonic()) > 0 and not self._stopping.is_set():
                await self._pause(left if role is None else min(left, HOLD))
                if role is not None and not await role.hold():
                    break

    async def _run(
        self, plugin: str, service: Service, state: ServiceState, role: _Role | None
    ) -> BaseException | None:
        """Run it once: until it ends, another daemon has its role, or the daemon stops. What was
        wrong with that; None for nothing."""
        stop = asyncio.Event()
        state.state = "running"
        context = copy_context()
        context.run(ROLE.set, None if role is None else role.name)
        step = contained(_called(service, stop))
        run: Run = asyncio.create_task(step, name=service.name, context=context)
        try:
            while not self._stopping.is_set() and (role is None or await role.hold()):
                await self._pause(None if role is None else HOLD, run)
                if run.done():
                    return _fault_of(run) or HookFault("ended, and nothing had asked it to")
            stop.set()
            if self._stopping.is_set():
                await asyncio.wait((run,))  # `ended` says for how long
        finally:
            stop.set()
            if not run.done():
                run.cancel()
                await asyncio.wait((run,), timeout=LEFT if self._stopping.is_set() else CANCELLED)
            if run.done():
                state.state = "elsewhere"
        if not run.done():  # it cannot begin again beside itself
            self._host.fault(plugin, f"service {service.name}", HookFault(*_GOES_ON))
            await asyncio.wait((run,))
            state.state = "elsewhere"
        return None if run.cancelled() else _fault_of(run)

    async def _pause(self, seconds: float | None, run: Run | None = None) -> None:
        """Wait, or until the daemon stops, or `run` has ended."""
        stopping = asyncio.create_task(self._stopping.wait())
        waits: set[asyncio.Task[Any]] = {stopping} if run is None else {stopping, run}
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()


_GOES_ON = ("goes on although it was cancelled",)


async def _called(service: Service, stop: asyncio.Event) -> None:
    await service.run(stop)


def _fault_of(run: Run) -> BaseException | None:
    return HookFault("cancelled itself") if run.cancelled() else run.result()[0]


class _Role:
    """What one daemon of all holds, and this one may."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self.name = name
        self._held = False
        self._held_at = 0.0

    async def hold(self) -> bool:
        """Take it, or keep it; whether this daemon has it."""
        began = world.monotonic()
        try:
            async with asyncio.timeout(max(self._held_at + HELD - began, HOLD)):
                self._held = await self._take()
                self._held_at = began
        except (OrchestratordError, TimeoutError):  # nothing is written to the database now
            self._held = self._held and world.monotonic() - self._held_at < HELD
        return self._held

    async def _take(self) -> bool:
        owner = self._store.owner
        if not self._held and await self._store.read(held_elsewhere(self.name, owner)):
            return False
        return await self._store.write(hold_role(self.name)) is not None

    async def release(self) -> None:
        """Let another daemon have it at once."""
        if self._held:
            with suppress(OrchestratordError):
                await self._store.write(release_role(self.name))
