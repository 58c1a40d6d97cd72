"""What workers on one file of SQLite tell each other: a datagram into the mailbox of each."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from orchestratord.queue.database import Messenger, Wakeups, Workers
from orchestratord.queue.wakeup_text import WakeupText
from orchestratord.values import world

PAUSE = 0.01
"""Seconds between two messages that a worker hears, on the average: each tells something as many
times more rarely as there are others."""
LARGEST = 32_000
"""Bytes of a message; the kernel keeps some 200,000 for a mailbox."""
AT_ONCE = 100
"""Messages that are read before the loop goes on."""


class SqliteMessenger(Messenger):
    """Tells the other workers, and hears from them, on the loop."""

    listening = True
    words: WakeupText

    def __init__(self, workers: Workers, owner: str, wakeups: Wakeups) -> None:
        """For the running loop; what is heard goes into `wakeups`."""
        assert workers.number, "the process that starts workers opens no queue"
        self._workers = workers
        self.words = WakeupText(owner, LARGEST)
        self._wakeups = wakeups
        self._loop = asyncio.get_running_loop()
        self._mailbox = workers.mailboxes[workers.number - 1][0]
        self._pause = PAUSE * (workers.count - 1)
        self._sent = 0.0
        self._started = False

    def start(self) -> None:
        """Begin to listen."""
        self._started = True
        self._loop.add_reader(self._mailbox, self._receive)

    async def stop(self) -> None:
        """Tell what is left to be told, such as what a worker that ends has given back, and end."""
        if self._started:
            self._send()
            self._started = False
            self._loop.remove_reader(self._mailbox)

    def wake(self) -> None:
        """As in the interface."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._arrange)

    def _arrange(self) -> None:
        self._loop.call_later(max(self._sent + self._pause - world.monotonic(), 0.0), self._send)

    def _send(self) -> None:
        if self._started and (text := self.words.take()) is not None:
            self._sent = world.monotonic()
            self._workers.post(text.encode("ascii"))

    def _receive(self) -> None:
        for _ in range(AT_ONCE):
            try:
                text = self._mailbox.recv(1 << 16)
            except OSError:  # there is no more
                return
            if (wakeup := self.words.read(text.decode("utf-8", "replace"))) is not None:
                self._wakeups.put(wakeup)
