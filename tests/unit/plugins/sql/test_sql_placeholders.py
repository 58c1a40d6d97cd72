"""Parameters are found where the database finds them, and nowhere else."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from orchestratord_sql.placeholders import Dialect, reads_only, scan

BOTH: tuple[Dialect, ...] = ("sqlite", "postgresql")


def names(text: str, dialect: Dialect) -> list[str]:
    scanned = scan(text, dialect)
    assert scanned.problems == ()
    return list(scanned.names)


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("SELECT :a, :b_2, :a", ["a", "b_2"]),
        ("SELECT ':a' || :b", ["b"]),
        ("SELECT 'it''s :a', :b", ["b"]),
        ('SELECT ":a" FROM t WHERE x=:b', ["b"]),
        ("SELECT 1 -- :a\n, :b", ["b"]),
        ("SELECT 1 /* :a */, :b", ["b"]),
        ("SELECT 1 -- it's :a", []),
        ("SELECT (:a),(:b)", ["a", "b"]),
        ("SELECT :a;", ["a"]),
        ("SELECT :a ; -- the end", ["a"]),
    ],
)
def test_in_both_dialects(text: str, found: list[str], dialect: Dialect) -> None:
    assert names(text, dialect) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("SELECT x::int, :a::text", ["a"]),
        ("SELECT $$ :a $$, $b$ :b $$ $b$, :c", ["c"]),
        ("SELECT a$b$c, :d, e$f$", ["d"]),
        (r"SELECT E'\' :a', e'\\', :b", ["b"]),
        (r"SELECT '\', :b", ["b"]),
        (r"SELECT name'\', :b", ["b"]),
        ("SELECT /* /* :a */ :b */ :c", ["c"]),
        ("SELECT x[1:n], x[i:j], x[f(1):n], ARRAY[:a]", ["a"]),
        ("SELECT x ? :a, x @> :b, x #>> '{:c}'", ["a", "b"]),
        ("CALL f(a := :b)", ["b"]),
    ],
)
def test_in_postgresql(text: str, found: list[str]) -> None:
    assert names(text, "postgresql") == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("SELECT [:a], `:b`, :c", ["c"]),
        ("SELECT 1 /* /* :a */, :b", ["b"]),
        ("SELECT 1 LIMIT:a", ["a"]),
        ("SELECT :a /* not closed, :b", ["a"]),
    ],
)
def test_in_sqlite(text: str, found: list[str]) -> None:
    assert names(text, "sqlite") == found


@pytest.mark.parametrize(
    ("text", "dialect", "message", "offset"),
    [
        ("SELECT 1; SELECT 2", "sqlite", "takes one statement, and here begins another", 10),
        ("SELECT 1;; x", "postgresql", "takes one statement, and here begins another", 11),
        ("  -- nothing", "sqlite", "is empty", 0),
        ("SELECT 'a", "sqlite", "' is not closed", 7),
        ("SELECT $a$ $b$", "postgresql", "$a$ is not closed", 7),
        ("SELECT /* /* */", "postgresql", "/* is not closed", 7),
        ("SELECT ?1", "sqlite", "?1 is no parameter here; write :name", 7),
        ("SELECT @a", "sqlite", "@a is no parameter here; write :name", 7),
        ("SELECT $1", "postgresql", "$1 is no parameter here; write :name", 7),
        ("SELECT :a::int", "sqlite", "SQLite takes :a:: for one name; write a blank behind :a", 7),
        (" begin", "sqlite", "BEGIN is not needed: each attempt is a transaction of its own", 1),
        (
            "PRAGMA user_version = 3",
            "sqlite",
            "PRAGMA is for one connection, and attempts share several",
            0,
        ),
        (
            "COPY t FROM STDIN",
            "postgresql",
            "COPY moves data to and from the client; write INSERT or SELECT",
            0,
        ),
    ],
)
def test_what_is_wrong(text: str, dialect: Dialect, message: str, offset: int) -> None:
    assert scan(text, dialect).problems == ((message, offset),)
    assert not scan(text, dialect).reads


def test_numbers_in_the_place_of_names() -> None:
    text = "UPDATE t SET a = :a, b = ':b', c = :c::int WHERE a <> :a"
    expected = "UPDATE t SET a = $1, b = ':b', c = $2::int WHERE a <> $1"
    assert scan(text, "postgresql").numbered() == expected


READING = [
    "SELECT 1",
    "select * from t where a = :a and b in (1, 2) order by c limit 3",
    "SELECT count(*), coalesce(max(a), 0) FROM t GROUP BY b HAVING sum(c) > 1",
    "WITH a AS (SELECT 1), b AS MATERIALIZED (SELECT 2) SELECT * FROM a, b",
    "VALUES (1), (2)",
    "SELECT x::numeric(10, 2), replace(a, 'b', 'c'), 'DELETE', \"update\" FROM t;",
    "SELECT row_number() OVER (PARTITION BY a) FROM t -- INTO u",
    "SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u) OR NOT (b)",
]
NOT_READING = [
    "INSERT INTO t VALUES (1)",
    "WITH x AS (INSERT INTO t VALUES (1) RETURNING a) SELECT a FROM x",
    "WITH x AS (SELECT 1) DELETE FROM t",
    "SELECT * INTO u FROM t",
    "SELECT * FROM t FOR UPDATE",
    "SELECT * FROM t FOR KEY SHARE",
    "SELECT nextval('s')",
    "SELECT pg_notify('a', 'b')",
    "SELECT lo_unlink(1)",
    'SELECT "lower"(a) FROM t',
    "SELECT mine.lower(a) FROM t",
    "SELECT load_extension('x')",
    "EXPLAIN ANALYZE DELETE FROM t",
    "CALL work()",
    "VACUUM",
    "SELECT 1; DELETE FROM t",
    "SELECT 'open",
]


@pytest.mark.parametrize("text", READING)
def test_what_only_reads_for_certain(text: str) -> None:
    assert reads_only(text)


@pytest.mark.parametrize("text", NOT_READING)
def test_in_doubt_it_does_not_only_read(text: str) -> None:
    assert not reads_only(text)


class Asked(dict[str, int]):
    """Notes which parameters SQLite asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __missing__(self, name: str) -> int:
        self.names.add(name)
        return 1


PIECES = st.sampled_from(
    [":a", ":b", ":c1", "'", "''", '"', "`", "[", "]", "--", "/*", "*/", "\n", " ", ",", "1", "x",
     "(", ")", "||", "é", "$", ":", ";", "\\", "E", "'x'", '"y"']
)  # fmt: skip


@given(st.lists(PIECES, max_size=14).map("".join))
@example("SELECT':a':b")
@example(",:a")
def test_it_finds_what_sqlite_finds(tail: str) -> None:
    """Whatever SQLite takes has the parameters that were found in it."""
    text = f"SELECT 1 AS x {tail}"
    asked = Asked()
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.execute(text, asked)
    except sqlite3.Error:
        return  # it is no statement
    finally:
        connection.close()
    scanned = scan(text, "sqlite")
    if scanned.problems:
        # Refused before anything is executed, which is the safe side.
        return
    assert set(scanned.names) == asked.names
