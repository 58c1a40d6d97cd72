"""A server of HTTP/2 that does what it is told, made of h2: another implementation than ours."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import Frame, HeadersFrame

Fields = Iterable[tuple[str, str]]


@dataclass
class Exchange:
    """One request, and the way to answer it."""

    peer: Peer2
    stream: int
    fields: list[tuple[bytes, bytes]]
    body: bytearray = field(default_factory=bytearray)
    broken_off: asyncio.Event = field(default_factory=asyncio.Event)
    """The client has reset it."""

    def __getitem__(self, name: str) -> bytes:
        return dict(self.fields)[name.encode()]

    async def answer(
        self, status: int = 200, body: bytes = b"ok", fields: Fields = (), *, end: bool = True
    ) -> None:
        self.headers(status, fields, end=end and not body)
        if body:
            await self.data(body, end=end)

    def headers(self, status: int, fields: Fields = (), *, end: bool = False) -> None:
        self.peer.conn.send_headers(self.stream, [(":status", str(status)), *fields], end)
        self.peer.flush()

    async def data(self, body: bytes, *, end: bool) -> None:
        conn, sent = self.peer.conn, 0
        while True:
            room = min(conn.local_flow_control_window(self.stream), conn.max_outbound_frame_size)
            piece = body[sent : sent + room]
            sent += len(piece)
            if piece or not body:
                conn.send_data(self.stream, piece, end and sent == len(body))
                self.peer.flush()
            if sent == len(body):
                return
            if not piece:
                await self.peer.moved()

    def trailers(self, fields: Fields) -> None:
        self.peer.conn.send_headers(self.stream, list(fields), end_stream=True)
        self.peer.flush()

    def reset(self, code: int) -> None:
        self.peer.conn.reset_stream(self.stream, code)
        self.peer.flush()

    def block(self, fields: Fields, *flags: str) -> HeadersFrame:
        """A HEADERS frame with whatever fields, for `peer.raw`."""
        frame = HeadersFrame(self.stream, self.peer.conn.encoder.encode(list(fields)))
        frame.flags.add("END_HEADERS")
        for flag in flags:
            frame.flags.add(flag)
        return frame


class Peer2:
    """The server's end of one connection."""

    def __init__(
        self, server: Server2, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.number = server.connections
        self.exchanges: dict[int, Exchange] = {}
        self.settled = asyncio.Event()
        self._moved = asyncio.Event()
        config = H2Configuration(client_side=False, header_encoding=None)
        self.conn = H2Connection(config)
        # In the first frame of settings, not in a second one.
        self.conn.local_settings = Settings(
            client=False,
            initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: 100, **server.settings},
        )

    async def run(self) -> None:
        self.conn.initiate_connection()
        self.flush()
        while data := await self.reader.read(65_536):
            self.server.received += data
            for event in self.conn.receive_data(data):
                self._take(event)
            self.flush()
            self._moved.set()

    def _take(self, event: events.Event) -> None:
        server = self.server
        if isinstance(event, events.RequestReceived):
            fields = [(bytes(name), bytes(value)) for name, value in event.headers]
            exchange = Exchange(self, event.stream_id, fields)
            self.exchanges[event.stream_id] = exchange
            server.requests.append(exchange)
            if server.at_once:
                server.start(exchange)
        elif isinstance(event, events.DataReceived):
            self.exchanges[event.stream_id].body += event.data
            if not server.holding:
                self.take_more(event.stream_id, event.flow_controlled_length)
        elif isinstance(event, events.StreamEnded):
            if not server.at_once:
                server.start(self.exchanges[event.stream_id])
        elif isinstance(event, events.StreamReset):
            server.resets.append((self.number, event.stream_id, int(event.error_code)))
            self.exchanges[event.stream_id].broken_off.set()
        elif isinstance(event, events.ConnectionTerminated):
            server.farewells.append(int(event.error_code))
        elif isinstance(event, events.SettingsAcknowledged):
            self.settled.set()
        elif isinstance(event, events.PingAckReceived):
            server.pongs.append(event.ping_data)

    def take_more(self, stream: int, size: int) -> None:
        if size:
            self.conn.acknowledge_received_data(size, stream)
            self.flush()

    async def moved(self) -> None:
        """Wait until the client has said something."""
        self._moved.clear()
        await self._moved.wait()

    def flush(self) -> None:
        self.writer.write(self.conn.data_to_send())

    def raw(self, *frames: Frame | bytes) -> None:
        """Send frames past h2, which would not allow them."""
        for frame in frames:
            self.writer.write(frame if isinstance(frame, bytes) else frame.serialize())

    def close(self) -> None:
        self.writer.transport.abort()


Script2 = Callable[[Exchange], Awaitable[None]]


@dataclass
class Server2:
    """Runs a script for each request and counts what reaches it."""

    script: Script2
    settings: dict[SettingCodes, int] = field(default_factory=dict)
    at_once: bool = False
    """Run the script when the headers are there, not when the request is whole."""
    holding: bool = False
    """Leave it to the script to open windows."""
    host: str = "127.0.0.1"
    port: int = 0
    connections: int = 0
    received: bytearray = field(default_factory=bytearray)
    requests: list[Exchange] = field(default_factory=list)
    resets: list[tuple[int, int, int]] = field(default_factory=list)
    """Connection, stream and error code of what the client broke off."""
    farewells: list[int] = field(default_factory=list)
    pongs: list[bytes] = field(default_factory=list)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    faults: list[BaseException] = field(default_factory=list)
    peers: list[Peer2] = field(default_factory=list)
    _tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    _listening: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}"

    async def listen(self, tls: ssl.SSLContext) -> None:
        tls.set_alpn_protocols(["h2"])
        self._listening = await asyncio.start_server(
            self._serve, self.host, self.port, ssl=tls, backlog=1024
        )
        self.port = self._listening.sockets[0].getsockname()[1]

    def start(self, exchange: Exchange) -> None:
        self._tasks.append(asyncio.create_task(self._run(exchange)))

    async def _run(self, exchange: Exchange) -> None:
        try:
            await self.script(exchange)
        except (OSError, StreamClosedError):
            pass
        except ProtocolError:
            if not exchange.broken_off.is_set() and not self.hung_up.is_set():
                raise

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = Peer2(self, reader, writer)
        self.peers.append(peer)
        try:
            await peer.run()
        except (OSError, asyncio.IncompleteReadError):
            pass
        except ProtocolError as error:
            self.faults.append(error)  # of the client: h2 has found it wrong
        finally:
            self.hung_up.set()
            for exchange in peer.exchanges.values():
                exchange.broken_off.set()
            writer.close()

    async def stop(self) -> None:
        assert self._listening is not None
        self._listening.close()
        for peer in self.peers:
            peer.close()
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        await asyncio.sleep(0)
        assert self.faults == []  # what we send is right by h2's lights
