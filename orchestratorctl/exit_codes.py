"""The exit codes, and what can go wrong with the exit code of each.

CommandError        1   it failed
  UsageError        2   the command line makes no sense
  NoDaemon          3   nothing answers at the socket; nothing was done
  TimedOut          6   it took too long
  Lost              1   the daemon was there and went away before it answered
  RequestRefused        the daemon refused; the code follows from its answer:
                        2 (400, 422), 4 (404), 5 (409, 412), 78 (bad configuration), else 1
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestratorctl.formats import error_excerpt

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


class CommandError(Exception):
    """The command failed; the message and `details`, one line each, are for the operator."""

    exit_code = FAILED

    def __init__(self, message: str, details: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)


class UsageError(CommandError):
    """The command line makes no sense."""

    exit_code = USAGE


class NoDaemon(CommandError):
    """Nothing answers at the control socket, so nothing was asked and nothing was done."""

    exit_code = NO_DAEMON


class TimedOut(CommandError):
    """The daemon or the task took longer than it was given."""

    exit_code = TIMED_OUT


class Lost(CommandError):
    """The connection ended after the request had gone out and before the answer was whole."""


class RequestRefused(CommandError):
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
        super().__init__(str(message), [line for error in found for line in error_excerpt(error)])
        self.status = status
        self.code = document.get("code")
        self.exit_code = BAD_CONFIG if self.code == "bad_config" else _BY_STATUS.get(status, FAILED)


def combine(codes: Iterable[int]) -> int:
    """One exit code for several things done: what the failures share, or 1 where they differ."""
    failures = {code for code in codes if code != OK}
    if not failures:
        return OK
    return failures.pop() if len(failures) == 1 else FAILED
