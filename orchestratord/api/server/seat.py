"""What is known of a connection's client, for when there is no room for another connection."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Seat:
    """The place that a connection takes.

    It stands in the state of each request as `seat`: who learns more of the client says so there.
    """

    peer: str | None = None
    """The address that it came from; None where all peers are alike: at the control socket, and
    where it is a proxy's."""
    known: bool = False
    """Whether its last request was let in; the control socket's file lets in all that reach it."""
    waits: bool = False
    """Whether its request is one that waits, as for the end of a task, or for events."""
    for_probes: bool = False
    """Whether it was taken when there were no others, and serves /healthz and /readyz alone."""
    refused: str | None = None
    """The `code` of the problem with which the daemon has hung up; None as long as it has not."""
