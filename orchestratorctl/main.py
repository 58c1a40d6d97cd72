"""The command: reads the command line, runs the verb, and turns errors into exit codes."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module

from orchestratorctl.console import PROGRAM, Console
from orchestratorctl.exit_codes import (
    BROKEN_PIPE,
    FAILED,
    INTERRUPTED,
    NOT_FOUND,
    USAGE,
    CommandError,
)
from orchestratorctl.socket_client import SocketClient, await_socket
from orchestratorctl.verb_table import COMMAND, EVERYWHERE, VERBS, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

COMPLETE = "__complete"
"""The word with which a shell asks; no verb for people, and in no help."""

_NO_VERB = re.compile(r"argument VERB: invalid choice: (['\"])(.*?)\1 \(")

_EPILOG = """\
the socket: --socket, else $ORCHESTRATORD_SOCKET, else where a daemon listens by default:
  $RUNTIME_DIRECTORY/control.sock, /run/orchestratord/control.sock,
  $XDG_RUNTIME_DIR/orchestratord/control.sock, the same in /run/user/UID,
  ~/.local/state/orchestratord/control.sock

exit codes: 0 done, 1 failed, 2 usage, 3 no daemon at the socket, 4 no such thing,
  5 conflict, 6 timed out, 78 bad configuration

Data goes to stdout, messages to stderr. Durations are 500ms, 10s, 5m, 2h, 1d, or seconds.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the command line after the program's name; None: the process's own.

    Returns:
        The exit code, as `orchestratorctl.exit_codes` lists them.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # What a narrow encoding cannot write is escaped rather than an error.
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if argv is None else argv
    try:
        if list(words[:1]) == [COMPLETE]:
            from orchestratorctl.shell_completion import answer

            return answer(words[1:])
        arguments = parse(words)
        code = _run(Console(arguments.output), arguments)
        sys.stdout.flush()
        return code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _abandon_stdout()
        return BROKEN_PIPE
    except OSError as error:
        _abandon_stdout()
        Console().complain(f"the output cannot be written: {error.strerror or error}")
        return FAILED


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line as a namespace, with `verb`, the row of the table.

    Raises:
        SystemExit: the help was asked for (0), or the command line makes no sense (2).
    """
    parser = _Parser(
        prog=PROGRAM,
        description=COMMAND.about,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    _fill(parser, _whole_command(argv))
    everywhere = argparse.Namespace(socket=None, output="table")
    arguments, unknown = parser.parse_known_args(argv, everywhere)
    if unknown:  # which argparse says with the help of the whole command
        arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    arguments.connect_timeout = getattr(arguments, "connect_timeout", arguments.verb.start_timeout)
    for check in arguments.verb.checks:
        try:
            check(arguments)
        except argparse.ArgumentTypeError as error:
            arguments.parser.error(str(error))
    return arguments


def _whole_command(argv: Sequence[str]) -> Verb:
    """The table; where it lacks the verb, or its own help is asked for, with what the plugins of
    the daemon bring."""
    scout = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for argument in EVERYWHERE[1:]:
        scout.add_argument(*argument.names, **argument.settings)
    try:
        given, (verb, *_) = scout.parse_known_args(argv)
    except (argparse.ArgumentError, ValueError):  # which is told of below, or there is no word
        return COMMAND
    if verb in {one.name for one in VERBS} or verb == "--version":
        return COMMAND
    from orchestratorctl.added_verbs import added_verbs

    verbs = (*VERBS, *added_verbs(getattr(given, "socket", None)))
    return Verb(COMMAND.name, COMMAND.run, COMMAND.about, *COMMAND.arguments, verbs=verbs)


_FURTHER = ", and a plugin's while the daemon answers; for other commands see: orchestratord --help"


class _Parser(argparse.ArgumentParser):
    """Names the verb that was probably meant, where argparse lists all; an error is two lines."""

    def error(self, message: str) -> NoReturn:
        """See `ArgumentParser.error`."""
        match = _NO_VERB.match(message)
        if match is not None:
            from orchestratorctl.verbs.suggestions import nearest

            names = [one.name for one in self.get_default("verb").verbs]
            near = nearest(match[2], names)
            known = f"; there are {', '.join(names)}{_FURTHER * (self.prog == PROGRAM)}"
            remedy = f", did you mean '{near}'?" if near else known
            message = f"there is no verb {match[1]}{match[2]}{match[1]}{remedy}"
        self.exit(USAGE, f"{self.prog}: {message}\nSee: {self.prog} --help\n")


def _fill(parser: argparse.ArgumentParser, verb: Verb) -> None:
    """Gives a parser what the table says of a verb, and of the verbs below it."""
    parser.set_defaults(verb=verb, parser=parser, **verb.defaults)
    groups = {"": parser}
    for argument in (*EVERYWHERE, *verb.arguments):
        title = argument.group
        if title not in groups:
            groups[title] = parser.add_argument_group(title)  # type: ignore[assignment]
        groups[title].add_argument(*argument.names, **argument.settings)
    if verb.verbs:
        inner = parser.add_subparsers(title="verbs", metavar="VERB", required=not verb.run)
        for one in verb.verbs:
            child = inner.add_parser(one.name, help=one.about, allow_abbrev=False, add_help=False)
            child.description = f"{one.about[0].upper()}{one.about[1:]}."
            _fill(child, one)


def _run(console: Console, arguments: argparse.Namespace) -> int:
    verb: Verb = arguments.verb
    client = None
    try:
        where = arguments.socket, os.environ, arguments.connect_timeout
        client = SocketClient("" if verb.offline else await_socket(*where))
        module, _, function = verb.run.partition(":")
        run = getattr(import_module(f"orchestratorctl.{module}"), function)
        code: int = run(client, console, arguments)
        return code
    except CommandError as error:
        details = list(error.details)
        if error.exit_code == NOT_FOUND and client is not None:
            from orchestratorctl.verbs.suggestions import hints

            details += hints(client, arguments)
        console.complain(str(error), *details)
        return error.exit_code


def _abandon_stdout() -> None:
    """Lets what is still to be written vanish, so that the interpreter's end is quiet, too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
