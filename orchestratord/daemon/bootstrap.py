"""What the daemon and every command need to read a config folder: its plugins, and the engine's
rules for addresses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestratord.config.load import read_plugins
from orchestratord.config.validate.request_rules import AddressRules
from orchestratord.engine.http_executor import HttpPlugin
from orchestratord.http.egress import Egress, parse_rule
from orchestratord.plugin.host import Host


def open_host(folder: Path) -> Host:
    """Load the plugins that the settings in `folder` ask for, the core's HTTP executor first.

    Those that cannot be loaded are problems of the configuration, once it is read. Raises
    ConfigError where `orchestratord.yaml` cannot be read, PluginError where two plugins claim one
    name.
    """
    settings = read_plugins(folder)
    host = Host(timeout=settings.timeout)
    host.register(HttpPlugin(), "http")
    host.load([folder / name for name in settings.dirs], settings.disabled)
    return host


def _denied(allow: Sequence[str], host: str, port: int) -> str | None:
    return Egress(tuple(parse_rule(rule) for rule in allow)).literal_problem(host, port)


ADDRESSES = AddressRules(check=parse_rule, denied=_denied)
"""How `egress.allow` is read, and which addresses in the files would be denied."""
