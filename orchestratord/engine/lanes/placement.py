"""Where the tasks of each key stand under today's configuration: run, wait, or fail."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping

from orchestratord.model.endpoint import Endpoint
from orchestratord.model.settings import Config
from orchestratord.model.task import Key, Kind, Reason
from orchestratord.plugin.executor import Doomed, Executor, Parked, Standing, Target
from orchestratord.plugin.registry import Registry

log = logging.getLogger("orchestratord.worker")

FOREVER = 1 << 62
"""Later than any next_try."""

REMOVED_AFTER = 60.0
"""Seconds for which an endpoint has to be gone before its tasks fail."""


class Placement:
    """Answers where a key stands, and remembers it until something changes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._config: Config | None = None
        self._paused: frozenset[str] = frozenset()
        self._elsewhere: Mapping[str, bool] = {}
        self._known: dict[Key, tuple[Standing, Executor | None]] = {}
        self._ripe: dict[Key, tuple[str, float]] = {}
        """Doomed keys: for what reason, and from when on their tasks fail (seconds since the
        epoch)."""
        self._sweeping: set[Key] = set()
        self._again: set[Key] = set()
        """Keys for which another task came while they were swept."""

    def adopt(self, config: Config) -> Callable[[Key], bool]:
        """A new configuration is in force. Returns whether a key may stand elsewhere by it.

        An endpoint whose files did not change is the same object, and its keys stand where they
        stood, unless the daemon's own settings changed, which anything may depend on.
        """
        before, self._config = self._config, config
        if before is None or before.daemon != config.daemon or before.settings != config.settings:
            self._known.clear()
            return lambda key: True
        was, now = before.endpoints, config.endpoints

        def changed(key: Key) -> bool:
            return was.get(key.endpoint_id) is not now.get(key.endpoint_id)

        for key in [key for key in self._known if changed(key)]:
            del self._known[key]
        return changed

    def set_paused(self, paused: set[str]) -> frozenset[str]:
        """Which endpoints' calls wait. Returns those for which that changed."""
        changed = self._paused ^ paused
        self._paused = frozenset(paused)
        return changed

    def set_elsewhere(self, elsewhere: Mapping[str, bool]) -> set[str]:
        """The endpoints that other daemons of the queue declare, and whether as we do. Returns
        those for which that changed."""
        before, self._elsewhere = self._elsewhere, elsewhere
        names = before.keys() | elsewhere.keys()
        return {name for name in names if before.get(name) != elsewhere.get(name)}

    def forget(self, endpoint_id: str | None) -> None:
        """Ask again for this endpoint's keys; for all of them if None."""
        if endpoint_id is None:
            self._known.clear()
            return
        for key in [key for key in self._known if key.endpoint_id == endpoint_id]:
            del self._known[key]

    def of(self, key: Key) -> Standing:
        """Where the tasks of `key` stand."""
        return self.look(key)[0]

    def executor(self, key: Key) -> Executor | None:
        """Who carries out the tasks of `key`; None where its plugin is not there."""
        return self.look(key)[1]

    def arm(self, key: Key, now: float) -> None:
        """Remember when the tasks of `key` are to fail, if it is doomed; forget it if not."""
        standing = self.of(key)
        if not isinstance(standing, Doomed):
            self._ripe.pop(key, None)
        elif key in self._sweeping:
            self._again.add(key)
        elif key not in self._ripe or self._ripe[key][0] != standing.reason:
            self._ripe[key] = (standing.reason, now + standing.after)

    def ripe(self, now: float) -> Iterator[tuple[Key, Doomed]]:
        """Keys whose tasks are to fail now; each is given once until it is `swept`."""
        for key, (_, when) in list(self._ripe.items()):
            standing = self.of(key)
            if now >= when and key not in self._sweeping and isinstance(standing, Doomed):
                self._sweeping.add(key)
                yield key, standing

    def swept(self, key: Key, *, done: bool) -> None:
        """The tasks of a ripe key were failed (or not: then it stays ripe)."""
        self._sweeping.discard(key)
        if done and key not in self._again:
            self._ripe.pop(key, None)
        self._again.discard(key)

    def look(self, key: Key) -> tuple[Standing, Executor | None]:
        """Both at once."""
        try:
            return self._known[key]
        except KeyError:
            found = self._ask(key)
            self._known[key] = found
            return found

    def _ask(self, key: Key) -> tuple[Standing, Executor | None]:
        assert self._config is not None
        kind = Kind.WEBHOOK if key.webhook else Kind.CALL
        endpoint = self._config.endpoints.get(key.endpoint_id)
        if endpoint is None:
            if key.endpoint_id in self._elsewhere:
                return Parked("another daemon declares it and carries it out"), None
            why = f"{key.endpoint_id} is not declared any more"
            return Doomed(Reason.ENDPOINT_REMOVED, why, REMOVED_AFTER), None
        executor = self._registry.executor(kind, endpoint.type)
        if executor is None:
            return Parked("the plugin that carries it out is not loaded"), None
        if kind is Kind.CALL:
            if not endpoint.enabled:
                return Parked("the endpoint is disabled"), executor
            if key.endpoint_id in self._paused:
                return Parked("the endpoint is paused"), executor
        standing = self._standing(executor, endpoint, key, self._config)
        if isinstance(standing, Doomed) and standing.after and not self._alike(key.endpoint_id):
            # What is gone here may be there still, where the configuration is another one.
            return Parked("another daemon declares the endpoint otherwise"), executor
        return standing, executor

    def _alike(self, endpoint_id: str) -> bool:
        return self._elsewhere.get(endpoint_id, True)

    def _standing(
        self, executor: Executor, endpoint: Endpoint, key: Key, config: Config
    ) -> Standing:
        # An executor is a plugin's, too: its fault must not hold up everybody's reload.
        try:
            standing = executor.standing(endpoint, key.webhook, config)
            if isinstance(standing, Doomed):
                Reason(standing.reason)
            elif not isinstance(standing, Target | Parked):
                raise TypeError(f"it returned {standing!r}, which is no standing")
        except Exception as error:
            log.exception("the executor of %s cannot say where its tasks stand", key)
            return Parked(f"the plugin that carries it out failed: {type(error).__name__}")
        return standing
