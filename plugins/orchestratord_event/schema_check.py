"""A JSON Schema, by which data are checked; run as a program, what does that beside the daemon.

What a schema makes of data can take years, in a pattern for instance, which nothing can interrupt.
So the daemon has it done here: each line that this program reads is either a schema, as an object,
or asks for something: a list of the schema's number and of the data of some events. What takes
too long is ended by the kernel. It imports nothing of orchestratord, and so starts at once.
"""

from __future__ import annotations

import json
import math
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

CPU_SECONDS = 2.0
"""For the data of one request, all of its batch: of the processor, so that it depends on the data,
and not on what else the machine does."""
MEMORY = 512 << 20
"""Bytes of address space."""
MOST_PROBLEMS = 20
"""Of one event, that are named."""
MOST_EVENTS = 100
"""Of a batch, of which problems are named."""
_SHOWN = 200
"""Characters of what is said of one."""
_MOST_STEPS = 200
"""From reference to reference, all ways counted, in a schema that is followed beside others."""
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


class SchemaCheck:
    """One schema."""

    def __init__(self, name: str, content: str, *, apart: bool = False) -> None:
        """`apart`: it may take as long as it does. Raises ValueError where the schema is none."""
        self.name, self.content = name, content
        self._validator = _validator(name, content)
        self._quick = _quick_validator(self._validator, apart=apart)

    def is_surely_good(self, params: Any) -> bool:
        """Whether data are good, as far as that is seen at once."""
        return self._quick is not None and self._quick.is_valid(params)

    def problems(self, params: dict[str, Any]) -> dict[str, str]:
        """What is wrong with the data of one event, by their paths."""
        found: dict[str, str] = {}
        try:
            for error in self._validator.iter_errors(params):
                path = ".".join(str(part) for part in error.absolute_path) or "params"
                message = error.message
                if len(message) > _SHOWN:
                    message = f"{message[: _SHOWN - 1]}…"
                found.setdefault(path[:_SHOWN], message)
                if len(found) >= MOST_PROBLEMS:
                    break
        except MemoryError:
            raise
        except Exception as error:
            # Numbers without a quotient, a schema that refers to itself, a pattern that is none.
            found.setdefault("params", f"cannot be held against {self.name}: {error}"[:_SHOWN])
        return found


def _validator(name: str, content: str) -> Any:
    try:
        import jsonschema
        from referencing import Registry
        from referencing.exceptions import Unresolvable
    except ImportError:
        raise ValueError(
            "needs jsonschema, which is not installed: pip install 'orchestratord[schema]'"
        ) from None
    try:
        schema = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not JSON: {error}") from None
    if not isinstance(schema, dict | bool):
        raise ValueError(f"{name} is no JSON Schema: it has to be an object")
    kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"{name} is no JSON Schema: {error.message}") from None
    # With a registry of its own nothing is fetched for a `$ref`.
    registry: Any = Registry()
    validator = kind(schema, registry=registry)
    resolver = validator._resolver
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except Unresolvable:
            raise ValueError(
                f"{name}: $ref {reference!r} is not in the file: nothing is fetched; put what it "
                "names under $defs, and write '#/$defs/…'"
            ) from None
    return validator


def _quick_validator(validator: Any, *, apart: bool) -> Any:
    """What says of good data, within microseconds, that they are; None where it is not installed,
    or cannot read the schema. Beside others it has no pattern that could go back, nor recursion."""
    try:
        if not apart and _steps(validator._resolver, validator.schema, {}) > _MOST_STEPS:
            return None
        import jsonschema_rs as rs

        options = rs.FancyRegexOptions() if apart else rs.RegexOptions()
        return rs.validator_for(
            validator.schema, validate_formats=False, offline=True, pattern_options=options
        )
    except Exception:  # a pattern that is Python's own, or very many references behind each other
        return None


def _references(schema: Any) -> Iterator[str]:
    waiting = [schema]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            for key, value in item.items():
                if key in _REFERENCES and isinstance(value, str):
                    yield value
                elif key not in ("const", "enum", "default", "examples"):
                    waiting.append(value)
        elif isinstance(item, list):
            waiting.extend(item)


def _steps(resolver: Any, schema: Any, known: dict[int, float]) -> float:
    """How many references there are on all ways through a schema; infinite where one leads back.

    `known`: of places that were looked at, by what is there. Each is looked at once: the ways are
    many more than the places.
    """
    steps = known.get(id(schema))
    if steps is None:
        known[id(schema)] = math.inf  # for who comes here before its own references are counted
        steps = 0.0
        for reference in _references(schema):
            found = resolver.lookup(reference)
            steps += 1 + _steps(found.resolver, found.contents, known)
        known[id(schema)] = steps
    return steps


def _answer(checks: list[SchemaCheck], line: bytes) -> list[tuple[int, dict[str, str]]]:
    """The events of a request that have problems, by their numbers, with them."""
    number, events = json.loads(line)
    check = checks[number]
    wrong: list[tuple[int, dict[str, str]]] = []
    for place, params in enumerate(events):
        if not check.is_surely_good(params) and (found := check.problems(params)):
            wrong.append((place, found))
            if len(wrong) >= MOST_EVENTS:
                break
    return wrong


def main() -> None:
    """Answer each request with a line of JSON, until nothing comes any more."""
    with suppress(OSError, ValueError):  # there is a lower bound already
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    checks: list[SchemaCheck] = []
    for line in sys.stdin.buffer:
        if line.startswith(b"{"):
            checks.append(SchemaCheck(**json.loads(line), apart=True))
            continue
        # At its end the kernel ends the process, in whatever code it is. What does not depend on
        # the data, as reading the schema, is done by now.
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            answer = json.dumps(_answer(checks, line))
        except MemoryError:
            signal.raise_signal(signal.SIGPROF)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(answer.encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
