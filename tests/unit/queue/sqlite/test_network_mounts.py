from __future__ import annotations

from pathlib import Path

import pytest

from orchestratord.errors import QueueError
from orchestratord.queue.sqlite import sqlite_database
from orchestratord.queue.sqlite.network_mounts import MOUNTS, network_type
from orchestratord.queue.store import open_database

TEXT = r"""
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:42 / /srv rw,relatime shared:9 - nfs4 10.0.0.7:/export rw,vers=4.2
31 30 254:17 / /srv/local rw - xfs /dev/vdb1 rw
32 22 0:50 / /mnt/with\040space rw - fuse.sshfs admin@host:/ rw
33 22 0:51 /a /var/lib rw master:3 propagate_from:2 - cifs //nas/share rw
34 22 254:1 /b /var/lib rw - ext4 /dev/vda1 rw
35 22 0:52 / /c rw - 9p C: rw
36 22 cut off
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/", None),
        ("/srv", "nfs4"),
        ("/srv/queue", "nfs4"),
        ("/srv/local/queue", None),
        ("/srvother", None),
        ("/mnt/with space/queue", "fuse.sshfs"),
        ("/var/lib/orchestratord", None),
        ("/c/Users", "9p"),
    ],
)
def test_the_mount_that_holds_a_folder(folder: str, kind: str | None, tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(TEXT)
    assert network_type(Path(folder), mounts) == kind


def test_this_machine_says_what_is_mounted(tmp_path: Path) -> None:
    assert MOUNTS.read_text()
    assert network_type(tmp_path, MOUNTS) is None
    assert network_type(tmp_path, tmp_path / "missing") is None


def test_workers_do_not_share_a_file_on_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"30 22 0:42 / {tmp_path} rw - nfs nas:/x rw\n")
    monkeypatch.setattr(sqlite_database, "MOUNTS", mounts)
    database = open_database(f"sqlite:///{tmp_path}/queue/orchestratord.db")
    with pytest.raises(
        QueueError, match=r"on a network file system \(nfs\).* postgresql://…, or set `workers: 1`"
    ):
        database.take_for_workers()
    assert not (tmp_path / "queue").exists()
    database.open()  # one daemon alone may use it as before
    database.close()
