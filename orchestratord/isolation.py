"""Keeping a hook's fault its plugin's own, and checking what hooks return."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import httpx

from orchestratord.errors import Reject, Snooze
from orchestratord.message import Outcome
from orchestratord.registry import Registry
from orchestratord.task import Delete, Effect, NewTask, Upsert

log = logging.getLogger("orchestratord.plugins")


class HookFault(Exception):
    """A hook did something that it may not; the message says what."""


async def call(function: Callable[..., Any], arguments: list[Any], timeout: float) -> Any:  # noqa: ASYNC109
    """Call a hook, await it if it is awaitable, for at most `timeout` seconds.

    Raises Reject and Snooze where the hook does, and HookFault for everything else that it raises,
    SystemExit and a cancellation of its own included.
    """
    running = asyncio.current_task()
    before = running.cancelling() if running else 0
    try:
        result = function(*arguments)
        if inspect.isgenerator(result):
            result = list(result)
    except (Reject, Snooze, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit and CancelledError are the plugin's here
        await _undo_cancel(running, before)
        raise HookFault(f"raised {type(error).__name__}: {error}") from error
    await _undo_cancel(running, before)
    return await _wait(result, timeout) if inspect.isawaitable(result) else result


async def _wait(awaitable: Any, timeout: float) -> Any:  # noqa: ASYNC109
    # A task of its own: what cancels itself or hangs cannot take the attempt with it.
    task = asyncio.ensure_future(_contained(awaitable))
    try:
        done, _ = await asyncio.wait((task,), timeout=timeout)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.cancel()
        raise HookFault(f"took longer than plugins.timeout ({timeout:g}s)")
    if task.cancelled():
        raise HookFault("cancelled itself")
    error, result = task.result()
    if isinstance(error, Reject | Snooze):
        raise error
    if error is not None:
        raise HookFault(f"raised {type(error).__name__}: {error}") from error
    return result


async def _contained(awaitable: Any) -> tuple[BaseException | None, Any]:
    """Await, and hand a raised exception back as a value: a SystemExit would end the loop."""
    try:
        return None, await awaitable
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return error, None


async def _undo_cancel(running: asyncio.Task[Any] | None, before: int) -> None:
    """Take back a cancel that a plain hook called on the task that it runs in."""
    if running is None or running.cancelling() <= before:
        return
    while running.cancelling() > before:
        running.uncancel()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        log.debug("a hook cancelled the task that it ran in; taken back")


def check_decision(hook: str, result: Any) -> None:
    """Raise HookFault where a deciding hook returned something that it may not."""
    if hook.startswith("after_"):
        if not isinstance(result, Outcome) or result.verdict not in ("success", "retry", "failure"):
            raise HookFault(f"returned {type(result).__name__}, not an Outcome or None")
    elif hook == "before_request" and not isinstance(result, httpx.Request):
        raise HookFault(f"returned {type(result).__name__}, not an httpx.Request or None")


def decided(outcome: Outcome, plugin: str) -> Outcome:
    """The outcome with the plugin named that changed its verdict."""
    return replace(outcome, decided_by=plugin)


def valid_refusal(refusal: Reject | Snooze) -> bool:
    """True where a snooze has a delay that can be waited for."""
    if isinstance(refusal, Reject):
        return True
    delay = refusal.delay
    return isinstance(delay, int | float) and 0 <= delay < float("inf")


def check_effects(result: Any, registry: Registry, plugin: str) -> list[Effect]:
    """What a telling hook returned, as a list; HookFault where it is something else."""
    if result is None:
        return []
    if isinstance(result, str | bytes | Mapping) or not isinstance(result, Iterable):
        raise HookFault(f"returned {type(result).__name__}, not a list of NewTask, Upsert, Delete")
    effects: list[Effect] = []
    try:
        for effect in result:
            if not isinstance(effect, NewTask | Upsert | Delete):
                raise HookFault(
                    f"returned a {type(effect).__name__} among its effects; "
                    "allowed are NewTask, Upsert and Delete"
                )
            if isinstance(effect, Upsert | Delete) and (
                registry.owners.get(("table", effect.table)) != plugin
            ):
                raise HookFault(f"writes the table {effect.table!r}, which is not its own")
            effects.append(effect)
    except HookFault:
        raise
    except Exception as error:
        raise HookFault(f"raised {type(error).__name__}: {error}") from error
    return effects
