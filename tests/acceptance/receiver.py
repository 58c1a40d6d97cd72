"""An HTTP server that does what a test tells it to, and records every request with its time.

It runs on a loop of its own in a thread, on 127.0.0.1 and a free port. What it answers is decided
path by path:

    receiver.on("/users", 503, 503, 200)      these answers in turn, the last one for ever
    receiver.on("/users", hang)               or something that writes to the connection itself
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came. `at`: monotonic seconds when its head was complete."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """By lower-case names."""
    body: bytes
    at: float

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered: status, body, headers, after `delay` seconds."""

    status: int = 200
    body: bytes | str = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0


class Connection:
    """The server's end of one connection, for answers that are none."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def write(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    async def answer(self, answer: Answer) -> None:
        if answer.delay:
            await asyncio.sleep(answer.delay)
        body = answer.body.encode() if isinstance(answer.body, str) else answer.body
        lines = [
            f"HTTP/1.1 {answer.status} {_phrase(answer.status)}",
            f"Content-Length: {len(body)}",
        ]
        if answer.status == 204:
            lines.pop()
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        await self.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Said"


Script = Callable[[Received, Connection], Awaitable[None]]
Reply = Callable[[Received], Answer]
Said = int | Answer | Script


class Receiver:
    """See above. A context manager; what it holds open is closed at its end."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = 0
        self.connections = 0
        self._received: list[Received] = []
        self._answers: dict[str, list[Said]] = {}
        self._replies: dict[str, Reply] = {}
        self._held: dict[str, asyncio.Event] = {}
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="receiver", daemon=True)
        self._ready = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop: asyncio.Event | None = None

    # -- what a test says -----------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def address(self) -> str:
        """As `egress.allow` wants it."""
        return f"{self.host}:{self.port}"

    def on(self, path: str, *answers: Said) -> None:
        """Answer requests for `path` with these in turn; the last one goes on for ever."""
        with self._lock:
            self._answers[path] = list(answers)

    def reply(self, prefix: str, reply: Reply) -> None:
        """Ask `reply` for the answer to everything whose path begins with `prefix`."""
        with self._lock:
            self._replies[prefix] = reply

    def hold(self, path: str, *before: Said) -> None:
        """Answer 200 to requests for `path` only once `let_go` is called, but for the first ones,
        which are answered with `before`."""
        gate = asyncio.Event()
        self._held[path] = gate

        async def held(request: Received, connection: Connection) -> None:
            await gate.wait()
            await connection.answer(Answer(200))

        self.on(path, *before, held)

    def let_go(self, path: str) -> None:
        """Answer what is held, and what comes from now on at once."""
        self._loop.call_soon_threadsafe(self._held[path].set)

    def received(self, path: str | None = None) -> list[Received]:
        """What has come so far, for `path` or for any."""
        with self._lock:
            return [item for item in self._received if path is None or item.path == path]

    def count(self, path: str | None = None) -> int:
        return len(self.received(path))

    def forget(self) -> None:
        """Remember nothing of what has come so far."""
        with self._lock:
            self._received.clear()

    # -- serving ----------------------------------------------------------------------------------

    def __enter__(self) -> Receiver:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the receiver did not start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
        finally:
            self._loop.close()

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._accept, self.host, 0, backlog=1024, limit=1 << 20)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        try:
            while True:
                request = await _read(reader)
                said = self._say(request)
                if isinstance(said, int):
                    said = Answer(said)
                if isinstance(said, Answer):
                    await connection.answer(said)
                else:
                    await said(request, connection)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client hung up, or the test is over
        finally:
            writer.transport.abort()

    def _say(self, request: Received) -> Said:
        with self._lock:
            self._received.append(request)
            answers = self._answers.get(request.path)
            if answers:
                return answers.pop(0) if len(answers) > 1 else answers[0]
            for prefix, reply in self._replies.items():
                if request.path.startswith(prefix):
                    return reply(request)
        return Answer(404, "nothing is declared here")


async def _read(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    at = time.monotonic()
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    parts = urlsplit(target)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return Received(method, unquote(parts.path), query, headers, body, at)
