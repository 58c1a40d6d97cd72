"""A daemon of which only the lanes are real: calls arrive, hold their slots and end, by a clock
that is turned."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.model.task import Key, Task

TASK = Task(
    id=0, kind="call", endpoint_id="api/a", webhook="", phase=None, status="running", reason=None,
    attempts=1, max_attempts=15, next_try=None, params={}, payload=None, parent_id=None,
    created_at=0, updated_at=0, scheduled_at=0)  # fmt: skip


@dataclass
class Daemon:
    """What arrives, and what becomes of it. Times are milliseconds."""

    lanes: LaneSet
    holds: Mapping[Key, int]
    """For how long an attempt of each key holds its slot."""
    now: int = 0
    delays: dict[Key, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Of each key how long its calls waited until they began."""
    most: Counter[Key] = field(default_factory=Counter)
    """How many of each key were in flight at the most."""
    in_flight: Counter[Key] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._pending: dict[Key, deque[int]] = defaultdict(deque)
        self._due: dict[int, int] = {}
        self._ends: list[tuple[int, int, str, Task]] = []
        self._number = 0

    @property
    def pending(self) -> int:
        """How many calls have not begun."""
        return sum(map(len, self._pending.values()))

    def run(self, until: int, arrivals: Iterable[tuple[int, Key, str]]) -> None:
        """Let the clock go on. `arrivals`: when, of which key, in which lane."""
        coming = deque(sorted(arrivals))
        while True:
            times = [until]
            if coming:
                times.append(coming[0][0])
            if self._ends:
                times.append(self._ends[0][0])
            look = self.lanes.next_look()
            if look is not None:
                times.append(max(look, self.now + 1))
            self.now = max(min(times), self.now)
            if self.now >= until:
                return
            while self._ends and self._ends[0][0] <= self.now:
                _, _, lane, task = heapq.heappop(self._ends)
                self.in_flight[task.key] -= 1
                self._launch(lane, self.lanes.release_slot(lane, task, self.now))
            while coming and coming[0][0] <= self.now:
                when, key, lane = coming.popleft()
                self._arrive(key, when)
            self._claim()

    def _arrive(self, key: Key, when: int) -> None:
        self._pending[key].append(when)
        self.lanes.touch(key, when)

    def _claim(self) -> None:
        while choices := self.lanes.choose(self.now):
            for choice in choices:
                pending = self._pending[choice.key]
                got = [pending.popleft() for _ in range(min(choice.limit, len(pending)))]
                self.lanes.answered(choice, len(got), pending[0] if pending else None)
                for when in got:
                    self._start(choice.key, choice.lane, when)

    def _start(self, key: Key, lane: str, when: int) -> None:
        self._number += 1
        task = replace(
            TASK, id=self._number, endpoint_id=key.endpoint_id, webhook=key.webhook
        )  # fmt: skip
        self._due[task.id] = when
        for one in self.lanes.begin(lane, [task], self.now):
            self._launch(lane, one)

    def _launch(self, lane: str, task: Task | None) -> None:
        if task is None:
            return
        self.delays[task.key].append(self.now - self._due.pop(task.id))
        self.in_flight[task.key] += 1
        self.most[task.key] = max(self.most[task.key], self.in_flight[task.key])
        ends = self.now + self.holds[task.key]
        heapq.heappush(self._ends, (ends, task.id, lane, task))
        found = self.lanes.lanes[lane]
        assert found.in_flight <= found.concurrency
        assert self.lanes.in_flight <= self.lanes.concurrency


Arrival = tuple[int, Key, str]
"""When, of which key, in which lane."""


def steady(key: Key, lane: str, every: int, until: int, since: int = 0) -> list[Arrival]:
    """A call every so many milliseconds."""
    return [(at, key, lane) for at in range(since, until, every)]


def percentile(values: list[int], part: float) -> int:
    """The smallest of them that so many are not above."""
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]
