"""Where the tasks of each key go under today's configuration: into a lane, to wait, or to fail."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.settings import Config
from orchestratord.model.task import Effect, Key, Kind, NewTask, Reason
from orchestratord.plugin.executor import Doomed, Executor, Parked, Standing, Target
from orchestratord.plugin.registry import Registry
from orchestratord.values.clock import Clock

log = logging.getLogger("orchestratord.worker")

FOREVER = 1 << 62
"""Later than any next_try."""

Immediate = tuple[Target, Executor]
"""What a task belongs to that needs no attempt."""

DEEPEST, MOST_FURTHER = 8, 100
"""Events that follow one from the other within one transaction, and how many of one of them; what
is more than that waits for its own turn."""

REMOVED_AFTER = 60.0
"""Seconds for which an endpoint has to be gone before its tasks fail."""


def differ(before: Config | None, after: Config) -> Callable[[Key], bool]:
    """Whether a key may be placed elsewhere by another configuration.

    An endpoint whose files did not change is the same object, and its keys are placed where they
    were, unless the daemon's own settings changed, which anything may depend on.
    """
    if before is None or before.daemon != after.daemon or before.settings != after.settings:
        return lambda key: True
    was, now = before.endpoints, after.endpoints
    return lambda key: was.get(key.endpoint_id) is not now.get(key.endpoint_id)


class Placement:
    """Holds the configuration in force, and puts each key into the lane that it names.

    What it has found for a key is remembered until something changes.
    """

    def __init__(self, registry: Registry, lanes: LaneSet, clock: Clock) -> None:
        self._registry = registry
        self._lanes = lanes
        self._clock = clock
        self._config: Config | None = None
        self._endpoints_of: Counter[str] = Counter()
        """How many endpoints each API has."""
        self._paused: frozenset[str] = frozenset()
        self._elsewhere: Mapping[str, bool] = {}
        self.left: set[str] = set()
        """Endpoints that were left to other daemons, of which none declares them any more."""
        self._known: dict[Key, tuple[Standing, Executor | None]] = {}
        self.plans: dict[tuple[str, str], Any] = {}
        """What `Plans` has made for keys; a new one whenever where they go may have changed. Here,
        so that none of them holds an old configuration in memory."""
        self._ripe: dict[Key, tuple[str, float]] = {}
        """Doomed keys: for what reason, and from when on their tasks fail (`Clock.steady`)."""
        self._sweeping: set[Key] = set()
        self._again: set[Key] = set()
        """Keys for which another task came while they were swept."""

    @property
    def config(self) -> Config:
        """The configuration in force."""
        if self._config is None:
            raise RuntimeError("the worker has no configuration yet")
        return self._config

    # -- what changes it -----------------------------------------------------------------------

    def adopt(self, config: Config) -> None:
        """Take up a new configuration: waiting tasks follow it, those in flight keep theirs."""
        changed = differ(self._config, config)
        self.plans = {}
        before, self._config = self._endpoints_of, config
        self._endpoints_of = Counter(one.api.name for one in config.endpoints.values())
        self.left -= config.endpoints.keys()
        for key in [key for key in self._known if changed(key)]:
            del self._known[key]
        self._lanes.bound(config.daemon.concurrency)
        for key in self._lanes.all_keys():
            api = key.endpoint_id.partition("/")[0]
            if before[api] != self._endpoints_of[api]:
                self.place(key)
            if changed(key):
                self.place(key)
                # What kept a receiver from answering may be mended by this.
                self._lanes.try_now(key, self._clock.now_ms())
        self._lanes.wake.set()

    def set_paused(self, paused: set[str]) -> frozenset[str]:
        """The endpoints whose calls wait; their deliveries go on. Returns those for which that
        changed."""
        changed = self._paused ^ paused
        self._paused = frozenset(paused)
        for endpoint_id in changed:
            self.standing_changed(endpoint_id)
        return changed

    def set_elsewhere(self, elsewhere: Mapping[str, bool]) -> None:
        """The endpoints that other daemons of the queue declare, and whether as we do: their tasks
        are left to those."""
        before, self._elsewhere = self._elsewhere, elsewhere
        gone = before.keys() - elsewhere.keys() - self.config.endpoints.keys()
        self.left |= {name for name in gone if "/" in name}  # no files declare the others
        for name in before.keys() | elsewhere.keys():
            if before.get(name) != elsewhere.get(name):
                self.standing_changed(name)

    def standing_changed(self, endpoint_id: str | None, webhook: str | None = None) -> None:
        """Place the keys of an endpoint (all of them for None) anew; with `webhook`, that one."""
        if endpoint_id is not None and webhook is not None:
            key = Key(endpoint_id, webhook)
            self.plans.pop(key, None)
            if self._known.pop(key, None) is not None:
                self.place(key)
                self._lanes.wake.set()
            return
        self.forget(endpoint_id)
        for key in self._lanes.all_keys():
            if endpoint_id is None or key.endpoint_id == endpoint_id:
                self.place(key)
        self._lanes.wake.set()

    def learn_secrets(self, owner: str, secrets: tuple[str, ...]) -> None:
        """Mask what has come up while the configuration is in force, as tokens."""
        self.config.redactor.learn(owner, secrets)

    # -- for the lanes -------------------------------------------------------------------------

    def touched(self, key: Key, next_try: int) -> None:
        """A task of `key` is pending and due at `next_try` (milliseconds)."""
        if self._lanes.draining:
            return
        if not self._lanes.known(key) or isinstance(self.of(key), Doomed):
            self.place(key)
        self._lanes.touch(key, next_try)
        self._lanes.wake.set()

    def place(self, key: Key) -> None:
        """Put a key where it belongs today: into its lane, or among the parked ones."""
        standing = self.of(key)
        self.arm(key, self._clock.steady())
        if isinstance(standing, Target):
            of_all = standing.global_concurrency
            self._lanes.place(
                key, standing.lane, min(standing.concurrency, of_all or standing.concurrency),
                standing.rate, url=standing.url, heeds=standing.retry.respect_retry_after,
                alone=self._is_alone(key, standing), counts_all=of_all is not None,
            )  # fmt: skip
        else:
            self._lanes.park(key)

    def _is_alone(self, key: Key, target: Target) -> bool:
        """Whether a key has its lane for itself: calls of the only endpoint of an API."""
        api = target.endpoint.api.name
        return not key.webhook and target.lane == f"api:{api}" and self._endpoints_of[api] == 1

    # -- what is known of a key ----------------------------------------------------------------

    def forget(self, endpoint_id: str | None) -> None:
        """Ask again for this endpoint's keys; for all of them if None."""
        self.plans = {}
        if endpoint_id is None:
            self._known.clear()
            return
        for key in [key for key in self._known if key.endpoint_id == endpoint_id]:
            del self._known[key]

    def of(self, key: Key) -> Standing:
        """Where the tasks of `key` stand."""
        return self.look(key)[0]

    def obstacle(self, key: Key) -> Parked | Doomed | None:
        """Why a person who retries tasks of `key` is refused that; None where that is not so."""
        standing = self.of(key)
        return None if isinstance(standing, Target) or not standing.reason else standing

    def arm(self, key: Key, now: float) -> None:
        """Remember when the tasks of `key` are to fail, if it is doomed; forget it if not. `now` is
        of `Clock.steady`: a clock that jumps is no time in which it could have come back."""
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
        """The placement of a key, and its executor; None where its plugin is not there."""
        try:
            return self._known[key]
        except KeyError:
            found = self._ask(key)
            self._known[key] = found
            return found

    def immediate(self, effects: Sequence[Effect], level: int) -> dict[int, Immediate]:
        """Those new tasks that need no attempt, by their places. `level`: how many events led to
        them one after the other, within one transaction."""
        found: dict[int, Immediate] = {}
        if level and (level >= DEEPEST or len(effects) > MOST_FURTHER):
            return found
        for number, item in enumerate(effects):
            if isinstance(item, NewTask) and item.kind == Kind.CALL and not item.waits:
                standing, executor = self.look(item.key)
                if executor is None or not executor.immediate or not isinstance(standing, Target):
                    continue
                if standing.endpoint.partition is None:  # else it waits for its turn
                    found[number] = standing, executor
        return found

    def _ask(self, key: Key) -> tuple[Standing, Executor | None]:
        kind = Kind.WEBHOOK if key.webhook else Kind.CALL
        endpoint = self.config.endpoints.get(key.endpoint_id)
        if endpoint is None and key.webhook:
            endpoint = self._registry.own_endpoint(key.endpoint_id, self.config)
        if endpoint is None:
            if key.endpoint_id in self._elsewhere:
                return Parked("another daemon declares it and carries it out"), None
            why = f"{key.endpoint_id} is not declared any more"
            return Doomed(Reason.ENDPOINT_REMOVED, why, REMOVED_AFTER), None
        executor = self._registry.executor(kind, endpoint.type)
        if executor is None:
            registry, why = self._registry, "the plugin that carries it out is not loaded"
            if kind is Kind.CALL and (
                owner := registry.absent_owner(endpoint.type, registry.disabled_types)
            ):
                why = f"the plugin {owner[0]}, which carries it out, {owner[1]}"
            return Parked(why), None
        if endpoint.waits:
            return Parked(endpoint.waits), executor
        if kind is Kind.CALL:
            if not endpoint.enabled:
                why = "the endpoint is disabled; to call it again, set `enabled: true` in its YAML"
                return Parked(why, "endpoint_disabled"), executor
            if key.endpoint_id in self._paused:
                return Parked("the endpoint is paused"), executor
        standing = self._standing(executor, endpoint, key)
        alike = self._elsewhere.get(key.endpoint_id, True)
        if isinstance(standing, Doomed) and standing.after and not alike:
            # What is gone here may be there still, where the configuration is another one.
            return Parked("another daemon declares the endpoint differently"), executor
        return standing, executor

    def _standing(self, executor: Executor, endpoint: Endpoint, key: Key) -> Standing:
        # An executor is a plugin's, too: its fault must not hold up the whole reload.
        try:
            standing = executor.standing(endpoint, key.webhook, self.config)
            if isinstance(standing, Doomed):
                Reason(standing.reason)
            elif not isinstance(standing, Target | Parked):
                raise TypeError(f"it returned {standing!r}, which is no standing")
        except Exception as error:
            plugin = self._registry.owner_of(executor)
            log.exception(
                "the executor of %s cannot say where its tasks stand: plugin %s", key, plugin
            )
            return Parked(f"the plugin that carries it out failed: {type(error).__name__}")
        return standing
