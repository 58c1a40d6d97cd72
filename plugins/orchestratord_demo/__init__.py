"""The command `orchestratord demo`: a story that a real daemon plays, and that is counted.

`story` says what is called, what the API answers and what must come of it; `player` starts a
`daemon_process` and the `receiver`, places the calls and shows what happens.
"""

from collections.abc import Iterable

import click

from orchestratord import hookimpl


@hookimpl
def register_commands() -> Iterable[click.Command]:
    """The command, which imports what it shows when it is called."""
    from orchestratord_demo.demo_command import demo

    return [demo]
