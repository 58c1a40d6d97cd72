"""The command `orchestratord`, whose commands are imported when they are asked for.

So `--help` and completion are quick. The modules of the commands import what is heavy within their
functions, for the same reason. What is no command of the core's may be one of a plugin's.
"""

from __future__ import annotations

import os
import sys
from collections import UserDict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import IO, Any, cast

import click

PLACES = {
    "check": "inspect.check_command",
    "config": "inspect.config_show_command",
    "doctor": "doctor.doctor_command",
    "move-queue": "move_queue_command:move_queue",
    "plugins": "inspect.plugins_command",
    "run": "run_command",
}
"""A command's name → its module, in which it has that name or the one behind the colon."""


class LazyCommands(UserDict[str, Any]):
    """The commands as click asks for them; until then the place of each is its value."""

    def __getitem__(self, name: str) -> click.Command:
        found: str | click.Command = self.data[name]
        if isinstance(found, str):
            module, _, attribute = found.partition(":")
            found = getattr(import_module(f"orchestratord.cli.{module}"), attribute or name)
            self.data[name] = found
        return cast("click.Command", found)


class CommandsOfAll(click.Group):
    """The core's commands, and those of plugins, which are looked for where the name is neither
    known nor an option's."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them, sorted."""
        return sorted({*super().list_commands(ctx), *_of_plugins(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them, None where there is none of this name."""
        return super().get_command(ctx, cmd_name) or _of_plugins(ctx).get(cmd_name)

    def make_context(self, *given: Any, **how: Any) -> click.Context:
        """As any command does; an error of usage is two lines."""
        with _in_two_lines():
            return super().make_context(*given, **how)

    def invoke(self, ctx: click.Context) -> Any:
        """As any command does; an error of usage is two lines."""
        with _in_two_lines():
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is called, by `args`, which name the folder of its plugins."""
        ctx.meta[_ARGUMENTS] = tuple(args)
        return super().resolve_command(ctx, args)


class UsageProblem(click.UsageError):
    """A command line that makes no sense, told in two lines."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Write them to stderr, or to `file`."""
        command = self.ctx.command_path if self.ctx else "orchestratord"
        message = " ".join(self.format_message().split())
        text = f"{command}: {message}\nSee: {command} --help"
        click.echo(text, file=file, err=file is None)


@contextmanager
def _in_two_lines() -> Iterator[None]:
    try:
        yield
    except click.UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # of click 8.2: it shows the help
            raise
        raise UsageProblem(error.format_message(), error.ctx) from None


_ARGUMENTS = f"{__name__}.arguments"
_OF_PLUGINS = f"{__name__}.of_plugins"


def _of_plugins(ctx: click.Context) -> dict[str, click.Command]:
    if _OF_PLUGINS not in ctx.meta:
        from orchestratord.cli.plugin_commands import plugin_commands

        ctx.meta[_OF_PLUGINS] = plugin_commands(ctx.meta.get(_ARGUMENTS, ()))
    found: dict[str, click.Command] = ctx.meta[_OF_PLUGINS]
    return found


@click.group(
    cls=CommandsOfAll,
    commands=LazyCommands(PLACES),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="orchestratord", prog_name="orchestratord")
def main() -> None:
    """Calls the APIs that YAML files declare, retries what fails, and sends webhooks.

    Use orchestratorctl to operate a running daemon.
    """
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:  # it is closed, and its number would be another file's
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # What a narrow encoding cannot write is escaped rather than an error.
            stream.reconfigure(errors="backslashreplace")
