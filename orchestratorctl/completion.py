"""What could stand at the cursor of a shell's command line.

A shell asks with `orchestratorctl __complete SHELL WORDS…`, the last word being the one that is
written at the moment, and gets one candidate a line. Ids and names come from the running daemon;
where there is none, there are just no candidates.
"""

from __future__ import annotations

import argparse
import os
from collections import namedtuple
from collections.abc import Callable, Iterable, Sequence

from orchestratorctl.arguments import build
from orchestratorctl.client import Client, endpoint_path
from orchestratorctl.control_socket import find
from orchestratorctl.failures import Failure
from orchestratorctl.text import escape
from orchestratorctl.words import EVENTS, STATUSES

TYPE_CHECKING = False
if TYPE_CHECKING:
    Given = dict[str, str]

SHELLS = ("bash", "zsh", "fish")
A_FILE = 3
"""The exit code that leaves it to the shell, which knows the names of files."""

PATIENCE = 2.0
"""Seconds that a person at the tabulator key waits for the daemon."""

_MOST = 50
"""Tasks that are offered, the newest ones."""

_BREAKS = "=:"
"""Characters at which bash takes words apart."""

# Which tasks a verb is for; a verb that is not here takes the ids of something else.
_TASKS = {
    "show:show": None,
    "retry:retry": "pending,failed,cancelled",
    "cancel:cancel": "pending,running",
}

Candidate = namedtuple("Candidate", ["word", "about"], defaults=[""])


class _Files(Exception):
    """The name of a file is to stand there."""


def answer(arguments: Sequence[str]) -> int:
    """Prints the candidates for a shell; the exit code.

    Args:
        arguments: the shell's name, and the words after `orchestratorctl` up to the cursor.
    """
    shell, *words = arguments or ["bash"]
    words = _joined(words) if shell == "bash" else words
    current = words[-1] if words else ""
    try:
        found = [one for one in complete(words) if one.word.startswith(current)]
    except _Files:
        return A_FILE
    cut = max(current.rfind(mark) for mark in _BREAKS) + 1
    for word, about in found:
        about = escape(about)
        if shell == "bash":
            print(word[cut:])
        elif shell == "zsh":
            print(":".join([word.replace("\\", "\\\\").replace(":", "\\:"), about]).rstrip(":"))
        else:
            print("\t".join([word, about]).rstrip("\t"))
    return 0


def _joined(words: Sequence[str]) -> list[str]:
    """The words as they were written, which bash has taken apart at `=` and `:`."""
    joined: list[str] = []
    glue = False
    for word in words:
        mark = bool(word) and not word.strip(_BREAKS)
        if joined and (mark or glue):
            joined[-1] += word
        else:
            joined.append(word)
        glue = mark
    return joined


def complete(words: Sequence[str]) -> Iterable[Candidate]:
    """The candidates for the last word, some of which may not begin as it does."""
    line = _Line(build())
    *before, current = words or [""]
    for word in before:
        line.read(word)
    name, equals, _ = current.partition("=")
    if line.waiting is not None:
        return line.values(line.waiting)
    if current.startswith("-") and not line.no_more_options:
        if not equals:
            return line.options()
        option = line.option(name)
        values = line.values(option) if option is not None else ()
        return [Candidate(f"{name}={value.word}", value.about) for value in values]
    positional = line.positional()
    return line.values(positional) if positional is not None else []


class _Line:
    """The command line so far, read leniently: it is not finished."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.given: Given = {}
        self.waiting: argparse.Action | None = None
        """The option whose value is next."""
        self.no_more_options = False
        self._enter(parser)

    def _enter(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser
        self._left = [action for action in parser._actions if not action.option_strings]

    def read(self, word: str) -> None:
        """Take one word that is finished."""
        if self.waiting is not None:
            self.given[self.waiting.dest] = word
            self.waiting = None
        elif word == "--":
            self.no_more_options = True
        elif word.startswith("-") and not self.no_more_options:
            name, equals, value = word.partition("=")
            option = self.option(name)
            if option is not None and equals:
                self.given[option.dest] = value
            elif option is not None and option.nargs is None:
                self.waiting = option
        elif self._left:
            self._take(self._left[0], word)

    def _take(self, action: argparse.Action, word: str) -> None:
        if isinstance(action, argparse._SubParsersAction):
            parser = action.choices.get(word)
            if parser is None:
                self._left = []
            else:
                self._enter(parser)
            return
        self.given[action.dest] = word
        if action.nargs not in ("*", "+"):
            del self._left[0]

    def option(self, name: str) -> argparse.Action | None:
        """The option of this name."""
        return self._parser._option_string_actions.get(name)

    def options(self) -> list[Candidate]:
        """Every option that may stand here, by its long name where it has one."""
        return [
            Candidate(action.option_strings[-1], action.help or "")
            for action in self._parser._actions
            if action.option_strings
        ]

    def positional(self) -> argparse.Action | None:
        """What comes next, if it is no option."""
        return self._left[0] if self._left else None

    def values(self, action: argparse.Action) -> Iterable[Candidate]:
        """What may be given for an option, or stand at a place."""
        if isinstance(action, argparse._SubParsersAction):
            return [Candidate(verb.dest, verb.help or "") for verb in action._choices_actions]
        if action.choices is not None:
            return [Candidate(str(choice)) for choice in action.choices]
        source = _SOURCES.get(str(action.metavar))
        try:
            return source(self) if source is not None else []
        except Failure:
            return []

    def document(self, target: str, **query: object) -> dict[str, object]:
        """The daemon's answer. Raises Failure where none comes in time."""
        client = Client(find(self.given.get("socket"), os.environ))
        return client.get(target, query, PATIENCE)

    def ask(self, target: str, **query: object) -> list[dict[str, str]]:
        """The objects in the daemon's answer. Raises Failure where none comes in time."""
        document = self.document(target, **query)
        rows = next((value for value in document.values() if isinstance(value, list)), [])
        return [row for row in rows if isinstance(row, dict)]

    @property
    def run(self) -> str:
        """The verb's `module:function`."""
        return str(self._parser.get_default("run"))


def _endpoints(line: _Line) -> Iterable[Candidate]:
    rows = line.ask("/v1/endpoints")
    return [Candidate(str(row.get("id")), "paused" if row.get("paused") else "") for row in rows]


def _params(line: _Line) -> Iterable[Candidate]:
    """The parameters of the endpoint that is called, up to where their value begins."""
    if not line.given.get("endpoint"):
        return []
    declared = line.document(endpoint_path(line.given["endpoint"])).get("params")
    return [
        Candidate(f"{name}=", str(about.get("description") or about.get("type") or ""))
        for name, about in (declared.items() if isinstance(declared, dict) else ())
        if isinstance(about, dict)
    ]


def _tasks(line: _Line) -> Iterable[Candidate]:
    if line.run not in _TASKS:
        return []
    rows = line.ask("/v1/retries", status=_TASKS[line.run], limit=_MOST)
    names = ("status", "endpoint", "webhook", "last_status_code")
    return [
        Candidate(str(row.get("id")), " ".join(str(row[name]) for name in names if row.get(name)))
        for row in rows
    ]


def _webhooks(line: _Line) -> Iterable[Candidate]:
    rows = line.ask("/v1/webhooks", endpoint=line.given.get("endpoint"))
    return [Candidate(str(row.get("name")), str(row.get("phase") or "")) for row in rows]


def _statuses(line: _Line) -> Iterable[Candidate]:
    return [Candidate(status) for status in STATUSES]


def _kinds(line: _Line) -> Iterable[Candidate]:
    return [Candidate("call"), Candidate("webhook")]


def _events(line: _Line) -> Iterable[Candidate]:
    return [Candidate(event) for event in EVENTS]


def _files(line: _Line) -> Iterable[Candidate]:
    raise _Files


# By what the help calls it.
_SOURCES: dict[str, Callable[[_Line], Iterable[Candidate]]] = {
    "API/NAME": _endpoints,
    "KEY=VALUE": _params,
    "ID": _tasks,
    "WEBHOOK": _webhooks,
    "STATUS": _statuses,
    "KIND": _kinds,
    "TYPE": _events,
    "PATH": _files,
}
