"""The daemon's own settings, and the snapshot of all that was read from the config folder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BeforeValidator, Field, IPvAnyNetwork, WithJsonSchema, model_validator

from orchestratord.errors import Problem
from orchestratord.model.declared import Model
from orchestratord.model.endpoint import Api, Endpoint, Guards
from orchestratord.values.durations import Duration, Size
from orchestratord.values.redact import Redactor
from orchestratord.values.secret import Secret
from orchestratord.values.yaml_value import REFERENCE

T = TypeVar("T")

MAX_WORKERS = 64


def parse_workers(value: Any) -> int | Literal["auto"]:
    """A number of processes, or `auto`. Raises ValueError for anything else."""
    if value == "auto":
        return "auto"
    number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,3}", value) else value
    if isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= MAX_WORKERS:
        return number
    raise ValueError(f"{value!r} is no number of workers: write 1 to {MAX_WORKERS}, or auto")


Workers = Annotated[
    int | Literal["auto"],
    BeforeValidator(parse_workers),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MAX_WORKERS},
                {"const": "auto"},
                REFERENCE,
            ]
        }
    ),
]
"""How many processes; `auto`: as many as there are cores."""


class Retention(Model):
    """How long finished tasks are kept, in seconds."""

    succeeded: Duration = 86400.0
    """How long to keep succeeded tasks: 1d, 12h."""
    failed: Duration = 30 * 86400.0
    """How long to keep failed tasks, and allow manual retries."""
    cancelled: Duration = 7 * 86400.0
    """How long to keep cancelled tasks."""


class Log(Model):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe lines to log: `debug`, `info`, `warning` or `error`."""
    format: Literal["text", "json"] = "text"
    """`text`, a line for people, or `json`, an object a line for programs."""


class Plugins(Model):
    """Which plugins are loaded, from where, and their own settings."""

    dirs: tuple[str, ...] = ()
    """Folders with single-file plugins, relative to the config folder."""
    disabled: tuple[str, ...] = ()
    """The names of installed plugins to leave out."""
    optional: tuple[str, ...] = ()
    """The names of plugins that may fail to load."""
    timeout: Duration = 10.0
    """How long an `async def` hook may take: 10s, 500ms."""
    settings: Mapping[str, Mapping[str, Any]] = {}
    """Settings of plugins, by their names."""


class EgressSettings(Model):
    """Private addresses that requests may use."""

    allow: tuple[str, ...] = ()
    """Private addresses that requests may use: `10.0.0.0/8`, or `127.0.0.1:9000` with a port."""

    @model_validator(mode="before")
    @classmethod
    def _check_form(cls, value: Any) -> Any:
        if isinstance(value, str | list) and value:
            rules = ", ".join(map(str, [value] if isinstance(value, str) else value))
            raise ValueError(f"the rules stand below `allow`: write egress: {{allow: [{rules}]}}")
        return value


class FilesSettings(Model):
    """The folders for files to send and answers to save."""

    read: tuple[str, ...] = ()
    """The folders with files to send, as absolute paths."""
    write: tuple[str, ...] = ()
    """The folders for saved answers, as absolute paths."""
    max_file: Annotated[Size, Field(ge=1)] = 1 << 30
    """The most bytes of a file to send or save: 1GiB, 500MB."""


class Http(Model):
    """The API over TCP."""

    bind: str = "127.0.0.1:8420"
    """The address and port of the dashboard and the API; port 0 takes a free one."""
    token: Secret
    """A secret of 16 characters or more that may do everything."""
    read_token: Secret | None = None
    """Another secret, which may only read."""
    hosts: tuple[str, ...] = ()
    """The accepted values of the header Host; by default the bound address and localhost, with the
    port."""


class Port(Model):
    """A port that a plugin has the daemon listen at, under a key of its own: see `DaemonSetting`.

    A plugin may add keys to it.
    """

    bind: str
    """The address and port to listen on; port 0 takes a free one."""
    proxies: tuple[IPvAnyNetwork, ...] = ()
    """The addresses of proxies in front of it, without a limit of connections."""


def ports_of(settings: Mapping[str, Any]) -> dict[str, Port]:
    """The ports that settings of plugins are, or have as a key of their own: that one's name has a
    dot, such as `shop.hooks`."""
    found: dict[str, Port] = {}
    for key, one in settings.items():
        if isinstance(one, Port):
            found[key] = one
        elif isinstance(one, Model):
            found |= {f"{key}.{name}": port for name, port in one if isinstance(port, Port)}
    return found


class DaemonSettings(Model):
    """`orchestratord.yaml`; every key is optional."""

    database: str | None = None
    """The database of the queue: `sqlite:////absolute/path`, `sqlite:///path` below the config
    folder, or `postgresql://user@host/database`."""
    control_socket: str | None = None
    """The path of the control socket for orchestratorctl, at most 107 bytes."""
    http: Http | None = None
    """The dashboard and the API over TCP; off if missing."""
    concurrency: int = Field(100, ge=1, le=100_000)
    """The most attempts in flight at once in this daemon."""
    workers: Workers = 1
    """The number of processes that carry out attempts, or `auto` for one on each core."""
    drain_timeout: Duration = 25.0
    """How long a stopping daemon waits for attempts in flight: 25s, 1m."""
    lease: Duration = 90.0
    """How long a claim of this daemon is valid without renewal; then others take over."""
    max_params: Size = Field(256 << 10, ge=2, le=16 << 20)
    """The most bytes of one call's parameters, as JSON: 256KiB, 1MiB."""
    retention: Retention = Retention()
    """How long the daemon keeps finished tasks."""
    egress: EgressSettings = EgressSettings()
    """Private addresses that all APIs may use."""
    files: FilesSettings = FilesSettings()
    """Which folders requests may send files from, and save answers to."""
    log: Log = Log()
    """The level and form of log lines."""
    plugins: Plugins = Plugins()
    """Which plugins to load, from where, and their settings."""

    @property
    def worker_count(self) -> int:
        """How many processes `workers` stands for on this machine."""
        if self.workers == "auto":
            return min(len(os.sched_getaffinity(0)), MAX_WORKERS)
        return self.workers


@dataclass(frozen=True, slots=True)
class DaemonSetting(Generic[T]):
    """A key that a plugin adds to `orchestratord.yaml`; `config[SETTING]` reads it.

    Args:
        key: its name in the YAML.
        type: what pydantic validates it to; frozen, preferably a `Model` or a mapping of them.
            If it is a `Port`, the daemon listens there for what `register_ports` names the key of.
        default: the value where the key is missing.
        description: a sentence for users, which editors show beside the key.
    """

    key: str
    type: Any
    default: T
    description: str = ""

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
    guards: Guards = field(default_factory=Guards)
    """What `defaults` says of breakers and the pace."""

    @property
    def ports(self) -> dict[str, Port]:
        """Where plugins have the daemon listen, by their keys of `orchestratord.yaml`."""
        return ports_of(self.settings)

    def __getitem__(self, setting: DaemonSetting[T]) -> T:
        value: T = self.settings.get(setting.key, setting.default)
        return value
