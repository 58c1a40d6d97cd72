"""`partition` of endpoints and webhooks: what is read, and what is refused where."""

from __future__ import annotations

from typing import Any

import pytest
from config_parts import ConfigFolder
from orchestratord_webhooks import WEBHOOKS

from orchestratord.config.show.json_schema import json_schema
from orchestratord.errors import InvalidPayload
from orchestratord.model.partition_turn import Partition

CALL = "path: /x\nparams: {account: {}, n: {default: 1}}\n"
HOOK = "path: /x\nwebhooks:\n- phase: after_request\n  url: https://a.example/\n"
FILE = "apis/shop/endpoints/get.yaml"


@pytest.mark.parametrize(
    ("written", "partition"),
    [
        ('"{{ params.account }}"', Partition("acme")),
        ('{by: "{{ params.account }}"}', Partition("acme")),
        ('{by: "{{ params.account }}", concurrency: 2}', Partition("acme", 2)),
        ('{by: "{{ params.account }}", ordered: true}', Partition("acme", 1, ordered=True)),
        ('{by: a, ordered: true, concurrency: 1}', Partition("a", 1, ordered=True)),
        ('{by: a, ordered: true, on_failure: hold}', Partition("a", 1, ordered=True, hold=True)),
        ('{by: a, ordered: "${O}", concurrency: "${C:-1}"}', Partition("a", 1, ordered=True)),
        ('"{{ params.account }}/{{ params.n }}"', Partition("acme/7")),
        ('"{{ params.n > 3 }}"', Partition("true")),
        ("7", Partition("7")),
    ],
)  # fmt: skip
def test_an_endpoint(config: ConfigFolder, written: str, partition: Partition) -> None:
    config.environ = {"O": "true"}
    config.endpoint(f"{CALL}partition: {written}\n")
    rule = config.one().partition
    assert rule is not None
    assert rule.of({"params": {"account": "acme", "n": 7}}) == partition


def test_without_one(config: ConfigFolder) -> None:
    config.endpoint(f"{CALL}partition:\n")
    assert config.one().partition is None


@pytest.mark.parametrize(
    ("written", "error"),
    [
        ("[a]", "3:1: partition: expected a template, such as {{ params.account }}, or a mapping "
         "with `by`"),
        ("{ordered: true}", "3:1: partition.by: is required"),
        ('"{{ params.acount }}"', "3:1: partition: 'params.acount' is not declared under params, "
         "did you mean 'account'?"),
        ('"{{ task.id }}"', "3:1: partition: 'task' is not known yet when a call is accepted; only "
         "`params` is"),
        ('"{{ parms.account }}"', "3:1: partition: 'parms' is not known in a template, did you "
         "mean 'params'?"),
        ('"{{ params.account"', "3:1: partition: the template in '{{ params.account' has {{ "
         "without }}"),
        ("{by: a, concurrency: 0}", "3:21: partition.concurrency: must be at least 1, not 0"),
        ("{by: a, ordered: true, concurrency: 2}", "3:36: partition.concurrency: with `ordered: "
         "true` one task of a partition is in flight at a time, and not 2; leave concurrency out"),
        ("{by: a, on_failure: hold}", "3:21: partition.on_failure: goes with `ordered: true`; "
         "tasks that are not ordered do not wait for each other"),
        ("{by: a, ordered: true, on_failure: stop}", "3:36: partition.on_failure: unknown value "
         "'stop'; known are continue, hold"),
        ("{by: a, order: true}", "3:21: partition.order: unknown key, did you mean 'ordered'?"),
        ('"${secret:S}"', "3:1: partition: a secret here would be stored in the database; name "
         "partitions by something else"),
    ],
)  # fmt: skip
def test_what_is_refused(config: ConfigFolder, written: str, error: str) -> None:
    config.environ = {"S": "hunter22"}
    config.endpoint(f"{CALL}partition: {written}\n")
    said = config.error()
    place, _, rest = error.partition(": ")
    assert said.endswith(rest), said
    assert said.startswith(f"{FILE}:{place.partition(':')[0]}:")


def test_a_schedule(config: ConfigFolder) -> None:
    scheduled = f"{CALL}schedule: {{every: 1h, params: {{account: a}}}}\n"
    config.endpoint(f"{scheduled}partition: {{by: a, ordered: true}}\n")
    assert "get.yaml:4:20: partition.ordered: an endpoint that has a schedule is not" in (
        config.error()
    )
    config.endpoint(f'{scheduled}partition: {{by: "{{{{ params.account }}}}", concurrency: 2}}\n')
    assert config.errors() == []
    config.endpoint(f'{scheduled}partition: "{{{{ params.account.name }}}}"\n')
    assert "partition: fails for the calls of the schedule" in config.error()


@pytest.mark.parametrize(
    ("written", "error"),
    [
        ('"{{ params.account }}"', None),
        ('{by: "{{ response.body }}{{ task.id }}{{ partition }}", ordered: true}', None),
        ('"{{ parms.account }}"', "'parms' is not known in this template, did you mean 'params'?"),
        ("{by: a, on_failure: hold}", "goes with `ordered: true`"),
        ('"${secret:S}"', "a secret here would be stored"),
    ],
)
def test_a_webhook(config: ConfigFolder, written: str, error: str | None) -> None:
    config.environ = {"S": "hunter22"}
    config.endpoint(f"{HOOK}  partition: {written}\n")
    if error is None:
        (webhook,) = config.one()[WEBHOOKS]
        assert webhook.partition is not None
    else:
        assert error in config.error()
        assert f"{FILE}:5:" in config.error()


def test_it_is_shown(config: ConfigFolder) -> None:
    config.endpoint(
        f'{HOOK}  partition: "{{{{ params.a }}}}"\npartition: {{by: x, ordered: true}}\n'
    )
    shown: Any = config.one().shown
    assert shown["partition"] == {"by": "x", "ordered": True}
    assert shown["webhooks"][0]["partition"] == "{{ params.a }}"


def test_editors_know_both_forms(config: ConfigFolder) -> None:
    schema = json_schema("endpoint", config.host.registry)
    (key,) = {
        str(part["properties"]["partition"]["anyOf"])
        for part in schema["$defs"].values()
        if "partition" in part.get("properties", {})
    }
    assert "string" in key
    assert "PartitionRule" in key
    assert set(schema["$defs"]["PartitionRule"]["properties"]) == {
        "by", "ordered", "concurrency", "on_failure",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ("a" * 201, "has 201 characters; 200 are taken"),
        ("a\nb", "control character"),
        ("a\x00", "control character"),
        ("\ud800", "control character"),
        ({}, "no 'name'"),
    ],
)
def test_what_is_no_partition(config: ConfigFolder, value: Any, wrong: str) -> None:
    config.endpoint(
        f'{CALL}partition: "{{{{ params.account{".name" if value == {} else ""} }}}}"\n'
    )
    rule = config.one().partition
    assert rule is not None
    with pytest.raises(InvalidPayload, match=wrong):
        rule.of({"params": {"account": value}})


@pytest.mark.parametrize(
    ("value", "text"),
    [("é" * 200, "é" * 200), (7, "7"), (1.5, "1.5"), (True, "true"), (None, ""), ("", "")],
)
def test_values_are_texts(config: ConfigFolder, value: Any, text: str) -> None:
    config.endpoint(f'{CALL}partition: "{{{{ params.account }}}}"\n')
    rule = config.one().partition
    assert rule is not None
    assert rule.of({"params": {"account": value}}).value == text
