"""The verbs that plugins of the daemon bring, as rows of the table."""

from __future__ import annotations

import os

from orchestratorctl.argument_types import utf8_text
from orchestratorctl.exit_codes import CommandError
from orchestratorctl.socket_client import HINT_TIMEOUT, SocketClient, find_socket
from orchestratorctl.verb_table import VERBS, ArgumentValue, Verb, VerbArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def added_verbs(socket: str | None) -> tuple[Verb, ...]:
    """The rows of the plugins of the daemon that listens there; none where none answers.

    Args:
        socket: what `--socket` gave.
    """
    try:
        client = SocketClient(find_socket(socket, os.environ))
        plugins = client.get("/v1/plugins", timeout=HINT_TIMEOUT).get("plugins") or []
    except CommandError:
        return ()
    ours = {verb.name for verb in VERBS}  # this program may be newer than the daemon
    rows = [_row(verb, plugin) for plugin in plugins for verb in plugin.get("verbs") or []]
    return tuple(row for row in rows if row.name not in ours)


def _row(verb: dict[str, Any], plugin: dict[str, Any]) -> Verb:
    arguments = [_argument(name, about) for name, about in verb["arguments"].items()]
    given: dict[str, object] = {"route": verb, "plugin": plugin}
    about = f"{verb['about']} (the plugin {plugin['name']})".replace("%", "%%")
    return Verb(verb["name"], "verbs.plugin_verb:run", about, *arguments, defaults=given)


def _argument(name: str, about: str) -> VerbArgument:
    option, _, metavar = name.partition("=")
    about = about.replace("%", "%%")  # which is argparse's
    if option.startswith("--") and not metavar:
        return VerbArgument(option, about)
    word = option.strip("[]")
    takes = ArgumentValue(metavar or word.upper(), utf8_text)
    settings = {"nargs": "?"} if name.startswith("[") else {}
    return VerbArgument(word, about, takes, **settings)
