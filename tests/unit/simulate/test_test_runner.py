"""Tests of the YAML, tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from explain_parts import GET, POST, Shop
from orchestratord_simulate.test_runner import CaseResult, run_cases

from orchestratord import Explanation, NewTask, hookimpl

NOT_FOUND = "failed, not_retryable: 404 Not Found: retry.when does not cover 404"


async def tried(folder: Path, tests: str, *plugins: object, name: str = "get") -> list[CaseResult]:
    """What comes of `tests`, a flow list, at the endpoint GET or POST."""
    text = {"get": GET, "post": POST}[name]
    shop = Shop(folder, *plugins, **{name: f"{text.rstrip()}\n    tests: {tests}\n"})
    endpoint = shop.config.endpoints[f"shop/{name}"]
    return await run_cases(shop.opened, endpoint)


async def misses(folder: Path, answer: str, expect: str, **more: Any) -> dict[str, str]:
    """Key → message of what is not met by GET with id 7."""
    tests = f"[{{params: {{id: 7}}, answer: {answer}, expect: {expect}}}]"
    (one,) = await tried(folder, tests, **more)
    found = {".".join(map(str, path)): message for path, message in one.misses}
    assert len(found) == len(one.misses)
    return found


@pytest.mark.parametrize(
    ("answer", "expect"),
    [
        ("{status_code: 200}", "{outcome: succeeded, webhooks: [asked, read]}"),
        ("{status_code: 200}", "{webhooks: [read, asked]}"),
        ("{status_code: 404}", "{outcome: failed, reason: not_retryable, webhooks: [asked, lost]}"),
        ("{status_code: 404}", "{reason: not_retryable}"),
        ("{status_code: 503}", "{outcome: retry, delay: 10s, webhooks: [asked, ops, late]}"),
        ("{status_code: 503}", "{delay: [5s, 10s]}"),
        ("{error: dns}", "{outcome: retry, delay: [10s, 1m]}"),
        ("{status_code: 503, headers: {Retry-After: '40'}}", "{delay: 40s}"),
        (
            "{status_code: 200}",
            "{request: {method: get, url: 'https://shop.example.com/v1/orders/7'}}",
        ),
        (
            "{status_code: 200}",
            "{request: {headers: {authorization: 'Bearer ${secret:SHOP_TOKEN}'}}}",
        ),
    ],
)
async def test_what_is_met(tmp_path: Path, answer: str, expect: str) -> None:
    assert await misses(tmp_path, answer, expect) == {}


@pytest.mark.parametrize(
    ("answer", "expect", "key", "message"),
    [
        (
            "{status_code: 404}",
            "{outcome: succeeded}",
            "expect.outcome",
            f"expected succeeded, came {NOT_FOUND}",
        ),
        (
            "{status_code: 503}",
            "{outcome: failed}",
            "expect.outcome",
            "expected failed, came retry: exponential 10s·2^0=10s",
        ),
        (
            "{status_code: 404}",
            "{reason: exhausted}",
            "expect.reason",
            f"expected exhausted, came {NOT_FOUND}",
        ),
        (
            "{status_code: 200}",
            "{reason: exhausted}",
            "expect.reason",
            "expected exhausted, came succeeded: succeeded",
        ),
        (
            "{status_code: 503}",
            "{delay: 11s}",
            "expect.delay",
            "expected 11s, came 10s: exponential 10s·2^0=10s",
        ),
        (
            "{status_code: 503}",
            "{delay: [11s, 12s]}",
            "expect.delay",
            "expected 11s to 12s, came 10s: exponential 10s·2^0=10s",
        ),
        (
            "{status_code: 200}",
            "{delay: 10s}",
            "expect.delay",
            "expected 10s, came no further attempt, but succeeded: succeeded",
        ),
        (
            "{status_code: 200}",
            "{webhooks: [asked, ops, read]}",
            "expect.webhooks.1",
            "ops does not fire: status_code 5xx,error does not cover 200",
        ),
        (
            "{status_code: 200}",
            "{webhooks: [read]}",
            "expect.webhooks",
            "asked fires as well: phase is before_request, any status code",
        ),
        (
            "{status_code: 200}",
            "{request: {method: POST}}",
            "expect.request.method",
            "expected POST, came GET",
        ),
        (
            "{status_code: 200}",
            "{request: {url: 'https://shop.example.com/v1/orders/8'}}",
            "expect.request.url",
            "expected https://shop.example.com/v1/orders/8, came https://shop.example.com/v1/orders/7",
        ),
        (
            "{status_code: 200}",
            "{request: {headers: {X-None: a}}}",
            "expect.request.headers.X-None",
            "expected 'a', came no such header",
        ),
        (
            "{status_code: 200}",
            "{request: {headers: {accept: text/csv}}}",
            "expect.request.headers.accept",
            "expected 'text/csv', came '*/*'",
        ),
        (
            "{status_code: 200}",
            "{request: {headers: {Authorization: nobody-else}}}",
            "expect.request.headers.Authorization",
            "expected '***', came 'Bearer ***'",
        ),
        (
            "{status_code: 200}",
            "{request: {body: x}}",
            "expect.request.body",
            "expected 'x', came ''",
        ),
    ],
)
async def test_what_is_not_met(
    tmp_path: Path, answer: str, expect: str, key: str, message: str
) -> None:
    assert await misses(tmp_path, answer, expect) == {key: message}


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ("{item: hat}", None),
        ('\'{"item":"hat"}\'', None),
        ("{item: cap}", 'expected {"item": "cap"}, came {"item": "hat"}'),
        ("[1]", 'expected [1], came {"item": "hat"}'),
        ("hat", "expected 'hat', came '{\"item\":\"hat\"}'"),
    ],
)
async def test_bodies(tmp_path: Path, expected: str, message: str | None) -> None:
    given = "params: {item: hat}, answer: {status_code: 200}"
    tests = f"[{{{given}, expect: {{request: {{body: {expected}}}}}}}]"
    (one,) = await tried(tmp_path, tests, name="post")
    assert [said for _, said in one.misses] == ([] if message is None else [message])


async def test_each_has_its_place_and_a_label(tmp_path: Path) -> None:
    given = "params: {id: 7}, answer: {status_code: 200}"
    tests = (
        f"[{{name: good, {given}, expect: {{outcome: succeeded}}}},"
        f" {{{given}, expect: {{outcome: retry}}}}]"
    )
    first, second = await tried(tmp_path, tests)
    assert (first.label, first.index, first.misses) == ("good", 0, ())
    assert (second.label, second.index) == ("tests.1", 1)
    assert second.misses


async def test_the_attempt_and_the_time_are_the_tests(tmp_path: Path) -> None:
    get = "path: '/{{ now }}'\ntests:\n"
    case = "  - answer: {{status_code: 503}}\n    {more}\n    expect: {expect}\n"
    url = "https://shop.example.com/v1/{}"
    get += case.format(
        more="attempt: 3",
        expect=f"{{delay: 40s, request: {{url: '{url.format('2027-01-01T12%3A00%3A00.000Z')}'}}}}",
    )
    get += case.format(
        more="now: 2030-05-06T07:08:09+02:00",
        expect=f"{{delay: 10s, request: {{url: '{url.format('2030-05-06T05%3A08%3A09.000Z')}'}}}}",
    )
    shop = Shop(tmp_path, get=get)
    endpoint = shop.config.endpoints["shop/get"]
    for one in await run_cases(shop.opened, endpoint):
        assert one.misses == ()


async def test_a_delivery_that_cannot_be_rendered_is_a_miss(tmp_path: Path) -> None:
    hook = "{name: bad, phase: on_success, url: 'https://a.test/', payload: '{{ params.none }}'}"
    test = "{answer: {status_code: 200}, expect: {webhooks: [bad]}}"
    shop = Shop(tmp_path, get=f"path: /x\nwebhooks: [{hook}]\ntests: [{test}]\n")
    endpoint = shop.config.endpoints["shop/get"]
    (one,) = await run_cases(shop.opened, endpoint)
    ((path, message),) = one.misses
    assert path == ("expect", "webhooks", 0)
    assert message.startswith("bad fires, and its delivery will fail: ")


async def test_a_request_that_cannot_be_made_is_a_miss(tmp_path: Path) -> None:
    test = "{answer: {status_code: 200}, expect: {request: {method: GET}}}"
    get = f"path: '/{{{{ params.a.b }}}}'\nparams: {{a: {{default: {{c: 1}}}}}}\ntests: [{test}]\n"
    shop = Shop(tmp_path, get=get)
    endpoint = shop.config.endpoints["shop/get"]
    (one,) = await run_cases(shop.opened, endpoint)
    ((path, message),) = one.misses
    assert path == ("expect", "request")
    assert "there is no 'b'" in message

    test = "{answer: {status_code: 200}, expect: {outcome: failed, reason: invalid_payload}}"
    shop = Shop(tmp_path, get=get.replace(get[get.index("tests") :], f"tests: [{test}]\n"))
    endpoint = shop.config.endpoints["shop/get"]
    (one,) = await run_cases(shop.opened, endpoint)
    assert not one.misses


class Other:
    """Tells of a webhook, and of something else."""

    @hookimpl
    def explain(self, phase: str) -> list[Explanation]:
        if phase != "on_success":
            return []
        return [
            Explanation("mail", "boss", "on_success", True, "always"),
            Explanation("call", "shop/post", "on_success", True, "always", FOLLOWING),
            Explanation("call", "shop/get", "on_success", False, "`when` is false"),
        ]


FOLLOWING = NewTask("call", "shop/post", {"item": "hat"})


async def test_only_webhooks_count_as_webhooks(tmp_path: Path) -> None:
    tests = "[{params: {id: 7}, answer: {status_code: 200}, expect: {webhooks: [asked, read]}}]"
    (one,) = await tried(tmp_path, tests, Other())
    assert not one.misses


@pytest.mark.parametrize(
    ("answer", "calls", "message"),
    [
        ("200", "[shop/post]", None),
        ("200", "[{call: shop/post, params: {item: hat}}]", None),
        ("404", "[]", None),
        ("200", "[]", "shop/post follows as well: always"),
        ("200", "[shop/get]", "expected shop/get, came shop/post"),
        ("200", "[shop/post, shop/get]", "shop/get does not follow: `when` is false"),
        ("404", "[shop/post]", "shop/post does not follow"),
        (
            "200",
            "[{call: shop/post, params: {item: cap}}]",
            'expected {"item": "cap"}, came {"item": "hat"}',
        ),
    ],
)
async def test_the_calls_that_follow(
    tmp_path: Path, answer: str, calls: str, message: str | None
) -> None:
    tests = (
        f"[{{params: {{id: 7}}, answer: {{status_code: {answer}}}, expect: {{calls: {calls}}}}}]"
    )
    (one,) = await tried(tmp_path, tests, Other())
    assert [said for _, said in one.misses] == ([] if message is None else [message])
    assert all(path[:2] == ("expect", "calls") for path, _ in one.misses)


POLL = "poll: {until: body.state == 'done', fail_if: body.state == 'lost', every: 7s}"


@pytest.mark.parametrize(
    ("state", "expect", "message"),
    [
        ("busy", "{outcome: retry, delay: 7s, webhooks: [asked]}", None),
        ("done", "{outcome: succeeded, webhooks: [asked, read]}", None),
        ("lost", "{reason: not_retryable, webhooks: [asked, lost]}", None),
        (
            "busy",
            "{outcome: succeeded}",
            "expected succeeded, came retry: look 1: not done yet; poll.fail_if: body.state == "
            "'lost' finds false; poll.until: body.state == 'done' finds false",
        ),
    ],
)
async def test_what_is_not_done_yet(
    tmp_path: Path, state: str, expect: str, message: str | None
) -> None:
    # Of the last attempt, too: a look costs none.
    answer = f"{{status_code: 200, body: {{state: {state}}}}}"
    case = f"{{params: {{id: 7}}, attempt: 4, answer: {answer}, expect: {expect}}}"
    shop = Shop(tmp_path, get=f"{GET.rstrip()}\n    {POLL}\n    tests: [{case}]\n")
    endpoint = shop.config.endpoints["shop/get"]
    (one,) = await run_cases(shop.opened, endpoint)
    assert [said for _, said in one.misses] == ([] if message is None else [message])
