"""What is said of a folder that is not good: each error once, at its place, with what to write."""

# ruff: noqa: E501  # messages are easier to compare with what is written when they are not cut

from __future__ import annotations

import sys

import pytest
from config_parts import ConfigFolder

GET = "apis/shop/endpoints/get.yaml"


def test_the_error_of_the_documentation(config: ConfigFolder) -> None:
    config.endpoint(
        "\n" * 9 + "path: /x\nretry:\n    backoff: expo\n", name="getUsers", api="salesforce"
    )
    assert config.error() == (
        "apis/salesforce/endpoints/getUsers.yaml:12:5: retry.backoff: unknown strategy 'expo', did "
        "you mean 'exponential'?"
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("metod: GET", "2:1: metod: unknown key, did you mean 'method'?"),
        ("Timeout: 3s", "2:1: Timeout: unknown key, did you mean 'timeout'?"),
        ("base_url: http://x", "2:1: base_url: unknown key here; it belongs in the API's api.yaml"),
        ("rate_limit: 10/s", "2:1: rate_limit: unknown key"),
        ("succes_if: x", "2:1: succes_if: unknown key, did you mean 'success_if'?"),
        ("success_if: 'records[?'", "2:1: success_if: is not JMESPath: it ends too early"),
        ("success_if: 'a b'", "2:1: success_if: is not JMESPath: unexpected 'b' at character 3"),
        ("success_if: lenght(a)", "2:1: success_if: is not JMESPath: there is no function lenght()"),
        ("type: htpp", "2:1: type: unknown type 'htpp', did you mean 'http'?"),
        ("type: 007", "2:1: type: unknown type '007'; known is http"),
        ("type: true", "2:1: type: unknown type 'true'; known is http"),
        ("type: [http]", "2:1: type: expected a text, not a list"),
        ("method: gett", "2:1: method: unknown value 'gett', did you mean 'GET'?"),
        ("timeout: soon", "2:1: timeout: 'soon' is not a duration: write 500ms, 10s, 5m, 2h, 1d, or "
         "a number of seconds"),
        ("timeout: 0", "2:1: timeout: must be more than 0, not 0"),
        ("timeout: -1", "2:1: timeout: -1 is not a duration: write 500ms, 10s, 5m, 2h, 1d, or a "
         "number of seconds"),
        ("timeout: 12:30", "2:1: timeout: '12:30' is not a duration: write 500ms, 10s, 5m, 2h, 1d, "
         "or a number of seconds"),
        ("timeout: true", "2:1: timeout: expected a number, not true"),
        ("idempotent: perhaps", "2:1: idempotent: expected true or false, not 'perhaps'"),
        ("enabled: []", "2:1: enabled: expected true or false, not a list"),
        ("success: 999", "2:1: success: 999 is not a status code: write 200, 2xx, 500-599, error, or "
         "a list of these"),
        ("success: []", "2:1: success: an empty list matches nothing; leave the key out to match any"),
        ("query: [a]", "2:1: query: expected a mapping, not a list"),
        ("query: {a: [1]}", "2:9: query.a: expected a text"),
        ("headers: text", "2:1: headers: expected a mapping, not a text"),
        ('headers: {"A B": x}', "2:11: headers.A***: is not the name of a header"),
        ("headers: {A: x, a: y}", "2:17: headers.a: the same header as A; keep one"),
        ("headers: {Content-Length: 3}", "2:11: headers.Content-Length: is set by the client itself; "
         "leave it out"),
        ("retry: 5", "2:1: retry: expected a mapping, not 5"),
        ("retry: {max_atempts: 3}", "2:9: retry.max_atempts: unknown key, did you mean "
         "'max_attempts'?"),
        ("retry: {max_attempts: 0}", "2:9: retry.max_attempts: must be at least 1, not 0"),
        ("retry: {max_attempts: 1.5}", "2:9: retry.max_attempts: expected a whole number, not 1.5"),
        ("retry: {max_attempts: true}", "2:9: retry.max_attempts: expected a number, not true"),
        ("retry: {jitter: 2}", "2:9: retry.jitter: must be at most 1, not 2"),
        ("retry: {when: [500, sometimes]}", "2:9: retry.when: 'sometimes' is not a status code: write "
         "200, 2xx, 500-599, error, or a list of these"),
        ("retry: {backoff: [5s]}", "2:9: retry.backoff: expected the name of a strategy, or a "
         "mapping with `strategy` and its options"),
        ("retry: {backoff: {delay: 5s}}", "2:9: retry.backoff: needs `strategy`, the name of one; "
         "known are exponential, fixed, linear, list"),
        ("retry: {backoff: {strategy: liner}}", "2:19: retry.backoff.strategy: unknown strategy "
         "'liner', did you mean 'linear'?"),
        ("retry: {backoff: {strategy: fixed, dely: 5s}}", "2:36: retry.backoff.dely: unknown key, did "
         "you mean 'delay'?"),
        ("retry: {backoff: {strategy: fixed, delay: x}}", "2:36: retry.backoff.delay: 'x' is not a "
         "duration: write 500ms, 10s, 5m, 2h, 1d, or a number of seconds"),
        ("retry: {backoff: list}", "2:9: retry.backoff.delays: is required"),
        ("retry: {backoff: {strategy: list, delays: []}}", "2:35: retry.backoff.delays: needs 1 or "
         "more items, and has 0"),
        ("body: {jsn: 1}", "2:8: body.jsn: unknown key, did you mean 'json'?"),
        ("body: {json: 1, text: x}", "2:1: body: give exactly one of json, form, text and file"),
        ("body: {file: x}", "2:8: body.file: x cannot be read: No such file or directory"),
        ("body: {file: ../x}", "2:8: body.file: '../x' leads out of the config folder"),
        ("body: {file: /etc/passwd}", "2:8: body.file: '/etc/passwd' leads out of the config"),
        ("body: {file: apis}", "2:8: body.file: apis is not a file"),
        ("params: [id]", "2:1: params: expected a mapping, not a list"),
        ("params: {id: {type: int}}", "2:15: params.id.type: unknown value 'int', did you mean "
         "'integer'?"),
        ("params: {id: {requierd: true}}", "2:15: params.id.requierd: unknown key, did you mean "
         "'required'?"),
        ("params: {id: {type: integer, default: many}}", "2:30: params.id.default: expected a whole "
         'number, not "many"'),
        ("params: {id: {type: array, default: {}}}", "2:28: params.id.default: expected a list, not "
         "{}"),
        ("schedule: 15m", "2:1: schedule: expected {every: 15m}, {every: day, at: '10:30'} or "
         "{cron: '*/15 * * * *'}, not '15m'"),
        ("schedule: {cron: '@daily'}", "2:12: schedule.cron: '@daily' is written as '0 0 * * *'"),
        ("schedule: {cron: hourly}", "2:12: schedule.cron: 'hourly' has 1 field; five are read, such "
         "as */15 * * * *"),
        ("schedule: {every: '@daily'}", "2:12: schedule.every: '@daily' is written as `cron: '0 0 * * "
         "*'`"),
        ("schedule: '@daily'", "2:1: schedule: expected {every: 15m}, {every: day, at: '10:30'} or "
         "{cron: '*/15 * * * *'}, not '@daily'"),
        ("schedule: {}", "2:1: schedule: needs `every` or `cron`, one of the two"),
        ("schedule: {every: 1h, cron: '* * * * *'}", "2:1: schedule: needs `every` or `cron`, one of "
         "the two"),
        ("schedule: {every: 0s}", "2:12: schedule.every: must be at least 1s"),
        ("schedule: {every: mondays}", "2:12: schedule.every: 'mondays' is neither a duration nor one "
         "of minute, hour, day, monday, tuesday, wednesday, thursday, friday, saturday, sunday, did "
         "you mean 'monday'?"),
        ("schedule: {every: mondays, at: 10:30}", "2:12: schedule.every: 'mondays' is neither a "
         "duration nor one of minute, hour, day, monday, tuesday, wednesday, thursday, friday, "
         "saturday, sunday, did you mean 'monday'?"),
        ("schedule: {every: {}}", "2:12: schedule.every: expected a text or a number, not a mapping"),
        ("schedule: {every: day, at: 25:00}", "2:24: schedule.at: write it as 10:30"),
        ("schedule: {every: hour, at: 10:30}", "2:25: schedule.at: for an hour, write :30"),
        ("schedule: {every: 2h, at: 10:30}", "2:23: schedule.at: goes with `every: hour`, "
         "`every: day`, or a day of the week"),
        ("schedule: {cron: '* * * * *', at: 10:30}", "2:31: schedule.at: goes with `every`; in `cron` "
         "the time is written already"),
        ("schedule: {cron: '* * *'}", "2:12: schedule.cron: '* * *' has 3 fields; five are read, such "
         "as */15 * * * *"),
        ("schedule: {cron: '0 * * * * *'}", "2:12: schedule.cron: '0 * * * * *' has 6 fields; five "
         "are read, such as */15 * * * *"),
        ("schedule: {cron: '99 * * * *'}", "2:12: schedule.cron: '99 * * * *' cannot be read: bad "
         "minute"),
        ("schedule: {every: day, timezone: Mars/Olympus}", "2:24: schedule.timezone: there is no time "
         "zone 'Mars/Olympus'; write one such as Europe/Paris"),
        ("schedule: {every: day, overlap: queue}", "2:24: schedule.overlap: unknown value 'queue'; "
         "known are allow, skip"),
        ("schedule: {every: day, params: {id: 1}}", "2:33: schedule.params.id: there is no such "
         "parameter"),
        ("params: {id: {required: true}}\nschedule: {every: day}", "3:1: schedule.params.id: is "
         "required"),
        ("params: {n: {type: integer}}\nschedule: {every: day, params: {n: x}}", "3:33: "
         'schedule.params.n: expected a whole number, not "x"'),
        ("query: {a: '{{ param.id }}'}", "2:9: query.a: 'param' is not known in a template, did you "
         "mean 'params'?"),
        ("query: {a: '{{ params.id }}'}", f"2:9: query.a: 'params.id' is not declared under params of "
         f"{GET}"),
        ("params: {idd: }\nquery: {a: '{{ params.id|int + 1 }}'}", "3:9: query.a: 'params.id' is not "
         f"declared under params of {GET}, did you mean 'idd'?"),
        ("body: {json: {a: [{b: \"{{ params['id'] }}\"}]}}", "2:8: body.json: 'params.id' is not "
         f"declared under params of {GET}"),
        ("query: {a: '{{ task.ids }}'}", "2:9: query.a: 'task.ids' is not known in a template, did you "
         "mean 'task.id'?"),
        ("query: {a: '{{ task.id'}", "2:9: query.a: the template in '{{ task.id' has {{ without }}"),
        ("query: {a: '{% if x %}'}", "2:9: query.a: templates have expressions only: {{ … }}; {% %} "
         "and {# #} are not available"),
    ],
)  # fmt: skip
def test_endpoints(config: ConfigFolder, text: str, error: str) -> None:
    config.endpoint(f"path: /x\n{text}\n")
    found = config.error()
    assert found.startswith(f"{GET}:{error}"), found
    # What follows in the message is at most the list of what is known.
    assert found.removeprefix(f"{GET}:{error}").split(" ")[0] in ("", ";")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "1:1: base_url: is required where an endpoint is called by HTTP"),
        ("base_url:", "1:1: base_url: is required where an endpoint is called by HTTP"),
        ("headers: {}", "1:1: base_url: is required where an endpoint is called by HTTP; write "
         "base_url: https://api.example.com"),
        ("base_url: ftp://a", "1:1: base_url: begins with http:// or https://"),
        ("base_url: a.example", "1:1: base_url: begins with http:// or https://"),
        ("base_url: https://", "1:1: base_url: has no host or port that can be used"),
        ("base_url: https://a:99999", "1:1: base_url: has no host or port that can be used"),
        ("base_url: https://a:0", "1:1: base_url: has no host or port that can be used"),
        ("base_url: 'https://a|b/'", "1:1: base_url: has no host or port that can be used"),
        ("base_url: https://me:pw@a", "1:1: base_url: holds no user name or password; write them "
         "under auth"),
        ("base_url: https://a/?x=1", "1:1: base_url: holds no query; write it under an endpoint's "
         "query"),
        ("base_url: https://a/#top", "1:1: base_url: holds no fragment; leave out what begins with #"),
        ("base_url: 'https://a/b c'", "1:1: base_url: holds no blanks or control characters"),
        ("base_url: https://{{ params.host }}/", "1:1: base_url: takes no template; what changes from "
         "call to call belongs into an endpoint's path"),
        ("base_url: https://a\nauth: {}", "2:1: auth: give exactly one of bearer, basic, header and "
         "oauth2"),
        ("base_url: https://a\nauth: {bearer: abcd, header: {name: X, value: abcd}}", "2:1: auth: give "
         "exactly one of bearer, basic, header and oauth2"),
        ("base_url: https://a\nauth: {header: {name: X Y, value: abcd}}", "2:17: auth.header.name: is "
         "not the name of a header"),
        ("base_url: https://a\nauth: {digest: {}}", "2:8: auth.digest: unknown key; known are basic, "
         "bearer, header, oauth2"),
        ("base_url: https://a\nauth: {oauth2: {token_url: 'https://a/t', client_id: x}}", "2:8: "
         "auth.oauth2: client_secret is required where there is no refresh_token"),
        ("base_url: https://a\nauth: {oauth2: {token_url: a/t, client_id: x, refresh_token: abcd}}",
         "2:17: auth.oauth2.token_url: begins with http:// or https://"),
        ("base_url: https://a\ntls: {}", "2:1: tls: give ca, or cert and key, or all three"),
        ("base_url: https://a\ntls: {ca: x.pem}", "2:7: tls.ca: x.pem cannot be read: No such file"),
        ("base_url: https://a\ntls: {ca: /}", "2:7: tls.ca: / is not a file"),
        ("base_url: https://a\ntls: {ca: apis/shop/api.yaml}", "2:7: tls.ca: holds no certificate in"),
        ("base_url: https://a\nproxy: proxy:3128", "2:1: proxy: begins with http:// or https://"),
        ("base_url: https://a\nproxy: 'http://proxy'", "2:1: proxy: needs the port of the proxy, such"),
        ("base_url: https://a\nauth: {basic: {username: x}}", "2:8: auth.basic.password: is required"),
        ("base_url: https://a\nmax_response: 9GiB", "2:1: max_response: must be at most 1,073,741,824, not "),
        ("base_url: https://a\nconcurrency: 0", "2:1: concurrency: must be at least 1, not 0"),
        ("base_url: https://a\nrate_limit: 0.5/s", "2:1: rate_limit: '0.5/s' is not a rate limit: write "
         "a whole number of times a second, minute, hour or day, such as 10/s, 100/min or 5000/d"),
        ("base_url: https://a\nquota: {remaining: X-Left}", "2:1: quota: give both remaining and"),
        ("base_url: https://a\nquota: {remaining: X Left, reset: R}", "2:9: quota.remaining: is not the"),
        ("base_url: https://a\nrate_limit: 100", "2:1: rate_limit: 100 is not a rate limit: write a"),
        ("base_url: https://a\nmax_response: lots", "2:1: max_response: 'lots' is not a size: write "
         "64KiB, 1MiB, or a number of bytes"),
        ("base_url: https://a\negress: {allow: [a.example]}", "2:18: egress.allow.0: 'a.example' is "
         "not a rule:"),
        ("base_url: https://a\negress: 10.0.0.0/8", "2:1: egress: the rules stand below `allow`: "
         "write egress: {allow: [10.0.0.0/8]}"),
        ("base_url: https://a\negress: [10.0.0.0/8, '127.0.0.1:9']", "2:1: egress: the rules stand "
         "below `allow`: write egress: {allow: [10.0.0.0/8, 127.0.0.1:9]}"),
        ("base_url: https://a\negress: {allow: 10.0.0.0/8}", "2:10: egress.allow: expected a list, "
         "not a text"),
        ("base_url: https://a\nheaders: {X: '{{ nope }}'}", "2:11: headers.X: 'nope' is not known in a "
         "template"),
        ("base_url: https://a\nheaders: {X: '{{ params.x }}'}", "2:11: headers.X: 'params.x' is not "
         f"declared under params of {GET}"),
        ("base_url: https://a\npath: /x", "2:1: path: unknown key"),
        ("base_url: https://a\ntimeout: x", "2:1: timeout: 'x' is not a duration: write 500ms, 10s, "
         "5m, 2h, 1d, or a number of seconds"),
    ],
)  # fmt: skip
def test_apis(config: ConfigFolder, text: str, error: str) -> None:
    config.api(text)
    config.endpoint()
    config.endpoint(name="second")
    assert config.error().startswith(f"apis/shop/api.yaml:{error}")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("concurency: 5", "1:1: concurency: unknown key, did you mean 'concurrency'?"),
        ("zz: {bind: x}", "1:1: zz: unknown key; known are "),
        ("http: {bind: x}", "1:1: http.token: is required"),
        ("databases: {}", "1:1: databases: unknown key, did you mean 'database'?"),
        ("concurrency: none", "1:1: concurrency: expected a whole number, not 'none'"),
        ("database: mysql://x/y", "1:1: database: expected sqlite:////absolute/path, "
         "sqlite:///path below the config folder, or postgresql://user@host/database"),
        ("database: 'sqlite:///'", "1:1: database: expected sqlite:////absolute/path, "
         "sqlite:///path below the config folder, or postgresql://user@host/database"),
        ("database: 'sqlite://:memory:'", "1:1: database: expected sqlite:////absolute/path, "
         "sqlite:///path below the config folder, or postgresql://user@host/database"),
        ("database: postgresql://u:s3cret@h/x?nonsense=1", "1:1: database: libpq cannot read it: "
         'invalid URI query parameter: "nonsense"'),
        ("database: postgresql://u:s3cr%t@h/x", "1:1: database: libpq cannot read it: invalid "
         "percent-encoded token; signs such as @, / and % in a password are written as"),
        ("database: postgresql://u:s3/cret@h/x", "1:1: database: its port is no number; signs such"),
        ("lease: 1s", "1:1: lease: must be at least 3s"),
        ("retention: {done: 1d}", "1:13: retention.done: unknown key; known are cancelled, failed, "
         "succeeded"),
        ("log: {level: loud}", "1:7: log.level: unknown value 'loud'; known are debug, error, info, "
         "warning"),
        ("log: {format: jsn}", "1:7: log.format: unknown value 'jsn', did you mean 'json'?"),
        ("plugins: {timeout: 0}", "1:11: plugins.timeout: must be more than 0"),
        ("plugins: {dirs: plugins}", "1:11: plugins.dirs: expected a list, not a text"),
        ("egress: {allow: [10.0.0.1/8]}", "1:18: egress.allow.0: '10.0.0.1/8' is not a range: did you "
         "mean 10.0.0.0/8?"),
        ("defaults: 5", "1:1: defaults: expected a mapping"),
        ("defaults: {path: /x}", "1:12: defaults.path: unknown key; known are breaker, pace, "
         "retry, timeout, webhooks"),
        ("defaults: {concurrency: 5}", "1:12: defaults.concurrency: unknown key here; it belongs in "
         "the API's api.yaml"),
        ("defaults: {retry: {jitter: x}}", "1:20: defaults.retry.jitter: expected a number, not 'x'"),
        ("defaults: {webhooks: 7}", "1:12: defaults.webhooks: expected a list, not 7"),
    ],
)  # fmt: skip
def test_the_daemons_settings(config: ConfigFolder, text: str, error: str) -> None:
    config.daemon(text)
    for name in ("a", "b", "c"):
        config.endpoint(name=name)
    config.endpoint("path: /x\nretry: {inline: 1}\n", name="own")
    assert config.error().startswith(f"orchestratord.yaml:{error}")


def test_postgresql_needs_its_extra(config: ConfigFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    config.daemon("database: postgresql://u@h/x")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert config.error() == (
        "orchestratord.yaml:1:1: database: takes psycopg, which is not installed: "
        "pip install 'orchestratord[postgres]'"
    )


def test_an_api_without_endpoints_is_checked_too(config: ConfigFolder) -> None:
    config.api("retry: {jitter: 7}\nwebhooks: [{}]\n")
    assert config.errors() == [
        "apis/shop/api.yaml:1:9: retry.jitter: must be at most 1, not 7",
        "apis/shop/api.yaml:2:12: webhooks.0.phase: is required",
        "apis/shop/api.yaml:2:12: webhooks.0.url: is required",
    ]


def test_every_error_of_every_file_at_once_in_their_order(config: ConfigFolder) -> None:
    config.daemon("log: {level: loud}\nlease: x\ndefaults: {timeout: x}\n")
    config.api("base_url: https://a\nheaders: {X: '{{ y }}'}\nconcurrency: x\n")
    config.endpoint(
        "path: /{{ z }}\nmethod: x\nschedule: {every: x}\nretry: {jitter: x}\n", name="a"
    )
    config.endpoint("path: '\n", name="b")
    config.endpoint("webhooks: [{phase: x, url: y}]\n", name="c")
    config.endpoint("path: /x\n", name="good")
    assert [error.split(": ")[0] for error in config.errors()] == [
        "apis/shop/api.yaml:2:11",
        "apis/shop/api.yaml:3:1",
        "apis/shop/endpoints/a.yaml:1:1",
        "apis/shop/endpoints/a.yaml:2:1",
        "apis/shop/endpoints/a.yaml:3:12",
        "apis/shop/endpoints/a.yaml:4:9",
        "apis/shop/endpoints/b.yaml:1:7",
        "apis/shop/endpoints/c.yaml:1:1",
        "apis/shop/endpoints/c.yaml:1:13",
        "apis/shop/endpoints/c.yaml:1:23",
        "orchestratord.yaml:1:7",
        "orchestratord.yaml:2:1",
        "orchestratord.yaml:3:12",
    ]


def test_files_that_cannot_be_read_do_not_hide_the_others(config: ConfigFolder) -> None:
    config.write("orchestratord.yaml", b"\xff")
    config.api("base_url: [\n")
    config.endpoint("path: /x\ntimeout: x\n")
    assert [error.split(": ")[0] for error in config.errors()] == [
        "apis/shop/api.yaml:1:11",
        f"{GET}:2:1",
        "orchestratord.yaml:1:1",
    ]


def test_an_alias_points_to_where_its_value_stands(config: ConfigFolder) -> None:
    config.endpoint("path: /x\nquery: &q\n  a: [1]\nheaders: *q\n")
    assert config.error() == f"{GET}:3:3: query.a: expected a text"


def test_an_error_of_an_inherited_value_points_to_its_file_and_is_reported_once(
    config: ConfigFolder,
) -> None:
    config.api("base_url: https://a\nretry: {backoff: {strategy: list, delays: [x]}}\n")
    for number in range(5):
        config.endpoint(f"path: /x\nretry: {{max_attempts: {number + 1}}}\n", name=f"e{number}")
    assert config.error() == (
        "apis/shop/api.yaml:2:44: retry.backoff.delays.0: 'x' is not a duration: write 500ms, 10s, "
        "5m, 2h, 1d, or a number of seconds"
    )


def test_keys_of_several_lines_make_messages_of_one(config: ConfigFolder) -> None:
    config.endpoint('path: /x\n"a\\nb\\e[31m": 1\n')
    (error,) = config.errors()
    assert error.startswith(f"{GET}:2:1: a***: unknown key")
    assert error.isprintable()


@pytest.mark.parametrize(
    ("hosts", "warned"),
    [("one", False), ("one,two", True), ("one,two/q?target_session_attrs=any", True),
     ("one,two/q?target_session_attrs=read-write", False),
     ("one,two/q?target_session_attrs=primary", False),
     ("one/q?target_session_attrs=prefer-standby", True)],
)  # fmt: skip
def test_a_database_that_may_be_a_standby_is_warned_of(
    config: ConfigFolder, hosts: str, warned: bool
) -> None:
    config.daemon(f"database: 'postgresql://u@{hosts}'\n")
    config.api("base_url: http://receiver.internal:9000\n")
    config.endpoint()
    words = (
        "orchestratord.yaml:1:1: database: may lead to a standby, which takes no tasks: write "
        "target_session_attrs=read-write"
    )
    assert config.warnings() == ([words] if warned else [])


class TestAddresses:
    def test_literal_addresses_that_would_be_denied_are_warned_of(
        self, config: ConfigFolder
    ) -> None:
        hook = "{name: a, phase: on_success, url: 'http://[::1]:9000/{{ task.id }}'}"
        config.api(f"base_url: http://10.1.2.3/x\nwebhooks: [{hook}]\n")
        config.endpoint(name="a")
        config.endpoint(name="b")
        first, second = config.warnings()
        assert first.startswith("apis/shop/api.yaml:1:1: base_url: 10.1.2.3 is a private address")
        assert "egress: {allow: [10.1.2.3:80]}" in first
        assert second.startswith(
            "apis/shop/api.yaml:2:41: webhooks.0.url: ::1 is a loopback address"
        )

    def test_not_where_a_rule_opens_them(self, config: ConfigFolder) -> None:
        hook = "{name: a, phase: on_success, url: 'http://127.0.0.1:9000/'}"
        config.daemon("egress: {allow: [10.0.0.0/8]}\n")
        config.api(
            "base_url: http://10.1.2.3/x\negress: {allow: ['127.0.0.1:9000']}\n"
            f"webhooks: [{hook}]\n"
        )
        config.endpoint()
        assert config.warnings() == []

    def test_names_are_not_looked_up(self, config: ConfigFolder) -> None:
        config.api("base_url: http://receiver.internal:9000\n")
        config.endpoint()
        assert config.warnings() == []
