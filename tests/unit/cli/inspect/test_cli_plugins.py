"""`plugins`: what is installed, and which hooks it has."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

from tests.unit.cli.cli_parts import run, write


def test_plugins_in_json(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "orchestratord.yaml": "plugins: {dirs: [plugins], disabled: [backoff]}\n",
            "plugins/mine.py": (
                "from orchestratord import hookimpl\n@hookimpl\ndef on_success(task): return []\n"
            ),
            "plugins/broken.py": "1/0\n",
        },
    )
    result = run("plugins", "--config", tmp_path, "-o", "json")
    assert result.exit_code == 0
    found = {row["name"]: row for row in json.loads(result.stdout)["plugins"]}
    assert found["webhooks"]["status"] == "loaded"
    assert found["webhooks"]["version"] == importlib.metadata.version("orchestratord")
    assert "announce" in found["webhooks"]["hooks"]
    assert found["backoff"]["status"] == "disabled"
    assert found["mine"]["hooks"] == ["on_success"]
    assert found["mine"]["source"] == str(tmp_path / "plugins" / "mine.py")
    assert found["broken"]["status"] == "failed"
    assert found["broken"]["error"] == "ZeroDivisionError: division by zero"
    assert "the plugin broken cannot be loaded" in result.stderr


def test_plugins_as_a_table(tmp_path: Path) -> None:
    result = run("plugins", "--config", tmp_path, env={"COLUMNS": "80"})
    assert result.exit_code == 0
    head, *rows = result.stdout.splitlines()
    assert head.split() == ["PLUGIN", "VERSION", "STATUS", "SOURCE", "HOOKS"]
    assert any(row.startswith("webhooks ") and "loaded" in row for row in rows)
    assert "register_backoff" in result.stdout
