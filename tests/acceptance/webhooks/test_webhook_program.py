"""Deliveries to `webhook`, the receiver that Debian packages.

Its rules can check an HMAC over the body that stands in a header as hex. Standard Webhooks signs
more than the body (id and time too) and writes base64, which its rules cannot compute. So a plugin
of one file adds the header that such receivers know, on top of the signature that is there anyway:
a scheme of one's own costs ten lines.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.processes import free_port, serving
from tests.acceptance.receiver import Answer, Receiver

KEY = "a key that both sides know"

PLUGIN = f"""
import hashlib, hmac
from orchestratord import hookimpl

@hookimpl
def before_request(request, task, endpoint):
    if task.kind != "webhook" or "unsigned" in task.webhook:
        return None
    digest = hmac.new({KEY.encode()!r}, request.content, hashlib.sha256)
    request.headers["X-Hub-Signature-256"] = "sha256=" + digest.hexdigest()
    return request
"""


def header(name: str) -> dict[str, str]:
    return {"source": "header", "name": name}


@pytest.fixture
def hooks(tmp_path: Path, program: Callable[[str], str]) -> Iterator[tuple[int, Path]]:
    """The program, with one hook that checks the signature and writes down what came."""
    binary = program("webhook")
    arrived = tmp_path / "arrived"
    command = tmp_path / "arrive"
    command.write_text(f'#!/bin/sh\nprintf "%s %s %s\\n" "$1" "$2" "$3" >>{arrived}\n')
    command.chmod(0o755)
    signed = {
        "type": "payload-hmac-sha256",
        "secret": KEY,
        "parameter": header("X-Hub-Signature-256"),
    }
    team = {"type": "value", "value": "integrations", "parameter": header("X-Team")}
    standard = {
        "type": "regex",
        "regex": "^v1,[A-Za-z0-9+/]{43}=$",
        "parameter": header("Webhook-Signature"),
    }
    hook = {
        "id": "calls",
        "http-methods": ["POST"],
        "execute-command": str(command),
        # What its command returns decides: 200 only where the rule was satisfied.
        "include-command-output-in-response": True,
        "trigger-rule-mismatch-http-response-code": 403,
        "pass-arguments-to-command": [
            header("Webhook-Id"),
            {"source": "payload", "name": "type"},
            {"source": "payload", "name": "data.task_id"},
        ],
        "trigger-rule": {"and": [{"match": rule} for rule in (signed, team, standard)]},
    }
    (tmp_path / "hooks.json").write_text(json.dumps([hook]))
    port = free_port()
    words = [binary, "-hooks", str(tmp_path / "hooks.json"), "-ip", "127.0.0.1"]
    with serving([*words, "-port", str(port), "-verbose"], port, tmp_path / "log"):
        yield port, arrived


def declared(daemon: Daemon, port: int, name: str) -> dict[str, object]:
    return {
        "name": name,
        "phase": "on_success",
        "url": f"http://127.0.0.1:{port}/hooks/calls",
        "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "headers": {"X-Team": "integrations"},
        "retry": retry(attempts=2),
    }


def test_it_accepts_what_its_rule_finds_signed(
    hooks: tuple[int, Path], make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    port, arrived = hooks
    daemon = make_daemon(egress={"allow": ["127.0.0.1"]}, plugins={"dirs": ["plugins"]})
    daemon.plugin("hub_signature", PLUGIN)
    receiver.on("/users", Answer(200, '{"users": ["Ü"]}'))
    daemon.api("shop", receiver.url)
    hooks_ = [declared(daemon, port, name) for name in ("signed", "unsigned")]
    daemon.endpoint("shop/users", "/users", webhooks=hooks_)
    daemon.start()

    ids = [daemon.call("shop/users") for _ in range(3)]
    daemon.settle()
    good: list[dict[str, Any]] = []
    bad: list[dict[str, Any]] = []
    for task_id in ids:
        for delivery in daemon.deliveries(task_id):
            (good if delivery["webhook"] == "signed" else bad).append(delivery)
    assert [task["status"] for task in good] == ["succeeded"] * 3
    assert {task["attempts"] for task in good} == {1}
    # Its rule really is asked: without the header nothing is accepted.
    assert [(task["reason"], task["last_status_code"]) for task in bad] == [("exhausted", 403)] * 3

    lines = [line.split() for line in arrived.read_text().splitlines()]
    assert sorted(int(line[2]) for line in lines) == ids
    assert {line[1] for line in lines} == {"on_success"}
    assert len({line[0] for line in lines}) == 3
