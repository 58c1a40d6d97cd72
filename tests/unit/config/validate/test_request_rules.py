"""What can be said of a request before it is made: its path and its headers."""

from __future__ import annotations

import pytest
from config_parts import ConfigFolder

ENDPOINT = "apis/shop/endpoints/get.yaml"


@pytest.mark.parametrize(
    "path", ["/x#top", "/{{ params.id }}#{{ params.id }}", "/#/x", "/x${secret:S}#y"]
)
def test_a_path_has_no_fragment(config: ConfigFolder, path: str) -> None:
    config.environ = {"S": "correct-horse"}
    config.endpoint(f"params: {{id: {{}}}}\npath: '{path}'\n")
    assert config.error() == (
        f"{ENDPOINT}:2:1: path: a request has no fragment; write %23 where the character # itself "
        "is meant"
    )


@pytest.mark.parametrize("path", ["https://b.example/x", "HTTP://b.example", "${U}"])
def test_a_path_has_no_host(config: ConfigFolder, path: str) -> None:
    config.environ = {"U": "https://b.example/x"}
    config.endpoint(f"params: {{id: {{}}}}\npath: '{path}'\n")
    assert config.error() == (
        f"{ENDPOINT}:2:1: path: is added to base_url, and holds no host; write scheme and host to "
        "base_url"
    )


@pytest.mark.parametrize(
    "path",
    ["/x%23", "/x?next=https://b.example", "/{{ '#' }}", '/{{ "}}#" }}', "/{{ params.id or '#' }}"],
)
def test_a_path_that_can_be_used(config: ConfigFolder, path: str) -> None:
    quoted = path.replace("'", "''")
    config.endpoint(f"params: {{id: {{}}}}\npath: '{quoted}'\n")
    assert config.errors() == []


HEADERS = [
    '"${BREAK}{{ task.id }}"',
    r'"a\nb"',
    r'"a\r\n{{ task.id }}"',
    '"${BREAK}"',
    r'"\x7f"',
    r'"\0"',
]


@pytest.mark.parametrize("value", HEADERS)
def test_a_header_holds_no_control_character(config: ConfigFolder, value: str) -> None:
    config.environ = {"BREAK": "a\nb"}
    config.endpoint(f"path: /x\nheaders: {{X-A: {value}}}\n")
    message = "a header holds no line break or control character"
    assert config.error() == f"{ENDPOINT}:2:11: headers.X-A: {message}"
    config.endpoint()
    config.api(f"base_url: https://a.example\nheaders: {{X-A: {value}}}\n")
    assert config.error() == f"apis/shop/api.yaml:2:11: headers.X-A: {message}"
    config.api()
    config.endpoint(
        "path: /x\nwebhooks: [{phase: on_success, url: 'https://o.example/', "
        f"headers: {{X-A: {value}}}}}]\n"
    )
    assert config.error().endswith(f"webhooks.0.headers.X-A: {message}")


@pytest.mark.parametrize(
    "auth", ["{bearer: '${secret:BREAK}'}", "{header: {name: X-A, value: '${secret:BREAK}'}}"]
)
def test_a_secret_for_a_header_holds_none_either(config: ConfigFolder, auth: str) -> None:
    config.environ = {"BREAK": "hush-hush\nhush"}
    config.api(f"base_url: https://a.example\nauth: {auth}\n")
    config.endpoint()
    assert config.error().endswith(": a header holds no line break or control character")


@pytest.mark.parametrize(
    "url", [r'"https://o.example/a\nb"', '"https://o.example/${BREAK}{{ now }}"']
)
def test_a_url_holds_no_line_break(config: ConfigFolder, url: str) -> None:
    config.environ = {"BREAK": "a\r\nb"}
    config.endpoint(f"path: /x\nwebhooks: [{{name: a, phase: on_success, url: {url}}}]\n")
    message = "a URL holds no line break or control character"
    assert config.error() == f"{ENDPOINT}:2:41: webhooks.0.url: {message}"
    config.endpoint('path: "/x\\ny"\n')
    message = "a path holds no line break or control character"
    assert config.error() == f"{ENDPOINT}:1:1: path: {message}"


def test_the_name_of_a_webhooks_header_is_one(config: ConfigFolder) -> None:
    config.endpoint(
        "path: /x\nwebhooks: [{phase: on_success, url: 'https://o.example/', "
        "headers: {'a b': x}}]\n"
    )
    assert config.error().endswith("is not the name of a header")


def test_a_tab_and_what_an_expression_holds_are_no_problem(config: ConfigFolder) -> None:
    config.endpoint(r"""
        path: /x
        headers: {X-A: "a\tb", X-B: "{{ task.id\n}}"}
    """)
    assert config.errors() == []


def test_parameters_are_shown_as_they_are_sent(config: ConfigFolder) -> None:
    config.endpoint(
        """
        path: /x
        params:
          a: {type: string, default: 007}
          b: {type: integer, default: 7.0}
          c: {type: string}
        schedule: {every: 1h, params: {c: 0x1f}}
        """
    )
    endpoint = config.one()
    assert endpoint.shown["params"] == {
        "a": {"type": "string", "default": "007"},
        "b": {"type": "integer", "default": 7},
        "c": {"type": "string"},
    }
    assert endpoint.shown["schedule"] == {"every": "1h", "params": {"c": "0x1f"}}
