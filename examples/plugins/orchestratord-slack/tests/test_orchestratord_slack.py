"""What is told, and what is not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import orchestratord_slack

from orchestratord import NewTask
from orchestratord.testing import Rig, answered, task


def told(endpoint_id: str = "shop/getOrder", error: str = "no stock", **slack: str) -> list[Any]:
    rig = Rig(orchestratord_slack)
    endpoint = rig.endpoint(endpoint_id, slack={"call": "slack/post", **slack})
    failed = task(
        id=42, endpoint_id=endpoint_id, status="failed", reason="exhausted", params={"id": 7}
    )
    outcome = answered(503).failure(error)
    return asyncio.run(rig.tell("on_final_failure", outcome, task=failed, endpoint=endpoint))


def test_a_failure_is_a_call_with_the_tasks_data() -> None:
    (message,) = told(dashboard="https://queue.example.com/")
    assert isinstance(message, NewTask)
    assert (message.endpoint_id, message.parent_id) == ("slack/post", 42)
    text = json.dumps(message.params["blocks"])
    for words in ("shop/getOrder", "no stock", "exhausted", "id=7", "orchestratorctl retry 42"):
        assert words in text
    assert "https://queue.example.com/retries/42" in text


def test_what_a_receiver_answered_cannot_speak_to_the_channel() -> None:
    (message,) = told(error="<!channel> ``` &amp;")
    text = message.params["blocks"][1]["text"]["text"]
    assert text == "```&lt;!channel&gt; ''' &amp;amp;```"


def test_a_long_error_is_cut() -> None:
    (message,) = told(error="x" * 9_000)
    assert len(message.params["blocks"][1]["text"]["text"]) < 3_000


def test_a_message_that_fails_makes_no_other() -> None:
    assert told("slack/post") == []


def test_endpoints_that_do_not_ask_are_not_told_of() -> None:
    rig = Rig(orchestratord_slack)
    assert asyncio.run(rig.tell("on_final_failure", answered(500), task=task())) == []


def test_check_names_an_endpoint_that_is_not_there() -> None:
    rig = Rig(orchestratord_slack)
    endpoint = rig.endpoint("shop/getOrder", slack={"call": "slack/psot"})
    (problem,) = rig.check(endpoint)
    assert "slack/psot" in str(problem)
