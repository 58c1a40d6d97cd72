"""The commands that plugins bring: found, and imported, where `orchestratord` is asked for them.

Only plugins whose text names the hook `register_commands` are imported for that. Plugins may share
a group: each registers one of that name, with commands of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from copy import copy
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestratord.cli.options import folder_of
from orchestratord.plugin.plugin_sources import PluginSource, installed_plugins, single_files

if TYPE_CHECKING:
    from orchestratord.model.settings import Plugins

HOOK = "register_commands"
DAEMON_FILE = "orchestratord.yaml"


def plugin_commands(arguments: Sequence[str] = ()) -> dict[str, click.Command]:
    """The commands of plugins, by their names; those of a disabled one only refuse.

    `arguments`: those of the command line, of which `--config` says whose plugins are meant.
    """
    folder = folder_of(_config_of(arguments))
    settings = _settings(folder)
    dirs = [folder / name for name in settings.dirs] if settings else []
    found: dict[str, click.Command] = {}
    owners: dict[str, str] = {}
    for source in (*installed_plugins(), *single_files(dirs)):
        if not source.names(HOOK):
            continue
        for command in _registered(source):
            name = command.name or ""
            group = command if isinstance(command, click.Group) else None
            for part, one in group.commands.items() if group else [("", command)]:
                whole = f"{name} {part}".strip()
                if whole in owners:
                    why = f"{whole} is a command of the plugins {owners[whole]} and {source.name}"
                    one = _refusing(one, f"{why}: disable one of them in {DAEMON_FILE}")
                elif settings and source.name in settings.disabled:
                    why = f"{name} is a command of the plugin {source.name}, which is disabled"
                    remedy = f"take it out of plugins.disabled in {folder / DAEMON_FILE}"
                    one = _refusing(one, f"{why}: {remedy}")
                owners[whole] = source.name
                if group is None:
                    found[name] = one
                else:
                    _shared(found, group).add_command(one, part)
    return found


def _shared(found: dict[str, click.Command], group: click.Group) -> click.Group:
    """The group of this name that `found` has by now: a copy, as others add their commands."""
    shared = found.get(group.name or "")
    if not isinstance(shared, click.Group):
        shared = found[group.name or ""] = copy(group)
        shared.commands = {}
    return shared


def _config_of(arguments: Sequence[str]) -> str | None:
    for argument, following in zip_longest(arguments, arguments[1:]):
        option, equals, value = argument.partition("=")
        if option == "--config":
            return value if equals else following
    return None


def _settings(folder: Path) -> Plugins | None:
    """What `orchestratord.yaml` says of plugins; None for nothing."""
    try:
        if b"plugins" not in (folder / DAEMON_FILE).read_bytes():
            return None  # which is known at once
    except OSError:
        return None
    from orchestratord.config.load import read_plugins
    from orchestratord.errors import ConfigError

    try:
        return read_plugins(folder)
    except ConfigError:  # which the command tells, where it reads the folder
        return None


def _registered(source: PluginSource) -> Iterator[click.Command]:
    """What a plugin registers; where that fails, stderr says why."""
    try:
        hook = getattr(source.load(), HOOK, None)
        if getattr(hook, "orchestratord_impl", None) is None or hook is None:
            return
        result = hook()
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError(f"{HOOK} is an `async def`; write a `def`")
        for command in result or ():
            if not isinstance(command, click.Command):
                raise TypeError(f"{HOOK} returned {command!r}, which is no Command")
            yield command
    except (Exception, SystemExit) as error:
        why = f"{type(error).__name__}: {error}"
        click.echo(f"warning: plugin {source.name} has no commands here: {why}", err=True)


def _refusing(command: click.Command, why: str) -> click.Command:
    @click.command(
        command.name,
        short_help=f"({why.partition(':')[0]})",
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def refuse(arguments: Sequence[str]) -> None:
        raise click.UsageError(why)

    return refuse
