"""The database and the disk that it is on."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from orchestratord.cli.doctor.case import Case
from orchestratord.cli.doctor.finding import Finding, Findings, fail, ok, warn
from orchestratord.cli.doctor.server import check_server
from orchestratord.queue.admin.inspect import faults, holder, too_new
from orchestratord.queue.schema import NEVER
from orchestratord.queue.sqlite.sqlite_database import CROWDED

LOOK = 5.0
"""Seconds for a look into the file; a large one is not seen whole in that time."""

_FILLING = 0.85
"""The share of the disk in use from which it is time to make room."""

_SQLITE = "sqlite:///"
_NETWORK = frozenset(
    ("9p", "afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.rclone",
     "fuse.s3fs", "fuse.sshfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3",
     "smbfs")
)  # fmt: skip


def check_database(case: Case) -> Findings:
    """Is it there, whole, usable, and whose is it?"""
    if not case.database.startswith(_SQLITE):
        told = (case.status or {}).get("database") if case.daemon_is_ours else None
        yield from check_server(case.database, (told or {}).get("holding_back") or ())
        return
    path = Path(os.path.realpath(case.database.removeprefix(_SQLITE)))
    folder = nearest_folder(path)
    if not path.exists():
        yield ok(f"{path} is not there yet; the first start makes it")
    else:
        yield from _whole(path)
        if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
            yield warn(
                f"every user may open {path}, which holds parameters and answers",
                f"chmod o= {path}",
            )
    pid = holder(path)
    if pid is not None:
        yield _held(pid, case)
    if not os.access(folder, os.W_OK | os.X_OK):
        yield warn(
            f"this user cannot write in {folder}",
            "run this as the daemon's user to know whether the daemon can",
        )
    kind = filesystem_of(folder)
    if kind in _NETWORK:
        yield warn(
            f"{folder} is on a network's file system ({kind}): locks and journals are not safe",
            "put the database on a local disk",
        )


def _held(pid: int, case: Case) -> Finding:
    if case.status is None:
        return warn(
            f"the daemon with pid {pid} holds it, and does not answer at {case.socket}",
            "it is starting, hangs, or listens at another socket; its log says which",
        )
    return ok(f"the daemon with pid {pid} holds it")


def _whole(path: Path) -> Findings:
    if not os.access(path, os.R_OK):
        yield warn(f"this user cannot read {path}", "run this as the daemon's user or as root")
        return
    newer = too_new(path)
    if newer == NEVER:
        yield fail(f"the queue of {path} was moved away", "set `database` to where it is now")
        return
    if newer is not None:
        yield fail(
            f"{path} was written by a newer version, which knows schema {newer}",
            "install that version, or restore a backup from before the upgrade",
        )
        return
    size = _size(path)
    found = faults(path, LOOK)
    if found is None:
        yield ok(f"{path}, {size}; no fault was found in {LOOK:g} s, which is not all of it")
    elif found:
        yield fail(
            f"{path} is damaged: {'; '.join(found)}",
            "stop the daemon, keep a copy, and restore a backup or use sqlite3's .recover",
        )
    else:
        yield ok(f"{path}, {size}, is whole")


def _size(path: Path) -> str:
    """How large the database is, with what has not come into the file itself yet."""
    size = path.stat().st_size
    with suppress(FileNotFoundError):
        size += path.with_name(f"{path.name}-wal").stat().st_size
    return f"{size / (1 << 20):,.1f} MiB" if size >= 1 << 20 else f"{size / (1 << 10):,.1f} KiB"


def check_disk(case: Case) -> Findings:
    """Is there room for the database?"""
    if not case.database.startswith(_SQLITE):
        return
    folder = nearest_folder(Path(os.path.realpath(case.database.removeprefix(_SQLITE))))
    disk = os.statvfs(folder)
    used = disk.f_blocks - disk.f_bfree
    yield _room(folder, used, disk.f_bavail, f"{disk.f_bavail * disk.f_frsize / 1e9:,.1f} GB")
    if disk.f_files:
        rest = disk.f_favail
        finding = _room(folder, disk.f_files - disk.f_ffree, rest, f"{rest} inodes")
        if finding.status != "ok":
            yield finding


def _room(folder: Path, used: int, free: int, words: str) -> Finding:
    share = used / (used + free) if used + free else 0.0
    what = f"{words} free at {folder}, {share:.0%} in use"
    if share > CROWDED:
        return fail(f"{what}: no new calls are taken", "make room; deleting tasks does not help")
    if share > _FILLING:
        return warn(f"{what}; over {CROWDED:.0%} no new calls are taken", "make room soon")
    return ok(what)


def nearest_folder(path: Path) -> Path:
    """The folder of a file, or the one above it in which that would be made."""
    return next(parent for parent in path.absolute().parents if parent.is_dir())


def filesystem_of(folder: Path) -> str:
    """The type of the file system that a folder is on, as the kernel calls it; empty if unknown."""
    kind, longest = "", -1
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return kind
    for line in lines.splitlines():
        # 36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/root rw
        mount, _, source = line.partition(" - ")
        point = mount.split(" ")[4].encode().decode("unicode_escape")
        inside = Path(point) == folder or Path(point) in folder.parents
        if inside and len(point) >= longest:
            kind, longest = source.split(" ")[0], len(point)
    return kind
