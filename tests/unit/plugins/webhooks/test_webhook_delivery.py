from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import standardwebhooks
from orchestratord_webhooks import deliveries
from orchestratord_webhooks.declaration import WEBHOOKS
from orchestratord_webhooks.delivery import Deliveries
from orchestratord_webhooks.health import Health
from webhook_parts import ENDPOINT, OLDER, SECRET, Receiver, declared, send

from orchestratord import Doomed, InvalidPayload, Outcome, Parked, SendError, Target, Task
from orchestratord.testing import Answers, FakeClock, Rig, task

BODY = '{"text":"grüße"}'
STALE = SendError("closed", kind="reset", sent=True, stale=True)


def delivery(**fields: Any) -> Task:
    plain = {"id": 7, "kind": "webhook", "endpoint_id": ENDPOINT, "webhook": "ops"}
    about = {"phase": "after_request", "payload": BODY, "parent_id": 42, "params": {"id": "A/1"}}
    return task(**{**plain, **about, **fields})


def target(rig: Rig, **keys: Any) -> Target:
    endpoint = rig.endpoint(ENDPOINT, webhooks=[declared(**keys)])
    standing = deliveries.standing(endpoint, "ops", rig.config(endpoint))
    assert isinstance(standing, Target)
    return standing


def prepared(rig: Rig, about: Task | None = None, **keys: Any) -> httpx.Request:
    return deliveries.prepare(about or delivery(), target(rig, **keys), 1_795_557_600.0)


async def executed(rig: Rig, answers: Answers, about: Task | None = None, **keys: Any) -> Outcome:
    about, where = about or delivery(), target(rig, **keys)
    request = deliveries.prepare(about, where, time.time())
    return await deliveries.execute(request, about, where, answers)


# -- standing --------------------------------------------------------------------------------------


def test_where_a_delivery_goes(rig: Rig) -> None:
    endpoint = rig.endpoint(
        ENDPOINT,
        api={"egress": ["127.0.0.1:9000"], "concurrency": 3},
        webhooks=[declared(url="http://127.0.0.1:9000/x", timeout="2s")],
    )
    standing = deliveries.standing(endpoint, "ops", rig.config(endpoint))
    assert isinstance(standing, Target)
    assert (standing.lane, standing.concurrency) == ("127.0.0.1:9000", 10)
    assert (standing.timeout, standing.idempotent) == (2, True)
    assert standing.egress == ("127.0.0.1:9000",)
    assert standing.retry == endpoint[WEBHOOKS][0].retry
    assert standing.endpoint is endpoint


def test_a_removed_webhook_dooms_its_deliveries_after_a_minute(rig: Rig) -> None:
    endpoint = rig.endpoint(ENDPOINT, webhooks=[declared(name="other")])
    standing = deliveries.standing(endpoint, "ops", rig.config(endpoint))
    assert isinstance(standing, Doomed)
    assert (standing.reason, standing.after) == ("webhook_removed", 60)


def test_one_that_is_switched_off_parks_them(rig: Rig) -> None:
    endpoint = rig.endpoint(ENDPOINT, webhooks=[declared(enabled=False)])
    assert isinstance(deliveries.standing(endpoint, "ops", rig.config(endpoint)), Parked)


def test_one_that_is_disabled_dooms_them_at_once(rig: Rig) -> None:
    endpoint = rig.endpoint(ENDPOINT, webhooks=[declared()])
    config = rig.config(endpoint)
    disabled = {"endpoint_id": ENDPOINT, "name": "ops", "disabled_at": 1,
                "disabled_reason": "410 Gone",
                "fingerprint": endpoint[WEBHOOKS][0].fingerprint}  # fmt: skip
    rig.adopt(config, {"webhooks": [disabled]})
    standing = deliveries.standing(endpoint, "ops", config)
    assert isinstance(standing, Doomed)
    assert (standing.reason, standing.after) == ("webhook_disabled", 0)
    assert "410 Gone" in standing.why


# -- prepare ---------------------------------------------------------------------------------------


def test_the_request(rig: Rig) -> None:
    request = prepared(rig)
    assert (request.method, str(request.url)) == ("POST", "https://ops.example.com/hook")
    assert request.content == BODY.encode()
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == "orchestratord"
    text = prepared(rig, payload="{{ endpoint }}")
    assert text.headers["content-type"] == "text/plain; charset=utf-8"


def test_templates_of_url_and_headers(rig: Rig) -> None:
    request = prepared(
        rig,
        url="https://ops.example.com/{{ endpoint }}/{{ params.id }}?call={{ task_id }}",
        headers={
            "X-About": "{{ phase }} of {{ endpoint }}",
            "X-Task": "{{ task.id }}/{{ task.attempt }}",
            "X-Now": "{{ now }}",
            "Content-Type": "application/cloudevents+json",
        },
    )
    assert request.url.raw_path == b"/shop%2FgetOrder/A%2F1?call=42"
    assert request.headers["x-about"] == "after_request of shop/getOrder"
    assert request.headers["x-task"] == "7/1"
    moment = datetime.fromisoformat(request.headers["x-now"])
    assert moment == datetime.fromtimestamp(1_795_557_600, UTC)
    assert request.headers.get_list("content-type") == ["application/cloudevents+json"]


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ({"headers": {"X-A": "{{ params.missing }}"}}, "missing"),
        ({"headers": {"X-A": "a{{ params.lines }}"}}, "X-A"),
        ({"headers": {"X-A": "{{ params.euro }}"}}, "X-A"),
        ({"headers": {"X-A": "{{ params.bell }}"}}, "X-A"),
        ({"url": "https://ops.example.com/{{ params.up }}/x"}, "climb"),
    ],
)
def test_what_cannot_be_sent(rig: Rig, keys: dict[str, Any], part: str) -> None:
    about = delivery(params={"lines": "a\r\nX-B: c", "euro": "€", "bell": "\a", "up": ".."})
    with pytest.raises(InvalidPayload, match=part):
        prepared(rig, about, **keys)


def test_a_payload_that_did_not_render(rig: Rig) -> None:
    with pytest.raises(InvalidPayload, match="there is no 'x'"):
        prepared(rig, delivery(payload=None, last_error="there is no 'x'"))
    with pytest.raises(InvalidPayload):
        prepared(rig, delivery(payload=None))


# -- execute ---------------------------------------------------------------------------------------


async def test_a_receiver_verifies_it_while_the_secret_is_rotated(
    rig: Rig, receiver: Receiver
) -> None:
    where = target(rig, url=f"{receiver.url}/hook", secret=[SECRET, OLDER])
    request = deliveries.prepare(delivery(), where, time.time())
    outcome = await deliveries.execute(request, delivery(), where, send)
    assert (outcome.verdict, outcome.status_code) == ("success", 200)
    ((path, headers, body),) = receiver.requests
    assert path == "/hook"
    assert body == BODY.encode()
    assert headers["webhook-id"] == "msg_q1_7"
    for secret in (SECRET, OLDER):
        standardwebhooks.Webhook(secret).verify(body, headers)


async def test_without_a_secret_there_is_no_signature(rig: Rig) -> None:
    answers = Answers(200)
    await executed(rig, answers)
    (request,) = answers.requests
    assert "webhook-signature" not in request.headers
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60


@pytest.mark.parametrize("secret", [None, SECRET])
async def test_declared_headers_cannot_stand_for_the_signature(
    rig: Rig, secret: str | None
) -> None:
    answers = Answers(200)
    forged = {"Webhook-Id": "x", "webhook-timestamp": "1", "WEBHOOK-SIGNATURE": "v1,forged"}
    keys: dict[str, Any] = {"headers": forged} | ({"secret": secret} if secret else {})
    await executed(rig, answers, **keys)
    headers = answers.requests[0].headers
    assert headers.get_list("webhook-id") == ["msg_q1_7"]
    assert headers["webhook-timestamp"] != "1"
    assert "forged" not in headers.get("webhook-signature", "")
    assert ("webhook-signature" in headers) is (secret is not None)


async def test_ids_are_stable_over_retries_and_new_for_a_forced_repeat(rig: Rig) -> None:
    ids = []
    for about in (
        delivery(), delivery(attempts=2), delivery(generation=1), delivery(id=8),
        delivery(nonce="u1"), delivery(nonce="u1", attempts=2, generation=1),
    ):  # fmt: skip
        answers = Answers(200)
        await executed(rig, answers, about)
        ids.append(answers.requests[0].headers["webhook-id"])
    deliveries.bind("q2", {})
    answers = Answers(200)
    await executed(rig, answers)
    ids.append(answers.requests[0].headers["webhook-id"])
    # The first ones are of a queue from before tasks had random keys.
    before = ["msg_q1_7", "msg_q1_7", "msg_q1_7_1", "msg_q1_8"]
    assert ids == [*before, "msg_u1", "msg_u1", "msg_q2_7"]


async def test_the_timestamp_is_that_of_the_attempt(rig: Rig) -> None:
    clock = FakeClock(1_000_000.9)
    executor = Deliveries(Health(time.time))
    executor.now = clock.now
    executor.bind("q1", {})
    stamps = []
    for _ in range(2):
        answers, where = Answers(200), target(rig, secret=SECRET)
        request = executor.prepare(delivery(), where, clock.now())
        await executor.execute(request, delivery(), where, answers)
        stamps.append(answers.requests[0].headers["webhook-timestamp"])
        clock.turn(300)
    assert stamps == ["1000000", "1000300"]


@pytest.mark.parametrize(
    ("status_code", "verdict", "reason"),
    [
        (200, "success", None),
        (204, "success", None),
        (299, "success", None),
        (302, "retry", None),
        (400, "retry", None),
        (404, "retry", None),
        (409, "retry", None),
        (411, "retry", None),
        (429, "retry", None),
        (500, "retry", None),
        (599, "retry", None),
        (410, "failure", "webhook_disabled"),
    ],
)
async def test_answers(rig: Rig, status_code: int, verdict: str, reason: str | None) -> None:
    outcome = await executed(rig, Answers(status_code))
    assert (outcome.verdict, outcome.final_reason) == (verdict, reason)
    assert outcome.status_code == status_code


async def test_no_answer_is_tried_again(rig: Rig) -> None:
    outcome = await executed(rig, Answers(SendError("refused", kind="connect", sent=False)))
    assert (outcome.verdict, outcome.status_code, outcome.error) == ("retry", "error", "refused")
    denied = await executed(rig, Answers(SendError("denied", kind="egress", sent=False)))
    assert (denied.verdict, denied.final_reason) == ("failure", "rejected")


async def test_a_when_of_its_own_is_followed_except_for_410(rig: Rig) -> None:
    retry = {"when": ["4xx"]}
    assert (await executed(rig, Answers(503), retry=retry)).verdict == "failure"
    assert (await executed(rig, Answers(404), retry=retry)).verdict == "retry"
    gone = await executed(rig, Answers(410), retry=retry)
    assert (gone.verdict, gone.final_reason) == ("failure", "webhook_disabled")


async def test_a_connection_that_was_closed_is_tried_once_more(rig: Rig) -> None:
    answers = Answers(STALE, 200)
    assert (await executed(rig, answers)).verdict == "success"
    assert len(answers.requests) == 2
    assert (await executed(rig, Answers(STALE, STALE))).verdict == "retry"


async def test_inline_tries(rig: Rig) -> None:
    answers = Answers(503, STALE, 503, 200)
    assert (await executed(rig, answers, retry={"inline": 2})).verdict == "retry"
    answers = Answers(503, 503, 200)
    assert (await executed(rig, answers, retry={"inline": 2})).verdict == "success"
    assert len(answers.requests) == 3
    later = httpx.Response(503, headers={"Retry-After": "30"})
    outcome = await executed(rig, Answers(later), retry={"inline": 2})
    assert outcome.retry_after == "30"


async def test_the_answer_is_bounded_and_redirects_are_not_followed(rig: Rig) -> None:
    seen: dict[str, Any] = {}

    async def watching(request: httpx.Request, **options: Any) -> httpx.Response:
        seen.update(options)
        return httpx.Response(200)

    where = target(rig)
    request = deliveries.prepare(delivery(), where, time.time())
    await deliveries.execute(request, delivery(), where, watching)
    assert seen["max_response"] == 20_000
    assert not seen.get("follow_redirects", False)


async def test_retries_over_a_real_connection(rig: Rig, receiver: Receiver) -> None:
    receiver.script = [503, 302, 200]
    where = target(rig, url=f"{receiver.url}/", secret=SECRET)
    verdicts = []
    for attempt in (1, 2, 3):
        about = delivery(attempts=attempt)
        request = deliveries.prepare(about, where, time.time())
        verdicts.append((await deliveries.execute(request, about, where, send)).verdict)
    assert verdicts == ["retry", "retry", "success"]
    assert {headers["webhook-id"] for _, headers, _ in receiver.requests} == {"msg_q1_7"}


def test_it_is_registered(rig: Rig) -> None:
    assert rig.host.registry.executor("webhook", "http") is deliveries


# -- who calls -------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"X-N": "{{ params.id }}", "authorization": "mine"}])
@pytest.mark.parametrize(
    ("auth", "name", "value"),
    [
        ({"bearer": "abc"}, "authorization", "Bearer abc"),
        ({"basic": {"username": "u", "password": "p"}}, "authorization", "Basic dTpw"),
        ({"header": {"name": "X-Key", "value": "k"}}, "x-key", "k"),
    ],
)
async def test_the_header_that_says_who_calls(
    rig: Rig, auth: dict[str, Any], name: str, value: str, headers: dict[str, str]
) -> None:
    answers = Answers(httpx.Response(204))
    await executed(rig, answers, auth=auth, headers=headers, secret=SECRET)
    (request,) = answers.requests
    assert request.headers[name] == value
    assert request.headers["webhook-signature"].startswith("v1,")


def test_a_token_is_that_of_all_that_ask_alike(rig: Rig) -> None:
    oauth2 = {"token_url": "https://a.example/t", "client_id": "x", "client_secret": "y"}
    one, same = (target(rig, auth={"oauth2": oauth2}).access for _ in range(2))
    other = target(rig, auth={"oauth2": {**oauth2, "client_secret": "z"}}).access
    assert one is not None
    assert same is not None
    assert other is not None
    assert one.name == same.name != other.name
    assert one.name.startswith("webhook ops~")
    assert target(rig, auth={"bearer": "abc"}).access is None

    endpoint = rig.endpoint(ENDPOINT, webhooks=[declared(auth={"oauth2": oauth2})])
    found = deliveries.access(one.name, rig.config(endpoint))
    assert found == one
    assert deliveries.access("webhook ops~000000", rig.config(endpoint)) is None


@pytest.mark.parametrize(
    ("auth", "says"),
    [
        ({}, "give exactly one of bearer, basic, header and oauth2"),
        ({"bearer": "a", "basic": {"username": "u", "password": "p"}}, "give exactly one"),
        ({"bearer": "{{ params.token }}"}, "takes no template"),
        ({"header": {"name": "X Key", "value": "k"}}, "is not the name of a header"),
        ({"bearer": "a\nb"}, "holds no line break"),
        ({"oauth2": {"token_url": "login", "client_id": "x", "client_secret": "y"}}, "token_url"),
    ],
)
def test_what_auth_may_say(rig: Rig, auth: dict[str, Any], says: str) -> None:
    with pytest.raises(Exception, match=says):
        target(rig, auth=auth)
