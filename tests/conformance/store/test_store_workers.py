"""What only workers on one file of SQLite show: real processes, and how they end."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestratord.errors import DatabaseInUse, Unreachable
from orchestratord.model.task import Key, Status
from orchestratord.queue import writer
from orchestratord.queue.batch import Rank, Read, Write
from orchestratord.queue.operations import chores, claim, daemons, search
from orchestratord.queue.operations.roles import held_elsewhere, hold_role
from orchestratord.queue.records import Beat, TaskFilter
from orchestratord.queue.session import Session
from orchestratord.queue.sqlite.mailboxes import PAUSE
from orchestratord.queue.sqlite.turn import TURN, Turn
from orchestratord.queue.store import Store, open_database
from orchestratord.values import world
from tests.conformance.store.shared_files import COUNT, shared_files

KEY = Key("crm/get")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with shared_files(tmp_path) as create:
        yield create()


@pytest.fixture
def path(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


async def test_what_an_owner_held_is_taken_over_once_it_has_gone(two: list[Any]) -> None:
    one, other = two
    await one.add_all([one.new() for _ in range(3)])
    [started] = await one.claim(limit=1)
    await one.claim(limit=2, idempotent=False)
    assert await claim.reclaim(other.store) == (0, [])  # its lease does not matter while it lives
    one.run("UPDATE retry_schedule SET lease_until = 1")
    assert await claim.reclaim(other.store) == (0, [])
    await one.store.close()
    assert await claim.reclaim(other.store) == (0, [])  # nobody has said that it is dead
    await other.store.write(claim.forsake([one.store.owner]))
    count, [taken] = await claim.reclaim(other.store)
    assert (count, taken.id, taken.locked_by) == (2, started.id, other.store.owner)
    assert (taken.deaths, taken.claims) == (0, started.claims + 1)
    assert len(await other.claim()) == 2
    await one.open()
    assert await claim.reclaim(one.store) == (0, [])


async def test_what_comes_while_it_waits_for_its_turn_goes_together(two: list[Any]) -> None:
    one, other = two
    transactions: list[Any] = []

    def write(number: int) -> Write[int]:
        def do(session: Session) -> int:
            transactions.append(session.moves)  # each transaction has its own
            session.db.run("INSERT INTO meta (name, value) VALUES (?, '')", (str(number),))
            return number

        return Write(Rank.KEEP, do)

    turn = Turn(one.store._database._folder / TURN)
    turn.take()
    first = asyncio.ensure_future(one.store.write(write(1)))
    await asyncio.sleep(0.1)
    more = [asyncio.ensure_future(one.store.write(write(n))) for n in range(2, 5)]
    ended = asyncio.ensure_future(one.store.close())
    await asyncio.sleep(0.1)
    assert not transactions
    turn.close()
    assert await asyncio.gather(first, *more) == [1, 2, 3, 4]
    await ended
    assert len(transactions) == 4
    assert all(found is transactions[0] for found in transactions)
    assert await other.store.read(Read(lambda db: db.one("SELECT 1 FROM meta WHERE name = '4'")))
    await one.open()


async def test_what_is_no_wakeup_is_passed_over(two: list[Any], listen: Any) -> None:
    heard = listen(two[1].store)
    two[0].workers.post(b"no JSON")
    two[0].workers.post(b'{"from":"","due":[],"lanes":true}')
    async with asyncio.timeout(60):
        while not heard:
            await asyncio.sleep(0.01)
    assert [(wakeup.lanes, wakeup.due) for wakeup in heard] == [(True, {})]


async def test_what_a_worker_gives_back_as_it_ends_is_told(two: list[Any], listen: Any) -> None:
    one, other = two
    heard = listen(other.store)
    await one.add()
    tasks = await one.claim(idempotent=False)
    await asyncio.sleep(COUNT * PAUSE)
    heard.clear()
    await one.store.write(claim.release_claims(tasks))
    await one.store.close()
    async with asyncio.timeout(60):
        while not heard:
            await asyncio.sleep(0.01)
    assert KEY in (heard[0].due or ())


class Disk:
    """The call that brings a journal to the disk, as it is made: it can be held up, and fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.error: OSError | None = None
        self._sync = world.fdatasync
        monkeypatch.setattr(world, "fdatasync", self._called)

    def _called(self, descriptor: int) -> None:
        self.calls += 1
        assert self.may_go_on.wait(10)
        if self.error is not None:
            raise self.error
        self._sync(descriptor)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


async def has_come(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def test_others_write_while_a_transaction_comes_to_the_disk(
    two: list[Any], disk: Disk
) -> None:
    one, other = two
    known = await one.add()
    before = disk.calls
    disk.may_go_on.clear()
    first = asyncio.ensure_future(one.add())
    await has_come(lambda: disk.calls == before + 1)
    second = asyncio.ensure_future(other.add())
    await has_come(lambda: disk.calls == before + 2)  # it has its turn, and has committed
    looking = asyncio.ensure_future(other.store.read(search.get(known)))
    await asyncio.sleep(0.1)
    # What is told is there for good.
    assert not any(one.done() for one in (first, second, looking))
    disk.may_go_on.set()
    await asyncio.gather(first, second, looking)


async def test_what_cannot_be_brought_to_the_disk_ends_the_worker(
    two: list[Any], disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = two
    await one.add()
    disk.error = OSError(errno.EIO, os.strerror(errno.EIO))
    with pytest.raises(Unreachable, match=r"cannot be brought to the disk \(Input/output error"):
        await one.add()
    disk.error = None
    # What is on the disk is not known now; a second call would say that all is well.
    with pytest.raises(Unreachable):
        await one.add()
    assert one.store.health.fatal is not None
    await has_come(lambda: "the writing thread has died" in caplog.text)
    await other.add()


async def test_what_is_seen_and_cannot_be_brought_to_the_disk_is_not_told(
    two: list[Any], disk: Disk
) -> None:
    one, other = two
    known = await one.add()
    disk.error = OSError(errno.EIO, os.strerror(errno.EIO))
    with pytest.raises(Unreachable, match="cannot be brought to the disk"):
        await other.store.read(search.get(known))
    assert "what is there is not known" in (other.store.health.fatal or "")
    disk.error = None
    with pytest.raises(Unreachable):
        await other.store.read(search.get(known))
    assert (await one.store.read(search.get(known))).id == known


async def test_what_comes_while_a_worker_waits_for_its_turn_is_written_with_it(
    two: list[Any], path: Path, disk: Disk
) -> None:
    one, _ = two
    await one.add()
    before = disk.calls
    turn = Turn(path.with_name(f"{path.name}.workers") / TURN)
    turn.take()
    adding = []
    for _ in range(5):
        adding.append(asyncio.ensure_future(one.add()))
        await asyncio.sleep(0.05)
    turn.release()
    turn.close()
    await asyncio.gather(*adding)
    assert disk.calls == before + 1


async def test_a_worker_that_hears_nothing_holds_up_no_other(two: list[Any]) -> None:
    """Its mailbox is full; what it has missed it finds by looking."""
    one, other = two
    other.store._messenger._loop.remove_reader(other.store._messenger._mailbox)
    for _ in range(2_000):
        one.workers.post(b"x" * 1_000)
    await one.add()
    assert KEY in await other.store.read(claim.earliest())


async def test_a_second_run_is_refused(url: str, path: Path, two: list[Any]) -> None:
    await two[0].add()
    lock = open_database(url).take_for_workers()
    assert lock is not None
    inherited = os.dup(lock)  # as a worker has it: the process that started it may die first
    for _ in range(2):
        with pytest.raises(DatabaseInUse, match=f"is in use by the daemon with pid {os.getpid()}"):
            await Store.open(url)
        with pytest.raises(DatabaseInUse):
            open_database(url).take_for_workers()
        os.close(lock)
        lock = inherited
    for queue in two:
        await queue.store.close()
    left = {path.name, f"{path.name}.lock", f"{path.name}.workers"}
    assert {child.name for child in path.parent.iterdir()} == left
    assert os.listdir(path.with_name(f"{path.name}.workers")) == ["turn"]
    store = await Store.open(url)
    assert (await store.counts())["pending"] == 1
    await store.close()


async def test_a_worker_whose_lock_was_removed_ends(
    two: list[Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would write out of turn."""
    monkeypatch.setattr(writer, "IDLE", 0.02)
    (path.with_name(f"{path.name}.workers") / TURN).unlink()
    for one in two:
        async with asyncio.timeout(60):
            while one.store.health.fatal is None:
                await asyncio.sleep(0.01)
        assert "was deleted or moved while the daemon had it open" in one.store.health.fatal


async def test_what_one_alone_may_do_is_its_own_until_it_is_dead(two: list[Any]) -> None:
    """However long it stands still: a role, and a bulk."""
    one, other = two
    await one.ended(Status.FAILED)
    await one.bulk(TaskFilter())
    assert await one.store.write(hold_role("relay")) == one.store.owner
    one.run("UPDATE daemons SET lease_until = 1")
    [chore] = await one.chores()
    one.run("UPDATE chores SET lease_until = 1")
    one.clock.turn(1000)
    for _ in range(2):
        assert await other.store.write(hold_role("relay")) is None
        assert await other.store.read(held_elsewhere("relay", other.store.owner))
        assert await other.store.write(chores.claim([chore.id])) == []
        assert await other.chores() == []
    await other.store.write(claim.forsake([one.store.owner]))
    assert await other.store.write(hold_role("relay")) == one.store.owner
    assert await other.chores() == [chore._replace(deaths=1)]
    third = type(one)(one.url)
    await third.open()
    assert await third.store.write(chores.claim([chore.id])) == [], "two would tell of its end"
    assert await third.store.write(chores.claim([chore.id + 1])) == []
    await third.store.close()


async def test_at_its_first_sign_of_life_all_of_other_process_groups_are_dead(
    two: list[Any],
) -> None:
    """Their lease may last: this group has the lock of the file."""
    one, other = two
    await one.add()
    await one.claim()
    await other.store.write(daemons.leave())
    await other.give_sign()
    assert await claim.reclaim(other.store) == (0, [])
    await other.store.write(daemons.leave())
    await other.store.write(daemons.give_sign(Beat(process_group="the next")))
    _, [task] = await claim.reclaim(other.store)
    assert task.locked_by == other.store.owner


RUN = """
import asyncio, json, os, random, signal, sys, time
from pathlib import Path
from orchestratord.model.task import Attempt, Key, NewTask, Status
from orchestratord.queue.database import Workers
from orchestratord.queue.operations import claim, daemons, effects, settle
from orchestratord.queue.records import Beat, Insert, Pick, Settlement
from orchestratord.queue.store import Store, open_database
from orchestratord.values import world

url, COUNT, KEY, folder = sys.argv[1], 3, Key("crm/get"), Path(sys.argv[3])


def say(**words):
    os.write(1, json.dumps(words).encode() + b"\\n")


async def work(workers):
    store = await Store.open(url, workers=workers)
    await store.write(daemons.give_sign(Beat(process_group=workers.group)))
    place = folder / str(workers.number)
    if place.exists():  # it stands in for the supervisor, which says who has died
        await store.write(claim.forsake([place.read_text()]))
    place.write_text(store.owner)
    rounds, stopping = 0, asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)

    async def settled(task):
        attempt = Attempt(task.attempts, store.clock.now_ms(), 1.0, 200, None, None, "it succeeded")
        ended = Settlement(task=task, status=Status.SUCCEEDED, at=store.clock.now_ms(),
                           status_code=200, attempt=attempt)
        if (await store.write(settle.settle(ended))).accepted:
            say(settled=task.id, by=workers.number)

    while True:
        if not stopping.is_set():
            new = [Insert(NewTask("call", "crm/get")) for _ in range(3)]
            say(accepted=[item.id for item in await store.write(effects.enqueue(new))])
        _, found = await claim.reclaim(store)
        pick = Pick(KEY, 5, True, store.clock.now_ms())
        found += (await store.write(claim.claim([pick]))).tasks
        rounds += 1
        await asyncio.gather(*(settled(task) for task in found))
        if stopping.is_set() and not found:
            break
    say(rounds=rounds, by=workers.number)
    await store.write(daemons.leave())
    await store.close()


def fork(workers):
    if pid := os.fork():
        return pid
    try:
        asyncio.run(work(workers))
    except BaseException as error:
        say(error=repr(error))
    finally:
        os._exit(0)


lock = open_database(url).take_for_workers()
team = Workers.make(COUNT)
pids = {number: fork(team.worker(number)) for number in range(1, COUNT + 1)}
while len(os.listdir(folder)) < COUNT:
    time.sleep(0.01)
say(all_there=True)
time.sleep(0.5)
chance = random.Random(int(sys.argv[2]))
for _ in range(10):
    time.sleep(chance.uniform(0.02, 0.2))
    number = chance.choice([2, 3])
    os.kill(pids[number], signal.SIGKILL)
    os.waitpid(pids[number], 0)
    say(killed=number)
    pids[number] = fork(team.worker(number))
time.sleep(0.3)
# None claims any more that another's death may leave behind, but the first one, which ends last.
for number in (3, 2, 1):
    os.kill(pids[number], signal.SIGTERM)
    os.waitpid(pids[number], 0)
"""


async def test_workers_that_are_killed_lose_nothing(url: str, tmp_path: Path) -> None:
    script, owners = tmp_path / "run.py", tmp_path / "owners"
    script.write_text(RUN)
    owners.mkdir()
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, script, url, "7", owners], capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert not [words for words in said if "error" in words], said
    accepted = [id_ for words in said for id_ in words.get("accepted", ())]
    settled = [words["settled"] for words in said if "settled" in words]
    assert len(accepted) == len(set(accepted))
    assert len(settled) == len(set(settled)) > 0
    store = await Store.open(url)
    try:
        counts = await store.counts()
        # A worker that was killed may have stored and settled what it could not say any more.
        assert counts["succeeded"] == sum(counts.values()) >= len(accepted)
        for task in (await store.read(search.page(TaskFilter(), 1_000)))[0]:
            assert task.status == Status.SUCCEEDED
            assert len(await store.read(search.attempts(task.id))) == 1
    finally:
        await store.close()
    # While none was killed, their turns came evenly; SQLite's own waiting serves some ten times as
    # often as others.
    there = next(n for n, words in enumerate(said) if "all_there" in words)
    killed = next(n for n, words in enumerate(said) if "killed" in words)
    served = Counter(words["by"] for words in said[there:killed] if "settled" in words)
    if served.total() > 60:  # on a machine that does little in half a second, chance decides
        assert len(served) == 3
        assert max(served.values()) <= 4 * min(served.values())
