"""The configuration and its plugins, read for a command."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import click

from orchestratord.cli.options import bad_config_ends, complain, folder_of
from orchestratord.config.load import load
from orchestratord.config.yaml.document import read_document
from orchestratord.config.yaml.nodes import MapNode, Spot, locate
from orchestratord.daemon.bootstrap import ADDRESSES, open_host
from orchestratord.errors import ConfigError, PluginError, Problem
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.settings import Config
from orchestratord.plugin.host import Host
from orchestratord.values.suggest import suggest

if TYPE_CHECKING:
    from orchestratord.simulate.explain import Explainer

QUEUE = "queue"
"""Takes the place of the random name of a queue in the ids that are sent out; no queue is open."""


def host_of(folder: Path) -> Host:
    """The plugins; `config_of` says which of them cannot be loaded. Raises ConfigError."""
    # A daemon logs it with a traceback; a command shows one line, that of the configuration.
    logging.getLogger("orchestratord").addHandler(logging.NullHandler())
    try:
        return open_host(folder)
    except PluginError as error:
        raise ConfigError([Problem(str(error))]) from None


def opened_host(option: str | None) -> Host:
    """The plugins of the folder that `--config` names; where it is bad, the command ends with 78.

    Warns of those that cannot be loaded.
    """
    with bad_config_ends():
        host = host_of(folder_of(option))
    _warn_of_missing(host)
    return host


def _warn_of_missing(host: Host) -> None:
    complain(
        Problem(f"the plugin {plugin.name} cannot be loaded: {plugin.error}", severity="warning")
        for plugin in host.plugins.values()
        if plugin.status == "failed"
    )


def config_of(folder: Path, host: Host, *, pretend_secrets: bool = False) -> Config:
    """The configuration as the daemon would read it here and now. Raises ConfigError.

    `pretend_secrets`: those that are not here are taken to be good, and named on stderr.
    """
    pretended: set[str] | None = set() if pretend_secrets else None
    try:
        return load(folder, host, environ=os.environ, addresses=ADDRESSES, pretended=pretended)
    finally:
        if pretended:
            click.echo(f"note: pretended, not checked: {', '.join(sorted(pretended))}", err=True)


@dataclass(frozen=True, slots=True)
class OpenedConfig:
    """A good configuration, and the plugins that it was read with.

    Attributes:
        folder: where it stands.
        host: the plugins; `host.registry` holds what they register.
        config: what was read.
        NOT_FOUND: the exit code of a command that is asked for something that is not there.
    """

    NOT_FOUND: ClassVar[int] = 4

    folder: Path
    host: Host
    config: Config

    def endpoint(self, identity: str) -> Endpoint:
        """One endpoint; ends the command where there is none of this name."""
        found = self.config.endpoints.get(identity)
        if found is None:
            near = suggest(identity, self.config.endpoints)
            click.echo(f"there is no endpoint {identity!r}{near}", err=True)
            raise SystemExit(self.NOT_FOUND)
        return found

    def place(self, endpoint: Endpoint, *path: str | int) -> Spot:
        """Where a key stands in the endpoint's file, by its path: file, line and column. One that
        is not there has the place of the nearest above it."""
        document = read_document(endpoint.source, (self.folder / endpoint.source).read_bytes())
        return locate(document.spot, document.root or MapNode(), path)[0]

    def explainer(self) -> Explainer:
        """What tells of its endpoints' attempts without sending anything."""
        from orchestratord.simulate.explain import Explainer
        from orchestratord.values.clock import Clock

        return Explainer(self.host, self.config, Clock())


def opened_config(option: str | None, *, pretend_secrets: bool = False) -> OpenedConfig:
    """Read the folder that `--config` names; where it is bad, the command ends with 78.

    Of warnings only those are shown that say that a plugin is missing. `pretend_secrets` is as for
    `config_of`.
    """
    folder = folder_of(option)
    with bad_config_ends():
        host = host_of(folder)
        config = config_of(folder, host, pretend_secrets=pretend_secrets)
    _warn_of_missing(host)
    for executor in host.registry.executors:
        if not executor.instance:
            executor.bind(QUEUE, {})
    return OpenedConfig(folder, host, config)
