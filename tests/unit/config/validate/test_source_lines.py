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


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("path: {{ params.id }}", "path: {{ params.id }}"),
        ("path: /users/{{ params.od }}", "path: /users/{{ params.od }}"),
        ("path: users/{{ parms.id }}", "path: users/{{ parms.id }}"),
        ("path: /x/s3cr3tn4me/{{ parms.id }}", "path: /x/**********/{{ parms.id }}"),
        ("path: /x?token=hush&{{ parms.id }}", "path: /x?token=***&{{ parms.id }}"),
        ("retry: 5", "retry: 5"),
        ("retry: 3 times", "retry: 3 times"),
        ("retry: {max_atempts: 3}", "retry: {max_atempts: ***"),
        ("retry: {max_attempts: {a: 7}}", "retry: {max_attempts: {a: 7}}"),
        ("schedule: 15m", "schedule: 15m"),
        ("schedule: every day", "schedule: every day"),
        ("schedule: {every: 1h, cron: '* * * * *'}", "schedule: {every: 1h, cron: '* * * * *'}"),
        ("schedule:\n  cron: */15 * * * *", "  cron: */15 * * * *"),
        ("schedule:\n  cron: @daily", "  cron: @daily"),
        ("success: {code: 200}", "success: {code: 200}"),
        ("timeout: 1h30m", "timeout: 1h30m"),
        ("timeout: [30s]", "timeout: [30s]"),
        ("params: [id]", "params: [id]"),
        ("method: fetch", "method: fetch"),
        ("webhooks: {url: 'https://h.example/hush', phase: x}",
         "webhooks: {url: ***                     , phase: *}"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("other", ["", "nonsense: hush\n"])
def test_the_value_that_is_wrong_is_shown(
    config: ConfigFolder, line: str, shown: str, other: str
) -> None:
    config.api()
    first = "" if line.startswith("path") else "path: /x\n"
    config.write("apis/shop/endpoints/get.yaml", f"{first}{line}\n{other}")
    assert shown in [problem.source for problem in problems(config)]
    assert "hush" not in "".join(problem.source for problem in problems(config))


def test_the_value_of_a_key_that_another_file_has_is_shown(config: ConfigFolder) -> None:
    config.api("base_url: https://a.example\npath: /users/{{ params.id }}\nschedule: 15m\n")
    config.endpoint("path: /x\nbase_url: https://h.example/hush\n")
    shown = {problem.key: problem.source for problem in problems(config)}
    assert shown["path"] == "path: /users/{{ params.id }}"
    assert shown["schedule"] == "schedule: 15m"
    assert shown["base_url"] == "base_url: ***"


def test_no_value_is_shown_of_a_file_that_was_not_read_as_it_is(config: ConfigFolder) -> None:
    assert source(config, "path: /x\nheaders: {Authorization: hush, b: }}\n") == "headers: ***"
    assert source(config, "path: /x\nb: ]\nheaders: {Authorization: hush}\n") == "b: ]"
    assert source(config, "path: /x\npassword: hush: x\n") == "password: ***"
    assert source(config, "path: /x\nretry:\n  - hush\n") == "retry:"
    text = "path: /x\nbody: {json: {a: hush}, fomr: hush}\n"
    line = source(config, text)
    assert line.split() == ["body:", "***", "fomr:", "***"]
    assert line.index("fomr") == text.splitlines()[1].index("fomr")


def test_nor_within_and_below_a_key_that_resembles_one_of_a_secret(config: ConfigFolder) -> None:
    config.api("base_url: https://a.example\nauth:\n  basic:\n    username: [hush]\n")
    config.endpoint()
    shown = {problem.key: problem.source for problem in problems(config)}
    assert shown["auth.basic.username"] == "    username: ***"
    config.api("base_url: https://a.example\ntimeout: -1\nheaders: {Cokie: hush, X: '${NOPE}'}\n")
    negative, missing = problems(config)
    assert negative.source == "timeout: -1"
    assert missing.source == "headers: {Cokie: *** , X: '${NOPE}'}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1\n", "a: [1"),
        ("path: '/x\n", "path: '/x"),
        ("path: /x\x07y\n", "path: /x\ufffdy"),
        (b"path: /\xff\n", "path: /\ufffd"),
        ("\ufeffpth: /x\n", "pth: ***"),
        ("path: /x\r\npth: /y\r\n", "pth: ***"),
        ("path: /x\u2028pth: /y\n", "pth: ***"),
        ("path: /x\ntimeout: " + "y" * 9999, "timeout: " + "y" * 391),
        ("path: /x\ntimeout: \"a\tb\"\n", 'timeout: "a\tb"'),
    ],
)  # fmt: skip
def test_lines(config: ConfigFolder, text: str | bytes, expected: str) -> None:
    assert source(config, text if isinstance(text, bytes) else text.encode()) == expected


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("'@dayly'", "'@dayly'"),
        ("{X: '@dayly'}", "{X: ***     }"),
        ("['@dayly']", "['@dayly']"),
        ("me:hush@host.example", "***@host.example"),
        ("'https://me:hush@host.example'", "'https://***@host.example'"),
        ('"https://me:a\'hush@host.example"', '"https://***@host.example"'),
        ("['me:hush@host.example']", "['***@host.example']"),
    ],
)
def test_a_user_of_a_url_is_hidden_and_a_quote_is_none(
    config: ConfigFolder, written: str, shown: str
) -> None:
    text = f"path: /x\nretry: {{backoff: fixed, max_attempts: x}}   # {written}\n"
    assert source(config, text).endswith(f"# {shown}")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (
            "webhooks: [{url: 'https://hooks.example/T0/hush', name: a, phase: after_requst}]",
            "webhooks: [{url: ***                            , name: *, phase: after_requst}]",
        ),
        (
            '{"webhooks":[{"url":"https://hooks.example/hush","phase":"after_requst"}],"path":"/"}',
            '{"webhooks":[{"url":***                         ,"phase":"after_requst"}],"path":***}',
        ),
        ("retry: {backoff: expo, max_attempts: 30}", "retry: {backoff: expo, max_attempts: **}"),
    ],
)
def test_of_a_line_the_value_of_its_own_key_alone_is_shown(
    config: ConfigFolder, line: str, shown: str
) -> None:
    text = line if line.startswith("{") else f"path: /x\n{line}\n"
    assert source(config, text) == shown


def test_messages_show_no_number_and_no_name_that_may_be_a_secret(config: ConfigFolder) -> None:
    api = "base_url: https://a.example\nauth: 7712345678\nsecrt: x\ntimeout: 7712345678\n"
    config.api(api)
    config.endpoint("path: '/x/{{ s3cr3tn4me }}/{{ parms }}'\n")
    told = [problem.message for problem in problems(config)]
    assert len(told) == 5
    assert "7712" not in "".join(told)
    assert "s3cr3t" not in "".join(told)
    assert "'parms' is not known" in "".join(told)


def test_what_has_no_place_has_no_line(config: ConfigFolder) -> None:
    config.write("apis/shop.yaml", "x: y\n")
    (problem,) = problems(config)
    assert (problem.line, problem.source) == (None, "")
