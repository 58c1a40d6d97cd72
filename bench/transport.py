"""How many requests a second one process sends, and what each costs: ours and the others.

    python -m bench.transport [--python OTHER/bin/python] [--uvloop] [--rounds 3] [--count 10000]

POSTs of 1 KB to nginx on the loopback, which this starts by itself, 50 at once over connections
that are kept. Each client runs in a process of its own, one after the other and round by round.
`--python` is the interpreter of another environment, which has httpx and the candidates that are
no dependencies of this project: aiohttp and pycurl. Those that are not there are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

AT_ONCE = 50
BODY = b"x" * 1024
HEADERS = {
    "User-Agent": "orchestratord",
    "Content-Type": "application/json",
    "webhook-id": "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W",
    "webhook-timestamp": "1674087231",
    "webhook-signature": "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
}
NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{ listen 127.0.0.1:{plain}; location / {{ return 200 "ok"; }} }}
  server {{
    listen 127.0.0.1:{tls} ssl;
    ssl_certificate {folder}/cert; ssl_certificate_key {folder}/key;
    location / {{ return 200 "ok"; }}
  }}
}}
"""

Post = Callable[[], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Peer:
    """The nginx that is sent to."""

    plain: str
    tls: str
    authority: str

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.authority)


# -- the clients: each makes a function that posts once and returns the status ----------------


def _ours(peer: Peer, *, tls: bool = False, theirs: bool = False, prebuilt: bool = False) -> Any:
    @asynccontextmanager
    async def client() -> AsyncIterator[Post]:
        import httpx

        from orchestratord.http.client import HttpClient, SendOptions
        from orchestratord.http.egress import Egress, parse_rule
        from orchestratord.model.http_message import Request

        url = peer.tls if tls else peer.plain
        ours = HttpClient(max_idle_per_host=AT_ONCE)
        options = SendOptions(
            timeout=30,
            egress=Egress((parse_rule("127.0.0.1"),)),
            ssl_context=peer.context() if tls else None,
        )
        make = httpx.Request if theirs else Request
        kept = make("POST", url, headers=HEADERS, content=BODY)

        async def post() -> int:
            request = kept
            if not prebuilt:
                request = make("POST", url, headers=HEADERS, content=BODY)
            return (await ours.send(request, options=options)).status_code

        yield post
        await ours.aclose()

    return client


def _bare(peer: Peer) -> Any:
    """What is left where nothing is checked, built or parsed: the loop and the kernel."""

    @asynccontextmanager
    async def client() -> AsyncIterator[Post]:
        loop = asyncio.get_running_loop()
        host, _, path = peer.plain.removeprefix("http://").partition("/")
        fields = {"Host": host, **HEADERS, "Content-Length": str(len(BODY))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        raw = f"POST /{path} HTTP/1.1\r\n{lines}\r\n".encode() + BODY

        class Bare(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                if data.endswith(b"\r\n\r\nok"):
                    self.waiter.set_result(int(data[9:12]))

            def post(self) -> asyncio.Future[int]:
                self.waiter: asyncio.Future[int] = loop.create_future()
                self.transport.write(raw)
                return self.waiter

            def connection_made(self, transport: Any) -> None:
                self.transport = transport

        idle: list[Bare] = []

        async def post() -> int:
            if idle:
                connection = idle.pop()
            else:
                address, port = host.split(":")
                _, connection = await loop.create_connection(Bare, address, int(port))
            status = await connection.post()
            idle.append(connection)
            return status

        yield post
        for connection in idle:
            connection.transport.abort()

    return client


def _httpx(peer: Peer) -> Any:
    @asynccontextmanager
    async def client() -> AsyncIterator[Post]:
        import httpx

        limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
        async with httpx.AsyncClient(trust_env=False, limits=limits) as theirs:

            async def post() -> int:
                return (await theirs.post(peer.plain, headers=HEADERS, content=BODY)).status_code

            yield post

    return client


def _aiohttp(peer: Peer) -> Any:
    @asynccontextmanager
    async def client() -> AsyncIterator[Post]:
        import aiohttp

        connector = aiohttp.TCPConnector(limit=AT_ONCE)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def post() -> int:
                async with session.post(peer.plain, data=BODY, headers=HEADERS) as response:
                    await response.read()
                    return int(response.status)

            yield post

    return client


def _pycurl(peer: Peer) -> Any:
    @asynccontextmanager
    async def client() -> AsyncIterator[Post]:
        import pycurl

        loop = asyncio.get_running_loop()
        multi = pycurl.CurlMulti()
        waiting: dict[Any, asyncio.Future[int]] = {}
        idle: list[Any] = []
        timer: asyncio.TimerHandle | None = None
        fields = [f"{name}: {value}" for name, value in HEADERS.items()]

        def act(fd: int, events: int) -> None:
            multi.socket_action(fd, events)
            _, done, failed = multi.info_read()
            for handle in done:
                waiting.pop(handle).set_result(handle.getinfo(pycurl.RESPONSE_CODE))
            for handle, _, message in failed:
                waiting.pop(handle).set_exception(OSError(message))

        def on_socket(what: int, fd: int, _multi: Any, _data: Any) -> None:
            loop.remove_reader(fd)
            loop.remove_writer(fd)
            if what in (pycurl.POLL_IN, pycurl.POLL_INOUT):
                loop.add_reader(fd, act, fd, pycurl.CSELECT_IN)
            if what in (pycurl.POLL_OUT, pycurl.POLL_INOUT):
                loop.add_writer(fd, act, fd, pycurl.CSELECT_OUT)

        def on_timer(milliseconds: int) -> None:
            nonlocal timer
            if timer is not None:
                timer.cancel()
            timer = None
            if milliseconds >= 0:
                timer = loop.call_later(milliseconds / 1000, act, pycurl.SOCKET_TIMEOUT, 0)

        multi.setopt(pycurl.M_SOCKETFUNCTION, on_socket)
        multi.setopt(pycurl.M_TIMERFUNCTION, on_timer)

        async def post() -> int:
            handle = idle.pop() if idle else pycurl.Curl()
            handle.setopt(pycurl.URL, peer.plain)
            handle.setopt(pycurl.POSTFIELDS, BODY)
            handle.setopt(pycurl.HTTPHEADER, fields)
            handle.setopt(pycurl.WRITEFUNCTION, lambda data: None)
            waiting[handle] = future = loop.create_future()
            multi.add_handle(handle)
            try:
                return int(await future)
            finally:
                multi.remove_handle(handle)
                idle.append(handle)

        yield post
        on_timer(-1)
        multi.close()

    return client


CLIENTS: dict[str, tuple[str, Callable[[Peer], Any]]] = {
    "ours": ("ours, as the daemon makes its requests", _ours),
    "made": ("ours, given httpx.Request", lambda peer: _ours(peer, theirs=True)),
    "prebuilt": ("ours, the request built once", lambda peer: _ours(peer, prebuilt=True)),
    "bare": ("asyncio alone: nothing built or parsed", _bare),
    "httpx": ("httpx.AsyncClient", _httpx),
    "aiohttp": ("aiohttp, bare", _aiohttp),
    "pycurl": ("pycurl multi-socket, bare", _pycurl),
    "tls": ("ours, TLS", lambda peer: _ours(peer, tls=True)),
}
SLOW = {"httpx"}
"""What gets a fifth of the requests."""


async def measure(client: Any, count: int) -> dict[str, float]:
    """Post `count` times, after a tenth of that to get warm."""
    async with client() as post:

        async def work(numbers: Iterator[int]) -> None:
            for _ in numbers:
                assert await post() == 200

        for number in (max(count // 10, AT_ONCE * 4), count):
            numbers = iter(range(number))
            began, cpu = time.perf_counter(), time.process_time()
            await asyncio.gather(*(work(numbers) for _ in range(AT_ONCE)))
            took, used = time.perf_counter() - began, time.process_time() - cpu
    return {"rate": count / took, "cpu": used / count * 1000}


# -- running them -----------------------------------------------------------------------------


@contextmanager
def nginx() -> Iterator[Peer]:
    """An nginx of our own, on free ports, out of a temporary folder."""
    import trustme

    with tempfile.TemporaryDirectory(prefix="transport-") as folder:
        plain, tls = _free_port(), _free_port()
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(f"{folder}/ca")
        certificate.private_key_pem.write_to_path(f"{folder}/key")
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(f"{folder}/cert", append=True)
        config = Path(folder, "nginx.conf")
        config.write_text(NGINX.format(folder=folder, plain=plain, tls=tls))
        os.chmod(folder, 0o755)  # noqa: S103 - a worker of nginx is another user
        server = subprocess.Popen([_nginx(), "-c", str(config), "-p", folder])  # noqa: S603
        try:
            _wait_for(plain)
            os.sched_setaffinity(server.pid, {min(os.sched_getaffinity(0))})
            base = "://127.0.0.1:"
            yield Peer(f"http{base}{plain}/hook", f"https{base}{tls}/hook", f"{folder}/ca")
        finally:
            server.terminate()
            server.wait()


def _nginx() -> str:
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise SystemExit("nginx is not installed: apt-get install nginx-light")
    return found


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _wait_for(port: int) -> None:
    for _ in range(200):
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise SystemExit("nginx does not start")


def _run(python: str, name: str, peer: Peer, count: int, uvloop: bool) -> dict[str, float] | str:
    """What one client did in a process of its own, or why it could not."""
    command = [python, "-m", "bench.transport", "--client", name, "--count", str(count)]
    command += ["--peer", json.dumps([peer.plain, peer.tls, peer.authority])]
    done = subprocess.run(  # noqa: S603
        command + ["--uvloop"] * uvloop,
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _client(name: str, peer: Peer, count: int, uvloop: bool) -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    factory: Any = None
    if uvloop:
        import uvloop as loops

        factory = loops.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        print(json.dumps(runner.run(measure(CLIENTS[name][1](peer), count))))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.transport", description=__doc__)
    parser.add_argument("--python", help="the interpreter that has aiohttp and pycurl")
    parser.add_argument("--uvloop", action="store_true", help="on uvloop instead of asyncio's loop")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=10_000, help="requests a round")
    parser.add_argument("--only", nargs="*", choices=CLIENTS, default=list(CLIENTS))
    parser.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.client:
        _client(given.client, Peer(*json.loads(given.peer)), given.count, given.uvloop)
        return
    results: dict[str, list[dict[str, float]]] = {name: [] for name in given.only}
    missing: dict[str, str] = {}
    with nginx() as peer:
        for _ in range(given.rounds):
            for name in given.only:
                python = sys.executable
                if name in ("aiohttp", "pycurl"):
                    python = given.python or python
                count = given.count // 5 if name in SLOW else given.count
                result = _run(python, name, peer, count, given.uvloop)
                if isinstance(result, str):
                    missing[name] = result
                else:
                    results[name].append(result)
    print(f"{'':42}{'requests/s':>11}{'min':>8}{'max':>8}{'CPU ms':>9}{'min':>7}{'max':>7}")
    for name, rounds in results.items():
        if name in missing or not rounds:
            print(f"{CLIENTS[name][0]:42}{missing.get(name, 'not run')}")
            continue
        rates = [round_["rate"] for round_ in rounds]
        cpus = [round_["cpu"] for round_ in rounds]
        print(
            f"{CLIENTS[name][0]:42}{statistics.median(rates):11,.0f}{min(rates):8,.0f}"
            f"{max(rates):8,.0f}{statistics.median(cpus):9.3f}{min(cpus):7.3f}{max(cpus):7.3f}"
        )


if __name__ == "__main__":
    main()
