"""Throttled lanes: what is due there may not start, by a breaker, a rate limit or Retry-After."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestratord_dashboard import template_filters


@dataclass(frozen=True, slots=True)
class ThrottledLane:
    """A lane, and what throttles it.

    Args:
        name: of the lane.
        due: how many endpoints or webhooks have something that is due.
        what: throttles it, in two words at most.
        grade: how bad that is, for the style sheet.
        why: in the receiver's or the configuration's words.
        until: when it may begin its next task; None while a probe is under way.
        since: when that began; None where that is not kept.
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
    def resume(self) -> str | None:
        """What the API is asked to have it go on; None where a rate limit has to be kept."""
        return None if self.what == "rate limit" else json.dumps({"name": self.name})

    @property
    def history(self) -> str:
        """What is known of a breaker beside its beginning; empty for others."""
        what = "probe" if self.probes == 1 else "probes"
        return f"{template_filters.number(self.probes)} {what} failed" if self.probes else ""


def throttled(status: Mapping[str, Any]) -> Iterable[ThrottledLane]:
    """The throttled lanes of a status document, those of open breakers first."""
    for one in status["breakers"]:
        what = "circuit breaker" if one["state"] == "open" else "probing"
        probing = one["next_probe"], one["since"], one["probes"]
        yield ThrottledLane(one["lane"], one["due"], what, "bad", one["why"], *probing)
    for lane in (*status["lanes"], *status["throttled"]):
        name, due = lane["name"], lane["due"]
        rate, asked, overload = lane["rate"], lane["retry_after"], lane["overload"]
        if lane["breaker"] is not None:
            continue
        if asked is not None:
            yield ThrottledLane(name, due, "Retry-After", "odd", asked["why"], asked["until"])
        elif overload is not None and due:
            why = f"{overload['rate']:g} tasks a second begin, as it refuses more"
            yield ThrottledLane(name, due, "overload", "odd", why, None, overload["since"])
        elif rate is not None and rate["next"] and due:
            yield ThrottledLane(name, due, "rate limit", "odd", rate["limit"], rate["next"])


def of_calls(status: Mapping[str, Any], endpoint: str) -> ThrottledLane | None:
    """What throttles the calls of an endpoint; None where nothing does."""
    names = endpoint, f"api:{endpoint.partition('/')[0]}"
    return next((one for one in throttled(status) if one.name in names), None)
