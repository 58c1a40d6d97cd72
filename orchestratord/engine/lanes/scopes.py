"""The throttles of URLs, endpoints and webhooks, and which keys each of them concerns.

A key belongs to several scopes: to its lane, whose throttle the lane has itself; for deliveries to
the URL that they go to, which several endpoints may share; and to itself, by the name `api/name` or
`api/name#webhook`. A key may be claimed when all of its scopes have room.

`of` holds only the keys of which a scope has a throttle. It is nearly always empty: that is the one
thing that what is healthy is asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestratord.engine.lanes.pace import ANY
from orchestratord.engine.lanes.throttle import Throttle
from orchestratord.model.event import StoredThrottle
from orchestratord.model.task import Key


@dataclass(slots=True)
class Tries:
    """What was tried last of one key."""

    at: int = 0
    """When it ended (milliseconds)."""
    served: int = 0
    """How many were served in the second of the clock in which that was."""
    down: bool = False
    """It failed as if nothing was there."""


class Scopes:
    """Those of URLs and keys. Times are milliseconds since the epoch."""

    def __init__(self) -> None:
        self.of: dict[Key, tuple[Throttle, ...]] = {}
        """The keys of which scopes have throttles, but for those of their lanes."""
        self.by_name: dict[str, Throttle] = {}
        self.unheeding: set[Key] = set()
        """Keys that say `respect_retry_after: false`."""
        self.tries: dict[Key, Tries] = {}
        """What was tried last of each key."""
        self.later: dict[str, list[StoredThrottle]] = {}
        """What the queue keeps of scopes that no key belongs to yet."""
        self._scopes: dict[Key, tuple[str, str]] = {}
        """Of each key that was placed: the lane, and the URL or an empty text."""
        self._keys: dict[str, dict[Key, None]] = {}
        """The keys of each lane and URL."""
        self._chosen: dict[Key, list[Throttle]] = {}
        """Of which throttles, that of its lane too, what is being claimed of a key is the probe,
        whichever scopes the key belongs to by then."""
        self.probes: dict[int, list[Throttle]] = {}
        """Of which throttles a task is the probe."""

    # -- the keys ------------------------------------------------------------------------------

    def place(self, key: Key, lane: str, url: str, heeds: bool, now: int) -> None:
        """`key` belongs to these scopes from now on."""
        (self.unheeding.discard if heeds else self.unheeding.add)(key)
        if self._scopes.get(key) == (lane, url):
            return
        self._leave(key)
        self._scopes[key] = lane, url
        for name in filter(None, (lane, url)):
            self._keys.setdefault(name, {})[key] = None
        for name in filter(None, (url, key.name)) if self.later else ():
            for row in self.later.pop(name, ()):
                self.get(name, now).restore(row, now)
        self._bind(key)

    def forget(self, key: Key) -> None:
        """`key` waits for another reason than a throttle, or is gone."""
        self._leave(key)
        self.tries.pop(key, None)

    def keys(self, name: str) -> Iterable[Key]:
        """The keys of a lane, a URL, or a key's own scope."""
        found = self._keys.get(name)
        if found is not None:
            return list(found)
        endpoint_id, _, webhook = name.partition("#")
        key = Key(endpoint_id, webhook)
        return [key] if key in self._scopes else []

    def lane(self, key: Key) -> str:
        """The lane of a key that was placed."""
        return self._scopes[key][0]

    def url(self, key: Key) -> str:
        """Where the deliveries of a key go; empty for calls."""
        return self._scopes[key][1] if key in self._scopes else ""

    def heeds(self, key: Key) -> bool:
        """Whether a key waits as long as Retry-After says."""
        return key not in self.unheeding

    def all_heed(self, lane: str) -> bool:
        """Whether all keys of a lane do."""
        return not self.unheeding or self.unheeding.isdisjoint(self._keys.get(lane, ()))

    # -- the throttles -------------------------------------------------------------------------

    def get(self, name: str, now: int) -> Throttle:
        """The throttle of a URL or key, which it has from now on."""
        throttle = self.by_name.get(name)
        if throttle is None:
            throttle = self.by_name[name] = Throttle(now, name)
            for key in self.keys(name):
                self._bind(key)
        return throttle

    def drop(self, name: str) -> None:
        """A scope needs no throttle any more."""
        if self.by_name.pop(name, None) is not None:
            for key in self.keys(name):
                self._bind(key)

    def keep_for_later(self, row: StoredThrottle) -> None:
        """What throttles a scope that no key belongs to yet."""
        rows = self.later.setdefault(row.name, [])
        rows[:] = [one for one in rows if (one.kind, one.owner) != (row.kind, row.owner)]
        rows.append(row)

    # -- what may be claimed -------------------------------------------------------------------

    def room(self, key: Key, now: int) -> int:
        """How many of a key may be claimed now, as far as its URL and itself go."""
        heeds = self.heeds(key)
        return min((one.room(now, heeds) for one in self.of.get(key, ())), default=ANY)

    def opens_at(self, key: Key, now: int) -> int | None:
        """When there is room if nothing happens meanwhile; None where something has to."""
        latest, heeds = now, self.heeds(key)
        for throttle in self.of.get(key, ()):
            at = throttle.opens_at(now, heeds)
            if at is None:
                return None
            latest = max(latest, at)
        return latest

    # -- probes --------------------------------------------------------------------------------

    def probe_chosen(self, key: Key, throttles: list[Throttle]) -> None:
        """What is being claimed of a key is the probe of these."""
        self._chosen[key] = throttles

    def probe_claimed(self, key: Key, task_id: int) -> None:
        """The task that was claimed as the probe of a key."""
        mine = self._chosen_of(key)
        for throttle in mine:
            throttle.probe = task_id
        if mine:
            self.probes[task_id] = mine

    def probe_not_claimed(self, key: Key) -> list[Throttle]:
        """None of a key was claimed: the throttles that may choose another probe."""
        mine = self._chosen_of(key)
        for throttle in mine:
            throttle.probe_over()
        return mine

    def _chosen_of(self, key: Key) -> list[Throttle]:
        chosen = self._chosen.pop(key, []) if self._chosen else []
        return [one for one in chosen if one.probing and one.probe is None]

    def probe_over(self, task_id: int) -> list[Throttle]:
        """A task has ended, or does not begin: the throttles that may choose another probe."""
        mine = self.probes.pop(task_id, []) if self.probes else []
        for throttle in mine:
            if throttle.probe == task_id:
                throttle.probe_over()
        return mine

    def shift(self, by: int) -> None:
        """The clock was moved by so many milliseconds: all last as long as before."""
        for throttle in self.by_name.values():
            throttle.shift(by)
        for tries in self.tries.values():
            tries.at += by
        for rows in self.later.values():
            rows[:] = [
                row._replace(since=row.since + by, until=row.until and row.until + by)
                for row in rows
            ]

    # -- what was tried ------------------------------------------------------------------------

    def tried(self, key: Key, now: int, *, served: bool = True, down: bool = False) -> bool:
        """One of a key ended at `now`; `down`: as if nothing was there. Whether no throttle of its
        own is concerned."""
        found = self.tries.get(key)
        if found is None:
            found = self.tries[key] = Tries()
        if found.at // 1000 != now // 1000:
            found.served = 0
        found.served += served
        found.at, found.down = now, down
        return key not in self.of

    def served(self, name: str, now: int) -> int:
        """How many tasks of a scope were served in this second of the clock."""
        found = (self.tries[key] for key in self.keys(name) if key in self.tries)
        return sum(one.served for one in found if one.at // 1000 == now // 1000)

    def tried_lately(self, lane: str, now: int, within: int) -> list[Key]:
        """The keys of a lane that were tried within so many milliseconds."""
        found = self.tries
        return [k for k in self.keys(lane) if k in found and 0 <= now - found[k].at < within]

    def _bind(self, key: Key) -> None:
        """Note which throttles concern a key."""
        names = filter(None, (self.url(key), key.name))
        mine = tuple(self.by_name[name] for name in names if name in self.by_name)
        if mine and key in self._scopes:
            self.of[key] = mine
        else:
            self.of.pop(key, None)

    def _leave(self, key: Key) -> None:
        for name in self._scopes.pop(key, ()):
            keys = self._keys.get(name)
            if keys is not None:
                keys.pop(key, None)
                if not keys:
                    del self._keys[name]
        self.of.pop(key, None)
