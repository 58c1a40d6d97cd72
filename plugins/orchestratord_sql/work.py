"""One attempt, as the loop that waits for it and the thread that carries it out both see it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from orchestratord_sql.answer import Keeper
from orchestratord_sql.placeholders import Scan


class GivenUp(Exception):
    """Nobody waits for the statement any more: it is not to be committed."""


class Stale(Exception):
    """A connection that was used before is closed, and nothing was sent over it."""


class Failure(Exception):
    """A statement failed.

    Args:
        words: what the database says.
        again: it may go well another time.
        maybe_done: nobody knows whether it was committed.
    """

    def __init__(self, words: str, *, again: bool, maybe_done: bool = False) -> None:
        self.words = words
        self.again = again
        self.maybe_done = maybe_done
        super().__init__(words)


class Work:
    """A statement on its way.

    Args:
        scan: the statement.
        values: of its parameters, by name.
        ends: when it has to have ended, by `time.monotonic`.
        seconds: how long that was from the start, for people.
        keeper: takes the answer.
        accept: called once the answer is there and before it is committed; raises Failure where it
            is not what was wanted.
    """

    def __init__(
        self,
        scan: Scan,
        values: dict[str, Any],
        ends: float,
        seconds: float,
        keeper: Keeper,
        accept: Callable[[], None] = lambda: None,
    ) -> None:
        self.scan = scan
        self.values = values
        self.ends = ends
        self.seconds = seconds
        self.keeper = keeper
        self.accept = accept
        self._lock = threading.Lock()
        self._given_up = False
        self._committing = False

    @property
    def left(self) -> float:
        """Seconds that are left of its time; not less than 0."""
        return max(self.ends - time.monotonic(), 0.0)

    @property
    def over(self) -> bool:
        """It is to end: nobody waits for it, or its time is over."""
        return not self._committing and (self._given_up or time.monotonic() > self.ends)

    @property
    def committing(self) -> bool:
        """From here on it may have been carried out, whatever becomes of the connection."""
        return self._committing

    def check(self) -> None:
        """To be called by the thread before it goes on. Raises GivenUp."""
        if self._given_up:
            raise GivenUp

    def commit(self) -> None:
        """To be called by the thread before it sends COMMIT. Raises GivenUp."""
        with self._lock:
            self.check()
            self._committing = True

    def give_up(self) -> bool:
        """To be called by the loop: have nothing committed. False where it is too late for that."""
        with self._lock:
            self._given_up = True
            return not self._committing


class Connection(Protocol):
    """A connection to a database. All but `interrupt` and `sever` belongs to its one thread."""

    broken: bool
    """It can be used no more."""

    def run(self, work: Work) -> None:
        """Carry out a statement in a transaction of its own; its answer goes to `work.keeper`.

        Raises Failure, GivenUp, and Stale before anything was sent.
        """
        ...

    def refresh(self) -> None:
        """Forget what the last statement may have left behind in the session."""
        ...

    def interrupt(self) -> None:
        """End the statement that runs, if one does; from any thread."""
        ...

    def sever(self) -> None:
        """Drop the connection under whatever it is at; from any thread."""
        ...

    def close(self) -> None:
        """Close it."""
        ...
