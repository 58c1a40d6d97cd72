"""`reload`: has the daemon read its configuration again."""

from __future__ import annotations

import json
from argparse import Namespace

from orchestratorctl.client import Client
from orchestratorctl.failures import OK, error_lines
from orchestratorctl.render import compact
from orchestratorctl.screen import Screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def reload(client: Client, screen: Screen, arguments: Namespace) -> int:
    """Adopts what the files say now; a bad configuration changes nothing (78)."""
    answer = client.post("/v1/reload", {"diff": True} if arguments.diff else None)
    if not screen.tables:
        screen.data(answer)
    generation = compact(answer.get("generation"))
    if answer.get("changed") is False:
        screen.say(f"Nothing has changed; generation {generation} goes on.")
    else:
        screen.say(f"Generation {generation} of the configuration is in force.")
    if arguments.diff and screen.tables:
        screen.lines(list(_diff(answer, screen)))
    for line in error_lines(answer.get("warnings") or []):
        screen.say(f"warning: {line}")
    for key in answer.get("restart_required") or []:
        screen.say(f"{compact(key)} keeps its old value until the daemon is restarted.")
    return OK


def _diff(answer: dict[str, Any], screen: Screen) -> Iterator[str]:
    """What differs, as `diff` would show it: endpoints that came and went, and keys."""
    changes = answer.get("changes") or {}
    for sign, kind, colour in (("-", "removed", "red"), ("+", "added", "green")):
        for endpoint in changes.get(kind) or []:
            yield screen.paint(f"{sign} {compact(endpoint)}", colour)
    heading = None
    for item in answer.get("diff") or []:
        name = compact(item.get("endpoint") or "orchestratord.yaml")
        if name != heading:
            heading = name
            yield screen.paint(name, "bold")
        if not item.get("key"):
            yield "    a secret, or something else that is not shown"
        for sign, side, colour in (("-", "before", "red"), ("+", "after", "green")):
            if item.get("key") and item.get(side) is not None:
                value = compact(json.dumps(item[side], ensure_ascii=False))
                yield screen.paint(f"  {sign} {compact(item['key'])}: {value}", colour)
