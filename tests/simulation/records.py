"""What was seen from outside in a universe, by which its end is judged.

Times are seconds of `Baton.now`; a time that never came is None. What came to a receiver is an
`Arrival` (`receiver.py`), in `Universe.network.arrivals`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.configuration import Configuration

ACKNOWLEDGED, REFUSED, UNKNOWN = "acknowledged", "refused", "unknown"
"""What who asks knows of how it went. Unknown: no answer came, or one that leaves it open."""


@dataclass(slots=True)
class Asked:
    """What was asked of a daemon, and what its answer was."""

    at: float
    process: str
    """The name of that which was asked."""
    outcome: str = UNKNOWN
    answer: Any = None
    """What it has answered, or the error."""
    answered_at: float | None = None


@dataclass(slots=True)
class Call:
    """What a client wants done, and what it knows of it."""

    number: int
    """Stands in the parameters, as `n`."""
    endpoint: str
    params: Mapping[str, Any]
    key: str | None = None
    """The Idempotency-Key; with one it is asked for again until it is acknowledged or refused."""
    delay: float = 0.0
    asked: list[Asked] = field(default_factory=list)
    """Each time that it was asked for."""
    id: int | None = None
    """Of the task, once it was acknowledged."""

    @property
    def outcome(self) -> str:
        """What the client knows of it at last: refused only where no daemon may have taken it."""
        if self.id is not None:
            return ACKNOWLEDGED
        refused = all(one.outcome == REFUSED for one in self.asked)
        return REFUSED if refused else UNKNOWN


@dataclass(slots=True)
class Deed(Asked):
    """What a person has done."""

    verb: str = ""
    """A name of `people.DEEDS`."""
    target: int | str | None = None
    """The id of a task or a bulk, or the name of an endpoint."""
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class InForce:
    """A configuration in one process, from when to when."""

    process: str
    configuration: Configuration
    since: float
    until: float | None = None
    """None while it is, or until the end of the process (`Process.died_at`)."""


@dataclass(slots=True)
class Report:
    """What a daemon says of itself once everything has ended."""

    process: str
    at: float
    status: Mapping[str, Any]
    """The document of `/v1/status`."""
    claimed: int
    """Slots that are taken in its lanes."""
    unsettled: int
    running: int
    """Attempts that are under way, or are being written."""
