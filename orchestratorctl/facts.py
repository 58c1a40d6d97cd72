"""What the daemon's status says, in words and tables; each takes the whole document."""

from __future__ import annotations

from orchestratorctl.failures import explained
from orchestratorctl.render import Column, Painted, compact, number, table
from orchestratorctl.screen import Screen
from orchestratorctl.times import span, until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Document = dict[str, Any]

_OF_LANES = (
    Column("IN FLIGHT", right=True),
    Column("OF", right=True),
    Column("DUE", right=True),
)


def queue(document: Document) -> str:
    """How many tasks there are of each status."""
    counts = document.get("queue")
    if not isinstance(counts, dict):
        return "-"
    names = ("pending", "running", "failed", "succeeded", "cancelled")
    return ", ".join(f"{number(counts[name])} {name}" for name in names if name in counts)


def due(document: Document, now: float) -> str:
    """How many tasks are due, for how long, and when the next one will be."""
    counts = document.get("queue")
    counts = counts if isinstance(counts, dict) else {}
    count, age = counts.get("due"), counts.get("oldest_due_age")
    words = []
    if count is not None:
        words.append(f"{number(count)} now")
    if count and isinstance(age, int | float):
        words.append(f"the oldest for {span(age)}")
    if document.get("next_due"):
        ahead = until(document["next_due"], now)
        words.append("the next at once" if ahead == "due" else f"the next {ahead}")
    return ", ".join(words) or "-"


def in_flight(document: Document) -> str:
    """How many attempts are under way, and how many may be."""
    limit = document.get("concurrency")
    words = number(document.get("in_flight"))
    return words if limit is None else f"{words} of {number(limit)}"


def lanes(found: list[Document], screen: Screen, title: str = "LANE") -> list[str]:
    """A table of lanes, after an empty line; nothing where there are none."""
    names = ("in_flight", "concurrency", "due")
    rows: list[list[str | Painted]] = [
        [compact(lane.get("name")), *(number(lane.get(name)) for name in names)] for lane in found
    ]
    return ["", *table((Column(title, cut="middle"), *_OF_LANES), rows, screen)] if rows else []


def errors(document: Document, screen: Screen) -> list[str]:
    """The errors of the configuration: a line that an editor understands, and where that is."""
    config = document.get("config")
    error = config.get("error") if isinstance(config, dict) else None
    if not error:
        return []
    found = error.get("errors") if isinstance(error, dict) else [error]
    lines = [""]
    for item in found or []:
        first, *below = explained(item)
        lines += [screen.paint(first, "red"), *(screen.paint(line, None) for line in below)]
    return lines
