"""What daemons tell each other of what is due: gathered for a moment, and written as one text.

How the text travels is a messenger's: a NOTIFY of PostgreSQL, or a datagram between workers. What
is lost of it is found by looking: nothing depends on it but how soon others begin.
"""

from __future__ import annotations

import json
import threading
from dataclasses import fields
from typing import Any

from orchestratord.model.task import Key
from orchestratord.queue.records import Wakeup
from orchestratord.queue.session import Session

DUE_SOON_MS = 1_000
"""How soon a task has to be due, for other daemons to be told of it."""

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
        self._lock = threading.Lock()
        self._due: dict[Key, int] = {}
        self._flags: set[str] = set()

    def add_flags(self, *flags: str) -> bool:
        """Tell what `Wakeup` has flags for; True where there was nothing to be told before."""
        with self._lock:
            first = not (self._due or self._flags)
            self._flags.update(flags)
        return first

    def add_due(self, session: Session) -> bool:
        """Tell what the transaction that was just committed has made due, or will soon; True where
        that is something, and there was nothing to be told before."""
        soon = session.now() + DUE_SOON_MS
        due = {key: next_try for key, next_try in session.due.items() if next_try <= soon}
        if not due:
            return False
        with self._lock:
            first = not (self._due or self._flags)
            for key, next_try in due.items():
                self._due[key] = min(next_try, self._due.get(key, next_try))
        return first

    @property
    def waits(self) -> bool:
        """Whether there is something to be told."""
        with self._lock:
            return bool(self._due or self._flags)

    def take(self) -> str | None:
        """All that is to be told, which is not told again; None for nothing."""
        with self._lock:
            due, flags = self._due, self._flags
            self._due, self._flags = {}, set()
        if not due and not flags:
            return None
        said: dict[str, Any] = {"from": self._owner, "due": [[*key, at] for key, at in due.items()]}
        said |= dict.fromkeys(flags, True)
        text = json.dumps(said, separators=(",", ":"))
        if len(text) > self._largest:  # it is ASCII
            text = json.dumps({**said, "due": None}, separators=(",", ":"))
        return text

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
