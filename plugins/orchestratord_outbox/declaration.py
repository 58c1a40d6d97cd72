"""The key `outbox`, and where the outbox is: in the queue's PostgreSQL, or in the database that it
names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestratord import Config, DaemonSetting, Model, OutboxUnusable, Problem, suggest

DATABASES = "databases"
POSTGRES = ("postgresql://", "postgres://")


class OutboxSettings(Model):
    """Where applications commit calls in their own transactions."""

    database: str
    """Which of the `databases`: the PostgreSQL that has the outbox."""


OUTBOX: DaemonSetting[OutboxSettings | None] = DaemonSetting(
    "outbox",
    OutboxSettings,
    default=None,
    description="Where applications commit calls in their own transactions, if not in the queue's "
    "database.",
)


class RowsUnreadable(OutboxUnusable):
    """The rows that wait could not be read together: their server ran out of time, or of memory."""


@dataclass(frozen=True, slots=True)
class Outbox:
    """Where the outbox is.

    `name`: of the application's database, as the YAML calls it; None for the queue's own.
    """

    url: str
    name: str | None

    def __str__(self) -> str:
        return f"the database {self.name}" if self.name else "the queue's database"


def outbox_of(config: Config, queue: str) -> Outbox | None:
    """Where the outbox is; None where the queue is in a file, and no database is named.

    `queue`: the URL of the queue.
    """
    if (named := config[OUTBOX]) is not None:
        return Outbox(_url(named.database, config), named.database)
    return Outbox(queue, None) if queue.startswith(POSTGRES) else None


def problems(config: Config) -> Iterable[Problem]:
    """What is wrong with the key."""
    if (named := config[OUTBOX]) is not None:
        try:
            _url(named.database, config)
        except ValueError as error:
            yield Problem(str(error), key="outbox.database")


def _url(name: str, config: Config) -> str:
    """The URL of the PostgreSQL with the outbox.

    Raises ValueError, with a sentence for people, where there is no such database, or it is a file.
    """
    databases = config.settings.get(DATABASES, {})
    if name not in databases:
        near = suggest(name, databases)
        raise ValueError(f"there is no database {name!r} under {DATABASES}{near}")
    url: str = databases[name].url.text
    if not url.startswith(POSTGRES):
        raise ValueError(f"{name} is a file: the outbox is in a PostgreSQL")
    return url
