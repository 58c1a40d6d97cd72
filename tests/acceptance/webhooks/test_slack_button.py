"""A button in Slack, as the how-to has it: signed by Slack's own library, answered at the address
that the payload says."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from slack_sdk.signature import SignatureVerifier

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.processes import free_port
from tests.acceptance.receiver import Answer, Receiver

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
APPROVAL = "/orders/A 7/1/approval"
RESPONSE = "/actions/T0F1A2B3/5893214/hkZ2w"


def press(daemon: Daemon, receiver: Receiver, trigger: str, **payload: Any) -> httpx.Response:
    """Post what Slack posts of a button that is pressed (`block_actions`)."""
    said = {
        "type": "block_actions",
        "user": {"id": "U061F7AUR", "username": "ann", "team_id": "T0F1A2B3"},
        "container": {"type": "message", "message_ts": "1648152000.000100"},
        "trigger_id": trigger,
        "response_url": f"{receiver.url}{RESPONSE}",
        "actions": [
            {"type": "button", "action_id": "approve", "block_id": "b1", "value": "A 7/1",
             "text": {"type": "plain_text", "text": "Approve \u2714"}}
        ],
        **payload,
    }  # fmt: skip
    body, now = urlencode({"payload": json.dumps(said)}), str(int(time.time()))
    signature = SignatureVerifier(SECRET).generate_signature(timestamp=now, body=body)
    assert signature is not None
    sent = {
        "content-type": "application/x-www-form-urlencoded",
        "x-slack-request-timestamp": now,
        "x-slack-signature": signature,
    }
    url = f"http://{daemon.settings['inbound']['bind']}/in/slack"
    return httpx.post(url, content=body, headers=sent, timeout=30)


def of_how_to(make_daemon: MakeDaemon, receiver: Receiver, tmp_path: Path) -> Daemon:
    (tmp_path / "slack").write_text(SECRET)
    daemon = make_daemon(
        environ={"CREDENTIALS_DIRECTORY": str(tmp_path)},
        inbound={"bind": f"127.0.0.1:{free_port()}"},
    )
    page = (ROOT / "docs/how-to/slack-button.md").read_text()
    for name, text in re.findall(r"```yaml\n# (apis/\S+)\n(.*?)```", page, re.DOTALL):
        daemon.write(name, re.sub(r"https://[\w.]+", receiver.url, text))
    return daemon.start()


def test_a_button_is_answered_when_it_is_done(
    make_daemon: MakeDaemon, receiver: Receiver, tmp_path: Path
) -> None:
    daemon = of_how_to(make_daemon, receiver, tmp_path)
    receiver.on(APPROVAL, Answer(204), Answer(409, '{"message": "It was sent"}'))
    receiver.on(RESPONSE, 200)
    for trigger in ("13345.1", "13345.1", "13345.2"):  # Slack may post one twice
        assert press(daemon, receiver, trigger).status_code == 200
        daemon.settle()
    assert [one.json() for one in receiver.received(APPROVAL)] == [{"by": "ann"}] * 2
    told = [one.json() for one in receiver.received(RESPONSE)]
    assert [one["replace_original"] for one in told] == [True, True]
    assert told[0]["text"] == "Order A 7/1 is approved."
    assert told[1]["text"] == "Order A 7/1 is not approved: 409 Conflict: It was sent"


def test_another_button_and_another_address(
    make_daemon: MakeDaemon, receiver: Receiver, tmp_path: Path
) -> None:
    daemon = of_how_to(make_daemon, receiver, tmp_path)
    receiver.on(APPROVAL, 200)
    receiver.on(other := "/actions/T/1/..x", 200)
    later = [{"type": "button", "action_id": "later", "value": "A 7/1"}]
    assert press(daemon, receiver, "1", actions=later).status_code == 200
    elsewhere = f"https://evil.example{other}"
    assert press(daemon, receiver, "2", response_url=elsewhere).status_code == 200
    daemon.settle()
    assert [one.path for one in receiver.received()] == [
        APPROVAL,
        other,
    ]
