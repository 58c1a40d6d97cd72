"""The configuration in force, and the attempt to replace it by what the folder holds now."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestratord.clock import Clock
from orchestratord.config.load import Cache, Reading, read
from orchestratord.config.outgoing import AddressRules
from orchestratord.errors import ConfigError, Problem
from orchestratord.host import Host
from orchestratord.settings import Config, DaemonSettings

AT_START = ("database", "control_socket", "plugins")
"""The daemon's settings that a running one cannot change."""


@dataclass(frozen=True, slots=True)
class Reload:
    """What came of a reload.

    Args:
        changed: a new snapshot is in force.
        config: the one in force now.
        problems: why the folder was refused, all of it; empty where it was not.
        restart_required: the settings that stand otherwise in the folder and keep their old value.
        cause: what asked for it.
    """

    changed: bool
    config: Config
    problems: tuple[Problem, ...] = ()
    restart_required: tuple[str, ...] = ()
    cause: str = ""


class Loader:
    """Holds the last good snapshot. Any thread may ask for a reload; they take turns."""

    def __init__(
        self,
        folder: Path,
        host: Host,
        *,
        environ: Mapping[str, str] = os.environ,
        addresses: AddressRules | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Read the folder for the first time. The arguments are those of `load`.

        Raises:
            ConfigError: with every error of every file.
        """
        self._folder = folder
        self._host = host
        self._environ = environ
        self._addresses = addresses
        self._clock = clock or Clock()
        self._cache = Cache()
        self._lock = threading.Lock()
        self._reading = self._adopted(self._read(), generation=1)
        self.problems: tuple[Problem, ...] = ()
        """Why the folder as it stands is refused; empty while it is not."""

    @property
    def config(self) -> Config:
        """The snapshot in force."""
        return self._reading.config

    def reload(self, cause: str) -> Reload:
        """Read the folder again; what is good is in force at once, what is not changes nothing.

        Args:
            cause: what asked for it, for the answer.
        """
        with self._lock:
            try:
                found = self._read()
            except ConfigError as error:
                self.problems = error.problems
                return Reload(False, self.config, error.problems, cause=cause)
            self.problems = ()
            before = self._reading
            daemon, restart = _kept(before.config.daemon, found.config.daemon)
            same = (
                found.config.digest == before.config.digest
                and found.references == before.references
            )
            if same:
                return Reload(False, self.config, (), restart, cause)
            config = replace(
                found.config,
                daemon=daemon,
                # What was a secret a minute ago still is one, in answers that are on their way.
                redactor=found.config.redactor.merged(before.config.redactor),
            )
            generation = before.config.generation + 1
            self._reading = self._adopted(replace(found, config=config), generation)
            return Reload(True, self.config, (), restart, cause)

    def _read(self) -> Reading:
        try:
            return read(self._folder, self._host, self._environ, None, self._addresses, self._cache)
        except ConfigError as error:
            # A warning is no reason to refuse anything.
            raise ConfigError([p for p in error.problems if p.severity == "error"]) from None

    def _adopted(self, reading: Reading, generation: int) -> Reading:
        config = replace(reading.config, generation=generation, adopted_at=self._clock.now_ms())
        return replace(reading, config=config)


def _kept(before: DaemonSettings, found: DaemonSettings) -> tuple[DaemonSettings, tuple[str, ...]]:
    """The settings found, with those of the start as they were; and which of them these are."""
    kept: dict[str, Any] = {}
    restart: list[str] = []
    for name in AT_START:
        old, new = getattr(before, name), getattr(found, name)
        if old == new:
            continue
        kept[name] = old
        if name == "plugins":
            fields = type(old).model_fields
            restart += [
                f"plugins.{key}" for key in fields if getattr(old, key) != getattr(new, key)
            ]
        else:
            restart.append(name)
    return found.model_copy(update=kept), tuple(restart)
