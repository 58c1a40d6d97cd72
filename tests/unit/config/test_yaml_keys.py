"""A key of the YAML is declared once, in `yaml_keys`: all else follows from it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestratord.config.validate.shapes import fields_of
from orchestratord.config.yaml_keys import ApiKeys, EndpointKeys
from orchestratord.plugin.registry import CORE, Registry

pytestmark = pytest.mark.slow

WITH_NEW_KEYS = """
import importlib.util, sys
spec = importlib.util.find_spec("orchestratord.config.yaml_keys")
source = spec.loader.get_source(spec.name)
for name, line in (
    ("EndpointKeys(Shared)", "owner: str = 'nobody'"),
    ("Shared(Model)", "grace: int = Field(3, ge=1)"),
):
    start = source.index('\\n\\n', source.index(f"class {name}:"))
    source = f"{source[:start]}\\n    {line}{source[start:]}"
sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
exec(compile(source, spec.origin, "exec"), module.__dict__)
from orchestratord.cli.main import main
main()
"""
"""The command, with one line more in each of two models."""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of a program whose models have two keys more."""
    return subprocess.run(
        [sys.executable, "-c", WITH_NEW_KEYS, *words, "--config", str(folder)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_new_key_is_checked_shown_and_described(tmp_path: Path) -> None:
    endpoints = tmp_path / "apis" / "crm" / "endpoints"
    endpoints.mkdir(parents=True)
    (tmp_path / "apis" / "crm" / "api.yaml").write_text("base_url: https://a.example\ngrace: 7\n")
    (endpoints / "get.yaml").write_text("path: /a\nowner: sales\n")
    (endpoints / "put.yaml").write_text("path: /b\ngrace: 9\n")
    checked = run(tmp_path, "check")
    assert (checked.returncode, checked.stderr) == (0, "")
    shown = run(tmp_path, "config", "show", "crm/get").stdout
    assert "owner: sales" in shown
    assert "endpoints/get.yaml:2" in shown.partition("owner: sales")[2].partition("\n")[0]
    assert "grace: 7" in shown
    assert "api.yaml:2" in shown.partition("grace: 7")[2].partition("\n")[0]
    other = run(tmp_path, "config", "show", "crm/put").stdout
    assert "grace: 9" in other
    assert "owner: nobody" in other
    assert '"owner"' in run(tmp_path, "schema", "endpoint").stdout
    (endpoints / "put.yaml").write_text("path: /b\ngrace: 0\nowner: [a]\nownr: x\n")
    wrong = run(tmp_path, "check")
    assert wrong.returncode == 78
    for line in ("put.yaml:2:1: grace", "put.yaml:3:1: owner", "did you mean 'owner'"):
        assert line in wrong.stderr


def test_no_plugin_can_bring_a_key_of_the_core() -> None:
    """`plugin.registry` lies below the models, and names the keys of endpoints by itself."""
    keys = {
        name for (what, name), owner in Registry().owners.items() if (what, owner) == ("key", CORE)
    }
    assert keys == {*fields_of(EndpointKeys), *fields_of(ApiKeys)}
