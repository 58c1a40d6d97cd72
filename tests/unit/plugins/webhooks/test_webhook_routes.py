from __future__ import annotations

import json
from typing import Any

import orchestratord_webhooks
import pytest
from orchestratord_webhooks import deliveries, health
from webhook_parts import ENDPOINT, FakeControl, declared

from orchestratord import Answer, Caller, Conflict, Delete, Doomed, InvalidParams, NotFound, Target
from orchestratord.model.endpoint import Param
from orchestratord.testing import Rig, answered, task

OTHER = "shop/listOrders"


class Api:
    """The plugin's routes over a control whose table was filled by `config_adopted`."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        endpoint = rig.endpoint(
            ENDPOINT,
            params={"id": Param(required=True), "limit": Param(default=50)},
            source="apis/shop/endpoints/getOrder.yaml",
            webhooks=[
                declared(status_code=["5xx", "error"]),
                declared(name="off", enabled=False),
                declared(name="chat", phase="on_retry", payload={"text": "{{ params.limit }}"}),
                declared(name="broken", payload="{{ params.missing }}"),
            ],
        )
        other = rig.endpoint(OTHER, webhooks=[declared(name="z"), declared(name="a")])
        self.control = FakeControl(rig.config(endpoint, other))
        for effect in rig.adopt(self.control.config):
            self.control.apply(effect)
        routes = orchestratord_webhooks.register_routes(self.control)
        self.handlers = {(route.method, route.path): route.handler for route in routes}

    async def get(self, path: str, query: dict[str, str] | None = None, **names: str) -> Answer:
        return await self.handlers["GET", path](names, query or {}, None)

    async def act(self, verb: str, webhook: str = "ops", endpoint: str = ENDPOINT) -> Answer:
        api, name = endpoint.split("/")
        path = f"/v1/endpoints/{{api}}/{{name}}/webhooks/{{webhook}}/{verb}"
        names = {"api": api, "name": name, "webhook": webhook}
        return await self.handlers["POST", path](names, {}, None)


@pytest.fixture
def api(rig: Rig) -> Api:
    return Api(rig)


async def test_the_list(api: Api) -> None:
    webhooks = (await api.get("/v1/webhooks")).body["webhooks"]
    assert webhooks[3].pop("counted_since").endswith(":00:00.000Z")
    assert [(item["endpoint"], item["name"]) for item in webhooks] == [
        (ENDPOINT, "broken"),
        (ENDPOINT, "chat"),
        (ENDPOINT, "off"),
        (ENDPOINT, "ops"),
        (OTHER, "a"),
        (OTHER, "z"),
    ]
    assert webhooks[3] == {
        "endpoint": ENDPOINT,
        "name": "ops",
        "phase": "after_request",
        "status_code": "5xx,error",
        "url": "https://ops.example.com/hook",
        "enabled": True,
        "disabled_at": None,
        "disabled_reason": None,
        "last_disabled_at": None,
        "missed": 0,
        "missed_deleted": 0,
        "last_status_code": None,
        "last_error": None,
        "last_attempt_at": None,
        "last_success_at": None,
        "failures": 0,
        "attempts": 0,
        "failed_attempts": 0,
        "success_rate": None,
    }
    assert webhooks[2]["enabled"] is False


async def test_the_list_of_one_endpoint(api: Api) -> None:
    answer = await api.get("/v1/webhooks", {"endpoint": OTHER})
    assert [item["name"] for item in answer.body["webhooks"]] == ["a", "z"]
    with pytest.raises(NotFound, match="shop/nothing"):
        await api.get("/v1/webhooks", {"endpoint": "shop/nothing"})


async def test_codes_and_times_are_given_as_elsewhere(api: Api) -> None:
    delivery = task(kind="webhook", endpoint_id=ENDPOINT, webhook="ops")
    endpoint = api.control.config.endpoints[ENDPOINT]
    for effect in await api.rig.tell("on_success", answered(204), task=delivery, endpoint=endpoint):
        await api.control.write([effect])
    ops = (await api.get("/v1/webhooks")).body["webhooks"][3]
    assert ops["last_status_code"] == 204
    assert (ops["attempts"], ops["success_rate"]) == (1, 1.0)
    assert ops["last_attempt_at"].endswith("Z")
    assert len(ops["last_success_at"]) == len("2026-11-24T22:00:00.000Z")


async def test_webhooks_as_they_are_declared(api: Api) -> None:
    path = "/v1/endpoints/{api}/{name}/webhooks"
    answer = await api.get(path, api="shop", name="listOrders")
    assert answer.headers["ETag"] == '"1"'
    assert answer.body == {
        "webhooks": [declared(name="z"), declared(name="a")],
        "names": [],
        "references": [],
        "inherited": [
            {"origin": "apis/shop/api.yaml:3", "overridden": True, "webhook": {"name": "z"}}
        ],
        "file": "apis/shop/endpoints/x.yaml",
        "writable": True,
        "reason": None,
        "etag": '"1"',
    }
    api.control.reason = "read-only"
    body = (await api.get(path, api="shop", name="listOrders")).body
    assert (body["writable"], body["reason"]) == (False, "read-only")
    with pytest.raises(NotFound):
        await api.get(path, api="shop", name="nothing")


async def test_writing_goes_to_the_file_with_what_the_caller_said(api: Api) -> None:
    names = {"api": "shop", "name": "listOrders"}
    write = api.handlers["PUT", "/v1/endpoints/{api}/{name}/webhooks"]
    caller = Caller("token, 127.0.0.1", {"if-match": '"1"'})
    read = (await api.get("/v1/endpoints/{api}/{name}/webhooks", **names)).body
    answer = await write(names, {}, read, caller)
    expected = (OTHER, "webhooks", read["webhooks"], '"1"', False, "token, 127.0.0.1")
    assert api.control.edits == [expected]
    problem = {
        "file": "apis/shop/endpoints/x.yaml", "line": 3, "column": 5, "key": "webhooks.0.url",
        "message": "bad", "hint": "write another",
    }  # fmt: skip
    assert answer.body | {"written": True, "generation": 7, "problems": [problem]} == answer.body
    tried = await write(names, {"dry_run": "true"}, {"webhooks": []}, Caller("x", {}))
    assert api.control.edits[1:] == [(OTHER, "webhooks", [], None, True, "x")]
    assert (tried.body["written"], tried.body["problems"]) == (False, [problem])
    assert tried.body["diff"].startswith("- old")
    assert "generation" not in tried.body


@pytest.mark.parametrize(
    ("query", "body", "wrong"),
    [
        ({"dry_run": "yes"}, {"webhooks": []}, "dry_run"),
        ({"dryrun": "true"}, {"webhooks": []}, "dryrun"),
        ({}, None, "webhooks"),
        ({}, [], "webhooks"),
        ({}, {"webhooks": [], "webhook": []}, "webhook"),
    ],
)
async def test_what_is_not_understood_is_not_written(
    api: Api, query: dict[str, str], body: Any, wrong: str
) -> None:
    names = {"api": "shop", "name": "listOrders"}
    write = api.handlers["PUT", "/v1/endpoints/{api}/{name}/webhooks"]
    with pytest.raises(InvalidParams) as caught:
        await write(names, query, body, Caller("x", {"if-match": "*"}))
    assert list(caught.value.problems) == [wrong]
    assert api.control.edits == []


async def test_disable_and_enable(api: Api) -> None:
    config = api.control.config
    endpoint = config.endpoints[ENDPOINT]
    answer = await api.act("disable")
    assert answer.status == 200
    assert answer.body["enabled"] is False
    assert answer.body["disabled_reason"] == "by hand"
    assert isinstance(deliveries.standing(endpoint, "ops", config), Doomed)
    assert api.control.looked_again == [ENDPOINT]
    await api.act("disable")  # the second time changes nothing
    (disabled,) = api.control.events
    assert disabled[0] == "webhook.disabled"
    assert disabled[2:] == (ENDPOINT, "ops", "by hand")
    api.control.looked_again = [ENDPOINT]

    api.rig.adopt(config, {"webhooks": await api.control.rows("webhooks")})
    assert health.disabled(ENDPOINT, "ops") == "by hand"

    answer = await api.act("enable")
    assert answer.body["enabled"] is True
    assert answer.body["disabled_at"] is None
    assert isinstance(deliveries.standing(endpoint, "ops", config), Target)
    assert api.control.looked_again == [ENDPOINT, ENDPOINT]
    assert (await api.act("enable")).status == 200
    assert [event.type for event in api.control.events[1:]] == ["webhook.enabled"]


async def test_what_the_yaml_switches_off_is_switched_on_there(api: Api) -> None:
    with pytest.raises(Conflict, match=r"apis/shop/endpoints/getOrder\.yaml.*enabled: false"):
        await api.act("enable", "off")


@pytest.mark.parametrize("verb", ["enable", "disable", "test"])
async def test_unknown_ones(api: Api, verb: str) -> None:
    with pytest.raises(NotFound, match="no webhook 'nothing'"):
        await api.act(verb, "nothing")
    with pytest.raises(NotFound, match="there is no endpoint shop/nothing"):
        await api.act(verb, "ops", "shop/nothing")


async def test_an_example_is_a_delivery_like_any_other(api: Api) -> None:
    answer = await api.act("test")
    assert (answer.status, answer.body) == (202, {"id": 41})
    (new,) = api.control.tasks
    assert (new.kind, new.endpoint_id, new.webhook) == ("webhook", ENDPOINT, "ops")
    assert (new.phase, new.parent_id, new.max_attempts) == ("after_request", None, 10)
    envelope: dict[str, Any] = json.loads(new.payload or "")
    assert envelope["type"] == "after_request"
    data = envelope["data"]
    assert data["test"] is True
    assert data["status_code"] == 500
    assert data["endpoint"] == ENDPOINT
    assert data["params"] == {"id": None, "limit": 50}
    assert set(data) == {"test"} | orchestratord_webhooks.webhook_templates.DATA - {"partition"}


async def test_a_trial_of_a_statements_webhook(api: Api, rig: Rig) -> None:
    hook = {"name": "ops", "phase": "after_execute", "url": "https://ops.example.com/hook"}
    api.control.config = rig.config(rig.endpoint("stock/put", type="sql", webhooks=[hook]))
    await api.act("test", "ops", "stock/put")
    (new,) = api.control.tasks
    data = json.loads(new.payload or "")["data"]
    assert (data["status_code"], data["request"]["database"]) == ("ok", "example")
    assert data["response"] is not None


async def test_a_trial_renders_the_webhooks_own_payload(api: Api) -> None:
    await api.act("test", "chat")
    await api.act("test", "broken")
    chat, broken = api.control.tasks
    assert chat.payload == '{"text":50}'
    assert broken.payload is None
    assert "missing" in (broken.error or "")


async def test_nothing_is_delivered_to_what_is_disabled(api: Api) -> None:
    with pytest.raises(Conflict, match=r"off is disabled in .*: take `enabled: false` out"):
        await api.act("test", "off")
    await api.act("disable")
    with pytest.raises(Conflict, match="ops is disabled: enable it"):
        await api.act("test")
    assert api.control.tasks == []


@pytest.mark.parametrize(
    ("keys", "status_code"),
    [
        ({"phase": "before_request"}, None),
        ({"phase": "on_success"}, 200),
        ({"phase": "after_request"}, 200),
        ({"phase": "on_final_failure"}, 503),
        ({"status_code": "404"}, 404),
        ({"status_code": "error"}, "error"),
        ({"status_code": ["error", "5xx"]}, 500),
    ],
)
async def test_a_trial_shows_a_status_code_that_fits(
    rig: Rig, keys: dict[str, Any], status_code: Any
) -> None:
    endpoint = rig.endpoint(ENDPOINT, webhooks=[declared(**keys)])
    control = FakeControl(rig.config(endpoint))
    rig.adopt(control.config)
    for route in orchestratord_webhooks.register_routes(control):
        if route.path.endswith("{name}/webhooks/{webhook}/test"):
            await route.handler({"api": "shop", "name": "getOrder", "webhook": "ops"}, {}, None)
    data = json.loads(control.tasks[0].payload or "")["data"]
    assert data["status_code"] == status_code
    webhook = endpoint[orchestratord_webhooks.WEBHOOKS][0]
    assert webhook.obstacle(webhook.phase, data["status_code"]) is None


async def test_an_example_of_a_batch_has_one_member(rig: Rig) -> None:
    endpoint = rig.endpoint(
        ENDPOINT, webhooks=[declared(phase="on_final_failure", batch={"every": "5m"})]
    )
    control = FakeControl(rig.config(endpoint))
    rig.adopt(control.config)
    for route in orchestratord_webhooks.register_routes(control):
        if route.path.endswith("{name}/webhooks/{webhook}/test"):
            await route.handler({"api": "shop", "name": "getOrder", "webhook": "ops"}, {}, None)
    data = json.loads(control.tasks[0].payload or "")["data"]
    assert (data["count"], data["counts"]["reason"]) == (1, {"exhausted": 1})
    assert data["first"][0]["test"] is True


@pytest.mark.parametrize(("verb", "reason"), [("enable", None), ("disable", "by hand")])
async def test_one_whose_row_is_not_written_yet(api: Api, verb: str, reason: str | None) -> None:
    """It was declared just now; `config_adopted` has its row written after that."""
    await api.control.write([Delete("webhooks", {"endpoint_id": ENDPOINT, "name": "ops"})])
    answer = await api.act(verb)
    assert (answer.status, answer.body["name"]) == (200, "ops")
    assert answer.body["disabled_reason"] == reason
    assert answer.body.get("replay") is None
