"""The command: reads the command line, runs the verb, turns failures into words and exit codes."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module

from orchestratorctl.arguments import COMPLETION, parse
from orchestratorctl.client import Client
from orchestratorctl.control_socket import find
from orchestratorctl.failures import BROKEN_PIPE, FAILED, INTERRUPTED, Failure
from orchestratorctl.screen import Screen

COMPLETE = "__complete"
"""The word with which a shell asks; no verb for people, and in no help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the command line after the program's name; None: the process's own.

    Returns:
        The exit code, as `orchestratorctl.failures` lists them.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # What a narrow encoding cannot write is escaped rather than an error.
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if argv is None else argv
    try:
        if list(words[:1]) == [COMPLETE]:
            from orchestratorctl.completion import answer

            return answer(words[1:])
        arguments = parse(words)
        code = _run(Screen(arguments.output), arguments)
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
        Screen().complain(f"the output cannot be written: {error.strerror or error}")
        return FAILED


def _run(screen: Screen, arguments: Namespace) -> int:
    try:
        offline = arguments.run == COMPLETION
        client = Client("" if offline else find(arguments.socket, os.environ))
        module, _, function = arguments.run.partition(":")
        run = getattr(import_module(f"orchestratorctl.verbs.{module}"), function)
        code: int = run(client, screen, arguments)
        return code
    except Failure as failure:
        screen.complain(str(failure), *failure.details)
        return failure.exit_code


def _abandon_stdout() -> None:
    """Lets what is still to be written vanish, so that the interpreter's end is quiet, too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
