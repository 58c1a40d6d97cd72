"""What plugins say of the endpoints, put where it stands in the files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from orchestratord.config.endpoints import Declared
from orchestratord.config.positions import locate
from orchestratord.config.problems import Problems
from orchestratord.errors import Problem
from orchestratord.host import Host
from orchestratord.isolation import HookFault
from orchestratord.settings import Config

HOOK = "check_endpoint"


def check_with_plugins(
    host: Host, config: Config, declared: Iterable[Declared], problems: Problems
) -> None:
    """Ask each plugin about each endpoint; `config` holds those that are good so far."""
    for item in declared:
        arguments = {"endpoint": item.endpoint, "config": config}
        for plugin, answer in host.ask(HOOK, arguments):
            for problem in answer:
                if isinstance(problem, Problem):
                    problems.add(_placed(problem, item))
                else:
                    kind = type(problem).__name__
                    host.fault(plugin, HOOK, HookFault(f"returned a {kind} among its problems"))


def _placed(problem: Problem, item: Declared) -> Problem:
    """The problem with its file, line and column, unless the plugin found these itself."""
    if problem.file:
        return problem
    spot, _, skipped = locate(item.spot, item.node, problem.key.split(".") if problem.key else ())
    for part in skipped:
        spot = spot.below(part)
    return replace(problem, file=spot.file, line=spot.line, column=spot.column, key=spot.key)
