"""What can be said of `then:` before the first answer: for `check`, and at each (re)load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestratord import (
    Config,
    Endpoint,
    Expression,
    InvalidParams,
    Problem,
    check_params,
    misused,
    suggest,
)
from orchestratord_then.child_tasks import (
    FAILURE,
    ITEM,
    NAMES,
    OF_FAILURE,
    OF_RUN_END,
    RUN_END,
    SUCCESS,
    WHOLE,
)
from orchestratord_then.declaration import THEN, Then

EVENT = "event"
_KNOWN = {SUCCESS: NAMES, FAILURE: OF_FAILURE, RUN_END: OF_RUN_END}
OF_ANSWERS = frozenset({"headers", "body", "text"})
"""What there is only where something was answered."""


def problems(endpoint: Endpoint, config: Config) -> Iterator[Problem]:
    """All that is wrong with the calls that follow from one endpoint's answers."""
    yield from _expected(endpoint, config)
    entries = endpoint[THEN]
    for index, entry in enumerate(entries):
        key = f"then.{index}"
        yield from _names(entry, key, endpoint)
        if endpoint.type == EVENT and entry.on == FAILURE:
            yield Problem("an event does not fail", key=f"{key}.on")
        target = config.endpoints.get(entry.call)
        if target is not None:
            yield from _params(entry, target, key)
            yield from _first_try(entry, target, key)
            yield from _circle(endpoint, entry, config, key)
        elif not _is_declared(entry.call, config):
            near = suggest(entry.call, config.endpoints)
            yield Problem(f"there is no endpoint {entry.call!r}{near}", key=f"{key}.call")


def _expected(endpoint: Endpoint, config: Config) -> Iterator[Problem]:
    """The endpoints that the endpoint's tests expect to be called."""
    for number, test in enumerate(endpoint.tests):
        for index, call in enumerate(test.expect.calls or ()):
            if call.call not in config.endpoints and not _is_declared(call.call, config):
                near = suggest(call.call, config.endpoints)
                key = f"tests.{number}.expect.calls.{index}.call"
                yield Problem(f"there is no endpoint {call.call!r}{near}", key=key)


def _is_declared(endpoint_id: str, config: Config) -> bool:
    """Whether there is a file of it, in which something else is wrong."""
    api, _, name = endpoint_id.partition("/")
    return any(file.startswith(f"apis/{api}/endpoints/{name}.") for file in config.files)


def _names(entry: Then, key: str, endpoint: Endpoint) -> Iterator[Problem]:
    """Names at which the expressions begin, and that there are not."""
    here = _KNOWN[entry.on]
    if is_event := endpoint.type == EVENT:
        here -= OF_ANSWERS
    known = here if entry.each is None else here | {ITEM}
    expressions: list[tuple[str, Expression | None, frozenset[str]]] = [
        ("each", entry.each, here),
        ("when", entry.when, known),
        ("at", entry.at, known),
        *((f"params.{name}", value.expression, known) for name, value in entry.params.items()),
    ]
    for path, expression, names in expressions:
        if expression is None:
            continue
        wrong = expression.capital_header
        if wrong and ("inbound" in endpoint.shown or not wrong.startswith("params.")):
            yield Problem(wrong, key=f"{key}.{path}", severity="warning")
        types = {"status_code": "status code"}
        yield from misused(
            f"{key}.{path}", expression, endpoint, types, condition=not path.startswith("params.")
        )
        for name in sorted(expression.names - names - {WHOLE}):
            if name == ITEM:
                message = f"{ITEM!r} is known only in `params` and `when`, beside an `each`"
            elif entry.on == RUN_END and name in OF_ANSWERS:
                message = f"the end of a run has no {name}; known are {', '.join(sorted(here))}"
            elif is_event and name in OF_ANSWERS:
                message = f"an event has no {name}: its data is in `params`"
            else:
                message = f"{name!r} is not known here{suggest(name, names)}"
                if expression.source == name and path.startswith("params."):
                    message += f"; a text has quotes of its own: \"'{name}'\""
            yield Problem(message, key=f"{key}.{path}")


def _params(entry: Then, target: Endpoint, key: str) -> Iterator[Problem]:
    """Parameters that the endpoint does not have, lacks, or cannot take."""
    constants = {
        name: value.constant for name, value in entry.params.items() if value.expression is None
    }
    given = dict.fromkeys(entry.params) | constants
    try:
        check_params(target, given, apart=True)
    except InvalidParams as invalid:
        for name, message in invalid.problems.items():
            if name in target.params and name in entry.params and name not in constants:
                continue  # what it will be, the answer says
            yield Problem(f"{message} (of {target.id})", key=f"{key}.params.{name}")


def _first_try(entry: Then, target: Endpoint, key: str) -> Iterator[Problem]:
    """A time that a call of an ordered partition waits for."""
    ordered = target.partition is not None and target.partition.ordered
    for name in ("delay", "at"):
        if ordered and getattr(entry, name) is not None:
            why = f"the calls of {target.id} are ordered, and this one would delay those behind"
            yield Problem(f"{why} it; leave it out", key=f"{key}.{name}")


def _circle(endpoint: Endpoint, entry: Then, config: Config, key: str) -> Iterator[Problem]:
    """A chain of calls that comes back here, and that nothing bounds."""
    if entry.limit is None and (way := _way(entry.call, endpoint.id, config.endpoints)):
        circle = " → ".join([endpoint.id, *way])
        yield Problem(
            f"goes round without end: {circle}; give one of these calls a `limit`",
            key=f"{key}.call",
        )


def _way(start: str, end: str, endpoints: Mapping[str, Endpoint]) -> list[str] | None:
    """The shortest way from one endpoint to another, over calls without a limit."""
    ways, seen = [[start]], {start}
    for way in ways:
        if way[-1] == end:
            return way
        following = endpoints.get(way[-1])
        for entry in following[THEN] if following is not None else ():
            if entry.limit is None and entry.call not in seen:
                seen.add(entry.call)
                ways.append([*way, entry.call])
    return None
