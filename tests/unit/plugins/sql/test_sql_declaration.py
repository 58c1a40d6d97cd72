"""What `check` says of `type: sql` and of `databases`."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import orchestratord_sql
import pytest

from orchestratord.config.load import load
from orchestratord.daemon.bootstrap import ADDRESSES
from orchestratord.engine.http_executor import HttpPlugin
from orchestratord.errors import ConfigError
from orchestratord.model.settings import Config
from orchestratord.plugin.host import Host

DATABASES = 'databases: {warehouse: {url: "sqlite:///warehouse.db"}}\n'


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.host = Host()
        self.host.register(HttpPlugin(), "http")
        self.host.register(orchestratord_sql, "sql")
        self.environ: dict[str, str] = {}
        (self.path / "apis").mkdir()
        self.daemon(DATABASES)

    def daemon(self, text: str) -> None:
        (self.path / "orchestratord.yaml").write_text(dedent(text))

    def endpoint(self, text: str) -> None:
        file = self.path / "apis/shop/endpoints/do.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))

    def load(self) -> Config:
        return load(self.path, self.host, environ=self.environ, addresses=ADDRESSES)

    def errors(self) -> list[str]:
        with pytest.raises(ConfigError) as refused:
            self.load()
        return [str(problem) for problem in refused.value.problems if problem.severity == "error"]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_an_endpoint_needs_no_base_url(folder: Folder) -> None:
    folder.endpoint("{type: sql, database: warehouse, statement: SELECT 1}")
    config = folder.load()
    endpoint = config.endpoints["shop/do"]
    assert (endpoint.idempotent, endpoint.shown["statement"]) == (True, "SELECT 1")
    assert config[orchestratord_sql.DATABASES]["warehouse"].concurrency == 10
    folder.endpoint("{type: sql, database: warehouse, statement: DELETE FROM t}")
    assert folder.load().endpoints["shop/do"].idempotent is False


def test_a_rate_limit_is_not_for_statements(folder: Folder) -> None:
    folder.endpoint("{type: sql, database: warehouse, statement: SELECT 1}")
    (folder.path / "apis/shop/api.yaml").write_text("rate_limit: 5/s\n")
    (warning,) = folder.load().warnings
    assert "the rate_limit of its API is for requests" in warning.message


def test_keys_of_requests_are_refused(folder: Folder) -> None:
    folder.endpoint(
        "{type: sql, database: warehouse, statement: SELECT 1, path: /x, success: 2xx, pth: /x}"
    )
    place = "apis/shop/endpoints/do.yaml:1:"
    known = "known are database, enabled, idempotent, params, partition, retry, schedule, "
    assert folder.errors() == [
        f"{place}55: path: belongs to endpoints with `type: http`; this one has `type: sql`",
        f"{place}65: success: belongs to endpoints with `type: http`; this one has `type: sql`",
        f"{place}79: pth: unknown key; {known}statement, success_if, tests, timeout, type",
    ]
    folder.endpoint("{path: /x, statement: SELECT 1}")
    assert folder.errors()[-1] == (
        f"{place}12: statement: belongs to endpoints with `type: sql`; this one has `type: http`"
    )


def test_one_wrong_database_is_the_only_error(folder: Folder) -> None:
    folder.endpoint("{type: sql, database: warehouse, statement: SELECT 1}")
    folder.daemon(DATABASES.replace("}}", '}, other: {url: "mysql://db/shop"}}'))
    (error,) = folder.errors()
    assert "databases.other.url: expected sqlite" in error


@pytest.mark.parametrize(
    "statement",
    [
        "|\n  SELECT :good, ':bad'\n    FROM t -- :good\n    WHERE a = :good AND b = :bad\n",
        ">-\n  SELECT\n  :good, ':bad'\n\n  FROM t WHERE :good AND b = :bad\n",
        "\"SELECT :good, ':bad'\\n\n  , :bad\"\n",
        "SELECT :good,\n  ':bad', :bad\n",
    ],
)
def test_an_undeclared_parameter_has_its_line_and_column(folder: Folder, statement: str) -> None:
    text = f"type: sql\ndatabase: warehouse\nstatement: {statement}params: {{good: {{}}}}\n"
    folder.endpoint(text)
    lines = text.splitlines()
    # The second `:bad` of each: the first one is in quotes.
    line = next(n for n in range(len(lines), 0, -1) if ":bad" in lines[n - 1])
    column = lines[line - 1].rindex(":bad") + 2
    assert folder.errors() == [
        f"apis/shop/endpoints/do.yaml:{line}:{column}: statement: "
        ":bad is not declared under params; known is good"
    ]


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        (
            "{database: warehous, statement: SELECT 1}",
            "database: there is no database 'warehous' under databases in orchestratord.yaml, did "
            "you mean 'warehouse'?",
        ),
        ("{statement: SELECT 1}", "database: is required"),
        ("{database: warehouse}", "statement: is required"),
        (
            "{database: warehouse, statement: 'SELECT 1; DROP TABLE t'}",
            "statement: takes one statement, and here begins another",
        ),
        (
            "{database: warehouse, statement: 'SELECT {{ params.id }}'}",
            "statement: takes no template: write :name, and the parameter is bound",
        ),
        (
            "{database: warehouse, statement: \"SELECT '${secret:KEY}'\"}",
            "statement: a secret has no place in a statement, which the database may log",
        ),
    ],
)
def test_what_is_wrong_with_an_endpoint(folder: Folder, keys: str, complaint: str) -> None:
    folder.environ["KEY"] = "a-secret"
    folder.endpoint(keys.replace("{", "{type: sql, ", 1))
    (error,) = folder.errors()
    assert error.partition(": ")[2] == complaint


@pytest.mark.parametrize(
    ("databases", "complaint"),
    [
        (
            "{a: {url: mysql://x/y}}",
            "17: databases.a.url: expected sqlite:////absolute/path, sqlite:///path below the "
            "config folder, or postgresql://user@host/name",
        ),
        (
            "{a: {url: 'sqlite:///{{ params.x }}.db'}}",
            "17: databases.a.url: takes no template; write the URL, or a reference",
        ),
        ("{a: {}}", "13: databases.a.url: is required"),
        ("{a: {url: 'sqlite:///x', concurrency: 0}}", "37: databases.a.concurrency: must be at"),
        ("{a b: {url: 'sqlite:///x'}}", "13: databases.a b: 'a b' is no name: it is made of"),
        ("[1]", "1: databases: expected a mapping, not a list"),
    ],
)
def test_what_is_wrong_with_a_database(folder: Folder, databases: str, complaint: str) -> None:
    folder.daemon(f"databases: {databases}\n")
    (error,) = folder.errors()
    assert error.startswith(f"orchestratord.yaml:1:{complaint}")


def test_a_relative_path_begins_at_the_config_folder(folder: Folder) -> None:
    folder.daemon('databases: {a: {url: "sqlite:///../b.db"}, c: {url: "sqlite:////d.db"}}\n')
    found = folder.load()[orchestratord_sql.DATABASES]
    assert found["a"].url.path(Path("/etc/x")) == Path("/etc/x/../b.db")
    assert found["c"].url.path(Path("/etc/x")) == Path("/d.db")


def test_a_disabled_plugin(folder: Folder) -> None:
    folder.host = Host()
    folder.host.register(HttpPlugin(), "http")
    folder.host.registry.remember_disabled(orchestratord_sql, "sql")
    folder.endpoint("{type: sql, database: nowhere, statement: 7, whatever: x}")
    config = folder.load()
    assert [str(warning) for warning in config.warnings] == [
        "apis/shop/endpoints/do.yaml:1:2: type: the type 'sql' belongs to the plugin sql, which is "
        "disabled; the tasks of this endpoint wait",
        "orchestratord.yaml:1:1: databases: belongs to the plugin sql, which is disabled; it is "
        "not read",
    ]


def test_postgresql_needs_its_driver(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.daemon("databases: {a: {url: 'postgresql://me@db/x'}}")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    (error,) = folder.errors()
    assert error == (
        "orchestratord.yaml:1:17: databases.a.url: postgresql:// needs psycopg, which is not "
        "installed: pip install 'orchestratord[postgres]'"
    )


def test_what_libpq_cannot_read(folder: Folder) -> None:
    pytest.importorskip("psycopg")
    folder.daemon("databases: {a: {url: 'postgresql://me:s3cret@db/x?porrt=1'}}")
    (error,) = folder.errors()
    assert "libpq cannot read it: invalid URI query parameter" in error
    folder.daemon("databases: {a: {url: 'postgresql://me:s3c%ret@db/x'}}")
    (error,) = folder.errors()
    assert "s3c" not in error


def test_a_statement_is_read_as_its_database_does(folder: Folder) -> None:
    pytest.importorskip("psycopg")
    folder.daemon(
        "databases: {a: {url: 'sqlite:///x'}, b: {url: 'postgresql://me:${secret:PW}@db/x'}}"
    )
    folder.environ["PW"] = "a%40secret"
    text = "{type: sql, database: %s, statement: 'SELECT :a::int', params: {a: {}}}"
    folder.endpoint(text % "b")
    config = folder.load()
    assert config.warnings == ()
    # As it is, and as it stands in the URL.
    assert config.redactor.text("a%40secret a@secret") == "*** ***"
    folder.endpoint(text % "a")
    (error,) = folder.errors()
    assert "statement: SQLite takes :a:: for one name; write a blank behind :a" in error


def test_nothing_shows_a_url(folder: Folder) -> None:
    pytest.importorskip("psycopg")
    folder.daemon("databases: {a: {url: 'postgresql://me:s3cret@db/x'}}")
    config = folder.load()
    (warning,) = config.warnings
    assert (warning.line, warning.column, warning.key) == (1, 17, "databases.a.url")
    assert "a password is written out here" in warning.message
    for shown in (repr(config), str(warning), warning.source):
        assert "s3cret" not in shown
