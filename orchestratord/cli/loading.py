"""Reading the configuration for a command, with what is wrong about plugins."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from orchestratord.config.load import load as load_config
from orchestratord.daemon.bootstrap import ADDRESSES, open_host
from orchestratord.errors import ConfigError, PluginError, Problem
from orchestratord.model.settings import Config
from orchestratord.plugin.host import Host


def load(folder: Path) -> tuple[Config, list[Problem]]:
    """The configuration and all warnings. Raises ConfigError with every error, and them."""
    host, problems = host_of(folder)
    try:
        config = load_config(folder, host, environ=os.environ, addresses=ADDRESSES)
    except ConfigError as error:
        raise ConfigError([*error.problems, *problems]) from None
    return config, [*config.warnings, *problems]


def host_of(folder: Path) -> tuple[Host, list[Problem]]:
    """The plugins, and a warning for each that cannot be loaded. Raises ConfigError."""
    # A daemon logs it with a traceback; whoever checks wants one line, and gets it below.
    logging.getLogger("orchestratord").addHandler(logging.NullHandler())
    try:
        host = open_host(folder)
    except PluginError as error:
        raise ConfigError([Problem(str(error))]) from None
    return host, [
        Problem(f"the plugin {plugin.name} cannot be loaded: {plugin.error}", severity="warning")
        for plugin in host.plugins.values()
        if plugin.status == "failed"
    ]
