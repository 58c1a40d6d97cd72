"""What the queue remembers by a name: the rows of the table `meta`."""

from __future__ import annotations

from orchestratord.queue.connection import Connection

_ONE = "SELECT value FROM meta WHERE name = ?"
_THOSE = "SELECT name, value FROM meta WHERE name >= ? AND name < ?"
_PUT = """
INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""


def get(db: Connection, name: str, lock: str = "") -> str | None:
    """The value of a fact, None where it is not known.

    `lock` is the connection's `for_update`, or nothing.
    """
    value: str | None = db.value(_ONE + lock, (name,))
    return value


def beginning_with(db: Connection, prefix: str) -> dict[str, str]:
    """The facts whose names begin so: the rest of each name → the value."""
    rows = db.all(_THOSE, (prefix, f"{prefix}\uffff"))
    return {name.removeprefix(prefix): value for name, value in rows}


def put(db: Connection, name: str, value: str) -> None:
    """Write a fact, in the place of its old value if there is one."""
    db.run(_PUT, (name, value))


def forget(db: Connection, name: str) -> None:
    """Delete a fact."""
    db.run("DELETE FROM meta WHERE name = ?", (name,))
