"""`orchestratord test`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest
from click.testing import CliRunner, Result

from orchestratord.cli.main import main

EXAMPLE = Path(__file__).parents[4] / "config"

GET = """\
path: /x
params: {id: {type: integer, default: 1}}
tests:
  - name: it answers
    answer: {status_code: 200}
    expect: {outcome: succeeded}
  - answer: {status_code: 503}
    expect:
      outcome: retry
      delay: 1s
"""
OTHER = "path: /y\ntests:\n  - {answer: {status_code: 404}, expect: {reason: not_retryable}}\n"


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["test", "--config", str(folder), *arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "apis/a/endpoints").mkdir(parents=True)
    (tmp_path / "apis/a/api.yaml").write_text("base_url: https://a.test\n")
    (tmp_path / "apis/a/endpoints/get.yaml").write_text(GET)
    (tmp_path / "apis/a/endpoints/other.yaml").write_text(OTHER)
    return tmp_path


def test_the_example_passes() -> None:
    result = run(EXAMPLE)
    assert result.exit_code == 0, result.stdout
    assert result.stdout.startswith("shop/getOrder\n  ok    ")
    assert result.stdout.endswith(" passed, 0 failed\n")
    assert result.stderr == ""


def test_the_tests_in_the_docs_pass(tmp_path: Path) -> None:
    page = (EXAMPLE.parent / "docs" / "configuration.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (text,) = (block for block in blocks if "\ntests:" in block)
    (tmp_path / "apis/salesforce/endpoints").mkdir(parents=True)
    (tmp_path / "apis/salesforce/api.yaml").write_text("base_url: https://a.test\n")
    (tmp_path / "apis/salesforce/endpoints/getUsers.yaml").write_text(text)
    result = run(tmp_path)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "3 passed, 0 failed")


def test_the_examples_tests_can_fail(tmp_path: Path) -> None:
    for path in EXAMPLE.rglob("*.yaml"):
        copy = tmp_path / path.relative_to(EXAMPLE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text().replace("status_code: 404", "status_code: 405", 1))
    result = run(tmp_path)
    assert result.exit_code == 1
    assert "order-missing does not fire: status_code 405 does not cover 404" in result.stdout


def test_a_failure_says_what_was_expected_what_came_and_where(folder: Path) -> None:
    result = run(folder)
    assert result.exit_code == 1
    assert result.stdout == (
        "a/get\n"
        "  ok    it answers\n"
        "  FAIL  tests.1\n"
        "        apis/a/endpoints/get.yaml:10:7: tests.1.expect.delay: "
        "expected 1s, came 5s: exponential 5s·2^0=5s\n"
        "a/other\n"
        "  ok    tests.0\n"
        "2 passed, 1 failed\n"
    )


def test_some_endpoints(folder: Path) -> None:
    result = run(folder, "a/other")
    assert result.exit_code == 0
    assert result.stdout == "a/other\n  ok    tests.0\n1 passed, 0 failed\n"
    result = run(folder, "a/othr")
    assert result.exit_code == 4
    assert "did you mean 'a/other'?" in result.stderr


def test_as_json(folder: Path) -> None:
    result = run(folder, "-o", "json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert (document["passed"], document["failed"]) == (2, 1)
    failed = document["tests"][1]
    assert (failed["endpoint"], failed["name"], failed["line"]) == ("a/get", "tests.1", 7)
    (miss,) = failed["misses"]
    assert (miss["file"], miss["line"], miss["column"]) == ("apis/a/endpoints/get.yaml", 10, 7)
    assert (miss["key"], failed["passed"]) == ("tests.1.expect.delay", False)


def test_as_junit(folder: Path) -> None:
    result = run(folder, "-o", "junit")
    assert result.exit_code == 1
    suite = Xml.fromstring(result.stdout)
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == ["it answers", "tests.1", "tests.0"]
    (failure,) = suite.iter("failure")
    assert (failure.text or "").startswith("apis/a/endpoints/get.yaml:10:7: tests.1.expect.delay: ")


def test_an_outcome_that_did_not_come(folder: Path) -> None:
    (folder / "apis/a/endpoints/get.yaml").write_text(GET.replace("retry\n", "failed\n", 1))
    result = run(folder, "a/get")
    assert "no delay where the outcome is failed" in result.stderr
    assert result.exit_code == 78


def test_a_bad_configuration(folder: Path) -> None:
    (folder / "apis/a/endpoints/get.yaml").write_text(GET.replace("succeeded", "succeded"))
    result = run(folder)
    assert result.exit_code == 78
    assert result.stdout == ""
    assert (
        "apis/a/endpoints/get.yaml:6:14: tests.0.expect.outcome: unknown value 'succeded', "
        "did you mean 'succeeded'?"
    ) in result.stderr


def test_no_tests_are_no_failure(folder: Path) -> None:
    (folder / "apis/a/endpoints/other.yaml").write_text("path: /y\n")
    result = run(folder, "a/other")
    assert (result.exit_code, result.stdout) == (0, "there are no tests\n")


def test_hooks_that_are_not_run_are_named(folder: Path) -> None:
    (folder / "orchestratord.yaml").write_text("plugins: {dirs: [plugins]}\n")
    (folder / "plugins").mkdir()
    (folder / "plugins/mine.py").write_text(
        "from orchestratord import hookimpl\n"
        "@hookimpl\ndef after_request(outcome): return outcome.failure()\n"
    )
    result = run(folder, "a/other")
    assert result.exit_code == 0
    assert result.stderr == (
        "note: not run in tests: after_request of mine, which may decide otherwise\n"
    )


def test_nothing_is_sent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*arguments: object) -> None:
        raise AssertionError("a test opened a connection")

    monkeypatch.setattr("socket.socket.connect", connect)
    monkeypatch.setattr("socket.socket.sendto", connect)
    assert run(folder, "a/other").exit_code == 0
