"""What a look at one thing found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: `what` is so, and where it is not good, the `remedy`."""

    status: Status
    what: str
    remedy: str = ""


Findings = Iterable[Finding]


def ok(what: str) -> Finding:
    """Something is as it should be."""
    return Finding("ok", what)


def warn(what: str, remedy: str) -> Finding:
    """Something will do harm one day, or may be meant."""
    return Finding("warn", what, remedy)


def fail(what: str, remedy: str) -> Finding:
    """Something keeps the daemon from its work."""
    return Finding("fail", what, remedy)


def many(count: int, noun: str) -> str:
    """`1 folder`, `2 folders`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
