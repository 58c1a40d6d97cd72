from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import pytest
import yaml
from config_parts import WHSEC, ConfigFolder, OtherPlugin, host_of
from jsonschema import Draft202012Validator

from orchestratord.config.show.json_schema import json_schema
from orchestratord.daemon.bootstrap import open_host
from orchestratord.plugin.host import Host

EXAMPLE = Path(__file__).parents[4] / "config"
File = Literal["endpoint", "api", "daemon"]
FILES: list[tuple[File, str]] = [
    ("daemon", "orchestratord.yaml"),
    ("api", "apis/*/api.yaml"),
    ("endpoint", "apis/*/endpoints/*.yaml"),
]


HOST = host_of()


@cache
def validator(file: File, host: Host = HOST) -> Draft202012Validator:
    schema = json_schema(file, host.registry)
    Draft202012Validator.check_schema(schema)  # which knows expressions that are none, too
    return Draft202012Validator(schema)


def complaints(file: File, text: str, host: Host = HOST) -> list[str]:
    return [error.json_path for error in validator(file, host).iter_errors(yaml.safe_load(text))]


@pytest.mark.parametrize(("file", "pattern"), FILES)
def test_the_example_fits(file: File, pattern: str) -> None:
    check = validator(file, open_host(EXAMPLE))
    paths = list(EXAMPLE.glob(pattern))
    assert paths
    for path in paths:
        assert list(check.iter_errors(yaml.safe_load(path.read_text()))) == [], path


GOOD: list[tuple[File, str]] = [
    ("endpoint", "path: /x"),
    ("endpoint", "path: /x\ntype: http\nmethod: POST\nbody: {json: {a: [1]}}"),
    ("endpoint", "path: 7\nquery: {a: 1, b: true}\ntimeout: 30\nsuccess: [2xx, 304]"),
    ("endpoint", "path: /x\ntimeout: ${T}\nenabled: ${E}\nretry: {max_attempts: '${N}'}"),
    ("endpoint", "path: /x\nretry: {backoff: linear, when: [error, 500-599]}"),
    ("endpoint", "path: /x\nretry: {backoff: {strategy: list, delays: [5s, 1m]}}"),
    ("endpoint", "path: /x\nparams: {a: {type: integer, default: 5}}"),
    ("endpoint", "path: /x\nschedule: {every: monday, at: '10:30'}"),
    ("endpoint", "path: /x\nwebhooks: [{phase: on_success, url: 'https://a/', secret: ['${S}']}]"),
    ("endpoint", "path: /x\nsuccess: ['2xx', '${C}']\nmethod: '${M}'"),
    ("endpoint", "path: /x\ntimeout:\nsuccess:\nmethod:\ntype:\nparams: {a: }\nretry: {backoff: }"),
    ("endpoint", "path: /x\nquery: {a: }\nretry:\nschedule:\nwebhooks:\nbody:\nheaders: {X-A: }"),
    ("endpoint", "path: /x\nwebhooks: [{phase: '${P}', name: , url: 'https://a/', payload: }]"),
    ("api", "auth:\nbase_url: https://a\nconcurrency:\negress:\nmax_response:"),
    ("daemon", "concurrency:\ndefaults:\nlog: {level: }\nretention:\nplugins: {dirs: }"),
    ("api", ""),
    ("api", "base_url: https://a\nauth: {basic: {username: 7, password: x}}\nmax_response: 1MiB"),
    ("api", "base_url: https://a\nrate_limit: 100/min"),
    ("api", "base_url: https://a\nrate_limit: ${RATE:-5/s}"),
    ("api", "base_url: https://a\nbreaker: 'off'\nretry_after_scope: endpoint"),
    ("api", "base_url: https://a\nbreaker: {failures: 5, window: 30s}"),
    ("api", "base_url: https://a\nbreaker: {window: '${T}'}"),
    ("api", "base_url: https://a\nbreaker:\nretry_after_scope:"),
    ("api", "egress: {allow: [10.0.0.0/8]}\nretry: {jitter: 0}\nwebhooks: []"),
    ("daemon", "concurrency: 5\nretention: {failed: 30d}\nlog: {level: '${LEVEL}'}"),
    ("daemon", "defaults: {timeout: 5s, retry: {backoff: fixed}, webhooks: []}"),
    ("daemon", "plugins: {dirs: [x], settings: {own: {a: 1}}}"),
    ("daemon", "workers: auto"),
    ("daemon", "workers: ${N}"),
    ("daemon", "workers:"),
]
BAD: list[tuple[File, str, str]] = [
    ("api", "breaker: on", "$.breaker"),
    ("api", "breaker: {failures: 0}", "$.breaker"),
    ("api", "breaker: {failure: 5}", "$.breaker"),
    ("api", "retry_after_scope: lane", "$.retry_after_scope"),
    ("endpoint", "metod: GET\npath: /x", "$"),
    ("endpoint", "method: GET", "$"),
    ("endpoint", "path: /x\nmethod: GTE", "$.method"),
    ("endpoint", "path: /x\ntype: sql", "$.type"),
    ("endpoint", "path: /x\ntimeout: soon", "$.timeout"),
    ("endpoint", "path: /x\nretry: {max_attempts: 0}", "$.retry.max_attempts"),
    ("endpoint", "path: /x\nretry: {backoff: expo}", "$.retry.backoff"),
    ("endpoint", "path: /x\nretry: {backoff: {strategy: fixed, dely: 1}}", "$.retry.backoff"),
    ("endpoint", "path: /x\nretry: {backoff: {strategy: list}}", "$.retry.backoff"),
    ("endpoint", "path: /x\nparams: {a: {type: int}}", "$.params.a.type"),
    ("endpoint", "path: /x\nwebhooks: [{phase: x, url: 'https://a/'}]", "$.webhooks[0].phase"),
    ("endpoint", "path: /x\nwebhooks: [{phase: on_success}]", "$.webhooks[0]"),
    ("endpoint", "path:", "$.path"),
    ("endpoint", "path: /x\nsuccess: [2xx, ]\nwebhooks: [~]", "$.webhooks[0]"),
    ("endpoint", "path: /x\nsuccess: [~]", "$.success"),
    ("endpoint", "path: /x\nretry: {when: [999]}", "$.retry.when"),
    ("endpoint", "path: /x\nbase_url: https://a", "$"),
    ("api", "path: /x", "$"),
    ("api", "name: x", "$"),
    ("api", "auth: {bearer: [x]}", "$.auth"),
    ("api", "concurrency: 0", "$.concurrency"),
    ("daemon", "concurency: 5", "$"),
    ("daemon", "defaults: {path: /x}", "$.defaults"),
    ("daemon", "log: {level: loud}", "$.log.level"),
    ("daemon", "workers: 65", "$.workers"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "text"), GOOD)
def test_what_fits(config: ConfigFolder, file: File, text: str) -> None:
    assert complaints(file, text or "{}") == []


@pytest.mark.parametrize(("file", "text", "path"), BAD)
def test_what_does_not(file: File, text: str, path: str) -> None:
    assert complaints(file, text) == [path]


@pytest.mark.parametrize(("file", "text"), GOOD)
def test_what_fits_the_schema_is_read(config: ConfigFolder, file: File, text: str) -> None:
    config.environ = {"T": "5s", "E": "true", "N": "3", "LEVEL": "debug", "S": WHSEC,
                      "C": "304", "M": "PUT", "P": "on_success"}  # fmt: skip
    _write(config, file, text)
    (config.path / "x").mkdir()  # of plugins
    assert config.errors() == []


@pytest.mark.parametrize(("file", "text", "path"), BAD)
def test_what_does_not_fit_is_refused(
    config: ConfigFolder, file: File, text: str, path: str
) -> None:
    _write(config, file, text)
    assert config.errors()


def _write(config: ConfigFolder, file: File, text: str) -> None:
    if file == "daemon":
        config.daemon(text)
    elif file == "api":
        config.api(text if "base_url" in text else f"base_url: https://a\n{text}")
    else:
        config.endpoint(text)


@pytest.mark.parametrize("file", ["endpoint", "api", "daemon"])
def test_it_says_what_it_is(file: File) -> None:
    schema = json_schema(file, host_of().registry)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == f"orchestratord: {file}"
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False


def test_keys_are_described() -> None:
    properties = json_schema("endpoint", host_of().registry)["properties"]
    assert {"path", "method", "timeout", "retry", "params", "schedule", "webhooks"} <= set(
        properties
    )
    assert "idempotent" in properties
    assert properties["timeout"]["description"].startswith("How long an attempt may take")


def test_with_several_types_the_type_chooses(config: ConfigFolder) -> None:
    host = host_of(("other", OtherPlugin()))
    assert complaints("endpoint", "path: /x", host) == []
    assert complaints("endpoint", "type: http\npath: /x", host) == []
    assert complaints("endpoint", "type: other\nlevel: 3", host) == []
    assert complaints("endpoint", "type: other\npath: /x", host) != []
    assert complaints("endpoint", "level: 3", host) != []
    assert complaints("endpoint", "type: nope\nlevel: 3", host) != []


def test_the_keys_of_disabled_plugins_are_allowed() -> None:
    host = host_of(shipped=False)
    host.registry.disabled_keys["webhooks"] = "webhooks"
    host.registry.disabled_backoffs["linear"] = "backoff"
    text = "webhooks: anything\nretry: {backoff: linear}"
    assert complaints("endpoint", f"path: /x\n{text}", host) == []
    assert complaints("api", text, host) == []
    assert complaints("daemon", "defaults: {webhooks: anything}", host) == []
    assert complaints("endpoint", "path: /x\nretry: {backoff: expo}", host) != []
