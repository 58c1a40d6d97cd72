"""A secret that stands where a mistake was made is not shown: neither with its line, nor in words.

Whether it is one, nothing tells by then: its key is misspelt, or the file is no YAML.
"""

from __future__ import annotations

import pytest
from config_parts import ADDRESSES, ConfigFolder

from orchestratord.config.load import load
from orchestratord.config.validate.secret_keys import resembles_secret_key
from orchestratord.config.yaml_keys import EndpointKeys
from orchestratord.errors import ConfigError, Problem

MARK = "s3cr3t-m4rk-77"

API = [
    # the name of a key
    "auth: {bearrer: MARK}",
    "auth: {barer: MARK}",
    "auth:\n  bearrer: MARK",
    "auth: {tokn: MARK}",
    "auth: {basic: {username: u, pasword: MARK}}",
    "auth: {basic: {username: u, passwrd: MARK}}",
    "auth: {basic: {user: u, password: MARK, realm: MARK}}",
    "auth: {header: {name: X-Key, valeu: MARK}}",
    "auth: {oauth2: {token_url: 'https://t.example/', client_id: i, client_secrt: MARK}}",
    "auht: {bearer: MARK}",
    "atuh:\n  bearer: MARK",
    "bearer: MARK",
    "token: MARK",
    "secrt: MARK",
    "apikey: MARK",
    "note: MARK",
    "heders: {X-Custom: MARK}",
    "heders: {X-Custom: MARK}, timeout: no",
    "heders: {Authorization: Bearer MARK}",
    "timeuot: 3s   # was MARK",
    # where it stands
    "auth: MARK",
    "auth: Bearer MARK",
    "auth: [MARK]",
    "auth: {bearer: [MARK]}",
    "auth: {bearer: {value: MARK}}",
    "auth: {basic: MARK}",
    "auth: {basic: 'user:MARK'}",
    "auth: {header: 'X-Key: MARK'}",
    "auth: {bearer: MARK, basic: {username: u, password: MARK}}",
    "auth: {MARK: bearer}",
    "auth: {MARK}",
    "auth: {bearer MARK}",
    "auth: {'bearer:MARK'}",
    "auth: {bearer=MARK: }",
    "headers: 'Authorization: Bearer MARK'",
    "headers: ['Authorization: Bearer MARK']",
    "headers: {Authorization Bearer MARK: ''}",
    "headers: {X-Custom: {value: MARK}}",
    "timeout: {bearer: MARK}",
    "retry: {bearer: MARK}",
    # the syntax
    "auth:\nbearer: MARK",
    "auth: {bearer: MARK",
    "auth: {bearer: 'MARK}",
    "auth:\n\tbearer: MARK",
    "auth:\n  bearer: *MARK",
    "auth:\n  bearer: !MARK",
    "auth:\n  bearer: &MARK",
    "auth:\n  bearer: @MARK",
    "auth:\n  bearer: %MARK",
    "auth:\n  bearer: `MARK`",
    "auth:\n  bearer: x: MARK",
    "auth:\n  bearer MARK",
    "auth:\n  bearer MARK\n  basic: {}",
    "auth:\n  bearer: x\n MARK",
    "auth:\n  bearer: MARK\n  bearer: MARK",
    "- auth: {bearer: MARK}",
    "MARK",
    "--- MARK\n--- MARK",
    "auth: {bearer: MARK}\x07",
    "auth: {bearer: MARK}#no blank",
    # the reference
    "auth: {bearer: '${MARK}'}",
    "auth: {bearer: '${secret:MARK MARK}'}",
    "auth: {bearer: '${secret: MARK}'}",
    "auth: {bearer: '${bearer:MARK}'}",
    "auth: {bearer: '${MARK:x}'}",
    "auth: {bearer: '${file:MARK}'}",
    "auth: {bearer: '${credential:/MARK}'}",
    "auth: {bearer: '${secret:MARK'}",
    "auth: {bearer: '${secret:NAME:-MARK}'}",
    "auth: {bearer: '${NOT_SET}MARK'}",
    # URLs
    "base_url: https://user:MARK@host.example",
    "base_url: https://user:ab/MARK@host.example",
    "proxy: http://user:ab#MARK@proxy.example",
    "proxy: user:MARK@proxy.example:3128",
    "base_url: https://x.example?key=MARK",
    "base_url: https://x.example#MARK",
    "base_url: ftp://x.example/MARK",
    "base_url: hooks.example/services/T0/MARK",
    "proxy: user:MARK:3128",
    "proxy: MARK:9",
    # what messages quote, beside a mistake of a key
    "secrt: x\nretry: {backoff: MARK}",
    "secrt: x\nretry: {backoff: {strategy: MARK}}",
    "secrt: x\nretry: {max_attempts: MARK}",
    "secrt: x\nretry: {when: MARK}",
    "secrt: x\ntimeout: MARK",
    "secrt: x\ntimeout: \"a'MARK\"",
    "secrt: x\nrate_limit: MARK",
]  # fmt: skip
DAEMON = [
    "http: {tokn: MARK}",
    "http: {token: [MARK]}",
    "http: {token: MARK MARK}",
    "http: MARK",
    "databse: postgresql://u:MARK@db/queue",
    "database: postgresql://u:a/MARK@db/queue",
    "database: [postgresql://u:MARK@db/queue]",
    "plugins: {settings: {vault: MARK}}",
    "database: postgresql://h/db?passwrd=MARK",
    "database: host=h password=MARK",
    "databases: {v: {url: 'postgresql://u:MARK @h/db'}}",
    "log: {level: MARK}",
    "concurrency: MARK",
    "egress: {allow: [MARK]}",
]
ENDPOINT = [
    "webhooks: [{phase: on_success, url: 'https://h.example/', secrt: MARK}]",
    "webhooks: [{phase: on_success, url: 'https://h.example/', secret: {value: MARK}}]",
    "webhooks: [{phase: on_success, url: 'https://h.example/', secret: short, headers: MARK}]",
    "webhook: [{phase: on_success, url: 'https://h.example/', secret: MARK}]",
    "query: access_token=MARK",
    "auth: {bearer: MARK}",
    "params: {token: {default: MARK}}",
    "webhooks: [{phase: on_success, url: hooks.example/services/T0/MARK}]",
    "webhooks:\n  - phase: on_success\n    url: ftp://hooks.example/MARK",
    "query: {a: '{{ MARK }}'}, nonsense: 1",
    "method: MARK\nnonsense: 1",
    "schedule: {cron: MARK}\nnonsense: 1",
    "schedule: {every: 1h, timezone: MARK}\nnonsense: 1",
    "params: {a: {type: integer, default: MARK}}\nnonsense: 1",
    "webhooks: [{phase: MARK, url: 'https://h.example/'}]\nnonsense: 1",
]
WORDS = [
    "auth:\n  bearer hush",
    "auth:\n  basic: {username: u, password: 'hush}",
    "auth:\n  bearer: 'hush",
    "headers:\n  X-Custom: 'hush",
    "headers:\n  X-Custom: a: hush",
    "headers:\n  Authorization Bearer hush",
    "headers: {Authorization: 'Bearer hush'",
    "note: hush\nnonsense: 1",
    "heders: {X: hush}",
    "base_url: https://user:hush@host.example",
    "base_url: hooks.example/services/hush",
    "proxy: user:hush:3128",
    "retry: Bearer hush",
    "timeout: token=hush",
    "retry: {headers: {X: hush}}",
    "retry: [{headers: {X: hush}}]",
    "timeout: {url: 'http://h.example/hush'}",
]
"""In which nothing looks like a token, where a word is one."""
PATHS = ["https://x.example/x?token=MARK", "'/x{{ MARK'"]


def problems(config: ConfigFolder) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        load(config.path, config.host, environ=config.environ, addresses=ADDRESSES)
    return list(caught.value.problems)


def check(config: ConfigFolder) -> None:
    found = problems(config)
    for problem in found:
        for text in (problem.message, problem.key, problem.hint, problem.source):
            assert MARK not in text
            assert "m4rk" not in text
    assert any(problem.severity == "error" for problem in found)


@pytest.mark.parametrize("text", API)
def test_api_yaml(config: ConfigFolder, text: str) -> None:
    first = "" if "base_url" in text else "base_url: https://a.example\n"
    config.api(first + text.replace("MARK", MARK) + "\n")
    config.endpoint("path: /x\nnonsense: 1\n")
    check(config)


@pytest.mark.parametrize("text", WORDS)
def test_a_word_that_is_a_secret(config: ConfigFolder, text: str) -> None:
    first = "" if "base_url" in text else "base_url: https://a.example\n"
    config.api(first + text + "\n")
    config.endpoint("path: /x\n")
    shown = problems(config)
    assert shown
    assert not any("hush" in text for p in shown for text in (p.message, p.hint, p.source))


@pytest.mark.parametrize("text", DAEMON)
def test_orchestratord_yaml(config: ConfigFolder, text: str) -> None:
    config.daemon(text.replace("MARK", MARK) + "\nnonsense: 1\n")
    check(config)


@pytest.mark.parametrize("text", ENDPOINT)
def test_an_endpoint(config: ConfigFolder, text: str) -> None:
    config.endpoint("path: /x\n" + text.replace("MARK", MARK) + "\n")
    check(config)


@pytest.mark.parametrize("path", PATHS)
def test_a_path(config: ConfigFolder, path: str) -> None:
    config.endpoint(f"path: {path.replace('MARK', MARK)}\n")
    check(config)


def test_what_a_message_proposes_is_shown(config: ConfigFolder) -> None:
    config.endpoint("path: /x\nmethod: GTE\nnonsense: 1\n")
    said = [problem.message for problem in problems(config)]
    assert "unknown value 'GTE', did you mean 'GET'?" in said
    config.endpoint("path: /{{ params.od }}\nparams: {id: {}}\n")
    (problem,) = problems(config)
    assert problem.message.startswith("'params.od' is not declared")
    assert problem.source == "path: /{{ params.od }}"
    config.endpoint("path: {{ params.id }}\nparams: {id: {}}\n")
    assert problems(config)[0].message.endswith('quotes around the whole value: "{{ … }}"')


@pytest.mark.parametrize(
    "key",
    ["bearrer", "pasword", "secrt", "tokn", "atuh", "clientSecrt", "X-Api-Ky", "API_TOKN", "Cokie"],
)
def test_keys_that_resemble_those_of_secrets(key: str) -> None:
    assert resembles_secret_key(key)


@pytest.mark.parametrize("key", [*EndpointKeys.model_fields, "path", "method", "url", "Accept"])
def test_keys_that_do_not(key: str) -> None:
    assert not resembles_secret_key(key)
