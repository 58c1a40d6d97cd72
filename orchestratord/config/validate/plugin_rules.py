"""Whether the plugins that orchestratord.yaml asks for are there, and work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from orchestratord.config.folder import is_folder
from orchestratord.config.yaml.nodes import MapNode, Spot, locate
from orchestratord.errors import Problem, Severity
from orchestratord.model.settings import Plugins
from orchestratord.plugin.host import Host
from orchestratord.plugin.registry import PluginInfo
from orchestratord.values.suggest import suggest


def plugin_problems(
    plugins: Plugins, host: Host, folder: Path, spot: Spot, root: MapNode
) -> Iterator[Problem]:
    """What is wrong with `plugins`, and with the plugins themselves.

    Args:
        plugins: what the file says.
        host: the plugins, as they were loaded.
        folder: the config folder.
        spot, root: where the file begins, and its tree.
    """
    for info in host.plugins.values():
        if info.status == "failed":
            yield _unloaded(info, folder, optional=info.name in plugins.optional)
    for index, name in enumerate(plugins.dirs):
        if not is_folder(folder / name):
            at = locate(spot, root, ("plugins", "dirs", index))[0]
            yield at.problem(f"there is no folder {folder / name}; make it, or take this away")
    named: list[tuple[str, str | int, str]] = [
        *(("disabled", index, name) for index, name in enumerate(plugins.disabled)),
        *(("optional", index, name) for index, name in enumerate(plugins.optional)),
        *(("settings", name, name) for name in plugins.settings),
    ]
    for key, item, name in named:
        if name not in host.plugins:
            at = locate(spot, root, ("plugins", key, item))[0]
            message = f"no plugin {name!r} is installed" + suggest(name, host.plugins)
            yield at.problem(message, "warning")


def _unloaded(info: PluginInfo, folder: Path, *, optional: bool) -> Problem:
    """What is said of a plugin that cannot be loaded, at its own place where it is a file."""
    severity: Severity = "error"
    remedy = "correct it, or name it in plugins.disabled or plugins.optional"
    if optional:
        severity, remedy = "warning", "the daemon goes without it, as plugins.optional says"
    message = f"the plugin {info.name} cannot be loaded: {info.error}; {remedy}"
    if info.source == "entry point":
        return Problem(message, severity=severity)
    path, folder = Path(info.source).resolve(), folder.resolve()
    file = str(path.relative_to(folder) if path.is_relative_to(folder) else path)
    column = None if info.line is None else 1
    return Problem(message, file, info.line, column, severity=severity)
