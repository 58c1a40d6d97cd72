"""Group commit: what goes into one transaction, and what becomes of those that fail."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestratord.errors import QueueError, StorageFull, Unreachable
from orchestratord.model.task import Key, NewTask
from orchestratord.queue import task_counts
from orchestratord.queue.batch import Batch, Rank, Write
from orchestratord.queue.connection import Singly
from orchestratord.queue.housekeeping.recount import recount
from orchestratord.queue.operations import claim as claims
from orchestratord.queue.operations import effects, schedules, search, settle
from orchestratord.queue.records import Insert, Pick, Settlement
from orchestratord.queue.session import Session
from orchestratord.queue.store import Store
from orchestratord.queue.writer import Writer


@pytest.fixture
def writer(store: Store) -> Writer:
    return store._writer


class Gate:
    """Holds the writing thread, so that what is submitted meanwhile shares one transaction."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._open = threading.Event()
        self._reached = threading.Event()

    async def __aenter__(self) -> Gate:
        self._held = asyncio.ensure_future(self._writer.submit(Write(Rank.SETTLE, self._hold)))
        await asyncio.to_thread(self._reached.wait)
        return self

    def _hold(self, session: Session) -> None:
        self._reached.set()
        self._open.wait(10)

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.sleep(0)
        self._open.set()
        await self._held


def note(name: str, log: list[str] | None = None) -> Any:
    def operation(session: Session) -> str:
        if log is not None:
            log.append(name)
        session.db.run("INSERT INTO meta (name, value) VALUES (?, '')", (name,))
        return name

    return operation


def fail(name: str, error: Exception) -> Any:
    """Writes something and then raises."""

    def operation(session: Session) -> None:
        note(name)(session)
        session.moved(None, "pending", 5)
        raise error

    return operation


async def notes(writer: Writer) -> set[str]:
    rows = await writer.submit(Write(Rank.KEEP, lambda s: s.db.all("SELECT name FROM meta")))
    return {row[0] for row in rows} - {"instance"}


async def counts(writer: Writer) -> dict[str, int]:
    return await writer.submit(Write(Rank.KEEP, lambda session: task_counts.total(session.db)))


async def together(writer: Writer, *operations: Any) -> list[Any]:
    async with Gate(writer):
        waiting = [
            asyncio.ensure_future(writer.submit(Write(Rank.NEW, each))) for each in operations
        ]
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_what_waits_is_one_transaction_in_order_of_rank(writer: Writer) -> None:
    order: list[str] = []
    commits: list[int] = []
    original = writer._commit
    writer._commit = lambda session: (commits.append(1), original(session))[1]  # type: ignore[method-assign]
    ranks = [Rank.KEEP, Rank.NEW, Rank.CLAIM, Rank.HAND, Rank.NEW, Rank.SETTLE]
    async with Gate(writer):
        waiting = [
            asyncio.ensure_future(writer.submit(Write(rank, note(f"{n}{rank.name}", order))))
            for n, rank in enumerate(ranks)
        ]
    assert await asyncio.gather(*waiting) == [f"{n}{rank.name}" for n, rank in enumerate(ranks)]
    assert order == ["5SETTLE", "1NEW", "4NEW", "2CLAIM", "3HAND", "0KEEP"]
    assert len(commits) == 2  # the gate's and theirs


async def test_one_that_fails_half_way_is_undone_alone(writer: Writer) -> None:
    before = await counts(writer)
    results = await together(
        writer,
        note("a"),
        fail("b", ValueError("no")),
        note("c"),
        fail("d", KeyError("no")),
        note("e"),
    )
    assert [type(item) for item in results] == [str, ValueError, str, KeyError, str]
    assert await notes(writer) == {"a", "c", "e"}
    assert await counts(writer) == before


async def test_one_that_the_database_refuses_fails_alone(writer: Writer) -> None:
    results = await together(writer, note("a"), note("a"), note("b"))
    assert results[0::2] == ["a", "b"]
    assert isinstance(results[1], QueueError)
    assert "the database refused: UNIQUE constraint failed" in str(results[1])
    assert await notes(writer) == {"a", "b"}


async def test_one_that_wrote_nothing_costs_the_others_nothing(writer: Writer) -> None:
    runs: list[str] = []

    def refuse(session: Session) -> None:
        raise QueueError("no")

    results = await together(writer, note("a", runs), refuse, note("b", runs))
    assert isinstance(results[1], QueueError)
    assert runs == ["a", "b"]  # once each: nothing was done again


async def test_counts_move_only_with_what_is_kept(writer: Writer) -> None:
    def move(session: Session) -> None:
        note("moved")(session)
        session.moved(None, "pending", 2)

    await together(writer, move, fail("b", ValueError("no")))
    assert (await counts(writer))["pending"] == 2


async def test_a_commit_that_fails_fails_for_all(writer: Writer) -> None:
    def prepare(session: Session) -> None:
        session.db.run("CREATE TABLE mother (id INTEGER PRIMARY KEY)")
        session.db.run(
            "CREATE TABLE child (of INTEGER REFERENCES mother DEFERRABLE INITIALLY DEFERRED)"
        )
        session.db.commit()
        session.db.all("PRAGMA foreign_keys = 1")  # takes effect outside of transactions only
        session.db.begin()

    def orphan(session: Session) -> None:
        session.db.run("INSERT INTO child VALUES (7)")  # found out by COMMIT

    await writer.submit(Write(Rank.KEEP, prepare))
    results = await together(writer, note("a"), orphan, note("b"))
    assert [type(item) for item in results] == [QueueError] * 3
    assert "FOREIGN KEY constraint failed" in str(results[0])
    assert len({id(item) for item in results}) == 3  # one exception each: each is raised somewhere
    assert await notes(writer) == set()
    assert await writer.submit(Write(Rank.NEW, note("c"))) == "c"


class TestFullDisk:
    async def limit(self, store: Store, pages: int) -> None:
        """No more pages than there are now, and so many more."""

        def operation(session: Session) -> None:
            now = session.db.all("PRAGMA page_count")[0][0]
            session.db.all(f"PRAGMA max_page_count = {now + pages}")

        await store._writer.submit(Write(Rank.KEEP, operation))

    def big(self, size: int = 300_000) -> list[Insert]:
        return [Insert(NewTask("call", "crm/get", {"x": "y" * size}))]

    async def test_new_work_is_refused_until_there_is_room(
        self, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("orchestratord.queue.writer.IDLE", 0.02)
        await self.limit(store, 10)
        with pytest.raises(StorageFull, match="the disk takes no more: database or disk is full"):
            await store.write(effects.enqueue(self.big()))
        assert not store.health.accepting
        with pytest.raises(StorageFull, match="what is queued goes on"):
            await store.write(effects.enqueue(self.big(10)))
        with pytest.raises(StorageFull):
            await store.write(
                schedules.take_slot("crm/get", "s", None, 1, [(1, 1)], self.big(10)[0])
            )
        assert "no new work is accepted" in caplog.text
        await asyncio.sleep(0.1)
        assert not store.health.accepting  # what is tried is more than would fit
        await store._writer.submit(
            Write(Rank.KEEP, lambda s: s.db.all("PRAGMA max_page_count = 100000"))
        )
        async with asyncio.timeout(60):  # it is logged by its thread, after that
            while not (store.health.accepting and "is accepted again" in caplog.text):
                await asyncio.sleep(0.01)
        [inserted] = await store.write(effects.enqueue(self.big()))
        assert (await store.read(search.get(inserted.id))).status == "pending"
        assert await notes(store._writer) == set()  # no trace of what was tried

    async def test_what_is_queued_goes_on_beside_it(self, store: Store, writer: Writer) -> None:
        await self.limit(store, 10)
        async with Gate(writer):
            waiting = [
                asyncio.ensure_future(each)
                for each in (
                    writer.submit(Write(Rank.SETTLE, note("settled"))),
                    store.write(effects.enqueue(self.big())),
                    store.write(effects.enqueue(self.big(10))),
                    writer.submit(Write(Rank.CLAIM, note("claimed"))),
                )
            ]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert results[0::3] == ["settled", "claimed"]
        assert [type(item) for item in results[1:3]] == [StorageFull, StorageFull]
        assert await notes(writer) == {"settled", "claimed"}

    async def test_a_settlement_that_does_not_fit_is_told_so(
        self, store: Store, writer: Writer
    ) -> None:
        await self.limit(store, 1)

        def grow(session: Session) -> None:
            session.db.run("INSERT INTO meta VALUES ('big', ?)", ("x" * 300_000,))

        with pytest.raises(StorageFull):
            await writer.submit(Write(Rank.SETTLE, grow))
        assert await writer.submit(Write(Rank.SETTLE, note("small"))) == "small"


async def test_a_crowded_disk_is_refused_before_it_is_full(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestratord.queue.writer.IDLE", 0.02)
    monkeypatch.setattr(store._database, "crowded", lambda _: True)
    async with asyncio.timeout(60):
        while store.health.accepting:
            await asyncio.sleep(0.01)
    with pytest.raises(StorageFull):
        await store.write(effects.enqueue([Insert(NewTask("call", "crm/get"))]))
    await store.write(
        effects.write_effects([Insert(NewTask("webhook", "crm/get", webhook="ops"))])
    )  # goes on
    monkeypatch.setattr(store._database, "crowded", lambda _: False)
    async with asyncio.timeout(60):
        while not store.health.accepting:
            await asyncio.sleep(0.01)
    await store.write(effects.enqueue([Insert(NewTask("call", "crm/get"))]))


async def test_a_writer_that_dies_fails_everything_and_says_so(
    store: Store, writer: Writer
) -> None:
    def die(session: Session) -> None:
        raise SystemExit("a bug")

    async with Gate(writer):
        waiting = [
            asyncio.ensure_future(writer.submit(Write(Rank.NEW, each)))
            for each in (note("a"), die, note("b"))
        ]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(item) for item in results] == [Unreachable] * 3
    assert "the writing thread has died: a bug" in str(results[0])
    with pytest.raises(Unreachable, match="the writing thread has died"):
        await store.write(Write(Rank.KEEP, lambda session: None))
    assert store.health.fatal == "the writing thread has died: a bug"


async def test_what_comes_as_the_writer_dies_is_refused_once(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(session: Session) -> None:
        raise SystemExit("a bug")

    told: list[Write[Any]] = []
    first = Write(Rank.SETTLE, None, Notes().batch, "a")
    late = Write(Rank.SETTLE, None, Notes().batch, "b")
    async with Gate(writer):
        dies = writer.submit(Write(Rank.NEW, die))
        writer.submit_all([first], told.extend)
    await asyncio.wait([dies])
    monkeypatch.setattr(writer, "_check_open", lambda: None)  # it had not died yet
    writer.submit_all([late], told.extend)
    with pytest.raises(Unreachable, match="the writing thread has died: a bug"):
        await writer.submit(Write(Rank.KEEP, note("c")))
    assert told == [first, late]
    assert [type(one.error) for one in told] == [Unreachable] * 2


async def test_nothing_is_written_once_the_queue_is_found_unusable(
    store: Store, writer: Writer
) -> None:
    written: list[str] = []
    store.health.fatal = "the database is damaged"  # as a reading thread finds it
    try:
        with pytest.raises(Unreachable, match="damaged"):
            store.write_told([Write(Rank.SETTLE, lambda session: written.append("row"))], print)
    finally:
        store.health.fatal = None
    await store.write(Write(Rank.KEEP, lambda session: written.append("later")))
    assert written == ["later"]


class Notes:
    """A batch that writes names, and remembers how it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.batch: Batch = self.together

    def together(self, session: Session, names: Sequence[str]) -> list[str | Exception]:
        self.asked.append(" ".join(names))
        for name in names:
            note(name)(session)
            session.moved(None, "pending")
            if name == "bad":
                raise ValueError("no") if session.db.singly else Singly
        return [KeyError(name) if name == "absent" else name for name in names]

    async def submit(self, writer: Writer, *names: str) -> list[Any]:
        async with Gate(writer):
            waiting = [
                asyncio.ensure_future(writer.submit(Write(Rank.NEW, None, self.batch, name)))
                for name in names
            ]
        return await asyncio.gather(*waiting, return_exceptions=True)


class TestBatch:
    async def test_what_waits_is_done_at_once(self, writer: Writer) -> None:
        each = Notes()
        assert await each.submit(writer, "a", "b", "c") == ["a", "b", "c"]
        assert each.asked == ["a b c"]
        assert await notes(writer) == {"a", "b", "c"}
        assert (await counts(writer))["pending"] == 3

    async def test_where_that_fails_each_is_done_alone(self, writer: Writer) -> None:
        each = Notes()
        results = await each.submit(writer, "a", "bad", "c")
        assert results[0::2] == ["a", "c"]
        assert isinstance(results[1], ValueError)
        assert each.asked == ["a bad c", "a", "bad", "c"]
        assert await notes(writer) == {"a", "c"}
        assert (await counts(writer))["pending"] == 2  # those of the first try do not count

    @pytest.mark.parametrize("name", ["b", "bad"])
    async def test_those_of_one_transaction_are_told_at_once(
        self, writer: Writer, name: str
    ) -> None:
        each, told = Notes(), list[list[tuple[Any, ...]]]()

        def tell(operations: Sequence[Write[Any]]) -> None:
            told.append([(o.item, o.about, o.error or o.result) for o in operations])

        async with Gate(writer):
            for one in ("a", name, "c"):
                operation = Write(Rank.NEW, None, each.batch, one)
                operation.about = one.upper()
                writer.submit_all([operation], tell)
            other = asyncio.ensure_future(writer.submit(Write(Rank.NEW, None, each.batch, "d")))
        assert await other == "d"
        [[first, (item, about, result), last]] = told
        assert (first, last) == (("a", "A", "a"), ("c", "C", "c"))
        assert (item, about) == (name, name.upper())
        if name == "b":
            assert result == "b"
            assert each.asked == ["a b c d"]
        else:
            assert isinstance(result, ValueError)
            assert each.asked == ["a bad c d", "a", "bad", "c", "d"]
        assert await notes(writer) == {"a", "c", "d"} | ({"b"} if name == "b" else set())

    async def test_an_error_of_one_is_only_its_own(self, writer: Writer) -> None:
        each = Notes()
        results = await each.submit(writer, "a", "absent")
        assert results[0] == "a"
        assert isinstance(results[1], KeyError)
        assert each.asked == ["a absent"]

    async def test_others_of_the_transaction_are_not_lost_with_it(self, writer: Writer) -> None:
        each = Notes()
        async with Gate(writer):
            waiting = [
                asyncio.ensure_future(item)
                for item in (
                    writer.submit(Write(Rank.SETTLE, note("before"))),
                    writer.submit(Write(Rank.NEW, None, each.batch, "a")),
                    writer.submit(Write(Rank.NEW, None, each.batch, "bad")),
                    writer.submit(Write(Rank.KEEP, note("after"))),
                )
            ]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(item) for item in results] == [str, str, ValueError, str]
        assert await notes(writer) == {"before", "a", "after"}


async def test_settlements_and_the_next_claim_share_a_commit(
    store: Store, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a slot that becomes free costs no commit of its own to be filled again."""
    key = Key("crm/get")
    await store.write(effects.enqueue([Insert(NewTask("call", "crm/get"))] * 40))
    first = (await store.write(claims.claim([Pick(key, 20, True, 10**14)]))).tasks
    commits: list[int] = []
    original = writer._commit
    monkeypatch.setattr(writer, "_commit", lambda s: (commits.append(1), original(s))[1])
    async with Gate(writer):
        waiting = [
            asyncio.ensure_future(store.write(settle.settle(Settlement(task, "succeeded", 1))))
            for task in first
        ]
        claim = asyncio.ensure_future(store.write(claims.claim([Pick(key, 20, True, 10**14)])))
        new = asyncio.ensure_future(
            store.write(effects.enqueue([Insert(NewTask("call", "crm/get"))]))
        )
    assert all(settled.accepted for settled in await asyncio.gather(*waiting))
    assert len((await claim).tasks) == 20
    await new
    assert len(commits) == 2  # the gate's and theirs


async def test_another_programs_changes_are_counted(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestratord.queue.writer.IDLE", 0.02)
    await store.write(effects.enqueue([Insert(NewTask("call", "crm/get"))] * 3))
    await recount(store)  # all are counted, and will not be for ten minutes
    with sqlite3.connect(path) as other:
        other.execute("DELETE FROM retry_schedule WHERE id = 1")
    other.close()
    async with asyncio.timeout(60):
        while (await store.counts())["pending"] != 2:
            await asyncio.sleep(0.01)
            await recount(store)
