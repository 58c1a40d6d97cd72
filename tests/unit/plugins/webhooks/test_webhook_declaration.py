from __future__ import annotations

from typing import Any

import orchestratord_webhooks
import pytest
from orchestratord_webhooks.declaration import Webhook, name_of
from pydantic import TypeAdapter, ValidationError
from webhook_parts import SECRET, declared

from orchestratord import PHASES, Problem, Text
from orchestratord.testing import Rig


def parse(rig: Rig, **keys: Any) -> Webhook:
    (webhook,) = rig.setting("webhooks", [declared(**keys)])
    assert isinstance(webhook, Webhook)
    return webhook


def complaint(rig: Rig, **keys: Any) -> tuple[tuple[Any, ...], str]:
    with pytest.raises(ValidationError) as refused:
        parse(rig, **keys)
    (error,) = refused.value.errors()
    return error["loc"], error["msg"]


def test_the_defaults(rig: Rig) -> None:
    webhook = parse(rig)
    assert webhook.enabled
    assert webhook.timeout == 15
    retry = webhook.retry
    assert (retry.max_attempts, retry.max_delay, retry.jitter) == (10, 86400, 0.2)
    assert [retry.backoff.seconds(n) for n in range(1, 11)] == [
        5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400, 86400
    ]  # fmt: skip
    for again in ("error", 302, 400, 404, 409, 411, 499, 500, 503, 599):
        assert again in retry.when
    for final in (200, 204, 299, 410):
        assert final not in retry.when


def test_without_the_backoff_plugin_deliveries_are_retried_at_a_fixed_distance() -> None:
    rig = Rig(orchestratord_webhooks, name="webhooks")
    assert parse(rig).retry.backoff == rig.backoff("fixed")


def test_retry_merges_with_the_webhooks_defaults(rig: Rig) -> None:
    retry = parse(rig, retry={"max_attempts": 3, "when": "5xx"}).retry
    assert (retry.max_attempts, retry.max_delay) == (3, 86400)
    assert 404 not in retry.when
    own = rig.backoff("linear", delay=1)
    assert parse(rig, retry={"backoff": own}).retry.backoff == own


@pytest.mark.parametrize("phase", PHASES)
def test_every_phase_can_be_named(rig: Rig, phase: str) -> None:
    assert parse(rig, phase=phase).phase == phase


def test_an_unknown_phase_is_suggested(rig: Rig) -> None:
    loc, message = complaint(rig, phase="after_reqest")
    assert loc == (0, "phase")
    assert "unknown phase 'after_reqest', did you mean 'after_request'?" in message
    assert "on_final_failure" in complaint(rig, phase="?")[1]


def test_a_before_phase_has_no_status_code(rig: Rig) -> None:
    loc, message = complaint(rig, phase="before_request", status_code="5xx")
    assert loc == (0, "status_code")
    assert "leave status_code out" in message
    assert "after_request" in message
    assert "after_execute" in complaint(rig, phase="before_execute", status_code="error")[1]


@pytest.mark.parametrize(
    ("url", "receiver"),
    [
        ("https://ops.example.com/hook", "ops.example.com:443"),
        ("http://OPS.example.com", "ops.example.com:80"),
        ("http://127.0.0.1:9000/a?b={{ task_id }}", "127.0.0.1:9000"),
        ("HTTPS://[::1]:8443/{{ endpoint }}", "[::1]:8443"),
        ("https://ops.example.com?x={{ phase }}", "ops.example.com:443"),
        ("https://bücher.example/", "xn--bcher-kva.example:443"),
    ],
)
def test_where_a_url_goes_is_known_at_load(rig: Rig, url: str, receiver: str) -> None:
    assert parse(rig, url=url).url.receiver == receiver


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("ops.example.com/hook", "http:// or https://"),
        ("ftp://ops.example.com/", "http:// or https://"),
        ("https:///hook", "and a host"),
        ("", "http:// or https://"),
        ("https://user:pw@ops.example.com/", "no user name or password"),
        ("https://{{ params.host }}/hook", "no template can stand"),
        ("https://ops.{{ params.zone }}/hook", "no template can stand"),
        ("https://ops.example.com:{{ params.port }}/", "no template can stand"),
        ("https://ops.example.com{{ params.path }}", "no template can stand"),
        ("{{ params.url }}", "no template can stand"),
        ("{{ params.scheme }}://ops.example.com/", "no template can stand"),
        ("https://ops.example.com:70000/", "not valid"),
        ("https://ops.example.com:port/", "not valid"),
        ("https://ops example.com/", "not valid"),
        ("https://ops.example.com\\@evil.example/", "no user name"),
        ("https://ops.example.com\\evil/", "not valid"),
        (17, "a text"),
        ("https://ops.example.com/{{ }}", "template"),
    ],
)
def test_what_no_url_can_be(rig: Rig, url: Any, part: str) -> None:
    loc, message = complaint(rig, url=url)
    assert loc == (0, "url")
    assert part in message


def test_a_reference_in_a_url_is_no_template_and_is_masked_where_it_is_secret(rig: Rig) -> None:
    url = Text.of(
        [("https://ops.example.com/", False), ("{{ x }}-t0ken", True)],
        secret=True,
        source="https://ops.example.com/${secret:TOKEN}",
    )
    address = parse(rig, url=url).url
    assert address.shown == "https://ops.example.com/***"
    assert address.template.names == frozenset()
    assert address.render({}) == "https://ops.example.com/{{ x }}-t0ken"
    host = Text.of([("https://", False), ("h.example", True), ("/{{ phase }}", False)],
                   secret=False, source="https://${HOST}/{{ phase }}")  # fmt: skip
    assert parse(rig, url=host).url.receiver == "h.example:443"
    assert parse(rig, url=host).url.shown == "https://h.example/{{ phase }}"


def test_values_in_a_url_are_encoded_and_cannot_climb(rig: Rig) -> None:
    address = parse(rig, url="https://ops.example.com/{{ endpoint }}/x?q={{ params.q }}").url
    context = {"endpoint": "shop/getOrder", "params": {"q": "a b&c=é"}}
    assert address.render(context) == (
        "https://ops.example.com/shop%2FgetOrder/x?q=a%20b%26c%3D%C3%A9"
    )
    with pytest.raises(Exception, match="climb"):
        address.render({**context, "endpoint": ".."})


@pytest.mark.parametrize("secret", [SECRET, SECRET.removeprefix("whsec_"), f"{SECRET}\n"])
def test_secrets_are_base64_with_or_without_their_prefix(rig: Rig, secret: str) -> None:
    (key,) = parse(rig, secret=secret).secret
    assert len(key.value) == 24
    assert parse(rig, secret=[secret, "aGVsbG8"]).secret[1].value == b"hello"


@pytest.mark.parametrize(
    "secret", ["not base64!", "whsec_", "abc-_def", "pässwört", ["ok==", "§§"]]
)
def test_a_secret_that_is_not_base64_is_refused_without_showing_it(rig: Rig, secret: Any) -> None:
    loc, message = complaint(rig, secret=secret)
    assert loc[:2] == (0, "secret")
    assert "base64" in message
    assert "openssl rand" in message
    for text in [secret] if isinstance(secret, str) else secret:
        assert text == "whsec_" or text not in message


def test_nothing_prints_a_secret(rig: Rig) -> None:
    webhook = parse(rig, secret=SECRET)
    for text in (repr(webhook), str(webhook), webhook.model_dump_json()):
        assert "MfKQ9r8" not in text
        assert repr(webhook.secret[0].value) not in text


@pytest.mark.parametrize(
    ("declared_as", "name"),
    [
        ({"status_code": ["5xx", "error"]}, "after_request-5xx-error-ops.example.com"),
        ({"status_code": 200}, "after_request-200-ops.example.com"),
        ({}, "after_request-ops.example.com"),
        ({"url": "http://127.0.0.1:9000/x"}, "after_request-127.0.0.1-9000"),
        ({"url": "https://u:pw@ops.example.com/"}, "after_request-ops.example.com"),
        ({"url": "https://[::1]/"}, "after_request-1"),
        ({"url": 5, "phase": None}, "webhook"),
        ({"url": Text.of([("https://t0ken.example/", True)], secret=True, source="${secret:U}")},
         "after_request"),
    ],
)  # fmt: skip
def test_a_name_is_derived(declared_as: dict[str, Any], name: str) -> None:
    keys = declared(**declared_as)
    del keys["name"]
    assert name_of(keys) == name


def test_a_webhook_without_a_name_has_the_derived_one(rig: Rig) -> None:
    keys = declared()
    del keys["name"]
    assert rig.setting("webhooks", [keys])[0].name == "after_request-ops.example.com"
    assert complaint(rig, name="a/b")[0] == (0, "name")
    assert complaint(rig, name="n" * 513)[0] == (0, "name"), "no task could have it"


@pytest.mark.parametrize(
    "keys",
    [
        {"payload": [1]},
        {"payload": 5},
        {"payload": {"text": "{{ x"}},
        {"include": ["everything"]},
        {"timeout": 0},
        {"retry": {"max_attempts": 0}},
        {"headers": {"X-A": ["b"]}},
        {"urll": "x"},
        {"status_code": []},
    ],
)
def test_other_slips_are_found(rig: Rig, keys: dict[str, Any]) -> None:
    assert complaint(rig, **keys)[0][:2] == (0, next(iter(keys)))


def test_the_fingerprint_follows_the_declaration(rig: Rig) -> None:
    fingerprints = {
        parse(rig, **keys).fingerprint
        for keys in (
            {},
            {"url": "https://ops.example.com/other"},
            {"status_code": "5xx"},
            {"secret": SECRET},
            {"secret": "aGVsbG8="},
            {"secret": "d29ybGQ="},
            {"headers": {"X-A": "1"}},
            {"payload": {"a": 1}},
            {"retry": {"max_attempts": 2}},
        )
    }
    assert len(fingerprints) == 9
    assert parse(rig, secret=SECRET).fingerprint == parse(rig, secret=SECRET).fingerprint
    assert "MfKQ9r8" not in "".join(fingerprints)


def test_the_json_schema(rig: Rig) -> None:
    schema = TypeAdapter(tuple[Webhook, ...]).json_schema()
    webhook = schema["$defs"]["Webhook"]
    assert set(webhook["required"]) == {"phase"}
    assert webhook["anyOf"] == [{"required": ["url"]}, {"required": ["subscribers"]}]
    assert webhook["properties"]["phase"]["enum"] == list(PHASES)
    assert "backoff" not in schema["$defs"]["Retry"].get("required", [])


# -- check_endpoint ------------------------------------------------------------------------------


def found(rig: Rig, **keys: Any) -> list[Problem]:
    return rig.check(
        rig.endpoint("shop/getOrder", webhooks=[declared(name="first"), declared(**keys)])
    )


def test_known_names_are_no_problem(rig: Rig) -> None:
    everything = (
        "{{ endpoint }}{{ phase }}{{ status_code }}{{ task_id }}{{ attempt }}{{ params.a }}"
        "{{ request.url }}{{ request.statement }}"
        "{{ response.body }}{{ error }}{{ next_try }}{{ now }}{{ task.id }}"
    )
    late = "{{ endpoint }}{{ phase }}{{ task_id }}{{ params.a }}{{ now }}{{ task.attempt }}"
    url = f"https://ops.example.com/{late}"
    assert found(rig, payload={"a": everything}, url=url, headers={"X-A": late}) == []
    assert found(rig, payload=everything, secret=SECRET) == []


def test_unknown_names_are_errors_with_their_place(rig: Rig) -> None:
    loc, message = complaint(rig, payload={"text": "{{ statuscode }}", "n": "{{ nonsense }}"})
    assert loc == (0, "payload")
    assert "did you mean 'status_code'?" in message
    assert "'nonsense' is not known in this template" in message
    _, message = complaint(
        rig, payload="{{ response.bdy }}{{ task.idd }}{{ response.get('body') }}"
    )
    assert "'response.bdy' is not known in this template, did you mean 'response.body'?" in message
    assert "did you mean 'task.id'?" in message
    assert "response.get" not in message
    loc, message = complaint(rig, url="https://ops.example.com/{{ status_code }}")
    assert loc == (0, "url")
    assert "only a payload can use it" in message
    loc, message = complaint(rig, headers={"X-A": "{{ nonsense }}"})
    assert loc == (0, "headers", "X-A")
    assert "known are endpoint, now" in message


def test_a_secret_in_a_payload_is_an_error(rig: Rig) -> None:
    token = Text.of([("t0ken", True)], secret=True, source="${secret:TOKEN}")
    loc, message = complaint(rig, payload={"token": token})
    assert loc == (0, "payload")
    assert "put it into a header" in message
    assert "t0ken" not in message
    assert found(rig, headers={"Authorization": token}) == []


@pytest.mark.parametrize(
    ("keys", "key", "part"),
    [
        ({"secret": "aGVsbG8="}, "secret", "5 bytes"),
        ({"secret": [SECRET, "YWFh" * 30]}, "secret", "90 bytes"),
        ({"headers": {"Webhook-ID": "x"}}, "headers.Webhook-ID", "set by the signature"),
        (
            {"auth": {"basic": {"username": "a:b", "password": "c"}}},
            "auth.basic.username",
            "a colon",
        ),
        ({"payload": {}, "include": ["params"]}, "include", "payload of its own"),
    ],
)
def test_what_is_warned_of(rig: Rig, keys: dict[str, Any], key: str, part: str) -> None:
    (problem,) = found(rig, **keys)
    assert (problem.key, problem.severity) == (f"webhooks.1.{key}", "warning")
    assert part in problem.message


def test_a_parameter_without_braces_is_no_tenant(rig: Rig) -> None:
    webhook = {"name": "t", "phase": "on_success", "payload": {}, "subscribers": "params.customer"}
    (problem,) = rig.check(rig.endpoint("shop/getOrder", webhooks=[webhook]))
    assert (problem.key, problem.severity) == ("webhooks.0.subscribers", "warning")
    assert problem.message.endswith("params.customer: a template is {{ params.customer }}")


@pytest.mark.parametrize("phase", ["before_execute", "after_execute"])
def test_a_phase_that_a_call_by_http_never_reaches_is_warned_of(rig: Rig, phase: str) -> None:
    (problem,) = found(rig, phase=phase)
    assert (problem.key, problem.severity) == ("webhooks.1.phase", "warning")
    assert phase.replace("execute", "request") in problem.message


@pytest.mark.parametrize("phase", ["before_request", "after_request"])
def test_a_phase_that_a_statement_never_reaches_is_warned_of(rig: Rig, phase: str) -> None:
    endpoint = rig.endpoint("stock/put", type="sql", webhooks=[declared(phase=phase)])
    (problem,) = rig.check(endpoint)
    assert (problem.key, problem.severity) == ("webhooks.0.phase", "warning")
    execute = phase.replace("request", "execute")
    assert problem.message == (
        f"never fires: a statement has no phase {phase}; did you mean {execute!r}?"
    )


@pytest.mark.parametrize(
    ("type_", "phase", "codes", "known"),
    [
        ("http", "on_run_end", ["5xx", 404], "the end of a run has ok,error"),
        ("http", "after_request", "ok", "a call by HTTP has 100-599,error"),
        ("sql", "after_execute", "5xx", "a statement has ok,error"),
        ("event", "on_success", "2xx", "an event has ok"),
    ],
)
def test_a_code_that_there_never_is_is_warned_of(
    rig: Rig, type_: str, phase: str, codes: Any, known: str
) -> None:
    webhooks = [declared(phase=phase, status_code=codes)]
    (problem,) = rig.check(rig.endpoint("stock/put", type=type_, webhooks=webhooks))
    assert (problem.key, problem.severity) == ("webhooks.0.status_code", "warning")
    assert problem.message == f"never fires: {known}; write one of these, or leave it out"


def test_a_code_that_there_may_be_is_not_warned_of(rig: Rig) -> None:
    assert found(rig, phase="on_run_end", status_code=["5xx", "error"]) == []
    assert found(rig, phase="on_success", status_code="2xx") == []


def test_a_secret_is_no_name(rig: Rig) -> None:
    token = Text.of([("t0ken", True)], secret=True, source="${secret:TOKEN}")
    loc, message = complaint(rig, name=token)
    assert loc == (0, "name")
    assert "stored in the database" in message
    assert "t0ken" not in message


def test_a_header_holds_no_control_character(rig: Rig) -> None:
    for value in ("a\nb", "\r{{ task_id }}"):
        loc, message = complaint(rig, headers={"X-A": value})
        assert loc == (0, "headers", "X-A")
        assert "no line break" in message
    assert found(rig, headers={"X-A": "a\tb"}) == []


def test_a_header_that_no_delivery_could_have_is_an_error(rig: Rig) -> None:
    loc, message = complaint(rig, headers={"X-Team": "équipe {{ endpoint }}"})
    assert loc == (0, "headers", "X-Team")
    assert "ASCII" in message
    for name in ("Content-Length", "transfer-encoding"):
        loc, message = complaint(rig, headers={name: "chunked"})
        assert loc[:3] == (0, "headers", name)
        assert message.endswith("leave it out")


def test_a_list_of_no_secrets_is_an_error(rig: Rig) -> None:
    assert complaint(rig, secret=[])[0] == (0, "secret")
    assert parse(rig).secret == ()
