"""The plugins of one config folder, as the daemon and every command need them."""

from __future__ import annotations

from pathlib import Path

from orchestratord.config.load import read_plugins
from orchestratord.engine.http import HttpPlugin
from orchestratord.host import Host


def open_host(folder: Path) -> Host:
    """Load the plugins that the settings in `folder` ask for, the core's HTTP executor first.

    Raises ConfigError where `orchestratord.yaml` cannot be read, PluginError where two plugins
    claim one name.
    """
    settings = read_plugins(folder)
    host = Host(timeout=settings.timeout)
    host.register(HttpPlugin(), "http")
    host.load([folder / name for name in settings.dirs], settings.disabled)
    return host
