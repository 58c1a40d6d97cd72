"""Writing a secret back to the file that it came from, so that it is there whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress


def keep(path: str, secret: str) -> None:
    """Replace what a file holds; who may read it stays as it is, and a link to it stays one.

    Raises OSError.
    """
    path = os.path.realpath(path)
    seen = os.stat(path)
    folder = os.path.dirname(path)
    handle, new = tempfile.mkstemp(prefix=".", dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(f"{secret}\n")
            file.flush()
            with suppress(PermissionError):
                os.fchown(handle, seen.st_uid, seen.st_gid)
            os.fchmod(handle, stat.S_IMODE(seen.st_mode))
            os.fsync(handle)
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
