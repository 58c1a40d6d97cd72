"""What runs beside the worker for a plugin, for as long as the daemon does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

Where = Literal["one", "each"]
State = Literal["running", "elsewhere", "waiting"]


ROLE: ContextVar[str | None] = ContextVar("role", default=None)
"""Within a service of which one runs: the role that its daemon holds for it. What the service has
written is written while that is so, and not else."""


@dataclass(frozen=True, slots=True)
class Service:
    """What goes on until the daemon stops.

    Args:
        name: what it is called, in the log and in `status`.
        run: an `async def` of an event that is set where it is to end. One that ends before that,
            or raises, is begun again after a delay that grows.
        where: `one`: it runs once for all workers and daemons that share the queue. `each`: in each
            worker of each daemon. What a service with `one` writes by `Control` raises `RoleLost`,
            and is not written, where another daemon runs it by now.
    """

    name: str
    run: Callable[[asyncio.Event], Awaitable[None]]
    where: Where = "one"


@dataclass(slots=True)
class ServiceState:
    """How it is with a service, in this worker."""

    name: str
    where: Where
    state: State = "elsewhere"
    """`elsewhere`: another worker or daemon runs it, or is to."""
    error: str | None = None
    """Why it ended last."""
