from __future__ import annotations

from pathlib import Path

import pytest
from config_parts import ADDRESSES, ConfigFolder

from orchestratord.config.load import load
from orchestratord.errors import ConfigError, Problem


@pytest.fixture
def config(tmp_path: Path) -> ConfigFolder:
    return ConfigFolder(tmp_path / "config")


def problems(config: ConfigFolder) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        load(config.path, config.host, environ=config.environ, addresses=ADDRESSES)
    return [p for p in caught.value.problems if p.severity == "error"]


def source(config: ConfigFolder, text: str | bytes) -> str:
    config.api()
    config.write("apis/shop/endpoints/get.yaml", text)
    return problems(config)[0].source


def test_a_problem_has_its_line_and_what_could_stand_there(config: ConfigFolder) -> None:
    config.endpoint("path: /x\nretry:\n    backoff: expo   # quickly\n")
    (problem,) = problems(config)
    assert problem.source == "    backoff: expo   # quickly"
    assert problem.hint == "known are exponential, fixed, linear, list"
    assert problem.source[(problem.column or 0) - 1 :].startswith("backoff")


def test_a_known_secret_is_not_shown_and_the_column_stays(config: ConfigFolder) -> None:
    text = "path: /x\nheaders: {X: hush-hush-hush, Y: '${NOPE}', Token: hush-hush-hush}\n"
    line = source(config, text)
    assert "hush" not in line
    assert line.index("Y:") == text.splitlines()[1].index("Y:")


def test_what_may_be_a_secret_is_not_shown_where_the_file_cannot_be_read(
    config: ConfigFolder,
) -> None:
    assert source(config, "path: /x\nheaders: {Authorization: hush, b: }}\n") == (
        "headers: {Authorization: ***"
    )
    assert source(config, "path: /x\nb: ]\nheaders: {Authorization: hush}\n") == "b: ]"
    assert source(config, "path: /x\npassword: hush: x\n") == "password: ***"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1\n", "a: [1"),
        ("path: '/x\n", "path: '/x"),
        ("path: /x\x07y\n", "path: /x\ufffdy"),
        (b"path: /\xff\n", "path: /\ufffd"),
        ("\ufeffpth: /x\n", "pth: /x"),
        ("path: /x\r\npth: /y\r\n", "pth: /y"),
        ("path: /x\u2028pth: /y\n", "pth: /y"),
        ("path: /x\nx: " + "y" * 9999, "x: " + "y" * 397),
    ],
)  # fmt: skip
def test_lines(config: ConfigFolder, text: str | bytes, expected: str) -> None:
    assert source(config, text if isinstance(text, bytes) else text.encode()) == expected


def test_what_has_no_place_has_no_line(config: ConfigFolder) -> None:
    config.write("apis/shop.yaml", "x: y\n")
    (problem,) = problems(config)
    assert (problem.line, problem.source) == (None, "")
