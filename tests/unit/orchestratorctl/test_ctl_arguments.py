from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from orchestratorctl.arguments import filters, parse
from orchestratorctl.main import main


@pytest.mark.parametrize(
    "line",
    [
        "--socket /s -o json status",
        "status --socket /s -o json",
        "--socket /s status --output json",
        "-o yaml --socket /x status -o json --socket /s",
        "webhooks --socket /s -o json",
        "--socket /s webhooks list -o json",
        "-o json webhooks --socket /s list",
        "webhooks enable -o json a/b hook --socket /s",
    ],
)
def test_what_holds_everywhere_stands_before_or_after_the_verb(line: str) -> None:
    arguments = parse(line.split())
    assert (arguments.socket, arguments.output) == ("/s", "json")


def test_tables_and_the_usual_sockets_are_the_default() -> None:
    arguments = parse(["status"])
    assert (arguments.socket, arguments.output) == (None, "table")


@pytest.mark.parametrize(
    ("line", "run"),
    [
        ("status", "status:status"),
        ("endpoints", "endpoints:endpoints"),
        ("endpoints a/b", "endpoints:endpoints"),
        ("list", "list:list_tasks"),
        ("show 1", "show:show"),
        ("call a/b", "calls:call"),
        ("retry 1 2 --wait --timeout 5s", "retry:retry"),
        ("retry --force --wait 1 2", "retry:retry"),
        ("cancel 1 2", "cancel:cancel"),
        ("pause a/b", "endpoints:pause"),
        ("resume a/b", "endpoints:resume"),
        ("bulks 1", "bulks:show"),
        ("reload", "reload:reload"),
        ("webhooks", "webhooks:list_webhooks"),
        ("webhooks list", "webhooks:list_webhooks"),
        ("webhooks list a/b", "webhooks:list_webhooks"),
        ("webhooks enable a/b c", "webhooks:enable"),
        ("webhooks disable a/b c", "webhooks:disable"),
        ("webhooks test a/b c", "webhooks:test"),
    ],
)
def test_each_verb_has_its_function(line: str, run: str) -> None:
    from importlib import import_module

    arguments = parse(line.split())
    assert arguments.run == run
    module, _, function = run.partition(":")
    assert callable(getattr(import_module(f"orchestratorctl.verbs.{module}"), function))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "VERB"),
        ("stauts", "invalid choice: 'stauts'"),
        ("status -o xml", "invalid choice: 'xml'"),
        ("endpoints foo", "'foo' is no endpoint"),
        ("endpoints ../x", "'../x' is no endpoint"),
        ("endpoints a/b/c", "'a/b/c' is no endpoint"),
        ("show", "ID"),
        ("show 0", "'0' is no whole number"),
        ("show ٣", "is no whole number"),
        ("list --limit -1", "--limit"),
        ("list --status pending,done", "'done' is no status"),
        ("list --since yesterday", "neither a duration"),
        ("list --endpoint shop", "API/* for all of one"),
        ("list --endpoint */get", "'*/get' is no endpoint"),
        ("list --endpoint shop/get*", "'shop/get*' is no endpoint"),
        ("pause shop/*", "'shop/*' is no endpoint"),
        ("call", "API/NAME"),
        ("call a/b -p x", "'x' is not KEY=VALUE"),
        ("call a/b -p =x", "'=x' is not KEY=VALUE"),
        ("call a/b -p x=1 -p x=2", "given twice: x"),
        ('call a/b -p x=1 --params {"x":1}', "given twice: x"),
        ("call a/b --params [1]", "a JSON object"),
        ("call a/b --params {", "no JSON"),
        ('call a/b --params {"x":NaN}', "NaN is no JSON value"),
        ("call a/b --params @/no/such/file", "/no/such/file"),
        ("call a/b -p x=\udcff", "no UTF-8"),
        ("call a/b --delay soon", "'soon' is no duration"),
        ("call a/b --idempotency-key ü", "printable ASCII"),
        ("call a/b --timeout 5s", "--timeout needs --wait"),
        ("retry", "by ID, or choose them with --all"),
        ("retry x", "'x' is no whole number"),
        ("retry 1 --timeout 5s", "--timeout needs --wait"),
        ("retry 1 --dry-run --rate 1/s --status failed", "--status, --dry-run, --rate: only"),
        ("retry --all", "--all needs a filter"),
        ("retry --all --dry-run --rate 5/s", "--all needs a filter"),
        ("retry --all --status failed 5", "leave the IDs out"),
        ("retry --all --status failed --wait", "not for --all"),
        ("retry --all --status failed --force", "not for --all"),
        ("retry --al --status failed", "unrecognized arguments"),
        ("cancel", "ID"),
        ("webhooks enable a/b", "WEBHOOK"),
        ("webhooks off a/b", "invalid choice"),
    ],
)
def test_what_makes_no_sense_is_usage(
    line: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split(" ") if line else []) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err


def test_params_come_from_a_file_or_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "params.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps({"n": 7}).encode())
    assert parse(["call", "a/b", "--params", f"@{file}"]).params == {"n": 7}
    monkeypatch.setattr("sys.stdin", io.StringIO('{"n": 8}'))
    assert parse(["call", "a/b", "--params", "@-"]).params == {"n": 8}


def test_filters_are_named_as_the_api_names_them() -> None:
    line = "list --status failed,cancelled --status pending --status-code 5xx --status-code error"
    assert filters(parse(f"{line} --endpoint a/b --kind call --since 90".split())) == {
        "status": "failed,cancelled,pending",
        "status_code": "5xx,error",
        "endpoint": "a/b",
        "kind": "call",
        "since": "90s",
    }
    assert filters(parse(["list"])) == {}


@pytest.mark.parametrize("line", ["list", "retry --all"])
def test_all_endpoints_of_an_api_are_a_filter(line: str) -> None:
    assert filters(parse([*line.split(), "--endpoint", "shop/*"])) == {"endpoint": "shop/*"}


@pytest.mark.parametrize("line", ["-h", "retry -h", "webhooks enable -h", "--version"])
def test_help_and_version_are_data(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 0
    out, err = capsys.readouterr()
    assert "orchestratorctl" in out
    assert err == ""


def test_the_help_names_the_sockets_and_the_exit_codes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["--help"])
    out = capsys.readouterr().out
    assert "/run/orchestratord/control.sock" in out
    assert "78 bad configuration" in out
