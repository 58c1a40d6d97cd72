"""Where the outbox is: in the queue's PostgreSQL, or in the database that `outbox` names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestratord.model.settings import Config
from orchestratord.values.suggest import suggest

KEY = "databases"
POSTGRES = ("postgresql://", "postgres://")


@dataclass(frozen=True, slots=True)
class Outbox:
    """Where the outbox is.

    `name`: of the application's database, as the YAML calls it; None for the queue's own.
    """

    url: str
    name: str | None

    def __str__(self) -> str:
        return f"the database {self.name}" if self.name else "the queue's database"


def outbox_of(config: Config, queue_url: str) -> Outbox | None:
    """Where the outbox is; None where the queue is in a file, and no database is named.

    `queue_url`: where the queue is.
    """
    if (named := config.daemon.outbox) is not None:
        return Outbox(outbox_url(named.database, config.settings), named.database)
    return Outbox(queue_url, None) if queue_url.startswith(POSTGRES) else None


def outbox_url(name: str, settings: Mapping[str, Any]) -> str:
    """The URL of the PostgreSQL with the outbox.

    Args:
        name: as `outbox.database` has it.
        settings: the keys of plugins in orchestratord.yaml, of which `databases` is one.

    Raises ValueError, with a sentence for people, where there is no such database, or it is a file.
    """
    databases = settings.get(KEY, {})
    if name not in databases:
        raise ValueError(f"there is no database {name!r} under {KEY}{suggest(name, databases)}")
    url: str = databases[name].url.text
    if not url.startswith(POSTGRES):
        raise ValueError(f"{name} is a file: the outbox is in a PostgreSQL")
    return url
