"""What could stand at the cursor of a shell's command line.

A shell asks with `orchestratorctl __complete SHELL WORDS…`, the last word being the one that is
written at the moment, and gets one candidate a line. Ids and names come from the running daemon;
where there is none, there are just no candidates.
"""

from __future__ import annotations

import os
from collections import namedtuple
from collections.abc import Callable, Iterable, Sequence

from orchestratorctl.added_verbs import added_verbs
from orchestratorctl.console import Console
from orchestratorctl.exit_codes import OK, CommandError
from orchestratorctl.formats import escape
from orchestratorctl.socket_client import HINT_TIMEOUT, SocketClient, endpoint_path, find_socket
from orchestratorctl.verb_table import COMMAND, EVERYWHERE, SHELLS, Verb, VerbArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

A_FILE = 3
"""The exit code that leaves it to the shell, which knows the names of files."""

_MOST = 50
"""Tasks that are offered, the newest ones."""

_BREAKS = "=:"
"""Characters at which bash takes words apart."""

Suggestion = namedtuple("Suggestion", ["word", "about"], defaults=[""])


class _Files(Exception):
    """The name of a file is to stand there."""


def answer(arguments: Sequence[str]) -> int:
    """Prints the candidates for a shell; the exit code.

    Args:
        arguments: the shell's name, and the words after `orchestratorctl` up to the cursor.
    """
    shell, *words = arguments or SHELLS[:1]
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


def print_script(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Prints the script that teaches a shell to complete; no daemon is asked."""
    path = os.path.join(os.path.dirname(__file__), "shells", f"orchestratorctl.{arguments.shell}")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    console.show({"shell": arguments.shell, "script": text}, text.splitlines)
    return OK


def complete(words: Sequence[str]) -> Iterable[Suggestion]:
    """The candidates for the last word, some of which may not begin as it does."""
    line = _Line()
    *before, current = words or [""]
    for word in before:
        line.read(word)
    name, equals, _ = current.partition("=")
    if line.waiting is not None:
        return line.values(line.waiting)
    if current.startswith("-") and not line.no_more_options:
        if not equals:
            return [
                Suggestion(option.names[-1], option.settings["help"]) for option in line.options
            ]
        option = line.option(name)
        values = line.values(option) if option is not None else ()
        return [Suggestion(f"{name}={value.word}", value.about) for value in values]
    if line.verbs:
        more = added_verbs(line.given.get("socket")) if line.verbs is COMMAND.verbs else ()
        return [Suggestion(verb.name, verb.about) for verb in (*line.verbs, *more)]
    return line.values(line.words[0]) if line.words else []


class _Line:
    """The command line so far, read leniently: it is not finished.

    Attributes:
        given: what stands for the arguments so far.
        waiting: the option whose value is next.
        verbs: those of which one is next; none where words are next.
        words: those that are still to come.
        options: every option that may stand here.
    """

    def __init__(self) -> None:
        self.given: dict[str, str] = {}
        self.waiting: VerbArgument | None = None
        self.no_more_options = False
        self._enter(COMMAND)

    def _enter(self, verb: Verb) -> None:
        arguments = (*EVERYWHERE, *verb.arguments)
        self.verbs = verb.verbs
        self.words = [argument for argument in arguments if not argument.is_option]
        self.options = [argument for argument in arguments if argument.is_option]

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
            elif option is not None and option.takes_value:
                self.waiting = option
        elif self.verbs:
            found = [verb for verb in self.verbs if verb.name == word]
            if not found and self.verbs is COMMAND.verbs:
                rows = added_verbs(self.given.get("socket"))
                found = [verb for verb in rows if verb.name == word]
            if found:
                self._enter(found[0])
            else:
                self.verbs = ()
        elif self.words:
            self.given[self.words[0].dest] = word
            if self.words[0].settings.get("nargs") != "*":
                del self.words[0]

    def option(self, name: str) -> VerbArgument | None:
        """The option of this name."""
        return next((option for option in self.options if name in option.names), None)

    def values(self, argument: VerbArgument) -> Iterable[Suggestion]:
        """What may be given for an option, or stand at a place."""
        if not isinstance(argument.complete, str):
            return [Suggestion(word) for word in argument.complete]
        source, _, detail = argument.complete.partition(" ")
        try:
            return _SOURCES[source](self, detail)
        except CommandError:
            return []

    def document(self, target: str, **query: object) -> dict[str, object]:
        """The daemon's answer. Raises CommandError where none comes in time."""
        client = SocketClient(find_socket(self.given.get("socket"), os.environ))
        return client.get(target, query, HINT_TIMEOUT)

    def ask(self, target: str, **query: object) -> list[dict[str, str]]:
        """The objects in the daemon's answer. Raises CommandError where none comes in time."""
        document = self.document(target, **query)
        rows = next((value for value in document.values() if isinstance(value, list)), [])
        return [row for row in rows if isinstance(row, dict)]


# -- where the candidates come from; `complete` in the table names one of these -------------------


def _endpoints(line: _Line, own: str) -> Iterable[Suggestion]:
    rows = line.ask("/v1/endpoints")
    found = [Suggestion(str(row.get("id")), "paused" if row.get("paused") else "") for row in rows]
    return [*found, Suggestion(own, "operational webhooks")] if own else found


def _params(line: _Line, _: str) -> Iterable[Suggestion]:
    """The parameters of the endpoint that is called, up to where their value begins."""
    if not line.given.get("endpoint"):
        return []
    declared = line.document(endpoint_path(line.given["endpoint"])).get("params")
    return [
        Suggestion(f"{name}=", str(about.get("description") or about.get("type") or ""))
        for name, about in (declared.items() if isinstance(declared, dict) else ())
        if isinstance(about, dict)
    ]


def _tasks(line: _Line, statuses: str) -> Iterable[Suggestion]:
    rows = line.ask("/v1/retries", status=statuses or None, limit=_MOST)
    names = ("status", "endpoint", "webhook", "last_status_code")
    return [
        Suggestion(str(row.get("id")), " ".join(str(row[name]) for name in names if row.get(name)))
        for row in rows
    ]


def _webhooks(line: _Line, _: str) -> Iterable[Suggestion]:
    rows = line.ask("/v1/webhooks", endpoint=line.given.get("endpoint"))
    return [Suggestion(str(row.get("name")), str(row.get("phase") or "")) for row in rows]


def _files(line: _Line, _: str) -> Iterable[Suggestion]:
    raise _Files


_SOURCES: dict[str, Callable[[_Line, str], Iterable[Suggestion]]] = {
    "endpoints": _endpoints,
    "params": _params,
    "tasks": _tasks,
    "webhooks": _webhooks,
    "files": _files,
}
