"""What the command line's words may be, each read into the value that it stands for.

Every function takes one word and raises `argparse.ArgumentTypeError` where it makes no sense.
"""

from __future__ import annotations

import json
import re
import sys
from argparse import ArgumentTypeError

from orchestratorctl.times import parse_duration, parse_since

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STATUSES = ("pending", "running", "succeeded", "failed", "cancelled")
EVENTS = (
    "task.created",
    "task.started",
    "task.succeeded",
    "task.retried",
    "task.snoozed",
    "task.failed",
    "task.cancelled",
    "task.triggered",
    "webhook.disabled",
    "webhook.enabled",
    "breaker.opened",
    "breaker.closed",
    "endpoint.paused",
    "endpoint.resumed",
    "config.adopted",
    "config.refused",
    "plugin.fault",
    "daemon.started",
    "daemon.draining",
)
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_ENDPOINT = re.compile(f"{_NAME}/{_NAME}")
_ENDPOINTS = re.compile(rf"{_NAME}/({_NAME}|\*)")


def text(word: str) -> str:
    """The word itself, which must be UTF-8."""
    try:
        word.encode()
    except UnicodeEncodeError:
        raise ArgumentTypeError("that is no UTF-8 text") from None
    return word


def endpoint(word: str) -> str:
    """An endpoint's id, API/NAME."""
    if _ENDPOINT.fullmatch(word) is None:
        raise ArgumentTypeError(f"'{word}' is no endpoint; one is named API/NAME")
    return word


def endpoints(word: str) -> str:
    """An endpoint's id, or API/* for all endpoints of an api."""
    if _ENDPOINTS.fullmatch(word) is None:
        raise ArgumentTypeError(f"'{word}' is no endpoint; write API/NAME, or API/* for all of one")
    return word


def positive(word: str) -> int:
    """A whole number from 1: an id or a count."""
    if not (word.isascii() and word.isdecimal() and int(word) > 0):
        raise ArgumentTypeError(f"'{word}' is no whole number from 1")
    return int(word)


def duration(word: str) -> float:
    """Seconds of a duration."""
    try:
        return parse_duration(word)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def interval(word: str) -> float:
    """Seconds from one look to the next."""
    seconds = duration(word)
    if seconds < 0.1:
        raise ArgumentTypeError("looking more often than each 100ms shows nothing more")
    return seconds


def since(word: str) -> str:
    """A duration or a time, as the API reads it."""
    try:
        return parse_since(word)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def statuses(word: str) -> str:
    """One status of a task, or several with commas."""
    for status in word.split(","):
        if status not in STATUSES:
            raise ArgumentTypeError(f"'{status}' is no status; there are {', '.join(STATUSES)}")
    return word


def events(word: str) -> str:
    """One type of event or several with commas; `task.*` for all that begin like that."""
    for item in word.split(","):
        known = item in EVENTS or f"{item.removesuffix('.*')}." in {
            event[: event.index(".") + 1] for event in EVENTS if item.endswith(".*")
        }
        if not known:
            raise ArgumentTypeError(f"'{item}' is no type of event; there are {', '.join(EVENTS)}")
    return word


def pair(word: str) -> tuple[str, str]:
    """The name and the text of KEY=VALUE."""
    name, equals, value = text(word).partition("=")
    if not equals or not name:
        raise ArgumentTypeError(f"'{word}' is not KEY=VALUE")
    return name, value


def header(word: str) -> str:
    """What may stand as the value of an HTTP header."""
    if not word or not word.isascii() or not word.isprintable() or word != word.strip():
        raise ArgumentTypeError("a key is printable ASCII without blanks at its ends")
    return word


def json_object(word: str) -> dict[str, Any]:
    """A JSON object, written out or in the file that `@PATH` names; `@-` is standard input."""
    document = _content(word[1:]) if word.startswith("@") else text(word)
    try:
        value = json.loads(document, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ArgumentTypeError(f"no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ArgumentTypeError("parameters are a JSON object, {...}")
    return value


def _content(path: str) -> str:
    try:
        if path == "-":
            return sys.stdin.read()
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except OSError as error:
        raise ArgumentTypeError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ArgumentTypeError(f"{path}: no UTF-8 text") from None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON value")
