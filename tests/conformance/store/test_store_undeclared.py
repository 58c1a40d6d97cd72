"""Which endpoints tasks wait for, and which of them were removed on purpose."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import Any

from orchestratord.model.task import Key, Status
from orchestratord.queue.housekeeping import undeclared
from orchestratord.queue.operations import daemons
from orchestratord.queue.records import Beat
from orchestratord.queue.store import Store


async def test_what_waits(queue: Any, store: Store) -> None:
    for key in (Key("crm/get"), Key("crm/get", "ops"), Key("crm/put")):
        await queue.add(key, delay=60)
    await queue.ended(Status.FAILED, Key("crm/old"))
    await queue.add(Key("crm/runs"))
    await queue.claim(Key("crm/runs"))
    assert undeclared.waiting().long  # it may count a million
    assert await store.read(undeclared.waiting()) == {"crm/get": 2, "crm/put": 1}
    found = await store.write(undeclared.at_stake())
    assert found == {"crm/get": 2, "crm/put": 1, "crm/runs": 1}


async def test_what_was_accepted_is_not_asked_again(queue: Any, store: Store) -> None:
    for name in ("crm/get", "crm/put", "crm/list"):
        await queue.add(Key(name), delay=60)
    await store.write(undeclared.accept(["crm/get", "crm/idle"], ["crm/put", "crm/list"]))
    store = await queue.reopen()
    assert set(await store.write(undeclared.at_stake())) == {"crm/put", "crm/list"}
    await store.write(undeclared.accept(["crm/put"], ["crm/list"]))
    assert set(await store.write(undeclared.at_stake())) == {"crm/list"}
    # What is declared again was not removed.
    await store.write(undeclared.accept([], ["crm/get", "crm/list"]))
    assert set(await store.write(undeclared.at_stake())) == {"crm/get", "crm/list"}


async def test_what_other_daemons_declare(queue: Any, store: Store, unopened: Any) -> None:
    await queue.add(Key("crm/get"), delay=60)
    if queue.url.startswith("sqlite"):
        return  # one file has one daemon
    other = unopened()
    await other.open()
    try:
        await other.store.write(daemons.give_sign(Beat(endpoints={"crm/get": "x"})))
        assert await store.write(undeclared.at_stake()) == {}
        assert await store.read(undeclared.waiting()) == {"crm/get": 1}
        queue.run("UPDATE daemons SET lease_until = 1")
        assert await store.write(undeclared.at_stake()) == {"crm/get": 1}
    finally:
        await other.store.close()


async def test_a_daemon_that_has_died_on_this_machine_declares_nothing(
    queue: Any, store: Store, unopened: Any
) -> None:
    """Although its lease has not run out: it is what a crashed daemon comes after."""
    await queue.add(Key("crm/get"), delay=60)
    if queue.url.startswith("sqlite"):
        return  # one file has one daemon
    dead = subprocess.Popen(["true"])
    dead.wait()
    here = socket.gethostname()
    for host, pid, counts in (
        (here, os.getppid(), True),
        (here, dead.pid, False),
        (here, os.getpid(), False),  # of the container before
        ("elsewhere", dead.pid, True),
    ):
        other = unopened()
        await other.open()
        try:
            said = Beat(host=host, pid=pid, endpoints={"crm/get": "x"})
            await other.store.write(daemons.give_sign(said))
            found = await store.write(undeclared.at_stake())
            assert found == ({} if counts else {"crm/get": 1})
            await other.store.write(daemons.leave())
        finally:
            await other.store.close()
