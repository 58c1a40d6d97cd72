"""The connections to one database: as many as there are attempts, and used again."""

from __future__ import annotations

import asyncio
import time

from orchestratord_sql.session import Connect, End, Session
from orchestratord_sql.work import Failure, GivenUp, Work

IDLE = 60.0
"""Seconds for which a connection is kept without being used."""
GRACE = 0.7
"""Seconds that a statement may take to end once it was told to."""


class Stopped(Exception):
    """The daemon stops. `end` is what became of the statement."""

    def __init__(self, end: Failure | GivenUp) -> None:
        self.end = end
        super().__init__("stopped")


class Pool:
    """Carries out statements on one database.

    How many at once is for the lane to say, so that there is no bound here. What writes to a
    database of SQLite takes turns: SQLite would let them wait in no order, by trying again.

    Args:
        name: of the database.
        connect: opens a connection.
        turns: whether those that write take turns.
    """

    def __init__(self, name: str, connect: Connect, *, turns: bool) -> None:
        self._name = name
        self._connect = connect
        self._turn = asyncio.Lock() if turns else None
        self._idle: list[tuple[float, Session]] = []
        self._sessions: set[Session] = set()
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        """How many there are, idle ones included."""
        return len(self._sessions)

    async def run(self, work: Work) -> None:
        """Carry out a statement within its time; its answer is in `work.keeper` then.

        Raises Failure, and Stopped where the attempt was cancelled and had not succeeded yet.
        """
        turn = self._turn if not work.scan.reads else None
        if turn is not None:
            try:
                async with asyncio.timeout(work.left):
                    await turn.acquire()
            except TimeoutError:
                words = f"had no turn within {work.seconds:g}s: other statements write"
                raise Failure(words, again=True) from None
            except asyncio.CancelledError:
                raise Stopped(GivenUp()) from None
        try:
            await self._run(work)
        finally:
            if turn is not None:
                turn.release()

    async def _run(self, work: Work) -> None:
        session = self._take()
        future = session.submit(work)
        stopped = await _wait(future, work.left)
        if future.done():
            self._give_back(session)
            end = future.result()
        else:
            undone = work.give_up()
            session.interrupt()
            stopped |= await _wait(future, GRACE)
            # It is not used again: the interrupt is still on its way maybe, and would hit another.
            self._end(session)
            end = future.result() if future.done() else _abandoned(work, session, undone)
        if end is None:
            return  # a cancel that came too late is none
        if stopped:
            raise Stopped(end)
        if isinstance(end, GivenUp):
            end = Failure(f"did not end within {work.seconds:g}s, and was cancelled", again=True)
        raise end

    # -- connections ---------------------------------------------------------------------------

    def _take(self) -> Session:
        if self._idle:
            return self._idle.pop()[1]
        session = Session(f"sql {self._name}", self._connect)
        self._sessions.add(session)
        return session

    def _give_back(self, session: Session) -> None:
        if self._closed:
            self._end(session)
            return
        self._idle.append((time.monotonic() + IDLE, session))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(IDLE, self._sweep)

    def _sweep(self) -> None:
        """Close what nobody has used for a while. The one that was used last is taken first."""
        now = time.monotonic()
        self._timer = None
        while self._idle and self._idle[0][0] <= now:
            self._end(self._idle.pop(0)[1])
        if self._idle:
            delay = self._idle[0][0] - now
            self._timer = asyncio.get_running_loop().call_later(delay, self._sweep)

    def _end(self, session: Session) -> None:
        self._sessions.discard(session)
        session.end()

    def retire(self) -> list[Session]:
        """Use it no more: what is idle is closed now, what is under way afterwards."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        ended = [session for _, session in self._idle]
        self._idle.clear()
        for session in ended:
            self._end(session)
        return ended


def _abandoned(work: Work, session: Session, undone: bool) -> Failure:
    """What is left of a statement that does not end though it was told to."""
    if not session.connected:
        return Failure(f"had no connection within {work.seconds:g}s", again=True)
    session.sever()
    words = f"did not end within {work.seconds:g}s"
    words += "" if undone else "; whether it was committed is not known"
    return Failure(words, again=True, maybe_done=not undone)


async def _wait(future: asyncio.Future[End], seconds: float) -> bool:
    """Wait for its end; True where the attempt was cancelled meanwhile."""
    try:
        await asyncio.wait((future,), timeout=seconds)
    except asyncio.CancelledError:
        return True
    return False
