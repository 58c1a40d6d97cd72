from __future__ import annotations

import io
import json
from argparse import ArgumentTypeError
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from orchestratorctl.argument_types import duration, since
from orchestratorctl.main import main, parse
from orchestratorctl.shell_completion import _SOURCES
from orchestratorctl.verb_table import EVERYWHERE, VERBS, Verb, filters


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


def rows(verbs: tuple[Verb, ...] = VERBS) -> Iterator[Verb]:
    """Every row of the table, those below others too."""
    for verb in verbs:
        yield verb
        yield from rows(verb.verbs)


@pytest.mark.parametrize("verb", [*rows()], ids=lambda verb: verb.name)
def test_each_verb_has_its_function(verb: Verb) -> None:
    module, _, function = verb.run.partition(":")
    assert callable(getattr(import_module(f"orchestratorctl.{module}"), function))


def test_each_source_of_the_completion_exists() -> None:
    named = {
        argument.complete.partition(" ")[0]
        for verb in rows()
        for argument in (*EVERYWHERE, *verb.arguments)
        if isinstance(argument.complete, str)
    }
    assert named == set(_SOURCES)


@pytest.mark.parametrize(
    ("line", "run"),
    [
        ("status", "status"),
        ("endpoints", "endpoints"),
        ("endpoints a/b", "endpoints"),
        ("list", "list_tasks"),
        ("show 1", "show"),
        ("call a/b", "call"),
        ("retry 1 2 --wait --timeout 5s", "retry"),
        ("retry --force --wait 1 2", "retry"),
        ("cancel 1 2", "cancel"),
        ("pause a/b", "pause"),
        ("pause a/*", "pause"),
        ("resume a/b", "resume"),
        ("resume a/*", "resume"),
        ("actions --limit 5", "actions"),
        ("bulks 1", "bulks"),
        ("reload", "reload"),
        ("webhooks", "list_webhooks"),
        ("webhooks list", "list_webhooks"),
        ("webhooks list a/b", "list_webhooks"),
        ("webhooks enable a/b c", "enable"),
        ("webhooks disable a/b c", "disable"),
        ("webhooks test a/b c", "test"),
    ],
)
def test_a_line_is_read_as_its_verb(line: str, run: str) -> None:
    assert parse(line.split()).verb.run.partition(":")[2] == run


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "VERB"),
        ("stauts", "there is no verb 'stauts', did you mean 'status'?"),
        ("ls", "there is no verb 'ls', did you mean 'list'?"),
        ("xyz", "there is no verb 'xyz'; there are status, endpoints, list,"),
        ("xyz", "outbox, completion, and a plugin's while the daemon answers"),
        ("webhooks xyz", "there are list, enable, disable, test\n"),
        ("webhooks tset a/b c", "there is no verb 'tset', did you mean 'test'?"),
        ("status -o xml", "invalid choice: 'xml'"),
        ("endpoints foo", "'foo' is not an endpoint"),
        ("call 42", "'42' is the id of a task, not an endpoint: orchestratorctl show 42"),
        ("show shop/get", "not the id of a task: orchestratorctl list --endpoint shop/get"),
        ("bulks shop/get", "not the id of a task"),
        ("endpoints ../x", "'../x' is not an endpoint"),
        ("endpoints a/b/c", "'a/b/c' is not an endpoint"),
        ("show", "ID"),
        ("show 0", "'0' is not a whole number"),
        ("show ٣", "is not a whole number"),
        ("list --limit -1", "--limit"),
        ("list --status pending,done", "'done' is not a status"),
        ("list --reason exhausted,ambigous", "'ambigous' is not a reason"),
        ("list --since yesterday", "neither a duration"),
        ("list --endpoint shop", "API/* for all of one"),
        ("list --endpoint */get", "'*/get' is not an endpoint"),
        ("list --endpoint shop/get*", "'shop/get*' is not an endpoint"),
        ("pause shop/get*", "'shop/get*' is not an endpoint"),
        ("pause orchestratord", "'orchestratord' is not an endpoint"),
        ("resume */get", "'*/get' is not an endpoint"),
        ("call shop/*", "'shop/*' is not an endpoint"),
        ("call mail.sendWelcome", "'mail.sendWelcome' is not an endpoint; write API/NAME"),
        ("actions --limit 0", "--limit"),
        ("call", "API/NAME"),
        ("call a/b -p x", "'x' is not KEY=VALUE"),
        ("call a/b -p =x", "'=x' is not KEY=VALUE"),
        ("call a/b -p x=1 -p x=2", "given twice: x"),
        ('call a/b -p x=1 --params {"x":1}', "given twice: x"),
        ("call a/b --params [1]", "a JSON object"),
        ("call a/b --params {", "no JSON"),
        ('call a/b --params {"x":1,"x":2}', "a key stands twice"),
        ('call a/b --params {"x":NaN}', "NaN is not a JSON value"),
        ("call a/b --params @/no/such/file", "/no/such/file"),
        ("call a/b -p x=\udcff", "not UTF-8"),
        ("call a/b --delay soon", "'soon' is not a duration"),
        ("call a/b --at soon", "'soon' is not a time; write 2026-11-24T22:00:00Z"),
        ("call a/b --at 2026-11-24T22:00:00Z --delay 5s", "--at and --delay do not go together"),
        ("call a/b --idempotency-key ü", "printable ASCII"),
        ("call a/b --timeout 5s", "--timeout needs --wait"),
        ("retry", "by ID, or choose them with --all"),
        ("retry x", "'x' is not a whole number"),
        ("retry 1 --timeout 5s", "--timeout needs --wait"),
        ("retry 1 --dry-run --rate 1/s --status failed", "--status, --dry-run, --rate: only"),
        ("retry 1 --include-ambiguous", "--include-ambiguous: only with --all"),
        ("retry --all", "--all needs a filter"),
        ("retry --all --include-ambiguous", "--all needs a filter"),
        ("retry --all --dry-run --rate 5/s", "--all needs a filter"),
        ("retry --all --status failed 5", "leave the IDs out"),
        ("retry --all --status failed -p n=1", "not for --all"),
        ("bulks --wait", "--wait needs the ID"),
        ("retry --al --status failed", "unrecognized arguments: --al\nSee: orchestratorctl retry"),
        ("webhooks test a/b c d", "unrecognized arguments: d\nSee: orchestratorctl webhooks test"),
        ("doctor", "for other commands see: orchestratord --help"),
        ("cancel", "ID"),
        ("webhooks enable a/b", "WEBHOOK"),
        ("webhooks off a/b", "there is no verb 'off'"),
    ],
)
def test_what_makes_no_sense_is_usage(
    line: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split(" ") if line else []) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert len(err.splitlines()) == 2


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


# -- durations and times -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("10s", 10),
        ("5m", 300),
        ("2h", 7200),
        ("1d", 86400),
        ("90", 90),
        ("1.5", 1.5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-5s", "1h30m", "5 m", "nan", "inf", "1e3", "٣s", "5w"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="not a duration"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("2h", "2h"),
        ("90", "90s"),
        ("2026-11-24T22:00:00Z", "2026-11-24T22:00:00Z"),
        ("2026-11-24T23:00:00+01:00", "2026-11-24T22:00:00Z"),
        ("2026-11-24 22:00", "2026-11-24T22:00:00Z"),
        ("2026-11-24", "2026-11-24T00:00:00Z"),
    ],
)
def test_since_is_sent_as_a_duration_or_a_time_in_utc(text: str, sent: str) -> None:
    assert since(text) == sent


def test_what_is_no_since() -> None:
    with pytest.raises(ArgumentTypeError, match="neither a duration"):
        since("yesterday")
