"""Names to addresses. No name server is asked: the lookups are replaced or are literals."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from orchestratord.errors import SendError
from orchestratord.http.connect import SystemResolver, connect, is_shortage
from orchestratord.http.egress import Egress, parse_rule

EGRESS = Egress((parse_rule("127.0.0.0/8"), parse_rule("::1")))


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("127.0.0.1", [(socket.AF_INET, "127.0.0.1")]),
        ("0x7f.1", [(socket.AF_INET, "127.0.0.1")]),
        ("2130706433", [(socket.AF_INET, "127.0.0.1")]),
        ("::1", [(socket.AF_INET6, "::1")]),
        ("fe80::1%1", [(socket.AF_INET6, "fe80::1%1")]),
        ("fe80::1%lo", [(socket.AF_INET6, f"fe80::1%{socket.if_nametoindex('lo')}")]),
    ],
)
async def test_literals_need_no_thread(host: str, found: list[tuple[int, str]]) -> None:
    resolver = SystemResolver(threads=0)
    async with asyncio.timeout(60):
        assert await resolver(host, 80) == found


async def test_localhost() -> None:
    resolver = SystemResolver()
    assert (socket.AF_INET, "127.0.0.1") in await resolver("localhost", 80)
    resolver.close()


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example", "nul\0"])
async def test_what_can_be_no_name(host: str) -> None:
    resolver = SystemResolver()
    with pytest.raises((OSError, ValueError)):
        await resolver(host, 80)
    resolver.close()


@contextmanager
def no_descriptors() -> Iterator[None]:
    """None can be opened within."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(("host", "kind"), [("127.0.0.1", "connect"), ("localhost.", "dns")])
async def test_a_want_of_descriptors_is_no_fault_of_the_peer(host: str, kind: str) -> None:
    resolver = SystemResolver()
    deadline = asyncio.get_running_loop().time() + 5
    with no_descriptors(), pytest.raises(SendError) as caught:
        await connect(host, 9, resolver=resolver, egress=EGRESS, deadline=deadline)
    assert (caught.value.kind, caught.value.sent, caught.value.shortage) == (kind, False, True)
    # The port is closed, which is.
    with pytest.raises(SendError, match="refused") as caught:
        await connect("127.0.0.1", 9, resolver=resolver, egress=EGRESS, deadline=deadline)
    assert not caught.value.shortage
    resolver.close()


@pytest.mark.parametrize(
    ("error", "shortage"),
    [(OSError(errno.EMFILE, "x"), True), (OSError(errno.EADDRNOTAVAIL, "x"), True),
     (OSError(errno.ECONNREFUSED, "x"), False), (socket.gaierror(socket.EAI_MEMORY, "x"), True),
     (socket.gaierror(errno.ENOMEM, "x"), False), (ValueError("x"), False)],
)  # fmt: skip
def test_what_says_of_this_machine_that_it_lacks_something(
    error: Exception, shortage: bool
) -> None:
    assert is_shortage(error) is shortage


USED_UP = """
import asyncio, pathlib, socket, subprocess
from orchestratord.errors import SendError
from orchestratord.http.connect import SystemResolver, connect
from orchestratord.http.egress import Egress, parse_rule

subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40001")
listening = [socket.create_server((host, 9000)) for host in ("127.0.0.1", "127.0.0.2")]

async def main():
    resolver, egress, held = SystemResolver(), Egress((parse_rule("127.0.0.0/8"),)), []
    async def one(host):
        deadline = asyncio.get_running_loop().time() + 5
        held.append(
            await connect(host, 9000, resolver=resolver, egress=egress, deadline=deadline)
        )
    try:
        for _ in range(3):
            await one("127.0.0.1")
    except SendError as error:
        print(len(held), error.shortage, error.receiver_only, error)
    await one("127.0.0.2")
    print("others can be reached")

asyncio.run(main())
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="has no unshare")
def test_ports_that_are_used_up_are_a_want_towards_one_receiver() -> None:
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespace can be made here")
    ran = subprocess.run(
        [*alone, sys.executable, "-c", USED_UP], capture_output=True, text=True, check=False
    )
    assert ran.stderr == ""
    first, second = ran.stdout.splitlines()
    assert first.startswith("2 True True no connection to 127.0.0.1:9000: ")
    assert second == "others can be reached"


class Names:
    """A getaddrinfo that waits to be let go, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.go_on = threading.Event()
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: str, *args: Any, **kwargs: Any) -> Any:
        if kwargs["flags"] & socket.AI_NUMERICHOST:
            return self._real(host, *args, **kwargs)
        self.asked.append(host)
        assert self.go_on.wait(10)
        if host.startswith("missing"):
            raise socket.gaierror(-2, "Name or service not known")
        return self._real("127.0.0.7", *args, **kwargs)


async def test_a_name_is_looked_up_once_for_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch)
    resolver = SystemResolver()
    waiting = [asyncio.create_task(resolver("slow.example", port)) for port in range(20)]
    other = asyncio.create_task(resolver("other.example", 80))
    await asyncio.sleep(0.02)
    waiting[0].cancel()  # of no matter to the others
    names.go_on.set()
    found = await asyncio.gather(*waiting[1:], other)
    assert found == [[(socket.AF_INET, "127.0.0.7")]] * 20
    assert sorted(names.asked) == ["other.example", "slow.example"]
    await resolver("slow.example", 80)
    assert len(names.asked) == 3  # nothing is remembered
    resolver.close()


async def test_names_that_hang_hold_a_thread_each_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = Names(monkeypatch)
    resolver = SystemResolver(threads=2)
    waiting = [asyncio.create_task(resolver(f"n{n}.example", 80)) for n in range(5)]
    while len(names.asked) < 2:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert len(names.asked) == 2
    names.go_on.set()
    await asyncio.gather(*waiting)
    assert len(names.asked) == 5
    resolver.close()


async def test_a_failure_that_nobody_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch)
    resolver = SystemResolver()
    waiting = asyncio.create_task(resolver("missing.example", 80))
    await asyncio.sleep(0.02)
    waiting.cancel()
    names.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(socket.gaierror):
        await resolver("missing.example", 80)
    resolver.close()


async def test_threads_end(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch)
    names.go_on.set()
    before = set(threading.enumerate())
    resolver = SystemResolver(threads=4)
    await asyncio.gather(*(resolver(name, 80) for name in ("a.example", "b.example")))
    started = set(threading.enumerate()) - before
    assert [thread.daemon for thread in started] == [True, True]
    resolver.close()
    for thread in started:
        await asyncio.to_thread(thread.join, 5)
        assert not thread.is_alive()
