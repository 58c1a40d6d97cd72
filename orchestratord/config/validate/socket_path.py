"""Where the control socket is: as set, else where this user's services keep such things."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from orchestratord.config.folder import home_folder

LONGEST_PATH = 107
"""Bytes that the kernel takes as the path of a socket."""


def socket_path(named: str | None, folder: Path, environ: Mapping[str, str]) -> Path:
    """The path of the control socket. `orchestratorctl` looks in all of these places.

    Args:
        named: `control_socket`; a relative one is below the config folder.
        folder: the config folder.
        environ: the daemon's environment.
    """
    if named is not None:
        return folder.resolve() / named
    runtime = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if runtime:
        return Path(runtime) / "control.sock"
    session = environ.get("XDG_RUNTIME_DIR")
    if session:
        return Path(session) / "orchestratord" / "control.sock"
    if os.geteuid() == 0:
        return Path("/run/orchestratord/control.sock")
    return home_folder(environ) / ".local/state/orchestratord/control.sock"


def length_problem(path: Path) -> str | None:
    """What is wrong with the length of a path for a socket; None where nothing is."""
    length = len(os.fsencode(path))
    if length <= LONGEST_PATH:
        return None
    return (
        f"the path {path} has {length} bytes, and that of a socket at most {LONGEST_PATH}: set "
        "control_socket to a shorter one"
    )
