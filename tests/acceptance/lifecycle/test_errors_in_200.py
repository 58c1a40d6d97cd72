"""APIs that say in the body what went wrong: SOAP by the package soap, from npm, and GraphQL by
graphql-core.

npm install --no-save --no-package-lock soap@1.13.0
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from graphql import GraphQLError, build_schema, graphql_sync

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Received, Receiver

PACKAGE = Path(__file__).parents[3] / "node_modules/soap"

ENVELOPE = """<?xml version="1.0" encoding="utf-8"?>
<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>
  <o:Book xmlns:o="urn:orders"><order>{{ params.order | e }}</order></o:Book>
</s:Body></s:Envelope>"""


@pytest.fixture(scope="module")
def orders(program: Callable[[str], str]) -> Iterator[str]:
    """The address of a SOAP service."""
    node = program("node")
    if not PACKAGE.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail("soap is not installed, and CI is to test with it")
        pytest.skip("soap is not installed")
    script = Path(__file__).with_name("soap_server.mjs")
    server = subprocess.Popen([node, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert server.stdout is not None
        yield f"127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.terminate()
        server.wait(10)
        if server.stdout is not None:
            server.stdout.close()


@pytest.fixture
def soap(make_daemon: MakeDaemon, receiver: Receiver, orders: str) -> Daemon:
    daemon = make_daemon(
        egress={"allow": [orders, receiver.address]}, defaults={"retry": retry(attempts=3)}
    )
    daemon.api("soap", f"http://{orders}")
    daemon.endpoint(
        "soap/book", "/orders", method="POST", params={"order": {"required": True}},
        headers={"Content-Type": "text/xml; charset=utf-8", "SOAPAction": '"urn:orders#Book"'},
        body={"text": ENVELOPE},
        fail_if="contains(body.Envelope.Body.Fault.faultcode || '', 'Client')",
        retry={"if": "body.Envelope.Body.Fault"},
        then=[{"call": "ledger/enter", "params": {
            "number": "body.Envelope.Body.BookResponse.number",
            "order": "body.Envelope.Body.BookResponse.heard",
        }}],
    )  # fmt: skip
    daemon.api("ledger", receiver.url)
    daemon.endpoint(
        "ledger/enter", "/enter", method="POST", params={"number": {}, "order": {}},
        body={"json": {"number": "{{ params.number }}", "order": "{{ params.order }}"}},
    )  # fmt: skip
    receiver.on("/enter", 200)
    return daemon.start()


@pytest.mark.parametrize(("order", "status"), [("refused", 200), ("refused-500", 500)])
def test_a_fault_of_soap_is_final_and_nothing_is_booked(
    soap: Daemon, receiver: Receiver, order: str, status: int
) -> None:
    task = soap.finish(soap.call("soap/book", order=order))
    soap.settle()
    assert (task["status"], task["reason"], task["attempts"]) == ("failed", "not_retryable", 1)
    assert task["response"]["status_code"] == status
    assert task["last_error"].endswith("No such customer")
    assert receiver.count("/enter") == 0


def test_a_fault_of_the_server_is_tried_again(soap: Daemon, receiver: Receiver) -> None:
    task = soap.finish(soap.call("soap/book", order="busy"))
    soap.settle()
    assert (task["status"], task["attempts"]) == ("succeeded", 2)
    assert "Try again later" in task["attempt_log"][0]["error"]
    (entered,) = receiver.received("/enter")
    assert entered.json() == {"number": "4711", "order": "busy"}


def test_a_text_is_sent_as_xml(soap: Daemon, receiver: Receiver) -> None:
    soap.finish(soap.call("soap/book", order="R&D <7>"))
    soap.settle()
    (entered,) = receiver.received("/enter")
    assert entered.json() == {"number": "4711", "order": "R&D <7>"}


SCHEMA = build_schema("type Query { user(id: ID!): User } type User { id: ID! }")
QUERY = "query($one: ID!, $other: ID!) { a: user(id: $one) {id} b: user(id: $other) {id} }"


class Users:
    """The root of a GraphQL server: user 1 is there, 2 is not; asked for `busy` it is, once."""

    def __init__(self) -> None:
        self.busy = True

    def user(self, info: Any, **asked: str) -> dict[str, str]:
        if asked["id"] == "busy" and self.busy:
            self.busy = False
            raise GraphQLError("Slow down", extensions={"code": "RATE_LIMITED"})
        if asked["id"] == "2":
            raise GraphQLError("No such user", extensions={"code": "NOT_FOUND"})
        return asked

    def answer(self, request: Received) -> Answer:
        asked = request.json()
        result = graphql_sync(SCHEMA, asked["query"], self, variable_values=asked["variables"])
        body = json.dumps(result.formatted)
        return Answer(200, body, {"Content-Type": "application/graphql-response+json"})


@pytest.fixture
def graphql(make_daemon: MakeDaemon, receiver: Receiver) -> Daemon:
    receiver.reply("/graphql", Users().answer)
    receiver.on("/saved", 200)
    daemon = make_daemon(defaults={"retry": retry(attempts=3)})
    daemon.api("shop", receiver.url)
    keys = {
        "method": "POST",
        "params": {"one": {"required": True}, "other": {"required": True}},
        "retry": {"if": "body.errors[?extensions.code == 'RATE_LIMITED']"},
    }
    body = {"query": QUERY, "variables": {"one": "{{ params.one }}", "other": "{{ params.other }}"}}
    daemon.endpoint("shop/all", "/graphql", **keys, body={"json": body}, success_if="!errors")
    daemon.endpoint(
        "shop/some", "/graphql", **keys, body={"json": body},
        fail_if="!(body.data.a || body.data.b)",
        then=[{"call": "shop/save", "each": "body.data.[a, b][?@]", "params": {"id": "item.id"}}],
    )  # fmt: skip
    daemon.endpoint(
        "shop/save", "/saved", method="PUT", params={"id": {"required": True}},
        body={"json": "{{ params }}"},
    )  # fmt: skip
    return daemon.start()


def test_errors_of_graphql_are_failures(graphql: Daemon, receiver: Receiver) -> None:
    task = graphql.finish(graphql.call("shop/all", one="1", other="2"))
    assert (task["status"], task["reason"], task["attempts"]) == ("failed", "not_retryable", 1)
    assert task["last_error"].endswith("No such user")
    wrong = graphql.finish(graphql.call("shop/some", one=None, other="2"))
    assert (wrong["status"], wrong["reason"]) == ("failed", "not_retryable")
    assert "of non-null type" in wrong["last_error"], "it has not executed anything: no data"


def test_partial_data_is_taken_where_it_will_do(graphql: Daemon, receiver: Receiver) -> None:
    task = graphql.finish(graphql.call("shop/some", one="1", other="2"))
    graphql.settle()
    assert (task["status"], task["attempts"]) == ("succeeded", 1)
    assert [one.json() for one in receiver.received("/saved")] == [{"id": "1"}]


def test_a_limit_within_200_is_tried_again_although_it_is_a_post(
    graphql: Daemon, receiver: Receiver
) -> None:
    task = graphql.finish(graphql.call("shop/some", one="1", other="busy"))
    graphql.settle()
    assert (task["status"], task["attempts"]) == ("succeeded", 2)
    assert "Slow down" in task["attempt_log"][0]["error"]
    assert sorted(one.json()["id"] for one in receiver.received("/saved")) == ["1", "busy"]
