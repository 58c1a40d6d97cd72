"""From an answer to the calls that follow from it."""

from __future__ import annotations

from typing import Any

import httpx
import orchestratord_then
import pytest
from orchestratord_then import child_tasks
from pydantic import TypeAdapter

from orchestratord import (
    Config,
    Endpoint,
    NewTask,
    Outcome,
    Partition,
    PartitionKey,
    RunSummary,
)
from orchestratord.model.endpoint import Param
from orchestratord.testing import Rig, answered, task, unanswered

SOURCE, TARGET = "crm/list", "crm/get"
CALL = task(id=42, endpoint_id=SOURCE, attempts=2, params={"page": 3}, depth=4)
RECORDS = {"records": [{"Id": "a", "n": 1}, {"Id": "b", "n": 2}, {"Id": "c", "n": 3}]}


@pytest.fixture
def rig() -> Rig:
    return Rig(orchestratord_then)


def declared(rig: Rig, *entries: dict[str, Any], **params: Param) -> tuple[Endpoint, Config]:
    """An endpoint with these entries, and the one that they call."""
    source = rig.endpoint(SOURCE, then=[{"call": TARGET, **entry} for entry in entries])
    known = params or {"id": Param(type="string"), "limit": Param(type="integer", default=50)}
    target = rig.endpoint(TARGET, params=known)
    return source, rig.config(source, target, secrets=["hunter2-hunter2"])


async def follow(
    rig: Rig, outcome: Outcome, *entries: dict[str, Any], **params: Param
) -> list[NewTask]:
    """What follows from an answer that is judged a success, as the daemon would have it."""
    source, config = declared(rig, *entries, **params)
    given = {"task": CALL, "endpoint": source, "config": config}
    judged = await rig.after(outcome, **given)
    assert judged.verdict == "success", judged.error
    tasks = await rig.tell("on_success", judged, **given)
    assert all(isinstance(item, NewTask) for item in tasks)
    return tasks  # type: ignore[return-value]


async def refusal(rig: Rig, outcome: Outcome, *entries: dict[str, Any], **params: Param) -> str:
    """Why an answer is taken for a failure."""
    source, config = declared(rig, *entries, **params)
    judged = await rig.after(outcome, task=CALL, endpoint=source, config=config)
    assert (judged.verdict, judged.final_reason) == ("failure", None)
    assert judged.decided_by == "plugin"
    assert judged.error is not None
    return judged.error


async def test_a_call_that_follows(rig: Rig) -> None:
    (new,) = await follow(
        rig, answered(200, json=RECORDS), {"params": {"id": "body.records[0].Id"}}
    )
    assert new == NewTask(
        "call", TARGET, {"id": "a", "limit": 50}, parent_id=42, depth=5, max_attempts=15
    )


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("body.records[1].Id", "b"),
        ('headers."x-next"', "n1"),
        ("headers.\"set-cookie\" || 'none'", "none"),
        ("to_string(status_code)", "200"),
        ("to_string(params.page)", "3"),
        ("join('-', [to_string(task.id), to_string(task.attempt)])", "42-2"),
        ("task.scheduled_at", "2027-01-15T08:00:00.000Z"),
        ("'text'", "text"),
        ("sum(body.records[].n) | to_string(@)", "6"),
        ("to_string(keys(@))", '["status_code","params","task","headers","body","text"]'),
    ],
)
async def test_what_expressions_see(rig: Rig, expression: str, found: str) -> None:
    outcome = answered(200, json=RECORDS, headers={"X-Next": "n1", "Set-Cookie": "a=b"})
    (new,) = await follow(rig, outcome, {"params": {"id": expression}})
    assert new.params["id"] == found


async def test_one_for_each_item(rig: Rig) -> None:
    entry = {"each": "body.records", "params": {"id": "item.Id", "limit": "item.n"}}
    found = await follow(rig, answered(200, json=RECORDS), entry)
    assert [new.params for new in found] == [
        {"id": "a", "limit": 1}, {"id": "b", "limit": 2}, {"id": "c", "limit": 3},
    ]  # fmt: skip


async def test_when_is_asked_of_each_item_or_once(rig: Rig) -> None:
    of_items = {"each": "body.records", "when": "item.n > `1`", "params": {"id": "item.Id"}}
    found = await follow(rig, answered(200, json=RECORDS), of_items)
    assert [new.params["id"] for new in found] == ["b", "c"]
    # A condition on the answer comes before anything else: here there is no list.
    once = {"each": "body.records", "when": "status_code == `201`", "params": {"id": "item.Id"}}
    assert await follow(rig, answered(204), once) == []


@pytest.mark.parametrize("when", ["body.nothing", "body.no", "body.empty", "body.list", "`false`"])
async def test_what_is_not_true(rig: Rig, when: str) -> None:
    body = {"no": False, "empty": "", "list": []}
    assert await follow(rig, answered(200, json=body), {"when": when}) == []


async def test_null_is_left_out_and_constants_stand_for_themselves(rig: Rig) -> None:
    entry = {"params": {"id": "body.nothing", "limit": 7}}
    (new,) = await follow(rig, answered(200, json={}), entry)
    assert new.params == {"id": None, "limit": 7}
    (new,) = await follow(rig, answered(200, json={}), {"params": {"limit": "body.nothing"}})
    assert new.params == {"id": None, "limit": 50}


async def test_without_a_body_where_none_is_looked_at(rig: Rig) -> None:
    assert len(await follow(rig, answered(204), {"params": {"limit": "params.page"}})) == 1


async def test_entries_in_their_order(rig: Rig) -> None:
    entries = [{"params": {"id": "'1'"}}, {"when": "`false`"}, {"params": {"id": "'2'"}}]
    found = await follow(rig, answered(200), *entries)
    assert [new.params["id"] for new in found] == ["1", "2"]


CUT = answered(200, json=RECORDS)
assert CUT.response is not None
CUT.response.extensions["truncated"] = True
BODY = {"params": {"id": "body.id"}}


@pytest.mark.parametrize(
    ("outcome", "entry", "error"),
    [
        (CUT, BODY, "then.0: the answer was cut after 64 bytes; ask for less at once, or give it"),
        (answered(200), BODY, "then.0: the answer has no body"),
        (answered(200, text="<a/>"), BODY, "then.0: the body of the answer is not JSON: Expecting"),
        (answered(200, text='{"id": NaN}'), BODY, "not JSON: NaN is no number"),
        (answered(200, text="[" * 100_000), BODY, "is nested too deeply"),
        (answered(200, content=b'{"id": "\xff"}'), BODY, "is not JSON"),
        (
            answered(200, json={"id": 5}),
            BODY,
            "then.0: crm/get: params.id: expected a text, not 5",
        ),
        (answered(200, text='{"id": "\\ud800"}'), BODY, "is not a JSON value"),
        (
            answered(200, json={"id": "my hunter2-hunter2!"}),
            BODY,
            "then.0: the parameters would hold a secret of this configuration",
        ),
        (
            answered(200, json={"records": None}),
            {"each": "body.records"},
            "then.0.each: body.records is null, and not a list",
        ),
        (
            answered(200, json={"records": {"a": 1}}),
            {"each": "body.records"},
            "is a mapping, and not a list",
        ),
        (
            answered(200, json={"records": [{"n": 1}, {"n": "x"}]}),
            {"each": "body.records", "params": {"limit": "item.n"}},
            "then.0, item 1: crm/get: params.limit: expected a whole number, not \"x\"",
        ),
        (
            answered(200, json={}),
            {"params": {"id": "join('', body.a)"}},
            "then.0: params.id: join('', body.a): join() takes array-string, not null",
        ),
        (
            answered(200, json={}),
            {"limit": 5},
            "then.0: crm/get would be call 6 of a chain, and limit is 5",
        ),
    ],
)  # fmt: skip
async def test_what_cannot_be_worked_out_is_a_failure(
    rig: Rig, outcome: Outcome, entry: dict[str, Any], error: str
) -> None:
    assert error in await refusal(rig, outcome, entry)


async def test_what_is_required_and_missing(rig: Rig) -> None:
    said = await refusal(rig, answered(200, json={}), BODY, id=Param(required=True))
    assert said == "then.0: crm/get: params.id: is required"


async def test_a_target_that_is_gone(rig: Rig) -> None:
    source, _ = declared(rig, {})
    judged = await rig.after(answered(200), task=CALL, endpoint=source, config=rig.config(source))
    assert judged.error == "then.0: there is no endpoint crm/get"


async def test_a_chain_may_be_as_long_as_its_limit(rig: Rig) -> None:
    (new,) = await follow(rig, answered(200), {"limit": 6})
    assert new.depth == 5, "six calls, counted from the first one"


async def test_thousands_of_items_and_no_more_than_so_many(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"each": "body", "params": {"limit": "item"}}
    found = await follow(rig, answered(200, json=list(range(1500))), entry)
    assert [new.params["limit"] for new in found] == list(range(1500))
    monkeypatch.setattr(child_tasks, "MAX_TASKS", 1499)
    said = await refusal(rig, answered(200, json=list(range(1500))), entry)
    assert said == "then.0, item 1499: more than 1499 calls would follow from one answer"


async def test_parameters_that_would_fill_the_disk(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_tasks, "MAX_BYTES", 3 << 16)
    entry = {"each": "body.list", "params": {"id": "body.text"}}
    body = {"list": [0] * 4, "text": "x" * (1 << 16)}
    said = await refusal(rig, answered(200, json=body), entry)
    assert said.startswith("then.0, item 2: the parameters of what follows")


async def test_it_does_not_take_for_ever(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_tasks, "PLAN_TIMEOUT", 0.0)
    entry = {"each": "body", "params": {"limit": "item"}}
    said = await refusal(rig, answered(200, json=list(range(500))), entry)
    assert said == "then: takes longer than 0 s; split the answer"


async def test_what_others_changed_is_worked_out_anew(rig: Rig) -> None:
    source, config = declared(rig, BODY)
    given = {"task": CALL, "endpoint": source, "config": config}
    judged = await rig.after(answered(200, json={"id": "a"}), **given)
    other = httpx.Response(200, json={"id": "b"})
    (new,) = await rig.tell("on_success", _with(judged, other), **given)
    assert isinstance(new, NewTask)
    assert new.params["id"] == "b"


def _with(outcome: Outcome, response: httpx.Response) -> Outcome:
    from dataclasses import replace

    return replace(outcome, response=response)


async def test_failures_deliveries_and_statements(rig: Rig) -> None:
    source, config = declared(rig, BODY)
    given: dict[str, Any] = {"endpoint": source, "config": config}
    for outcome, about in (
        (answered(404), CALL),
        (answered(200), task(kind="webhook", webhook="ops", endpoint_id=SOURCE)),
    ):
        assert await rig.after(outcome, task=about, **given) is outcome
    assert await rig.tell("on_success", answered(200), task=task(kind="webhook"), **given) == []
    done = Outcome("success", "ok", httpx.Response(200, json={"id": "a"}), answered=True)
    judged = await rig.after(done, phase="after_execute", task=CALL, **given)
    (new,) = await rig.tell("on_success", judged, task=CALL, **given)
    assert isinstance(new, NewTask)
    bad = await rig.after(Outcome("success", "ok"), phase="after_execute", task=CALL, **given)
    assert bad.error == "then.0: the answer has no body"


# -- a failure, and the end of a run ---------------------------------------------------------------

WHY = {"on": "failure", "params": {"id": "reason", "limit": "body.n"}}


@pytest.mark.parametrize(
    ("outcome", "limit"),
    [
        (answered(503, json={"n": 7}), 7),
        (answered(503, text="<h1>down</h1>"), 50),
        (unanswered("connection refused"), 50),
    ],
)
async def test_what_follows_from_a_failure(rig: Rig, outcome: Outcome, limit: int) -> None:
    source, config = declared(rig, WHY, {"on": "failure", "each": "body.none"}, {})
    failed = task(id=42, endpoint_id=SOURCE, reason="exhausted", depth=4)
    given = {"task": failed, "endpoint": source, "config": config}
    # The second entry cannot be worked out, and the third one follows from a success.
    (new,) = await rig.tell("on_final_failure", outcome, **given)
    assert isinstance(new, NewTask)
    assert new.params == {"id": "exhausted", "limit": limit}
    assert (new.parent_id, new.depth, new.run_id) == (42, 5, None)
    found = rig.explain("on_final_failure", outcome, **given)
    assert [item.happens for item in found] == [False, True, False]
    assert await rig.tell("on_success", answered(200, json={}), **given) != []


async def test_what_follows_from_the_end_of_a_run(rig: Rig) -> None:
    many = {"on": "run_end", "when": "counts.failed > `0`", "params": {"limit": "counts.failed"}}
    source, config = declared(rig, many, {"on": "run_end", "when": "end > `1`"})
    run = RunSummary(42, SOURCE, 5, 3, 2, 0, 1, 0, 61_500, {TARGET: 2})
    given = {"task": CALL, "endpoint": source, "config": config, "run": run}
    (new,) = await rig.tell("on_run_end", Outcome("failure", "error"), **given)
    assert isinstance(new, NewTask)
    assert (new.params["limit"], new.parent_id, new.depth) == (2, 42, 5)
    told = rig.explain("on_run_end", Outcome("failure", "error"), **given)
    assert [item.task for item in told if item.happens] == [new]


# -- explain -------------------------------------------------------------------------------------


def said(rig: Rig, outcome: Outcome, *entries: dict[str, Any]) -> list[tuple[str, bool, str, Any]]:
    source, config = declared(rig, *entries)
    found = rig.explain("on_success", outcome, task=CALL, endpoint=source, config=config)
    assert {item.kind for item in found} == {"call"}
    params = [item.task and item.task.params for item in found]
    told = zip(found, params, strict=True)
    return [(item.name, item.happens, item.why, given) for item, given in told]


async def test_explain_and_on_success_are_of_one_mind(rig: Rig) -> None:
    entries = [
        {"each": "body.records", "when": "item.n > `1`", "params": {"id": "item.Id"}},
        {"when": "body.more"},
        {"params": {"limit": 1}},
    ]
    source, config = declared(rig, *entries)
    about: dict[str, Any] = {"task": CALL, "endpoint": source, "config": config}
    told = rig.explain("on_success", answered(200, json=RECORDS), **about)
    done = await rig.tell("on_success", answered(200, json=RECORDS), **about)
    assert [item.task for item in told if item.happens] == done
    assert [(item.name, item.why) for item in told] == [
        ("crm/get (then.0)", "2 of 3 in body.records, by `when`: item.n > `1`"),
        ("crm/get (then.0)", "2 of 3 in body.records, by `when`: item.n > `1`"),
        ("crm/get (then.1)", "`when` is not true: body.more"),
        ("crm/get (then.2)", "it follows each success"),
    ]


def test_explain_says_why_nothing_follows(rig: Rig) -> None:
    assert said(rig, answered(200), BODY) == [
        (TARGET, False, "then.0: the answer has no body", None)
    ]
    assert said(rig, answered(200, json={"records": []}), {"each": "body.records"}) == [
        (TARGET, False, "body.records is empty", None)
    ]
    source, config = declared(rig, BODY)
    (other,) = rig.explain("on_retry", answered(503), task=CALL, endpoint=source, config=config)
    assert (other.phase, other.happens) == ("on_success", False)
    assert other.why == "its phase is on_success"


@pytest.mark.parametrize(
    ("on", "phase", "each"),
    [
        ("success", "on_success", "success"),
        ("failure", "on_final_failure", "failure"),
        ("run_end", "on_run_end", "end of a run"),
    ],
)
def test_explain_says_what_it_follows(rig: Rig, on: str, phase: str, each: str) -> None:
    source, config = declared(rig, {"on": on})
    outcome = answered(200) if on == "success" else answered(404).failure("404 Not Found")
    (told,) = rig.explain(phase, outcome, task=CALL, endpoint=source, config=config)
    assert (told.happens, told.why) == (True, f"it follows each {each}")


async def test_the_partition_of_a_child_task(rig: Rig) -> None:
    source = rig.endpoint(SOURCE, then=[{"call": TARGET, "params": {"id": "body.id"}}])
    rule = TypeAdapter(PartitionKey).validate_python({"by": "{{ params.id.a }}", "ordered": True})
    target = rig.endpoint(TARGET, params={"id": Param()}, partition=rule)
    about = {"task": CALL, "endpoint": source, "config": rig.config(source, target)}
    judged = await rig.after(answered(200, json={"id": {"a": 7}}), **about)
    (new,) = await rig.tell("on_success", judged, **about)
    assert isinstance(new, NewTask)
    assert new.partition == Partition("7", 1, ordered=True)
    judged = await rig.after(answered(200, json={"id": {"b": 7}}), **about)
    assert (judged.verdict, judged.error) == (
        "failure",
        "then.0: crm/get: in the template {{ params.id.a }}: there is no 'a'",
    )


# -- when a call is due ----------------------------------------------------------------------------

DUE = {"id": "a", "due_at": "2030-11-24T23:00:00+01:00"}


async def test_a_call_that_follows_later(rig: Rig) -> None:
    entries: list[dict[str, Any]] = [
        {"params": {"id": "body.id"}, "delay": "5m"},
        {"params": {"id": "body.id"}, "at": "body.due_at"},
        {"params": {"id": "item.id"}, "each": "[body, body]", "at": "item.due_at"},
    ]
    made = await follow(rig, answered(200, json=DUE), *entries)
    at = 1_921_788_000_000
    assert [(new.delay, new.at) for new in made] == [(300, None), (0, at), (0, at), (0, at)]


@pytest.mark.parametrize(
    ("at", "says"),
    [
        ("body.nothing", "then.0: at: body.nothing is null: expected a time with its zone"),
        ("body.id", "then.0: at: body.id is a text: expected a time with its zone"),
        ("`5`", "then.0: at: `5` is a number: expected a time with its zone"),
        ("'2126-01-01T00:00:00Z'", "is more than ten years ahead"),
    ],
)
async def test_a_time_that_is_none_is_a_failure(rig: Rig, at: str, says: str) -> None:
    why = await refusal(rig, answered(200, json=DUE), {"params": {"id": "body.id"}, "at": at})
    assert says in why
