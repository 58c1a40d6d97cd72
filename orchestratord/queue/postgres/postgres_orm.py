"""peewee's connection to PostgreSQL, by psycopg."""

from __future__ import annotations

from typing import Any

import psycopg
from peewee import Psycopg3Adapter
from psycopg.pq import TransactionStatus

from orchestratord.queue.tables.table_parts import PostgresTables


class PsycopgDriver(Psycopg3Adapter):
    """What peewee's own does, where peewee was imported without psycopg: see `quick_imports`."""

    txn_idle = TransactionStatus.IDLE
    txn_inerror = TransactionStatus.INERROR
    txn_unknown = TransactionStatus.UNKNOWN

    def check_driver(self) -> None:
        """It is here."""

    def connect(self, db: Any, **params: Any) -> psycopg.Connection[Any]:
        """A connection; `params` are psycopg's. Raises psycopg.Error."""
        return psycopg.connect(**params, prepare_threshold=None)  # a pooler may not know them


class PostgresOrm(PostgresTables):
    """A database whose models are queried over a connection of its own."""

    psycopg2_adapter = psycopg3_adapter = PsycopgDriver

    @classmethod
    def at(cls, conninfo: str) -> PostgresOrm:
        """The one that psycopg's `conninfo` leads to; nothing is connected yet."""
        return cls("postgresql://", conninfo=conninfo, prefer_psycopg3=True)
