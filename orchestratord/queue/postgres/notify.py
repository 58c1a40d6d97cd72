"""Waking other daemons up: LISTEN and NOTIFY, on a connection and a thread of their own.

A NOTIFY takes a lock on the whole server as its transaction commits, so there is one for all that
happened in a while, and it has no part in the queue's own transactions. What is lost of it is found
by looking: nothing depends on it but how soon others begin. Where it does not come through, as
behind a pooler that gives each transaction another session, that is found out, and said.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

from orchestratord.queue.database import Messenger, Wakeups
from orchestratord.queue.wakeup_text import WakeupText
from orchestratord.values import world

log = logging.getLogger("orchestratord.queue")

CHANNEL = "orchestratord"
PAUSE = 0.05
"""Seconds between two notifications at least."""
LARGEST = 7_000
"""Bytes of a notification; the server takes 8,000."""
AGAIN = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds until it is tried again to connect."""
ECHO_WAIT = 10.0
"""Seconds in which a notification of our own has to come back."""
TRIED_AGAIN = 60.0
"""Seconds until that is tried again."""
TRIED_AGAIN_POOLED = 600.0
"""Seconds until then behind a pooler, which gives connections up over what it does not expect."""


class PostgresMessenger(Messenger):
    """Tells others, and hears from them."""

    words: WakeupText

    def __init__(
        self,
        dial: Callable[[], AbstractContextManager[Any]],
        owner: str,
        wakeups: Wakeups,
    ) -> None:
        """`dial` makes a connection; what is heard goes into `wakeups`."""
        self.listening: bool = False
        """Whether notifications come through."""
        self._dial = dial
        self.words = WakeupText(owner, LARGEST)
        self._wakeups = wakeups
        self._stopped = False
        self._bell_out, self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = world.Thread(target=self._main, name="orchestratord-wakeups", daemon=True)
        self._nonce = ""
        self._said = False
        """It was logged that notifications do not come through."""
        self._sent = 0.0

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    async def stop(self) -> None:
        """End the thread; waits for it."""
        if self._stopped:
            return
        self._stopped = True
        self._ring()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, 10)
        os.close(self._bell)
        os.close(self._bell_out)

    def wake(self) -> None:
        """As in the interface."""
        if not self._stopped:
            self._ring()

    def _ring(self) -> None:
        with suppress(BlockingIOError):  # it is rung often enough
            os.write(self._bell, b"x")

    # -- on the thread ------------------------------------------------------------------------

    def _main(self) -> None:
        tries, lost = 0, None
        while not self._stopped:
            try:
                with self._dial() as raw:
                    if lost is not None and tries == 1:  # else the database was away, as is told
                        log.warning("lost the LISTEN connection for a moment: %s", lost)
                    tries, lost = 0, None
                    self._serve(raw)
            except Exception as error:  # whatever it is: others are found by looking meanwhile
                lost = error if self.listening else lost
                self.listening = False
                self._wait(None, AGAIN[min(tries, len(AGAIN) - 1)])
                tries += 1

    def _serve(self, raw: Any) -> None:
        """Listen and tell, until the connection is lost."""
        raw.prepare_threshold = None
        raw.add_notify_handler(lambda found: self._on_payload(found.payload))
        [pid] = raw.execute("SELECT pg_backend_pid()").fetchone()
        pooled = pid != raw.info.backend_pid
        raw.execute(f"LISTEN {CHANNEL}")
        next_try = echo_until = 0.0
        while not self._stopped:
            now = world.monotonic()
            if now >= next_try:
                self._nonce = world.token_hex(8)
                self._try(raw, pooled)
                echo_until = now + ECHO_WAIT
                next_try = now + (TRIED_AGAIN_POOLED if pooled else TRIED_AGAIN)
            if self._nonce and now >= echo_until:
                if not self._said:
                    self._said = True
                    log.warning(
                        "notifications do not come through, as behind a pooler: this daemon looks "
                        "for tasks of others every few seconds"
                    )
                self.listening, self._nonce = False, ""
            # A pooler may hand over what comes while we have a session at work: nothing is at work
            # while it is tried whether messages come by themselves.
            trying = pooled and bool(self._nonce)
            if not trying:
                self._send(raw, now)
            self._wait(raw, ECHO_WAIT / 10 if trying else self._pause(now))
            raw.pgconn.consume_input()
            while found := raw.pgconn.notifies():
                self._on_payload(found.extra.decode())

    def _try(self, raw: Any, pooled: bool) -> None:
        """Notify ourselves. A pooler may well give both statements the same session, which hears
        itself, and no other one; so that goes another way there."""
        notify = (f"SELECT pg_notify('{CHANNEL}', $1)", (self._nonce,))
        if not pooled:
            raw.execute(*notify)
            return
        with self._dial() as other:
            other.prepare_threshold = None
            other.execute(*notify)

    def _pause(self, now: float) -> float:
        return max(self._sent + PAUSE - now, 0.0) if self.words.waits else 1.0

    def _send(self, raw: Any, now: float) -> None:
        if now < self._sent + PAUSE or (text := self.words.take()) is None:
            return
        self._sent = now
        raw.execute("SELECT pg_notify($1, $2)", (CHANNEL, text))

    def _wait(self, raw: Any, seconds: float) -> None:
        poll = select.poll()
        for ready in [self._bell_out] if raw is None else [self._bell_out, raw.pgconn.socket]:
            poll.register(ready, select.POLLIN)
        if self._bell_out in dict(poll.poll(seconds * 1000)):
            os.read(self._bell_out, 4096)

    def _on_payload(self, text: str) -> None:
        if text == self._nonce:
            self.listening, self._nonce, self._said = True, "", False
            return
        if (wakeup := self.words.read(text)) is not None:
            self._wakeups.put(wakeup)
