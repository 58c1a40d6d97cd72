"""Writing one file of the config folder: whole or not at all, and no other file than that one."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import stat
from collections.abc import Iterable
from pathlib import Path

from orchestratord.errors import NotWritable, StorageFull
from orchestratord.values import world

_HERE, _EXCHANGE = -100, 2
"""AT_FDCWD and RENAME_EXCHANGE of renameat2(2)."""


def target(folder: Path, file: str, others: Iterable[str]) -> Path:
    """The file that is to be replaced: `file`, or what it is a symbolic link to.

    Args:
        folder: the config folder.
        file: relative to it.
        others: the other files that are read, relative to it; none of them may be the target.

    Raises:
        NotWritable: the link leads out of the folder, or to one of the others.
    """
    root = os.path.realpath(folder)
    path = os.path.realpath(f"{root}/{file}")
    if os.path.commonpath((root, path)) != root:
        raise NotWritable(f"{file} is a symbolic link that leads out of the config folder")
    for other in others:
        if other != file and os.path.realpath(f"{root}/{other}") == path:
            raise NotWritable(f"{file} and {other} are the same file")
    return Path(path)


def check_writable(path: Path) -> None:
    """Raise NotWritable, with the reason, where a file cannot be replaced."""
    for needed in (path.parent, path):
        if not os.access(needed, os.W_OK, effective_ids=True):
            raise NotWritable(f"{needed} cannot be written by the daemon")
    try:
        found = path.stat()
    except OSError as error:
        raise NotWritable(f"{path} cannot be written: {error.strerror}") from error
    user = os.geteuid()
    groups = {os.getegid(), *os.getgroups()}
    if user != 0 and (found.st_uid != user or found.st_gid not in groups):
        # The file that takes its place would be another's, who might keep its owner out.
        raise NotWritable(f"{path} belongs to another user or group than the daemon")


def replace(path: Path, content: bytes, expected: bytes) -> bool:
    """Put `content` in the place of a file, as `replace_file` does, where it holds `expected`.

    False where it holds something else.

    Raises:
        NotWritable: it cannot be written.
        StorageFull: the disk has no room.
    """
    try:
        return replace_file(path, content, expected)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"{path} cannot be written: the disk is full") from error
        raise NotWritable(f"{path} cannot be written: {error.strerror}") from error


def replace_file(
    path: Path, content: bytes, expected: bytes | None = None, *, same_owner: bool = True
) -> bool:
    """Put `content` in the place of a file, which keeps its mode and attributes.

    Args:
        path: the file itself, and no link to it.
        content: what it is to hold.
        expected: what it has to hold by then: else nothing is done, and False is returned.
        same_owner: it has to keep its owner and group; else it keeps them where that is possible.

    Raises OSError.
    """
    # A name that nothing reads, and as short as the folder's other names need not be.
    draft = path.with_name(f".{world.token_hex(8)}.tmp")
    before = path.stat()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(draft, flags, 0o600)
    try:
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            made = os.fstat(handle)
            if (made.st_uid, made.st_gid) != (before.st_uid, before.st_gid):
                with contextlib.suppress(*(() if same_owner else (PermissionError,))):
                    os.fchown(handle, before.st_uid, before.st_gid)
            _copy_attributes(path, handle)
            os.fchmod(handle, stat.S_IMODE(before.st_mode))
            os.fsync(handle)
        if expected is None:
            os.replace(draft, path)
        elif path.read_bytes() != expected or not _swap(draft, path, content, expected):
            return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True


def _swap(draft: Path, path: Path, content: bytes, expected: bytes) -> bool:
    """Have a draft of `content` and a file of `expected` change places; False where it holds
    something else, or is open for that: whatever a person saves meanwhile is at `path` then.
    """
    if not _exchange(draft, path):
        os.replace(draft, path)
    elif not _is_left_alone(draft, expected):
        # What came out is newer than what went in, and goes back; what comes out then may be newer.
        try:
            _swap(draft, path, draft.read_bytes(), content)
        except FileNotFoundError:  # that is gone by now, and a save is not to be gone with it
            with contextlib.suppress(FileExistsError):  # a newer one
                os.link(draft, path)
        return False
    return True


def _exchange(one: Path, other: Path) -> bool:
    """Have two files change places at once; False where the system cannot. Raises OSError."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    names = _HERE, os.fsencode(one), _HERE, os.fsencode(other)
    number = errno.ENOSYS if call is None else call(*names, _EXCHANGE) and ctypes.get_errno()
    if number not in (0, errno.EINVAL, errno.ENOSYS):
        raise OSError(number, os.strerror(number))
    return number == 0


def _is_left_alone(path: Path, expected: bytes) -> bool:
    """Whether a file that has lost its name holds `expected`, and no program has it open to write
    to it, as one that saves in place may."""
    with path.open("rb") as file:
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)  # else its end could end the process
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:  # any other: the file system has no leases
            if error.errno == errno.EAGAIN:
                return False
        return file.read() == expected


def _copy_attributes(path: Path, handle: int) -> None:
    """Access lists and labels, as far as the file system has them."""
    with contextlib.suppress(OSError):
        for name in os.listxattr(path):
            with contextlib.suppress(OSError):
                os.setxattr(handle, name, os.getxattr(path, name))
