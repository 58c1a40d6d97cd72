"""Which addresses a request may be sent to.

The check is made on the resolved address, the very one that is dialled, never on a name: a name
can resolve to anything, and to something else a second later.

Two tiers are closed. Private addresses (loopback, the private ranges, unique-local) are opened by
a rule whose range holds them. Everything that is link-local, cloud metadata, multicast, reserved,
or wraps another address (NAT64, 6to4, Teredo) is opened only by a rule for that single address,
so that a generous range never opens it by accident. Of IPv6, that is all but 2000::/3: what is
allocated anywhere else one day is closed until it is known here. The daemon's own listeners stay
closed whatever the rules say.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from orchestratord.errors import EgressDenied

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def _networks(named: Mapping[str, str]) -> list[tuple[Network, str]]:
    return [(ip_network(text), label) for label, texts in named.items() for text in texts.split()]


# The hard list is looked at first: some of its entries lie inside a private range (a metadata
# address in fc00::/7, another one in 100.64/10). Of several entries that hold an address the first
# one names it.
_HARD = _networks(
    {
        "cloud metadata": "169.254.169.254 168.63.129.16 100.100.100.200 fd00:ec2::254 "
        "fd00:ec2::23 fd20:ce::254",
        "unspecified": "0.0.0.0/8 ::",
        "link-local": "169.254.0.0/16 fe80::/10",
        "documentation": "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32 3fff::/20",
        "6to4 relay": "192.88.99.0/24",
        "benchmarking": "198.18.0.0/15",
        "multicast": "224.0.0.0/4 ff00::/8",
        "broadcast": "255.255.255.255",
        "reserved": "192.0.0.0/24 240.0.0.0/4",
        "IPv4-compatible": "::/96",
        "IPv4-translated": "::ffff:0:0:0/96",
        "NAT64": "64:ff9b::/96 64:ff9b:1::/48",
        "discard-only": "100::/64",
        "protocol assignment": "2001::/23",
        "6to4": "2002::/16",
        "segment routing": "5f00::/16",
        "site-local": "fec0::/10",
    }
)
_PRIVATE = _networks(
    {
        "loopback": "127.0.0.0/8 ::1",
        "private": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16",
        "carrier-grade NAT": "100.64.0.0/10",
        "unique-local": "fc00::/7",
    }
)
_GLOBAL_6 = IPv6Network("2000::/3")
"""All of IPv6 that is given out to hosts of the Internet."""
_MAPPED = IPv6Network("::ffff:0:0/96")
_LOOPBACK_6 = IPv6Address("::1")  # lies in ::/96, and is private all the same


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of `egress.allow`: a range of addresses, and a port or None for every port."""

    network: Network
    port: int | None = None

    @property
    def exact(self) -> bool:
        """True where the rule names a single address."""
        return self.network.prefixlen == self.network.max_prefixlen

    def __str__(self) -> str:
        text = str(self.network.network_address) if self.exact else str(self.network)
        if self.port is None:
            return text
        return f"[{text}]:{self.port}" if self.network.version == 6 else f"{text}:{self.port}"


def parse_rule(text: str) -> Rule:
    """Read one entry of `egress.allow`.

    Args:
        text: an address or a range, with or without a port: `10.0.0.0/8`, `127.0.0.1:9000`,
            `::1`, `[::1]:9000`, `[fc00::/7]:443`.

    Raises:
        ValueError: the text is none of these; the message says what is wrong and what to write.
    """
    body, port = text.strip(), None
    bracketed = body.startswith("[")
    if bracketed:
        body, closing, rest = body[1:].partition("]")
        if not closing or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not a rule: write [::1]:9000 or [fc00::/7]:443")
        port = rest[1:] if rest else None
    elif body.count(":") == 1:
        body, _, port = body.partition(":")
    network = _parse_network(body, text)
    if bracketed and ":" not in body:
        raise ValueError(f"{text!r} is not a rule: only IPv6 stands in brackets")
    if port is None:
        return Rule(network)
    if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535):
        raise ValueError(f"{text!r} is not a rule: the port is a number from 1 to 65535")
    return Rule(network, int(port))


def _parse_network(body: str, text: str) -> Network:
    if "%" in body:
        raise ValueError(
            f"{text!r} is not a rule: leave the zone out, the rule then holds for each of them"
        )
    address, slash, prefix = body.partition("/")
    try:
        host = ip_address(address)
    except ValueError:
        raise ValueError(
            f"{text!r} is not a rule: write an address or a range, with or without a port, such as"
            " 10.0.0.0/8, 127.0.0.1:9000 or [::1]:9000; names are not known here"
        ) from None
    if not slash:
        length = int(host.max_prefixlen)
    elif prefix.isascii() and prefix.isdecimal() and int(prefix) <= host.max_prefixlen:
        length = int(prefix)
    else:
        raise ValueError(
            f"{text!r} is not a rule: the prefix is a number up to {host.max_prefixlen}"
        )
    network: Network = (
        IPv4Network((int(host), length), strict=False)
        if host.version == 4
        else IPv6Network((int(host), length), strict=False)
    )
    if network.network_address != host:
        raise ValueError(f"{text!r} is not a range: did you mean {network}?")
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(host) & 0xFFFFFFFF, length - 96))
    return network


@lru_cache(maxsize=4096)
def _unwrap(address: str) -> Address:
    """The address without its zone, and as IPv4 where it is one in IPv6 clothes."""
    ip = ip_address(address.partition("%")[0])
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


@lru_cache(maxsize=4096)
def _classify(address: str) -> tuple[Address, str, bool]:
    """The address, what it is called (empty: public), and whether it stands in the hard list."""
    ip = _unwrap(address)
    hard = () if ip == _LOOPBACK_6 else _HARD
    if label := next((label for network, label in hard if ip in network), ""):
        return ip, label, True
    if label := next((label for network, label in _PRIVATE if ip in network), ""):
        return ip, label, False
    reserved = ip.version == 6 and ip not in _GLOBAL_6
    return ip, "reserved" if reserved else "", reserved


@dataclass(frozen=True, slots=True)
class Egress:
    """The rules in force for a request.

    Args:
        rules: what `egress.allow` opens.
        denied_listeners: (address, port) of every TCP socket that this daemon listens on, as
            `getsockname` has them. They are closed whatever the rules say; a wildcard address
            stands for all of the machine's.
    """

    rules: tuple[Rule, ...] = ()
    denied_listeners: frozenset[tuple[str, int]] = frozenset()

    @classmethod
    def of(cls, rules: Iterable[str]) -> Egress:
        """What these entries of `egress.allow` open. Raises ValueError."""
        return cls(tuple(map(parse_rule, rules)))

    def check(self, address: str, port: int, host: str) -> None:
        """Allow a connection, or raise.

        Args:
            address: the resolved address that is going to be dialled, with or without a zone.
            port: the port that is going to be dialled.
            host: the name that resolved to it, for the message.

        Raises:
            EgressDenied: the message names the address, the reason, and the line that opens it.
        """
        try:
            ip, label, hard = _classify(address)
        except ValueError:
            raise EgressDenied(f"{host} resolved to {address!r}, which is no address") from None
        if self.denied_listeners and self._is_own_listener(address, ip, port):
            raise EgressDenied(
                f"{_named(ip, host)} port {port} is this daemon's own listener, which it never"
                " calls"
            )
        if not label:
            return
        for rule in self.rules:
            if (
                (rule.port is None or rule.port == port)
                and (rule.exact or not hard)
                and ip in rule.network
            ):
                return
        # Brackets open a list in YAML: an IPv6 rule needs its quotes to be the exact line.
        entry = f'"[{ip}]:{port}"' if ip.version == 6 else f"{ip}:{port}"
        article = "an" if label[0] in "aeiouI" else "a"
        only = ", which only its exact address opens" if hard else ""
        raise EgressDenied(
            f"{_named(ip, host)} is {article} {label} address{only}; to allow it, add"
            f"  egress: {{allow: [{entry}]}}"
        )

    def literal_problem(self, host: str, port: int) -> str | None:
        """What is wrong with a URL whose host is an address: why it would be denied, or None.

        None too where the host is a name. Every spelling that the resolver takes for an address
        is one: `0x7f.1`, `2130706433`, full-width digits, `[::1]`.
        """
        try:
            found = socket.getaddrinfo(
                host.removeprefix("[").removesuffix("]"),
                port,
                type=socket.SOCK_STREAM,
                flags=socket.AI_NUMERICHOST,
            )
        except (OSError, ValueError, OverflowError):
            return None
        for *_, sockaddr in found:
            try:
                self.check(str(sockaddr[0]), port, host)
            except EgressDenied as denied:
                return denied.message
        return None

    def _is_own_listener(self, address: str, ip: Address, port: int) -> bool:
        if ip.is_unspecified:  # dialling it reaches the machine itself
            ip = IPv4Address("127.0.0.1") if ip.version == 4 else _LOOPBACK_6
        for listening, its_port in self.denied_listeners:
            if its_port != port:
                continue
            bound = _unwrap(listening)
            if bound == ip or (bound.is_unspecified and _is_this_machine(str(ip), address)):
                return True
        return False


def _is_this_machine(ip: str, address: str) -> bool:
    """Whether the address is one of this machine's: only such a one can be bound."""
    zone = address.partition("%")[2]
    target = f"{ip}%{zone}" if zone and ":" in ip else ip
    try:
        family, kind, proto, _, sockaddr = socket.getaddrinfo(
            target, 0, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
        )[0]
        with socket.socket(family, kind, proto) as probe:
            probe.bind(sockaddr)
    except OSError as error:
        # In doubt it is ours: a listener called by mistake is worse than a call refused.
        return error.errno != errno.EADDRNOTAVAIL
    return True


def _named(ip: Address, host: str) -> str:
    return str(ip) if host == str(ip) else f"{ip} ({host})"
