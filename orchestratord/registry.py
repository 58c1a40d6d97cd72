"""What plugins registered, and what is known of each plugin."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from orchestratord.backoff import Backoff
from orchestratord.endpoint import Setting
from orchestratord.errors import PluginError
from orchestratord.executor import Executor
from orchestratord.task import Table


@dataclass(slots=True)
class PluginInfo:
    """What is known of one plugin. `status` is `loaded`, `disabled` or `failed`."""

    name: str
    version: str
    source: str
    """`entry point`, or the file."""
    status: str = "loaded"
    hooks: tuple[str, ...] = ()
    error: str | None = None
    faults: int = 0
    last_fault: str | None = None


@dataclass(slots=True)
class Registry:
    """What plugins registered. The `disabled_` names are those of plugins that are switched off."""

    settings: dict[str, Setting[Any]] = field(default_factory=dict)
    backoffs: dict[str, type[Backoff]] = field(default_factory=dict)
    executors: list[Executor] = field(default_factory=list)
    tables: dict[str, Table] = field(default_factory=dict)
    owners: dict[tuple[str, str], str] = field(default_factory=dict)
    disabled_keys: dict[str, str] = field(default_factory=dict)
    """Key of the YAML → the disabled plugin."""
    disabled_backoffs: dict[str, str] = field(default_factory=dict)
    disabled_types: dict[str, str] = field(default_factory=dict)

    def claim(self, what: str, name: str, plugin: str) -> None:
        """Give `name` to `plugin`. Raises PluginError where another one has it."""
        owner = self.owners.setdefault((what, name), plugin)
        if owner != plugin:
            raise PluginError(f"the {what} {name!r} is registered by {owner} and by {plugin}")

    def call_executors(self) -> dict[str, Executor]:
        """`type` of an endpoint → its executor."""
        return {item.type: item for item in self.executors if item.kind == "call"}

    def executor(self, kind: str, type_: str) -> Executor | None:
        """The executor of a task of this kind; for calls, of an endpoint of this type."""
        for item in self.executors:
            if item.kind == kind and (kind != "call" or item.type == type_):
                return item
        return None
