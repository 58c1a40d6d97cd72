"""What else knows of statements: explaining, trying, describing, and the rig for plugin authors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestratord.cli.main import main

ENDPOINT = {
    "type": "sql",
    "database": "warehouse",
    "statement": "SELECT name\n  FROM items WHERE id = :id",
    "params": {"id": {"type": "integer", "required": True}},
    "webhooks": [
        {"name": "ops", "phase": "after_execute", "status_code": "ok",
         "url": "https://ops.example.com/hook",
         "payload": "{{ request.params.id }} {{ response.body }}"}
    ],
    "tests": [
        {
            "params": {"id": 7},
            "answer": {"status_code": "ok", "body": {"rows": [{"name": "umbrella"}]}},
            "expect": {"outcome": "succeeded", "webhooks": ["ops"]},
        },
        {
            "params": {"id": 7},
            "answer": {"error": "connect"},
            "expect": {"outcome": "retry", "webhooks": []},
        },
    ],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "orchestratord.yaml").write_text(
        'databases: {warehouse: {url: "sqlite:///warehouse.db"}}\n'
    )
    file = tmp_path / "apis/stock/endpoints/get.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(ENDPOINT))
    return tmp_path


def run(folder: Path, *words: str) -> Any:
    result = CliRunner().invoke(main, [*words, "--config", str(folder)])
    assert result.exit_code == 0, result.output
    return result.output


def test_explain(folder: Path) -> None:
    text = run(folder, "explain", "stock/get", "-p", "id=7", "--status-code", "ok")
    said = "  in the database warehouse:\n  SELECT name\n    FROM items WHERE id = :id\n  :id = 7\n"
    assert said in text
    assert "curl" not in text.partition("What becomes of it")[0]
    document = json.loads(run(folder, "explain", "stock/get", "-p", "id=7", "-o", "json"))
    assert document["request"] == {
        "database": "warehouse",
        "statement": ENDPOINT["statement"],
        "params": {"id": 7},
    }


def test_tests(folder: Path) -> None:
    assert "2 passed" in run(folder, "test")


def test_config_show(folder: Path) -> None:
    document = json.loads(run(folder, "config", "show", "stock/get", "-o", "json"))
    assert document["values"]["database"] == "warehouse"
    assert document["values"]["idempotent"] is True
    assert document["origins"]["statement"] == "apis/stock/endpoints/get.yaml:1"


def test_schemas(folder: Path) -> None:
    endpoint = json.loads(run(folder, "schema", "endpoint"))
    properties = endpoint["$defs"]["type_sql"]["properties"]
    assert {"database", "statement", "success_if", "retry", "webhooks"} <= properties.keys()
    assert not {"path", "method", "headers", "success"} & properties.keys()
    daemon = json.loads(run(folder, "schema", "daemon"))
    assert "databases" in daemon["properties"]


TAKE = {
    "type": "sql",
    "database": "warehouse",
    "statement": "UPDATE items SET stock = stock - 1 WHERE id = :id AND stock > 0",
    "success_if": "rows_affected == `1`",
    "params": {"id": {"type": "integer", "required": True}},
}


@pytest.mark.parametrize(
    ("keys", "answer", "expect", "misses"),
    [
        ({}, {"body": {"rows_affected": 1}}, {"outcome": "succeeded"}, []),
        (
            {},
            {"body": {"rows_affected": 0}},
            {"outcome": "succeeded"},
            [
                "expected succeeded, came failed, not_retryable: success_if does not hold: "
                "rows_affected == `1`; rolled back"
            ],
        ),
        ({}, {}, {"reason": "not_retryable"}, []),
        ({"statement": "DELETE FROM a WHERE b = :id RETURNING b"}, {"body": {"rows": [{"b": 1}]}},
         {"outcome": "succeeded"}, []),
        ({"success_if": "rows[0].stock > `1`"}, {"body": {"rows": [{"stock": 2}]}},
         {"outcome": "succeeded"}, []),
        (
            {},
            {"body": {"row": []}},
            {"outcome": "succeeded"},
            ["the answer cannot be pretended: a database answers with rows_affected, columns, "
             "rows, truncated; there is no 'row'"],
        ),
        (
            {},
            {"body": {"rows": {"a": 1}}},
            {"outcome": "succeeded"},
            ["the answer cannot be pretended: rows is a list of mappings, of columns to values"],
        ),
        (
            {},
            {"body": {"rows_affected": 1}},
            {"request": {"database": "warehouse", "params": {"id": 7},
                         "statement": "UPDATE items\n  SET stock = stock - 1 "
                         "WHERE id = :id AND stock > 0"}},
            [],
        ),
        (
            {},
            {"body": {"rows_affected": 1}},
            {"request": {"database": "other", "params": {"id": 8}, "statement": "SELECT 1",
                         "method": "GET"}},
            [
                "this endpoint sends no HTTP request, it executes a statement",
                "expected other, came warehouse",
                "expected 'SELECT 1', came 'UPDATE items SET stock = stock - 1 WHERE id = :id AND "
                "stock > 0'",
                'expected {"id": 8}, came {"id": 7}',
            ],
        ),
    ],
)  # fmt: skip
def test_success_if_decides_on_a_pretended_answer(
    folder: Path, keys: dict[str, Any], answer: dict[str, Any], expect: Any, misses: list[str]
) -> None:
    test = {"params": {"id": 7}, "answer": {"status_code": "ok", **answer}, "expect": expect}
    file = folder / "apis/stock/endpoints/get.yaml"
    file.write_text(json.dumps({**TAKE, **keys, "tests": [test]}))
    result = CliRunner().invoke(main, ["test", "-o", "json", "--config", str(folder)])
    (found,) = json.loads(result.output)["tests"]
    assert [miss["message"] for miss in found["misses"]] == misses


def test_explain_with_rows(folder: Path) -> None:
    (folder / "apis/stock/endpoints/take.yaml").write_text(json.dumps(TAKE))
    asked = ("explain", "stock/take", "-p", "id=7", "--status-code", "ok", "--body")
    assert "rolled back" in run(folder, *asked, '{"rows_affected": 0}')
    assert "rolled back" not in run(folder, *asked, '{"rows_affected": 1}')
    bad = CliRunner().invoke(main, [*asked, "no", "--config", str(folder)])
    assert bad.exit_code == 1
    assert "the answer cannot be pretended" in bad.output
