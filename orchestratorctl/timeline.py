"""The timeline of a task's attempts."""

from __future__ import annotations

from collections.abc import Sequence

from orchestratorctl.render import GAP, compact
from orchestratorctl.screen import Screen
from orchestratorctl.text import escape, wrap
from orchestratorctl.times import short_time, span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TITLES = ("#", "STARTED (UTC)", "TOOK", "CODE", "THEN")
_RIGHT = (True, False, True, True, False)
_ENDINGS = {"succeeded": "green", "failed": "red", "cancelled": "dim"}


def timeline(log: Sequence[dict[str, Any]], screen: Screen, state: object) -> list[str]:
    """The lines of the attempts, oldest first.

    Each attempt has a line with its number, start, duration, status code, and what followed:
    the delay that was chosen and why, or, for the last one, how the task ended. An error stands
    on a line below. On a screen that is too narrow the reason goes on below itself.

    Args:
        log: the entries of `attempt_log`.
        state: the task's status.
    """
    if not log:
        return ["Attempts: none yet"]
    rows = [_row(entry) for entry in log]
    ended = str(state) if state in _ENDINGS else None
    if ended and not rows[-1][4]:
        rows[-1][4] = ended
    widths = [max(len(title), *(len(row[at]) for row in rows)) for at, title in enumerate(_TITLES)]
    indent = sum(widths[:4]) + 4 * len(GAP)
    room = None if screen.width is None else max(screen.width - indent, 20)
    lines = ["Attempts", screen.paint(_line(_TITLES, widths), "dim")]
    for entry, row in zip(log, rows, strict=True):
        first, *rest = wrap(row[4], room)
        colour = _ENDINGS.get(first) if entry is log[-1] else None
        lines.append(_line([*row[:4], screen.paint(first, colour)], widths))
        lines += [" " * indent + text for text in rest]
        if entry.get("error"):
            below = widths[0] + len(GAP)
            error = wrap(
                escape(compact(entry["error"])),
                None if screen.width is None else max(screen.width - below, 20),
            )
            lines += [" " * below + screen.paint(text, "red") for text in error]
    return lines


def _row(entry: dict[str, Any]) -> list[str]:
    took = entry.get("duration_ms")
    cells = (
        compact(entry.get("attempt")),
        short_time(entry.get("started_at")),
        span(took / 1000) if isinstance(took, int | float) else compact(took),
        compact(entry.get("status_code")),
        _then(entry),
    )
    return [escape(cell) for cell in cells]


def _then(entry: dict[str, Any]) -> str:
    delay, why = entry.get("delay"), entry.get("why")
    if delay is None:
        return compact(why) if why else ""
    wait = f"wait {span(delay) if isinstance(delay, int | float) else compact(delay)}"
    return f"{wait}: {compact(why)}" if why else wait


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    parts = [
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells[:4], widths, _RIGHT, strict=False)
    ]
    return GAP.join([*parts, cells[4]]).rstrip()
