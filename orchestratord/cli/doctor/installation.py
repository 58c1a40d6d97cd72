"""What all checks look at, the configuration and a running daemon, and what they find."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from orchestratorctl.exit_codes import CommandError, RequestRefused
from orchestratorctl.socket_client import SocketClient
from orchestratord.cli.opened_config import host_of
from orchestratord.config.database_url import database_url
from orchestratord.config.load import load, read_settings
from orchestratord.config.validate.socket_path import socket_path
from orchestratord.daemon.bootstrap import ADDRESSES
from orchestratord.errors import ConfigError, Problem
from orchestratord.model.settings import Config, DaemonSettings
from orchestratord.plugin.host import Host
from orchestratord.values import doc_links

ANSWER_TIMEOUT = 5.0
"""Seconds that a daemon may take to answer."""

_SYSTEM = Path("/etc/orchestratord")
_UNIT = {"STATE_DIRECTORY": "/var/lib/orchestratord", "RUNTIME_DIRECTORY": "/run/orchestratord"}
"""What systemd tells the daemon, and not the administrator's shell."""


_Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: `what` is so, and where it is not good, the `remedy`.

    `help` is the address at which the documentation says more; empty where all is good, and until
    `doctor` has added its check's.
    """

    status: _Status
    what: str
    remedy: str = ""
    help: str = ""


Findings = Iterable[Finding]


def ok(what: str) -> Finding:
    """Something is as it should be."""
    return Finding("ok", what)


def warn(what: str, remedy: str, *, trouble: str | None = None) -> Finding:
    """Something will do harm one day, or may be meant. `trouble`: the reason or code that it is."""
    return Finding("warn", what, remedy, doc_links.trouble(trouble) if trouble else "")


def fail(what: str, remedy: str, *, trouble: str | None = None) -> Finding:
    """Something keeps the daemon from its work. `trouble`: the reason or code that it is."""
    return Finding("fail", what, remedy, doc_links.trouble(trouble) if trouble else "")


@dataclass(slots=True)
class Installation:
    """One config folder on this machine.

    `host` is None where the plugins could not be loaded at all, `config` where the configuration is
    not good; `problems` then says why, and `settings` are those of orchestratord.yaml if that much
    can be read. `status` is what the daemon at `socket` says of itself, None where none answers;
    `refusal` then is the error of asking it.
    """

    folder: Path
    environ: Mapping[str, str]
    host: Host | None = None
    config: Config | None = None
    problems: list[Problem] = field(default_factory=list)
    settings: DaemonSettings = field(default_factory=lambda: DaemonSettings.model_validate({}))
    socket: Path = Path()
    status: dict[str, Any] | None = None
    refusal: OSError | None = None

    @property
    def database(self) -> str:
        """The database's URL: the running daemon's, else the one that it would use."""
        known = (self.status or {}).get("database")
        url = known.get("url") if isinstance(known, dict) else None
        # Of a server the daemon shows no password.
        if self.daemon_is_ours and isinstance(url, str) and url.startswith("sqlite:"):
            return url
        return database_url(self.settings.database, self.folder, self.environ)

    @property
    def daemon_is_ours(self) -> bool:
        """True where the daemon that answers has read this very folder."""
        told = (self.status or {}).get("config")
        folder = told.get("folder") if isinstance(told, dict) else None
        return isinstance(folder, str) and Path(folder).resolve() == self.folder.resolve()


def look_at(folder: Path, environ: Mapping[str, str] = os.environ) -> Installation:
    """Read what there is to read, and ask the daemon."""
    installed = Installation(folder, _as_the_unit(folder, environ))
    try:
        installed.host = host_of(folder)  # it lists what cannot be loaded, too
        installed.config = load(folder, installed.host, environ=environ, addresses=ADDRESSES)
        installed.problems += installed.config.warnings
        installed.settings = installed.config.daemon
    except ConfigError as error:
        installed.problems += error.problems
        if installed.host is not None:
            installed.settings = (
                read_settings(folder, installed.host, environ) or installed.settings
            )
    # A daemon elsewhere is named in the way in which orchestratorctl is told of it.
    named = environ.get("ORCHESTRATORD_SOCKET")
    set_to = installed.settings.control_socket
    installed.socket = Path(named) if named else socket_path(set_to, folder, installed.environ)
    try:
        installed.status = ask(installed.socket)
    except OSError as error:
        installed.refusal = error
    return installed


class Unready(OSError):
    """A daemon answers, and says why it cannot say more."""


def ask(path: Path) -> dict[str, Any]:
    """The status of the daemon at a socket. Raises OSError where none answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(ANSWER_TIMEOUT)
        probe.connect(os.fspath(path))  # tells why it cannot be reached
    try:
        return SocketClient(os.fspath(path)).get("/v1/status", timeout=ANSWER_TIMEOUT)
    except CommandError as error:
        if isinstance(error, RequestRefused) and error.status == 503:
            raise Unready(str(error)) from None
        raise OSError(errno.EPROTO, f"no answer that makes sense: {error}") from None


def _as_the_unit(folder: Path, environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment, and for the system's folder what systemd would add to it."""
    if folder != _SYSTEM:
        return environ
    there = {name: path for name, path in _UNIT.items() if os.path.isdir(path)}
    return {**there, **environ}
