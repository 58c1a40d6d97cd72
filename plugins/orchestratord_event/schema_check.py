"""A JSON Schema, by which data are checked; run as a program, what does that beside the daemon.

What a schema makes of data can take years, in a pattern for instance, which nothing can interrupt.
So the daemon has it done here: each line that this program reads is either a schema, as an object,
or asks for something: a list of the schema's number and of the data of some events. What takes
too long is ended by the kernel. It imports nothing of orchestratord, and so starts at once.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
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
_DEEPEST = 8
"""References behind each other in a schema that is followed beside others."""
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


class SchemaCheck:
    """One schema."""

    def __init__(self, name: str, content: str, *, apart: bool = False) -> None:
        """`apart`: it may take as long as it does."""
        self.name, self.content, self._apart = name, content, apart

    @cached_property
    def _quick(self) -> Any:
        """Says of good data, within microseconds, that they are; None where it is not installed, or
        cannot read the schema. Beside others it has no pattern that could go back, nor recursion.
        """
        if not self._apart and _is_recursive(self.validator._resolver, self.validator.schema, ()):
            return None
        try:
            import jsonschema_rs as rs

            options = rs.FancyRegexOptions() if self._apart else rs.RegexOptions()
            schema = json.loads(self.content)
            return rs.validator_for(
                schema, validate_formats=False, offline=True, pattern_options=options
            )
        except Exception:  # a pattern that is Python's own, for instance
            return None

    def is_surely_good(self, params: Any) -> bool:
        """Whether data are good, as far as that is seen at once."""
        return self._quick is not None and self._quick.is_valid(params)

    @cached_property
    def validator(self) -> Any:
        """What says what is wrong. Raises ValueError where the schema is none."""
        return _validator(self.name, self.content)

    def problems(self, params: dict[str, Any]) -> dict[str, str]:
        """What is wrong with the data of one event, by their paths."""
        found: dict[str, str] = {}
        try:
            for error in self.validator.iter_errors(params):
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


def _is_recursive(resolver: Any, schema: Any, above: tuple[str, ...]) -> bool:
    """Whether a schema leads back to itself, or to more than can be followed in a moment."""
    for reference in _references(schema):
        if reference in above or len(above) > _DEEPEST:
            return True
        found = resolver.lookup(reference)
        if _is_recursive(found.resolver, found.contents, (*above, reference)):
            return True
    return False


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
        # At its end the kernel ends the process, in whatever code it is.
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
