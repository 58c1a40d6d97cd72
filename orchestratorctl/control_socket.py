"""Where the daemon's control socket is, and what to do where it cannot be reached."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping

from orchestratorctl.failures import NoDaemon

VARIABLE = "ORCHESTRATORD_SOCKET"
SYSTEM_SOCKET = "/run/orchestratord/control.sock"

_NAME_ANOTHER = f"Another socket is named with --socket PATH or ${VARIABLE}."
_START = "Start the daemon with `systemctl start orchestratord` or `orchestratord run`."


def find(option: str | None, environment: Mapping[str, str]) -> str:
    """The path of the control socket.

    Args:
        option: what `--socket` gave.
        environment: the environment's variables.

    Raises:
        NoDaemon: none was named, and none stands in the usual places.
    """
    named = option or environment.get(VARIABLE)
    if named:
        return named
    places = [SYSTEM_SOCKET]
    if environment.get("XDG_RUNTIME_DIR"):
        places.append(os.path.join(environment["XDG_RUNTIME_DIR"], "orchestratord/control.sock"))
    closed: list[str] = []
    for place in places:
        try:
            os.stat(place)
        except PermissionError:
            closed.append(place)
        except OSError:
            continue
        else:
            return place
    if closed:
        return closed[0]  # connecting to it tells whose permission is missing
    looked = " and ".join(places)
    raise NoDaemon(f"no daemon: there is no socket at {looked}", [_START, _NAME_ANOTHER])


def unreachable(path: str, error: OSError) -> NoDaemon:
    """Why connecting to `path` failed, in words that say what to do."""
    if isinstance(error, PermissionError):
        return _denied(path)
    if error.errno == errno.ECONNREFUSED:
        if _is_socket(path):
            why = "nobody listens there, it has stopped or is about to start"
        else:
            why = "that is no socket"
    elif error.errno in (errno.ENOENT, errno.ENOTDIR):
        why = "there is no such socket"
    else:
        # Python reports a path that is too long for a socket without an errno.
        why = (error.strerror or str(error)).lower()
    return NoDaemon(f"no daemon at {path}: {why}", [_START, _NAME_ANOTHER])


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _denied(path: str) -> NoDaemon:
    message = f"permission denied at {path}"
    group = _group_in_charge(path)
    if group is None:
        return NoDaemon(message, ["Run the command as the daemon's user or as root."])
    return NoDaemon(
        message,
        [
            f"The group '{group}' may use it. Join with `sudo usermod -aG {group} $USER` and log "
            "in again, or run the command as root.",
        ],
    )


def _group_in_charge(path: str) -> str | None:
    """The group of the socket, or of the nearest folder above it that can be looked at.

    None for the group of root, which nobody should be told to join.
    """
    import grp

    path = os.path.abspath(path)
    while True:
        try:
            group = os.stat(path).st_gid
            if group == 0:
                return None
            return grp.getgrgid(group).gr_name
        except KeyError:
            return str(group)
        except PermissionError:
            path = os.path.dirname(path)
        except OSError:
            return None
