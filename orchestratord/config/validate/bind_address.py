"""Where the daemon may listen for TCP, and under which names it may be asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_HTTP_PORT = 80


def parse_bind(text: str) -> tuple[IPv4Address | IPv6Address, int]:
    """Read an `http.bind`.

    Args:
        text: an address and a port, such as `127.0.0.1:8420` or `[::1]:8420`; `localhost` stands
            for 127.0.0.1, and port 0 for a free one.

    Raises:
        ValueError: it is none of these; the message says what to write.
    """
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        if bracketed != (":" in host) or "%" in host:
            raise ValueError
        found = ip_address("127.0.0.1" if host == "localhost" else host.strip("[]"))
    except ValueError:
        raise ValueError(
            f"expected an address and a port, such as 127.0.0.1:8420 or [::1]:8420, not {text!r}"
        ) from None
    if not (port.isascii() and port.isdecimal() and int(port) <= 65535):
        raise ValueError(f"expected a port from 1 to 65535 behind the address, not {port!r}")
    return found, int(port)


def host_problem(host: str) -> str | None:
    """What is wrong with an entry of `http.hosts`, in words; None where a browser can send it."""
    if _HOST.fullmatch(host.lower()):
        return None
    return (
        f"expected a name or an address as browsers send it, such as queue.lan:8420, not {host!r}"
    )


def default_hosts(address: str, port: int) -> frozenset[str]:
    """The hosts of a daemon whose file names none: its address and localhost, with the port."""
    names = (f"[{address}]" if ":" in address else address, "localhost")
    return _lower(f"{name}:{port}" for name in names) | (
        _lower(names) if port == _HTTP_PORT else frozenset()  # browsers leave that one out
    )


@lru_cache(maxsize=8)
def allowed_hosts(hosts: tuple[str, ...], address: str, port: int) -> frozenset[str]:
    """The values of the header Host that are answered, in lower case.

    Args:
        hosts: `http.hosts`.
        address: where the daemon listens, as the socket has it.
        port: the same.
    """
    return _lower(hosts) or default_hosts(address, port)


def _lower(hosts: Iterable[str]) -> frozenset[str]:
    return frozenset(host.lower() for host in hosts)
