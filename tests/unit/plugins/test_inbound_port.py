"""What a sender is told where its request cannot be taken now: to send it again."""

from __future__ import annotations

import encodings
import hmac
import json
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from orchestratord_inbound.declaration import INBOUND, UNSIGNED_IDS, Inbound
from orchestratord_inbound.inbound_port import BRIM, InboundPort, example
from orchestratord_inbound.sender_scheme import SCHEMES, scheme_of

from orchestratord import Conflict, Control, PortRequest, Redactor, Secret, Unreachable
from orchestratord.errors import StorageFull

SECRET = "a secret of the sender"
BODY = b'{"id": 1}'


class Daemon:
    """The part of a daemon that the port sees."""

    def __init__(self, error: Exception | None = None, waits: int = 0, **inbound: Any) -> None:
        self.error, self.waits = error, waits
        self.accepted: list[Any] = []
        self.told: list[str] = []
        given = {"path": "/in/x", "verify": "github", "secret": SECRET, **inbound}
        settings = {INBOUND.key: Inbound.model_validate(given)}
        endpoint = _Endpoint(settings)
        self.config = SimpleNamespace(
            endpoints={"in/x": endpoint},
            redactor=Redactor(),
            daemon=SimpleNamespace(max_params=999),
        )

    async def accept(self, endpoint_id: str, params: Any, once: Any) -> int:
        if self.error is not None:
            raise self.error
        self.accepted.append((endpoint_id, params, once))
        return 7

    async def waiting(self, endpoint_id: str, most: int) -> int:
        return min(self.waits, most)

    def publish(self, event: Any) -> None:
        self.told.append(event.reason)


class _Endpoint:
    id, enabled = "in/x", True

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings

    def __getitem__(self, setting: Any) -> Any:
        return self._settings[setting.key]


def request(body: bytes = BODY, kind: str = "application/json") -> PortRequest:
    made = "sha256=" + hmac.new(SECRET.encode(), body, "sha256").hexdigest()
    headers = (("content-type", kind), ("x-hub-signature-256", made))
    return PortRequest("POST", "/in/x", (), headers, "127.0.0.1", body)


def port_of(daemon: Daemon) -> InboundPort:
    return InboundPort(cast("Control", daemon))


@pytest.mark.parametrize(
    ("daemon", "told"),
    [
        (Daemon(StorageFull("the disk is full")), "unavailable"),
        (Daemon(Unreachable("the database is away", code="database_unreachable")), "unavailable"),
        (Daemon(Conflict("in/x is disabled")), "unavailable"),
        (Daemon(waits=BRIM), "full"),
    ],
)
async def test_it_is_to_come_again(daemon: Daemon, told: str) -> None:
    answer = await port_of(daemon).answer(request())
    assert (answer.status, answer.headers["Retry-After"]) == (503, "30")
    assert (daemon.told, daemon.accepted) == ([told], [])


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{", "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"[" * 65 + b"]" * 65, "application/json"),
        (b'{"a": NaN}', "application/cloudevents+json"),
        (b"\xff", "text/plain"),
        (b"a=%ff", "application/x-www-form-urlencoded"),
    ],
)
async def test_what_cannot_be_read_is_refused(body: bytes, kind: str) -> None:
    daemon = Daemon()
    answer = await port_of(daemon).answer(request(body, kind))
    assert answer.status == 422
    assert (daemon.told, daemon.accepted) == (["invalid"], [])


@pytest.mark.parametrize(
    ("charset", "body", "text"),
    [
        ("iso-8859-1", b"caf\xe9", "café"),
        ('"ISO-8859-15"; x=y', b"5 \xa4", "5 €"),
        ("windows-1252", b"5 \x80", "5 €"),
        ("utf-16", "café".encode("utf-16"), "café"),
        # Where it is unknown, or says less than is sent, as before.
        ("none-such", "café".encode(), "café"),
        ("us-ascii", "café".encode(), "café"),
        ("none-such", b"caf\xe9", None),
        ("us-ascii", b"caf\xe9", None),
        ("utf-8", b"caf\xe9", None),
        ("utf-16", b"\xffa\x00", None),
        ("x" * 10_000, b"\xe9", None),
        # Python's own codecs are no charsets, and some raise what others do not.
        *[
            (name, b"a\\xff-\xe9", None)
            for name in (
                "hex", "zlib", "bz2", "rot13", "base64", "uu", "quopri", "idna", "punycode",
                "undefined", "unicode_escape", "raw_unicode_escape", "charmap", "mbcs", "a\0b",
                "../os", "\u0661", "",
            )
        ],
    ],
)  # fmt: skip
async def test_a_text_is_read_in_its_charset(charset: str, body: bytes, text: str | None) -> None:
    daemon = Daemon()
    answer = await port_of(daemon).answer(request(body, f"text/plain; Charset = {charset}"))
    assert answer.status == (422 if text is None else 200)
    assert [params["body"] for _, params, _ in daemon.accepted] == ([text] if text else [])
    if text is None:
        assert "body: is not what its content-type says: no text in" in str(answer.body)


@pytest.mark.parametrize("given", ["*=a; charset*0=b", "*0*=x''y", f"*{'1' * 5000}=a", "*=a%00''b"])
async def test_a_charset_in_another_form_is_utf_8(given: str) -> None:
    daemon = Daemon()
    answer = await port_of(daemon).answer(request("é".encode(), f"text/plain; charset{given}"))
    assert (answer.status, daemon.accepted[0][1]["body"]) == (200, "é")


async def test_an_unknown_charset_is_not_remembered() -> None:
    """Python keeps each name of a codec that it looked for, and the header is not signed."""
    for number in range(3):
        await port_of(Daemon()).answer(request(b"a", f"text/plain; charset=none-such-{number}"))
    assert not [name for name in encodings._cache if "none_such_" in name]  # type: ignore[attr-defined]


async def test_a_rate_is_kept_and_only_the_sender_uses_it_up() -> None:
    daemon = Daemon(rate_limit="2/h")
    port = port_of(daemon)
    for _ in range(5):
        assert port.admit(request()) == 999
        unsigned = replace(request(), headers=())
        assert (await port.answer(unsigned)).status == 401
    assert [(await port.answer(request())).status for _ in range(3)] == [200, 200, 429]
    refused = port.admit(request())
    assert getattr(refused, "status", None) == 429
    assert daemon.told == ["signature"] * 5 + ["rate"] * 2


async def test_what_a_query_shows_that_one_may_ask_is_not_stored() -> None:
    names = "token", "api_key", "apiKey", "key", "sig", "X-Signature", "clientSecret", "auth", "pwd"
    secret = [(name, "hush") for name in names]
    plain = [("author", "a"), ("keyboard", "b"), ("page", "1"), ("page", "2")]
    daemon = Daemon()
    await port_of(daemon).answer(replace(request(), query=(*secret, *plain)))
    [(_, params, _)] = daemon.accepted
    assert params["query"] == {"author": "a", "keyboard": "b", "page": ["1", "2"]}


def test_what_the_daemon_refuses_by_itself_is_counted() -> None:
    daemon = Daemon()
    port_of(daemon).refused(request(), "too_large")
    port_of(daemon).refused(replace(request(), path="/in/nowhere"), "too_large")
    assert daemon.told == ["too_large"]


@pytest.mark.parametrize("key", ["x" * 1000, "line\nbreak", {"a": 1}])
async def test_a_key_is_bounded(key: Any) -> None:
    daemon = Daemon(dedupe="body.key")
    await port_of(daemon).answer(request(json.dumps({"key": key}).encode()))
    [(_, _, once)] = daemon.accepted
    assert 0 < len(once.key["dedupe_key"]) <= 200
    assert once.key["dedupe_key"].isprintable()


async def repeated(daemon: Daemon, body: bytes, **changed: str) -> list[Any]:
    """The keys of the same request, sent twice, the second time with some headers changed."""
    inbound = daemon.config.endpoints["in/x"][INBOUND]
    scheme = scheme_of(inbound.verify)
    headers = scheme.signed(inbound.secret[0], body, time.time(), "msg_1")
    port, kind = port_of(daemon), {"content-type": "application/json"}
    for more in ({}, changed):
        sent = tuple((kind | headers | more).items())
        answer = await port.answer(PortRequest("POST", "/in/x", (), sent, "127.0.0.1", body))
        assert answer.status == 200
    return [once and once.key["dedupe_key"] for _, _, once in daemon.accepted]


STANDARD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.mark.parametrize(
    ("verify", "body", "key"),
    [
        ("standard", b'{"id": 1}', "msg_1"),
        ("stripe", b'{"id": "evt_1"}', "evt_1"),
        ("slack", b'{"event_id": "Ev1"}', "Ev1"),
        # Their signatures cover no id: that of a header could be any.
        ("github", b'{"id": 1}', None),
        ("shopify", b'{"id": 1}', None),
        ({"header": "x-sign"}, b'{"id": 1}', None),
    ],
)
async def test_without_dedupe_the_id_that_is_signed_tells_repeats(
    verify: Any, body: bytes, key: str | None
) -> None:
    daemon = Daemon(verify=verify, secret=STANDARD)
    ids = {"x-github-delivery": "d1", "x-shopify-webhook-id": "d1"}
    assert await repeated(daemon, body, **ids) == [key] * 2


async def test_a_dedupe_that_is_written_counts_and_not_the_signed_id() -> None:
    daemon = Daemon(verify="standard", secret=STANDARD, dedupe="body.id")
    assert await repeated(daemon, b'{"id": 7}') == ["7", "7"]


async def test_a_second_id_in_a_header_is_no_way_to_send_a_request_again() -> None:
    daemon = Daemon(verify="standard", secret=STANDARD)
    headers = SCHEMES["standard"].signed(Secret(STANDARD), BODY, time.time(), "msg_1")
    for more in (("webhook-id", "msg_2"), ("webhook-id", "msg_1")):
        for sent in ((*headers.items(), more), (more, *headers.items())):
            made = PortRequest("POST", "/in/x", (), sent, "127.0.0.1", BODY)
            assert (await port_of(daemon).answer(made)).status == 401
    assert daemon.accepted == []


@pytest.mark.parametrize(
    ("dedupe", "body", "key"),
    [
        ("body.id", {"no": 1}, None),
        ("[body.id, body.n]", {"id": 1}, None),
        ("{id: body.id, n: body.n}", {"id": 1}, None),
        ("body.[id, n]", {"id": 1, "n": 2}, "[1, 2]"),
        ("body.id", {"id": ""}, None),
        ("body.lines[].id", {"lines": []}, None),
        ("body.id", {"id": {}}, None),
        ("body.id", {"id": 0}, "0"),
        ("[body.id, body.n]", {"id": 1, "n": ""}, None),
        ("{id: body.id, n: body.n}", {"id": [], "n": 1}, None),
        # It is not made of parts that are named: what was sent holds null.
        ("body.both", {"both": [1, None]}, "[1, null]"),
        ("body", {"id": None}, '{"id": null}'),
    ],
)
async def test_a_key_with_a_part_that_is_null_or_empty_is_none_and_that_is_told_once(
    dedupe: str, body: Any, key: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    daemon = Daemon(dedupe=dedupe)
    assert (await port_of(daemon).answer(request(json.dumps(body).encode()))).status == 200
    [(_, _, once)] = daemon.accepted
    assert (once and once.key["dedupe_key"]) == key
    told = [
        f"in/x: its dedupe, {dedupe}, is null or empty in a request; a repeat would be a new event"
    ]
    assert [record.getMessage() for record in caplog.records] == (told if key is None else [])


@pytest.mark.parametrize("verify", [*SCHEMES, {"header": "x-sign"}])
async def test_an_example_is_told_from_repeats_as_what_the_sender_sends(verify: Any) -> None:
    header = UNSIGNED_IDS.get(verify) if isinstance(verify, str) else None
    more = {"dedupe": f'headers."{header}"'} if header else {}
    daemon = Daemon(verify=verify, secret=STANDARD, **more)
    [made] = example(daemon.config.endpoints["in/x"], None)
    assert (await port_of(daemon).answer(made)).status == 200
    [(_, _, once)] = daemon.accepted
    assert (once is None) == isinstance(verify, dict)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b'{"id": "a b=c"}', 200, {"id": "a b=c"}),
        (b'{"id": 1,}', 422, None),
        (b"payload=%7B%22id%22%3A1%7D&a=", 200, {"payload": '{"id":1}', "a": ""}),
        (b"a = b\n", 200, "a = b\n"),
    ],
)
async def test_an_example_says_what_its_file_resembles(body: bytes, status: int, said: Any) -> None:
    daemon = Daemon()
    [made] = example(daemon.config.endpoints["in/x"], body)
    assert (await port_of(daemon).answer(made)).status == status
    assert [params["body"] for _, params, _ in daemon.accepted] == [said] * (status == 200)


@pytest.mark.parametrize("name", SCHEMES)
def test_each_scheme_takes_what_it_signs_and_nothing_else(name: str) -> None:
    scheme, now = SCHEMES[name], 1_800_000_000.0
    text = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    secret, other = Secret(text), Secret(text.replace("M", "N"))
    headers = scheme.signed(secret, BODY, now, "msg_1")

    def fault(body: bytes = BODY, late: float = 0.0, **changed: str) -> str | None:
        sent = {**headers, **changed}
        made = PortRequest("POST", "/", (), tuple(sent.items()), "", body)
        return scheme.fault(made, (other, secret), now + late)

    assert fault() is None
    assert fault(BODY + b" ") == "signature"
    assert fault(late=301) == ("timestamp" if "{time}" in scheme.content else None)
    for bad in ("", "é", "v1=", "t=,v1=", headers[scheme.header][:-1], "t=1,v1=" + "0" * 64):
        assert fault(**{scheme.header: bad}) == "signature"
    only_other = PortRequest("POST", "/", (), tuple(headers.items()), "", BODY)
    assert scheme.fault(only_other, (other,), now) == "signature"
