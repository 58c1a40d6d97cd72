"""What a worker and its supervisor say to each other."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from orchestratord.config.folder import Files
from orchestratord.runtime.worker_seat import (
    InForce,
    Message,
    SeatNotifier,
    WorkerSeat,
    receive,
    send,
    take_over,
)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The supervisor's and the worker's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


Ends = tuple[socket.socket, socket.socket]


def test_messages_are_kept_apart(ends: Ends) -> None:
    ours, theirs = ends
    with pytest.raises(BlockingIOError):
        receive(ours)
    assert send(theirs, {"a": 1})
    assert send(theirs, {"b": "ä"})
    assert receive(ours) == ({"a": 1}, [])
    assert receive(ours) == ({"b": "ä"}, [])
    theirs.close()
    assert receive(ours) is None
    assert not send(ours, {"c": 1})


def test_what_one_said_last_is_read_though_it_left_something_unread(ends: Ends) -> None:
    ours, theirs = ends
    assert send(ours, {"link": 1})
    assert send(theirs, {"serves": True})
    theirs.close()
    assert receive(ours) == ({"serves": True}, [])
    assert receive(ours) is None


async def test_descriptors_come_along(ends: Ends) -> None:
    ours, theirs = ends
    left, right = socket.socketpair()
    heard: asyncio.Queue[tuple[Message, list[int]]] = asyncio.Queue()
    gone = asyncio.Event()
    WorkerSeat(2, 3, theirs).listen(lambda *found: heard.put_nowait(found), gone.set)
    send(ours, {"link": 1}, left.fileno())
    left.close()
    message, [descriptor] = await heard.get()
    assert message == {"link": 1}
    with take_over(descriptor) as mine, right:
        assert not os.get_inheritable(descriptor)
        mine.send(b"here")
        assert right.recv(10) == b"here"
    ours.close()
    await asyncio.wait_for(gone.wait(), 60)


def test_the_first_worker_is_the_one_that_serves(ends: Ends) -> None:
    assert WorkerSeat(1, 2, ends[1]).first
    assert not WorkerSeat(2, 2, ends[1]).first


def test_a_configuration_for_those_that_begin_later(ends: Ends) -> None:
    ours, theirs = ends
    assert WorkerSeat(2, 2, theirs).adopted() is None
    in_force = InForce(3, 1_700_000_000_000, Files(daemon="orchestratord.yaml", digest="abc"))
    WorkerSeat(1, 2, theirs).notify_adopted(in_force)
    found = receive(ours)
    assert found is not None
    message, [descriptor] = found
    assert message == {"adopted": 3}
    assert os.readlink(f"/proc/self/fd/{descriptor}").startswith("/memfd:"), "no secret on a disk"
    try:
        later = WorkerSeat(2, 2, theirs, adopted=descriptor)
        assert later.adopted() == in_force
        assert later.adopted() == in_force, "each that begins reads it"
    finally:
        os.close(descriptor)


def test_what_systemd_is_told_goes_by_way_of_the_supervisor(ends: Ends) -> None:
    ours, theirs = ends
    notifier = SeatNotifier(WorkerSeat(1, 2, theirs, beat=1.5))
    assert notifier.listening
    assert notifier.watchdog_timeout == 3.0
    notifier.ready("2 endpoints")
    notifier.watchdog()
    said = []
    for _ in range(2):
        found = receive(ours)
        assert found is not None
        said.append(found[0]["notify"])
    assert said == ["READY=1\nSTATUS=2 endpoints", "WATCHDOG=1"]
