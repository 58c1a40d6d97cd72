"""The Python client knows all that the daemon's code may answer."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_type_hints

import httpx
import orchestratord_client as oc
import pytest
from orchestratord_client import protocol
from orchestratord_client.errors import refusal_class

from orchestratord.api.answer_documents import (
    AttemptDocument,
    TaskDocument,
    TaskPageDocument,
    WaitDocument,
)
from orchestratord.api.server.problem_json import PROBLEMS

ADDRESS = protocol.Address.of("/nowhere/control.sock", None)


@pytest.mark.parametrize("scheme", ["http", "HTTP", "Https", "ftp"])
def test_no_user_and_password_are_shown(scheme: str) -> None:
    address = protocol.Address.of(f"{scheme}://me:s3cret@daemon", None)
    assert str(address) == f"{scheme}://***@daemon"
    if scheme != "ftp":
        assert (address.socket, "s3cret" in repr(address)) == (None, False)
        address.transport(httpx.HTTPTransport, None).close()


def test_every_problem_has_a_class() -> None:
    found = {(status, code): refusal_class(status, code) for code, (status, *_) in PROBLEMS.items()}
    assert len(found) > 30
    assert oc.Refused not in found.values()
    # What does not fit is told apart; a word of a newer daemon's is the class of its status.
    assert oc.Invalid not in found.values()
    assert refusal_class(409, "replaced") is oc.Replaced
    assert refusal_class(409, "of tomorrow") is oc.Conflict
    assert refusal_class(418, "of tomorrow") is oc.Refused


def test_every_field_has_an_attribute() -> None:
    for document, kind in [
        (TaskDocument, oc.Task),
        (TaskPageDocument, oc.TaskDetail),
        (AttemptDocument, oc.Attempt),
        (WaitDocument, oc.Wait),
    ]:
        known = {one.name for one in fields(kind)} | ({"for"} if kind is oc.Wait else set())
        found = set(get_type_hints(document))
        assert len(found) > 3
        assert found - known == set(), document


def test_httpx_is_all_that_it_needs() -> None:
    imported: set[str] = set()
    for path in Path(oc.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {one.name.split(".")[0] for one in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").split(".")[0])
    assert imported - sys.stdlib_module_names == {"httpx", "orchestratord_client"}


def test_all_that_is_public_is_described() -> None:
    for name in oc.__all__:
        assert getattr(oc, name).__doc__, name
    for name, method in inspect.getmembers(oc.Client, inspect.isfunction):
        if not name.startswith("_") and name != "close":
            assert method.__doc__, name
            twin = getattr(oc.AsyncClient, name)
            assert inspect.signature(method).parameters == inspect.signature(twin).parameters, name


def task(**more: Any) -> dict[str, Any]:
    return {
        "id": 42, "kind": "call", "endpoint": "shop/ok", "webhook": None, "phase": None,
        "status": "pending", "reason": None, "attempts": 1, "max_attempts": 5, "deaths": 0,
        "next_try": "2026-11-24T22:00:05.214Z", "params": {"id": 1}, "truncated": False,
        "parent_id": None, "last_status_code": 503, "last_error": "503",
        "created_at": "2026-11-24T22:00:00.000Z", "updated_at": "2026-11-24T22:00:00.031Z",
        "finished_at": None, **more,
    }  # fmt: skip


def test_what_a_newer_daemon_adds_is_kept() -> None:
    found = oc.Task.of(task(colour="blue", status="resolved"))
    assert found.next_try == datetime(2026, 11, 24, 22, 0, 5, 214000, UTC)
    assert (found.status, found.more) == ("resolved", {"colour": "blue"})


def answered(status: int, document: Any, headers: Mapping[str, str] = {}) -> httpx.Response:
    request = httpx.Request("POST", "http://localhost/")
    return httpx.Response(status, json=document, headers=headers, request=request)


def carry_out(steps: Any, *answers: httpx.Response | Exception) -> tuple[Any, list[Any]]:
    """What steps come to, given these answers in turn; and the requests that they made."""
    requests: list[Any] = []
    given = iter(answers)
    try:
        step = next(steps)
        while True:
            if isinstance(step, protocol.Pause):
                step = steps.send(None)
                continue
            requests.append(step)
            answer = next(given)
            step = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
    except StopIteration as end:
        return end.value, requests


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.RemoteProtocolError("went away"),
        httpx.ReadError("reset"),
        answered(503, {"code": "stopping"}),
        answered(502, "a proxy's"),
    ],
)
def test_a_call_is_repeated_with_its_key(failure: httpx.Response | Exception) -> None:
    steps = protocol.call(protocol.Deadline(ADDRESS, 60), "shop/ok", {"id": 1}, None, None, None)
    made, requests = carry_out(steps, failure, failure, answered(200, {"id": 7, "status": "x"}))
    assert (made.id, made.repeated) == (7, True)
    assert len({request.headers["Idempotency-Key"] for request in requests}) == 1
    assert len(requests) == 3


def test_a_lost_retry_is_told_by_its_task() -> None:
    conflict = answered(409, {"code": "conflict", "detail": "it runs"})
    detail = {"waits": None, "payload": None, "response": None, "attempt_log": []}
    running = answered(200, task(status="running", **detail))
    waiting = answered(200, task(**detail))

    def steps(force: bool = False) -> Any:
        return protocol.retry(protocol.Deadline(ADDRESS, 60), 42, force)

    lost = httpx.ReadError("reset")
    found, requests = carry_out(steps(), lost, conflict, running)
    assert (found.status, len(requests)) == ("running", 3)
    with pytest.raises(oc.Conflict):
        carry_out(steps(), httpx.ConnectError("refused"), conflict)
    with pytest.raises(oc.Conflict):
        carry_out(steps(), lost, conflict, waiting)
    with pytest.raises(oc.DaemonUnreachable):
        carry_out(steps(force=True), lost)
    found, _ = carry_out(steps(force=True), httpx.ConnectError("refused"), waiting)
    assert found.id == 42


def test_it_is_given_up() -> None:
    steps = protocol.get(protocol.Deadline(ADDRESS, 0), 42)
    with pytest.raises(oc.DaemonUnreachable, match=r"nowhere.*or \$ORCHESTRATORD_SOCKET"):
        carry_out(steps, httpx.ConnectError("refused"))
    steps = protocol.get(protocol.Deadline(ADDRESS, 0), 42)
    with pytest.raises(oc.Unavailable):
        carry_out(steps, answered(503, {"code": "busy"}, {"Retry-After": "1"}))
    denied = httpx.ConnectError("denied")
    denied.__cause__ = PermissionError(13, "Permission denied")
    with pytest.raises(oc.DaemonUnreachable, match=r"denied$"):  # at once
        carry_out(protocol.get(protocol.Deadline(ADDRESS, 60), 42), denied)


def test_a_key_is_a_text() -> None:
    with pytest.raises(TypeError, match="the key is a text, not int"):
        protocol.header_value(7, "the key")  # type: ignore[arg-type]


def test_retry_after_is_kept() -> None:
    refused = answered(503, {"code": "busy"}, {"Retry-After": "7"})
    steps = protocol.get(protocol.Deadline(ADDRESS, 60), 42)
    next(steps)
    assert steps.send(refused) == protocol.Pause(7.0)


def test_a_token_goes_with_a_url() -> None:
    with pytest.raises(ValueError, match="token"):
        oc.Client("/run/x.sock", token="t")
    assert "s3cret" not in repr(protocol.Address.of("http://localhost:1", "s3cret"))


def test_filters_are_written_as_the_api_reads_them() -> None:
    at = datetime(2026, 11, 24, 22, tzinfo=UTC)
    given = {"status": ("failed", "cancelled"), "since": at, "until": timedelta(hours=2), "id": 7}
    assert protocol._query({**given, "text": None}) == {
        "status": "failed,cancelled",
        "since": "2026-11-24T22:00:00+00:00",
        "until": "7200",
        "id": "7",
    }
    # Of more than six digits, too: no exponent, and nothing rounded.
    assert protocol._query({"since": timedelta(days=30)}) == {"since": "2592000"}
    assert protocol._query({"since": timedelta(days=12, seconds=1)}) == {"since": "1036801"}


@pytest.mark.parametrize("key", ["ü", "", " ", "order-7 ", "\torder-7"])
def test_a_key_that_the_daemon_would_not_take_is_refused_and_not_replaced(key: str) -> None:
    client = oc.Client("http://127.0.0.1:1")
    for make in (
        lambda: client.call("a/b", key=key),
        lambda: client.call_many("a/b", [{}], key=key),
        lambda: client.subscribe("acme", "https://a.example", key=key),
    ):
        with pytest.raises(ValueError, match="the key is empty, or has a"):
            make()


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("mail.sendWelcome", "'mail.sendWelcome' is not; write mail/sendWelcome"),
        ("crm.v2.put", "'crm.v2.put' is not; write crm.v2/put"),
        ("mail", "'mail' is not"),
        ("mail.", "'mail.' is not"),
    ],
)
def test_an_endpoint_with_a_dot_is_said_to_have_a_slash(endpoint: str, said: str) -> None:
    client = oc.Client("http://127.0.0.1:1")
    for make in (lambda: client.call(endpoint), lambda: client.call_many(endpoint, [{}])):
        with pytest.raises(ValueError, match="an endpoint is called api/name") as refused:
            make()
        assert str(refused.value).endswith(said)


def test_a_stream_of_events_goes_on_where_it_broke_off() -> None:
    stream = protocol.EventStream(protocol.Deadline(ADDRESS, 60), {"type": "task.*"})
    assert "Last-Event-ID" not in stream.request().headers
    assert not list(stream.feed(b"id: 5\n\n: nothing happened\n\nid: 6\r\nevent: task.f"))
    assert not list(stream.feed(b'ailed\ndata: {"id":1}\n'))
    assert list(stream.feed(b"\n")) == [oc.Event("task.failed", {"id": 1})]
    assert not list(stream.feed(b"id: 7\n"))  # cut off: it is not counted
    assert stream.request().headers["Last-Event-ID"] == "6"
    news = b'event: missed\ndata: {"missed":null}\n\n'
    assert list(stream.feed(news * 2)) == [oc.Event("missed", {"missed": None})] * 2
    with pytest.raises(oc.UnexpectedAnswer, match="the answer is not a"):
        list(stream.feed(b"data: no JSON\n\n"))
    assert not list(stream.feed(b"x" * (1 << 24)))
    with pytest.raises(oc.UnexpectedAnswer, match="more than 16 MiB"):
        list(stream.feed(b"x"))


URL = "http://ops:s3cret@127.0.0.1:1"


@pytest.mark.parametrize("token", ["s3cret\nX-Evil: 1", "s3cret\x00", "s3crét", "", "\n"])
def test_a_token_that_no_header_can_carry_is_not_shown(token: str) -> None:
    with pytest.raises(ValueError, match="the token is empty, or has a char") as refused:
        oc.Client("http://127.0.0.1:1", token=token)
    assert "s3cr" not in str(refused.value)


def test_the_line_end_of_a_token_is_not_sent() -> None:
    address = protocol.Address.of("http://127.0.0.1:1", "0123456789abcdef\r\n")
    assert address.headers() == {"Authorization": "Bearer 0123456789abcdef"}


def test_the_user_of_a_url_is_shown_nowhere() -> None:
    address = protocol.Address.of(URL, None)
    shown = [repr(address), str(address), repr(oc.Client(URL))]
    with pytest.raises(oc.DaemonUnreachable) as away:
        oc.Client(URL, deadline=0).call("a/b")
    shown += [str(away.value), repr(away.value)]
    answer = httpx.Response(200, text="?", request=httpx.Request("GET", f"{URL}/v1"))
    with pytest.raises(oc.UnexpectedAnswer) as other:
        protocol.document(answer)
    shown.append(str(other.value))
    for wrong in ("http://ops:s3cret/x@h", "http://ops:s3cret@h:port", "ops:s3cret@h:8"):
        with pytest.raises(ValueError, match=r"is not a URL|goes with a URL") as error:
            oc.Client(wrong, token="0123456789abcdef")
        shown.append(str(error.value))
        assert error.value.__suppress_context__ or error.value.__context__ is None
    assert "http://***@127.0.0.1:1" in shown[1]
    assert not [text for text in shown if "s3cret" in text]
