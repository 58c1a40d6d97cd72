"""The daemon's own settings, and the snapshot of all that was read from the config folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import Field

from orchestratord.errors import Problem
from orchestratord.model.declared import Model
from orchestratord.model.endpoint import Api, Endpoint
from orchestratord.values.durations import Duration
from orchestratord.values.redact import Redactor
from orchestratord.values.secret import Secret

T = TypeVar("T")


class Retention(Model):
    """How long finished tasks are kept, in seconds."""

    succeeded: Duration = 86400.0
    failed: Duration = 30 * 86400.0
    cancelled: Duration = 7 * 86400.0


class Log(Model):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Plugins(Model):
    """Which plugins are loaded, from where, and their own settings."""

    dirs: tuple[str, ...] = ()
    """Folders with single-file plugins, relative to the config folder."""
    disabled: tuple[str, ...] = ()
    timeout: Duration = 10.0
    """Seconds that an `async def` hook may take."""
    settings: Mapping[str, Mapping[str, Any]] = {}


class EgressSettings(Model):
    """Which private addresses may be dialled."""

    allow: tuple[str, ...] = ()
    """`cidr` or `cidr:port`."""


class Http(Model):
    """The API over TCP."""

    bind: str = "127.0.0.1:8420"
    """An address and a port; port 0 takes a free one."""
    token: Secret
    """Its bearer may do everything."""
    read_token: Secret | None = None
    """Its bearer may look."""
    hosts: tuple[str, ...] = ()
    """The values of the header Host that are answered; by default the address that is bound, and
    localhost, with the port."""


class DaemonSettings(Model):
    """`orchestratord.yaml`; every key is optional."""

    database: str | None = None
    control_socket: str | None = None
    http: Http | None = None
    """The API over TCP; off where it is missing."""
    concurrency: int = Field(100, ge=1, le=100_000)
    """In flight in this daemon."""
    drain_timeout: Duration = 25.0
    lease: Duration = 90.0
    retention: Retention = Retention()
    egress: EgressSettings = EgressSettings()
    log: Log = Log()
    plugins: Plugins = Plugins()


@dataclass(frozen=True, slots=True)
class DaemonSetting(Generic[T]):
    """A key that a plugin adds to `orchestratord.yaml`; `config[SETTING]` reads it.

    Args:
        key: its name in the YAML.
        type: what pydantic validates it to; frozen, best a `Model` or a mapping of them.
        default: the value where the key is missing.
    """

    key: str
    type: Any
    default: T

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True, slots=True)
class Config:
    """One immutable snapshot of the configuration.

    `digest` is a hash of the files' content; `generation` counts adopted snapshots from 1.
    `paused` is not part of it: pausing is the queue's.
    """

    folder: Path
    daemon: DaemonSettings
    apis: Mapping[str, Api]
    endpoints: Mapping[str, Endpoint]
    redactor: Redactor
    digest: str
    warnings: tuple[Problem, ...] = ()
    generation: int = 0
    adopted_at: int = 0
    """Milliseconds since the epoch."""
    files: tuple[str, ...] = field(default=())
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What `orchestratord.yaml` says under the keys of plugins."""

    def __getitem__(self, setting: DaemonSetting[T]) -> T:
        value: T = self.settings.get(setting.key, setting.default)
        return value
