"""What goes wrong in a universe. A fault is a function of the universe that begins it; the seed
says which comes when (`Universe._plan`). A new one is a function here, and its row in `FAULTS`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from tests.simulation.baton import Strand
from tests.simulation.disk import FULL, PLENTY, TIGHT

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.receiver import Arrival
    from tests.simulation.universe import Universe

LEASE = 30.0
"""Seconds; as the configuration of universes says."""
FAR = 40 * 86400.0
"""Seconds: longer than anything that has ended is kept."""
AFTER_COMMIT = ("committed", "unlock", "sync", "synced")
"""Turns between a COMMIT and what follows it."""
LOOKS = 0.5
"""Seconds between two looks of the watchdog."""


# -- deaths ----------------------------------------------------------------------------------------


def kill_at_turn(universe: Universe) -> None:
    """Kill -9 of whichever process has one of the next turns."""
    _after(universe, 300, None, lambda strand, what: _kill(universe, strand, f"at {what}"))


def kill_in_transaction(universe: Universe) -> None:
    """Kill -9 between two statements of a transaction."""
    _after(universe, 30, ("write",), lambda strand, what: _kill(universe, strand, "within a write"))


def kill_after_commit(universe: Universe) -> None:
    """Kill -9 between COMMIT and what follows it: the next writer's turn, the sync, the answer."""
    words = "after COMMIT ({})"
    _after(universe, 8, AFTER_COMMIT, lambda one, what: _kill(universe, one, words.format(what)))


def cut_power(universe: Universe) -> None:
    """The machine loses its power, at any turn or around a COMMIT."""
    where = universe.chance.choice((None, ("write", "committed", "sync", "synced")))

    def cut(strand: Strand, what: str) -> None:
        if universe.machine.was_set_far:  # whoever starts then would take it for time that passed
            _kill(universe, strand, f"at {what}")
        else:
            universe.cut_power()

    _after(universe, 100 if where is None else 8, where, cut)


def terminate(universe: Universe) -> None:
    """SIGTERM: it drains, and a successor starts once it has ended."""
    process = _one(universe)
    if process is not None:
        universe.terminate(process)


def _kill(universe: Universe, strand: Strand, why: str) -> None:
    universe.kill(strand.process, f"{why} of {strand.name}")


def _after(
    universe: Universe,
    most: int,
    where: tuple[str, ...] | None,
    do: Callable[[Strand, str], None],
) -> None:
    """Do it at one of the next `most` turns, of those that are `where`."""
    left = universe.chance.randint(1, most)

    def watch(strand: Strand, what: str) -> bool:
        nonlocal left
        if strand.process.dead:
            return False
        left -= where is None or what in where
        if left == 0:
            do(strand, what)
        return left <= 0

    universe.baton.watches.append(watch)


# -- standstill ------------------------------------------------------------------------------------


def stand_still(universe: Universe) -> None:
    """SIGSTOP of one process, for up to three leases."""
    process = _one(universe)
    if process is not None:
        _stop([process], universe, _standing(universe))


def all_stand_still(universe: Universe) -> None:
    """SIGSTOP of all."""
    _stop([one for one in universe.living if not one.stopped], universe, _standing(universe))


def stand_after_commit(universe: Universe) -> None:
    """SIGSTOP of one between COMMIT and what follows it: of what it has claimed, nothing is sent
    yet, and another may have taken it over by when it goes on."""
    seconds = universe.chance.choice((2.0, LEASE * 1.2, LEASE * 1.5, LEASE * 2))

    def stand(strand: Strand, what: str) -> None:
        if _is_beside(strand.process, universe):
            _stop([strand.process], universe, seconds)

    _after(universe, 8, AFTER_COMMIT, stand)


def stand_after_claim(universe: Universe) -> None:
    """The same once it has claimed what others of an ordered partition wait behind."""
    seconds = LEASE * universe.chance.uniform(1.2, 2)

    def watch(strand: Strand, what: str) -> bool:
        process = strand.process
        if what != "committed" or process.dead or not _is_beside(process, universe):
            return process.dead
        with closing(sqlite3.connect(universe.path)) as db:
            just_now = round(universe.machine.time() * 1000) - 50
            if db.execute(FIRST_CLAIMED, (just_now,)).fetchone() is None:
                return False
        _stop([process], universe, seconds)
        return True

    universe.baton.watches.append(watch)


FIRST_CLAIMED = """
SELECT 1 FROM retry_schedule AS claimed WHERE status = 'running' AND updated_at >= ?
AND partition_rule < 0 AND EXISTS (
    SELECT 1 FROM retry_schedule WHERE id > claimed.id AND status = 'pending'
    AND endpoint_id = claimed.endpoint_id AND webhook = claimed.webhook
    AND partition = claimed.partition
)
"""


def _is_beside(process: Process, universe: Universe) -> bool:
    """Whether another one goes on should it stand still."""
    return any(one.serves and not one.stopped for one in universe.living if one is not process)


def answer_comes_late(universe: Universe) -> None:
    """One stands still that waits for an answer, until another has taken its claim over; then it
    finds that answer, perhaps while the other one waits long for an answer to the same."""
    seconds = LEASE * universe.chance.uniform(1.2, 2)
    together = universe.chance.random() < 0.7

    def watch(strand: Strand, what: str) -> bool:
        process = strand.process
        if process.dead or process.stopped or not universe.network.awaited(process):
            return False
        if not _is_beside(process, universe):
            return False
        asked = {(one.host, one.path, one.task): one for one in universe.network.awaited(process)}
        go_on = _stop([process], universe, seconds)

        def arrives(one: Arrival) -> bool:
            if one.process == process.name or (one.host, one.path, one.task) not in asked:
                return process.dead or not process.stopped
            answer = asked[one.host, one.path, one.task].kind
            one.kind = "hang" if answer.startswith("2") else "slow"  # another one than the first
            universe.baton.at(universe.baton.now, go_on)
            return True

        if together:
            universe.network.watches.append(arrives)
        return True

    universe.baton.watches.append(watch)


def suspend(universe: Universe) -> None:
    """The machine sleeps: time goes on, but for the clock that timers go by."""
    seconds = _standing(universe)
    universe.faults += 1
    universe.trace.note("machine", "sleeps for", seconds, "seconds")
    universe.machine.sleep_for(seconds)


def _standing(universe: Universe) -> float:
    seconds = 0.2, 2.0, LEASE / 2, LEASE * 1.5, LEASE * 3
    return universe.chance.choices(seconds, (3, 3, 2, 3, 1))[0]


def _one(universe: Universe) -> Process | None:
    serving = [one for one in universe.living if one.serves and not one.stopped]
    return universe.chance.choice(serving) if serving else None


def _stop(processes: list[Process], universe: Universe, seconds: float) -> Callable[[], None]:
    """Have these stand still; what has them go on, which comes by itself after so many seconds."""
    universe.faults += 1
    stands = True
    for process in processes:
        process.stopped = True
        process.stood.append((universe.baton.now, universe.baton.now + seconds))
        universe.trace.note(process.name, f"stands still for {seconds:.1f} seconds")

    def go_on() -> None:
        nonlocal stands
        if not stands:
            return
        stands = False
        for process in processes:
            process.stood[-1] = process.stood[-1][0], universe.baton.now
            if not process.dead:
                universe.trace.note(process.name, "goes on")
            universe.baton.resume(process)

    universe.baton.at(universe.baton.now + seconds, go_on)
    _perhaps_kill(universe, seconds)
    return go_on


# -- the disk --------------------------------------------------------------------------------------


def slow_disk(universe: Universe) -> None:
    """Each write takes its time."""
    pause = universe.chance.choice(((0.002, 0.02), (0.02, 0.2), (0.2, 1.5)))
    seconds = universe.chance.uniform(1, 8)
    disk = universe.machine.disk
    disk.pause = pause

    def go_on() -> None:
        disk.pause = None

    words = "is slow: {} to {} seconds for a write".format(*pause)
    _for_a_while(universe, "disk", words, "is quick again", seconds, go_on)


def full_disk(universe: Universe) -> None:
    """There is no room any more, or only a little."""
    disk = universe.machine.disk
    disk.free = universe.chance.choice((FULL, FULL, TIGHT))

    def go_on() -> None:
        disk.free, disk.free_since = PLENTY, universe.baton.now

    words = "is full" if disk.free == FULL else "has little room"
    seconds = universe.chance.uniform(0.5, 10)
    _for_a_while(universe, "disk", words, "has room again", seconds, go_on)


def disk_refuses_once(universe: Universe) -> None:
    """A page that cannot be read, or written, or brought to the disk."""
    universe.faults += 1
    disk = universe.machine.disk
    disk.refuses = universe.chance.choice(("read", "write", "sync"))
    universe.trace.note("disk", "refuses once to", disk.refuses)
    _watch_over(universe)


def _watch_over(universe: Universe) -> None:
    """Do as the watchdog does: end a daemon that is beyond help."""

    def look() -> None:
        for process in universe.living:
            why = process.fatal
            if why is not None and not process.stopped:
                words = why.replace(str(universe.path), "q.db")
                universe.kill(process, f"by its watchdog: {words}")
                for other in universe.living if universe.rule == "workers" else ():
                    other.stop()  # as the process does that has started them
        universe.baton.at(universe.baton.now + LOOKS, look)

    look()


def _for_a_while(
    universe: Universe,
    who: str,
    what: str,
    after: str,
    seconds: float,
    go_on: Callable[[], None],
) -> None:
    universe.faults += 1
    universe.trace.note(who, what, f"(for {seconds:.1f} seconds)")

    def end() -> None:
        universe.trace.note(who, after)
        go_on()

    universe.baton.at(universe.baton.now + seconds, end)
    _perhaps_kill(universe, seconds)


def _perhaps_kill(universe: Universe, seconds: float) -> None:
    """A fault seldom comes alone."""
    if universe.chance.random() < 0.4:
        deaths = (kill_at_turn, kill_in_transaction, kill_after_commit, kill_standing, cut_power)
        death = universe.chance.choices(deaths, (4, 3, 3, 3, 1))[0]
        later = universe.chance.uniform(0, min(seconds, 10))
        universe.baton.at(universe.baton.now + later, partial(_unless_calm, universe, death))


def kill_standing(universe: Universe) -> None:
    """Kill -9 of one that stands still; of any, if none does."""
    standing = [one for one in universe.living if one.stopped]
    if standing:
        universe.kill(universe.chance.choice(standing), "as it stands still")
    else:
        kill_at_turn(universe)


def _unless_calm(universe: Universe, fault: Callable[[Universe], None]) -> None:
    if not universe.calm:
        fault(universe)


# -- the clock -------------------------------------------------------------------------------------


def jumping_clock(universe: Universe) -> None:
    """Somebody sets the wall clock, and perhaps back again."""
    chance, machine = universe.chance, universe.machine
    by = chance.choice((1.5, 10.0, 90.0, 3600.0, FAR)) * chance.choice((1, -1))
    if abs(by) == FAR and len(machine.booted_at) > 1:
        by = 90.0
    universe.faults += 1

    def put(seconds: float) -> None:
        machine.wall_ahead += seconds
        machine.put_forward += max(seconds, 0.0)
        machine.jumps.append(universe.baton.now)
        machine.was_set = True
        machine.was_set_far |= abs(seconds) == FAR
        way = "forward" if seconds > 0 else "back"
        universe.trace.note("machine", f"has its wall clock put {way} by {abs(seconds)} seconds")

    put(by)
    # One that stands still meanwhile does not know of a time that others have gone by, and takes
    # what they wrote in it for old: that far, it is set right before anybody follows it.
    longest = 4 if abs(by) == FAR and universe.count > 1 else 90
    if chance.random() < 0.5:
        universe.baton.at(universe.baton.now + chance.uniform(0.5, longest), partial(put, -by))


FAULTS: dict[Callable[[Universe], None], float] = {
    kill_at_turn: 4,
    kill_in_transaction: 3,
    kill_after_commit: 2,
    cut_power: 2,
    terminate: 1,
    stand_still: 1,
    all_stand_still: 0.5,
    suspend: 0.5,
    slow_disk: 1,
    full_disk: 1,
    disk_refuses_once: 1,
    jumping_clock: 1,
}
"""Each, and how often it comes in comparison with the others."""
BY_LEASES: dict[Callable[[Universe], None], float] = {
    stand_after_commit: 1,
    stand_after_claim: 3,
    answer_comes_late: 3,
}
"""The same of those that matter where another daemon takes over what one has meanwhile."""
