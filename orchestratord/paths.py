"""Where the database and the control socket are, from the settings and the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from orchestratord.settings import DaemonSettings


def database_url(settings: DaemonSettings, folder: Path, environ: Mapping[str, str]) -> str:
    """The database as `sqlite:////absolute/path`, or as `postgresql://…`, with its password.

    A relative path is below the config folder.
    """
    if settings.database is not None and not settings.database.startswith("sqlite:"):
        return settings.database
    if settings.database is not None:
        path = Path(settings.database.removeprefix("sqlite:///"))
        return f"sqlite:///{path if path.is_absolute() else folder.resolve() / path}"
    state = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if not state:
        home = environ.get("HOME") or str(Path.home())
        state = str(Path(home) / ".local" / "state" / "orchestratord")
    return f"sqlite:///{Path(state).resolve() / 'orchestratord.db'}"


def control_socket(settings: DaemonSettings, folder: Path, environ: Mapping[str, str]) -> Path:
    """The control socket's path: as set, else in the runtime directory of service or session."""
    if settings.control_socket is not None:
        path = Path(settings.control_socket)
        return path if path.is_absolute() else folder.resolve() / path
    runtime = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if runtime:
        return Path(runtime) / "control.sock"
    session = environ.get("XDG_RUNTIME_DIR")
    if session:
        return Path(session) / "orchestratord" / "control.sock"
    if os.geteuid() == 0:
        return Path("/run/orchestratord/control.sock")
    return Path(environ.get("HOME") or Path.home()) / ".local/state/orchestratord/control.sock"
