"""Backoff strategies: the delay before the next try, from the number of failed attempts.

The core knows `fixed`; plugins register others with `register_backoff`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from pydantic import ConfigDict

from orchestratord.model.declared import Described
from orchestratord.values.durations import Duration, format_duration


class Backoff(Described, ABC):
    """One strategy. Its fields are its options in the YAML.

    Subclass it, give the options as fields with defaults, and register the class under its name:

        class Fibonacci(Backoff):
            delay: Duration = 5.0
            def seconds(self, n): ...
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = ""
    """Filled in at registration."""

    @abstractmethod
    def seconds(self, n: int) -> float:
        """The delay in seconds after `n` failed attempts, from 1. `max_delay` and jitter follow."""

    def explain(self, n: int) -> str:
        """The delay in words, such as `exponential 5s·2^2=20s`."""
        return f"{self.name or type(self).__name__.lower()} {format_duration(self.seconds(n))}"


def backoff_data(backoff: Backoff) -> dict[str, Any]:
    """A strategy as it would be written, with all of its options."""
    return {"strategy": backoff.name, **backoff.model_dump(mode="json")}


class Fixed(Backoff):
    """A constant delay."""

    delay: Duration = 5.0
    """The delay before each further attempt: 5s."""

    def seconds(self, n: int) -> float:
        return self.delay
