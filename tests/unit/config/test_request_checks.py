"""What looks as if something else was meant, and passed `check` without a word."""

from __future__ import annotations

import orchestratord_event
import pytest
from config_parts import ConfigFolder, host_of


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "path: /x/{params.id}",
            "path: {params.id} is sent as it stands: a template is {{ params.id }}",
        ),
        ("path: /x/{id}", "path: {id} is sent as it stands: a template is {{ params.id }}"),
        ("query: {q: 'a {params.id}'}", "query.q: {params.id} is sent as it stands"),
        ('query: {q: "“{{ params.id }}”"}', "query.q: its typographic quotes are sent along"),
        (
            "method: POST\nbody: {json: '{\"a\": 1}'}",
            "body.json: is sent as one text: take the quotes",
        ),
        (
            "method: POST\nbody: {json: '{\"a\": {{ params.id }}}'}",
            "body.json: is sent as one text",
        ),
        ("retry: {max_delay: 1s}", "retry.max_delay: is shorter than the delay of the backoff"),
        ("params: {id: {required: true}}", "params.id: is required, and nothing uses it"),
        (
            "poll: {until: response.body.ok}",
            "poll.until: sees the answer itself: write body for response.body",
        ),
        (
            "poll: {until: ok, every: 2h, for: 1h}",
            "poll.every: exceeds `for`: the last look is after 1h",
        ),
        ("success: [200, error]", "success: error is never a success: write codes of answers"),
    ],
)
def test_a_warning(config: ConfigFolder, text: str, warning: str) -> None:
    if "params:" not in text:
        text += "\nparams: {id: {}}"
    if "path:" not in text:
        text += "\npath: /x"
    config.api()
    config.endpoint(f"{text}\n")
    [told] = config.warnings()
    assert warning in told
    assert told.startswith("apis/shop/endpoints/get.yaml:")


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "auth: {basic: {username: 'a:b', password: '${E}'}}",
            "auth.basic.username: a colon ends it",
        ),
    ],
)
def test_a_warning_of_an_api(config: ConfigFolder, text: str, warning: str) -> None:
    config.environ["E"] = "a-password"
    config.api(f"base_url: https://a.example\n{text}\n")
    config.endpoint()
    [told] = config.warnings()
    assert warning in told


@pytest.mark.parametrize(
    "text",
    [
        "query: {q: '{a}'}",
        "path: '/x/{{ params.id }}:cancel'",
        "query: {q: \"{{ {'a': params.id} | tojson }}\"}",
        "method: POST\nbody: {json: {a: '{{ params.id }}'}}",
        "method: POST\nbody: {json: '{{ params.id }}'}",
        "method: POST\nbody: {text: '{\"a\": 1}'}",
        "retry: {backoff: {strategy: fixed, delay: 1s}, max_delay: 1s}",
        "params: {id: {required: true}}\nquery: {q: '{{ params.id }}'}",
        "params: {id: {required: true}}\nquery: {q: '{{ params | tojson }}'}",
        "params: {id: {required: true}}\npartition: {by: '{{ params.id }}'}",
    ],
)
def test_nothing_to_say(config: ConfigFolder, text: str) -> None:
    if "params:" not in text:
        text += "\nparams: {id: {}}"
    if "path:" not in text:
        text += "\npath: /x"
    config.api()
    config.endpoint(f"{text}\n")
    assert config.warnings() == []


@pytest.mark.parametrize("name", ["other.txt", "other.yaml.txt", "other.yamll", "other.jsn"])
def test_a_file_that_is_no_endpoint(config: ConfigFolder, name: str) -> None:
    config.api()
    config.endpoint()
    config.write(f"apis/shop/endpoints/{name}", "path: /x")
    [told] = config.warnings()
    place = f"apis/shop/endpoints/{name}"
    assert told == f"{place}: this file is not read: an endpoint stands in other.yaml"


def test_answers_that_there_are_none(config: ConfigFolder) -> None:
    config.host = host_of(("event", orchestratord_event))
    config.api()
    config.endpoint("type: event\nretry: {if: body.busy}\n")
    why = "retry.if: looks at answers by HTTP, and there are none here"
    assert any(why in error for error in config.errors())


@pytest.mark.parametrize(
    ("api", "endpoint", "key"),
    [
        ("auth: {bearer: '{{ params.t }}'}", "", "auth.bearer"),
        ("auth: {basic: {username: '{{ now }}', password: secret}}", "", "auth.basic.username"),
        ("auth: {header: {name: X-Key, value: '{{ params.u }}'}}", "", "auth.header.value"),
        (
            "auth: {oauth2: {token_url: https://a.example, client_id: '{{ now }}', "
            "client_secret: secret}}", "", "auth.oauth2.client_id",
        ),
        ("base_url: https://{{ params.host }}.example", "", "base_url"),
        ("", "params: {a: {}}\nschedule: {every: 1h, params: {a: ['{{ now }}']}}",
         "schedule.params.a.0"),
        ("proxy: 'http://u:{{ now }}@proxy.example:3128'", "", "proxy"),
        ("error_message: \"body.a || '{{ now }}'\"", "", "error_message"),
        ("", "success_if: \"body.a == '{{ now }}'\"", "success_if"),
        ("", "fail_if: \"body.a == '{{ now }}'\"", "fail_if"),
        ("", "retry: {if: \"body.a == '{{ now }}'\"}", "retry.if"),
        ("", "poll: {until: \"body.a == '{{ now }}'\"}", "poll.until"),
    ],
)  # fmt: skip
def test_a_template_where_none_is_taken(
    config: ConfigFolder, api: str, endpoint: str, key: str
) -> None:
    config.api(f"base_url: https://a.example\n{api}\n" if "base_url" not in api else f"{api}\n")
    config.endpoint(f"path: /x\n{endpoint}\n")
    assert f"{key}: takes no template" in config.error()


@pytest.mark.parametrize(
    "text",
    [
        "query: {'{{ now }}': a}",
        "method: POST\nbody: {form: {'{{ now }}': a}}",
        "method: POST\nbody: {multipart: {'{{ now }}': a}}",
        "method: POST\nbody: {json: [{'{{ now }}': a}]}",
    ],
)
def test_a_name_is_no_template(config: ConfigFolder, text: str) -> None:
    config.api()
    config.endpoint(f"path: /x\n{text}\n")
    assert ": the name {{ now }} takes no template, and is used as it stands" in config.error()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "method: DELETE\npath: {from: params.id}",
            "2:8: path.from: takes all of it from a parameter for GET and HEAD only",
        ),
        ("path: {from: id}", "1:8: path.from: names a parameter, such as params.location"),
        ("path: {from: params.od}", "1:8: path.from: 'params.od' is not declared under params"),
        ("path: {form: params.id}", "1:8: path.form: unknown key, did you mean 'from'?"),
        ("path: {}", "1:1: path.from: is required"),
        ("path: [/x]", "1:1: path: expected a text"),
    ],
)
def test_a_path_that_is_taken_from_nowhere(config: ConfigFolder, text: str, error: str) -> None:
    config.api()
    config.endpoint(f"{text}\nparams: {{id: {{}}}}\n")
    assert any(f"get.yaml:{error}" in told for told in config.errors()), config.errors()


@pytest.mark.parametrize("text", ["path: {from: id}", "path: {form: params.id, from: params.id}"])
def test_what_is_wrong_within_keys_is_told_once(config: ConfigFolder, text: str) -> None:
    config.api()
    config.endpoint(f"{text}\nparams: {{id: {{}}}}\n")
    [told] = config.errors()
    assert ": path.f" in told


def test_a_path_that_a_parameter_says(config: ConfigFolder) -> None:
    config.api()
    config.endpoint("path: {from: params.at}\nparams: {at: {required: true}}\n")
    assert config.warnings() == []
    assert config.one().shown["path"] == {"from": "params.at"}
