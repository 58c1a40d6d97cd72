"""Webhooks whose receiver asks who calls: beside the signature, and with several workers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.receiver import Answer, Received, Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CLIENT_SECRET = "client-secret-7"


def webhook(receiver: Receiver, name: str, auth: dict[str, Any], **keys: Any) -> dict[str, Any]:
    url = f"{receiver.url}/hook/{name}"
    return {"name": name, "phase": "on_success", "url": url, "auth": auth, **keys}


def test_who_calls_is_said_beside_the_signature(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    tokens = 0

    def give(request: Received) -> Answer:
        nonlocal tokens
        tokens += 1
        token = {"access_token": f"token-number-{tokens}", "expires_in": 3600}
        return Answer(200, json.dumps({**token, "token_type": "Bearer"}))

    def take(request: Received) -> Answer:
        # The first token is withdrawn.
        return Answer(401 if request.headers["authorization"].endswith("number-1") else 204)

    receiver.reply("/token", give)
    for name in ("basic", "key", "bearer"):
        receiver.reply(f"/hook/{name}", lambda request: Answer(204))
    receiver.reply("/hook/oauth", take)
    receiver.reply("/call", lambda request: Answer(200))
    oauth2 = {
        "token_url": f"{receiver.url}/token",
        "client_id": "daemon",
        "client_secret": "${secret:CLIENT_SECRET}",
    }
    environ = {"CLIENT_SECRET": CLIENT_SECRET, "PASSWORD": "pass-word-8", "KEY": "key-value-9"}
    daemon = make_daemon(environ=environ, workers=2, egress={"allow": [receiver.address]})
    hooks = [
        webhook(receiver, "oauth", {"oauth2": oauth2}, headers={"X-N": "{{ params.n }}"}),
        webhook(receiver, "basic", {"basic": {"username": "u", "password": "${secret:PASSWORD}"}}),
        webhook(receiver, "key", {"header": {"name": "X-Key", "value": "${secret:KEY}"}}),
        webhook(receiver, "bearer", {"bearer": "${secret:KEY}"}, secret=SECRET),
    ]
    daemon.api("shop", receiver.url, webhooks=hooks)
    daemon.endpoint("shop/a", "/call/a", params={"n": {}})
    daemon.endpoint("shop/b", "/call/b", params={"n": {}})
    daemon.start()
    for name in "ab":
        daemon.batch(f"shop/{name}", [{"n": n} for n in range(20)])
    until(lambda: receiver.count("/hook/oauth") > 40, "all deliveries", 30)
    daemon.settle()
    assert {task["status"] for task in daemon.tasks(kind="webhook")} == {"succeeded"}

    # One token serves the webhook of both endpoints, and both workers; the other came after it.
    assert tokens == 2
    given = [one.headers["authorization"] for one in receiver.received("/hook/oauth")]
    assert set(given) == {"Bearer token-number-1", "Bearer token-number-2"}
    assert given.count("Bearer token-number-2") == 40
    (basic,) = {one.headers["authorization"] for one in receiver.received("/hook/basic")}
    assert basic == "Basic dTpwYXNzLXdvcmQtOA=="
    assert {one.headers["x-key"] for one in receiver.received("/hook/key")} == {"key-value-9"}
    for one in receiver.received("/hook/bearer"):
        assert one.headers["authorization"] == "Bearer key-value-9"
        assert one.headers["webhook-signature"].startswith("v1,")

    shown = daemon.run("config", "show", "shop/a").out + daemon.log()
    shown += daemon.ctl("webhooks", "list", "-o", "json").out
    shown += daemon.get("/v1/endpoints/shop/a/webhooks").text
    for secret in (*environ.values(), "token-number"):
        assert secret not in shown
