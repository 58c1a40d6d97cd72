"""Parameters with a NUL or half of a surrogate pair: the same answer on both databases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.receiver import Answer, Receiver
from tests.postgres import Postgres

NUL, HALF = "a\0b", "a\ud800b"


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    if request.param == "sqlite":
        yield {}
        return
    with Postgres() as server:
        yield {"database": server.create()}


def test_each_door_keeps_it_or_refuses_it(
    database: dict[str, str], make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = make_daemon(**database)
    daemon.api("shop", receiver.url)
    params = {"text": {"type": "string"}, "any": {"type": "object", "default": {}}}
    told = {"call": "shop/told", "params": {"text": "body.text"}}
    daemon.endpoint(
        "shop/told", "/told", method="POST", params=params, body={"json": "{{ params }}"}
    )
    daemon.endpoint(
        "shop/post",
        "/post",
        method="POST",
        params=params,
        body={"json": "{{ params }}"},
        then=[told],
    )
    daemon.endpoint(
        "shop/ordered", "/post", method="POST", params=params, partition="{{ params.text }}"
    )
    receiver.reply("/", lambda request: Answer(body=request.body))
    daemon.start()
    path = "/v1/endpoints/shop/post/calls"
    headers = {"Content-Type": "application/json"}
    kept: list[dict[str, Any]] = [
        {"params": {"text": NUL}},
        {"params": {"text": "x", "any": {"deep": [NUL], NUL: 1}}},
        {"batch": [{"text": NUL}, {"text": "y"}]},
    ]
    ids: list[int] = []
    for body in kept:
        answer = daemon.request("POST", path, json=body)
        assert answer.status_code == 202, answer.text
        made = answer.json()
        ids += made["ids"] if "ids" in made else [made["id"]]
    refused: tuple[dict[str, Any], ...] = (
        {"params": {"text": HALF}},
        {"params": {"text": "x", "any": {"deep": [HALF]}}},
        {"params": {"text": "x", "any": {HALF: 1}}},
        {"batch": [{"text": "x"}, {"text": HALF}]},
    )
    for body in refused:
        answer = daemon.request("POST", path, content=json.dumps(body), headers=headers)
        assert answer.status_code == 400, (body, answer.text)
    daemon.settle()
    for id_ in ids:
        task = daemon.task(id_)
        assert task["status"] == "succeeded", task
    assert daemon.task(ids[0])["params"]["text"] == NUL
    sent = [json.loads(one.body) for one in receiver.received("/told")]
    assert [one["text"] for one in sent].count(NUL) == 2
    answer = daemon.request(
        "POST", f"/v1/retries/{ids[1]}/trigger", json={"params": {"text": NUL}, "force": True}
    )
    assert answer.status_code == 202, answer.text
    for name in ("text", "partition", "webhook"):
        found = daemon.request("GET", "/v1/retries", params={name: NUL})
        assert found.status_code == 422, found.text
    calls = "/v1/endpoints/shop/{}/calls"
    for where, body, status in (
        ("/v1/retries/cancel", {"filter": {"text": NUL}}, 202),
        ("/v1/retries/cancel", {"filter": {"partition": NUL}}, 202),
        (
            "/v1/retries/resolve",
            {"filter": {"status": "failed"}, "as": "failed", "note": NUL},
            202,
        ),
        (calls.format("ordered"), {"params": {"text": NUL}}, 422),
        (calls.format("post"), {"text_params": {"text": NUL, "any": json.dumps({"a": NUL})}}, 202),
    ):
        answer = daemon.request("POST", where, json=body)
        assert answer.status_code == status, (body, answer.text)
    daemon.settle()
    for where in ("/v1/retries", "/v1/bulks", "/v1/actions", "/v1/runs"):
        assert daemon.get(where).status_code == 200
