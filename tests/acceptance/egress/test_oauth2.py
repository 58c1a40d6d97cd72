"""OAuth 2.0 against a server that is not ours: oidc-provider, from npm, with tokens of 5 seconds.

npm install --no-save --no-package-lock oidc-provider@8.8.1
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Received, Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

PACKAGE = Path(__file__).parents[3] / "node_modules/oidc-provider"
CLIENT, SECRET = "shop:daemon/1", "a secret+with %41 signs: ?&=/@"
LIFE = 5.0
"""Seconds."""


CLIENT_KEY = ec.generate_private_key(ec.SECP256R1())
ACCOUNT_KEY = rsa.generate_private_key(65537, 2048)


def public_pem(key: Any) -> str:
    how = Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    return str(key.public_key().public_bytes(*how).decode())


def private_pem(key: Any) -> str:
    how = Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    return str(key.private_bytes(*how).decode())


class Authority:
    """The authorization server, and the API that takes its tokens."""

    def __init__(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self.url = f"http://{self.address}"

    def get(self, path: str) -> Any:
        return httpx.get(f"{self.url}{path}", trust_env=False).json()

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = self.get("/counts")
        return found


@pytest.fixture(scope="module")
def authority(program: Callable[[str], str]) -> Iterator[Authority]:
    node = program("node")
    if not PACKAGE.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail("oidc-provider is not installed, and CI is to test with it")
        pytest.skip("oidc-provider is not installed")
    script = Path(__file__).with_name("oauth2_server.mjs")
    public = [public_pem(key) for key in (CLIENT_KEY, ACCOUNT_KEY)]
    server = subprocess.Popen(
        [node, script, *public], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert server.stdout is not None
        yield Authority(int(server.stdout.readline()))
    finally:
        server.terminate()
        server.wait(10)
        if server.stdout is not None:
            server.stdout.close()


def oauth2(authority: Authority, **keys: Any) -> dict[str, Any]:
    given = {
        "token_url": f"{authority.url}/token",
        "client_id": CLIENT,
        "client_secret": "${secret:CLIENT_SECRET}",
        "scope": "orders",
        **keys,
    }
    return {"oauth2": {key: value for key, value in given.items() if value is not None}}


def declare(
    make_daemon: MakeDaemon, authority: Authority, receiver: Receiver, **keys: Any
) -> Daemon:
    daemon = make_daemon(
        environ={"CLIENT_SECRET": SECRET},
        egress={"allow": [authority.address, receiver.address]},
        log={"level": "debug"},
        defaults={"retry": retry()},
    )
    daemon.api("shop", authority.url, auth=oauth2(authority, **keys), concurrency=20)
    daemon.endpoint("shop/orders", "/orders", method="POST", body={"json": {"a": 1}})
    return daemon


@pytest.fixture
def daemon(make_daemon: MakeDaemon, authority: Authority, receiver: Receiver) -> Daemon:
    return declare(make_daemon, authority, receiver)


def test_a_thousand_calls_over_tokens_that_end(daemon: Daemon, authority: Authority) -> None:
    before, began = authority.counts(), time.monotonic()
    daemon.start()
    ids: list[int] = []
    for _ in range(20):  # over more than two lives of a token
        ids += daemon.batch("shop/orders", [{}] * 50)
        time.sleep(LIFE * 2.2 / 20)
    daemon.settle()
    took = time.monotonic() - began
    tasks = daemon.tasks()
    assert {task["id"] for task in tasks} == set(ids)
    assert {(task["status"], task["attempts"]) for task in tasks} == {("succeeded", 1)}
    counts = authority.counts()
    # A call that went out with the last of a token costs no attempt, only a request.
    repeated = counts["refused"] - before["refused"]
    assert counts["calls"] - before["calls"] == 1000 + repeated
    assert repeated <= 20, "those of one moment, at most"
    asked = counts["asked"] - before["asked"]
    assert 2 <= asked <= math.ceil(took / (LIFE - 1)), "one request a period"

    task = daemon.task(ids[-1])
    assert json.loads(task["response"]["body"]) == {"good": True, "scope": "orders", "heard": "***"}
    stored = daemon.database.read_bytes() + Path(f"{daemon.database}-wal").read_bytes()
    assert b"heard" in stored
    for place in (stored, daemon.log().encode()):
        assert b"Bearer " not in place.replace(b"Bearer ***", b"")
        assert SECRET.encode() not in place


def test_a_token_that_is_revoked_costs_no_attempt(daemon: Daemon, authority: Authority) -> None:
    daemon.start()
    assert daemon.finish(daemon.call("shop/orders"))["status"] == "succeeded"
    before = authority.counts()
    authority.get("/revoke")
    ids = daemon.batch("shop/orders", [{}] * 40)
    daemon.settle()
    assert {daemon.task(task_id)["status"] for task_id in ids} == {"succeeded"}
    assert {daemon.task(task_id)["attempts"] for task_id in ids} == {1}
    counts = authority.counts()
    assert counts["asked"] - before["asked"] == 1, "one request, however many were refused"
    assert 1 <= counts["refused"] - before["refused"] <= 20


def test_workers_share_one_token(
    make_daemon: MakeDaemon, authority: Authority, receiver: Receiver
) -> None:
    daemon = declare(make_daemon, authority, receiver)
    daemon.write("orchestratord.yaml", {**daemon.settings, "workers": 2})
    daemon.start()
    ids: list[int] = []
    for turn in range(2):
        before, began = authority.counts(), time.monotonic()
        ids += daemon.batch("shop/orders", [{}] * 100)
        daemon.settle()
        periods = 1 + int((time.monotonic() - began) / (LIFE - 1))
        asked = authority.counts()["asked"] - before["asked"]
        assert turn <= asked <= periods + 1 - turn, "a refused one is renewed once for all"
        authority.get("/revoke")
    tasks = daemon.tasks()
    assert {task["id"] for task in tasks} == set(ids)
    assert {(task["status"], task["attempts"]) for task in tasks} == {("succeeded", 1)}
    assert b"Bearer " not in daemon.log().encode().replace(b"Bearer ***", b"")


WORKER = """
import os
from orchestratord import hookimpl

@hookimpl
def before_request(request):
    request.headers["X-Worker"] = str(os.getpid())
"""


def test_a_worker_that_takes_the_place_of_the_first_keeps_tokens_as_well(
    make_daemon: MakeDaemon, receiver: Receiver, authority: Authority, tmp_path: Path
) -> None:
    kept = tmp_path / "refresh"
    kept.write_text("refresh-token-0\n")
    used: list[str] = []
    receiver.reply("/token", partial(give_once, used))

    def judge(request: Received) -> Answer:
        good = request.headers["authorization"] == f"Bearer access-token-{len(used)}"
        return Answer(200 if good else 401)

    receiver.reply("/orders", judge)
    daemon = make_daemon(defaults={"retry": retry()}, workers=2, plugins={"dirs": ["plugins"]})
    daemon.plugin("worker", WORKER)
    auth = oauth2(
        authority, token_url=f"{receiver.url}/token", client_secret=None, scope=None,
        client_id="public", refresh_token=f"${{file:{kept}}}",
    )  # fmt: skip
    daemon.api("shop", receiver.url, auth=auth, concurrency=2)
    daemon.endpoint("shop/orders", "/orders", method="PUT")
    daemon.start()
    daemon.batch("shop/orders", [{}] * 40)
    daemon.settle()
    assert used == ["refresh-token-0"]
    assert len({request.headers["x-worker"] for request in receiver.received("/orders")}) == 2

    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text()
    daemon.expected.append("worker 1 .* ended by signal SIGKILL")
    os.kill(int(children.split()[0]), signal.SIGKILL)
    until(lambda: daemon.listens() and daemon.get("/readyz").status_code == 200, "a successor")
    daemon.batch("shop/orders", [{}] * 40)
    daemon.settle()
    # It was forked from what had read the first refresh token, and goes on with the last one.
    assert used == ["refresh-token-0", "refresh-token-1"]
    assert kept.read_text() == "refresh-token-2\n"
    tasks = daemon.tasks()
    assert {(task["status"], task["attempts"]) for task in tasks} == {("succeeded", 1)}
    assert len({request.headers["x-worker"] for request in receiver.received("/orders")}) == 3


def test_a_client_that_wants_its_secret_in_the_body(
    make_daemon: MakeDaemon, authority: Authority, receiver: Receiver
) -> None:
    daemon = declare(make_daemon, authority, receiver, client_id="posts", scope=None)
    daemon.environ["CLIENT_SECRET"] = "in-the-body-alone"
    daemon.start()
    assert daemon.finish(daemon.call("shop/orders"))["status"] == "succeeded"


def test_a_wrong_secret_is_final_and_names_the_key(
    make_daemon: MakeDaemon, authority: Authority, receiver: Receiver, tmp_path: Path
) -> None:
    kept = tmp_path / "secret"
    kept.write_text("something-else-4711\n")
    daemon = declare(make_daemon, authority, receiver, client_secret=f"${{file:{kept}}}")
    daemon.start()
    before = authority.counts()
    ids = daemon.batch("shop/orders", [{}] * 30)
    daemon.settle()
    tasks = [daemon.task(task_id) for task_id in ids]
    assert {(task["status"], task["reason"]) for task in tasks} == {("failed", "not_retryable")}
    assert {task["attempts"] for task in tasks} == {1}
    error = tasks[0]["last_error"]
    assert "no token: the token endpoint 127.0.0.1 answered 401 invalid_client" in error
    assert error.endswith("look at auth.oauth2.client_id and client_secret in the api.yaml of shop")
    counts = authority.counts()
    assert counts["calls"] == before["calls"], "nothing is sent without a token"
    assert counts["asked"] - before["asked"] <= 4, "it is not asked again and again"
    assert "something-else-4711" not in daemon.log()

    # The right one is taken up without a restart, and what had failed can be repeated.
    kept.write_text(f"{SECRET}\n")
    daemon.reload()  # which finds nothing where the watcher was quicker
    ran = daemon.ctl("retry", "--all", "--endpoint", "shop/orders")
    assert ran.code == 0, ran.err
    daemon.settle()
    assert {daemon.task(task_id)["status"] for task_id in ids} == {"succeeded"}
    assert authority.counts()["asked"] - counts["asked"] <= 2


def test_a_token_endpoint_that_is_down_is_waited_for(
    make_daemon: MakeDaemon, receiver: Receiver, authority: Authority
) -> None:
    token = Answer(200, '{"access_token": "abcdefgh-1", "token_type": "bearer"}')
    receiver.on("/token", 503, token)
    receiver.on("/orders", 200)
    daemon = make_daemon(environ={"CLIENT_SECRET": SECRET}, defaults={"retry": retry("1200ms")})
    auth = oauth2(authority, token_url=f"{receiver.url}/token", scope=None)
    daemon.api("shop", receiver.url, auth=auth)
    daemon.endpoint("shop/orders", "/orders")
    daemon.start()
    task = daemon.finish(daemon.call("shop/orders"))
    assert (task["status"], receiver.count("/token"), receiver.count("/orders")) == (
        "succeeded", 2, 1,
    )  # fmt: skip
    first, *_ = task["attempt_log"]
    assert first["error"] == "no token: the token endpoint 127.0.0.1 answered 503"
    asked, called = receiver.received("/token")[-1], receiver.received("/orders")[-1]
    assert asked.body == b"grant_type=client_credentials"
    assert called.headers["authorization"] == "Bearer abcdefgh-1"


def give_once(used: list[str], request: Received) -> Answer:
    """Take each refresh token once, as strict servers do."""
    refresh = dict(pair.split("=") for pair in request.body.decode().split("&"))
    if refresh["refresh_token"] != f"refresh-token-{len(used)}":
        return Answer(400, '{"error": "invalid_grant"}')
    used.append(refresh["refresh_token"])
    return Answer(
        200,
        json.dumps(
            {"access_token": f"access-token-{len(used)}", "expires_in": 3600,
             "refresh_token": f"refresh-token-{len(used)}"}
        ),
    )  # fmt: skip


def test_a_refresh_token_that_is_replaced_is_kept(
    make_daemon: MakeDaemon, receiver: Receiver, authority: Authority, tmp_path: Path
) -> None:
    kept = tmp_path / "refresh"
    kept.write_text("refresh-token-0\n")
    kept.chmod(0o600)
    used: list[str] = []
    receiver.reply("/token", partial(give_once, used))
    receiver.on("/orders", 200)
    daemon = make_daemon(defaults={"retry": retry()})
    auth = oauth2(
        authority, token_url=f"{receiver.url}/token", client_secret=None, scope=None,
        client_id="public", refresh_token=f"${{file:{kept}}}",
    )  # fmt: skip
    daemon.api("shop", receiver.url, auth=auth)
    daemon.endpoint("shop/orders", "/orders")
    daemon.start()
    assert daemon.finish(daemon.call("shop/orders"))["status"] == "succeeded"
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == ("refresh-token-1\n", 0o600)
    daemon.reload()  # what it has written itself is no other token
    assert daemon.finish(daemon.call("shop/orders"))["status"] == "succeeded"
    assert len(used) == 1
    daemon.restart()
    assert daemon.finish(daemon.call("shop/orders"))["status"] == "succeeded"
    assert kept.read_text() == "refresh-token-2\n"
    assert receiver.received("/orders")[-1].headers["authorization"] == "Bearer access-token-2"
    stored = daemon.database.read_bytes()
    assert not any(token in stored for token in (b"refresh-token", b"access-token"))

    # A new one by hand counts at once.
    used[:] = [""] * 7
    kept.write_text("refresh-token-7\n")
    until(lambda: daemon.reload() and daemon.status()["config"]["generation"] > 1, "a reload")
    assert daemon.finish(daemon.call("shop/orders"))["status"] == "succeeded"
    assert receiver.received("/orders")[-1].headers["authorization"] == "Bearer access-token-8"


def signing(
    make_daemon: MakeDaemon, authority: Authority, tmp_path: Path, key: Any, **keys: Any
) -> tuple[Daemon, Path]:
    kept = tmp_path / "key.pem"
    kept.write_text(private_pem(key))
    daemon = make_daemon(
        egress={"allow": [authority.address]}, log={"level": "debug"}, defaults={"retry": retry()}
    )
    auth = oauth2(authority, client_secret=None, private_key=f"${{file:{kept}}}", **keys)
    daemon.api("shop", authority.url, auth=auth)
    daemon.endpoint("shop/orders", "/orders", method="POST")
    daemon.start()
    return daemon, kept


def never_shown(daemon: Daemon, key: Any) -> None:
    lines = [line for line in private_pem(key).splitlines() if "-----" not in line]
    shown = daemon.log() + daemon.run("config", "show", "shop/orders").out
    stored = daemon.database.read_bytes() + Path(f"{daemon.database}-wal").read_bytes()
    assert not any(line in shown or line.encode() in stored for line in lines)


def test_a_client_that_signs(make_daemon: MakeDaemon, authority: Authority, tmp_path: Path) -> None:
    daemon, kept = signing(
        make_daemon, authority, tmp_path, CLIENT_KEY, client_id="signs", algorithm="ES256",
        key_id="k1", audience="http://127.0.0.1",
    )  # fmt: skip
    for _ in range(3):  # oidc-provider takes no assertion a second time
        task = daemon.finish(daemon.call("shop/orders"))
        assert (task["status"], task["attempts"]) == ("succeeded", 1), task["last_error"]
        authority.get("/revoke")
    never_shown(daemon, CLIENT_KEY)
    other = ec.generate_private_key(ec.SECP256R1())
    kept.write_text(private_pem(other))
    until(lambda: daemon.reload() and daemon.status()["config"]["generation"] > 1, "a reload")
    task = daemon.finish(daemon.call("shop/orders"))
    assert (task["status"], task["reason"]) == ("failed", "not_retryable")
    assert (
        "look at auth.oauth2.private_key and key_id in the api.yaml of shop" in task["last_error"]
    )
    never_shown(daemon, other)


def test_a_service_account_as_googles(
    make_daemon: MakeDaemon, authority: Authority, tmp_path: Path
) -> None:
    keys = {"grant": "jwt_bearer", "issuer": "reports@project.example", "client_id": None}
    daemon, _ = signing(
        make_daemon, authority, tmp_path, ACCOUNT_KEY, **keys, token_url=f"{authority.url}/bearer"
    )
    before = authority.counts()["asked"]
    for _ in range(4):  # over more than one life of a token
        task = daemon.finish(daemon.call("shop/orders"))
        assert (task["status"], task["attempts"]) == ("succeeded", 1), task["last_error"]
        assert json.loads(task["response"]["body"])["heard"] == "***"
        time.sleep(0.8)
    assert 2 <= authority.counts()["asked"] - before <= 4
    never_shown(daemon, ACCOUNT_KEY)
    daemon.api("shop", authority.url, auth=oauth2(
        authority, client_secret=None, private_key=f"${{file:{tmp_path}/key.pem}}", **keys | {
            "issuer": "someone@else.example"}, token_url=f"{authority.url}/bearer"))  # fmt: skip
    until(lambda: daemon.reload() and daemon.status()["config"]["generation"] > 1, "a reload")
    task = daemon.finish(daemon.call("shop/orders"))
    assert (task["status"], task["reason"]) == ("failed", "not_retryable")
    assert "look at auth.oauth2.issuer and subject in the api.yaml of shop" in task["last_error"]
