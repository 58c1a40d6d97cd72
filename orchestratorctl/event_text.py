"""What is said of an event: one line."""

from __future__ import annotations

from orchestratorctl.console import Console
from orchestratorctl.formats import compact, cut, escape, named, number, short_time, span
from orchestratorctl.tables import moved_word, outcomes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TYPE = 16
"""Characters of the longest type."""

_COLOURS = {
    type_: colour
    for colour, types in {
        "green": "task.succeeded bulk.finished breaker.closed throttle.ended trouble.ended",
        "yellow": "task.retried webhook.disabled inbound.refused throttle.began endpoint.paused "
        "schedule.missed clock.jumped clock.brought_back daemon.draining",
        "red": "task.failed bulk.paused partition.held breaker.opened endpoint.failing "
        "outbox.refused trouble.began config.refused plugin.fault",
        "dim": "task.cancelled",
    }.items()
    for type_ in types.split()
}
"""Of the types that stand out."""


def event_line(type_: str, event: dict[str, Any], console: Console) -> str:
    """The event with its time and type, cut to the width of the terminal."""
    time = short_time(event.get("at"))[-8:]
    text = escape(_sentence(event))
    if console.width is not None:
        text = cut(text, max(console.width - len(time) - _TYPE - 4, 20))
    painted = console.paint(type_.ljust(_TYPE), _COLOURS.get(type_))
    return f"{console.paint(time, 'dim')}  {painted}  {text}".rstrip()


def missed_line(count: object) -> str:
    """That events were lost on the way."""
    if count is None:
        return "Some events may have been missed here."
    return f"{number(count)} events were missed here, of all types."


def _sentence(event: dict[str, Any]) -> str:
    """What an event says, without its time and type."""
    what = str(event.get("type")).partition(".")[0]
    words = {
        "task": _task, "config": _config, "plugin": _plugin, "daemon": _daemon,
        "breaker": _breaker, "throttle": _throttle, "clock": _clock, "outbox": _outbox,
        "partition": _partition, "inbound": _inbound, "trouble": _trouble, "endpoint": _endpoint,
        "bulk": _bulk, "schedule": _schedule,
    }.get(what)  # fmt: skip
    return words(event) if words is not None else _named(event)


def _task(event: dict[str, Any]) -> str:
    parts = [f"{compact(event.get('kind'))} {compact(event.get('id'))} {named(event)}"]
    if event.get("started_at") is not None:
        parts[0] += f" #{compact(event.get('attempt'))}"
    took = event.get("duration_ms")
    if took is not None:
        in_ = f" in {span(took / 1000)}" if isinstance(took, int | float) else ""
        parts.append(f"{compact(event.get('status_code'))}{in_}")
    if event.get("reason"):
        parts.append(compact(event["reason"]))
    delay = event.get("delay")
    if event.get("type") == "task.retried" and isinstance(delay, int | float):
        parts.append(f"again in {span(delay)}")
    if event.get("waits_for"):
        parts.append(f"waits for: {event['waits_for']}")
    text = ", ".join(parts)
    return f"{text}: {event['error']}" if event.get("error") else text


def _config(event: dict[str, Any]) -> str:
    generation, cause = compact(event.get("generation")), compact(event.get("cause"))
    if event.get("type") == "config.refused":
        problems = number(event.get("problems"))
        return f"generation {generation} goes on ({cause}), {problems} wrong: {event.get('error')}"
    counts = event.get("counts") or {}
    parts = [f"{number(count)} {kind}" for kind, count in counts.items() if count]
    parts += [f"settings {', '.join(event['settings'])}"] if event.get("settings") else []
    changed = f": {', '.join(parts)}" if parts else ""
    return f"generation {generation} ({cause}), {number(event.get('endpoints'))} endpoints{changed}"


def _breaker(event: dict[str, Any]) -> str:
    lane = compact(event.get("lane"))
    if event.get("type") == "breaker.opened":
        return f"{lane} after {number(event.get('failures'))} failures: {event.get('error')}"
    took = event.get("duration_ms")
    after = f" after {span(took / 1000)}" if isinstance(took, int | float) else ""
    return f"{lane}{after}, {number(event.get('probes'))} probes had failed"


def _inbound(event: dict[str, Any]) -> str:
    return f"{named(event)} from {compact(event.get('peer'))}: {compact(event.get('reason'))}"


def _throttle(event: dict[str, Any]) -> str:
    text = f"{compact(event.get('scope'))}, {compact(event.get('cause')).replace('_', ' ')}"
    took = event.get("duration_ms")
    if event.get("type") == "throttle.ended":
        return f"{text} after {span(took / 1000)}" if isinstance(took, int | float) else text
    until, rate = event.get("until"), event.get("rate")
    more = f", until {short_time(until)}" if until else f", {rate} a second" if rate else ""
    return f"{text}{more}: {compact(event.get('why'))}"


def _bulk(event: dict[str, Any]) -> str:
    done = (
        f"{number(event.get('moved'))} of {number(event.get('matched'))} tasks {moved_word(event)}"
    )
    return f"bulk {compact(event.get('bulk'))}: {', '.join([done, *outcomes(event)])}"


def _partition(event: dict[str, Any]) -> str:
    failed = f"task {compact(event.get('id'))} failed ({compact(event.get('reason'))})"
    return f"{compact(event.get('partition'))} of {named(event)}: {failed}"


def _trouble(event: dict[str, Any]) -> str:
    return f"{compact(event.get('code'))}: {compact(event.get('why'))}"


def _endpoint(event: dict[str, Any]) -> str:
    if event.get("type") != "endpoint.failing":
        return _named(event)
    since, count = short_time(event.get("failing_since")), number(event.get("failures"))
    return f"{named(event)} since {since}, {count} failures, the last one: {event.get('error')}"


def _schedule(event: dict[str, Any]) -> str:
    first, last = short_time(event.get("first_slot")), short_time(event.get("slot"))
    now = ", called now" if event.get("caught_up") else ""
    return f"{named(event)}, {number(event.get('slots'))} missed, {first} to {last}{now}"


def _outbox(event: dict[str, Any]) -> str:
    return f"row {compact(event.get('id'))} {named(event)}: {event.get('error')}"


def _plugin(event: dict[str, Any]) -> str:
    return f"{compact(event.get('plugin'))}: {compact(event.get('hook'))} {event.get('error')}"


def _clock(event: dict[str, Any]) -> str:
    by = event.get("by")
    if isinstance(by, int | float):
        return f"put {'forward' if by > 0 else 'back'} by {span(abs(by))}"
    return f"{number(event.get('tasks'))} tasks: their times were still to come"


def _daemon(event: dict[str, Any]) -> str:
    return f"orchestratord {compact(event.get('version'))}"


def _named(event: dict[str, Any]) -> str:
    reason = f": {event['reason']}" if event.get("reason") else ""
    return f"{named(event)}{reason}"
