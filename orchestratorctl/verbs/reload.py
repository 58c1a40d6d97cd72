"""`reload`: has the daemon read its configuration again."""

from __future__ import annotations

from argparse import Namespace

from orchestratorctl.client import Client
from orchestratorctl.failures import OK, error_lines
from orchestratorctl.render import compact
from orchestratorctl.screen import Screen


def reload(client: Client, screen: Screen, arguments: Namespace) -> int:
    """Adopts what the files say now; a bad configuration changes nothing (78)."""
    answer = client.post("/v1/reload")
    if not screen.tables:
        screen.data(answer)
    generation = compact(answer.get("generation"))
    if answer.get("changed") is False:
        screen.say(f"Nothing has changed; generation {generation} goes on.")
    else:
        screen.say(f"Generation {generation} of the configuration is in force.")
    for line in error_lines(answer.get("warnings") or []):
        screen.say(f"warning: {line}")
    for key in answer.get("restart_required") or []:
        screen.say(f"{compact(key)} keeps its old value until the daemon is restarted.")
    return OK
