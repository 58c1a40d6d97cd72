"""Which commands there are, each imported when it is asked for: `--help` and completion are quick.

The modules of the commands import what is heavy within their functions, for the same reason.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module

import click

PLACES = {
    "backoff": "orchestratord.cli.backoff",
    "check": "orchestratord.cli.check",
    "config": "orchestratord.cli.config_show",
    "demo": "orchestratord.cli.demo.command",
    "doctor": "orchestratord.cli.doctor.command",
    "explain": "orchestratord.cli.explain",
    "import": "orchestratord.cli.importing.command:import_",
    "init": "orchestratord.cli.init",
    "move-queue": "orchestratord.cli.move_queue:move_queue",
    "new": "orchestratord.cli.new.command",
    "plugins": "orchestratord.cli.plugins",
    "run": "orchestratord.cli.run",
    "schema": "orchestratord.cli.schema",
    "test": "orchestratord.cli.test",
}
"""A command's name → its module, in which it bears that name or the one behind the colon."""


class Commands(MutableMapping[str, click.Command]):
    """The commands as click asks for them."""

    def __init__(self, places: dict[str, str]) -> None:
        self._places = dict(places)
        self._loaded: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._loaded:
            module, _, attribute = self._places[name].partition(":")
            self._loaded[name] = getattr(import_module(module), attribute or name)
        return self._loaded[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._places[name] = ""
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._places[name]
        self._loaded.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
