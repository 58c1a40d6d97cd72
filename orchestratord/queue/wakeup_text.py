"""What daemons tell each other of what is due: gathered for a moment, and written as one text.

How the text travels is a messenger's: a NOTIFY of PostgreSQL, or a datagram between workers. What
is lost of it is found by looking: nothing depends on it but how soon others begin.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from orchestratord.model.task import Key
from orchestratord.queue.records import Wakeup
from orchestratord.queue.session import Session
from orchestratord.values import world

DUE_SOON_MS = 1_000
"""How soon a task has to be due, for other daemons to be told of it in any case."""
DUE_LATER_MS = 60_000
"""How soon where they do not know yet of one that is due before, and the message has room: so long
may they take until they find it by looking."""
MOST_NOTIFIED = 10_000
"""Keys of which it is remembered what others were notified of."""

FLAGS = tuple(field.name for field in fields(Wakeup) if field.name != "due")
"""What can be told besides."""


class WakeupText:
    """What one daemon has to tell the others, and what theirs says. Its methods are called from any
    thread."""

    def __init__(self, owner: str, largest: int) -> None:
        """
        Args:
            owner: who tells it.
            largest: bytes that a message may have; one that would have more names no keys.
        """
        self._owner = owner
        self._largest = largest
        self._lock = world.Lock()
        self._due: dict[Key, int] = {}
        self._later: dict[Key, int] = {}
        self._notified: dict[Key, int] = {}
        """Of keys that were told of as due later: when."""
        self._flags: set[str] = set()

    def add_flags(self, *flags: str) -> bool:
        """Tell what `Wakeup` has flags for; True where there was nothing to be told before."""
        with self._lock:
            first = not self._waiting
            self._flags.update(flags)
        return first

    def add_due(self, session: Session) -> bool:
        """Tell what the transaction that was just committed has made due, or will soon; True where
        that is something, and there was nothing to be told before."""
        if not session.due:
            return False
        now = session.now()
        soon, later = now + DUE_SOON_MS, now + DUE_LATER_MS
        with self._lock:
            waited = self._waiting
            for key, next_try in session.due.items():
                if next_try <= soon:
                    self._due[key] = min(next_try, self._due.get(key, next_try))
                # At the time that they were told, they claim, and learn when the next one is due.
                elif next_try <= later and not now < self._notified.get(key, 0) <= next_try:
                    self._later[key] = self._notified[key] = next_try
            if len(self._notified) > MOST_NOTIFIED:
                self._notified = {key: at for key, at in self._notified.items() if at > now}
                if len(self._notified) > MOST_NOTIFIED:
                    self._notified.clear()  # to tell again does no harm
            return not waited and self._waiting

    @property
    def waits(self) -> bool:
        """Whether there is something to be told."""
        with self._lock:
            return self._waiting

    @property
    def _waiting(self) -> bool:
        return bool(self._due or self._later or self._flags)

    def take(self) -> str | None:
        """All that is to be told, which is not told again; None for nothing."""
        with self._lock:
            if not self._waiting:
                return None
            due, later, flags = self._due, self._later, self._flags
            self._due, self._later, self._flags = {}, {}, set()
        both = due | {key: min(at, due.get(key, at)) for key, at in later.items()}
        text = self._text(both, flags)
        if len(text) > self._largest:  # it is ASCII
            text = self._text(due, flags)  # they look before that is due, or a minute after
            with self._lock:
                for key in later:  # the next one is told
                    self._notified.pop(key, None)
        return text if len(text) <= self._largest else self._text(None, flags)

    def _text(self, due: dict[Key, int] | None, flags: set[str]) -> str:
        named = None if due is None else [[*key, at] for key, at in due.items()]
        said: dict[str, Any] = {"from": self._owner, "due": named}
        return json.dumps(said | dict.fromkeys(flags, True), separators=(",", ":"))

    def read(self, text: str) -> Wakeup | None:
        """What another one says. None for what is our own, and for the words of another version, or
        of another program."""
        try:
            said = json.loads(text)
            if said["from"] == self._owner:
                return None
            due = said["due"]
            keys = None if due is None else {Key(names[0], names[1]): names[2] for names in due}
            return Wakeup(keys, **{name: bool(said.get(name)) for name in FLAGS})
        except (ValueError, TypeError, KeyError, IndexError):
            return None
