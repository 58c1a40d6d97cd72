"""What plugins say of the endpoints, put where it stands in the files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from orchestratord.config.endpoint_file import Declared
from orchestratord.config.validate.problems import Problems, lines_of
from orchestratord.config.yaml.nodes import Scalar, locate, passage
from orchestratord.config.yield_gil import Breathe
from orchestratord.errors import Problem
from orchestratord.model.settings import Config
from orchestratord.plugin.host import Host
from orchestratord.plugin.isolation import HookFault

HOOK = "check_endpoint"


def check_with_plugins(
    host: Host,
    config: Config,
    declare: Callable[[str], Declared | None],
    problems: Problems,
    contents: Mapping[str, bytes],
    breathe: Breathe,
) -> None:
    """Ask each plugin about each endpoint of `config`, which holds those that are good so far.

    Args:
        host: the plugins.
        config: the configuration.
        declare: reads an endpoint once more, for the places in its files.
        problems: what the plugins find is added to it.
        contents: what the files hold.
        breathe: called between two endpoints, for other threads to have their turn.
    """
    if host.compiled(HOOK) is None:
        return
    for identity, endpoint in config.endpoints.items():
        breathe()
        for plugin, answer in host.ask(HOOK, {"endpoint": endpoint, "config": config}):
            for problem in answer:
                if isinstance(problem, Problem):
                    declared = declare(identity)
                    problems.add(_placed(problem, declared, contents) if declared else problem)
                else:
                    kind = type(problem).__name__
                    host.fault(plugin, HOOK, HookFault(f"returned a {kind} among its problems"))


def _placed(problem: Problem, item: Declared, contents: Mapping[str, bytes]) -> Problem:
    """The problem with its file, line and column, unless the plugin found these itself."""
    if problem.file:
        return problem
    spot, node, skipped = locate(
        item.spot, item.node, problem.key.split(".") if problem.key else ()
    )
    for part in skipped:
        spot = spot.below(part)
    if problem.offset is not None and isinstance(node, Scalar) and spot.file in contents:
        spot = passage(spot, node.text, problem.offset, lines_of(contents[spot.file]))
    return replace(problem, file=spot.file, line=spot.line, column=spot.column, key=spot.key)
