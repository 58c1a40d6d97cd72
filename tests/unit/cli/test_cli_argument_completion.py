"""What the tabulator key offers for `orchestratord`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from orchestratord.cli.main import main
from orchestratord.errors import SendError
from orchestratord.plugin.hookspecs import PHASES


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config folder of which not all is good."""
    monkeypatch.setenv("ORCHESTRATORD_CONFIG", str(tmp_path))
    for name in ("shop/endpoints/get.yaml", "shop/endpoints/put.json", "a/endpoints/x.yml"):
        (tmp_path / "apis" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "apis" / name).write_text("what: is this")
    for name in (".get.yaml.swp", ".hidden.yaml", "get.yaml~", "README"):
        (tmp_path / "apis/shop/endpoints" / name).touch()
    (tmp_path / "apis/shop/api.yaml").touch()
    return tmp_path


def offered(*words: str) -> list[str]:
    *before, current = words
    shell = BashComplete(main, {}, "orchestratord", "_ORCHESTRATORD_COMPLETE")
    return [item.value for item in shell.get_completions(before, current)]


@pytest.mark.parametrize(
    "command", [("explain",), ("config", "show"), ("test",), ("inbound", "test")]
)
def test_endpoints(folder: Path, command: tuple[str, ...]) -> None:
    assert offered(*command, "") == ["a/x", "shop/get", "shop/put"]
    assert offered(*command, "shop/g") == ["shop/get"]


def test_the_folder_that_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATORD_CONFIG", "/nowhere")
    assert offered("explain", "") == []
    assert offered("explain", "--config", str(folder), "a") == ["a/x"]


def test_an_endpoint_that_is_named_is_not_offered_again(folder: Path) -> None:
    assert offered("test", "shop/get", "") == ["a/x", "shop/put"]


def test_strategies(folder: Path) -> None:
    assert offered("backoff", "") == [
        *("a/x", "shop/get", "shop/put"),
        *("exponential", "fixed", "linear", "list"),
    ]
    (folder / "orchestratord.yaml").write_text("[")
    assert offered("backoff", "s") == ["shop/get", "shop/put"]


def test_words_of_explain(folder: Path) -> None:
    assert offered("explain", "shop/get", "--phase", "") == list(PHASES)
    assert offered("explain", "shop/get", "--error", "") == list(SendError.KINDS)
