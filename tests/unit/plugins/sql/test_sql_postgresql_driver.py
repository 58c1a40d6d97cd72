"""Statements on a real PostgreSQL: what they answer, how they fail, what they leave behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sql_parts import Bench

from orchestratord import Outcome
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

psycopg = pytest.importorskip("psycopg")

SCHEMA = """
    CREATE TABLE items (id integer PRIMARY KEY, name text UNIQUE, stock integer DEFAULT 0);
    CREATE TABLE sold (item integer REFERENCES items DEFERRABLE INITIALLY DEFERRED);
    INSERT INTO items VALUES (1, 'umbrella', 7), (2, 'boots', 3);
    CREATE SEQUENCE s;
"""
INJECTION = "x'); DROP TABLE items; --"
SLEEPS = "SELECT pg_sleep(60)"


class Database:
    """One of a test's own, and how it looks from outside."""

    def __init__(self, server: Postgres, url: str) -> None:
        self.server = server
        self.url = url
        self.name = url.rpartition("/")[2]

    def run(self, statement: str) -> list[Any]:
        return self.server.run(self.name, statement)

    def active(self) -> list[str]:
        """What the daemon's connections are at, but for those that wait for a statement."""
        found = self.run(
            "SELECT query FROM pg_stat_activity WHERE datname = current_database() "
            "AND state <> 'idle' AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return [query for (query,) in found]

    def connections(self) -> int:
        return int(
            self.run(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )[0][0]
        )


@pytest.fixture
def database(postgres: Postgres) -> Iterator[Database]:
    url = postgres.create()
    database = Database(postgres, url)
    for statement in SCHEMA.split(";"):
        if statement.strip():
            database.run(statement)
    yield database
    postgres.drop(url)


@pytest.fixture
async def bench(database: Database, tmp_path: Any) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path, database.url)
    yield bench
    await bench.executor.close()


def answer(outcome: Outcome) -> Any:
    assert outcome.status_code == "ok", outcome.error
    assert outcome.response is not None
    return outcome.response.json()


def failure(outcome: Outcome) -> tuple[str, bool, str]:
    assert outcome.status_code == "error"
    assert outcome.error is not None
    return outcome.verdict, outcome.maybe_done, outcome.error


async def eventually(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def test_rows(bench: Bench) -> None:
    found = await bench.run("SELECT id, name, id FROM items WHERE id > :least::int", {"least": "1"})
    assert answer(found) == {
        "rows_affected": None,
        "columns": ["id", "name", "id_2"],
        "rows": [{"id": 2, "name": "boots", "id_2": 2}],
        "truncated": False,
    }
    written = await bench.run("UPDATE items SET stock = stock - :n RETURNING stock", {"n": 1})
    assert answer(written)["rows_affected"] == 2
    assert answer(written)["rows"] == [{"stock": 6}, {"stock": 2}]
    called = await bench.run("SELECT nextval('s') AS n")
    assert (answer(called)["rows_affected"], answer(called)["rows"]) == (None, [{"n": 1}])
    assert answer(await bench.run("CREATE TABLE t (a int)"))["rows_affected"] is None


async def test_an_injection_is_only_data(bench: Bench, database: Database) -> None:
    insert = "INSERT INTO items (id, name) VALUES (:id, :name)"
    assert answer(await bench.run(insert, {"id": 3, "name": INJECTION}))["rows_affected"] == 1
    assert database.run("SELECT name FROM items WHERE id = 3") == [(INJECTION,)]
    found = await bench.run("SELECT id FROM items WHERE name = :name", {"name": "' OR 1=1 --"})
    assert answer(found)["rows"] == []


async def test_values_as_json(bench: Bench) -> None:
    found = await bench.run(
        """
        SELECT 1.50::numeric AS exact, 'NaN'::float8 AS nan, '-Infinity'::float4 AS endless,
          'NaN'::numeric AS no, '2026-11-25'::date AS day, 'infinity'::date AS never,
          '2026-11-25 10:00:00.5'::timestamp AS moment, '0044-03-15 BC'::date AS ides,
          '2026-11-25 10:00:00+02'::timestamptz AT TIME ZONE 'UTC' AS utc,
          '1 mon 2 days'::interval AS span, '\\x00ff'::bytea AS bytes, ARRAY[1, 2] AS list,
          '{"a": [1.5]}'::jsonb AS doc, NULL AS none, 9007199254740993::bigint AS big, true AS yes,
          'f1b2a1d0-0000-4000-8000-000000000001'::uuid AS id, '[1,5)'::int4range AS range,
          ARRAY['2026-01-02'::timestamp] AS days, :given::jsonb AS given
        """,
        {"given": {"a": ["ü"]}},
    )
    (row,) = answer(found)["rows"]
    assert row == {
        "exact": "1.50", "nan": "NaN", "endless": "-Infinity", "no": "NaN", "day": "2026-11-25",
        "never": "infinity", "moment": "2026-11-25T10:00:00.500000", "ides": "0044-03-15 BC",
        "utc": "2026-11-25T08:00:00", "span": "1 mon 2 days", "bytes": "AP8=", "list": [1, 2],
        "doc": {"a": [1.5]}, "none": None, "big": 9007199254740993, "yes": True,
        "id": "f1b2a1d0-0000-4000-8000-000000000001", "range": "[1, 5)",
        "days": ["2026-01-02T00:00:00"], "given": {"a": ["ü"]},
    }  # fmt: skip


async def test_of_a_large_answer_only_the_beginning_is_fetched(bench: Bench) -> None:
    began = time.monotonic()
    found = await bench.run("SELECT n, repeat('x', 1000) AS x FROM generate_series(1, 3000000) n")
    assert time.monotonic() - began < 30
    assert 900 < len(answer(found)["rows"]) < 1100
    assert answer(found)["truncated"] is True
    counted = await bench.run(
        "INSERT INTO sold SELECT 1 FROM generate_series(1, 20000) RETURNING item"
    )
    assert (answer(counted)["rows_affected"], len(answer(counted)["rows"])) == (20_000, 10_000)


@pytest.mark.parametrize(
    ("statement", "params", "words"),
    [
        ("INSERT INTO items VALUES (1, 'x')", {}, "23505: duplicate key value violates unique"),
        ("INSERT INTO sold VALUES (7)", {}, "23503: insert or update on table"),
        ("SELEC 1", {}, "42601: syntax error"),
        ("SELECT * FROM gone", {}, '42P01: relation "gone" does not exist'),
        ("SELECT :n::int", {"n": "x"}, "22P02: invalid input syntax for type integer"),
        ("SELECT :n", {"n": "a\0b"}, "NUL"),
        ("SELECT :n", {"n": "\ud800"}, "a parameter cannot be bound"),
        ("SELECT 1 / :n", {"n": 0}, "22012: division by zero"),
        ("VALUES (:n) ORDER BY 7", {"n": 0}, "42P10"),
    ],
)
async def test_what_no_repeat_would_mend(
    bench: Bench, database: Database, statement: str, params: dict[str, Any], words: str
) -> None:
    verdict, maybe_done, error = failure(await bench.run(statement, params))
    assert words in error
    assert (verdict, maybe_done) == ("failure", False)
    assert "\n" not in error
    # The connection is as good as before.
    assert answer(await bench.run("SELECT count(*) AS n FROM sold"))["rows"] == [{"n": 0}]
    await eventually(lambda: database.connections() == 1)


async def test_success_if_is_asked_before_the_commit(bench: Bench, database: Database) -> None:
    from orchestratord import Expression

    one = Expression("rows_affected == `1`")
    delete = "DELETE FROM items WHERE id >= :least"
    outcome = await bench.run(delete, {"least": 1}, success_if=one)
    assert failure(outcome) == (
        "failure",
        False,
        "success_if does not hold: rows_affected == `1`; rolled back",
    )
    assert answer(await bench.run(delete, {"least": 2}, success_if=one))["rows_affected"] == 1
    assert database.run("SELECT id FROM items") == [(1,)]


async def test_a_statement_ends_at_its_deadline_in_the_database_too(
    bench: Bench, database: Database
) -> None:
    began = time.monotonic()
    attempt = asyncio.ensure_future(bench.run(SLEEPS, timeout=2.0))
    await eventually(lambda: database.active() == [SLEEPS])
    verdict, maybe_done, error = failure(await attempt)
    assert 2.0 <= time.monotonic() - began < 30
    assert (verdict, maybe_done) == ("retry", False)
    assert error == "did not end within 2s, and was cancelled in the database"
    assert database.active() == []
    # Whoever was first to end it, the database or the cancel; in the latter case the connection is
    # not used again, as the cancel may still be on its way to it.
    await eventually(lambda: database.connections() == bench.pool().connections)


async def test_nobody_answers_in_time(tmp_path: Any) -> None:
    """A host that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        bench = Bench(tmp_path, f"postgresql://me@127.0.0.1:{port}/x")
        began = time.monotonic()
        outcome = await bench.run("DELETE FROM items", timeout=0.3)
        assert time.monotonic() - began < 20
    assert failure(outcome) == ("retry", False, "had no connection within 0.3s")
    assert outcome.unreached
    await bench.executor.close()


async def test_a_network_that_is_cut(bench: Bench, database: Database) -> None:
    """Nothing comes back any more, not even the answer to a cancel: it ends in time, undone."""
    target = bench.target("INSERT INTO items VALUES (3, 'x')", idempotent=False, timeout=0.3)
    stopped = [pid for (pid,) in database.run("SELECT pid FROM pg_stat_activity")]
    assert answer(await bench.run("SELECT 1 AS n"))["rows"] == [{"n": 1}]
    (backend,) = [
        pid
        for (pid,) in database.run(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        if pid not in stopped
    ]
    os.kill(backend, signal.SIGSTOP)
    try:
        began = time.monotonic()
        outcome = await bench.run_target(target, {})
        assert time.monotonic() - began < 20
        assert failure(outcome) == ("retry", False, "did not end within 0.3s")
    finally:
        os.kill(backend, signal.SIGCONT)
    await eventually(lambda: database.connections() == 0)
    assert database.run("SELECT count(*) FROM items") == [(2,)]


MEET = """
CREATE SEQUENCE came;
CREATE FUNCTION meet() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
    PERFORM nextval('came');
    WHILE (SELECT last_value < 2 FROM came) LOOP PERFORM pg_sleep(0.01); END LOOP;
    RETURN 0;
END $$
"""
"""Waits for another statement that does so: what a sequence gives is no part of a transaction."""


async def test_a_deadlock_is_told_from_a_constraint(bench: Bench, database: Database) -> None:
    """Two statements that wait for each other: one of them is told to try again."""
    database.run(MEET)
    database.run(
        "CREATE FUNCTION touch(a int, b int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN "
        "UPDATE items SET stock = stock + 1 WHERE id = a; PERFORM meet(); "
        "UPDATE items SET stock = stock + 1 WHERE id = b; END $$"
    )
    outcomes = await asyncio.gather(
        bench.run("SELECT touch(:a, :b)", {"a": 1, "b": 2}),
        bench.run("SELECT touch(:a, :b)", {"a": 2, "b": 1}),
    )
    failed = [failure(outcome) for outcome in outcomes if outcome.status_code == "error"]
    assert len(failed) == 1
    verdict, maybe_done, error = failed[0]
    assert (verdict, maybe_done) == ("retry", False)
    assert error.startswith("40P01: deadlock detected")
    assert database.run("SELECT stock FROM items ORDER BY id") == [(8,), (4,)]


async def test_a_serialization_failure_is_tried_again(bench: Bench, database: Database) -> None:
    database.run(f"ALTER DATABASE {database.name} SET default_transaction_isolation = serializable")
    database.run(MEET)
    both = "UPDATE items SET stock = (SELECT sum(stock) FROM items) + meet() WHERE id = :id"
    outcomes = await asyncio.gather(*(bench.run(both, {"id": n}) for n in (1, 2)))
    failed = [failure(outcome) for outcome in outcomes if outcome.status_code == "error"]
    assert [item[:2] for item in failed] == [("retry", False)]
    assert failed[0][2].startswith("40001: could not serialize")


async def test_a_connection_that_is_lost_before_the_commit(
    bench: Bench, database: Database
) -> None:
    insert = "INSERT INTO items SELECT 3, 'x', 0 FROM pg_sleep(30)"
    attempt = asyncio.ensure_future(bench.run(insert, idempotent=False))
    await eventually(lambda: database.active() == [insert])
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'INSERT%'"
    database.run(kill)
    verdict, maybe_done, error = failure(await attempt)
    assert (verdict, maybe_done) == ("retry", False)
    assert error.startswith("57P01: terminating connection")
    assert answer(await bench.run("SELECT count(*) AS n FROM items"))["rows"] == [{"n": 2}]


async def test_a_connection_that_is_lost_in_the_commit(bench: Bench, database: Database) -> None:
    """Nobody knows whether it was carried out, and nobody says so."""
    database.run(
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "PERFORM pg_sleep(30); RETURN NEW; END $$"
    )
    database.run(
        "CREATE CONSTRAINT TRIGGER dawdle AFTER INSERT ON items DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION dawdle()"
    )
    insert = "INSERT INTO items VALUES (3, 'x')"
    attempt = asyncio.ensure_future(bench.run(insert, idempotent=False))
    await eventually(lambda: database.active() == ["COMMIT"])
    database.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'COMMIT'")
    _, maybe_done, error = failure(await attempt)
    assert maybe_done is True
    assert error.startswith("57P01")
    # A deadline in the same place is answered by the database: it is rolled back.
    verdict, maybe_done, error = failure(await bench.run(insert, timeout=0.5, idempotent=False))
    assert (verdict, maybe_done) == ("retry", False)
    assert database.run("SELECT count(*) FROM items") == [(2,)]


async def test_a_connection_that_died_while_it_was_idle_costs_nothing(
    bench: Bench, database: Database
) -> None:
    assert answer(await bench.run("SELECT 1 AS n"))["rows"] == [{"n": 1}]
    database.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    insert = "INSERT INTO items VALUES (3, 'x')"
    assert answer(await bench.run(insert, idempotent=False))["rows_affected"] == 1


async def test_nobody_there(tmp_path: Any) -> None:
    bench = Bench(tmp_path, "postgresql://me:s3cret@127.0.0.1:1/x?connect_timeout=3")
    verdict, maybe_done, error = failure(await bench.run("DELETE FROM items"))
    assert (verdict, maybe_done) == ("retry", False)
    assert "port 1 failed: Connection refused" in error
    assert "s3cret" not in error
    await bench.executor.close()


async def test_nothing_is_left_behind_in_a_session(bench: Bench, database: Database) -> None:
    setting = "SELECT set_config('work_mem', '123kB', false)"
    assert answer(await bench.run(setting))["rows"] == [{"set_config": "123kB"}]
    assert answer(await bench.run("CREATE TEMP TABLE mine (a int)"))["rows"] == []
    assert answer(await bench.run("SELECT pg_advisory_lock(7)"))["rows"]
    shown = await bench.run("SELECT current_setting('work_mem') AS w")
    assert answer(shown)["rows"] != [{"w": "123kB"}]
    assert failure(await bench.run("SELECT * FROM mine"))[2].startswith("42P01")
    assert database.run("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]
    await eventually(lambda: database.connections() == 1)


async def test_what_is_taken_for_reading_cannot_write(bench: Bench, database: Database) -> None:
    """A function of a known name may be somebody's own."""
    database.run(
        "CREATE FUNCTION lower(integer) RETURNS integer LANGUAGE sql AS "
        "$$ UPDATE items SET stock = $1 RETURNING 1 $$"
    )
    verdict, _, error = failure(await bench.run("SELECT lower(7)"))
    assert (verdict, error[:5]) == ("failure", "25006")
    assert answer(await bench.run("SELECT lower(7), pg_sleep(0)"))["rows"]


async def test_a_stopped_daemon(bench: Bench, database: Database) -> None:
    insert = "INSERT INTO items SELECT 3, 'x', 0 FROM pg_sleep(30)"
    attempt = asyncio.ensure_future(bench.run(insert, idempotent=False))
    await eventually(lambda: database.active() == [insert])
    attempt.cancel()
    verdict, maybe_done, error = failure(await attempt)
    assert (verdict, maybe_done) == ("retry", False)
    assert error.startswith("the daemon was stopped, and the statement cancelled")
    assert database.active() == []
    await bench.executor.close()
    await eventually(lambda: database.connections() == 0)


async def test_connections_do_not_pile_up(bench: Bench, database: Database) -> None:
    insert = "INSERT INTO sold SELECT 1 FROM items WHERE id = :id"
    for _ in range(5):
        outcomes = await asyncio.gather(*(bench.run(insert, {"id": 1}) for _ in range(10)))
        assert {outcome.status_code for outcome in outcomes} == {"ok"}
        await asyncio.gather(*(bench.run("SELEC 1") for _ in range(10)))
    assert bench.pool().connections == database.connections() <= 10
    assert database.run("SELECT count(*) FROM sold") == [(50,)]


PARTS = [
    ("':a'", ":a"),
    ("'it''s :a -- /* \"'", "it's :a -- /* \""),
    ("E'\\':a'", "':a"),
    ("e'\\\\'", "\\"),
    ("U&'\\0041:a'", "A:a"),
    ("$$:a ' \" $b$$", ":a ' \" $b"),
    ("$q$:a $$ $Q$ $q$", ":a $$ $Q$ "),
    ("$ü$:a$ü$", ":a"),
    ("/* ' :a /* $$ */ \" */ ':b'", ":b"),
    ("-- :a ' $$\n'x'", "x"),
    (":a", "<a>"),
    (":a::text", "<a>"),
    ("lower(:b)", "<b>"),
    ("CAST(:b AS text)", "<b>"),
    ("(ARRAY['x', :a, 'z'])[2:2]::text", "{<a>}"),
    ("(SELECT n$1 FROM (SELECT 'y' AS n$1) \":a'\")", "y"),
    ("('{\"k\": \":a\"}'::jsonb) ->> 'k'", ":a"),
    ("(B'1'::text)", "1"),
]
"""Expressions, and the texts that they are."""


@pytest.fixture(scope="module")
def plain(postgres: Postgres) -> Iterator[str]:
    url = postgres.create()
    yield url
    postgres.drop(url)


@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=6))
@settings(max_examples=60)
def test_parameters_are_found_where_postgresql_reads_them(
    plain: str, parts: list[tuple[str, str]]
) -> None:
    """Whatever stands beside it, a parameter is one, and a text is a text."""
    columns = ",\n".join(f"{part} AS c{number}" for number, (part, _) in enumerate(parts))

    async def run() -> Outcome:
        bench = Bench(Path(), plain)
        try:
            return await bench.run(f"SELECT {columns}", {"a": "<a>", "b": "<b>"})
        finally:
            await bench.executor.close()

    (row,) = answer(asyncio.run(run()))["rows"]
    assert list(row.values()) == [text for _, text in parts]
