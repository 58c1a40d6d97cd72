"""Events over HTTP, as server-sent events: which of them are wanted, and what they look like."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Container, Mapping
from typing import Any

from orchestratord.api.filters import endpoint_filter, items, whole_number, words_of
from orchestratord.api.serialize import json_bytes
from orchestratord.api.server.problem_json import Refusal
from orchestratord.errors import InvalidParams
from orchestratord.model.event import ConfigEvent, Event, EventType
from orchestratord.model.task import Kind, Status
from orchestratord.plugin.event_bus import EventBus, Missed
from orchestratord.values.clock import rfc3339
from orchestratord.values.suggest import suggest

MEDIA_TYPE = "text/event-stream"

MAX_FOLLOWERS = 16
"""At once: each holds one of the connections, and costs something for each event."""
HEARTBEAT = 15.0
"""Seconds of silence after which a comment says that the connection still is one."""
MAX_IDS = 20
"""Endpoints of each kind that the event of a reload names."""

_PAGE = 100
"""Events that are written in one go."""
_KEPT = 2_000
"""Texts that are kept for other followers of the same events."""
_TIMES = (
    "at started_at next_try next_probe opened_at slot first_slot failing_since began_at".split()
)
_IDS = ("added", "changed", "removed")

Wanted = Callable[[Event], bool]


class Feed:
    """Writes what happens for all clients that follow."""

    def __init__(self, events: EventBus) -> None:
        self._events = events
        self._texts: dict[int, bytes] = {}

    def chunks(self, wanted: Wanted, after: int | None) -> AsyncIterator[bytes]:
        """What a client that follows is sent, until the daemon stops.

        `after`: the number of the last event that it has; None where it is new.

        Raises:
            Refusal: there are too many of them already.
        """
        if len(self._events.followers) >= MAX_FOLLOWERS:
            detail = f"{MAX_FOLLOWERS} clients follow the events already; that is the limit"
            raise Refusal("too_many_followers", detail, headers={"Retry-After": "10"})
        return self._follow(wanted, after)

    async def _follow(self, wanted: Wanted, after: int | None) -> AsyncIterator[bytes]:
        follower = self._events.follow(wanted, after)
        try:
            # A client that is cut off before the first event knows from this where it was.
            yield b": welcome back\n\n" if after is not None else b"id: %d\n\n" % follower.number
            while not follower.ended:
                taken = await follower.take(_PAGE, HEARTBEAT)
                if taken:
                    yield b"".join(self._text(number, event) for number, event in taken)
                    await asyncio.sleep(0)  # in a crowd of events, others get their turn
                elif not follower.ended:
                    yield b": nothing happened\n\n"
        finally:
            self._events.leave(follower)

    def _text(self, number: int, event: Event | Missed) -> bytes:
        if isinstance(event, Missed):
            return b"event: missed\ndata: %b\n\n" % json_bytes({"missed": event.count})
        text = self._texts.get(number)
        if text is None:
            if len(self._texts) >= _KEPT:
                self._texts.clear()
            data = json_bytes(event_json(event))
            text = b"id: %d\nevent: %b\ndata: %b\n\n" % (number, event.type.encode(), data)
            self._texts[number] = text
        return text


def event_json(event: Event) -> dict[str, Any]:
    """An event for people and programs, as it is sent."""
    shown: dict[str, Any] = event._asdict()
    for name in _TIMES:
        if name in shown:
            shown[name] = rfc3339(shown[name])
    if isinstance(event, ConfigEvent):
        shown["counts"] = {name: len(shown[name]) for name in _IDS}
        shown |= {name: shown[name][:MAX_IDS] for name in _IDS}
    return shown


def read_wanted(given: Mapping[str, str], own: Container[str] = ()) -> Wanted:
    """Which events `given` describes; what is empty counts as left out.

    An event that has no such field, as a reload has no endpoint, is not among them.

    Args:
        given: by the names of `EventsQuery`. Several kinds, statuses or types are separated by
            commas; `task.*` stands for all types of tasks.
        own: the endpoints that no file declares.

    Raises:
        InvalidParams: a value does not fit; all of them at once.
    """
    read: dict[str, Callable[[str], Callable[[Any], bool]]] = {
        "endpoint": lambda value: _endpoint(value, own),
        "kind": lambda value: frozenset(words_of(Kind, "kind", value)).__contains__,
        "status": lambda value: frozenset(words_of(Status, "status", value)).__contains__,
        "type": _types,
    }
    tests: list[tuple[str, Callable[[Any], bool]]] = []
    problems: dict[str, str] = {}
    for name, value in given.items():
        if value:
            try:
                tests.append((name, read[name](value)))
            except ValueError as error:
                problems[name] = str(error)
    if problems:
        raise InvalidParams(problems)

    def wanted(event: Event) -> bool:
        return all(test(getattr(event, name, None)) for name, test in tests)

    return wanted


def read_number(headers: Mapping[str, str]) -> int | None:
    """The number of the last event that a client had; None for a new one, -1 for nonsense."""
    text = headers.get("last-event-id")
    if not text:
        return None
    number = whole_number(text)
    return -1 if number is None else number


def _endpoint(value: str, own: Container[str]) -> Callable[[Any], bool]:
    wanted = endpoint_filter(value, own)
    if wanted.endswith("/*"):
        return lambda endpoint: endpoint is not None and endpoint.startswith(wanted[:-1])
    return frozenset((wanted,)).__contains__


def _types(value: str) -> Callable[[Any], bool]:
    known = [item.value for item in EventType]
    found: set[str] = set()
    for word in items(value):
        matching = {item for item in known if item == word}
        if word.endswith(".*"):
            matching = {item for item in known if item.startswith(word[:-1])}
        if not matching:
            raise ValueError(f"{word!r} is not a type of event{suggest(word, known)}")
        found |= matching
    return found.__contains__
