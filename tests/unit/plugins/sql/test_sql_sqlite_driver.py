"""Statements on real files of SQLite: what they answer, how they fail, what they leave behind."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from orchestratord_sql.sqlite_driver import BUSY
from sql_parts import Bench, rows, script

from orchestratord import Outcome

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
WRITES_ENDLESSLY = (
    "INSERT INTO items WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n) "
    "SELECT i, i FROM n"
)
INJECTION = "x'); DROP TABLE items; --"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "warehouse.db"
    script(
        path,
        """
        CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT UNIQUE);
        CREATE TABLE sold (item INTEGER REFERENCES items DEFERRABLE INITIALLY DEFERRED);
        INSERT INTO items VALUES (1, 'umbrella'), (2, 'boots');
        """,
    )
    return path


@pytest.fixture
async def bench(path: Path) -> AsyncIterator[Bench]:
    bench = Bench(path.parent, "sqlite:///warehouse.db")
    yield bench
    await bench.executor.close()


def answer(outcome: Outcome) -> Any:
    assert outcome.status_code == "ok", outcome.error
    assert outcome.verdict == "success"
    assert outcome.response is not None
    return outcome.response.json()


def failure(outcome: Outcome) -> tuple[str, bool, str]:
    assert outcome.status_code == "error"
    assert outcome.error is not None
    return outcome.verdict, outcome.maybe_done, outcome.error


async def test_rows(bench: Bench) -> None:
    found = await bench.run("SELECT id, name, id FROM items WHERE id > :least", {"least": 1})
    assert answer(found) == {
        "rows_affected": None,
        "columns": ["id", "name", "id_2"],
        "rows": [{"id": 2, "name": "boots", "id_2": 2}],
        "truncated": False,
    }


async def test_each_column_has_a_name_of_its_own(bench: Bench) -> None:
    found = answer(await bench.run("SELECT 1 AS a, 2 AS a, 3 AS a_2, 4 AS a FROM items LIMIT 1"))
    assert found["columns"] == ["a", "a_2", "a_2_2", "a_3"]
    assert found["rows"] == [{"a": 1, "a_2": 2, "a_2_2": 3, "a_3": 4}]


async def test_rows_affected(bench: Bench, path: Path) -> None:
    written = await bench.run("UPDATE items SET name = name || :more", {"more": "!"})
    assert answer(written) == {"rows_affected": 2, "columns": [], "rows": [], "truncated": False}
    returned = await bench.run("DELETE FROM items RETURNING name")
    assert answer(returned)["rows_affected"] == 2
    assert [row["name"] for row in answer(returned)["rows"]] == ["umbrella!", "boots!"]
    assert rows(path, "SELECT * FROM items") == []


async def test_an_injection_is_only_data(bench: Bench, path: Path) -> None:
    insert = "INSERT INTO items (id, name) VALUES (:id, :name)"
    assert answer(await bench.run(insert, {"id": 3, "name": INJECTION}))["rows_affected"] == 1
    assert rows(path, "SELECT name FROM items WHERE id = 3") == [(INJECTION,)]
    found = await bench.run("SELECT id FROM items WHERE name = :name", {"name": "' OR 1=1 --"})
    assert answer(found)["rows"] == []


async def test_values_as_json(bench: Bench) -> None:
    found = await bench.run(
        "SELECT :text AS text, :number AS number, :none AS none, :list AS list, x'00ff' AS bytes, "
        "9e999 AS endless, :true AS yes",
        {"text": "ü\n", "number": 1.5, "none": None, "list": [1, {"a": "ü"}], "true": True},
    )
    assert answer(found)["rows"] == [
        {"text": "ü\n", "number": 1.5, "none": None, "list": '[1, {"a": "ü"}]', "bytes": "AP8=",
         "endless": "Infinity", "yes": 1}
    ]  # fmt: skip


async def test_the_first_rows_are_kept(bench: Bench) -> None:
    many = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :most) "
        "SELECT i, printf('%0100d', i) AS text FROM n"
    )
    outcome = await bench.run(many, {"most": 50_000}, api={"max_response": 10 << 20})
    found = answer(outcome)
    assert (len(found["rows"]), found["rows"][-1]["i"]) == (10_000, 10_000)
    assert found["truncated"] is True
    assert outcome.response is not None
    assert outcome.response.extensions["truncated"] is True
    small = await bench.run(many, {"most": 5000}, api={"max_response": 1000})
    assert 0 < len(answer(small)["rows"]) < 10
    assert answer(small)["truncated"] is True


async def test_an_answer_that_is_stored_is_shorter_and_still_json(bench: Bench) -> None:
    import json

    from orchestratord.engine.stored_answer import STORED_BODY, response_record
    from orchestratord.values.redact import Redactor

    outcome = await bench.run("SELECT printf('%025000d', 1) AS a, 1 AS b UNION ALL SELECT 'x', 2")
    assert outcome.response is not None
    record = json.loads(response_record(outcome.response, Redactor(), outcome.status_code))
    assert (record["status_code"], record["truncated"]) == ("ok", True)
    assert len(record["body"]) < STORED_BODY
    assert json.loads(record["body"])["rows"] == []


@pytest.mark.parametrize(
    ("statement", "params", "words"),
    [
        ("INSERT INTO items VALUES (1, 'x')", {}, "UNIQUE constraint failed: items.id"),
        ("INSERT INTO sold VALUES (7)", {}, "FOREIGN KEY constraint failed"),
        ("SELEC 1", {}, 'near "SELEC": syntax error'),
        ("SELECT * FROM gone", {}, "no such table: gone"),
        ("SELECT :n + 1", {"n": 1 << 70}, "a parameter cannot be bound"),
        ("SELECT :n", {"n": "\ud800"}, "a parameter cannot be bound"),
    ],
)
async def test_what_no_repeat_would_mend(
    bench: Bench, path: Path, statement: str, params: dict[str, Any], words: str
) -> None:
    verdict, maybe_done, error = failure(await bench.run(statement, params))
    assert (verdict, maybe_done) == ("failure", False)
    assert words in error
    # The connection is as good as before.
    assert answer(await bench.run("SELECT count(*) AS n FROM items"))["rows"] == [{"n": 2}]
    assert rows(path, "SELECT * FROM sold") == []


async def test_a_locked_database_is_tried_again(
    bench: Bench, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestratord_sql import sqlite_driver

    monkeypatch.setattr(sqlite_driver, "BUSY", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        outcome = await bench.run("DELETE FROM items")
        assert failure(outcome) == ("retry", False, "database is locked")
        # Who only reads in WAL waits for nobody; with a rollback journal, neither until it writes.
        assert answer(await bench.run("SELECT count(*) AS n FROM items"))["rows"] == [{"n": 2}]
    assert answer(await bench.run("DELETE FROM items"))["rows_affected"] == 2


async def test_a_commit_that_others_hold_up(bench: Bench, path: Path) -> None:
    """It is known to be rolled back, so that it can be tried again whatever it is."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM items").fetchone()
        began = time.monotonic()
        outcome = await bench.run("DELETE FROM items", timeout=0.4, idempotent=False)
        assert time.monotonic() - began < BUSY
    assert failure(outcome) == ("retry", False, "database is locked")
    assert rows(path, "SELECT count(*) FROM items") == [(2,)]


async def test_when_has_no_error(bench: Bench, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestratord_sql import sqlite_driver

    from orchestratord import RetryPolicy

    monkeypatch.setattr(sqlite_driver, "BUSY", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        retry = RetryPolicy.model_validate({"when": 503})
        outcome = await bench.run("DELETE FROM items", retry=retry)
    assert failure(outcome)[0] == "failure"


@pytest.mark.parametrize("statement", [ENDLESS, WRITES_ENDLESSLY])
async def test_a_deadline(bench: Bench, path: Path, statement: str) -> None:
    began = time.monotonic()
    outcome = await bench.run(statement, timeout=0.3)
    assert 0.3 <= time.monotonic() - began < 20
    verdict, maybe_done, error = failure(outcome)
    assert (verdict, maybe_done) == ("retry", False)
    assert error.startswith("did not end within 0.3s, and was")
    # Nothing of it is there, and its locks are gone.
    assert answer(await bench.run("DELETE FROM items"))["rows_affected"] == 2
    assert bench.pool().connections == 1


async def test_a_want_of_descriptors_is_no_fault_of_the_database(bench: Bench) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        outcome = await bench.run("SELECT 1 FROM items")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert failure(outcome)[0] == "retry"
    assert outcome.shortage
    assert (outcome.error or "").endswith("(no file descriptor is left)")
    assert not (await bench.run("SELECT 1 FROM items")).shortage


async def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "sqlite:///nothing.db")
    outcome = await bench.run("SELECT 1")
    verdict, _, error = failure(outcome)
    assert (verdict, error) == ("retry", f"there is no database {tmp_path}/nothing.db")
    assert outcome.unreached  # it says nothing of the statement
    assert not (tmp_path / "nothing.db").exists()
    (tmp_path / "nothing.db").write_text("this is no database, but a long enough text" * 99)
    assert failure(await bench.run("SELECT 1 FROM items"))[::2] == (
        "failure",
        "file is not a database",
    )
    await bench.executor.close()


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
async def test_a_file_that_was_replaced_is_opened_anew(bench: Bench, path: Path, mode: str) -> None:
    script(path, f"PRAGMA journal_mode = {mode}")
    assert answer(await bench.run("SELECT id FROM items"))["rows"] == [{"id": 1}, {"id": 2}]
    new = path.with_name("new.db")
    script(
        new, "CREATE TABLE items (id INTEGER PRIMARY KEY, name); INSERT INTO items VALUES (9, 9)"
    )
    new.rename(path)
    assert answer(await bench.run("INSERT INTO items VALUES (10, 10)"))["rows_affected"] == 1
    assert answer(await bench.run("SELECT id FROM items"))["rows"] == [{"id": 9}, {"id": 10}]
    assert rows(path, "SELECT id FROM items") == [(9,), (10,)]
    path.unlink()
    assert failure(await bench.run("DELETE FROM items"))[0] == "retry"


async def test_what_is_taken_for_reading_cannot_write(bench: Bench) -> None:
    """Should the scanner ever be wrong, SQLite itself refuses."""
    from dataclasses import replace

    from orchestratord_sql.placeholders import scan
    from orchestratord_sql.statement_run import QueryResult, StatementFailed, StatementRun

    lie = replace(scan("DELETE FROM items", "sqlite"), reads=True)
    await bench.run("SELECT 1")
    with pytest.raises(StatementFailed, match="readonly"):
        await bench.pool().execute(StatementRun(lie, {}, 5.0, QueryResult(1000)))
    assert answer(await bench.run("DELETE FROM items"))["rows_affected"] == 2


async def test_as_many_at_once_as_there_are_attempts_and_connections_are_used_again(
    bench: Bench, path: Path
) -> None:
    insert = "INSERT INTO items VALUES (:id, :id)"
    for first in (100, 200):
        outcomes = await asyncio.gather(*(bench.run(insert, {"id": first + n}) for n in range(10)))
        assert [outcome.status_code for outcome in outcomes] == ["ok"] * 10
        assert bench.pool().connections <= 10
    assert rows(path, "SELECT count(*) FROM items") == [(22,)]


async def until_it_writes(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
        while True:
            try:
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return  # it has the lock
            other.execute("ROLLBACK")
            await asyncio.sleep(0.02)


async def test_a_stopped_daemon(bench: Bench, path: Path) -> None:
    """What is under way is cancelled, rolled back, and known to be."""
    attempt = asyncio.ensure_future(bench.run(WRITES_ENDLESSLY, idempotent=False))
    await until_it_writes(path)
    attempt.cancel()
    verdict, maybe_done, error = failure(await attempt)
    assert (verdict, maybe_done) == ("retry", False)
    assert error == ("the daemon was stopped, and the statement cancelled before it was committed")
    # One that is idempotent goes back, and its attempt with it.
    attempt = asyncio.ensure_future(bench.run(WRITES_ENDLESSLY, idempotent=True))
    await until_it_writes(path)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert rows(path, "SELECT count(*) FROM items") == [(2,)]


async def test_hooks_may_change_what_is_executed(bench: Bench) -> None:
    from dataclasses import replace

    from orchestratord.testing import Answers, task

    target = bench.target("SELECT :a AS a")
    prepared = bench.executor.prepare(task(params={"a": 1}), target, 0.0)

    async def execute(**changed: Any) -> Outcome:
        statement = replace(prepared, **changed)
        return await bench.executor.execute(statement, task(), target, Answers())

    changed = await execute(text="SELECT :a + :b AS sum", params={"a": 1, "b": 2})
    assert answer(changed)["rows"] == [{"sum": 3}]
    for refused, words in (
        ({"database": "other"}, "a hook named the database 'other' in its place"),
        ({"text": "SELECT 1; SELECT 2"}, "the statement takes one statement"),
        ({"params": {}}, "the statement has :a, and the task no such parameter"),
    ):
        outcome = await execute(**refused)
        assert (outcome.verdict, outcome.final_reason) == ("failure", "rejected")
        assert words in (outcome.error or "")
