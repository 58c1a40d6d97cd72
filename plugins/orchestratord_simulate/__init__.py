"""What would happen, without sending anything: the commands `explain`, `test` and `backoff`.

explain_command  one attempt of a call, and what follows from its answer
test_command     the test cases of endpoints, which test_runner carries out
backoff_command  the delays of a policy or of a strategy
found_text       what an expression finds in an answer, in words

The core explains an attempt to the API as well; the commands show it on a terminal.
"""

from __future__ import annotations

from collections.abc import Iterable

import click

from orchestratord import hookimpl


@hookimpl
def register_commands() -> Iterable[click.Command]:
    from orchestratord_simulate.backoff_command import backoff
    from orchestratord_simulate.explain_command import explain
    from orchestratord_simulate.test_command import test

    return [backoff, explain, test]
