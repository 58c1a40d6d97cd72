"""Following what happens, over restarts of the daemon."""

from __future__ import annotations

import json
import time
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping

from orchestratorctl.client import AWAY_PAUSE, PATIENCE, Client
from orchestratorctl.failures import Failure, Lost, NoDaemon, Problem

Message = namedtuple("Message", ["type", "data"])
"""An event: its type, and the object that tells of it."""


def follow(client: Client, query: Mapping[str, str], away: Callable[[], None]) -> Iterator[Message]:
    """Every event as it happens; where the daemon is gone, waits for it and goes on.

    Args:
        query: which events.
        away: called each time that the daemon is not there.

    Raises:
        NoDaemon: nobody was there at the beginning, or for two minutes.
    """
    last: str | None = None
    gone: float | None = None
    while True:
        try:
            for number, message in _messages(client.stream("/v1/events", query, last)):
                last, gone = number or last, None
                if message is not None:
                    yield message
            failure: Failure = Lost(f"the daemon at {client.path} is being stopped")
        except (NoDaemon, Lost, Problem) as failed:
            if last is None or (isinstance(failed, Problem) and failed.status != 503):
                raise
            failure = failed
        now = time.monotonic()
        gone = now if gone is None else gone
        if now - gone >= PATIENCE:
            raise NoDaemon(f"{failure}, and has not come back")
        away()
        time.sleep(AWAY_PAUSE)


def _messages(lines: Iterator[str]) -> Iterator[tuple[str, Message | None]]:
    """(Id, event) of each block of a stream; an id alone says where the stream stands."""
    block: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if line and name:
            block[name] = value.removeprefix(" ")
        elif not line and block:
            yield block.get("id", ""), _message(block)
            block = {}


def _message(block: Mapping[str, str]) -> Message | None:
    try:
        data = json.loads(block.get("data", ""))
    except ValueError:
        return None
    return Message(block.get("event", ""), data) if isinstance(data, dict) else None
