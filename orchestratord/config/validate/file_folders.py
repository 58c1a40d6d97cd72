"""Whether the folders of `files` hold nothing that is not to be sent, or written over."""

from __future__ import annotations

import os
from collections.abc import Mapping

from orchestratord.config.validate.problems import KeyProblems
from orchestratord.model.settings import FilesSettings

STATE = "the daemon's state"
_OF_SYSTEM = ("/proc", "/sys", "/dev")


def check_folders(files: FilesSettings, keys: KeyProblems, kept: Mapping[str, str]) -> None:
    """Report the folders that cannot be used, and warn of those that are not there.

    Args:
        files: the folders.
        keys: reports what is wrong, at its place.
        kept: what is in each folder that nothing may be sent from.
    """
    for key, folders in (("read", files.read), ("write", files.write)):
        for index, folder in enumerate(folders):
            where = ("files", key, index)
            keys.no_template("write the path of a folder", *where)
            if not os.path.isabs(folder):
                keys.error("expected an absolute path, such as /srv/exports", *where)
            elif what := _holds(os.path.realpath(folder), kept):
                keys.error(f"holds {what}: name a folder of its own", *where)
            elif not os.path.isdir(folder):
                keys.warn("there is no such folder here", *where)


def _holds(folder: str, kept: Mapping[str, str]) -> str | None:
    for place, what in kept.items():
        real = os.path.realpath(place)
        # Below the state there may be others; what is below the configuration belongs to it.
        if _within(real, folder) or (what != STATE and _within(folder, real)):
            return what
    if any(_within(folder, place) for place in _OF_SYSTEM):
        return "files of the system"
    return None


def _within(path: str, folder: str) -> bool:
    return os.path.commonpath((path, folder)) == folder
