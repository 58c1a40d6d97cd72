"""The folders of `files`: can the daemon read and write them, is there room for what it saves, and
do daemons on several machines share them?"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from orchestratord.cli.doctor.installation import Finding, Findings, Installation, fail, ok, warn
from orchestratord.cli.doctor.queue_checks import nearest_folder
from orchestratord.errors import QueueError
from orchestratord.queue.admin.inspect import look
from orchestratord.queue.sqlite.network_mounts import MOUNTS, network_type
from orchestratord.queue.sqlite.sqlite_database import CROWDED
from orchestratord.values.durations import format_size

_AS_DAEMON = "run this as the daemon's user to check its rights"


def check_folders(installed: Installation) -> Findings:
    """Can each be used as the configuration says, and by each daemon?"""
    files = installed.settings.files
    for folder in dict.fromkeys((*files.read, *files.write)):
        if not os.path.isdir(folder):
            remedy = "make it or mount it, or remove it from `files` in orchestratord.yaml"
            yield fail(f"there is no folder {folder}", remedy)
        elif folder in files.read and not os.access(folder, os.R_OK | os.X_OK):
            yield warn(f"this user cannot read {folder}", _AS_DAEMON)
        elif folder in files.write and not os.access(folder, os.W_OK | os.X_OK):
            yield warn(f"this user cannot write in {folder}", _AS_DAEMON)
        elif folder in files.write:
            yield _room(folder, files.max_file, installed)
        else:
            yield ok(f"{folder} can be read")
    if files.read or files.write:
        yield from _shared(installed)


def _room(folder: str, largest: int, installed: Installation) -> Finding:
    """Whether one more file finds room, and leaves the queue enough of a disk that both share."""
    disk = os.statvfs(folder)
    used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
    free = disk.f_bavail * disk.f_frsize
    what = f"{free / 1e9:,.1f} GB free at {folder}"
    size = f"files.max_file is {format_size(largest)}"
    if free < largest:
        return warn(f"{what}, and {size}", "make room, or lower files.max_file")
    database = Path(os.path.realpath(installed.database.removeprefix("sqlite:///")))
    if installed.database.startswith("sqlite:") and (
        os.stat(nearest_folder(database)).st_dev == os.stat(folder).st_dev
    ):
        what += ", the disk of the queue"
        if used + largest > CROWDED * (used + free):
            return warn(
                f"{what}; {size}, and over {CROWDED:.0%} in use no new calls are taken",
                "save to another disk, make room, or lower files.max_file",
            )
    return ok(what)


def _shared(installed: Installation) -> Findings:
    """Whether daemons on several machines find the same files, as far as this one knows."""
    hosts: set[str] = set()
    if not installed.database.startswith("sqlite:"):
        with suppress(QueueError):  # another check says so
            seen = look(installed.database)
            hosts = {one.host for one in seen.daemons if one.lease_until >= seen.now_ms}
    files = installed.settings.files
    for folder in dict.fromkeys((*files.read, *files.write)) if len(hosts) > 1 else ():
        if network_type(Path(os.path.realpath(folder)), MOUNTS) is None:
            yield warn(
                f"daemons of {', '.join(sorted(hosts))} work on the queue, and {folder} is on a "
                "disk of this machine",
                "mount the same folder there on each of them",
            )
