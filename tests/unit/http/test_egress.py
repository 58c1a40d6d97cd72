"""Which addresses may be dialled. Nothing is dialled here."""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from orchestratord.errors import EgressDenied
from orchestratord.http.egress import Egress, Rule, parse_rule

NONE = Egress()
EVERYTHING = Egress(
    tuple(parse_rule(text) for text in ("0.0.0.0/0", "::/0", "128.0.0.0/1", "fc00::/7"))
)

PRIVATE = [
    "10.0.0.0",
    "10.255.255.255",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "192.168.255.255",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "::1",
    "fc00::1",
    "fdff:ffff::1",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:c0a8:1",
]
HARD = [
    "0.0.0.0",
    "0.1.2.3",
    "169.254.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "100.100.100.200",
    "::",
    "::2",
    "::7f00:1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:1ff::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "3fff::1",
    "5f00::1",
    "fe80::1",
    "febf::1",
    "fec0::1",
    "feff::1",
    "ff02::1",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "::ffff:0:7f00:1",
    "::ffff:0:0:1",
    "0:0:0:1::1",
    "64:ff9c::1",
    "100:0:0:1::1",
    "200::1",
    "1fff:ffff::1",
    "4000::1",
    "8000::1",
    "fbff::1",
    "fe00::1",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "::ffff:100.100.100.200",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "168.63.129.15",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2000::1",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2606:4700::1111",
    "2a00:1450::1",
    "3ffe::1",
    "3fff:1000::1",
    "::ffff:8.8.8.8",
]


def allows(egress: Egress, address: str, port: int = 443) -> bool:
    try:
        egress.check(address, port, "name.example")
    except EgressDenied:
        return False
    return True


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_need_no_rule(address: str) -> None:
    assert allows(NONE, address)
    assert NONE.literal_problem(address, 443) is None


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_opened_by_a_range(address: str) -> None:
    assert not allows(NONE, address)
    assert allows(EVERYTHING, address)
    assert NONE.literal_problem(address, 443) is not None
    assert EVERYTHING.literal_problem(address, 443) is None


@pytest.mark.parametrize("address", HARD)
def test_the_others_are_opened_only_by_the_exact_address(address: str) -> None:
    assert not allows(NONE, address)
    assert not allows(EVERYTHING, address)
    prefix = 28 if ip_address(address).version == 4 else 124
    around = parse_rule(str(ip_network(f"{address}/{prefix}", strict=False)))
    assert not allows(Egress((around,)), address)
    exact = Egress((parse_rule(address),))
    assert allows(exact, address)
    assert EVERYTHING.literal_problem(address, 443) is not None
    assert exact.literal_problem(address, 443) is None


@pytest.mark.parametrize("address", ["fe80::1%1", "fe80::1%lo", "fe80::1%eth0"])
def test_a_zone_does_not_hide_an_address(address: str) -> None:
    assert not allows(EVERYTHING, address)
    assert allows(Egress((parse_rule("fe80::1"),)), address)


@pytest.mark.parametrize("address", PRIVATE + HARD)
@pytest.mark.parametrize("port", [443, 9000])
def test_the_line_that_a_denial_names_opens_it(address: str, port: int) -> None:
    with pytest.raises(EgressDenied) as caught:
        NONE.check(address, port, "name.example")
    message = caught.value.message
    assert "(name.example)" in message
    _, _, entry = message.partition("egress: {allow: [")
    assert entry.endswith("]}")
    text = entry.removesuffix("]}")
    assert text.startswith('"') == ("::" in text)  # brackets mean something else in YAML
    rule = parse_rule(text.strip('"'))
    assert rule.port == port
    assert allows(Egress((rule,)), address, port)
    assert not allows(Egress((rule,)), address, port + 1)


def test_the_message_of_a_denial() -> None:
    with pytest.raises(EgressDenied) as caught:
        NONE.check("127.0.0.1", 9000, "localhost")
    assert str(caught.value) == (
        "127.0.0.1 (localhost) is a loopback address;"
        " to allow it, add  egress: {allow: [127.0.0.1:9000]}"
    )
    with pytest.raises(EgressDenied) as caught:
        EVERYTHING.check("169.254.169.254", 80, "169.254.169.254")
    assert str(caught.value) == (
        "169.254.169.254 is a cloud metadata address, which only its exact address opens;"
        " to allow it, add  egress: {allow: [169.254.169.254:80]}"
    )
    assert (caught.value.kind, caught.value.sent) == ("egress", False)


def test_what_is_no_address_is_denied() -> None:
    for nonsense in ("", "localhost", "1.2.3", "::g"):
        with pytest.raises(EgressDenied):
            EVERYTHING.check(nonsense, 80, "name.example")


@pytest.mark.parametrize(
    ("text", "network", "port"),
    [
        ("10.0.0.0/8", "10.0.0.0/8", None),
        ("10.0.0.0/8:443", "10.0.0.0/8", 443),
        ("127.0.0.1", "127.0.0.1/32", None),
        ("127.0.0.1:9000", "127.0.0.1/32", 9000),
        ("169.254.169.254/32", "169.254.169.254/32", None),
        (" 127.0.0.1:1 ", "127.0.0.1/32", 1),
        ("::1", "::1/128", None),
        ("fc00::/7", "fc00::/7", None),
        ("[::1]", "::1/128", None),
        ("[::1]:9000", "::1/128", 9000),
        ("[fc00::/7]:65535", "fc00::/7", 65535),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8", None),
        ("[::ffff:127.0.0.1]:80", "127.0.0.1/32", 80),
        ("::/0", "::/0", None),
    ],
)
def test_rules(text: str, network: str, port: int | None) -> None:
    rule = parse_rule(text)
    assert (str(rule.network), rule.port) == (network, port)
    assert parse_rule(str(rule)) == rule


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "localhost:9000",
        "*",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0.0/",
        "10.0.0.0/255.0.0.0",
        "10.0.0.1/8",
        "10.0.0",
        "010.0.0.1",
        "0x7f.1",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:http",
        "127.0.0.1:٣",
        "[::1",
        "[::1]9000",
        "[::1]:",
        "[127.0.0.1]:80",
        "::1/129",
        "fc00::1/7",
        "fe80::1%eth0",
        "http://127.0.0.1",
    ],
)
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(ValueError, match="is not a r") as caught:
        parse_rule(text)
    assert repr(text) in str(caught.value)


def test_a_range_with_host_bits_is_told_its_name() -> None:
    with pytest.raises(ValueError, match=r"did you mean 10\.0\.0\.0/8"):
        parse_rule("10.1.2.3/8")


def test_ports_bind_rules() -> None:
    egress = Egress((parse_rule("10.0.0.0/8:443"), parse_rule("169.254.169.254:80")))
    assert allows(egress, "10.1.2.3", 443)
    assert not allows(egress, "10.1.2.3", 80)
    assert allows(egress, "169.254.169.254", 80)
    assert not allows(egress, "169.254.169.254", 443)
    assert allows(egress, "::ffff:10.1.2.3", 443)


def test_a_rule_of_one_family_says_nothing_of_the_other() -> None:
    assert not allows(Egress((parse_rule("::/0"),)), "127.0.0.1")
    assert not allows(Egress((parse_rule("0.0.0.0/0"),)), "::1")


def test_rules_do_not_open_the_daemons_own_listener() -> None:
    listeners = frozenset({("127.0.0.1", 8420)})
    egress = Egress((parse_rule("10.0.0.0/8"), parse_rule("127.0.0.1")), listeners)
    assert allows(egress, "10.0.0.1")
    assert allows(egress, "127.0.0.1")
    assert not allows(egress, "127.0.0.1", 8420)


@pytest.mark.parametrize(
    ("listening", "address", "own"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("::1", "::1", True),
        ("::1", "::", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.9", True),
        ("::", "127.0.0.1", True),
        ("0.0.0.0", "8.8.8.8", False),
        ("0.0.0.0", "10.254.254.254", False),
    ],
)
def test_own_listeners_are_denied_whatever_the_rules(
    listening: str, address: str, own: bool
) -> None:
    rules = (parse_rule("0.0.0.0/0"), parse_rule("::1"), parse_rule("0.0.0.0"), parse_rule("::"))
    egress = Egress(rules, frozenset({(listening, 8420)}))
    assert allows(egress, address, 8420) is not own
    assert allows(egress, address, 8421)
    if own:
        with pytest.raises(EgressDenied, match="own listener"):
            egress.check(address, 8420, "name.example")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "0x7f.1",
        "2130706433",
        "127.1",
        "0177.0.0.1",
        "\uff11\uff12\uff17.0.0.1",
        "[::1]",
    ],
)
def test_literals_in_every_spelling(host: str) -> None:
    problem = NONE.literal_problem(host, 9000)
    assert problem is not None
    assert ":9000" in problem
    opened = Egress((parse_rule("127.0.0.1:9000"), parse_rule("[::1]:9000")))
    assert opened.literal_problem(host, 9000) is None


@pytest.mark.parametrize(
    "host", ["localhost", "api.example", "1.2.3.4.5", "", "a..b", "x" * 300, "nul\0"]
)
def test_names_are_no_literals(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def numeric_only(*args: Any, **kwargs: Any) -> Any:
        assert kwargs["flags"] & socket.AI_NUMERICHOST  # no name is ever looked up
        return real(*args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", numeric_only)
    assert NONE.literal_problem(host, 80) is None


def test_a_rule_is_exact_or_a_range() -> None:
    assert parse_rule("10.0.0.1").exact
    assert not parse_rule("10.0.0.0/31").exact
    assert Rule(parse_rule("::1").network).exact
