"""The supervisor of a run with several workers: forks them, sees to it that they live, ends them.

It has read the configuration and loaded the plugins, so that its workers share that memory, and it
has no thread and no connection that a fork would tear apart. It holds what all of them need for the
life of the run, the instance lock and the listening sockets, and does as little as it can: what it
does not do cannot fail.

A newer version takes its place by executing itself in this process (`upgrade`): it forks workers of
its own, and once they serve it has those of the old version drain.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import math
import os
import selectors
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from orchestratord.daemon.shutdown import GRACE, end_fork
from orchestratord.runtime.systemd import SystemdNotifier
from orchestratord.runtime.upgrade import (
    BESIDE,
    SIGNALS,
    HandedOver,
    KeptWorker,
    Succession,
    take_signals,
)
from orchestratord.runtime.worker_seat import BEAT, FIRST, Message, WorkerSeat, receive, send
from orchestratord.values import world

log = logging.getLogger("orchestratord.supervisor")

AGAIN = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds until a worker that has died is forked again, by how many did within `WITHIN`."""
WITHIN = 60.0
MOST_DEATHS = 20
"""Deaths of workers within that time after which the run ends: it helps nothing."""
SILENT = 60.0
"""Seconds without a sign of life after which a worker is killed, at most; it would have ended
itself. Where systemd's watchdog allows less, it is that: only one worker is to die of it."""
BEGIN_WITHIN = 30.0
"""Seconds in which the workers of a new version have to serve, without those in which they bring
the database on; else the old ones go on."""
TURN = 1.0
"""Seconds between two looks."""
STOPPED = 5.0
"""Seconds between two looks after which all were stopped, or their machine was: what the workers
could not say meanwhile is no silence."""

BEYOND_HELP = 70
"""The exit code of a worker for which another one could do no better, as where the database is
gone: the run ends. EX_SOFTWARE in sysexits.h."""

PR_SET_PDEATHSIG = 1
"""As in prctl(2): which signal a process gets when its parent dies."""

Work = Callable[[WorkerSeat], int]
"""What a worker does in its process; its exit code."""


@dataclass(slots=True)
class _Child:
    number: int
    pid: int
    sock: socket.socket
    beat: float | None = None
    """When it gave its last sign of life; None until its loop goes round: a start may take long."""
    owner: str = ""
    """What it claims tasks as."""

    def silent(self, now: float) -> float:
        """For how many seconds it has given no sign of life."""
        return 0.0 if self.beat is None else now - self.beat


def keep_to_core(number: int, count: int) -> None:
    """Have this process, worker `number` of `count`, run on one core, where each core has a worker.

    Its loop and the thread that writes for it take turns, as one interpreter runs one of them at a
    time. Left alone, the kernel puts them on two cores, where each waits behind a thread of another
    worker while its own core is idle: `python -m bench --only deliveries-2,calls-alone-2`.
    """
    cores = sorted(os.sched_getaffinity(0))
    if count >= len(cores):
        # A sandbox may refuse it, and the cores may have changed just now: it works without.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {cores[(number - 1) % len(cores)]})


class Supervisor:
    """Runs `count` workers until a signal, or what does not go by, ends them."""

    def __init__(
        self,
        count: int,
        work: Work,
        notifier: SystemdNotifier,
        drain_timeout: float,
        succession: Succession | None = None,
    ) -> None:
        """
        Args:
            count: of the workers; 0 to go on with those of the version before.
            work: what each does.
            notifier: is told what the first worker says of all of them.
            drain_timeout: seconds for which they may drain.
            succession: what the next version needs of what this one has, and what the version
                before has left; it is given up in the end.
        """
        self._succession = succession or Succession(HandedOver())
        self._old = [
            _Child(one.number, one.pid, socket.socket(fileno=one.descriptor), owner=one.owner)
            for one in self._succession.workers
        ]
        """Workers of the version before, which drain once those of this one serve."""
        self._wanted = ""
        """How the next version is to take over, once it is asked for and the last one has."""
        self._upgrade = ""
        """How it takes over, once this one drains for it."""
        self._count = count
        self._work = work
        self._notifier = notifier
        self._silent = min(SILENT, notifier.watchdog_timeout or math.inf)
        self._beat = min(BEAT, self._silent / 4)
        self._drain_timeout = drain_timeout
        self._children: dict[int, _Child] = {}
        self._due: dict[int, float] = {}
        """When workers that have died are forked again (`world.monotonic`)."""
        self._deaths: deque[tuple[float, str]] = deque()
        """When workers have died lately, and what they claimed tasks as."""
        self._looked = world.monotonic()
        self._code: int | None = None
        """What the run ends with, once it does."""
        self._end_by = math.inf
        self._began = False
        """All of them have served."""
        self._begin_by = world.monotonic() + BEGIN_WITHIN if self._old else math.inf
        """When workers of the version before go on, unless all have served."""
        self._feeds = bool(self._old) or self._succession.held.succeeds
        """The service manager's watchdog waits for signs of life: it has heard that all serve, by
        this version or by the one before."""
        self._adopted: int | None = None
        """A descriptor of the configuration in force, where it is another than at the start."""
        self._fed = 0.0
        self._reloads = False
        """A reload was asked for, and the first worker has not said yet that it is through."""
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = []

    def run(self) -> int:
        """Until the last worker has ended; the exit code."""
        reading, writing = socket.socketpair()
        try:
            with reading, writing, self._selector:
                return self._run(reading, writing)
        finally:
            self._succession.end()

    def _run(self, reading: socket.socket, writing: socket.socket) -> int:
        reading.setblocking(False)
        writing.setblocking(False)
        signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        for signalled in SIGNALS:
            signal.signal(signalled, lambda found, _frame: self._signals.append(found))
        take_signals()
        self._selector.register(reading, selectors.EVENT_READ)
        for old in self._old:
            old.sock.setblocking(False)
            self._selector.register(old.sock, selectors.EVENT_READ, old)
        gc.freeze()
        if not self._count:
            self._go_back(self._succession.failure)
        for number in range(1, self._count + 1):
            self._try_to_fork(number)
        while self._code is None or self._children or self._old:
            self._turn(reading)
        signal.set_wakeup_fd(-1)
        if self._upgrade:
            self._notifier.watchdog()
            # What those that were killed meanwhile held is the next group's to take over.
            held = replace(self._succession.held, group=None)
            replace(held, drain_timeout=self._drain_timeout).execute()
        return self._code

    def _turn(self, bell: socket.socket) -> None:
        soonest = min([*self._due.values(), world.monotonic() + TURN, self._end_by])
        for key, _ in self._selector.select(max(soonest - world.monotonic(), 0.0)):
            if key.fileobj is bell:
                with contextlib.suppress(BlockingIOError):
                    bell.recv(4096)
            else:
                self._read(key.data)
        signals, self._signals = self._signals, []
        for number in signals:
            self._signalled(number)
        self._reap()
        now = world.monotonic()
        for number in [number for number, when in self._due.items() if when <= now]:
            del self._due[number]
            self._try_to_fork(number)
        self._watch(now)
        if self._wanted and self._began and self._code is None and not self._old:
            self._begin_upgrade()

    # -- the workers -------------------------------------------------------------------------------

    def _try_to_fork(self, number: int) -> None:
        """Fork a worker, or do so later where the machine lacks what that takes."""
        if not self._count:
            return  # it has gone back to the version before meanwhile
        try:
            self._fork(number)
        except OSError as error:
            if self._old and not self._began:
                self._go_back(f"worker {number} cannot be forked: {error}")
            else:
                wait = AGAIN[-1]
                self._due[number] = world.monotonic() + wait
                log.critical("worker %d cannot be forked: %s; again in %g s", number, error, wait)

    def _fork(self, number: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        # What comes before the worker has its own handlers is for those.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                ours.close()
                self._become(WorkerSeat(number, self._count, theirs, self._adopted, self._beat))
        except OSError:
            ours.close()
            raise
        finally:
            take_signals()
            theirs.close()
        ours.setblocking(False)
        child = self._children[number] = _Child(number, pid, ours)
        self._selector.register(ours, selectors.EVENT_READ, child)
        if number == FIRST and self._reloads:  # it waits there until the handler stands
            self._kill(signal.SIGHUP, [child])
        for other in self._children.values():
            if number != other.number and FIRST in (number, other.number):
                self._link(child, other)
        # There may have been none that lived to be told.
        for _, owner in self._deaths:
            send(ours, {"died": owner})

    def _become(self, seat: WorkerSeat) -> None:
        """Go on as a worker, in the process that was just forked, to its end."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            # A terminal sends these to all processes; what they mean is for the supervisor to say,
            # who tells the first worker to reload.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_DFL if seat.first else signal.SIG_IGN)
            take_signals(reload=not seat.first)
            # The kernel sees to it where the loop is held and does not hear that it is alone.
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            self._selector.close()
            for child in self._all():
                child.sock.close()  # or it would not be seen that the supervisor is gone
            self._succession.become_worker()
            keep_to_core(seat.number, self._count)
            code = self._work(seat)
        except BaseException:
            log.critical("worker %d has ended by an error", seat.number, exc_info=True)
        finally:
            end_fork(code)

    def _link(self, one: _Child, other: _Child) -> None:
        """Give two workers a stream between them."""
        left, right = socket.socketpair()
        with left, right:
            send(one.sock, {"link": other.number}, left.fileno())
            send(other.sock, {"link": one.number}, right.fileno())

    def _reap(self) -> None:
        for child in self._all():
            if child not in self._all():
                continue  # one that ended before has had this one ended
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                self._read_all()  # what it said, and the others, before it ended
                self._ended(child, os.waitstatus_to_exitcode(status))

    def _all(self) -> list[_Child]:
        return [*self._children.values(), *self._old]

    def _ended(self, child: _Child, code: int) -> None:
        if is_old := child in self._old:
            self._old.remove(child)
        else:
            del self._children[child.number]
        with contextlib.suppress(KeyError):  # its end was read before
            self._selector.unregister(child.sock)
        child.sock.close()
        if self._code is not None:
            # One that was still to begin ends by the signal itself.
            code = 0 if code == -signal.SIGTERM else code
            self._code = self._code or (code if code > 0 else int(code != 0))
            return
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        ended = child.number, child.pid, how
        if is_old:
            if code:
                log.error("worker %d (pid %d) of the version before ended %s", *ended)
            self._notify_of_death(child)
            return
        if not self._began and self._old:
            whose = f"worker {child.number} (pid {child.pid}) of the new version"
            self._go_back(f"{whose} ended {how}: the lines before say why")
            return
        if not self._began or code == BEYOND_HELP:
            # What keeps one from its start keeps the others as well.
            log.critical("worker %d (pid %d) ended %s", *ended)
            self._stop(1 if code < 0 or code == BEYOND_HELP else code)
            return
        now = world.monotonic()
        while self._deaths and self._deaths[0][0] < now - WITHIN:
            self._deaths.popleft()
        self._deaths.append((now, child.owner))
        if not self._count:
            then = "no worker takes its place: restart the daemon"
            log.critical("worker %d (pid %d) ended %s, and %s", *ended, then)
            self._notify_of_death(child)
            if child.number == FIRST or not self._children:
                self._stop(1)
            return
        if len(self._deaths) > MOST_DEATHS:
            death = f"the {len(self._deaths)}th death of a worker within {WITHIN:g} s"
            log.critical("worker %d (pid %d) ended %s, %s: the daemon ends", *ended, death)
            self._stop(1)
            return
        wait = AGAIN[min(len(self._deaths), len(AGAIN)) - 1]
        self._due[child.number] = now + wait
        when = f" in {wait:g} s" if wait else ""
        then = f"its tasks go on in the others, and another worker takes its place{when}"
        log.error("worker %d (pid %d) ended %s; %s", *ended, then)
        self._notify_of_death(child)

    def _notify_of_death(self, child: _Child) -> None:
        for other in self._all():
            send(other.sock, {"died": child.owner})

    # -- what they say -------------------------------------------------------------------------

    def _read_all(self) -> None:
        """Read what all have said by now."""
        while said := [key.data for key, _ in self._selector.select(0) if key.data is not None]:
            for child in said:
                self._read(child)

    def _read(self, child: _Child) -> None:
        try:
            found = receive(child.sock)
        except BlockingIOError:
            return
        if found is None:
            self._selector.unregister(child.sock)  # it is about to end
            return
        message, descriptors = found
        if child.beat is not None or message.get("notify") == "WATCHDOG=1":
            child.beat = world.monotonic()
        if "adopted" in message and descriptors and child not in self._old:
            if self._adopted is not None:
                os.close(self._adopted)
            self._adopted = descriptors.pop()
        for descriptor in descriptors:
            os.close(descriptor)
        self._heard(child, message)

    def _heard(self, child: _Child, message: Message) -> None:
        child.owner = message.get("owner", child.owner)
        if child in self._old:
            return
        self._wanted = message.get("upgrade", self._wanted)
        self._drain_timeout = message.get("drain_timeout", self._drain_timeout)
        if "opening" in message and not self._began and self._old:
            self._begin_by = world.monotonic() + BEGIN_WITHIN
        if message.get("serves") and not self._began:
            self._began = self._feeds = True
            self._begin_by = math.inf
            self._succession.complete()
            for old in self._old:
                send(old.sock, {"retire": True})
        lines = str(message.get("notify", ""))
        if not lines or lines == "WATCHDOG=1" or child.number != FIRST:
            return
        # A reload that ends before all serve makes no one ready, nor one that ends while they drain
        # for the next version.
        serves = self._began and not self._upgrade
        if "READY=1" in lines:
            self._reloads = False
        if not lines.startswith("STOPPING=1") and (serves or "READY=1" not in lines):
            self._notifier.pass_on(lines)

    def _watch(self, now: float) -> None:
        for child in self._all():
            if now - self._looked > STOPPED and child.beat is not None:
                child.beat = now
            if child.silent(now) > self._silent:
                # First this: it may hold what a line of the log waits for.
                os.kill(child.pid, signal.SIGKILL)
                child.beat = now
                killed = child.number, child.pid, self._silent
                log.error("worker %d (pid %d) has given no sign of life for %g s: killed", *killed)
        self._looked = now
        if now >= self._begin_by:
            self._go_back(f"the workers of the new version do not serve after {BEGIN_WITHIN:g} s")
        timeout = self._notifier.watchdog_timeout
        if self._feeds and timeout is not None and now - self._fed >= min(timeout / 4, 5.0):
            # A few signs of life late, and the service manager would have to wait in vain as well.
            if all(child.silent(now) < timeout / 2 for child in self._children.values()):
                self._notifier.watchdog()
            self._fed = now
        if now >= self._end_by:
            self._end_by = now + TURN
            for child in self._all():
                os.kill(child.pid, signal.SIGKILL)
                log.critical("worker %d (pid %d) has not ended: killed", child.number, child.pid)

    # -- the end -------------------------------------------------------------------------------

    def _signalled(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._reloads = True
            self._kill(signal.SIGHUP, [self._children[FIRST]] if FIRST in self._children else [])
        elif number in (signal.SIGTERM, signal.SIGINT):
            if self._code is None:
                self._stop(0)
            elif self._upgrade:  # it drains already, and is not to begin anew
                self._upgrade = ""
                self._notifier.draining(upgrades=False)
            else:
                log.critical(
                    "a second signal: aborting; the next start sorts out what was in flight"
                )
                self._kill(signal.SIGKILL, self._all())

    def _stop(self, code: int) -> None:
        self._code = code
        self._due.clear()
        self._notifier.draining(upgrades=bool(self._upgrade))
        self._end_by = world.monotonic() + self._drain_timeout + GRACE + TURN
        self._kill(signal.SIGTERM, self._all())

    # -- from one version to the next ----------------------------------------------------------

    def _begin_upgrade(self) -> None:
        if self._wanted == BESIDE:
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            if self._signals:
                take_signals()  # what came in the last moment is not to be lost
                return
            self._notifier.watchdog()
            try:
                self._keep().execute()
            except OSError as error:
                self._go_on(f"the new version cannot be executed: {error}")
            return
        log.warning("the new version cannot work beside this one: it begins once this one drained")
        self._upgrade = self._wanted
        self._stop(0)

    def _keep(self) -> HandedOver:
        kept = (
            KeptWorker(child.number, child.pid, child.owner, child.sock.fileno())
            for child in self._children.values()
        )
        return replace(
            self._succession.held, workers=tuple(kept), drain_timeout=self._drain_timeout
        )

    def _go_back(self, why: str) -> None:
        """The workers of the version before go on; those of this one end, and none is forked any
        more, which could not speak to those."""
        self._begin_by = math.inf
        ended = list(self._children.values())
        self._kill(signal.SIGKILL, ended)
        for child in ended:
            os.waitpid(child.pid, 0)
            with contextlib.suppress(KeyError):  # its end was read before
                self._selector.unregister(child.sock)
            child.sock.close()
        self._due.clear()
        self._children, self._old = {old.number: old for old in self._old}, []
        self._began, self._count = True, 0
        self._succession.go_back()
        for child in ended:
            self._notify_of_death(child)
        self._go_on(why)

    def _go_on(self, why: str) -> None:
        """Tell that an upgrade has failed, the workers too: they answer who asks, and another one
        may be asked for."""
        self._wanted = ""
        log.critical("the old version goes on: %s", why)
        for child in self._all():
            send(child.sock, {"upgrade_failed": why[:4000]})

    def _kill(self, number: int, children: Sequence[_Child]) -> None:
        for child in children:
            os.kill(child.pid, number)  # it is not reaped yet: this is no other process
