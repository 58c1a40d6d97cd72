"""What can go wrong, and the exit code of each.

Failure          1   it failed
  Usage          2   the command line makes no sense
  NoDaemon       3   nobody answers at the socket; nothing was done
  TimedOut       6   it took too long
  Lost           1   the daemon was there and went away before it answered
  Problem            the daemon refused; the code follows from its answer:
                     2 (400, 422), 4 (404), 5 (409, 412), 78 (bad configuration), else 1
"""

from __future__ import annotations

from collections.abc import Iterable

TYPE_CHECKING = False  # the typing module would cost more than all that is typed here
if TYPE_CHECKING:
    from typing import Any

OK = 0
FAILED = 1
USAGE = 2
NO_DAEMON = 3
NOT_FOUND = 4
CONFLICT = 5
TIMED_OUT = 6
BAD_CONFIG = 78
INTERRUPTED = 130
BROKEN_PIPE = 141

_BY_STATUS = {400: USAGE, 404: NOT_FOUND, 409: CONFLICT, 412: CONFLICT, 422: USAGE}


class Failure(Exception):
    """The command failed; the message and `details`, one line each, are for the operator."""

    exit_code = FAILED

    def __init__(self, message: str, details: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)


class Usage(Failure):
    """The command line makes no sense."""

    exit_code = USAGE


class NoDaemon(Failure):
    """Nobody answers at the control socket, so nothing was asked and nothing was done."""

    exit_code = NO_DAEMON


class TimedOut(Failure):
    """The daemon or the task took longer than it was given."""

    exit_code = TIMED_OUT


class Lost(Failure):
    """The connection ended after the request had gone out and before the answer was whole."""


class Problem(Failure):
    """The daemon's refusal, from an `application/problem+json` answer.

    Args:
        status: the answer's HTTP status.
        document: the parsed problem, possibly empty.
        fallback: the message where the document has neither detail nor title.
    """

    def __init__(self, status: int, document: dict[str, Any], fallback: str) -> None:
        message = document.get("detail") or document.get("title") or fallback
        errors = document.get("errors")
        found = errors if isinstance(errors, list) else []
        super().__init__(str(message), [line for error in found for line in explained(error)])
        self.status = status
        bad_config = document.get("code") == "bad_config"
        self.exit_code = BAD_CONFIG if bad_config else _BY_STATUS.get(status, FAILED)


def error_lines(errors: Iterable[Any]) -> list[str]:
    """Each error as `file:line:column: key: message`, without the parts that it lacks."""
    return [_error_line(error) for error in errors]


def explained(error: Any) -> list[str]:
    """The error's line, and below it the line of the file with a caret, and a hint, if known."""
    first = _error_line(error)
    if not isinstance(error, dict):
        return [first]
    source, hint = (str(error.get(key) or "") for key in ("source", "hint"))
    line, column = error.get("line"), error.get("column")
    if not (source or hint) or not all(
        part is None or type(part) is int for part in (line, column)
    ):
        return [first]
    from orchestratorctl.excerpt import excerpt

    # A tab would be written out, and the caret no longer stand below its place.
    below = excerpt(source.replace("\t", " "), line, column, hint)
    return [first, *(text for _, text in below)]


def _error_line(error: Any) -> str:
    if not isinstance(error, dict):
        return str(error)
    place = [error.get("file"), error.get("line"), error.get("column")]
    position = ":".join(str(part) for part in place if part is not None)
    parts = (position, error.get("key"), error.get("message"))
    return ": ".join(str(part) for part in parts if part)


def combine(codes: Iterable[int]) -> int:
    """One exit code for several things done: what the failures share, or 1 where they differ."""
    failures = {code for code in codes if code != OK}
    if not failures:
        return OK
    return failures.pop() if len(failures) == 1 else FAILED
