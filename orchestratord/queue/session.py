"""What an operation of the queue sees while the writer runs it inside a transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestratord.clock import Clock
from orchestratord.queue.database import Connection
from orchestratord.task import Table

LEASE_MS = 90_000
"""How long a claim stands without a word from its daemon."""


@dataclass(slots=True)
class Session:
    """The writing connection, and who writes."""

    db: Connection
    owner: str
    """Random for this opening of the store; stands in `locked_by`."""
    clock: Clock
    tables: Mapping[str, Table]
    """Those of plugins, by name."""
    statements: dict[Any, Any] = field(default_factory=dict)
    """Those that were made for what plugins write, by its shape."""
    moves: Counter[str] = field(default_factory=Counter)
    """By how much each status has more or fewer tasks than before the transaction."""

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return self.clock.now_ms()

    def moved(self, source: str | None, target: str | None, count: int = 1) -> None:
        """Note that `count` tasks changed their status; None is outside of the table."""
        if count and source != target:
            if source is not None:
                self.moves[source] -= count
            if target is not None:
                self.moves[target] += count
