"""What is said of the daemon: its status page, the picture of `watch`, and the throttled lanes."""

from __future__ import annotations

import time
from operator import itemgetter

from orchestratorctl.console import Console
from orchestratorctl.formats import (
    ago,
    compact,
    cut,
    error_excerpt,
    error_lines,
    escape,
    named,
    number,
    seconds_at,
    size,
    span,
    until,
    with_age,
    wrap,
)
from orchestratorctl.tables import Painted, TableColumn, fields, table, value_of
from orchestratorctl.task_text import probe_time, time_of_day

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Document = dict[str, Any]
    Cell = Callable[[Any], str]
    Facts = list[tuple[str, str | Painted]]
    Row = list[str | Painted]

_THROTTLED = (
    TableColumn("THROTTLED LANE", itemgetter(0), cut="middle"),
    TableColumn("DUE", itemgetter(1), right=True),
    TableColumn("FOR", itemgetter(2)),
    TableColumn("NEXT", itemgetter(3)),
    TableColumn("WHY", itemgetter(4), cut="end"),
)


def _least(name: str) -> Cell:
    """A number of tasks, of which there may be more where not all were looked at."""
    return lambda item: number(item.get(name)) + ("" if item.get("complete", True) else "+")


def _how(item: Document) -> str:
    """Why it fails: the reason, where there is one, and the error."""
    words = [compact(item[name]) for name in ("reason", "error") if item.get(name)]
    return ": ".join(words) or "-"


_FAILING = (
    TableColumn("FAILED", _least("failed"), right=True),
    TableColumn("RETRYING", _least("waiting"), right=True),
    TableColumn("SINCE", value_of("since", ago), right=True),
    TableColumn("LAST", value_of("last", ago), right=True, spare=True),
    TableColumn("CODE", value_of("status_code"), right=True),
    TableColumn("WHY", _how, cut="end"),
)
_MOST_FAILING = 8
_MOST_HELD = 5
_CLOCKS_APART = 2.0
"""Seconds."""


def status_page(document: Document, console: Console) -> list[str]:
    """All that `status` shows: configuration, queue, database, plugins and lanes."""
    pairs: Facts = [
        ("running", _running(document)),
        *_health(document.get("health")),
        *_config(document.get("config")),
        ("queue", _queue(document)),
        ("due", _due(document)),
        ("in flight", _in_flight(document)),
        *_database(document.get("database")),
        *_daemons(document.get("daemons")),
        *_clock(document.get("clock")),
        *_plugins(document.get("plugins")),
        *_held(document),
        *_outbox(document),
        *_stuck(document),
        *_paused(document),
    ]
    title = f"orchestratord {document.get('version') or ''}".rstrip()
    lines = [console.paint(title, "bold"), "", *fields(pairs, console)]
    lanes = document.get("lanes") or []
    busy = [lane for lane in lanes if lane.get("in_flight") or lane.get("due")]
    lines += _failing(document, console) if document.get("failing") else []
    lines += _lanes(busy, console) + _throttled_lanes(document, console)
    return [*lines, *_errors(document, console)]


def watch_page(document: Document, console: Console, trouble: str = "") -> list[str]:
    """The lines of one picture of `watch`.

    Args:
        document: the daemon's status.
        trouble: why the document is not of this moment.
    """
    config = document.get("config") or {}
    uptime = document.get("uptime")
    head = [f"orchestratord {document.get('version') or ''}".rstrip()]
    head += [f"up {span(uptime)}"] if isinstance(uptime, int | float) else []
    head += [f"{number(config.get('endpoints'))} endpoints"]
    head += [f"generation {compact(config.get('generation'))}"]
    lines = [_line(", ".join(head), "bold", console)]
    if trouble:
        lines += [console.paint(line, "red") for line in wrap(escape(trouble), console.width)]
    if document.get("draining"):
        lines.append(_line("draining: no new task starts", "yellow", console))
    for found in (document.get("health") or {}).get("troubles") or []:
        if found.get("code") != "draining":
            lines.append(_line(f"not ready: {compact(found.get('why'))}", "red", console))
    if config.get("error"):
        lines.append(_line("the files are in error; see `orchestratorctl status`", "red", console))
    pairs: Facts = [
        ("queue", _queue(document)),
        ("due", _due(document)),
        ("in flight", _in_flight(document)),
        ("per second", _rates(document.get("rates"))),
        *_held(document),
        *_paused(document),
    ]
    lines += ["", *fields(pairs, console)]
    full = [lane for lane in document.get("lanes") or [] if _is_full(lane)]
    lines += _failing(document, console)
    lines += _throttled_lanes(document, console)
    return lines + (_lanes(full, console, "FULL LANE") or ["", "No lane is full."])


# -- queue and lanes -----------------------------------------------------------------------------


def _queue(document: Document) -> str:
    """How many tasks there are of each status."""
    counts = document.get("queue") or {}
    names = ["pending", "running", "failed", "succeeded", "cancelled"]
    names[3:3] = [name for name in ("missed", "resolved") if counts.get(name)]
    return ", ".join(f"{number(counts[name])} {name}" for name in names if name in counts) or "-"


def _due(document: Document) -> str:
    """How many tasks are due, for how long, and when the next one will be."""
    counts = document.get("queue") or {}
    count, age = counts.get("due"), counts.get("oldest_due_age")
    words = []
    if count is not None:
        words.append(f"{number(count)} now")
    if counts.get("held"):
        words.append(f"{number(counts['held'])} wait for their turn in a partition")
    if count and isinstance(age, int | float):
        words.append(f"the oldest for {span(age)}")
    if document.get("next_due"):
        due = until(document["next_due"])
        words.append("the next at once" if due == "due" else f"the next {due}")
    return ", ".join(words) or "-"


def _held(document: Document) -> Facts:
    """Which partitions wait for a person, and because of which task."""
    queue = document.get("queue") or {}
    count, found = queue.get("held_partitions"), queue.get("held_by") or []
    if not count:
        return []
    told = [
        f"{compact(one.get('partition'))} of {named(one)} (task {compact(one.get('task'))})"
        for one in found[:_MOST_HELD]
    ]
    more = [f"{number(count - len(told))} more"] if count > len(told) else []
    words = f"{number(count)} by tasks that failed, to be retried or cancelled: "
    return [("held", Painted(words + ", ".join([*told, *more]), "yellow"))]


def _outbox(document: Document) -> Facts:
    """Why the daemon cannot relay the outbox."""
    error = (document.get("outbox") or {}).get("error")
    return [("outbox", Painted(f"cannot be relayed: {compact(error)}", "red"))] if error else []


def _stuck(document: Document) -> Facts:
    """Which chores the daemon does not try any more."""
    found = [f"{one['kind']} {one['subject']}" for one in document.get("stuck_chores") or []]
    if not found:
        return []
    words = f"{', '.join(found)}: daemons have died at it; `orchestratord doctor` says what to do"
    return [("set aside", Painted(words, "yellow"))]


def _in_flight(document: Document) -> str:
    """How many attempts are under way, and how many may be."""
    limit = document.get("concurrency")
    words = number(document.get("in_flight"))
    return words if limit is None else f"{words} of {number(limit)}"


def _lanes(found: list[Document], console: Console, title: str = "LANE") -> list[str]:
    """A table of lanes, after an empty line; nothing where there are none."""
    columns = (
        TableColumn(title, value_of("name"), cut="middle"),
        TableColumn("IN FLIGHT", value_of("in_flight", number), right=True),
        TableColumn("OF", value_of("concurrency", number), right=True),
        TableColumn("DUE", value_of("due", number), right=True),
    )
    return ["", *table(columns, found, console)] if found else []


def _errors(document: Document, console: Console) -> list[str]:
    """The errors of the configuration: a line that an editor understands, and where that is."""
    error = (document.get("config") or {}).get("error")
    if not error:
        return []
    lines = [""]
    for item in error.get("errors") or []:
        first, *below = error_excerpt(item)
        lines += [console.paint(first, "red"), *(console.paint(line, None) for line in below)]
    return lines


def _throttled_lanes(document: Document, console: Console) -> list[str]:
    """A table of the lanes that are throttled, after an empty line; nothing where none is."""
    rows: list[Row] = [
        [
            Painted(compact(item.get("lane")), "red"),
            number(item.get("due")),
            f"breaker, open since {time_of_day(item.get('since'))}",
            probe_time(item.get("next_probe")),
            compact(item.get("why")),
        ]
        for item in document.get("breakers") or []
    ]
    for lane in [*(document.get("lanes") or []), *(document.get("throttled") or [])]:
        if lane.get("breaker"):
            continue
        told, rate, overload = lane.get("retry_after"), lane.get("rate"), lane.get("overload")
        if told:
            what, at, why = "Retry-After", told.get("until"), compact(told.get("why"))
        elif overload and lane.get("due"):
            what, at = f"overload, since {time_of_day(overload.get('since'))}", None
            why = f"{number(overload.get('rate'))}/s, as it refuses more; `resume` lifts it"
        elif rate and rate.get("next") and lane.get("due"):
            what, at, why = f"rate_limit {compact(rate.get('limit'))}", rate["next"], "-"
        else:
            continue
        when = until(at) if at else "-"
        rows.append([compact(lane.get("name")), number(lane.get("due")), what, when, why])
    rows += _elsewhere(document.get("daemons"))
    return ["", *table(_THROTTLED, rows, console)] if rows else []


def _elsewhere(daemons: Any) -> list[Row]:
    """The open breakers of other daemons. A Retry-After that one of them got holds for all."""
    rows: list[Row] = []
    for daemon in daemons or ():
        if daemon.get("this") or not daemon.get("alive"):
            continue
        for lane in daemon.get("waiting") or []:
            if breaker := lane.get("breaker"):
                where = f"pid {compact(daemon.get('pid'))} on {compact(daemon.get('host'))}"
                what = f"breaker, open since {time_of_day(breaker.get('since'))}"
                why = f"{where}: {compact(breaker.get('why'))}"
                rows.append([Painted(compact(lane.get("lane")), "red"), "-", what, "-", why])
    return rows


def _line(text: str, colour: str, console: Console) -> str:
    return console.paint(text if console.width is None else cut(text, console.width), colour)


def _rates(rates: Any) -> str:
    return ", ".join(f"{rate:,.1f} {name}" for name, rate in (rates or {}).items()) or "-"


def _failing(document: Document, console: Console) -> list[str]:
    """Tables of the endpoints whose calls fail now, and of the webhooks whose deliveries do."""
    found = document.get("failing") or []
    if not found:
        return ["", "Nothing is failing."]
    lines: list[str] = []
    for title, is_delivery in (("FAILING CALLS", False), ("FAILING DELIVERIES", True)):
        items = [item for item in found if bool(item.get("webhook")) is is_delivery]
        first = TableColumn(title, lambda item: Painted(named(item), "red"), cut="middle")
        if items:
            lines += ["", *table((first, *_FAILING), items[:_MOST_FAILING], console)]
            if len(items) > _MOST_FAILING:
                lines.append(f"and {number(len(items) - _MOST_FAILING)} more; -o json has them")
    more = sum((document.get("failing_counts") or {}).values()) - len(found)
    return [*lines, f"{number(more)} more fail than are listed"] if more > 0 else lines


def _is_full(lane: Any) -> bool:
    limit, count = lane.get("concurrency"), lane.get("in_flight")
    return limit is not None and count is not None and bool(count >= limit)


# -- facts of the status page --------------------------------------------------------------------


def _running(document: dict[str, Any]) -> str | Painted:
    uptime = document.get("uptime")
    if not isinstance(uptime, int | float):
        started = seconds_at(document.get("started_at"))
        uptime = None if started is None else time.time() - started
    words = [f"for {span(uptime)}"] if uptime is not None else []
    words += [
        f"{name} {compact(document[name])}"
        for name in ("pid", "instance")
        if document.get(name) is not None
    ]
    workers = document.get("workers")
    words += [f"{number(workers)} workers"] if isinstance(workers, int) and workers > 1 else []
    if document.get("draining"):
        return Painted(", ".join(["draining: no new task starts", *words]), "yellow")
    return ", ".join(words) or "yes"


def _health(health: Any) -> Facts:
    """What keeps the daemon from its work; nothing where it is ready."""
    found = health.get("troubles") if isinstance(health, dict) else None
    facts: Facts = []
    for trouble in found or []:
        if trouble.get("code") == "draining":
            continue
        since = f", since {with_age(trouble['since'])}" if trouble.get("since") else ""
        words = f"{compact(trouble.get('why'))}{since}"
        facts.append(("" if facts else "not ready", Painted(words, "red")))
    return facts


def _config(config: Any) -> Facts:
    if not isinstance(config, dict):
        return []
    words = [compact(config["folder"])] if config.get("folder") else []
    if config.get("endpoints") is not None:
        words.append(f"{number(config['endpoints'])} endpoints")
    adopted = compact(config.get("generation"))
    if config.get("adopted_at"):
        adopted += f" since {with_age(config['adopted_at'])}"
    if config.get("cause"):
        adopted += f", by {compact(config['cause'])}"
    facts: Facts = [("config", ", ".join(words) or "-"), ("generation", adopted)]
    if changed := _changes(config.get("changes")):
        facts.append(("", changed))
    error = config.get("error")
    if error:
        since = f" since {with_age(error['at'])}" if error.get("at") else ""
        text = f"the files are in error{since}; generation {compact(config.get('generation'))}"
        facts.append(("", Painted(f"{text} goes on", "red")))
    if config.get("restart_required"):
        keys = ", ".join(compact(key) for key in config["restart_required"])
        facts.append(("", Painted(f"restart required for {keys}", "yellow")))
    facts += [
        ("", Painted(f"warning: {line}", "yellow"))
        for line in error_lines(config.get("warnings") or [])
    ]
    return facts


def _changes(changes: Any) -> str:
    """What the last reload changed, in a few words."""
    if not isinstance(changes, dict):
        return ""
    words = []
    for kind, count in (changes.get("counts") or {}).items():
        if count:
            ids = [compact(item) for item in changes.get(kind) or []]
            more = ", …" if count > 3 else ""
            words.append(f"{number(count)} {compact(kind)} ({', '.join(ids[:3])}{more})")
    if changes.get("daemon"):
        words.append(f"settings: {', '.join(compact(key) for key in changes['daemon'])}")
    return "; ".join(words)


def _database(database: Any) -> Facts:
    if not isinstance(database, dict):
        return []
    words = [compact(database["url"])] if database.get("url") else []
    if database.get("size") is not None:
        words.append(size(database["size"]))
    facts: Facts = [("database", ", ".join(words) or "-")]
    held_back = database.get("holding_back") or []
    return [*facts, *(("", Painted(compact(held), "yellow")) for held in held_back)]


def _clock(clock: Any) -> Facts:
    """The clock, where the daemon does not go by this machine's as it stands."""
    ahead = clock.get("machine_ahead") if isinstance(clock, dict) else None
    if not isinstance(ahead, int | float) or abs(ahead) < _CLOCKS_APART:
        return []
    where = "ahead of" if ahead > 0 else "behind"
    whose = "the database's" if clock.get("source") == "database" else "the daemon's time"
    words = f"this machine's is {span(abs(ahead))} {where} {whose}, which counts"
    return [("clock", Painted(words, "yellow"))]


def _daemons(daemons: Any) -> Facts:
    """The daemons of the queue, where there are several, and what they lack."""
    if not isinstance(daemons, list) or len(daemons) < 2:
        return []
    facts: Facts = []
    for daemon in daemons:
        words = [f"pid {compact(daemon.get('pid'))} on {compact(daemon.get('host'))}",
                 f"version {compact(daemon.get('version'))}",
                 f"generation {compact(daemon.get('generation'))}"]  # fmt: skip
        if daemon.get("this"):
            words.append("this one")
        beat = seconds_at(daemon.get("heartbeat_at"))
        alive = daemon.get("alive")
        if beat is not None:
            age = span(max(time.time() - beat, 0.0))
            words.append(f"heard of {age} ago" if alive else f"not heard of for {age}")
        lacks = daemon.get("lacks") or {}
        lacking = [*(lacks.get("endpoints") or []), *(lacks.get("plugins") or [])]
        if lacking and alive:
            more = (lacks.get("endpoints_count") or 0) - len(lacks.get("endpoints") or [])
            rest = f" and {more} more" if more > 0 else ""
            words.append(f"lacks {', '.join(map(compact, lacking))}{rest}")
        text = ", ".join(words)
        label = "" if facts else "daemons"
        facts.append((label, text if alive and not lacking else Painted(text, "yellow")))
    return facts


def _plugins(plugins: Any) -> Facts:
    if not isinstance(plugins, list) or not plugins:
        return []
    words = ", ".join(map(_plugin, plugins))
    faulty = any(one.get("faults") or one.get("status") == "failed" for one in plugins)
    return [("plugins", Painted(words, "yellow" if faulty else None))]


def _plugin(plugin: Any) -> str:
    words = [compact(plugin.get(name)) for name in ("name", "version") if plugin.get(name)]
    state = plugin.get("status")
    notes = [compact(state)] if state and state != "loaded" else []
    if faults := plugin.get("faults"):
        notes.append("1 fault" if faults == 1 else f"{number(faults)} faults")
    ended = [one for one in plugin.get("services") or () if one.get("state") == "waiting"]
    notes += [f"{compact(one.get('name'))} ended, begins again" for one in ended]
    return " ".join([*words, *([f"({', '.join(notes)})"] if notes else [])])


def _paused(document: Document) -> Facts:
    paused = ", ".join(map(compact, document.get("paused") or ()))
    return [("paused", Painted(paused, "yellow"))] if paused else []
