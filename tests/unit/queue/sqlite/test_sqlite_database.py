from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestratord.errors import DatabaseInUse, QueueError, StorageFull
from orchestratord.model.task import Key, NewTask
from orchestratord.queue.batch import Write
from orchestratord.queue.connection import Row
from orchestratord.queue.daemon_health import Code
from orchestratord.queue.operations import claim, effects
from orchestratord.queue.records import Insert, Pick
from orchestratord.queue.rows import PAGE_OF_TASKS
from orchestratord.queue.sqlite.claim_sqlite import NEXT, in_step
from orchestratord.queue.sqlite.main_file import MainFile
from orchestratord.queue.sqlite.sqlite_database import SqliteFile
from orchestratord.queue.store import Store, open_database


@pytest.mark.parametrize(
    "url", ["sqlite:///relative.db", "mysql://h/d", "/absolute.db", "sqlite://", ""]
)
def test_what_is_no_url_of_ours(url: str) -> None:
    with pytest.raises(QueueError, match="write sqlite:////absolute/path"):
        open_database(url)


async def test_files_and_their_modes(path: Path, store: Store) -> None:
    await store.write(effects.enqueue([Insert(NewTask("call", "crm/get"))]))
    names = {child.name: stat.S_IMODE(child.stat().st_mode) for child in path.parent.iterdir()}
    assert names == dict.fromkeys(
        [path.name, f"{path.name}-wal", f"{path.name}-shm", f"{path.name}.lock"], 0o640
    )
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750


async def test_after_closing_everything_is_in_one_file(path: Path) -> None:
    store = await Store.open(f"sqlite:///{path}")
    await store.write(effects.enqueue([Insert(NewTask("call", "crm/get"))]))
    await store.close()
    assert sorted(child.name for child in path.parent.iterdir()) == [path.name, f"{path.name}.lock"]


async def test_the_connections_are_as_safe_as_promised(store: Store) -> None:
    def pragmas(db: object) -> list[object]:
        names = ("journal_mode", "synchronous", "busy_timeout", "journal_size_limit", "query_only")
        return [db.all(f"PRAGMA {name}")[0][0] for name in names]  # type: ignore[attr-defined]

    full = 2
    writes = await store._writer.submit(Write(4, lambda s: pragmas(s.db)))  # type: ignore[arg-type]
    reads = await store._reader.run(pragmas)
    assert writes == ["wal", full, 5000, 64 << 20, 0]
    assert reads == ["wal", full, 5000, 64 << 20, 1]


async def test_the_reading_connection_cannot_write(store: Store) -> None:
    with pytest.raises(QueueError, match="the database can only be read: attempt to write"):
        await store._reader.run(lambda db: db.run("DELETE FROM meta"))


def test_a_transaction_that_was_undone_is_not_taken_for_committed(path: Path) -> None:
    file = SqliteFile(f"sqlite:///{path}")
    file.open()
    with closing(file), closing(file.connect(writes=True)) as db:
        db.begin()
        db._raw.execute("ROLLBACK")  # as SQLite does itself on a full disk
        with pytest.raises(sqlite3.OperationalError, match="was undone"):
            db.commit()


async def test_picks_of_a_few_tasks_each_are_looked_up_by_one_statement(store: Store) -> None:
    keys = [Key(f"a/{name}") for name in "bcd"]
    new = [Insert(NewTask("call", key.endpoint_id)) for key in keys for _ in range(4)]
    await store.write(effects.enqueue(new))
    now = store.clock.now_ms()
    picks = [Pick(key, limit, True, now) for limit, key in enumerate(keys, 1)]
    seen: list[str] = []
    all_ = store._session.db.all

    def seeing(sql: str, values: Sequence[Any] = ()) -> list[Row]:
        if "retry_schedule" in sql:  # and not what the writer asks now and then
            seen.append(sql)
        return all_(sql, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store._session.db, "all", seeing)
        claimed = await store.write(claim.claim(picks))
    assert seen == [NEXT, PAGE_OF_TASKS]
    assert Counter(task.endpoint_id for task in claimed.tasks) == {"a/b": 1, "a/c": 2, "a/d": 3}
    assert all(claimed.earliest[key] is not None for key in keys), "what is left is told of"


@pytest.mark.parametrize(
    ("first", "due", "taken"),
    [
        ((0, 0, 0), 20, (10, 9, 9)),
        ((0, 6, 0), 20, (10, 7, 9)),  # up to where the others get to
        ((0, 90, 90), 20, (10, 5, 5)),  # but half of what it may have
        ((0, 9000, 9000), 20, (10, 10, 10)),  # a page has nothing of both
        ((0, 90, 90), 10, (10, 10, 10)),  # nothing of any is left
    ],
)
def test_keys_that_have_a_backlog_are_claimed_in_step(
    first: tuple[int, ...], due: int, taken: tuple[int, ...]
) -> None:
    picks = [Pick(Key("a", f"told{n}"), 10, True, 1000) for n in range(3)]
    found = [[(1000, start + 3 * m + n) for m in range(due)] for n, start in enumerate(first)]
    chosen = in_step(picks, found)
    assert tuple(map(len, chosen)) == taken
    for ids, some in zip(chosen, found, strict=True):
        assert ids == [id_ for _, id_ in some][: len(ids)], "the first ones"


def test_keys_with_quick_partitions_are_claimed_whole() -> None:
    """What is left out of these is room for others of the partitions that were claimed."""
    picks = [Pick(Key("a", f"told{n}"), 10, True, 1000, quick=frozenset("p")) for n in range(2)]
    found = [[(1000, start + m) for m in range(20)] for start in (0, 90)]
    assert list(map(len, in_step(picks, found))) == [10, 10]


def test_a_reservation_that_does_not_fit_takes_nothing(tmp_path: Path) -> None:
    """ext4 keeps what there was of it, which would leave nothing for the journal.

    More than the disk has in all: what is free on it changes as other tests end.
    """
    file = tmp_path / "q.db"
    file.write_bytes(b"x" * 4096)
    disk = os.statvfs(tmp_path)
    main_file = MainFile(file)
    with pytest.raises(OSError, match="No space left"):
        main_file.reserve(4096 + (disk.f_blocks + 1) * disk.f_frsize)
    assert file.stat().st_size == 4096
    main_file.reserve(8192)
    assert file.stat().st_size == 8192
    main_file.close()


async def test_two_names_of_one_file_meet_at_one_lock(
    path: Path, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(path.parent)
    (path.parent / "other.db").symlink_to(path)
    for name in (tmp_path / "link" / path.name, path.parent / "other.db"):
        with pytest.raises(DatabaseInUse):
            await Store.open(f"sqlite:///{name}")


async def test_another_process_is_named(path: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from orchestratord.queue.store import Store\n"
        "async def main():\n"
        "    store = await Store.open(sys.argv[1])\n"
        "    print('open', flush=True)\n"
        "    sys.stdin.read()\n"
        "    await store.close()\n"
        "asyncio.run(main())\n"
    )
    url = f"sqlite:///{path}"
    with subprocess.Popen(
        [sys.executable, "-c", code, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(DatabaseInUse, match=f"the daemon with pid {process.pid}"):
            await Store.open(url)
        process.kill()
    # A dead one does not stand in the way.
    await (await Store.open(url)).close()


async def test_what_is_no_database(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("not a database, but long enough to be mistaken for a header of one" * 20)
    with pytest.raises(QueueError, match=r"cannot be opened: .*not a database"):
        await Store.open(f"sqlite:///{path}")
    assert path.read_text().startswith("not a database")


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(QueueError, match="cannot be opened"):
        await Store.open(f"sqlite:///{tmp_path}/file/queue.db")


OPENS = """
import asyncio, sys
from orchestratord.errors import QueueError
from orchestratord.queue.store import Store

try:
    asyncio.run(Store.open(sys.argv[1]))
except QueueError as error:
    print(error)
"""


@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_a_file_of_another_user(path: Path, mode: int) -> None:
    """As after root has restored a backup: it is not the disk that fails."""
    path.parent.mkdir(exist_ok=True)
    path.touch()
    path.chmod(mode)
    command = [sys.executable, "-c", OPENS, f"sqlite:///{path}"]
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("root may write to any file")
        rights = "-dac_override,-dac_read_search"
        command = [setpriv, "--bounding-set", rights, "--inh-caps", rights, *command]
        os.chown(path, 65534, 65534)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert f"Permission denied: '{path}'; let this user write to it and to its" in done.stdout, done


def test_failures_are_told_apart(tmp_path: Path) -> None:
    failures = SqliteFile(f"sqlite:///{tmp_path}/queue.db").failures

    def failure(code: int) -> sqlite3.Error:
        error = sqlite3.OperationalError("failed")
        error.sqlite_errorcode = code
        return error

    for code, trouble in (
        (sqlite3.SQLITE_FULL, Code.FULL), (sqlite3.SQLITE_IOERR_WRITE, Code.FAILING),
        (sqlite3.SQLITE_BUSY, Code.LOCKED), (sqlite3.SQLITE_READONLY, Code.READ_ONLY),
        (sqlite3.SQLITE_CORRUPT, Code.DAMAGED), (sqlite3.SQLITE_NOTADB, Code.DAMAGED),
        (sqlite3.SQLITE_CONSTRAINT, None),
    ):  # fmt: skip
        assert failures.trouble(failure(code)) is trouble
        named = failures.named(failure(code))
        assert isinstance(named, StorageFull) is (trouble is Code.FULL)
        assert getattr(named, "code", "") == (trouble or "")
    assert failures.trouble(OSError(28, "No space left on device")) is None
    assert failures.is_unfit(sqlite3.IntegrityError("x"))
    assert not failures.is_unfit(failure(sqlite3.SQLITE_FULL))


RUNS_FULL = """
import asyncio, os, pathlib, sqlite3, sys
from contextlib import closing
from orchestratord.errors import QueueError, StorageFull
from orchestratord.model.task import NewTask
from orchestratord.queue import writer
from orchestratord.queue.database import Workers
from orchestratord.queue.operations import effects, search
from orchestratord.queue.records import Insert, TaskFilter
from orchestratord.queue.sqlite import sqlite_database
from orchestratord.queue.store import Store

writer.IDLE = 0.02
disk = pathlib.Path(sys.argv[1])
ballast = disk / "ballast"


async def fill(store, accepted):
    while True:
        new = [Insert(NewTask("call", "crm/get", {"x": "y" * 50_000}))]
        [item] = await store.write(effects.enqueue(new))
        accepted.append(item.id)


async def accepts(store, wanted):
    async with asyncio.timeout(60):
        while store.health.accepting != wanted:
            await asyncio.sleep(0.01)


async def main(workers):
    sqlite_database.CROWDED = 0.95
    store = await Store.open(f"sqlite:///{disk}/queue{bool(workers)}.db", workers=workers)
    room = os.statvfs(disk)
    ballast.write_bytes(b"x" * (room.f_bavail * room.f_bsize - 200_000))
    await accepts(store, False)  # over 95 %
    ballast.write_bytes(b"x" * (3 << 20))
    await accepts(store, True)
    sqlite_database.CROWDED = 1.0  # only the end of the disk itself is to stop it now
    accepted = []
    try:
        await fill(store, accepted)
    except StorageFull:
        pass
    assert len(accepted) > 10
    assert store.health.fatal is None and not store.health.accepting
    ballast.unlink()
    await accepts(store, True)
    [item] = await store.write(effects.enqueue([Insert(NewTask("call", "crm/get"))]))
    tasks, _ = await store.read(search.page(TaskFilter(), 1000))
    assert [task.id for task in tasks] == [item.id, *reversed(accepted)]
    await store.close()
    for name in disk.glob("queue*.db"):
        name.unlink()


def copy_without_room():
    # The daemon of before goes on there, and needs what room there is.
    old = disk / "old.db"
    with closing(sqlite3.connect(old)) as database, database:
        database.executescript(pathlib.Path(sys.argv[2]).read_text())
        database.execute("UPDATE retry_schedule SET payload = ?", ("x" * 500_000,))
    room = os.statvfs(disk)
    ballast.write_bytes(b"x" * (room.f_bavail * room.f_bsize - 1_000_000))
    before = os.statvfs(disk).f_bavail
    try:
        asyncio.run(Store.open(f"sqlite:///{old}"))
    except QueueError as error:
        assert "old.db.before-schema-" in str(error), error
    assert not list(disk.glob("*before*")), list(disk.glob("*before*"))
    assert os.statvfs(disk).f_bavail >= before - 20  # a lock, and the index of the journal


asyncio.run(main(None))
asyncio.run(main(Workers.make(2).worker(1)))
copy_without_room()
print("done")
"""


def test_a_disk_that_runs_full(tmp_path: Path) -> None:
    """On a file system of eight megabytes, in a mount namespace that ends with the test."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = "mount -t tmpfs -o size=8m tmpfs "
    unshare = shutil.which("unshare")
    if unshare is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    alone = [unshare, "--mount", "--propagation", "private", "sh", "-c"]
    if subprocess.run([*alone, f"{mounted} '{disk}'"], capture_output=True).returncode:
        pytest.skip("this machine mounts nothing")
    done = subprocess.run(
        [
            *alone,
            f'{mounted} "$1" && exec "$0" -c "$2" "$1" "$3"',
            sys.executable,
            disk,
            RUNS_FULL,
            Path(__file__).parents[1] / "schema_v15_sqlite.sql",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
