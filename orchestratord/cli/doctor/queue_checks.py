"""The queue's database: a file of SQLite and the disk that it is on, or a PostgreSQL."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from orchestratord.cli.doctor.installation import Finding, Findings, Installation, fail, ok, warn
from orchestratord.cli.options import counted
from orchestratord.errors import QueueError
from orchestratord.queue.admin.inspect import Seen, faults, look, pages, too_new
from orchestratord.queue.daemon_health import Code
from orchestratord.queue.records import DaemonSeen
from orchestratord.queue.schema import NEVER
from orchestratord.queue.sqlite.file_locks import holder
from orchestratord.queue.sqlite.network_mounts import MOUNTS, network_type
from orchestratord.queue.sqlite.sqlite_database import CROWDED, SPARE, held_back

LOOK_TIME = 5.0
"""Seconds for a look into the file; a large one is not seen whole in that time."""

_FILLING = 0.85
"""The share of the disk in use from which it is time to make room."""

_LEFT = 16 << 20
"""Bytes that may be free in a file that does not give them back."""

_SQLITE = "sqlite:///"


def check_database(installed: Installation) -> Findings:
    """Is it there, whole, usable, and whose is it?"""
    if not installed.database.startswith(_SQLITE):
        told = (installed.status or {}).get("database") if installed.daemon_is_ours else None
        yield from check_server(installed.database, (told or {}).get("holding_back") or ())
        return
    path = Path(os.path.realpath(installed.database.removeprefix(_SQLITE)))
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
        yield _held(pid, installed)
    if not os.access(folder, os.W_OK | os.X_OK):
        yield warn(
            f"this user cannot write in {folder}",
            "run this as the daemon's user to check its rights",
        )
    kind = network_type(folder, MOUNTS)
    if kind is not None:
        yield warn(
            f"{folder} is on a network's file system ({kind}): locks and journals are not safe",
            "put the database on a local disk",
        )


def _held(pid: int, installed: Installation) -> Finding:
    if installed.status is None:
        return warn(
            f"the daemon with pid {pid} holds it, and does not answer at {installed.socket}",
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
    damage = faults(path, LOOK_TIME) and faults(path, LOOK_TIME)  # a disk may fail once
    if damage is None:
        yield ok(f"{path}, {size}; no fault was found in {LOOK_TIME:g} s, which is not all of it")
    elif damage:
        yield fail(
            f"{path} is damaged: {'; '.join(damage)}",
            "stop the daemon, keep a copy, and restore a backup or use sqlite3's .recover",
            trouble=Code.DAMAGED,
        )
    else:
        yield ok(f"{path}, {size}, is whole")
    used, free, shrinks = pages(path)
    if not shrinks and free > max(used // SPARE, _LEFT):
        yield warn(
            f"{_bytes(free)} of {path} are free: new tasks use them, and the disk does not get "
            f"them back, since an older version made the file",
            f"stop the daemon; as its user, `sqlite3 {path} 'PRAGMA auto_vacuum = INCREMENTAL; "
            f"VACUUM'`: it needs {_bytes(used * 51 // 50)} in {path.parent}, and in /var/tmp",
        )
    for held in held_back(path):
        what, _, remedy = held.words.partition(": ")
        yield warn(what, remedy)


def _size(path: Path) -> str:
    """How large the database is, with what has not come into the file itself yet."""
    size = path.stat().st_size
    with suppress(FileNotFoundError):
        size += path.with_name(f"{path.name}-wal").stat().st_size
    return _bytes(size)


def _bytes(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB" if size >= 1 << 20 else f"{size / (1 << 10):,.1f} KiB"


def check_server(url: str, known: Iterable[str] = ()) -> Findings:
    """Can it be reached and used, who works on it, and what keeps it from cleaning up?

    `known`: what a daemon has seen of the last, which has looked for longer.
    """
    try:
        seen = look(url)
    except QueueError as error:
        yield fail(str(error), "correct `database` in orchestratord.yaml, or the server")
        return
    where = f"{seen.shown}, PostgreSQL {seen.server}"
    if seen.read_only:
        yield fail(f"{where}, can only be read", "name the primary; a standby takes no tasks")
    if seen.schema is None:
        yield ok(f"{where}, has no queue yet; the first start makes it")
    elif seen.too_new == NEVER:
        yield fail(f"the queue of {where} was moved away", "set `database` to where it is now")
        return
    elif seen.too_new is not None:
        yield fail(
            f"{where}, was written by a newer version, which knows schema {seen.too_new}",
            "install that version",
        )
        return
    elif seen.half is not None:
        yield fail(
            f"only a part of the queue in {seen.half} is in {where}",
            f"bring the rest with `orchestratord move-queue {seen.half} TO`",
        )
    else:
        yield ok(f"{where}, has a queue of schema {seen.schema}, {seen.size / (1 << 20):,.1f} MiB")
    if not seen.rights:
        yield fail(
            f"its user may not {'make' if seen.schema is None else 'write to'} the queue's tables",
            "let it own them, or the schema that they are in",
        )
    yield from _daemons(seen)
    now = seen.problems
    rest = [words for words in known if not any(found.is_subject_of(words) for found in now)]
    for words in (*rest, *(found.words for found in now)):
        what, _, remedy = words.partition(": ")
        yield warn(what, remedy)


def _daemons(seen: Seen) -> Findings:
    found = DaemonSeen.of_each_daemon(seen.daemons)
    alive = [daemon for daemon in found if daemon.lease_until >= seen.now_ms]
    if alive:
        names = ", ".join(map(_name, alive))
        yield ok(f"{counted(len(alive), 'daemon')} at work on it: {names}")
    for daemon in found:
        if daemon not in alive:
            silent = (seen.now_ms - daemon.beat_at) / 1000
            yield warn(
                f"{_name(daemon)} has given no sign of life for {silent:,.0f} s",
                "others have taken over its tasks; start it again, or leave it",
            )


def _name(daemon: DaemonSeen) -> str:
    return f"{daemon.host} (pid {daemon.pid}, {daemon.version})"


def check_disk(installed: Installation) -> Findings:
    """Is there room for the database?"""
    if not installed.database.startswith(_SQLITE):
        return
    path = Path(os.path.realpath(installed.database.removeprefix(_SQLITE)))
    folder = nearest_folder(path)
    disk, (_, within, _) = os.statvfs(folder), pages(path)
    used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize - within
    free = disk.f_bavail * disk.f_frsize + within
    yield _room(folder, used, free, f"{free / 1e9:,.1f} GB")
    if disk.f_files:
        rest = disk.f_favail
        finding = _room(folder, disk.f_files - disk.f_ffree, rest, f"{rest} inodes")
        if finding.status != "ok":
            yield finding


def _room(folder: Path, used: int, free: int, words: str) -> Finding:
    share = used / (used + free) if used + free else 0.0
    what = f"{words} free at {folder}, {share:.0%} in use"
    if share > CROWDED:
        remedy = "make room, or shorten `retention`"
        return fail(f"{what}: no new calls are taken", remedy, trouble=Code.FULL)
    if share > _FILLING:
        words = f"{what}; over {CROWDED:.0%} no new calls are taken"
        return warn(words, "make room soon", trouble=Code.FULL)
    return ok(what)


def nearest_folder(path: Path) -> Path:
    """The folder of a file, or the one above it in which that would be made."""
    return next(parent for parent in path.absolute().parents if parent.is_dir())
