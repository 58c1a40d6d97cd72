"""Lanes whose tasks wait for more than their time: for a breaker, a rate, a receiver's patience."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestratord_dashboard import words


@dataclass(frozen=True, slots=True)
class Wait:
    """What one lane waits for.

    Args:
        name: of the lane.
        due: how many endpoints or webhooks have something that is due.
        what: it waits for, in two words at most.
        grade: how bad that is, for the style sheet.
        why: in the receiver's or the configuration's words.
        until: when it may begin its next task; None while a probe is under way.
        since: when that began; None where nobody keeps that.
        probes: of a breaker, how many have failed so far.
    """

    name: str
    due: int
    what: str
    grade: str
    why: str
    until: str | None
    since: str | None = None
    probes: int = 0

    @property
    def endpoints(self) -> str | None:
        """The filter that finds its calls; None where no filter does."""
        kind, _, api = self.name.partition(":")
        return f"{api}/*" if kind == "api" else None

    @property
    def history(self) -> str:
        """What is known of a breaker beside its beginning; empty for others."""
        if not self.probes:
            return ""
        return f"{words.number(self.probes)} probe{'s' if self.probes > 1 else ''} failed"


def waiting(status: Mapping[str, Any]) -> Iterable[Wait]:
    """The lanes of a status document that wait, those of open breakers first."""
    for one in status["breakers"]:
        what = "breaker" if one["state"] == "open" else "probing"
        yield Wait(
            one["lane"], one["due"], what, "bad", one["why"], one["next_probe"], one["since"],
            one["probes"],
        )  # fmt: skip
    for lane in status["lanes"]:
        rate, patience = lane["rate"], lane["retry_after"]
        if lane["breaker"] is not None:
            continue
        if patience is not None:
            yield Wait(
                lane["name"], lane["due"], "Retry-After", "odd", patience["why"], patience["until"]
            )
        elif rate is not None and rate["next"] and lane["due"]:
            yield Wait(lane["name"], lane["due"], "rate limit", "odd", rate["limit"], rate["next"])


def of_calls(status: Mapping[str, Any], endpoint: str) -> Wait | None:
    """What the calls of an endpoint wait for; None where it is nothing."""
    api = endpoint.partition("/")[0]
    return next((one for one in waiting(status) if one.name == f"api:{api}"), None)
