"""`orchestratord config show`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from orchestratord.cli.inspect.config_show_command import annotated
from orchestratord.cli.main import main
from orchestratord.config.show.origins import Traced
from orchestratord.config.yaml.document import read_document
from orchestratord.config.yaml.nodes import ListNode, MapNode, Node, Scalar

EXAMPLE = Path(__file__).parents[4] / "config"
ENDPOINTS = [
    f"{path.parents[1].name}/{path.stem}" for path in sorted(EXAMPLE.glob("apis/*/endpoints/*"))
]


def show(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["config", "show", "--config", str(EXAMPLE), *arguments])


def test_each_value_with_its_place() -> None:
    result = show("shop/getOrder")
    assert result.exit_code == 0, result.stderr
    lines = {line.partition("  #")[0].rstrip(): line for line in result.stdout.splitlines()}
    assert lines["timeout: 2s"].endswith("  # orchestratord.yaml:21")
    assert lines["  max_attempts: 5"].partition("# ")[2].startswith("apis/shop/api.yaml:")
    assert "# apis/shop/endpoints/getOrder.yaml:" in lines['path: "/orders/{{ params.id }}"']
    assert lines["method: GET"].startswith("method: GET  ")
    assert lines["follow_redirects: false"].endswith("  # default")
    assert lines['  bearer: "***"'].partition("# ")[2].startswith("apis/shop/api.yaml:")
    assert "a-token-for-the-demo" not in result.stdout
    assert "tests:" not in result.stdout


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_the_yaml_reads_back_as_the_json(endpoint: str) -> None:
    document = json.loads(show(endpoint, "-o", "json").stdout)
    text = show(endpoint).stdout
    root = read_document("shown.yaml", text.encode()).root
    assert root is not None
    assert plain(root) == document["values"]
    assert yaml.safe_load(text) == document["values"]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_the_places_hold_what_they_are_said_to_hold(endpoint: str) -> None:
    document = json.loads(show(endpoint, "-o", "json").stdout)
    written = {path: place for path, place in document["origins"].items() if place != "default"}
    assert len(written) >= 3
    for path, place in written.items():
        file, _, line = place.rpartition(":")
        text = (EXAMPLE / file).read_text().splitlines()[int(line) - 1]
        keys = [part for part in path.split(".") if not part.isdecimal()]
        assert any(key in text for key in keys[-2:]) or "- " in text, (path, place, text)


def test_there_is_no_such_endpoint() -> None:
    result = show("weather/getForcast")
    assert result.exit_code == 4
    assert "did you mean 'weather/getForecast'?" in result.stderr


def test_a_bad_configuration(tmp_path: Path) -> None:
    (tmp_path / "orchestratord.yaml").write_text("no_such_key: 1\n")
    result = CliRunner().invoke(main, ["config", "show", "--config", str(tmp_path), "a/b"])
    assert result.exit_code == 78
    assert "orchestratord.yaml:1:1: no_such_key: unknown key" in result.stderr


# -- the daemon's settings -----------------------------------------------------------------------


def test_the_daemons_settings_with_their_places() -> None:
    result = show()
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "# orchestratord.yaml"
    shown = {line.partition("  #")[0].rstrip(): line.rpartition("# ")[2] for line in lines}
    assert shown["  succeeded: 1d"] == "orchestratord.yaml:10"
    assert shown["concurrency: 100"] == "default"
    assert shown["    url: sqlite:///warehouse.db"] == "orchestratord.yaml:17"
    assert shown["  timeout: 2s"] == "orchestratord.yaml:21"  # of `defaults`
    assert any(line.startswith("database: sqlite:////") for line in lines)
    assert any(re.match(r"control_socket: /.*control\.sock +# default", line) for line in lines)
    document = json.loads(show("-o", "json").stdout)
    assert document["source"] == "orchestratord.yaml"
    assert yaml.safe_load(result.stdout) == document["values"]
    assert document["origins"]["retention.failed"] == "orchestratord.yaml:10"


def test_the_daemons_secrets_are_masked(tmp_path: Path) -> None:
    (tmp_path / "apis").mkdir()
    (tmp_path / "orchestratord.yaml").write_text(
        "database: postgresql://me:hidden-word@db.example/queue\n"
        'http:\n  token: "${secret:TOKEN}"\n  read_token: a-token-that-is-written-out\n'
    )
    result = CliRunner(env={"TOKEN": "a-token-of-the-environment"}).invoke(
        main, ["config", "show", "--config", str(tmp_path)]
    )
    assert result.exit_code == 0, result.stderr
    assert 'database: "postgresql://me:***@db.example/queue"' in result.stdout
    assert result.stdout.count('oken: "***"') == 2
    for secret in ("hidden-word", "of-the-environment", "written-out"):
        assert secret not in result.stdout
    assert re.search(r"bind: 127\.0\.0\.1:8420 +# default", result.stdout)


def test_without_a_file_all_is_default(tmp_path: Path) -> None:
    (tmp_path / "apis").mkdir()
    result = CliRunner().invoke(main, ["config", "show", "--config", str(tmp_path)])
    assert result.exit_code == 0, result.stderr
    assert "orchestratord.yaml:" not in result.stdout


# -- the YAML ------------------------------------------------------------------------------------


def plain(node: Node) -> object:
    if isinstance(node, MapNode):
        return {key: plain(item) for key, (_, item) in node.entries.items()}
    if isinstance(node, ListNode):
        return [plain(item) for _, item in node.items]
    assert isinstance(node, Scalar)
    return node.value


def wrapped(value: object) -> Traced:
    if isinstance(value, dict):
        return Traced({key: wrapped(item) for key, item in value.items()})
    if isinstance(value, list):
        return Traced([wrapped(item) for item in value])
    assert value is None or isinstance(value, str | int | float | bool)
    return Traced(value)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "no",
        "on",
        "~",
        "null",
        "12:30",
        "007",
        "0x1f",
        "1e3",
        "2027-01-01",
        "- a",
        "a: b",
        "a #b",
        "<<",
        "***",
        "&a",
        "!x",
        "%",
        "@",
        "`",
        "a\nb",
        "\x1b[31m",
        "{{ a }}",
        "[",
        "=",
        "?",
        "- ",
        ":",
        " a",
    ]
)
KEYS = TEXTS.filter(lambda text: bool(text) and text != "<<")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.sampled_from([0.5, 2.0]) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_whatever_is_shown_reads_back(values: dict[str, object]) -> None:
    traced = {key: wrapped(value) for key, value in values.items()}
    text = annotated(traced)
    document = read_document("shown.yaml", text.encode())
    assert document.problems == []
    assert document.root is not None
    assert plain(document.root) == values


def test_what_cannot_be_seen_is_written_out(tmp_path: Path) -> None:
    hidden = "a\u202eb\u200bc\U000e0001"
    endpoints = tmp_path / "apis/crm/endpoints"
    endpoints.mkdir(parents=True)
    (endpoints.parent / "api.yaml").write_text("base_url: https://crm.example\n")
    written = json.dumps({"path": "/a", "params": {"x": {"description": hidden}}})
    (endpoints / "get.json").write_text(written)
    result = CliRunner().invoke(main, ["config", "show", "--config", str(tmp_path), "crm/get"])
    assert result.exit_code == 0, result.output
    assert result.stdout.replace("\n", "").isprintable()
    assert r'"a\u202eb\u200bc\U000e0001"' in result.stdout
