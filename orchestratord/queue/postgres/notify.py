"""Waking other daemons up: LISTEN and NOTIFY, on a connection and a thread of their own.

A NOTIFY takes a lock on the whole server as its transaction commits, so there is one for all that
happened in a while, and it has no part in the queue's own transactions. What is lost of it is found
by looking: nothing depends on it but how soon others begin. Where it does not come through, as
behind a pooler that gives each transaction another session, that is found out, and said.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import select
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from typing import Any

from orchestratord.model.task import Key
from orchestratord.queue.database import Messenger
from orchestratord.queue.records import Wakeup

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
"""The same behind a pooler, which gives connections up over what it does not expect."""


class PostgresMessenger(Messenger):
    """Tells others, and hears from them."""

    def __init__(
        self,
        dial: Callable[[], AbstractContextManager[Any]],
        owner: str,
        heard: Callable[[Wakeup], None],
    ) -> None:
        """`dial` makes a connection; `heard` is called on the thread."""
        self.listening: bool = False
        """Whether notifications come through."""
        self._dial = dial
        self._owner = owner
        self._heard = heard
        self._lock = threading.Lock()
        self._due: dict[Key, int] = {}
        self._flags: set[str] = set()
        self._stopped = False
        self._bell_out, self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(
            target=self._main, name="orchestratord-wakeups", daemon=True
        )
        self._nonce = ""
        self._said = False
        """It was logged that notifications do not come through."""
        self._sent = 0.0

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; waits for it."""
        self._stopped = True
        self._ring()
        if self._thread.is_alive():
            self._thread.join(10)
        os.close(self._bell)
        os.close(self._bell_out)

    def tell(self, due: Mapping[Key, int] | None = None, *flags: str) -> None:
        """Have the others told of keys with tasks that are due, or that a flag of `Wakeup` is up;
        from any thread."""
        if self._stopped:
            return
        with self._lock:
            first = not (self._due or self._flags)
            for key, next_try in (due or {}).items():
                self._due[key] = min(next_try, self._due.get(key, next_try))
            self._flags.update(flags)
        if first:
            self._ring()

    def _ring(self) -> None:
        with suppress(BlockingIOError):  # it is rung often enough
            os.write(self._bell, b"x")

    # -- on the thread ------------------------------------------------------------------------

    def _main(self) -> None:
        tries = 0
        while not self._stopped:
            try:
                with self._dial() as raw:
                    tries = 0
                    self._serve(raw)
            except Exception as error:  # whatever it is: others are found by looking meanwhile
                if self.listening:
                    log.warning("others are not heard of at once, for now: %s", error)
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
        next_trial = echo_until = 0.0
        while not self._stopped:
            now = time.monotonic()
            if now >= next_trial:
                self._nonce = secrets.token_hex(8)
                self._try(raw, pooled)
                echo_until = now + ECHO_WAIT
                next_trial = now + (TRIED_AGAIN_POOLED if pooled else TRIED_AGAIN)
            if self._nonce and now >= echo_until:
                if not self._said:
                    self._said = True
                    log.warning(
                        "notifications do not come through, as behind a pooler: what others queue "
                        "is found by looking every few seconds"
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
        itself, and nobody else; so that goes another way there."""
        notify = (f"SELECT pg_notify('{CHANNEL}', $1)", (self._nonce,))
        if not pooled:
            raw.execute(*notify)
            return
        with self._dial() as other:
            other.prepare_threshold = None
            other.execute(*notify)

    def _pause(self, now: float) -> float:
        with self._lock:
            waits = bool(self._due or self._flags)
        return max(self._sent + PAUSE - now, 0.0) if waits else 1.0

    def _send(self, raw: Any, now: float) -> None:
        if now < self._sent + PAUSE:
            return
        with self._lock:
            due, flags = self._due, self._flags
            self._due, self._flags = {}, set()
        if not due and not flags:
            return
        self._sent = now
        said: dict[str, Any] = {"from": self._owner, "due": [[*key, at] for key, at in due.items()]}
        said |= dict.fromkeys(flags, True)
        text = json.dumps(said, separators=(",", ":"))
        if len(text.encode()) > LARGEST:
            text = json.dumps({**said, "due": None}, separators=(",", ":"))
        raw.execute("SELECT pg_notify($1, $2)", (CHANNEL, text))

    def _wait(self, raw: Any, seconds: float) -> None:
        ready = [self._bell_out] if raw is None else [self._bell_out, raw.pgconn.socket]
        found, _, _ = select.select(ready, [], [], seconds)
        if self._bell_out in found:
            os.read(self._bell_out, 4096)

    def _on_payload(self, text: str) -> None:
        if text == self._nonce:
            self.listening, self._nonce, self._said = True, "", False
            return
        try:
            said = json.loads(text)
            if said["from"] == self._owner:
                return
            due = said["due"]
            keys = None if due is None else {Key(names[0], names[1]): names[2] for names in due}
            flags = {name: bool(said.get(name)) for name in ("paused", "tables", "lanes")}
            wakeup = Wakeup(keys, **flags)
        except (ValueError, TypeError, KeyError, IndexError):
            return  # another version's words, or somebody else's
        self._heard(wakeup)
