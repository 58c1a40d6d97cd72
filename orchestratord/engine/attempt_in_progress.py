"""One attempt under way, and how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestratord.engine.plan import Plan
from orchestratord.engine.retry import Decision
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.outcome import Outcome
from orchestratord.model.recurring_rows import RecurringRows
from orchestratord.model.task import Attempt, Effect, Task
from orchestratord.plugin.host import Reached
from orchestratord.values import world


@dataclass(slots=True)
class AttemptInProgress:
    """One attempt under way: what it is made with, as it was when it began, and what it came to.

    Args:
        task: as it was claimed.
        plan: what it is made with.
        lane: whose slot it has.
        running: the asyncio task of the attempt.
        began: when it began, milliseconds since the epoch.
        clock: the same by `world.monotonic`.
        early: it began before the delay was over that the last one which counted has chosen.
        counted: when the rate of its lane counts it; 0 while that is not known.
        request: what is sent, once it is made.
        sent: when its executor was called, by `world.monotonic`; 0 before.
        took: milliseconds until it was decided when it is tried again; 0 before.
        leased: when it was claimed, by `world.elapsed`, of one of an ordered partition that sends;
            None for others.
        costly: making it takes too long for the loop.
        interrupted: the daemon stopped before it had ended.
        result: how it ended; None until then.
    """

    task: Task
    plan: Plan
    lane: str
    running: asyncio.Task[Any]
    began: int
    clock: float
    early: bool
    counted: int = 0
    request: Any = None
    sent: float = 0.0
    took: float = 0.0
    leased: float | None = None
    costly: bool = False
    interrupted: bool = False
    result: AttemptResult | None = None

    def elapsed(self) -> float:
        """Milliseconds since it began."""
        # `round` takes five times as long.
        return int((world.monotonic() - self.clock) * 1_000_000) / 1000

    def reached(self, outcome: Outcome | None) -> Reached:
        """What the hooks see of it; `outcome`: None for its start."""
        plan = self.plan
        endpoint = plan.target.endpoint
        return Reached(self.task, endpoint, plan.config, outcome, self.request, self.running)

    def row(self, outcome: Outcome, decision: Decision) -> Attempt:
        """The row of the attempt, as it ends now."""
        attempt, took = self.task.attempts, self.took or self.elapsed()
        code, error = outcome.status_code, outcome.error
        return Attempt(attempt, self.began, took, code, error, decision.delay, decision.why)


@dataclass(slots=True)  # not frozen: it is made for each attempt, which takes twice as long then
class AttemptResult:
    """How an attempt ended and what is to be written with it."""

    decision: Decision
    outcome: Outcome | None
    attempt: Attempt | None
    effects: list[Effect] = field(default_factory=list)
    uncounted: bool = False
    """The attempt does not count."""
    deaths: int | None = None
    request: Any = None
    after: str | None = None
    """The after_ phase that was reached, None for none."""
    recurring: Sequence[RecurringRows] = ()
    """What is written besides, as with other successes of the key."""
    endpoint: Endpoint | None = None
    """Whose hooks were asked, and are to be asked again should the task be cancelled meanwhile;
    None for none."""
    look: bool = False
    """The answer said that it is not done yet."""
    waits_for: str | None = None
    """Why a hook put it off; None where none did."""
