"""Where each value of an endpoint comes from."""

from __future__ import annotations

from typing import Any

from config_parts import ConfigFolder

from orchestratord.config.show.origins import Traced, trace


def traced(config: ConfigFolder) -> dict[str, Traced]:
    loaded = config.load()
    (endpoint,) = loaded.endpoints.values()
    registry = config.host.registry
    return trace(config.path, endpoint, registry, loaded.redactor)


def at(found: dict[str, Traced], path: str) -> tuple[Any, str]:
    """The value at a dotted path, and its place."""
    item = Traced(dict(found))
    for part in path.split("."):
        assert isinstance(item.value, dict | list)
        item = item.value[int(part)] if isinstance(item.value, list) else item.value[part]
    origin = item.origin
    return item.value, f"{origin.file}:{origin.line}" if origin else "default"


DAEMON, API, ENDPOINT = "orchestratord.yaml", "apis/shop/api.yaml", "apis/shop/endpoints/get.yaml"


def test_each_layer(config: ConfigFolder) -> None:
    config.daemon("defaults:\n  timeout: 20s\n  retry:\n    max_attempts: 3\n    jitter: 0\n")
    config.api("base_url: https://a.test\nretry:\n  max_attempts: 4\n  max_delay: 1m\n")
    config.endpoint("path: /x\nretry: {max_delay: 2m}\n")
    found = traced(config)
    assert at(found, "timeout") == ("20s", f"{DAEMON}:2")
    assert at(found, "retry.jitter") == (0.0, f"{DAEMON}:5")
    assert at(found, "retry.max_attempts") == (4, f"{API}:3")
    assert at(found, "retry.max_delay") == ("2m", f"{ENDPOINT}:2")
    assert at(found, "retry.inline") == (0, "default")
    assert at(found, "base_url") == ("https://a.test", f"{API}:1")
    assert at(found, "path") == ("/x", f"{ENDPOINT}:1")


def test_what_nobody_wrote_is_the_default(config: ConfigFolder) -> None:
    config.endpoint()
    found = traced(config)
    for path, value in {
        "type": "http",
        "method": "GET",
        "success": "2xx",
        "timeout": "30s",
        "idempotent": True,
        "enabled": True,
        "concurrency": 10,
        "follow_redirects": False,
        "max_response": "1MiB",
        "retry.backoff.strategy": "exponential",
        "retry.backoff.delay": "5s",
        "retry.backoff.factor": 2.0,
    }.items():
        assert at(found, path) == (value, "default")
    assert not {"schedule", "auth", "headers", "params", "webhooks", "body", "egress"} & set(found)


def test_a_backoff_is_whole(config: ConfigFolder) -> None:
    config.api("base_url: https://a.test\nretry: {backoff: {strategy: fixed, delay: 9s}}\n")
    config.endpoint("path: /x\nretry:\n  backoff: linear\n")
    found = traced(config)
    assert at(found, "retry.backoff.strategy") == ("linear", f"{ENDPOINT}:3")
    assert at(found, "retry.backoff.delay") == ("5s", "default")


def test_headers_of_both_files(config: ConfigFolder) -> None:
    config.api("base_url: https://a.test\nheaders:\n  Accept: text/csv\n  X-One: '1'\n")
    config.endpoint("path: /x\nheaders:\n  accept: text/plain\n  X-Two: '2'\n")
    found = traced(config)
    assert at(found, "headers.accept") == ("text/plain", f"{ENDPOINT}:3")
    assert at(found, "headers.X-One") == ("1", f"{API}:4")
    assert at(found, "headers.X-Two") == ("2", f"{ENDPOINT}:4")
    assert isinstance(found["headers"].value, dict)
    assert "Accept" not in found["headers"].value

    config.endpoint("path: /x\n")
    assert at(traced(config), "headers.Accept") == ("text/csv", f"{API}:3")


def test_where_an_api_says_what_is_wrong(config: ConfigFolder) -> None:
    config.api("base_url: https://a.test\nerror_message: body.fault\n")
    config.endpoint("path: /x\n")
    assert at(traced(config), "error_message") == ("body.fault", f"{API}:2")
    config.endpoint("path: /x\nerror_message: body.why\n")
    assert at(traced(config), "error_message") == ("body.why", f"{ENDPOINT}:2")


def test_webhooks_are_united_by_name(config: ConfigFolder) -> None:
    config.api(
        "base_url: https://a.test\nwebhooks:\n"
        "  - name: ops\n    phase: after_request\n    url: https://ops.test/hook\n"
        "    status_code: [5xx,\n      error]\n"
    )
    config.endpoint(
        "path: /x\nwebhooks:\n  - {name: own, phase: on_retry, url: 'https://own.test'}\n"
        "  - name: ops\n    timeout: 3s\n"
    )
    found = traced(config)
    assert at(found, "webhooks.0.name") == ("ops", f"{ENDPOINT}:4")
    assert at(found, "webhooks.0.timeout") == ("3s", f"{ENDPOINT}:5")
    assert at(found, "webhooks.0.url") == ("https://ops.test/hook", f"{API}:5")
    assert at(found, "webhooks.0.status_code.1") == ("error", f"{API}:7")
    assert at(found, "webhooks.0.retry.max_attempts") == (10, "default")
    assert at(found, "webhooks.0.retry.when")[0][-1].value == "5xx"
    assert at(found, "webhooks.0.retry.backoff.delays")[0][0].value == "5s"
    assert at(found, "webhooks.1.name") == ("own", f"{ENDPOINT}:3")
    assert at(found, "webhooks.1.timeout") == ("15s", "default")


def test_a_name_that_was_derived_is_at_its_webhook(config: ConfigFolder) -> None:
    config.endpoint("path: /x\nwebhooks:\n  - phase: on_retry\n    url: https://own.test/\n")
    assert at(traced(config), "webhooks.0.name") == ("on_retry-own.test", f"{ENDPOINT}:3")


def test_secrets_are_masked(config: ConfigFolder) -> None:
    config.environ |= {"TOKEN": "hunter22-token", "HOOK": "aHVudGVyMjItaG9vay1zZWNyZXQtYWJjZA=="}
    config.api("base_url: https://a.test\nauth:\n  bearer: ${secret:TOKEN}\n")
    config.endpoint(
        "path: /x\nheaders: {X-Key: '${secret:TOKEN}', X-Plain: a hunter22-token}\n"
        "webhooks:\n"
        "  - {name: a, phase: on_retry, url: 'https://a.test', secret: '${secret:HOOK}'}\n"
    )
    found = traced(config)
    assert at(found, "auth.bearer") == ("***", f"{API}:3")
    assert at(found, "headers.X-Key") == ("***", f"{ENDPOINT}:2")
    assert at(found, "headers.X-Plain") == ("a ***", f"{ENDPOINT}:2")
    assert at(found, "webhooks.0.secret") == ("***", f"{ENDPOINT}:4")
    assert "hunter22" not in repr(found)


def test_egress_of_the_daemon_comes_first(config: ConfigFolder) -> None:
    config.daemon("egress:\n  allow:\n    - 10.0.0.0/8\n")
    config.api("base_url: https://a.test\negress: {allow: [127.0.0.1:9]}\n")
    config.endpoint()
    found = traced(config)
    assert at(found, "egress.allow.0") == ("10.0.0.0/8", f"{DAEMON}:3")
    assert at(found, "egress.allow.1") == ("127.0.0.1:9", f"{API}:2")


def test_parameters_bodies_and_schedules(config: ConfigFolder) -> None:
    config.endpoint(
        "method: POST\npath: /x\nbody:\n  json:\n    a: ['{{ params.id }}', 2]\n"
        "params:\n  id: {type: integer, default: 5}\n"
        "schedule:\n  every: day\n  at: '10:30'\n"
    )
    found = traced(config)
    assert at(found, "body.json.a.0") == ("{{ params.id }}", f"{ENDPOINT}:5")
    assert at(found, "body.json.a.1") == (2, f"{ENDPOINT}:5")
    assert at(found, "params.id.default") == (5, f"{ENDPOINT}:7")
    assert at(found, "params.id.required") == (False, "default")
    assert at(found, "schedule.at") == ("10:30", f"{ENDPOINT}:10")
    assert at(found, "schedule.overlap") == ("skip", "default")
    assert at(found, "idempotent") == (False, "default")
