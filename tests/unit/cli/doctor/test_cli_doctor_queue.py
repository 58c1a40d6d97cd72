"""`doctor` at databases: the queue on PostgreSQL, and those that endpoints name."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from orchestratord.cli.doctor import folder_checks
from orchestratord.cli.doctor.queue_checks import check_server
from orchestratord.cli.main import main
from orchestratord.queue.admin import move
from orchestratord.queue.operations import daemons
from orchestratord.queue.records import Beat
from orchestratord.queue.schema import VERSION
from orchestratord.queue.store import Store
from orchestratord.values.clock import Clock
from tests.postgres import Postgres


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    url = postgres.create()
    yield url
    postgres.drop(url)


def found(folder: Path, about: str) -> list[tuple[str, str]]:
    result = CliRunner().invoke(main, ["doctor", "--config", str(folder), "-o", "json"])
    findings = json.loads(result.stdout)["findings"]
    return [(one["status"], one["what"]) for one in findings if one["check"] == about]


def configured(folder: Path, url: str) -> Path:
    (folder / "orchestratord.yaml").write_text(
        f"database: {url}\ncontrol_socket: {folder}/control.sock\n"
    )
    return folder


# -- a file ----------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the program sqlite3 is missing")
def test_a_file_that_keeps_what_is_free(tmp_path: Path) -> None:
    """What it says to do helps."""
    path = tmp_path / "old.db"
    folder = configured(tmp_path, f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as old:
        old.execute("PRAGMA journal_mode = WAL")
        old.execute("CREATE TABLE t (x)")
        old.executemany("INSERT INTO t VALUES (?)", [("x" * 3000,)] * 9000)
        old.commit()
        old.execute("DELETE FROM t WHERE rowid % 10")
        old.commit()
    size = path.stat().st_size
    result = CliRunner().invoke(main, ["doctor", "--config", str(folder), "-o", "json"])
    (told,) = (one for one in json.loads(result.stdout)["findings"] if "are free" in one["what"])
    assert told["status"] == "warn"
    command = re.search("`(sqlite3 .*)`: it needs 3.6 MiB in ", told["remedy"])
    assert command is not None
    subprocess.run(command[1], shell=True, check=True)
    assert path.stat().st_size < size / 5
    with closing(sqlite3.connect(path)) as new:
        assert new.execute("PRAGMA auto_vacuum").fetchone() == (2,)
        new.execute("DELETE FROM t")
        new.commit()
    assert not [what for _, what in found(folder, "database") if "are free" in what]


def test_what_is_free_in_the_file_is_room_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "queue.db"
    folder = configured(tmp_path, f"sqlite:///{path}")
    path.touch()
    disk = os.statvfs(tmp_path)
    few = os.statvfs_result((4096, 4096, 1000, 10, 10, *tuple(disk)[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _: few)
    assert [status for status, _ in found(folder, "disk")] == ["fail"]
    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE t (x)")
        file.executemany("INSERT INTO t VALUES (?)", [("x" * 3000,)] * 500)
        file.execute("DELETE FROM t")
        file.commit()
    assert [status for status, _ in found(folder, "disk")] == ["ok"]


# -- the queue on PostgreSQL -----------------------------------------------------------------------


async def test_folders_that_daemons_of_two_machines_do_not_share(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shared := tmp_path / "shared").mkdir()
    (tmp_path / "config").mkdir()
    folder = configured(tmp_path / "config", url)
    path = folder / "orchestratord.yaml"
    path.write_text(f"{path.read_text()}files: {{read: [{shared}]}}\n")
    beat = Beat(host="alpha", pid=7, version="1.2", generation=1, age=0, fingerprint="x")
    stores = [await Store.open(url, clock=Clock(), lease=60) for _ in range(2)]
    try:
        for number, (store, host) in enumerate(zip(stores, ("beta", "alpha"), strict=True)):
            sign = replace(beat, host=host, process_group=str(number))
            assert found(folder, "folders") == [("ok", f"{shared} can be read")]
            await store.write(daemons.give_sign(sign))
        words = f"daemons of alpha, beta work on the queue, and {shared} is on a disk of this "
        assert found(folder, "folders")[1:] == [("warn", f"{words}machine")]
        mounts = tmp_path / "mountinfo"
        mounts.write_text(f"22 1 0:42 / {tmp_path} rw - nfs4 10.0.0.7:/export rw\n")
        monkeypatch.setattr(folder_checks, "MOUNTS", mounts)
        assert found(folder, "folders") == [("ok", f"{shared} can be read")]
    finally:
        for store in stores:
            await store.close()


async def test_a_queue_on_postgresql(tmp_path: Path, url: str, postgres: Postgres) -> None:
    folder = configured(tmp_path, url)
    ((status, what),) = found(folder, "database")
    assert status == "ok"
    assert "has no queue yet" in what

    store = await Store.open(url, clock=Clock(), lease=60)
    try:
        beat = Beat(host="alpha", pid=7, version="1.2", generation=1, age=0, fingerprint="x")
        await store.write(daemons.give_sign(replace(beat, process_group="g")))
        other = await Store.open(url, clock=Clock(), lease=60)
        await other.write(daemons.give_sign(replace(beat, process_group="g", worker=2)))
        await other.close()
        first, second = found(folder, "database")
    finally:
        await store.close()
    assert first[0] == "ok"
    assert "has a queue of schema" in first[1]
    assert second == ("ok", "1 daemon at work on it: alpha (pid 7, 1.2)")

    name = url.rpartition("/")[2]
    postgres.run(name, "UPDATE daemons SET lease_until = beat_at")
    (silent,) = found(folder, "database")[1:]
    assert silent[0] == "warn"
    assert silent[1].startswith("alpha (pid 7, 1.2) has given no sign of life for ")
    postgres.run(name, f"UPDATE schema SET version = {VERSION - 1}")  # it has no columns for that
    assert [status for status, _ in found(folder, "database")] == ["ok"]
    postgres.run(name, f"UPDATE schema SET version = {VERSION}")
    postgres.run(name, "INSERT INTO meta VALUES ('half moved', 'sqlite:////old.db')")
    (half, _) = found(folder, "database")
    assert half[0] == "fail"
    assert half[1].startswith("only a part of the queue in sqlite:////old.db is in ")
    postgres.run(name, "UPDATE schema SET compatible_from = 99")
    ((status, what),) = found(folder, "database")
    assert status == "fail"
    assert "a newer version, which knows schema 99" in what


async def test_a_queue_that_was_moved(tmp_path: Path, url: str) -> None:
    file = f"sqlite:///{tmp_path}/queue.db"
    await (await Store.open(file)).close()
    move.move(file, url, [])
    ((status, what),) = found(configured(tmp_path, file), "database")
    assert (status, what) == ("fail", f"the queue of {tmp_path}/queue.db was moved away")


def test_a_server_that_refuses(tmp_path: Path, url: str, postgres: Postgres) -> None:
    (one,) = found(configured(tmp_path, "postgresql://me:s3cret@127.0.0.1:1/x"), "database")
    assert one[0] == "fail"
    assert "Connection refused" in one[1]
    assert "s3cret" not in one[1]
    name = url.rpartition("/")[2]
    postgres.run(name, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    (one, _) = found(configured(tmp_path, url), "database")
    assert one == ("fail", one[1])
    assert "can only be read" in one[1]


async def test_what_keeps_it_from_cleaning_up(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestratord.queue.admin.inspect.OLD_TRANSACTION", -1)
    await (await Store.open(url)).close()
    with psycopg.connect(url, application_name="report") as person:
        person.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        person.execute("SELECT count(*) FROM retry_schedule")
        # Slots of other databases on this server may be told of beside it.
        (one,) = (
            one for one in found(configured(tmp_path, url), "database") if "(report, " in one[1]
        )
        assert one[0] == "warn"
        assert one[1].startswith(f"a transaction of tester (report, pid {person.info.backend_pid}")
        # A daemon has looked for longer than this, and knows more.
        slot = "the replication slot feed has been left 12 transactions behind: drop it"
        older = f"{one[1].split(' has been ')[0]} has been open for 9 min: end it"
        told = list(check_server(url, [slot, older]))
    (more,) = (one for one in told if one.what == slot.partition(":")[0])
    assert more.remedy == "drop it"
    (more,) = (one for one in told if "(report, " in one.what)
    assert "9 min" not in more.what
    assert "pg_terminate_backend" in more.remedy


def test_a_user_without_rights(tmp_path: Path, url: str, postgres: Postgres) -> None:
    name = url.rpartition("/")[2]
    postgres.run(name, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    postgres.run(name, f"CREATE ROLE {name}_guest LOGIN")
    try:
        guest = psycopg.conninfo.conninfo_to_dict(url)
        address = f"postgresql://{name}_guest@{guest['host']}:{guest['port']}/{name}"
        _, one = found(configured(tmp_path, address), "database")
        assert one == ("fail", "its user may not make the queue's tables")
    finally:
        postgres.run(name, f"DROP ROLE {name}_guest")


# -- the databases of endpoints --------------------------------------------------------------------


def test_databases_of_endpoints(tmp_path: Path, url: str) -> None:
    with closing(sqlite3.connect(tmp_path / "there.db")) as database:
        database.execute("CREATE TABLE a (b)")
    (tmp_path / "apis").mkdir()
    (tmp_path / "no.db").write_text("this is a text, and no database at all, as anybody can see")
    (tmp_path / "orchestratord.yaml").write_text(
        f"control_socket: {tmp_path}/control.sock\ndatabases:\n"
        "  there: {url: sqlite:///there.db}\n  gone: {url: sqlite:///gone.db}\n"
        f"  no: {{url: sqlite:///no.db}}\n  server: {{url: '{url}'}}\n"
        "  down: {url: 'postgresql://me:${NONE:-s3cret}@127.0.0.1:1/x'}\n"
    )
    there, gone, no, server, down = found(tmp_path, "needs")
    assert there == ("ok", "the database there answers")
    assert gone == ("fail", f"the database gone: there is no database {tmp_path}/gone.db")
    assert no[0] == "fail"
    assert "not a database" in no[1]
    assert server == ("ok", "the database server answers")
    assert down[0] == "fail"
    assert "Connection refused" in down[1]
    assert not (tmp_path / "gone.db").exists()
