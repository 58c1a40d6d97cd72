"""Rows that are written with each success of a key, one like the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from orchestratord.model.task import Upsert


class _DecidedAt:
    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


DECIDED_AT: Final[Any] = _DecidedAt("DECIDED_AT")
"""Among the `values` of a row: when the attempt was decided, milliseconds since the epoch."""
DECIDED_ABOUT: Final[Any] = _DecidedAt("DECIDED_ABOUT")
"""The same, exact to a second, in a row without `add`: for a second after it was written, that row
is written only where another value changes. Daemons that write one row wait for each other."""


class About(int):
    """A time in the place of `DECIDED_ABOUT`."""


@dataclass(frozen=True, slots=True, eq=False)
class RecurringRows:
    """What `on_success` returns for a task in the place of a list, where it would return the same
    for the next one of its key (the calls of an endpoint, the deliveries of a webhook) that
    succeeds with this status code and no error.

    Where all hooks that are asked do so, the daemon (each worker for itself) asks none of them
    again: the rows are written with each such success, in its transaction. All are asked again once
    hooks were told of an attempt of the key that ended in any other way, once configuration or
    plugins have changed, where the clock was put back to before they were, and from `until` on.

    Args:
        rows: what is written, 100 at most; `DECIDED_AT` and `DECIDED_ABOUT` among their values
            stand for a time.
        until: for what is decided before this, milliseconds since the epoch.
    """

    rows: Iterable[Upsert]
    until: int

    def __post_init__(self) -> None:
        # Nothing changes what is written again and again.
        rows = tuple(
            Upsert(row.table, dict(row.key), dict(row.values), dict(row.add)) for row in self.rows
        )
        object.__setattr__(self, "rows", rows)

    def upserts(self, decided_at: int, times: int = 1) -> list[Upsert]:
        """What is written for so many tasks, the last of which was decided then (milliseconds since
        the epoch)."""
        return [
            Upsert(
                row.table,
                row.key,
                _dated(row.values, decided_at),
                {column: number * times for column, number in row.add.items()},
            )
            for row in self.rows
        ]


def _dated(values: Mapping[str, Any], at: int) -> dict[str, Any]:
    return {
        column: at if value is DECIDED_AT else About(at) if value is DECIDED_ABOUT else value
        for column, value in values.items()
    }


def upserts_of(recurring: Iterable[RecurringRows], decided_at: int) -> list[Upsert]:
    """What is written of these for one task that was decided then."""
    return [row for one in recurring for row in one.upserts(decided_at)]
