"""The configuration in force, and the attempt to replace it by what the folder holds now."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from orchestratord.config.cache import Cache
from orchestratord.config.changes import Changes, Difference, changed_settings, changes, differences
from orchestratord.config.folder import Files
from orchestratord.config.load import Reading, Sources, read, uncollected
from orchestratord.config.validate.request_rules import AddressRules
from orchestratord.errors import ConfigError, Problem
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.settings import Config, DaemonSettings
from orchestratord.plugin.host import Host
from orchestratord.plugin.long_work import Breathe, no_breath, yield_gil
from orchestratord.values import world
from orchestratord.values.clock import Clock

AT_START = ("database", "control_socket", "plugins", "workers")
"""The daemon's settings that a running one cannot change."""


Judge = Callable[[Config, Config], tuple[Problem, ...]]


@dataclass(frozen=True, slots=True)
class Reload:
    """What came of a reload.

    Args:
        changed: a new snapshot is in force.
        config: the one in force now.
        problems: why the folder was refused, all of it; empty where it was not.
        restart_required: the settings that stand otherwise in the folder and keep their old value.
        cause: what asked for it.
        changes: how the new snapshot differs from the one before.
        differences: the keys behind them.
    """

    changed: bool
    config: Config
    problems: tuple[Problem, ...] = ()
    restart_required: tuple[str, ...] = ()
    cause: str = ""
    changes: Changes = field(default_factory=Changes)
    differences: tuple[Difference, ...] = ()


def _accept(before: Config, found: Config) -> tuple[Problem, ...]:
    return ()


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
        """Read the folder for the first time. The arguments are those of `Sources`.

        Raises:
            ConfigError: with every error of every file.
        """
        self.sources = Sources(folder, host, environ, addresses)
        self._clock = clock or Clock()
        self.cache = Cache()
        """What the last reading has made; the digest of the folder, the files."""
        self._lock = world.Lock()
        self._retired: list[Endpoint] = []
        found = self._read()
        config = replace(found.config, generation=1, adopted_at=self._clock.now_ms())
        self._reading = self._before = replace(found, config=config)
        self.problems: tuple[Problem, ...] = ()
        """Why the folder as it stands is refused; empty while it is not."""

    @property
    def config(self) -> Config:
        """The snapshot in force."""
        return self._reading.config

    @property
    def files(self) -> Files:
        """Those of the snapshot in force."""
        return self._reading.files

    def reload(self, cause: str, *, judge: Judge = _accept, examined: Path | None = None) -> Reload:
        """Read the folder again; what is good is in force at once, what is not changes nothing.

        Args:
            cause: what asked for it, for the answer.
            judge: why a snapshot that can be read is refused all the same, if it is; it is given
                the one in force and the new one.
            examined: a folder of which it is only told what a reload would come to; nothing
                changes then.
        """
        with self._lock, yield_gil() as breathe:
            before, old = self._reading, self.config
            try:
                found = self._read(breathe, folder=examined)
                problems = judge(old, found.config)
            except ConfigError as error:
                problems = error.problems
            if examined is None:
                self.problems = problems
            if problems:
                return Reload(False, old, problems, cause=cause)
            new, restart = _kept(old, found.config)
            restart = tuple(dict.fromkeys((*restart, *self.sources.host.changed())))
            if new.digest == old.digest and found.references == before.references:
                return Reload(False, old, (), restart, cause)
            config = _adopted(new, old, old.generation + 1, self._clock.now_ms())
            found_changes = changes(old, config, breathe)
            named = differences(old, config, found_changes)
            if examined is None:
                self._before, self._reading = before, replace(found, config=config)
                self._retired += old.endpoints.values()
            else:
                config = replace(old, warnings=config.warnings)
            return Reload(True, config, (), restart, cause, found_changes, named)

    def follow(self, generation: int, adopted_at: int, files: Files) -> None:
        """Take up the snapshot that the first worker of the run has made of `files`.

        Args:
            generation: of it.
            adopted_at: when it came into force (milliseconds since the epoch).
            files: take the place of those in the folder.

        Raises ConfigError where that cannot be done here.
        """
        with self._lock, yield_gil() as breathe:
            self._before = before = self._reading
            found = self._read(breathe, given=files)
            old, (new, _) = before.config, _kept(before.config, found.config)
            config = _adopted(new, old, generation, adopted_at)
            self._reading = replace(found, config=config)
            self._retired += old.endpoints.values()

    def undo(self) -> None:
        """Go back to the snapshot before the last one, which did not come into force everywhere;
        nothing where that could not even be read."""
        with self._lock:
            self._reading = self._before

    def check(self, file: str, content: bytes) -> Config:
        """The configuration as it would be if `file` held `content`; nothing changes.

        Raises ConfigError.
        """
        with self._lock, yield_gil() as breathe:
            return self._read(breathe, {file: content}).config

    def free_retired(self) -> None:
        """Free the endpoints of snapshots that are no longer in use, one by one.

        They would otherwise be freed with the last snapshot that holds them: ten thousand at once,
        while every other thread waits. So this is called in a thread, when a new snapshot is in
        use everywhere.
        """
        self._before = self._reading
        # Not those of a reload that is waited for here: they are still in use.
        retired = self._retired[:]
        del self._retired[: len(retired)]
        with self._lock, yield_gil() as breathe:
            while retired:
                retired.pop()
                breathe()

    def _read(
        self,
        breathe: Breathe = no_breath,
        instead: Mapping[str, bytes] = MappingProxyType({}),
        given: Files | None = None,
        folder: Path | None = None,
    ) -> Reading:
        try:
            with uncollected(freeze=not instead):
                if folder is not None:  # what the cache holds is of the daemon's own
                    return read(replace(self.sources, folder=folder), Cache(), breathe)
                return read(self.sources, self.cache, breathe, instead, given)
        except ConfigError as error:
            # A warning is no reason to refuse anything.
            raise ConfigError([p for p in error.problems if p.severity == "error"]) from None


def _adopted(new: Config, old: Config, generation: int, adopted_at: int) -> Config:
    # What was a secret a minute ago still is one, in answers that are on their way.
    redactor = new.redactor.merged(old.redactor)
    return replace(new, redactor=redactor, generation=generation, adopted_at=adopted_at)


def _kept(before: Config, found: Config) -> tuple[Config, tuple[str, ...]]:
    """What is found, with the settings of the start as they were; and which of them these are."""
    daemon, restart = _kept_settings(before.daemon, found.daemon)
    of_plugins, ports = _kept_ports(before, found)
    return replace(found, daemon=daemon, settings=of_plugins), (*restart, *ports)


def _kept_settings(
    before: DaemonSettings, found: DaemonSettings
) -> tuple[DaemonSettings, tuple[str, ...]]:
    restart = list(changed_settings(before, found, AT_START))
    changed = {key.partition(".")[0] for key in restart}
    kept: dict[str, Any] = {name: getattr(before, name) for name in changed}
    http = before.http
    if (http and http.bind) != (found.http and found.http.bind):
        if http is not None and found.http is not None:
            http = found.http.model_copy(update={"bind": http.bind})
        kept["http"] = http
        restart.append("http.bind")
    return found.model_copy(update=kept), tuple(restart)


def _kept_ports(before: Config, found: Config) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Plugins' settings, with the ports of the start; and the keys that a restart would change."""
    old, new = before.ports, found.ports
    settings, restart = dict(found.settings), []
    for key in sorted(old.keys() | new.keys()):
        if key in old and key in new and old[key].bind == new[key].bind:
            continue
        restart.append(f"{key}.bind")
        settings.pop(key, None)
        if key in old:
            kept = new.get(key, old[key])
            settings[key] = kept.model_copy(update={"bind": old[key].bind})
    return settings, tuple(restart)
