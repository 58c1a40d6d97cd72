"""Webhooks that come in: sent by the senders' own libraries, refused where they are not theirs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import standardwebhooks
import stripe
from slack_sdk.signature import SignatureVerifier

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.processes import free_port
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

STRIPE, SLACK = "whsec_stripe_test_secret_of_a_test", "8f742231b10e8888abcd99yyyzzz85a5"
STANDARD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
GITHUB = "It's a Secret to Everybody"
SHOPIFY, OWN = "hush-hush-of-the-shop", "own-secret-of-the-partner"
META = "meta-verify-token-1234"
UNSIGNED = 260
"""More connections than the port has places."""
SOON = 5.0
"""Seconds; those that do not end are hung up on after ten."""


def event(**inbound: Any) -> dict[str, Any]:
    return {"type": "event", "inbound": inbound}


ENDPOINTS = {
    "stripe": event(
        path="/in/stripe", verify="stripe", secret=["${secret:NEW}", "${secret:STRIPE}"],
        dedupe="body.id", max_body="64KiB",
    ),
    "github": event(path="/in/github", verify="github", secret=GITHUB, verify_token=META),
    "slack": event(path="/in/slack", verify="slack", secret=SLACK, dedupe="body.event_id"),
    "standard": event(path="/in/standard", verify="standard", secret=STANDARD),
    "shopify": event(path="/in/shopify", verify="shopify", secret=SHOPIFY),
    "own": event(
        path="/in/own", secret=OWN, rate_limit="3/h",
        verify={
            "header": "X-Partner-Sign", "algorithm": "sha512", "encoding": "base64",
            "prefix": "hmac ", "timestamp": "X-Partner-Time",
        },
    ),
    "closed": {
        **event(path="/in/closed", verify="github", secret=GITHUB), "enabled": False,
    },
    "strict": {
        **event(path="/in/strict", verify="github", secret=GITHUB),
        "schema": {"file": "strict.json"},
    },
}  # fmt: skip


class In:
    """The port of a daemon."""

    def __init__(self, daemon: Daemon) -> None:
        bind = daemon.settings["inbound"]["bind"]
        self.url = f"http://{bind}"
        self.port = int(bind.rpartition(":")[2])

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"content-type": "application/json", **named}
        return httpx.post(f"{self.url}{path}", content=content, headers=sent, timeout=30)

    def stripe(self, body: Any, secret: str = STRIPE, at: float | None = None) -> httpx.Response:
        """As Stripe sends it, signed by its own library."""
        text = json.dumps(body)
        seconds = int(time.time() if at is None else at)
        made = stripe.WebhookSignature._compute_signature(f"{seconds}.{text}", secret)
        header = f"t={seconds},v1={made},v0=ignored"
        stripe.WebhookSignature.verify_header(text, header, secret, None)
        return self.post("/in/stripe", text.encode(), stripe_signature=header)


@pytest.fixture(scope="module")
def daemon(make_shared: MakeDaemon) -> Iterator[Daemon]:
    environ = {"STRIPE": STRIPE, "NEW": "whsec_another_one_that_is_newer"}
    daemon = make_shared(environ=environ, inbound={"bind": f"127.0.0.1:{free_port()}"})
    for name, keys in ENDPOINTS.items():
        daemon.write(f"apis/in/endpoints/{name}.yaml", keys)
    daemon.write("strict.json", '{"properties": {"body": {"required": ["id"]}}}')
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture
def port(daemon: Daemon) -> In:
    return In(daemon)


def test_stripe(port: In, daemon: Daemon) -> None:
    """A repeat, even with another body, is answered and makes nothing; both secrets count."""
    first = port.stripe({"id": "evt_1", "type": "invoice.paid", "data": {"n": 1}})
    assert first.status_code == 200, first.text
    task = daemon.task(first.json()["id"])
    assert (task["status"], task["endpoint"]) == ("succeeded", "in/stripe")
    params = task["params"]
    assert params["body"] == {"id": "evt_1", "type": "invoice.paid", "data": {"n": 1}}
    assert params["query"] == {}
    assert "stripe-signature" not in params["headers"]
    again = port.stripe({"id": "evt_1", "other": True}, "whsec_another_one_that_is_newer")
    assert (again.status_code, again.json()) == (200, {"duplicate": True})
    assert len(daemon.tasks(endpoint="in/stripe")) == 1
    daemon.restart()
    assert port.stripe({"id": "evt_1"}).json() == {"duplicate": True}
    # An API's key is another thing.
    path = "/v1/endpoints/in/stripe/calls"
    keyed = daemon.post(path, {"params": {"x": 1}}, headers={"Idempotency-Key": "evt_1"})
    assert keyed.status_code == 202


def test_github_by_its_documented_vector(port: In, daemon: Daemon) -> None:
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    answer = port.post(
        "/in/github?a=1&b=2&token=hush&b=3", b"Hello, World!", content_type="text/plain",
        x_hub_signature_256=signature, authorization="Bearer abc", cookie="a=b",
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    params = daemon.task(answer.json()["id"])["params"]
    assert params["body"] == "Hello, World!"
    assert params["query"] == {"a": "1", "b": ["2", "3"]}
    assert params["headers"].keys() == {"accept", "content-type", "user-agent"}
    assert port.post("/in/github", b"Hello, World?", x_hub_signature_256=signature).is_client_error


@pytest.mark.parametrize(
    ("charset", "body", "text"),
    [("iso-8859-1", b"caf\xe9", "café"), ("undefined", b"a", "a"), ("utf-7", b"a+2AA-", None)],
)
def test_a_text_in_another_charset(
    port: In, daemon: Daemon, charset: str, body: bytes, text: str | None
) -> None:
    made = "sha256=" + hmac.new(GITHUB.encode(), body, "sha256").hexdigest()
    kind = f"text/plain; charset={charset}"
    answer = port.post("/in/github", body, content_type=kind, x_hub_signature_256=made)
    assert answer.status_code == (200 if text else 422), answer.text  # half of a character
    if text:
        assert daemon.task(answer.json()["id"])["params"]["body"] == text


def test_slack_with_its_challenge(port: In, daemon: Daemon) -> None:
    def post(body: str, kind: str = "application/json") -> httpx.Response:
        now = str(int(time.time()))
        made = SignatureVerifier(SLACK).generate_signature(timestamp=now, body=body)
        assert made is not None
        return port.post(
            "/in/slack", body.encode(), content_type=kind, x_slack_signature=made,
            x_slack_request_timestamp=now,
        )  # fmt: skip

    challenge = post('{"type": "url_verification", "challenge": "3eZbrw1aB"}')
    assert (challenge.status_code, challenge.text) == (200, "3eZbrw1aB")
    assert daemon.tasks(endpoint="in/slack") == []
    for _ in range(2):
        assert post('{"type": "event_callback", "event_id": "Ev1"}').status_code == 200
    command = post("command=%2Fweather&text=94070", "application/x-www-form-urlencoded")
    form = daemon.task(command.json()["id"])["params"]["body"]
    assert form == {"command": "/weather", "text": "94070"}
    assert len(daemon.tasks(endpoint="in/slack")) == 2


def test_standard_webhooks(port: In, daemon: Daemon) -> None:
    """The id is signed, and tells repeats: no `dedupe` is written."""

    def post(at: float) -> int:
        moment = datetime.fromtimestamp(at, UTC)
        made = standardwebhooks.Webhook(STANDARD).sign("msg_1", moment, '{"a": 1}')
        answer = port.post(
            "/in/standard", b'{"a": 1}', webhook_id="msg_1", webhook_timestamp=str(int(at)),
            webhook_signature=f"v1,bm9uZQ== {made}",
        )  # fmt: skip
        return answer.status_code

    now = time.time()
    assert [post(now), post(now - 290), post(now - 310), post(now + 310)] == [200, 200, 401, 401]
    assert len(daemon.tasks(endpoint="in/standard")) == 1
    shown = daemon.run("config", "show", "in/standard").out
    assert re.search(r'dedupe: "headers\.\\"webhook-id\\"" +# default', shown)


def test_check_warns_where_nothing_tells_a_repeat(port: In, daemon: Daemon) -> None:
    checked = daemon.run("check")
    assert checked.code == 0
    warned = re.findall(
        r"^warning: apis/in/endpoints/(\w+)\.yaml:\d+:\d+: inbound: each repeat of a request "
        r'is a new event, .* such as dedupe: headers\."([\w-]+)"$',
        checked.err,
        re.MULTILINE,
    )
    github, own = "x-github-delivery", "x-event-id"
    ids = {"closed": github, "github": github, "own": own, "strict": github}
    assert dict(warned) == {**ids, "shopify": "x-shopify-webhook-id"}


def test_shopify_and_one_of_its_own(port: In, daemon: Daemon) -> None:
    body = b'{"order": 1}'
    made = base64.b64encode(hmac.digest(SHOPIFY.encode(), body, "sha256")).decode()
    assert port.post("/in/shopify", body, x_shopify_hmac_sha256=made).status_code == 200
    now = str(int(time.time()))
    digest = hmac.digest(OWN.encode(), f"{now}.".encode() + body, hashlib.sha512)
    sign = "hmac " + base64.b64encode(digest).decode()
    assert {port.post("/in/own", body).status_code for _ in range(4)} == {401}
    codes = [
        port.post("/in/own", body, x_partner_sign=sign, x_partner_time=now).status_code
        for _ in range(4)
    ]
    assert codes == [200, 200, 200, 429]


def test_what_is_not_theirs_is_refused_counted_and_not_stored(port: In, daemon: Daemon) -> None:
    before = len(daemon.tasks())
    body: dict[str, Any] = {"id": "evt_bad"}
    signed = {
        "wrong": port.stripe(body, "whsec_of_somebody_else"),
        "late": port.stripe(body, at=time.time() - 301),
        "none": port.post("/in/stripe", body),
        "nonsense": port.post("/in/stripe", body, stripe_signature="t=1e9,v1=é"[:8]),
        "no time": port.post("/in/stripe", body, stripe_signature="v1=abc"),
    }
    assert {name: answer.status_code for name, answer in signed.items()} == dict.fromkeys(
        signed, 401
    )
    assert "whsec" not in "".join(answer.text for answer in signed.values())
    assert port.post("/in/nowhere", body).status_code == 404
    assert httpx.get(f"{port.url}/in/stripe").status_code == 405
    assert port.post("/v1/endpoints/in/stripe/calls", {"params": {}}).status_code == 404
    assert port.post("/in/closed", body).status_code == 503
    made = "sha256=" + hmac.new(GITHUB.encode(), b"[]", "sha256").hexdigest()
    strict = port.post("/in/strict", b"{}", x_hub_signature_256=_github(b"{}"))
    assert strict.status_code == 422
    assert "'id' is a required property" in strict.text
    broken = port.post("/in/github", b"[]", x_hub_signature_256=made, content_type="text/plain")
    assert broken.status_code == 200
    assert len(daemon.tasks()) == before + 1
    wanted = {
        ('endpoint="in/stripe",reason="signature"', "4"),
        ('endpoint="in/stripe",reason="timestamp"', "1"),
        ('endpoint="in/closed",reason="disabled"', "1"),
    }
    until(lambda: wanted <= set(_refused(daemon)), "what was refused is counted")


def _refused(daemon: Daemon) -> list[tuple[str, str]]:
    """What is counted of requests that became no event."""
    metrics = daemon.get("/metrics").text
    return re.findall(r"orchestratord_inbound_refused_total\{(.*?)\} (\d+)", metrics)


def _until_counted(daemon: Daemon, reason: str, count: int) -> None:
    wanted = f'endpoint="in/stripe",reason="{reason}"', str(count)
    until(lambda: wanted in _refused(daemon), f"{count} counted as {reason}")


def _github(body: bytes) -> str:
    return "sha256=" + hmac.new(GITHUB.encode(), body, "sha256").hexdigest()


def test_meta_asks_whether_the_address_is_right(port: In) -> None:
    asked = {"hub.mode": "subscribe", "hub.challenge": "1158201444", "hub.verify_token": META}
    answer = httpx.get(f"{port.url}/in/github", params=asked)
    assert (answer.status_code, answer.text) == (200, "1158201444")
    wrong = httpx.get(f"{port.url}/in/github", params={**asked, "hub.verify_token": "x"})
    assert wrong.status_code == 403


def test_what_is_too_large_is_refused(port: In, daemon: Daemon) -> None:
    large = {"id": "evt_large", "blob": "x" * (64 << 10)}
    assert port.stripe(large).status_code == 413
    peak = daemon.memory("VmHWM")
    announced = (
        b"POST /in/stripe HTTP/1.1\r\nhost: x\r\ncontent-length: 1073741824\r\n"
        b"stripe-signature: t=1,v1=00\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port.port), 30) as sock:
        sock.sendall(announced + b"x" * 1000)
        assert sock.recv(4096).startswith(b"HTTP/1.1 413 ")
        _until_closed(sock)
    chunked = announced.replace(b"content-length: 1073741824", b"transfer-encoding: chunked")
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    sent, heard = 0, b""
    with socket.create_connection(("127.0.0.1", port.port), 30) as sock:
        sock.sendall(chunked)
        try:
            while sent < 1 << 30:
                sock.sendall(chunk)
                sent += len(chunk)
        except OSError:
            pass
        try:
            heard = sock.recv(4096)
        except OSError:
            heard = b"HTTP/1.1 413 "  # what was sent after the end has reset the connection
    assert heard.startswith(b"HTTP/1.1 413 ")
    assert sent < 64 << 20
    assert daemon.memory("VmHWM") - peak < 32 << 20
    _until_counted(daemon, "too_large", 3)
    fits = port.stripe({"id": "evt_fits", "blob": "x" * (63 << 10)})
    assert fits.status_code == 200, fits.text


def test_a_body_that_does_not_come_is_given_up(port: In, daemon: Daemon) -> None:
    begun = b"POST /in/stripe HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", port.port), 30) as sock:
        sock.sendall(begun)
        assert sock.recv(4096).startswith(b"HTTP/1.1 408 ")
        _until_closed(sock)
    _until_counted(daemon, "timeout", 1)


def _until_closed(sock: socket.socket) -> None:
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass


@pytest.mark.parametrize("proxy", [False, True])
@pytest.mark.parametrize(
    "half", ["P", "POST /in/stripe HTTP/1.1\r\nHost: d\r\nContent-Length: 9\r\n\r\n{"]
)
def test_what_is_signed_goes_on_beside_requests_that_do_not_end(
    make_daemon: MakeDaemon, half: str, proxy: bool
) -> None:
    """All come from one address: a sender's own, or that of the proxy in front."""
    inbound = {"bind": f"127.0.0.1:{free_port()}"} | ({"proxies": ["127.0.0.1"]} if proxy else {})
    daemon = make_daemon(environ={"STRIPE": STRIPE, "NEW": STRIPE}, inbound=inbound)
    daemon.write("apis/in/endpoints/stripe.yaml", ENDPOINTS["stripe"])
    daemon.start()
    port = In(daemon)
    with ExitStack() as stack:
        for _ in range(UNSIGNED):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port.port), 20))
            sock.sendall(half.encode())
        for number in range(3):
            began = time.monotonic()
            answer = port.stripe({"id": f"evt_{number}"})
            assert answer.status_code == 200, answer.text
            assert time.monotonic() - began < SOON


def test_paused_it_waits(port: In, daemon: Daemon) -> None:
    assert daemon.post("/v1/endpoints/in/standard/pause").status_code == 200
    made = standardwebhooks.Webhook(STANDARD).sign("msg_2", datetime.now(UTC), "{}")
    answer = port.post(
        "/in/standard", b"{}", webhook_id="msg_2", webhook_timestamp=str(int(time.time())),
        webhook_signature=made,
    )  # fmt: skip
    assert answer.status_code == 200
    assert daemon.task(answer.json()["id"])["status"] == "pending"
    daemon.post("/v1/endpoints/in/standard/resume")
    daemon.settle()
    assert daemon.task(answer.json()["id"])["status"] == "succeeded"


def test_the_command_signs_and_sends(port: In, daemon: Daemon) -> None:
    file = daemon.config / "apis/in/endpoints/slack.yaml"
    bind = f"127.0.0.1:{port.port}"
    ran = daemon.run("inbound", "test", str(file), "--bind", bind)
    assert (ran.code, "id" in ran.json()) == (0, True), ran.err
    assert daemon.run("inbound", "test", "in/closed", "--bind", bind).code == 1
    nothing = daemon.run("inbound", "test", "in/slack", "--bind", "127.0.0.1:1")
    assert nothing.code == 1
    assert "(Connection refused): start the daemon" in nothing.err
    with socket.create_server(("127.0.0.1", 0)) as other:
        speaking = threading.Thread(target=_say_something_else, args=(other,))
        speaking.start()
        bind = f"127.0.0.1:{other.getsockname()[1]}"
        another = daemon.run("inbound", "test", "in/slack", "--bind", bind)
        speaking.join()
    assert (another.code, "start the daemon" in another.err) == (1, True), another.err


def _say_something_else(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(65_536)
        connection.sendall(b"220 mail.example.com ESMTP\r\n")


PAID = """
type: event
inbound: {path: /in/stripe, verify: stripe, secret: "${secret:STRIPE}", dedupe: body.id}
then:
  - call: erp/bookPayment
    when: params.body.type == 'invoice.paid'
    params: {invoice: params.body.data.object.id, amount: params.body.data.object.amount_paid}
"""
BOOK = """
method: POST
path: /payments
idempotent: true
params: {invoice: {type: string, required: true}, amount: {type: integer, required: true}}
body: {json: {invoice: "{{ params.invoice }}", cents: "{{ params.amount }}"}}
retry: {backoff: {strategy: fixed, delay: 50ms}, jitter: 0, when: [error, 5xx]}
"""


def test_a_webhook_from_stripe_becomes_calls_of_your_erp_with_retries_in_two_files(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    """The ERP is down for a while, and the daemon is killed in between: it is booked once."""
    receiver.on("/payments", Answer(503), Answer(503), Answer(201))
    daemon = make_daemon(environ={"STRIPE": STRIPE}, inbound={"bind": f"127.0.0.1:{free_port()}"})
    daemon.api("erp", receiver.url)
    daemon.write("apis/stripe/endpoints/paid.yaml", PAID)
    daemon.write("apis/erp/endpoints/bookPayment.yaml", BOOK)
    daemon.start()
    port = In(daemon)
    paid = {"id": "in_1", "object": "invoice", "amount_paid": 4200}
    body = {"id": "evt_1", "object": "event", "type": "invoice.paid", "data": {"object": paid}}
    assert port.stripe(body).status_code == 200
    daemon.kill()
    daemon.start()
    assert port.stripe(body).json() == {"duplicate": True}
    other = {"id": "evt_2", "object": "event", "type": "charge.failed", "data": {"object": {}}}
    assert port.stripe(other).status_code == 200
    daemon.settle()
    [call] = daemon.tasks(endpoint="erp/bookPayment")
    assert call["status"] == "succeeded"
    assert json.loads(receiver.received("/payments")[-1].body) == {"invoice": "in_1", "cents": 4200}
