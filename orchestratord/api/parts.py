"""The daemon's other parts, as far as the verbs need them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from orchestratord.config.changes import Changes, Difference
from orchestratord.config.edit.editor import Editor
from orchestratord.errors import Problem
from orchestratord.model.settings import Config


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
