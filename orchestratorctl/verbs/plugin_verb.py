"""A verb of a plugin: asks its route, and shows what that answers."""

from __future__ import annotations

import re
from argparse import Namespace
from urllib.parse import quote

from orchestratorctl.console import Console
from orchestratorctl.exit_codes import OK, CommandError
from orchestratorctl.formats import compact
from orchestratorctl.socket_client import SocketClient
from orchestratorctl.tables import TableColumn, fields, table, value_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Asks the route with what was given. Raises CommandError where its plugin is disabled."""
    route, plugin, given = arguments.route, arguments.plugin, {}
    if plugin["status"] != "loaded":
        why = f"{route['name']} is a verb of the plugin {plugin['name']}, which is disabled"
        raise CommandError(why, ["Take it out of plugins.disabled in orchestratord.yaml."])
    for argument in arguments.verb.arguments:
        value = getattr(arguments, argument.dest)
        if value not in (None, False):
            given[argument.dest] = value
    path = re.sub(r"\{(\w+)\}", lambda name: quote(given.pop(name[1]), safe=""), route["path"])
    if route["method"] == "GET":
        document = client.get(path, {k: "true" if v is True else v for k, v in given.items()})
    else:
        document = client.request(route["method"], path, given)[1]
    name = next(iter(document), "")
    if console.tables and {"next": None, **document} == {"next": None, name: []}:
        console.say(f"There are no {name}.")
    else:
        console.show(document, lambda: _lines(document, console))
    return OK


def _lines(document: dict[str, Any], console: Console) -> list[str]:
    """A list of objects as a table; where there is none, the fields."""
    for value in document.values():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            columns = [
                TableColumn(name.upper().replace("_", " "), value_of(name), cut="end")
                for name in value[0]
            ]
            return table(columns, [one for one in value if isinstance(one, dict)], console)
    return fields([(name, compact(value)) for name, value in document.items()], console, "")
