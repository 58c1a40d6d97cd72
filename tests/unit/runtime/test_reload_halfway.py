"""A reload that fails halfway leaves nothing behind, and what the supervisor hears of one."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestratord.config.loader import Loader
from orchestratord.engine.http_executor import HttpPlugin
from orchestratord.engine.new.scheduler import Scheduler
from orchestratord.engine.worker import Worker
from orchestratord.errors import Unreachable
from orchestratord.http.client import HttpClient
from orchestratord.queue.store import Store
from orchestratord.runtime.reload import Reloader
from orchestratord.runtime.systemd import SystemdNotifier
from orchestratord.runtime.team import Team
from orchestratord.runtime.worker_seat import WorkerSeat, receive
from orchestratord.testing import Rig
from orchestratord.values.clock import Clock


async def test_a_reload_that_fails_halfway_is_made_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files once counted as taken up from then on, and no reload took them up."""
    (tmp_path / "apis").mkdir()
    settings = tmp_path / "orchestratord.yaml"
    settings.write_text(f"database: sqlite:///{tmp_path}/queue.db\ndrain_timeout: 7s\n")
    host, clock, client = Rig(HttpPlugin()).host, Clock(), HttpClient()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    seat = WorkerSeat(1, 2, theirs)
    loader = Loader(tmp_path, host)
    store = await Store.open(f"sqlite:///{tmp_path}/queue.db")
    worker = Worker(store, host, client, clock)
    scheduler = Scheduler(store, clock, worker.pipe.new_tasks, host.events)
    handler: Any = SimpleNamespace(adopt=lambda *_: None)
    team = Team(worker, seat)
    reloader = Reloader(loader, worker, scheduler, handler, SystemdNotifier(None, None), team, seat)

    def told() -> list[float]:
        found = []
        while True:
            try:
                message = receive(ours)
            except BlockingIOError:
                return found
            assert message is not None
            found += [message[0]["drain_timeout"]] if "drain_timeout" in message[0] else []

    try:
        await reloader.begin()
        assert told() == [7.0]
        settings.write_text(settings.read_text().replace("7s", "9s"))

        async def unreachable() -> Any:
            raise Unreachable("the database is away")

        with monkeypatch.context() as patch:
            patch.setattr(reloader, "_tables", unreachable)
            with pytest.raises(Unreachable):
                await reloader.reload("command")
        assert loader.config is reloader.config
        assert told() == []
        assert (await reloader.reload("command")).changed
        assert reloader.config.daemon.drain_timeout == 9
        assert told() == [9.0]
    finally:
        ours.close()
        theirs.close()
        await client.aclose()
        await store.close()
