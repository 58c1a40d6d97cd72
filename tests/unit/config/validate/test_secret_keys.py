"""Secrets: known as such, masked wherever they could be seen, warned of where written out."""

from __future__ import annotations

import json

import pytest
from config_parts import WHSEC, ConfigFolder

SECRET = "correct-horse-battery"


def masked(config: ConfigFolder, text: str = SECRET) -> bool:
    return config.load().redactor.text(f"<{text}>") == "<***>"


@pytest.mark.parametrize(
    "api",
    [
        "auth: {bearer: '%s'}",
        "auth: {basic: {username: someone, password: '%s'}}",
        "auth: {header: {name: X-Key, value: '%s'}}",
        "headers: {Authorization: '%s'}",
        "headers: {X-Api-Key: '%s'}",
        "headers: {X-Auth-Token: '%s'}",
    ],
)
@pytest.mark.parametrize("written", [SECRET, "${PLAIN}", "${secret:PLAIN}"])
def test_what_stands_in_a_key_that_holds_a_secret(
    config: ConfigFolder, api: str, written: str
) -> None:
    config.environ = {"PLAIN": SECRET}
    config.api("base_url: https://a.example\n" + api % written)
    config.endpoint()
    assert masked(config)
    endpoint = config.one()
    assert SECRET not in json.dumps(endpoint.shown)
    assert SECRET not in repr(endpoint)
    assert "***" in json.dumps(endpoint.shown)
    warned = [str(warning) for warning in config.load().warnings]
    if written == SECRET:
        assert len(warned) == 1
        assert warned[0].startswith("apis/shop/api.yaml:2:")
        assert "a secret is written out here; put it into ${credential:name}" in warned[0]
        assert SECRET not in warned[0]
    else:
        assert warned == []


@pytest.mark.parametrize(
    "endpoint",
    [
        "query: {access_token: '%s'}",
        "body: {json: {user: {password: '%s'}}}",
        "body: {form: {client_secret: '%s'}}",
    ],
)
def test_keys_that_hold_a_secret_deep_inside(config: ConfigFolder, endpoint: str) -> None:
    config.endpoint("method: POST\npath: /x\n" + endpoint % SECRET)
    assert masked(config)
    assert SECRET not in json.dumps(config.one().shown)
    assert len(config.warnings()) == 1


STORED = "a secret here would be stored in the database; put the reference into headers"


@pytest.mark.parametrize(
    ("endpoint", "place"),
    [
        ("params: {a: {default: '${secret:S}'}}", "2:14: params.a.default"),
        ("params: {a: {default: 'x-${secret:S}'}}", "2:14: params.a.default"),
        ("params: {a: {type: array, default: [1, '${secret:S}']}}", "2:40: params.a.default.1"),
        ("params: {a: {default: {b: [{c: '${secret:S}'}]}}}", "2:29: params.a.default.b.0.c"),
        ("params: {a: {type: object, default: {password: x}}}", "2:38: params.a.default.password"),
        ("params: {api_key: {default: literal}}", "2:20: params.api_key.default"),
        (
            "params: {a: {}}\nschedule: {every: 1h, params: {a: '${secret:S}'}}",
            "3:32: schedule.params.a",
        ),
        (
            "params: {a: {}}\nschedule: {every: 1h, params: {a: {b: ['${secret:S}']}}}",
            "3:40: schedule.params.a.b.0",
        ),
        (
            "params: {token: {}}\nschedule: {every: 1h, params: {token: literal}}",
            "3:32: schedule.params.token",
        ),
        (
            "webhooks: [{name: 'x${secret:S}', phase: on_success, url: 'https://o.example/'}]",
            "2:13: webhooks.0.name",
        ),
    ],
)
def test_a_secret_that_would_be_stored_is_refused(
    config: ConfigFolder, endpoint: str, place: str
) -> None:
    config.environ = {"S": SECRET}
    config.endpoint(f"path: /x\n{endpoint}\n")
    assert config.error().startswith(f"apis/shop/endpoints/get.yaml:{place}: {STORED}")
    assert SECRET not in config.error()


def test_what_is_no_secret_may_be_a_parameter(config: ConfigFolder) -> None:
    config.environ = {"A": "plain"}
    config.endpoint(
        """
        path: /x
        params:
          a: {default: "${A}"}
          token: {default: ""}
          max_token: {type: integer, default: 5}
        schedule: {every: 1h, params: {a: "${A}", max_token: 7}}
        webhooks: [{name: "${A}", phase: on_success, url: "https://o.example/"}]
        """
    )
    assert config.errors() == []


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("https://Hooks.example.com/T0/B1", ["hooks.example.com", "hooks.example.com:443"]),
        ("http://hooks.example.com:8080/x", ["hooks.example.com", "hooks.example.com:8080"]),
        ("https://[2001:db8::7]:8443/x", ["2001:db8::7", "[2001:db8::7]:8443"]),
    ],
)
def test_the_host_of_a_url_that_is_a_secret_is_masked_in_errors_alone(
    config: ConfigFolder, url: str, names: list[str]
) -> None:
    config.environ = {"URL": url}
    config.endpoint(
        "path: /x\nwebhooks: [{name: ops, phase: on_success, url: '${secret:URL}'}]\n", name="a"
    )
    redactor = config.load().redactor
    for name in names:
        assert masked(config, name)
        assert not redactor.is_in([name, f"at {name}"])
        assert redactor.data.value({"at": name}) == {"at": name}
    assert redactor.is_in(url)
    assert redactor.data.text(url) == "***"


def test_the_host_of_a_url_with_a_secret_in_it_is_none(config: ConfigFolder) -> None:
    config.environ = {"S": SECRET}
    config.endpoint(
        "path: /x\nwebhooks: [{phase: on_success, url: 'https://ops.example.com/${secret:S}'}]\n"
    )
    assert not masked(config, "ops.example.com")


def test_a_secret_reference_is_secret_wherever_it_stands(config: ConfigFolder) -> None:
    config.environ = {"S": SECRET}
    config.endpoint("path: /x/${secret:S}/y\nquery: {note: 'a ${secret:S} b'}\n")
    endpoint = config.one()
    assert masked(config)
    assert endpoint.shown["path"] == "/x/***/y"
    assert endpoint.shown["query"] == {"note": "a *** b"}
    assert endpoint.spec.path.render({}) == f"/x/{SECRET}/y"
    assert endpoint.spec.path.secret


def test_a_secret_in_a_header_is_known_with_and_without_its_scheme(config: ConfigFolder) -> None:
    config.endpoint(f"path: /x\nheaders: {{Authorization: Bearer {SECRET}}}\n")
    assert masked(config)
    assert masked(config, f"Bearer {SECRET}")


def test_templates_are_no_secrets_and_stay_as_they_are_written(config: ConfigFolder) -> None:
    config.environ = {"NAME": SECRET}
    config.endpoint(
        """
        method: POST
        path: /x
        headers: {Authorization: "Bearer {{ params.token }}"}
        body: {json: {token: "{{ params.token }}", password: "{{ params.token }}-${NAME}"}}
        params: {token: {required: true}}
        """
    )
    endpoint = config.one()
    assert config.warnings() == []
    assert endpoint.shown["headers"] == {"Authorization": "Bearer {{ params.token }}"}
    assert endpoint.shown["body"]["json"] == {
        "token": "{{ params.token }}",
        "password": "{{ params.token }}-***",
    }
    body = endpoint.spec.body.json_.render({"params": {"token": "t"}})
    assert body == {"token": "t", "password": f"t-{SECRET}"}
    assert masked(config)


def test_a_secret_that_looks_like_a_template_is_none(config: ConfigFolder) -> None:
    config.environ["TOKEN"] = "{{ params.x }}-literal"
    config.api("base_url: https://a.example\nauth: {bearer: '${secret:TOKEN}'}\n")
    config.endpoint()
    assert masked(config, "{{ params.x }}-literal")
    assert config.one().shown["auth"] == {"bearer": "***"}


def test_numbers_and_parameters_are_not_taken_for_secrets(config: ConfigFolder) -> None:
    config.endpoint(
        """
        method: POST
        path: /x/{{ params.token }}
        body: {json: {max_token: 4096, token: true, tokens: ["abcdef"]}}
        params: {token: {required: true, description: a parameter}}
        """
    )
    assert config.warnings() == []
    redactor = config.load().redactor
    for text in ("4096", "true", "abcdef", "a parameter"):
        assert redactor.text(text) == text


def test_a_secret_of_digits_is_one(config: ConfigFolder) -> None:
    config.api("base_url: https://a.example\nauth: {basic: {username: 007, password: 00815}}\n")
    config.endpoint()
    auth = config.one().api.auth
    assert auth is not None
    assert auth.basic is not None
    assert auth.basic.username == "007"
    assert auth.basic.password.reveal() == "00815"
    assert masked(config, "00815")


def test_webhook_secrets(config: ConfigFolder) -> None:
    other = "whsec_b3JjaGVzdHJhdG9yZC1vdGhlci0xMjM0NTY="
    config.environ = {"NEW": other}
    config.endpoint(
        f"""
        path: /x
        webhooks:
          - name: ops
            phase: on_success
            url: https://ops.example.com/${{secret:NEW}}
            secret: ["${{NEW}}", {WHSEC}]
        """
    )
    assert masked(config, other)
    assert masked(config, WHSEC)
    (webhook,) = config.one().shown["webhooks"]
    assert webhook["secret"] == ["***", "***"]
    assert webhook["url"] == "https://ops.example.com/***"
    assert [warning for warning in config.warnings() if "written out" in warning] == [
        "apis/shop/endpoints/get.yaml:7:24: webhooks.0.secret.1: a secret is written out here; put "
        "it into ${credential:name}, ${file:/path} or ${secret:NAME}"
    ]


def test_a_short_secret_is_warned_of(config: ConfigFolder) -> None:
    config.environ = {"PIN": "123"}
    config.api("base_url: https://a.example\nauth: {bearer: '${secret:PIN}'}\n")
    config.endpoint()
    assert config.warnings() == [
        "apis/shop/api.yaml:2:8: auth.bearer: a secret of less than 4 characters cannot be masked"
    ]
    assert config.one().shown["auth"] == {"bearer": "***"}


def test_a_secret_written_out_in_the_defaults_is_warned_of_once(config: ConfigFolder) -> None:
    config.daemon(
        f"""
        defaults:
          webhooks:
            - {{name: ops, phase: on_success, url: 'https://o.example/', secret: {WHSEC}}}
        """
    )
    for name in ("a", "b", "c"):
        config.endpoint(name=name)
    assert [warning.split(": ")[0] for warning in config.warnings()] == ["orchestratord.yaml:4:65"]


def test_no_secret_in_an_error(config: ConfigFolder) -> None:
    config.environ = {"S": SECRET}
    config.api(
        f"""
        base_url: ftp://${{secret:S}}/
        auth: {{bearer: [{SECRET}], basic: {{username: x, password: {{a: {SECRET}}}}}}}
        timeout: ${{secret:S}}
        retry: {{backoff: '${{secret:S}}', when: '${{secret:S}}'}}
        """
    )
    config.endpoint(
        f"path: /x\nmethod: ${{secret:S}}\nquery: [1]\nwebhooks: [{{secret: {SECRET}}}]\n"
    )
    errors = config.errors()
    assert len(errors) >= 8
    assert SECRET not in "\n".join(errors)


@pytest.mark.parametrize(
    ("written", "warned"),
    [
        (f"postgresql://me:{SECRET}@db/queue", 1),
        (f"postgresql://me:{SECRET}@db,standby:5433/queue?target_session_attrs=primary", 1),
        (f"postgresql://db/queue?user=me&password={SECRET}", 1),
        ("postgresql://me:${secret:PLAIN}@db,standby:5433/queue?target_session_attrs=primary", 0),
        ("${secret:WHOLE}", 0),
        ("postgresql://db/queue", 0),
    ],
)
def test_the_password_of_the_database(config: ConfigFolder, written: str, warned: int) -> None:
    config.environ = {"PLAIN": SECRET, "WHOLE": f"postgresql://me:{SECRET}@db/queue"}
    config.daemon(f"database: '{written}'\n")
    found = config.load()
    assert [SECRET in str(warning) for warning in found.warnings] == [False] * warned
    if warned:
        assert "a password is written out here; write ${credential:name}" in str(found.warnings[0])
    if written.partition("://")[2] != "db/queue":
        assert found.redactor.text(f"FATAL: {SECRET}") == "FATAL: ***"
