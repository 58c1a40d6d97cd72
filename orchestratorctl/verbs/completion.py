"""`completion`: the script that teaches a shell to complete."""

from __future__ import annotations

import os
from argparse import Namespace

from orchestratorctl.client import Client
from orchestratorctl.failures import OK
from orchestratorctl.screen import Screen


def script(client: Client, screen: Screen, arguments: Namespace) -> int:
    """Prints the script for a shell; no daemon is asked."""
    folder = os.path.join(os.path.dirname(os.path.dirname(__file__)), "shells")
    with open(os.path.join(folder, f"orchestratorctl.{arguments.shell}"), encoding="utf-8") as file:
        text = file.read()
    if screen.tables:
        screen.lines(text.splitlines())
    else:
        screen.data({"shell": arguments.shell, "script": text})
    return OK
