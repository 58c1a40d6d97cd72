"""Sixty-six mistakes of a newcomer: `check` names the place, and what to write or the cause.

None of them is taken in silence. Each has the place that is said, and words of the message that
mend it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestratord.cli.main import main

X, API, DAEMON = "apis/shop/endpoints/x.yaml", "apis/shop/api.yaml", "orchestratord.yaml"
GOOD = {
    DAEMON: "concurrency: 50\n",
    API: "base_url: https://shop.example.com\n",
    "apis/shop/endpoints/getOrder.yaml": (
        "path: /orders/{{ params.id }}\nparams: {id: {type: integer, required: true}}\n"
    ),
}
P = "path: /x\n"
HOOK = "url: 'https://ops.example.com/hook'"
DATABASE = "databases: {w: {url: 'sqlite:///w.db'}}\n"
SIGNED = "type: event\ninbound: {path: /in/x, verify: github, secret: '${X:-a-secret}', dedupe: "
SELECT = "type: sql\ndatabase: w\nparams: {id: {}}\n"

IN_ENDPOINTS = [
    # YAML
    (f"{P}retry:\n\tmax_attempts: 3\n", "3:1", "a tab; indent with spaces"),
    ("path:/x\nmethod: GET\n", "1:5", "a space is missing behind the ':'"),
    ('path: "/x\nmethod: GET\n', "1:7", "a quote that is opened here is never closed"),
    (f"{P}success: [2xx, 404\nmethod: GET\n", "3:7", "expected ',' or ']' here"),
    ("path: {{ params.id }}\nparams: {id: {}}\n", "1:8", "quotes around the whole value"),
    (f"{P}params: {{q: {{}}}}\nquery: {{q: {{{{ params.q }}}}}}\n", "3:13", "needs quotes"),
    (f"{P}success_if: !(body.errors)\n", "2:1", "quote the text"),
    (f"{P}params: {{id: {{description: note: this}}}}\n", "2:32", "a text that holds ': '"),
    (f"{P}headers: {{X-User: @me}}\n", "2:19", "a text that begins with @ needs quotes"),
    (f"{P}retry:\n  max_attempts: 3\n   jitter: 0\n", "4:10", "wrong indentation"),
    (f"{P}method: GET\nmethod: POST\n", "3:1", "first in line 2; keep one"),
    (f"{P}headers: {{X-Note: “a note”}}\n", "2:11", "typographic quotes are sent along"),
    (f"{P}---\npath: /y\n", "2:1", "a file holds one"),
    (f"{P}schedule: {{cron: */5 * * * *}}\n", "2:19", "begins with & or * needs quotes"),
    ("- path: /x\n- path: /y\n", "1:1", "expected keys with values"),
    # Keys of other programs
    ("url: https://shop.example.com/x\n", "1:1", "unknown key, did you mean 'path'?"),
    (f"{P}retries: 5\n", "2:1", "did you mean 'retry'?"),
    (f"{P}retry: {{max_retries: 5}}\n", "2:9", "did you mean 'max_attempts'?"),
    (f"{P}retry: {{on: [500]}}\n", "2:9", "did you mean 'when'?"),
    (f"{P}retry: {{backoff: {{type: exponential}}}}\n", "2:9", "needs `strategy`"),
    (f"{P}rate_limit: 10/s\n", "2:1", "it belongs in the API's api.yaml"),
    (f"{P}webhooks: [{{event: on_success, {HOOK}}}]\n", "2:13", "did you mean 'phase'?"),
    (f"{P}poll: {{until: body.done, interval: 10s}}\n", "2:26", "did you mean 'every'?"),
    # Paths, templates and bodies
    ("path: https://shop.example.com/x\n", "1:1", "write scheme and host to base_url"),
    ("path: /x/{id}\nparams: {id: {}}\n", "1:1", "a template is {{ params.id }}"),
    ("path: /x/:id\nparams: {id: {}}\n", "1:1", "a template is {{ params.id }}"),
    ("path: /x/{{ id }}\nparams: {id: {}}\n", "1:1", "known are now, params, task"),
    ("path: /x/{{ params.id }\nparams: {id: {}}\n", "1:1", "has {{ without }}"),
    (f"{P}query: {{d: '{{{{ now() }}}}'}}\n", "2:9", "now is not a function; leave out ()"),
    (f"{P}headers: {{X-Shop: $SHOP_NAME}}\n", "2:11", "a reference is ${SHOP_NAME}"),
    ("path: params.id\nparams: {id: {}}\n", "1:1", "params.id is sent as it stands: a template"),
    (f"{P}params: {{q: {{}}}}\nquery: {{q: $params.q}}\n", "3:1", "is {{ params.q }}"),
    (f"{P}method: PUT\nparams: {{q: {{}}}}\nbody: {{json: [params.q]}}\n", "4:1", "{{ params.q }}"),
    (f"{P}body: {{json: {{a: 1}}}}\n", "2:1", "write method: POST"),
    (f"method: POST\n{P}body: {{item: hat}}\n", "3:8", "known are file, form, json"),
    (f"method: post\n{P}", "1:1", "did you mean 'POST'?"),
    (f"{P}params: {{id: {{type: int}}}}\n", "2:15", "did you mean 'integer'?"),
    (f"{P}params: {{id: string}}\n", "2:10", "expected a mapping, not a text"),
    # Values
    (f"{P}timeout: 30 seconds\n", "2:1", "write 500ms, 10s, 5m"),
    (f"{P}timeout: 30000\n", "2:1", "a number is in seconds: write its unit"),
    (f"{P}success: 200..299\n", "2:1", "write 200, 2xx, 500-599"),
    (f"{P}partition: true\n", "2:1", "expected a template"),
    # Expressions
    (f"{P}success_if: body.a == 'x' and body.b == 'y'\n", "2:1", "write && for and"),
    (f"{P}success_if: not body.errors\n", "2:1", "write ! for not"),
    (f"{P}success_if: body['status'] == 'ok'\n", "2:1", "a field stands behind a dot"),
    (f"{P}success_if: 'body.status == \"ok\"'\n", "2:1", "a text has single ones"),
    (f"{P}success_if: response.body.ok\n", "2:1", "write body for response.body"),
    (f"{P}success_if: '{{{{ body.ok }}}}'\n", "2:1", "stands without {{ }}"),
    (f"{P}success_if: headers.ETag\n", "2:1", "is always null: write headers.etag"),
    (f"{SIGNED}headers.\"X-Id\"}}\n", "2:66", 'write headers."x-id"'),
    (
        f"{SIGNED}body.id}}\nthen: [{{call: shop/sync, when: params.headers.\"X-A\" == 'B'}}]\n",
        "3:26",
        'write params.headers."x-a", as names of headers are here',
    ),
    # Schedules, webhooks, then
    (f"{P}schedule: '*/5 * * * *'\n", "2:1", "{cron: '*/15 * * * *'}"),
    (f"{P}schedule: {{every: day, at: 6pm}}\n", "2:24", "write it as 10:30"),
    (f"{P}schedule: {{every: day, timezone: Paris}}\n", "2:24", "such as Europe/Paris"),
    (f"{P}webhooks: [{{phase: on_failure, {HOOK}}}]\n", "2:13", "did you mean 'on_final_failure'?"),
    (f"{P}webhooks: [{{phase: on_success, status_code: 500, {HOOK}}}]\n", "2:32", "leave it out"),
    (f"{P}then: [{{call: getOrder}}]\n", "2:9", "the pattern api/name, such as shop/getOrder"),
    (f"{P}then: [{{call: shop/getOrder, params: {{id: open}}}}]\n", "2:39", "a text has quotes"),
]  # fmt: skip
ELSEWHERE = [
    ({API: "base_url: shop.example.com\n"}, f"{API}:1:1", "begins with http:// or https://"),
    ({API: "base_url: http://localhost:8080\n"}, f"{API}:1:1", "egress: {allow: [127.0.0.1:8080]}"),
    ({API: f"{GOOD[API]}auth: {{bearer: Bearer abc}}\n"}, f"{API}:2:8", "the word Bearer itself"),
    ({API: f"{GOOD[API]}path: /x\n"}, f"{API}:2:1", "it belongs in an endpoint's file"),
    ({DAEMON: "base_url: https://a.example.com\n"}, f"{DAEMON}:1:1", "in an API's api.yaml"),
    ({"endpoints/x.yaml": P}, "endpoints", "endpoints stand in apis/API/endpoints"),
    ({"config.yaml": "concurrency: 5\n"}, "config.yaml", "the settings are orchestratord.yaml"),
    (
        {DAEMON: DATABASE, X: f"{SELECT}statement: SELECT * FROM t WHERE id = %s\n"},
        f"{X}:4:39",
        "a parameter is :name",
    ),
]
MISTAKES = [({X: text}, f"{X}:{place}", words) for text, place, words in IN_ENDPOINTS] + ELSEWHERE


MEANT = [
    {X: f"{P}webhooks: [{{phase: on_success, status_code: 201, {HOOK}}}]\n"},
    {X: f"{P}timeout: 5h\n"},
    {X: f"{P}method: GET\nbody: {{json: {{a: 1}}}}\n"},
    {X: "path: /v1/users:batchGet\n"},
    {X: f"{P}query: {{price: $5, q: 'a $b'}}\n"},
    {X: f"{P}success_if: response.ok\n"},
    {X: f"{P}success_if: body.headers.ETag && headers.etag == 'A'\n"},
    {X: "path: {from: params.id}\nparams: {id: {}}\n"},
    {X: f"method: POST\n{P}body: {{json: {{a: 'x params.id', params.id: 1}}}}\n"},
    {X: f"{P}partition: all\n"},
    {API: "base_url: http://localhost:8080\negress: {allow: [127.0.0.1:8080]}\n"},
    {API: "base_url: http://localhost:8080\negress: {allow: ['[::1]:8080']}\n"},
    {API: f"{GOOD[API]}egress: {{allow: ['::1', 'fe80::1', '[::1:80]']}}\n"},
    {DAEMON: DATABASE, X: f"{SELECT}statement: SELECT 7 %s FROM (SELECT :id AS s)\n"},
]
"""Files that resemble one of these mistakes, and are good."""


def said_of(folder: Path, files: dict[str, str]) -> str:
    """What `check` says of a folder that is good but for some files."""
    for name, text in {**GOOD, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return CliRunner().invoke(main, ["check", "--config", str(folder)]).stderr


def test_there_are_so_many() -> None:
    assert len(MISTAKES) == 66


@pytest.mark.parametrize("files", [{X: P}, *MEANT], ids=str)
def test_of_what_is_meant_nothing_is_said(files: dict[str, str], tmp_path: Path) -> None:
    assert said_of(tmp_path, files) == ""


@pytest.mark.parametrize(
    ("files", "place", "words"), MISTAKES, ids=[words[:30] for _, _, words in MISTAKES]
)
def test_a_mistake_has_its_place_and_remedy(
    files: dict[str, str], place: str, words: str, tmp_path: Path
) -> None:
    said = said_of(tmp_path, files)
    line = next((line for line in said.splitlines() if f"{place}: " in line and words in line), "")
    assert line, said


def test_a_key_in_the_wrong_file_hides_no_other_mistake(tmp_path: Path) -> None:
    event = f"type: event\nwebhooks: [{{phase: on_retry, {HOOK}}}]\n"
    said = said_of(tmp_path, {DAEMON: "webhooks: []\n", X: event})
    assert f"{DAEMON}:1:1: webhooks: unknown key" in said
    assert f"{X}:2:13: webhooks.0.phase: " in said


def test_a_secret_that_is_not_set_is_told_of_once(tmp_path: Path) -> None:
    inbound = f"{SIGNED.replace('X:-a-secret', 'secret:NOT_SET')}body.id}}\n"
    assert said_of(tmp_path, {X: inbound}).count("inbound.secret: ") == 1
