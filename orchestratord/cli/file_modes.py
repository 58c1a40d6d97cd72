"""Which files of the configuration other users of the machine may read or change."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path


def changed_by_others(folder: Path, plugin_folders: Iterable[str]) -> Iterator[Path]:
    """The files and folders that decide what the daemon does, and that every user can change.

    Args:
        folder: the config folder.
        plugin_folders: `plugins.dirs`, relative to it.
    """
    walked: set[str] = set()  # a folder of plugins may be the config folder, or in another one
    for top in (folder, *(folder / name for name in plugin_folders)):
        for root, folders, files in os.walk(top):
            if (real := os.path.realpath(root)) in walked:
                folders.clear()
                continue
            walked.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
            names = sorted(name for name in files if not name.startswith("."))
            for path in (Path(root), *(Path(root) / name for name in names)):
                if others_may(path, stat.S_IWOTH):
                    yield path


def others_may(path: Path, right: int) -> bool:
    """True where a user who is neither the owner nor in the group has this right, of `stat`."""
    try:
        if path.is_symlink():
            path = path.resolve()
        mode = path.stat().st_mode
        if not mode & right or (path.is_dir() and mode & stat.S_ISVTX):
            return False
        # A user who cannot pass through the folders above does not reach the file.
        return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.absolute().parents)
    except OSError:
        return False
