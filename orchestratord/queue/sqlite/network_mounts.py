"""Whether a folder is on a network file system, by what the kernel says is mounted.

There the locks by which processes share a file may hold on one machine only, or not at all, and the
memory that SQLite maps to find its way in the journal is not the same for all.
"""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")

PLAIN = (
    "9p afs beegfs ceph cifs davfs gpfs glusterfs lustre ncpfs nfs nfs4 orangefs smb3 smbfs wekafs"
)
FUSE = "ceph davfs gcsfuse glusterfs juicefs mfs moosefs rclone s3fs sshfs"
NETWORK = {*PLAIN.split(), *(f"fuse.{name}" for name in FUSE.split())}
"""Types of file systems that other machines keep."""

_ESCAPED = re.compile(r"\\([0-7]{3})")


def network_type(folder: Path, mounts: Path) -> str | None:
    """The type of the network file system that holds a folder; None where none does, or the kernel
    does not say it.

    Args:
        folder: absolute, without symbolic links.
        mounts: `MOUNTS`, or a file that reads like it.
    """
    try:
        text = mounts.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    kind, deepest = "", -1
    for line in text.splitlines():
        # 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = Path(_ESCAPED.sub(lambda found: chr(int(found[1], 8)), fields[4]))
        # Of two on the same folder, the later one covers the other.
        if folder.is_relative_to(point) and len(point.parts) >= deepest:
            kind, deepest = after.split()[0], len(point.parts)
    return kind if kind in NETWORK else None
