"""What the command line's words may be, each read into the value that it stands for.

Every function takes one word and raises `argparse.ArgumentTypeError` where it makes no sense.
"""

from __future__ import annotations

import json
import re
import sys
from argparse import ArgumentTypeError
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KINDS = ("call", "webhook")
STATUSES = ("pending", "running", "succeeded", "failed", "cancelled")
GROUPS = ("endpoint", "webhook", "kind", "status", "reason", "status_code", "partition")
REASONS = tuple(
    "exhausted not_retryable ambiguous rejected expired poisoned invalid_payload invalid "
    "endpoint_removed webhook_removed webhook_disabled resolved replaced".split()
)
EVENTS = (
    "task.created task.started task.succeeded task.retried task.snoozed task.failed task.cancelled "
    "task.triggered bulk.began bulk.progress bulk.paused bulk.resumed bulk.cancelled bulk.finished "
    "partition.held webhook.disabled webhook.enabled breaker.opened breaker.closed inbound.refused "
    "throttle.began throttle.ended endpoint.failing endpoint.paused endpoint.resumed "
    "outbox.refused schedule.missed trouble.began trouble.ended config.adopted config.refused "
    "plugin.fault clock.jumped clock.returned clock.followed clock.brought_back daemon.started "
    "daemon.draining"
).split()
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MAX_DURATION = 3650 * 86400.0  # as the daemon has it
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)?", re.ASCII)
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
OWN_ENDPOINT = "orchestratord"
"""Stands in the place of an endpoint for what is of the daemon itself."""
SUBSCRIPTIONS = "subscriptions"
"""Stands there for deliveries to subscriptions."""
_ENDPOINT = re.compile(f"{_NAME}/{_NAME}")
_ENDPOINTS = re.compile(rf"{_NAME}/({_NAME}|\*)")


def utf8_text(word: str) -> str:
    """The word itself, which must be UTF-8."""
    try:
        word.encode()
    except UnicodeEncodeError:
        raise ArgumentTypeError("the text is not UTF-8") from None
    return word


def endpoint_id(word: str) -> str:
    """An endpoint's id, API/NAME."""
    if _ENDPOINT.fullmatch(word) is None:
        if word.isdecimal():
            raise ArgumentTypeError(
                f"'{word}' is the id of a task, not an endpoint: orchestratorctl show {word}"
            )
        raise ArgumentTypeError(
            f"'{word}' is not an endpoint; write API/NAME: orchestratorctl endpoints"
        )
    return word


def is_endpoint(word: str) -> bool:
    """Whether a word is an endpoint's id, API/NAME, or API/* for all of an api."""
    return _ENDPOINTS.fullmatch(word) is not None


def endpoint_or_own(word: str) -> str:
    """An endpoint's id, or `orchestratord` for the operational webhooks."""
    return word if word == OWN_ENDPOINT else endpoint_id(word)


def scope(word: str) -> str:
    """What can be resumed: an endpoint's id, API/*, API/NAME#WEBHOOK, a lane, or a URL."""
    return utf8_text(word) if ":" in word or "#" in word else endpoint_or_api(word)


def endpoint_or_api(word: str) -> str:
    """An endpoint's id, or API/* for all of an api."""
    if not is_endpoint(word):
        raise ArgumentTypeError(
            f"'{word}' is not an endpoint; write API/NAME, or API/* for all of one"
        )
    return word


def endpoint_filter(word: str) -> str:
    """An endpoint's id, API/* for all of an api, `orchestratord` or `subscriptions`."""
    return word if word in (OWN_ENDPOINT, SUBSCRIPTIONS) else endpoint_or_api(word)


def whole_number(word: str) -> int:
    """A whole number from 1: an id or a count."""
    if not (word.isascii() and word.isdecimal() and int(word) > 0):
        raise ArgumentTypeError(f"'{word}' is not a whole number from 1")
    return int(word)


def number_from_0(word: str) -> int:
    """A whole number from 0."""
    if not (word.isascii() and word.isdecimal()):
        raise ArgumentTypeError(f"'{word}' is not a whole number")
    return int(word)


def numbered_id(word: str) -> int:
    """The id of a task or of a bulk."""
    if _ENDPOINT.fullmatch(word) is not None:
        raise ArgumentTypeError(
            f"'{word}' is an endpoint, not the id of a task: orchestratorctl list --endpoint {word}"
        )
    return whole_number(word)


def duration(word: str) -> float:
    """Seconds of `500ms`, `10s`, `5m`, `2h`, `1d` or a number of seconds."""
    match = _DURATION.fullmatch(word.strip())
    if match is None:
        raise ArgumentTypeError(
            f"'{word}' is not a duration; write 500ms, 10s, 5m, 2h, 1d or seconds"
        )
    return float(match[1]) * _UNITS[match[2] or "s"]


def interval(word: str) -> float:
    """Seconds from one look to the next."""
    seconds = duration(word)
    if not 0.1 <= seconds <= _MAX_DURATION:
        raise ArgumentTypeError(f"'{word}' is not an interval; write 100ms to 3650d")
    return seconds


def since(word: str) -> str:
    """A duration with its unit, or a time in UTC, as the API reads it."""
    word = word.strip()
    match = _DURATION.fullmatch(word)
    if match is not None:
        return word if match[2] else f"{word}s"
    try:
        return moment(word)
    except ArgumentTypeError:
        raise ArgumentTypeError(
            f"'{word}' is neither a duration (2h) nor a time (2026-11-24T22:00:00Z)"
        ) from None


def moment(word: str) -> str:
    """A time, in UTC where it names no zone, as the API reads it."""
    try:
        when = datetime.fromisoformat(word.strip())
    except ValueError:
        raise ArgumentTypeError(f"'{word}' is not a time; write 2026-11-24T22:00:00Z") from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return when.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def statuses(word: str) -> str:
    """One status of a task, or several with commas."""
    return _known(word, "status", STATUSES)


def reasons(word: str) -> str:
    """One reason of a failure, or several with commas."""
    return _known(word, "reason", REASONS)


def _known(word: str, what: str, known: Sequence[str], more: Collection[str] = ()) -> str:
    for one in word.split(","):
        if one not in known and one not in more:
            raise ArgumentTypeError(f"'{one}' is not a {what}; there are {', '.join(known)}")
    return word


def groups(word: str) -> str:
    """What tasks are grouped by, as `endpoint,reason`."""
    names = word.split(",")
    for name in names:
        if name not in GROUPS:
            raise ArgumentTypeError(
                f"tasks are not grouped by '{name}', but by {', '.join(GROUPS)}"
            )
    if len(set(names)) < len(names):
        raise ArgumentTypeError(f"'{word}' names something twice")
    return word


def event_types(word: str) -> str:
    """One type of event or several with commas; `task.*` for all that begin like that."""
    begun = {f"{event.partition('.')[0]}.*" for event in EVENTS}
    return _known(word, "type of event", EVENTS, begun)


def key_value(word: str) -> tuple[str, str]:
    """The name and the text of KEY=VALUE."""
    name, equals, value = utf8_text(word).partition("=")
    if not equals or not name:
        raise ArgumentTypeError(f"'{word}' is not KEY=VALUE")
    return name, value


def header_value(word: str) -> str:
    """What may stand as the value of an HTTP header."""
    if not word or not word.isascii() or not word.isprintable() or word != word.strip():
        raise ArgumentTypeError("a key is printable ASCII without blanks at its ends")
    return word


def json_object(word: str) -> dict[str, Any]:
    """A JSON object, written out or in the file that `@PATH` names; `@-` is standard input."""
    try:
        value = json.loads(
            text_or_file(word), parse_constant=_no_constant, object_pairs_hook=_no_key_twice
        )
    except (ValueError, RecursionError) as error:
        raise ArgumentTypeError(f"no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ArgumentTypeError("parameters are a JSON object, {...}")
    return value


def body(word: str) -> Any:
    """The body of an answer: JSON where it is that, else the text; `@PATH` names its file."""
    text = text_or_file(word)
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def text_or_file(word: str) -> str:
    """A text as it stands, or what is in the file that `@PATH` names; `@-` is standard input."""
    if not word.startswith("@"):
        return utf8_text(word)
    path = word[1:]
    try:
        if path == "-":
            return sys.stdin.read()
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except OSError as error:
        raise ArgumentTypeError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ArgumentTypeError(f"{path}: not a text in UTF-8") from None


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")
