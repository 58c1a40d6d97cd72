"""The configuration, opened for a command that is about endpoints."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import click

from orchestratord.cli.loading import host_of
from orchestratord.cli.options import BAD_CONFIG, complain, folder_of
from orchestratord.config.load import load
from orchestratord.daemon.bootstrap import ADDRESSES
from orchestratord.errors import ConfigError
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.settings import Config
from orchestratord.plugin.host import Host
from orchestratord.values.suggest import suggest

NOT_FOUND = 4

QUEUE = "queue"
"""Stands for the random name of a queue in the ids that are sent out; no queue is open."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A good configuration, and the plugins that it was read with."""

    folder: Path
    host: Host
    config: Config

    def endpoint(self, identity: str) -> Endpoint:
        """One endpoint; ends the command where there is none of this name."""
        found = self.config.endpoints.get(identity)
        if found is None:
            near = suggest(identity, self.config.endpoints)
            click.echo(f"there is no endpoint {identity!r}{near}", err=True)
            raise SystemExit(NOT_FOUND)
        return found


def opened(option: str | None) -> Opened:
    """Read the folder that `--config` names; ends the command with 78 where it is not good.

    Of warnings only those are shown that say that a plugin is missing.
    """
    folder = folder_of(option)
    try:
        host, missing = host_of(folder)
        config = load(folder, host, environ=os.environ, addresses=ADDRESSES)
    except ConfigError as error:
        complain(error.problems)
        raise SystemExit(BAD_CONFIG) from None
    complain(missing)
    for executor in host.registry.executors:
        if not executor.instance:
            executor.bind(QUEUE, {})
    return Opened(folder, host, config)
