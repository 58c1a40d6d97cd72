"""What a start leaves out is not missed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.postgres import Postgres

IMPORTS = """
import gc, sys
from orchestratord.daemon.quick_imports import LEFT_OUT, quick_imports
with quick_imports():
    import orchestratord.daemon.run
assert gc.isenabled()
assert not {*LEFT_OUT, "rich", "sqlalchemy"} & sys.modules.keys(), LEFT_OUT
"""
START = """
import asyncio
from pathlib import Path
import orchestratord.daemon.run as run
from orchestratord.daemon.daemon import Daemon
NOT_NEEDED = {"argparse", "opentelemetry.trace", "playhouse", "prometheus_client", "rich"}
loaded = []
def ready(self):
    loaded.extend(sys.modules)
    self._stop.set()
Daemon._ready = ready
assert run.run(Path(sys.argv[1])) == 0
assert loaded
found = NOT_NEEDED.intersection(loaded)
assert sys.argv[2] == "first" or not found, found
assert "psycopg" not in loaded
"""
QUEUE = """
import asyncio
from orchestratord.queue.store import Store
async def main():
    for _ in range(2):  # the second finds the tables
        store = await Store.open(sys.argv[1])
        await store.close()
asyncio.run(main())
assert "psycopg" in sys.modules
"""

PLUGIN = """
import peewee
database = peewee.PostgresqlDatabase(sys.argv[1], prefer_psycopg3=True)
class Row(peewee.Model):
    class Meta:
        database = database
    data = peewee.JSONField(index=True)
assert "psycopg" in sys.modules
with database.connection_context():
    database.create_tables([Row])
    Row.create(data={"a": [1]})
    with database.atomic():
        assert [row.data for row in Row.select().iterator()] == [{"a": [1]}]
    assert database.is_connection_usable()
"""


def _python(code: str, *words: str) -> None:
    command = [sys.executable, "-c", code, *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_start_imports_neither_drivers_nor_commands() -> None:
    _python(IMPORTS + "import psycopg, httpx._main")


def test_a_start_imports_nothing_that_is_for_later(tmp_path: Path) -> None:
    """But for the first one, which makes the tables."""
    settings = f"database: sqlite:///{tmp_path}/q.db\ncontrol_socket: {tmp_path}/s\n"
    (tmp_path / "config" / "apis").mkdir(parents=True)
    (tmp_path / "config" / "orchestratord.yaml").write_text(settings)
    for which in ("first", "second"):
        _python(IMPORTS + START, str(tmp_path / "config"), which)


@pytest.mark.parametrize("code", [QUEUE, PLUGIN], ids=["the queue", "a plugin"])
def test_peewee_does_without_its_driver(postgres: Postgres, code: str) -> None:
    """Where peewee has seen no psycopg, it makes the tables of a PostgreSQL all the same."""
    url = postgres.create()
    try:
        _python(IMPORTS + code, url)
    finally:
        postgres.drop(url)
