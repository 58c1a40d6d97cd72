"""A receiver that answers each request some seconds after it came, with 200.

    python slow_receiver.py SECONDS

It writes its port, and at the end of its standard input the most requests that it had open at once.
"""

from __future__ import annotations

import asyncio
import sys

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
BACKLOG = 8192


class Exchange(asyncio.Protocol):
    """One connection. A request here is short, and comes in one piece."""

    open = 0
    most = 0
    seconds = 1.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        Exchange.open += 1
        Exchange.most = max(Exchange.most, Exchange.open)
        asyncio.get_running_loop().call_later(self.seconds, self.answer)

    def answer(self) -> None:
        Exchange.open -= 1
        self.transport.write(ANSWER)


async def main(seconds: float) -> None:
    Exchange.seconds = seconds
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Exchange, "127.0.0.1", 0, backlog=BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(Exchange.most, flush=True)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
