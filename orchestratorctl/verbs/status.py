"""`status`: how the daemon is, on one screen."""

from __future__ import annotations

import time
from argparse import Namespace

from orchestratorctl import facts
from orchestratorctl.client import Client
from orchestratorctl.failures import OK, error_lines
from orchestratorctl.limits import waiting_lanes
from orchestratorctl.render import Painted, compact, fields, number, size
from orchestratorctl.screen import Screen
from orchestratorctl.times import seconds_at, span, with_age

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Facts = list[tuple[str, str | Painted]]


def status(client: Client, screen: Screen, arguments: Namespace) -> int:
    """Shows the daemon's configuration, queue, database and plugins."""
    document = client.get("/v1/status")
    if not screen.tables:
        screen.data(document)
        return OK
    now = time.time()
    pairs: Facts = [
        ("running", _running(document, now)),
        *_config(document.get("config"), now),
        ("queue", facts.queue(document)),
        ("due", facts.due(document, now)),
        ("in flight", facts.in_flight(document)),
        *_database(document.get("database")),
        *_daemons(document.get("daemons"), now),
        *_plugins(document.get("plugins")),
    ]
    if document.get("paused"):
        paused = ", ".join(compact(item) for item in document["paused"])
        pairs.append(("paused", Painted(paused, "yellow")))
    title = f"orchestratord {document.get('version') or ''}".rstrip()
    lines = [screen.paint(title, "bold"), "", *fields(pairs, screen)]
    busy = [lane for lane in document.get("lanes") or [] if _is_busy(lane)]
    lines += facts.lanes(busy, screen) + waiting_lanes(document, screen, now)
    screen.lines([*lines, *facts.errors(document, screen)])
    return OK


def _running(document: dict[str, Any], now: float) -> str | Painted:
    uptime = document.get("uptime")
    if not isinstance(uptime, int | float):
        started = seconds_at(document.get("started_at"))
        uptime = None if started is None else now - started
    words = [f"for {span(uptime)}"] if uptime is not None else []
    words += [
        f"{name} {compact(document[name])}"
        for name in ("pid", "instance")
        if document.get(name) is not None
    ]
    if document.get("draining"):
        return Painted(", ".join(["draining: no new task is begun", *words]), "yellow")
    return ", ".join(words) or "yes"


def _config(config: Any, now: float) -> Facts:
    if not isinstance(config, dict):
        return []
    words = [compact(config["folder"])] if config.get("folder") else []
    if config.get("endpoints") is not None:
        words.append(f"{number(config['endpoints'])} endpoints")
    adopted = compact(config.get("generation"))
    if config.get("adopted_at"):
        adopted += f" since {with_age(config['adopted_at'], now)}"
    if config.get("cause"):
        adopted += f", by {compact(config['cause'])}"
    facts: Facts = [("config", ", ".join(words) or "-"), ("generation", adopted)]
    if changed := _changes(config.get("changes")):
        facts.append(("", changed))
    error = config.get("error")
    if error:
        at = error.get("at") if isinstance(error, dict) else None
        since = f" since {with_age(at, now)}" if at else ""
        refused = f"the files are in error{since}; generation {compact(config.get('generation'))}"
        facts.append(("", Painted(f"{refused} goes on", "red")))
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
    if database.get("accepting") is False:
        return [("database", Painted(", ".join([*words, "full: no new work is taken"]), "red"))]
    return [("database", ", ".join(words) or "-")]


def _daemons(daemons: Any, now: float) -> Facts:
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
            ago = span(max(now - beat, 0.0))
            words.append(f"heard of {ago} ago" if alive else f"not heard of for {ago}")
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
    words = ", ".join(_plugin(plugin) for plugin in plugins)
    return [("plugins", Painted(words, "yellow" if any(map(_is_faulty, plugins)) else None))]


def _plugin(plugin: Any) -> str:
    if not isinstance(plugin, dict):
        return compact(plugin)
    words = [compact(plugin.get(name)) for name in ("name", "version") if plugin.get(name)]
    state = plugin.get("status")
    notes = [compact(state)] if state and state != "loaded" else []
    if faults := plugin.get("faults"):
        notes.append("1 fault" if faults == 1 else f"{number(faults)} faults")
    return " ".join([*words, *([f"({', '.join(notes)})"] if notes else [])])


def _is_faulty(plugin: Any) -> bool:
    return isinstance(plugin, dict) and bool(
        plugin.get("faults") or plugin.get("status") == "failed"
    )


def _is_busy(lane: Any) -> bool:
    return isinstance(lane, dict) and bool(lane.get("in_flight") or lane.get("due"))
