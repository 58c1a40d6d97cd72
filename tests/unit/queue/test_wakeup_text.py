from __future__ import annotations

import pytest

from orchestratord.model.task import Key, NewTask
from orchestratord.queue.batch import Rank, Write
from orchestratord.queue.operations import effects
from orchestratord.queue.records import Insert, Wakeup
from orchestratord.queue.session import Session
from orchestratord.queue.store import Store
from orchestratord.queue.wakeup_text import DUE_LATER_MS, DUE_SOON_MS, WakeupText

KEY, HOOK = Key("crm/get"), Key("crm/get", "ops")


@pytest.fixture
async def session(store: Store) -> Session:
    await store.write(effects.enqueue([Insert(NewTask("call", "crm/get"))]))
    return await store.write(Write(Rank.KEEP, lambda session: session))


async def test_what_one_says_another_reads(session: Session) -> None:
    ours, theirs = WakeupText("ours", 1_000), WakeupText("theirs", 1_000)
    now = session.now()
    assert (ours.waits, ours.take()) == (False, None)
    session.due = {KEY: now + 20, HOOK: now + DUE_LATER_MS + 60_000}
    assert ours.add_due(session)
    session.due = {KEY: now + 10}
    assert not ours.add_due(session)  # more of what is to be told anyway
    assert not ours.add_flags("paused")
    assert ours.waits
    text = ours.take()
    assert (ours.waits, ours.take()) == (False, None)
    assert text is not None
    assert ours.read(text) is None
    assert theirs.read(text) == Wakeup({KEY: now + 10}, paused=True)


async def test_what_is_due_later_is_told_once(session: Session) -> None:
    """Others that know when the first one is due claim then, and learn of the next."""
    ours, theirs = WakeupText("ours", 1_000), WakeupText("theirs", 1_000)
    later = session.now() + DUE_SOON_MS + 5_000
    session.due = {KEY: later}
    assert ours.add_due(session)
    assert theirs.read(ours.take() or "") == Wakeup({KEY: later})
    session.due = {KEY: later + 10}
    assert not ours.add_due(session)
    session.due = {KEY: later - 10, HOOK: later}
    assert ours.add_due(session)
    session.due = {KEY: later - 5_000}
    assert not ours.add_due(session)  # more of what is to be told anyway
    assert theirs.read(ours.take() or "") == Wakeup({KEY: later - 5_000, HOOK: later})


async def test_what_is_due_later_makes_room(session: Session) -> None:
    words = WakeupText("ours", 200)
    now = session.now()
    session.due = {Key(f"crm/get{n}"): now + DUE_SOON_MS + 1_000 for n in range(100)}
    session.due[KEY] = now
    assert words.add_due(session)
    assert WakeupText("theirs", 200).read(words.take() or "") == Wakeup({KEY: now})


async def test_too_much_to_be_named(session: Session) -> None:
    words = WakeupText("ours", 200)
    session.due = {Key(f"crm/get{n}"): 1 for n in range(100)}
    assert words.add_due(session)
    assert WakeupText("theirs", 200).read(words.take() or "") == Wakeup(None)


def test_the_words_of_others() -> None:
    words = WakeupText("ours", 200)
    assert words.read('{"from": "x", "due": [["a/b", "", 5]], "new": 1}') == Wakeup({Key("a/b"): 5})
    for text in ("", "no JSON", "[]", '{"due": []}', '{"from": "x", "due": [[]]}', "{}"):
        assert words.read(text) is None
