"""`orchestratord backoff`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from orchestratord.cli.main import main

EXAMPLE = Path(__file__).parents[4] / "config"


def backoff(*arguments: str, folder: Path = EXAMPLE, charset: str = "utf-8") -> Result:
    runner = CliRunner(charset=charset)
    return runner.invoke(main, ["backoff", "--config", str(folder), *arguments])


def document(*arguments: str, folder: Path = EXAMPLE) -> dict[str, Any]:
    result = backoff(*arguments, "-o", "json", folder=folder)
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def delays(*arguments: str) -> list[float]:
    return [item["delay"] for item in document(*arguments)["delays"]]


def test_of_an_endpoint() -> None:
    found = document("shop/getOrder")
    assert [item["delay"] for item in found["delays"]] == [1, 2, 4, 8]
    assert [item["since_first"] for item in found["delays"]] == [1, 3, 7, 15]
    assert found["delays"][3]["shortest"] == pytest.approx(7.2)
    assert found["delays"][3]["longest"] == pytest.approx(8.8)
    assert (found["attempts"], found["total"], found["expires"]) == (5, 15, False)
    assert found["policy"]["backoff"] == {"strategy": "exponential", "delay": "1s", "factor": 2.0}


def test_of_a_webhook() -> None:
    assert delays("shop/getOrder", "--webhook", "order-read") == [2, 2, 2, 2]
    found = document("shop/getOrder", "--webhook", "order-missing")
    assert found["total"] == 272105
    assert found["attempts"] == 10


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("fixed", [5, 5, 5]),
        ("fixed:delay=1m", [60, 60, 60]),
        ("linear:delay=2s", [2, 4, 6]),
        ("exponential", [5, 10, 20]),
        ("exponential:delay=1s,factor=10", [1, 10, 100]),
        ("exponential:delay=1s, factor=10", [1, 10, 100]),
        ("list:delays=1s,5m,2h", [1, 300, 3600]),
        ("list:delays=3s", [3, 3, 3]),
    ],
)
def test_of_a_strategy(strategy: str, expected: list[float]) -> None:
    assert delays(strategy, "--max-attempts", "4") == expected


def test_what_if() -> None:
    found = document("shop/getOrder", "--jitter", "0", "--max-delay", "3s", "--max-attempts", "6")
    assert [item["delay"] for item in found["delays"]] == [1, 2, 3, 3, 3]
    assert found["longest_total"] == found["total"] == 12
    webhook = ("shop/getOrder", "--webhook", "order-missing", "--max-attempts", "3")
    assert delays(*webhook) == [5, 300]


def test_the_picture_fits_80_columns() -> None:
    for arguments in (
        ["shop/getOrder"],
        ["shop/getOrder", "--webhook", "order-missing"],
        ["list:delays=1ms,59m,9d", "--max-delay", "3000d", "--jitter", "1"],
        ["exponential:delay=1d,factor=3", "--max-delay", "3600d", "--max-attempts", "30"],
    ):
        result = backoff(*arguments)
        assert result.exit_code == 0, result.stderr
        lines = result.stdout.splitlines()
        assert max(len(line) for line in lines if "█" in line or "▒" in line) <= 80
        assert max(map(len, lines)) <= 90


def test_bars_grow_with_the_delay() -> None:
    lines = backoff("fixed:delay=1s", "--jitter", "0", "--max-attempts", "3").stdout.splitlines()
    bars = [line.count("█") for line in lines]
    assert len({count for count in bars if count}) == 1
    lines = backoff("linear", "--jitter", "0.5", "--max-attempts", "4").stdout.splitlines()
    rows = [line for line in lines if "▒" in line]
    solid, light = [row.count("█") for row in rows], [row.count("▒") for row in rows]
    assert solid == sorted(solid)
    assert len(set(solid)) == 3
    assert solid[2] == pytest.approx(light[2] / 2, abs=1)  # 0.5 to 1.5 of the delay


def test_the_words() -> None:
    text = backoff("shop/getOrder").stdout
    assert text.startswith("shop/getOrder: exponential, delay 1s, factor 2\n")
    assert backoff("list:delays=5s,5m").stdout.startswith("list, delays 5s 5m\n")
    assert "max_attempts 5, max_delay 1m, jitter 0.1\n" in text
    assert "    3     4s  3.6s to 4.4s    7s  " in text
    assert "Then it has failed for good (exhausted): 5 attempts.\n" in text
    assert "Total: 15s (13.5s to 16.5s with jitter)" in text
    assert (
        "Total: 5s, and the time" in backoff("fixed", "--jitter", "0", "--max-attempts", "2").stdout
    )
    assert "1 attempt.\n" in backoff("fixed", "--max-attempts", "1").stdout


def test_a_narrow_encoding_gets_plain_characters() -> None:
    text = backoff("fixed", charset="ascii").stdout
    assert "#####" in text
    assert "█" not in text
    assert "\\u" not in text


def test_give_up_after(tmp_path: Path) -> None:
    (tmp_path / "apis/a/endpoints").mkdir(parents=True)
    (tmp_path / "apis/a/api.yaml").write_text("base_url: https://a.test\n")
    (tmp_path / "apis/a/endpoints/x.yaml").write_text(
        "path: /x\nretry: {backoff: fixed, give_up_after: 12s}\n"
    )
    found = document("a/x", folder=tmp_path)
    assert (found["attempts"], found["expires"]) == (3, True)
    text = backoff("a/x", folder=tmp_path).stdout
    assert "give_up_after 12s" in text
    assert "The next attempt would lie past give_up_after: 3 attempts.\n" in text


def test_a_strategy_needs_no_configuration(tmp_path: Path) -> None:
    assert backoff("exponential", folder=tmp_path / "nowhere").exit_code == 0


def test_a_plugins_strategy(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "orchestratord.yaml").write_text("plugins: {dirs: [plugins]}\n")
    (tmp_path / "plugins/mine.py").write_text(
        "from orchestratord import Backoff, hookimpl\n"
        "class Odd(Backoff):\n    base: int = 1\n"
        "    def seconds(self, n):\n"
        "        if n == 2: raise RuntimeError('two')\n"
        "        return self.base * n\n"
        "@hookimpl\ndef register_backoff(): return {'odd': Odd}\n"
    )
    result = backoff("odd:base=3", "--max-attempts", "4", "-o", "json", folder=tmp_path)
    assert [item["delay"] for item in json.loads(result.stdout)["delays"]] == [3, 5, 9]
    assert result.stderr == "the strategy odd: two\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["expo"], 2, "unknown strategy 'expo', did you mean 'exponential'?"),
        (["exponential:dela=5s"], 2, "backoff.dela: unknown key"),
        (["exponential:5s"], 2, "'5s': write KEY=VALUE, such as exponential:delay=5s"),
        (["exponential:delay=5s,delay=6s"], 2, "delay is given twice"),
        (["exponential:delay=soon"], 2, "'soon' is not a duration"),
        (["exponential:factor=two"], 2, "backoff.factor: expected a number, not 'two'"),
        (["list"], 2, "backoff.delays: is required"),
        (["fixed", "--jitter", "3"], 2, "jitter: must be at most 1, not '3'"),
        (["fixed", "--max-attempts", "none"], 2, "max_attempts: expected a whole number"),
        (["fixed", "--webhook", "ops"], 2, "--webhook belongs to an endpoint"),
        (["shop/getOrdr"], 4, "did you mean 'shop/getOrder'?"),
        (["shop/getOrder", "--webhook", "opps"], 4, "no webhook 'opps', did you mean 'ops'?"),
    ],
)
def test_what_makes_no_sense(arguments: list[str], code: int, message: str) -> None:
    result = backoff(*arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stdout == ""
