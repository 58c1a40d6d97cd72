"""Where the database is: as set, else where this user's services keep such things."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from orchestratord.config.folder import home_folder
from orchestratord.model.settings import Config


def queue_url(config: Config) -> str:
    """The database of the queue, by a configuration and this process's environment: `sqlite:///…`,
    or `postgresql://…` with its password."""
    return database_url(config.daemon.database, config.folder, os.environ)


def database_url(named: str | None, folder: Path, environ: Mapping[str, str]) -> str:
    """The database as `sqlite:////absolute/path`, or as `postgresql://…`, with its password.

    Args:
        named: `database`; a relative path is below the config folder.
        folder: the config folder.
        environ: the daemon's environment.
    """
    if named is not None and not named.startswith("sqlite:"):
        return named
    if named is not None:
        path = Path(named.removeprefix("sqlite:///"))
        return f"sqlite:///{path if path.is_absolute() else folder.resolve() / path}"
    state = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if not state:
        state = str(home_folder(environ) / ".local" / "state" / "orchestratord")
    return f"sqlite:///{Path(state).resolve() / 'orchestratord.db'}"
