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
