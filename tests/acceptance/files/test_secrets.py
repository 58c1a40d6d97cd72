"""Secrets are sent where they belong, and are found nowhere else."""

from __future__ import annotations

import base64
import hmac
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.processes import free_port
from tests.acceptance.receiver import Answer, Received, Receiver

BEARER = "tok+n/with=signs&more-9f8e7d"
PASSWORD = "pass word/ü-31337"
HEADER = "header-secret-5551212"
SIGNING = base64.b64encode(b"a signing secret of a webhook!!").decode()
FILE = "from-a-file-8675309"
QUERY = "in-the-query 42/0815"

SECRETS = {"BEARER": BEARER, "PASSWORD": PASSWORD, "HEADER": HEADER, "SIGNING": SIGNING}
ALL = (*SECRETS.values(), FILE, QUERY)


def forms(secret: str) -> list[bytes]:
    """What a secret may look like where it leaks."""
    raw = secret.encode()
    return [
        raw,
        base64.b64encode(raw),
        quote(secret, safe="").encode(),
        base64.b64encode(f"user:{secret}".encode()),
    ]


@dataclass
class Stage:
    daemon: Daemon
    receiver: Receiver
    home: Path

    def clean(self, place: str, content: bytes) -> None:
        found = [secret for secret in ALL if any(form in content for form in forms(secret))]
        assert found == [], f"{place} holds {found}"


def echo(request: Received) -> Answer:
    """A receiver that tells everybody what it was told."""
    secrets = [request.headers.get(name, "") for name in ("authorization", "x-key", "x-file")]
    body = " ".join([*secrets, request.query.get("key", ""), PASSWORD, quote(QUERY, safe="")])
    return Answer(503 if "fails" in request.path else 200, body, {"X-Echo": secrets[0]})


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, make_shared: MakeDaemon, shared_receiver: Receiver
) -> Stage:
    home = tmp_path_factory.mktemp("s")
    (home / "file").write_text(FILE + "\n")
    credentials = home / "credentials"
    credentials.mkdir()
    (credentials / "query").write_text(QUERY)
    environ = {**SECRETS, "CREDENTIALS_DIRECTORY": str(credentials), "PLAIN": "not-a-secret"}
    daemon = make_shared(environ=environ, log={"level": "debug"}, defaults={"retry": retry()})
    hooks = [
        {"name": phase, "phase": phase, "url": f"{shared_receiver.url}/hook/{phase}",
         "secret": "${secret:SIGNING}", "retry": retry()}
        for phase in ("before_request", "after_request", "on_success", "on_final_failure")
    ]  # fmt: skip
    auths: dict[str, Any] = {
        "bearer": {"bearer": "${secret:BEARER}"},
        "basic": {"basic": {"username": "user", "password": "${PASSWORD}"}},
        "header": {"header": {"name": "X-Key", "value": "${secret:HEADER}"}},
    }
    shared_receiver.reply("/hook/", lambda request: Answer(204))
    for name, auth in auths.items():
        shared_receiver.reply(f"/{name}", echo)
        daemon.api(name, shared_receiver.url, auth=auth, webhooks=hooks)
        for path in ("works", "fails"):
            daemon.endpoint(
                f"{name}/{path}",
                f"/{name}/{path}",
                headers={"X-File": f"${{file:{home / 'file'}}}", "X-Plain": "${PLAIN}"},
                query={"key": "${credential:query}"},
                retry=retry(attempts=2),
            )
    # An address that is refused has its URL in the error.
    daemon.api("refused", "http://127.0.0.2:9", headers={"X": "y"})
    daemon.endpoint("refused/get", "/", query={"key": "${credential:query}"})
    daemon.start()
    for name in auths:
        for path in ("works", "fails"):
            daemon.finish(daemon.call(f"{name}/{path}"))
    daemon.finish(daemon.call("refused/get"))
    daemon.settle()
    return Stage(daemon, shared_receiver, home)


def test_they_are_sent(stage: Stage) -> None:
    (bearer,) = stage.receiver.received("/bearer/works")
    assert bearer.headers["authorization"] == f"Bearer {BEARER}"
    assert bearer.headers["x-file"] == FILE
    assert bearer.headers["x-plain"] == "not-a-secret"
    assert bearer.query["key"] == QUERY
    (basic,) = stage.receiver.received("/basic/works")
    told = base64.b64decode(basic.headers["authorization"].removeprefix("Basic "))
    assert told == f"user:{PASSWORD}".encode()
    (header,) = stage.receiver.received("/header/works")
    assert header.headers["x-key"] == HEADER


def test_the_log_holds_none(stage: Stage) -> None:
    log = stage.daemon.log().encode()
    assert b"bearer/works" in log
    stage.clean("the log", log)


def test_the_database_holds_none(stage: Stage) -> None:
    files = list(stage.daemon.home.glob("orchestratord.db*"))
    assert len(files) >= 2
    for file in files:
        stage.clean(file.name, file.read_bytes())


def test_the_api_shows_none(stage: Stage) -> None:
    daemon = stage.daemon
    paths = ["/v1/status", "/v1/endpoints", "/v1/webhooks"]
    paths += [f"/v1/endpoints/{name}/works" for name in ("bearer", "basic", "header")]
    paths += [f"/v1/endpoints/{name}/works/webhooks" for name in ("bearer", "basic")]
    paths += [f"/v1/retries/{task['id']}" for task in daemon.tasks()]
    assert len(paths) > 20
    for path in paths:
        answer = daemon.get(path)
        assert answer.status_code == 200, path
        stage.clean(path, answer.content)
    shown = daemon.get("/v1/endpoints/bearer/works").json()
    assert shown["auth"] == {"bearer": "***"}
    assert shown["webhooks"][0]["secret"] == "***"
    assert shown["headers"]["X-Plain"] == "not-a-secret"


def test_orchestratorctl_shows_none(stage: Stage) -> None:
    daemon = stage.daemon
    failed = next(task for task in daemon.tasks(status="failed", kind="call"))
    for words in (
        ["status"],
        ["endpoints", "bearer/works"],
        ["list"],
        ["show", str(failed["id"])],
        ["show", str(failed["id"]), "-o", "yaml"],
        ["webhooks"],
        ["call", "bearer/fails", "--wait"],
    ):
        ran = daemon.ctl(*words)
        assert ran.out + ran.err
        stage.clean(" ".join(words), (ran.out + ran.err).encode())


def test_deliveries_hold_none(stage: Stage) -> None:
    seen = [item for item in stage.receiver.received() if item.path.startswith("/hook/")]
    assert {item.path.removeprefix("/hook/") for item in seen} == {
        "before_request", "after_request", "on_success", "on_final_failure"
    }  # fmt: skip
    for item in seen:
        stage.clean(item.path, item.body + repr(item.headers).encode())


def test_a_reference_that_is_not_set_is_an_error_and_names_no_value(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = make_daemon(environ={"BEARER": BEARER})
    daemon.api("shop", receiver.url, auth={"bearer": "${secret:BEARER}"})
    daemon.endpoint("shop/get", "/", headers={"X": "${secret:NOWHERE}"}, query={"a": "$${B}"})
    daemon.expect("CRITICAL orchestratord: apis/shop/endpoints/get.yaml:")
    daemon.launch()
    assert daemon.wait() == 78
    assert "NOWHERE" in daemon.log()
    assert BEARER not in daemon.log()


def test_the_host_of_a_url_that_is_a_secret_is_masked_in_errors_and_not_in_data(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    """Calls and events that named it were refused, and what followed from an answer failed."""
    dead, port = f"127.0.0.1:{free_port()}", free_port()
    hooks = {"HOOK": f"{receiver.url}/hook/{FILE}", "DEAD": f"http://{dead}/{FILE}"}
    environ = {**hooks, "SIGNING": SIGNING}
    daemon = make_daemon(environ=environ, inbound={"bind": f"127.0.0.1:{port}"})
    daemon.api("shop", receiver.url)
    data = {"to": receiver.address, "at": dead}
    receiver.on("/get", Answer(200, json.dumps(data), {"X-To": dead}))
    receiver.reply("/hook/", lambda request: Answer(204))
    webhooks = [
        {"name": name, "phase": "on_success", "url": f"${{secret:{name}}}",
         "retry": retry(attempts=1)} for name in hooks
    ]  # fmt: skip
    params = {name: {"default": ""} for name in (*data, "header")}
    next_ = {"to": "body.to", "at": "body.at", "header": 'headers."x-to"'}
    daemon.endpoint(
        "shop/get", "/get", params=params, webhooks=webhooks,
        then=[{"call": "shop/next", "params": next_}],
    )  # fmt: skip
    daemon.endpoint("shop/next", "/next", params=params)
    inbound = {"path": "/in", "verify": "github", "secret": "${secret:SIGNING}"}
    daemon.write("apis/shop/endpoints/came.yaml", {"type": "event", "inbound": inbound})
    daemon.expect(r"\*\*\*")
    daemon.start()
    called = daemon.finish(daemon.call("shop/get", **data))
    daemon.settle()
    assert called["params"] == {**data, "header": ""}
    assert json.loads(called["response"]["body"]) == data
    (followed,) = daemon.tasks(endpoint="shop/next")
    assert followed["params"] == {**data, "header": dead}
    (delivery,) = receiver.received(f"/hook/{FILE}")
    sent = delivery.json()["data"]
    assert (sent["params"], sent["response"]["headers"]["x-to"]) == (called["params"], dead)
    assert json.loads(sent["response"]["body"]) == data
    (failed,) = daemon.tasks(kind="webhook", status="failed")
    assert "***" in failed["last_error"]
    assert not [text for text in (failed["last_error"], daemon.log()) if dead in text]
    body = json.dumps(data).encode()
    made = "sha256=" + hmac.new(SIGNING.encode(), body, "sha256").hexdigest()
    came = httpx.post(
        f"http://127.0.0.1:{port}/in?at={dead}", content=body,
        headers={"content-type": "application/json", "x-hub-signature-256": made, "x-to": dead},
    )  # fmt: skip
    assert came.status_code == 200, came.text
    stored = daemon.task(came.json()["id"])["params"]
    assert (stored["query"], stored["headers"]["x-to"]) == ({"at": dead}, dead)
    assert stored["body"] == data
