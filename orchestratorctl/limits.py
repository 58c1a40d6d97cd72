"""What lanes and tasks wait for, in words: a breaker, patience, a rate."""

from __future__ import annotations

from orchestratorctl.render import Column, Painted, compact, number, table
from orchestratorctl.screen import Screen
from orchestratorctl.times import clock_time, until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Document = dict[str, Any]
    Row = list[str | Painted]

_COLUMNS = (
    Column("WAITING LANE", cut="middle"),
    Column("DUE", right=True),
    Column("FOR"),
    Column("NEXT"),
    Column("WHY", cut="end"),
)


def waiting_lanes(document: Document, screen: Screen, now: float) -> list[str]:
    """A table of the lanes that wait for something, after an empty line; nothing for none."""
    rows: list[Row] = [
        [
            Painted(compact(item.get("lane")), "red"),
            number(item.get("due")),
            f"breaker, open since {_time(item.get('since'))}",
            _probe(item.get("next_probe"), now),
            compact(item.get("why")),
        ]
        for item in document.get("breakers") or []
    ]
    for lane in document.get("lanes") or []:
        if not isinstance(lane, dict) or lane.get("breaker"):
            continue
        patience, rate = lane.get("retry_after"), lane.get("rate")
        if patience:
            what, at, why = "Retry-After", patience.get("until"), compact(patience.get("why"))
        elif rate and rate.get("next") and lane.get("due"):
            what, at, why = f"rate_limit {compact(rate.get('limit'))}", rate["next"], "-"
        else:
            continue
        rows.append([compact(lane.get("name")), number(lane.get("due")), what, until(at, now), why])
    rows += _elsewhere(document.get("daemons"))
    return ["", *table(_COLUMNS, rows, screen)] if rows else []


def _elsewhere(daemons: object) -> list[Row]:
    """The breakers of other daemons. What a receiver has said to one of them holds for all."""
    rows: list[Row] = []
    for daemon in daemons if isinstance(daemons, list) else ():
        if daemon.get("this") or not daemon.get("alive"):
            continue
        for lane in daemon.get("waiting") or []:
            if breaker := lane.get("breaker"):
                where = f"pid {compact(daemon.get('pid'))} on {compact(daemon.get('host'))}"
                what = f"breaker, open since {_time(breaker.get('since'))}"
                why = f"{where}: {compact(breaker.get('why'))}"
                rows.append([Painted(compact(lane.get("lane")), "red"), "-", what, "-", why])
    return rows


def waits(found: Document, now: float) -> str:
    """What a task waits for, as `breaker of api:shop …: since 10:31:04, next probe in 12s`."""
    why, at = compact(found.get("why")), found.get("until")
    what = found.get("for")
    if what == "breaker":
        return f"{why}; open since {_time(found.get('since'))}, next {_probe(at, now)}"
    if what == "rate_limit":
        return f"{why}, the next of it {until(at, now)}" if at else why
    return f"{why}, {until(at, now)}" if at else why


def _probe(at: object, now: float) -> str:
    if at is None:
        return "probe is under way"
    ahead = until(at, now)
    return "probe with the next task" if ahead == "due" else f"probe {ahead}"


def _time(at: object) -> str:
    """The time of the day, as the log has it: in UTC."""
    return clock_time(at)[-9:]
