"""The daemon's other parts, as far as the verbs need them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from orchestratord.config.changes import Changes, Difference
from orchestratord.config.edit.editor import Editor
from orchestratord.engine.lanes.wait_reason import Waiting
from orchestratord.errors import Problem
from orchestratord.model.settings import Config
from orchestratord.model.task import Effect, Key, NewTask, Task
from orchestratord.queue.records import Inserted


class WorkerLike(Protocol):
    """What the verbs need of the worker."""

    async def accept(self, tasks: Sequence[NewTask]) -> list[Inserted]:
        """Write new tasks, all or none, and start those that have a free slot."""
        ...

    async def write(self, effects: Sequence[Effect]) -> list[int]:
        """Write effects in one transaction; the ids of the new tasks, in order."""
        ...

    def touched(self, key: Key, next_try: int) -> None:
        """A task of `key` is pending and due at `next_try` (milliseconds)."""
        ...

    def finished(self, task_id: int) -> None:
        """A task reached a final state; whoever waits for it is woken."""
        ...

    async def wait_final(self, task_id: int, timeout: float) -> None:  # noqa: ASYNC109
        """Return when the task has reached a final state, or after `timeout` seconds."""
        ...

    def standing_changed(self, endpoint_id: str | None) -> None:
        """Look again at where the tasks of an endpoint (of all for None) stand."""
        ...

    def set_paused(self, paused: set[str]) -> None:
        """The endpoints whose calls wait."""
        ...

    def try_now(self, key: Key) -> None:
        """Somebody wants a task of `key` tried: where its lane waits, it is the next probe."""
        ...

    def waits(self, task: Task) -> Waiting | None:
        """What a task waits for beside its `next_try`; None for nothing."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """What it is at: in_flight, concurrency, next_due, draining, lanes."""
        ...


class SchedulerLike(Protocol):
    """What the verbs need of the scheduler."""

    def set_paused(self, paused: set[str]) -> None:
        """The endpoints whose slots are skipped."""
        ...

    def next_runs(self) -> Mapping[str, int]:
        """When each schedule makes its next call (milliseconds)."""
        ...


class FleetLike(Protocol):
    """What the verbs need to know of the other daemons."""

    holding_back: list[str]
    """What keeps the database from cleaning up, in words."""

    def daemons(self) -> list[dict[str, Any]]:
        """All daemons of the queue, as `status` shows them."""
        ...


class ReloadLike(Protocol):
    """How a reload went."""

    @property
    def changed(self) -> bool:
        """Whether another configuration is in force than before."""
        ...

    @property
    def config(self) -> Config:
        """The configuration in force."""
        ...

    @property
    def problems(self) -> Sequence[Problem]:
        """Why what the files say was refused; empty where it was not."""
        ...

    @property
    def restart_required(self) -> Sequence[str]:
        """The keys that keep an old value until the daemon is restarted."""
        ...

    @property
    def cause(self) -> str:
        """What asked for it."""
        ...

    @property
    def changes(self) -> Changes:
        """What differs from the configuration before."""
        ...

    @property
    def differences(self) -> Sequence[Difference]:
        """The keys behind that, where they were asked for."""
        ...


class LoaderLike(Protocol):
    """What the verbs need of whoever holds the configuration."""

    @property
    def config(self) -> Config:
        """The configuration in force."""
        ...

    @property
    def cause(self) -> str:
        """What had it adopted, such as `start`."""
        ...

    @property
    def changes(self) -> Changes:
        """What differs from the configuration before it."""
        ...

    @property
    def last_error(self) -> tuple[int, Sequence[Problem]] | None:
        """When (milliseconds) and why the files were refused; None while they are in force."""
        ...

    @property
    def restart_required(self) -> Sequence[str]:
        """The keys that keep an old value until the daemon is restarted."""
        ...

    @property
    def editor(self) -> Editor:
        """Writes what endpoints say back to their files."""
        ...

    async def reload(self, cause: str, *, diff: bool = False) -> ReloadLike:
        """Read the files again, and adopt what they say if all of it is right."""
        ...
