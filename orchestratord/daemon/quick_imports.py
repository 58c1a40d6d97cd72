"""What is imported before the daemon, with as little as it needs.

A start is imports for the greatest part: `python -m bench.code.instructions --start` counts what
it takes.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

LEFT_OUT = ("psycopg", "httpx._main")
"""What libraries import where they find it. The first is peewee's, for a PostgreSQL that peewee
connects to: the daemon has `PsycopgDriver` for that, where there is one, and peewee gets it when a
plugin makes such a database. The second is the command `httpx`, with all of rich."""


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import without `LEFT_OUT`, and without a search for garbage: what is imported stays."""
    left_out = [name for name in LEFT_OUT if name not in sys.modules]
    collecting = gc.isenabled()
    gc.disable()
    # Python's own way to say that there is no such module.
    sys.modules.update(dict.fromkeys(left_out))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in left_out:
            del sys.modules[name]
        peewee = sys.modules.get("peewee")
        if peewee is not None and peewee.psycopg is None:
            _get_driver_when_asked(peewee)
        gc.freeze()
        if collecting:
            gc.enable()


def _get_driver_when_asked(peewee: Any) -> None:
    """Have peewee import psycopg, if there is one, once it is asked for a PostgreSQL."""
    database, adapter = peewee.PostgresqlDatabase, peewee.Psycopg3Adapter
    init = database.init

    def init_with_driver(self: Any, *args: Any, **options: Any) -> None:
        database.init = init
        with suppress(ImportError):
            status = import_module("psycopg.pq").TransactionStatus
            json = import_module("psycopg.types.json")
            peewee.psycopg, peewee.TransactionStatus = import_module("psycopg"), status
            peewee.Json_pg3, peewee.Jsonb_pg3 = json.Json, json.Jsonb
            adapter.txn_idle, adapter.txn_inerror = status.IDLE, status.INERROR
            adapter.txn_unknown = status.UNKNOWN
        init(self, *args, **options)

    database.init = init_with_driver
