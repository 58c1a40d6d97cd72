"""Reading filters over tasks, from a query string or from JSON."""

import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from orchestratord.api.answer_documents import example
from orchestratord.errors import InvalidParams
from orchestratord.model.endpoint import MAX_PARTITION
from orchestratord.model.task import DOUBTFUL, Kind, Reason, Status
from orchestratord.queue.records import CANCEL, RESOLVE, RETRY, Place, TaskFilter
from orchestratord.values.clock import from_rfc3339
from orchestratord.values.durations import MAX_DURATION, parse_duration
from orchestratord.values.status_set import StatusSet
from orchestratord.values.suggest import MOST_UNKNOWN, suggest

MAX_IDS = 1_000
"""Tasks that are named one by one."""
MAX_TEXT = 200
"""Characters that are looked for."""


def one_of(words: Iterable[str]) -> Any:
    """For a description: a text is one of these words."""
    return Field(json_schema_extra={"enum": [str(word) for word in words]})


_ONE_CODE = r"[1-5]\d\d|[1-5][xX]{2}|[1-5]\d\d-[1-5]\d\d|error|ok"
ENDPOINTS = r"[A-Za-z0-9][A-Za-z0-9._-]*(/([A-Za-z0-9][A-Za-z0-9._-]*|\*))?"


def _several(words: Iterable[str]) -> Any:
    one = "|".join(words)
    return Field(pattern=f"^(({one})(, *({one}))*)?$")


_CODE = Annotated[int, Field(ge=100, le=599)]
_TEXT_CODE = Annotated[str, Field(pattern=f"^({_ONE_CODE})$")]
_CODES = Annotated[str, _several([_ONE_CODE])]
_STATUSES = Annotated[str, _several(Status)]
_REASONS = Annotated[str, _several(Reason)]
_ID = Annotated[int, Field(ge=0, lt=10**19)]
_TIME = (
    Annotated[float, Field(ge=0, le=MAX_DURATION)]
    | Annotated[str, Field(pattern=r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d)?)?$")]
    | Annotated[str, Field(json_schema_extra={"format": "date-time"})]
)


class TaskQuery(TypedDict, total=False):
    """Which tasks, in a query string: those that meet all that is given."""

    status: list[Annotated[str, one_of(Status)]]
    """In any of these."""
    status_code: list[_TEXT_CODE]
    """Of the last answer: 503, 5xx, 500-599, `error` or `ok`."""
    reason: list[Annotated[str, one_of(Reason)]]
    """Failed for any of these."""
    endpoint: Annotated[str, Field(pattern=f"^{ENDPOINTS}$")]
    """`api/name`, `api/*`, or one of no file: `orchestratord` for what is of the daemon itself."""
    kind: Annotated[str, one_of(Kind)]
    """What the task does."""
    since: str
    """Made then or later: a duration back from now, such as `2h`, or a time."""
    until: str
    """Made before that."""
    ended_since: str
    """Ended then or later."""
    text: Annotated[str, Field(max_length=MAX_TEXT)]
    """Stands in the parameters, the last error, the last answer, or the name of the endpoint or
    webhook."""
    id: list[_ID]
    """One of these."""
    parent: _ID
    """The task whose child tasks they are."""
    partition: Annotated[str, Field(max_length=MAX_PARTITION)]
    """Of this partition."""
    run: _ID
    """Calls of the run that began with this call."""
    bulk: _ID
    """Moved by this bulk, and by none after it."""
    batch: _ID
    """Told of by the delivery of this batch."""
    tenant: Annotated[str, Field(max_length=MAX_TEXT)]
    """Deliveries to all receivers of this tenant: `acme` is short for the `webhook` `acme/*`."""
    webhook: Annotated[str, Field(max_length=MAX_TEXT)]
    """Deliveries of the webhook of this name; `acme/*`: of all whose name begins with `acme/`."""


@example({"endpoint": "shop/*", "status_code": "5xx", "since": "1d"})
class TaskFilterBody(TypedDict, total=False):
    """Which tasks, in JSON: those that meet all that is given. Null, an empty text and an empty
    list are as good as nothing."""

    status: _STATUSES | list[Annotated[str, one_of(Status)]] | None
    """One status, several with commas between them, or a list."""
    status_code: _CODE | _CODES | list[_CODE | _TEXT_CODE] | None
    """Of the last answer: 503, 5xx, 500-599, `error`, `ok`, or several."""
    reason: _REASONS | list[Annotated[str, one_of(Reason)]] | None
    """Failed for any of these."""
    endpoint: Annotated[str, Field(pattern=f"^({ENDPOINTS})?$")] | None
    """`api/name`, `api/*`, or one of no file: `orchestratord` for what is of the daemon itself."""
    kind: Annotated[str, Field(pattern=f"^({'|'.join(Kind)})?$")] | None
    """`call` or `webhook`."""
    since: _TIME | None
    """Made then or later: a duration back from now, such as `2h`, or a time."""
    until: _TIME | None
    """Made before that."""
    ended_since: _TIME | None
    """Ended then or later."""
    text: Annotated[str, Field(max_length=MAX_TEXT)] | None
    """Stands in the parameters, the last error, the last answer, or the name of the endpoint or
    webhook."""
    id: _ID | Annotated[str, Field(pattern=r"^([0-9]{1,19}(,[0-9]{1,19})*)?$")] | list[_ID] | None
    """One of these, 1,000 at most."""
    parent: _ID | Annotated[str, Field(pattern=r"^([0-9]{1,19})?$")] | None
    """The task whose child tasks they are."""
    partition: Annotated[str, Field(max_length=MAX_PARTITION)] | None
    """Of this partition."""
    run: _ID | Annotated[str, Field(pattern=r"^([0-9]{1,19})?$")] | None
    """Calls of the run that began with this call."""
    bulk: _ID | Annotated[str, Field(pattern=r"^([0-9]{1,19})?$")] | None
    """Moved by this bulk, and by none after it."""
    batch: _ID | Annotated[str, Field(pattern=r"^([0-9]{1,19})?$")] | None
    """Told of by the delivery of this batch."""
    tenant: Annotated[str, Field(max_length=MAX_TEXT)] | None
    """Deliveries to all receivers of this tenant: `acme` is short for the `webhook` `acme/*`."""
    webhook: Annotated[str, Field(max_length=MAX_TEXT)] | None
    """Deliveries of the webhook of this name; `acme/*`: of all whose name begins with `acme/`."""


NAMES = tuple(TaskQuery.__annotations__)
"""What tasks can be chosen by."""

ORDERS = ("newest", "ended")
"""How tasks are listed: the newest first; or those that have ended, the last one first."""

IN_BULK = {
    RETRY: ("retried", (Status.PENDING, Status.FAILED, Status.CANCELLED)),
    CANCEL: ("cancelled", (Status.PENDING, Status.RUNNING, Status.FAILED)),
    RESOLVE: ("resolved", (Status.PENDING, Status.FAILED)),
}
"""What a filter may move, by the action; tasks that succeeded are repeated by force only."""

FIELDS = {"id": "ids"}
"""The fields of a filter that have another name."""
MAX_ID = (1 << 63) - 1

_ENDPOINT = re.compile(ENDPOINTS)
# `+` in a query string is a space to those who did not escape it.
_PLACE = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})")
_LOST_PLUS = re.compile(r"(T[\d:.]+) (\d\d:\d\d)")


def read_filter(given: Mapping[str, Any], now: int, own: Container[str]) -> TaskFilter:
    """The filter that `given` describes; what is empty or None counts as left out.

    Args:
        given: by the names of `NAMES`: texts, numbers, or lists of them; several statuses,
            status codes or ids in one text are separated by commas.
        now: milliseconds since the epoch, from which a duration in `since` or `until` is
            counted back.
        own: the endpoints that no file declares.

    Raises:
        InvalidParams: a name is unknown, or a value does not fit; all of them at once.
    """
    read: dict[str, Callable[[Any], Any]] = {
        "status": lambda value: words_of(Status, "status", value),
        "status_code": lambda value: StatusSet.parse(items(value)),
        "reason": lambda value: words_of(Reason, "reason", value),
        "endpoint": lambda value: endpoint_filter(value, own),
        "kind": lambda value: words_of(Kind, "kind", [value])[0],
        "since": lambda value: _time(value, now),
        "until": lambda value: _time(value, now),
        "ended_since": lambda value: _time(value, now),
        "text": _text,
        "id": _ids,
        "parent": _id,
        "partition": _partition,
        "run": _id,
        "bulk": lambda value: _id(value, "bulk"),
        "batch": _id,
        "webhook": _text,
        "tenant": _text,
    }
    found: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name, value in given.items():
        if len(problems) >= MOST_UNKNOWN:
            break
        if name not in read:
            problems[name] = f"there is no such filter{suggest(name, NAMES)}"
        elif value is not None and value != "" and value != []:
            try:
                found[FIELDS.get(name, name)] = read[name](value)
            except (ValueError, OverflowError) as error:
                problems[name] = str(error)
    if problems:
        raise InvalidParams(problems)
    if (tenant := found.pop("tenant", None)) is not None:
        named = found.setdefault("webhook", f"{tenant}/*")
        if not named.startswith(f"{tenant}/"):
            raise InvalidParams({"webhook": f"{named!r} is none of the tenant {tenant}"})
    return TaskFilter(**found)


def read_bulk_filter(
    action: str,
    given: Mapping[str, Any],
    now: int,
    own: Container[str],
    *,
    include_ambiguous: bool,
    force: bool = False,
) -> TaskFilter:
    """The filter of a bulk.

    Args:
        action: `RETRY`, `CANCEL` or `RESOLVE`.
        given: as `read_filter` takes it, with `now` and `own`.
        include_ambiguous: retry also what failed for one of `DOUBTFUL`.
        force: repeat what has succeeded as well, where its status is named.

    Raises:
        InvalidParams: it is empty, or names what cannot be done in bulk.
    """
    wanted = read_filter(given, now, own)
    if wanted == TaskFilter():
        raise InvalidParams({"filter": "is empty; name at least one condition"})
    done, allowed = IN_BULK[action][0], list(IN_BULK[action][1])
    if force and action == RETRY:
        allowed.append(Status.SUCCEEDED)
    if wrong := [item for item in wanted.status if item not in allowed]:
        text = f"{', '.join(wrong)} tasks are not {done} in bulk; {', '.join(allowed)} are"
        if action == RETRY and Status.SUCCEEDED in wrong:
            text += ", and with force those that succeeded"
        raise InvalidParams({"filter.status": text})
    from orchestratord.queue.operations.bulk import with_default  # peewee, which check needs not

    wanted = with_default(action, wanted)
    if wanted.reason:
        return wanted
    left_out = [Reason.RESOLVED.value]  # a person has said how these ended
    if action == RETRY and not (include_ambiguous or wanted.ids):
        left_out += DOUBTFUL
    if action == RESOLVE and not wanted.ids:
        # What a webhook misses while it is disabled is kept to be replayed.
        left_out.append(Reason.WEBHOOK_DISABLED.value)
    if Status.CANCELLED in wanted.status:
        left_out.append(Reason.REPLACED.value)
    return replace(wanted, left_out=tuple(left_out))


def read_number(given: int | str | None, name: str, most: int) -> int | None:
    """A whole number from 1 to `most`, which is called `name`; None for none. Raises
    InvalidParams."""
    if given is None or given == "":
        return None
    number = whole_number(str(given))
    if number is None or not 1 <= number <= most:
        raise InvalidParams({name: f"must be a whole number from 1 to {most}"})
    return number


def whole_number(text: str) -> int | None:
    """A number of at most 19 plain digits; None for everything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def read_place(text: str | None) -> Place | None:
    """A `next` of tasks by their end, as `place_text` writes it. Raises InvalidParams."""
    if not text:
        return None
    found = _PLACE.fullmatch(text)
    if found is None:
        raise InvalidParams({"after": "must be the `next` of a page in the same order"})
    return Place(int(found[1]), int(found[2]))


def place_text(place: Place | None) -> str | None:
    """The `next` that goes on after a place."""
    return None if place is None else f"{place.finished_at}.{place.id}"


def items(value: Any) -> list[Any]:
    """The items of a list, or of a text that separates them by commas."""
    if isinstance(value, list):
        return value
    return [item.strip() for item in value.split(",")] if isinstance(value, str) else [value]


def words_of(known: type[StrEnum], what: str, value: Any) -> tuple[str, ...]:
    """One word of those that are `known`, or several. Raises ValueError, which says `what` they
    are, for another one."""
    found = []
    for item in items(value):
        try:
            found.append(known(item).value)
        except ValueError:
            hint = suggest(str(item), map(str, known)) or f"; there are {', '.join(known)}"
            raise ValueError(f"{item!r} is not a {what}{hint}") from None
    return tuple(found)


def endpoint_filter(value: Any, own: Container[str]) -> str:
    """`api/name`, `api/*`, or one of `own`. Raises ValueError for anything else."""
    if not isinstance(value, str) or not (
        _ENDPOINT.fullmatch(value) and ("/" in value or value in own)
    ):
        raise ValueError(
            f"{value!r} is not an endpoint: write api/name, or api/* for all of an api"
        )
    return value


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")
    return value


def _text(value: Any) -> str:
    text = _word(value).strip()
    if not 0 < len(text) <= MAX_TEXT:
        raise ValueError(f"must have 1 to {MAX_TEXT} characters")
    return text


def _partition(value: Any) -> str:
    text = _word(value)
    if len(text) > MAX_PARTITION:
        raise ValueError(f"must have 1 to {MAX_PARTITION} characters")
    return text


def _ids(value: Any) -> tuple[int, ...]:
    found = tuple(dict.fromkeys(_id(item) for item in items(value)))
    if len(found) > MAX_IDS:
        raise ValueError(f"names {len(found)} tasks; {MAX_IDS} are taken")
    return found


def _id(value: Any, what: str = "task") -> int:
    number = None if isinstance(value, bool) else whole_number(str(value))
    if number is None:
        raise ValueError(f"{value!r} is not the number of a {what}")
    return min(number, MAX_ID)


def _time(value: Any, now: int) -> int:
    try:
        return now - round(parse_duration(value) * 1000)
    except ValueError:
        pass
    try:
        found = from_rfc3339(_LOST_PLUS.sub(r"\1+\2", value))
        datetime.fromtimestamp(found / 1000, UTC)  # what this cannot be could not be shown again
        return found
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"{value!r} is neither a duration (2h) nor a time (2026-11-24T22:00:00Z)"
        ) from None
