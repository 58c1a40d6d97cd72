"""`outbox schema` and `grant-producer`, what `check` says of `outbox`, and `doctor`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.postgres import Postgres
from tests.unit.cli.cli_parts import GOOD, run, write


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    url = postgres.create()
    yield url
    postgres.drop(url)


def folder_of(path: Path, url: str, outbox: str = "shop") -> Path:
    settings = (
        f"databases:\n  shop: {{url: '{url}'}}\n  files: {{url: sqlite:////tmp/x.db}}\n"
        f"outbox: {{database: {outbox}}}\ncontrol_socket: {path}/control.sock\n"
    )
    return write(path, {**GOOD, "orchestratord.yaml": settings})


def outbox_findings(folder: Path) -> list[tuple[str, str]]:
    findings = json.loads(run("doctor", "--config", folder, "-o", "json").stdout)["findings"]
    return [(one["status"], one["what"]) for one in findings if one["check"] == "outbox"]


def test_it_is_made_and_granted_and_neither_harms_twice(
    tmp_path: Path, url: str, postgres: Postgres
) -> None:
    folder = folder_of(tmp_path, url)
    assert outbox_findings(folder) == [
        ("fail", "there is no table orchestratord_outbox where the outbox is to be, in the "
                 "database shop"),
    ]  # fmt: skip
    postgres.run("postgres", 'CREATE ROLE "odd"" one" LOGIN')
    try:
        for _ in range(2):
            made = run("outbox", "schema", "--apply", "--config", folder)
            assert made.stdout == "done in the database shop\n", made.output
            made = run("grant-producer", 'odd" one', "--apply", "--config", folder)
            assert made.exit_code == 0, made.output
        with psycopg.connect(url, user='odd" one') as producer:
            found = producer.execute("SELECT orchestratord_enqueue('a/b')").fetchone()
        assert found == (1,)
        assert outbox_findings(folder) == [("ok", "the database shop has it: 1 rows wait")]
        other = folder_of(tmp_path / "other", url.replace("tester:s3cret", "odd%22%20one"))
        assert outbox_findings(other) == [
            ("fail", "the user of the database shop may not read, change and delete its rows")
        ]
    finally:
        name = url.rpartition("/")[2]
        postgres.run(name, 'DROP OWNED BY "odd"" one"')
        postgres.run("postgres", 'DROP ROLE "odd"" one"')


def test_it_may_be_in_another_schema(url: str) -> None:
    with psycopg.connect(url) as session:
        session.execute('CREATE SCHEMA "Other"')
        session.execute("CREATE ROLE buyer")
        text = run("outbox", "schema", "--schema", "Other", "--notify").stdout
        session.execute(text.encode())
        session.execute(run("grant-producer", "buyer", "--schema", "Other").stdout.encode())
        assert session.execute("SELECT \"Other\".orchestratord_enqueue('a/b')").fetchone() == (1,)
        session.rollback()


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    for name, why in (
        ("shap", "there is no database 'shap' under databases, did you mean 'shop'?"),
        ("files", "files is a file: the outbox is in a PostgreSQL"),
    ):
        folder = folder_of(tmp_path / name, "postgresql://u@127.0.0.1/x", name)
        checked = run("check", "--config", folder)
        assert checked.exit_code == 78
        assert f"orchestratord.yaml:4:10: outbox.database: {why}" in checked.stderr
    plain = write(tmp_path / "plain", GOOD)
    made = run("outbox", "schema", "--apply", "--config", plain)
    assert made.exit_code == 1
    assert "write outbox: {database: NAME} in orchestratord.yaml" in made.stderr
    assert outbox_findings(plain) == []
    gone = folder_of(tmp_path / "gone", "postgresql://u@127.0.0.1:1/x")
    made = run("grant-producer", "shop", "--apply", "--config", gone)
    assert made.exit_code == 1
    assert made.stderr.startswith("nothing is changed in the database shop: connection")
    assert run("grant-producer", "").exit_code == 2
