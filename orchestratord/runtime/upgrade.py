"""Going on as a newer version of the program: the same process executes it, and keeps what it has.

What is kept are descriptors: the instance lock, the listening sockets, and the ends that lead to
workers of the old version. They are named in one variable of the environment. A program that cannot
start would leave nothing to go back to, so it is examined first, in a process of its own.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NoReturn

from orchestratord.errors import Conflict, UpgradeUnderWay
from orchestratord.queue import schema
from orchestratord.runtime.worker_seat import WorkerSeat
from orchestratord.values import world

BESIDE, DRAINED = "beside", "drained"
"""How a new version takes over: while the old workers go on, or after they have drained."""
VARIABLE = "ORCHESTRATORD_HANDED_OVER"
EXAMINE = "--examine"
EXAMINED_WITHIN = 60.0
"""Seconds in which the new version has to have read the configuration."""
LAPSES = 120.0
"""Seconds after which another upgrade may be asked for, whatever was heard of the last one: that it
has failed is told once, and may be lost."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
"""What is held back until the new version takes it."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What a version of the program says of itself."""

    version: str
    schema: int
    """Of the queue, that it brings it to."""
    compatible_from: int
    """The oldest schema whose daemons can go on beside it."""

    @property
    def fits(self) -> bool:
        """Whether workers of this version may go on while it works."""
        return self.compatible_from <= schema.VERSION


@dataclass(frozen=True, slots=True)
class KeptWorker:
    """A worker of the version before."""

    number: int
    pid: int
    owner: str
    descriptor: int
    """Of the socket that leads to it."""


@dataclass(frozen=True, slots=True)
class HandedOver:
    """What one version leaves to the next: `control`, `tcp` and `lock` are descriptors."""

    workers: tuple[KeptWorker, ...] = ()
    control: int | None = None
    tcp: int | None = None
    lock: int | None = None
    drain_timeout: float | None = None
    """Seconds for which the workers may drain."""
    activated: tuple[str, ...] = ()
    """Which of the sockets, `control` and `tcp`, are the service manager's."""
    ports: tuple[int, ...] = ()
    """Descriptors of further sockets for TCP, which are told apart by where they listen. They are
    the service manager's where `tcp` is."""
    group: str | None = None
    """The process group of `workers`, which the next ones belong to."""
    succeeds: bool = False
    """The version before has left this, in the same process."""

    @classmethod
    def take(cls, environ: MutableMapping[str, str] = os.environ) -> HandedOver | None:
        """What was handed over to this process; None where it is no successor."""
        text = environ.pop(VARIABLE, None)
        if text is None:
            return None
        found: dict[str, Any] = json.loads(text)
        kept = tuple(KeptWorker(**worker) for worker in found["workers"])
        # Another version may have more to say.
        known = {name: found[name] for name in found.keys() & {one.name for one in fields(cls)}}
        known |= {"workers": kept, "ports": tuple(found.get("ports", ())), "succeeds": True}
        handed_over = cls(**known)
        for descriptor in handed_over.descriptors():
            os.set_inheritable(descriptor, False)
        return handed_over

    def copied(self) -> HandedOver:
        """A copy, with descriptors of its own for the listening sockets and the lock."""
        control, tcp, lock = (
            None if found is None else os.dup(found)
            for found in (self.control, self.tcp, self.lock)
        )
        ports = tuple(map(os.dup, self.ports))
        return replace(self, control=control, tcp=tcp, lock=lock, ports=ports)

    @property
    def control_path(self) -> str | None:
        """Where the control socket stands; None for the service manager's, which stays."""
        if self.control is None or "control" in self.activated:
            return None
        with socket.socket(fileno=os.dup(self.control)) as sock:
            found = sock.getsockname()
        return found if isinstance(found, str) and found else None

    def give_up(self, beside: HandedOver | None = None) -> None:
        """Close what is held, but for what leads to workers, and remove the control socket.

        `beside`: of another version, whose control socket may stand at the same place.
        """
        path = self.control_path
        if path is not None and (beside is None or beside.control_path != path):
            with suppress(OSError):  # before the lock is given up: then it may be another daemon's
                os.unlink(path)
        self.close()

    def close(self) -> None:
        """Close what is held, in this process, but for what leads to workers."""
        for descriptor in self._own():
            os.close(descriptor)

    def _own(self) -> list[int]:
        mine = (self.control, self.tcp, *self.ports, self.lock)
        return [found for found in mine if found is not None]

    def descriptors(self) -> list[int]:
        """All of them."""
        return [*self._own(), *(worker.descriptor for worker in self.workers)]

    def execute(self) -> NoReturn:
        """Become the program as it is on disk now, with the arguments of this one.

        Raises OSError where that cannot be executed; all is as before then.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        for descriptor in self.descriptors():
            os.set_inheritable(descriptor, True)
        os.environ[VARIABLE] = json.dumps(asdict(self))
        sys.stdout.flush()
        for handler in logging.getLogger().handlers:
            handler.flush()
        try:
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  # ourselves
        except OSError:
            del os.environ[VARIABLE]
            for descriptor in self.descriptors():
                os.set_inheritable(descriptor, False)
            take_signals()
            raise


Release = Callable[[HandedOver | None], None]


class Succession:
    """What a supervisor holds for its workers and, until these serve, what the version before held
    for its own: where they do not come to serve, that is what the old workers go on with."""

    def __init__(
        self, held: HandedOver, before: HandedOver | None = None, release: Release | None = None
    ) -> None:
        """
        Args:
            held: by this version.
            before: what the version before has left, with its workers.
            release: gives up what this version holds; it is told of `before` as long as that may
                have to go on. None: `HandedOver.give_up` of it does.
        """
        self.held = held
        self.workers = () if before is None else before.workers
        """Those of the version before."""
        self._before = before
        self._release = release or held.give_up
        self.failure = ""
        """Why this version does not begin at all, but looks after the workers of the one before."""

    def become_worker(self) -> None:
        """In the process of a worker of this version: what was held before is not for it to hold,
        as the instance lock of another database."""
        if self._before is not None:
            self._before.close()

    def complete(self) -> None:
        """The workers of this version serve: what was held before is needed no more. The old ones
        have their copies until they have drained, and so the old instance lock, too."""
        if self._before is not None:
            before, self._before = self._before, None
            before.give_up(self.held)

    def go_back(self) -> None:
        """The workers of the version before go on."""
        if self._before is not None:
            self._release(self._before)
            self.held, self._before = self._before, None
            self._release = self.held.give_up

    def end(self) -> None:
        """The run is over."""
        self._release(self._before)
        if self._before is not None:
            self._before.give_up()


def take_signals(*, reload: bool = True) -> None:
    """Take what was held back while one version became the next; but for the wish to reload, where
    that waits until there is what does it (`reload` false)."""
    waits = set() if reload else {signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*SIGNALS} - waits)


def what_this_is() -> str:
    """What `Examined` has of this version, as `examine` reads it."""
    version = importlib.metadata.version("orchestratord")
    return json.dumps(asdict(Examined(version, schema.VERSION, schema.compatible_from())))


async def examine() -> Examined:
    """Have the program as it is on disk now say what it is.

    Raises Conflict, with what it says, where it cannot start.
    """
    command = (sys.executable, *sys.orig_argv[1:], EXAMINE)
    process = await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    )
    try:
        async with asyncio.timeout(EXAMINED_WITHIN):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise Conflict(
            f"the new version has not read the configuration within {EXAMINED_WITHIN:g} s; the old "
            "one goes on"
        ) from None
    if process.returncode != 0:
        words = err.decode("utf-8", "replace").strip() or "it says nothing"
        raise Conflict(
            f"the new version cannot start (exit code {process.returncode}), the old one goes on: "
            f"{words}"
        )
    try:
        return Examined(**json.loads(out.decode().splitlines()[-1]))
    except (ValueError, TypeError, IndexError):
        raise Conflict("the new version does not say what it is; the old one goes on") from None


class Upgrade:
    """The wish to go on as the version that is on disk."""

    def __init__(self, seat: WorkerSeat | None) -> None:
        """`seat`: of this worker, whose supervisor carries it out; None for a daemon alone."""
        self.asked = asyncio.Event()
        """The daemon, which has no supervisor, is to drain and to go on as that."""
        self.failure: str | None = None
        """Why the last one that was asked for did not happen, once that is known."""
        self._under_way_until = 0.0
        self._seat = seat
        # As of now: an older version that is installed has no file that says it.
        self._compatible_from = schema.compatible_from()

    async def begin(self) -> dict[str, Any]:
        """Have it begin: which `version` it is, and whether what is in flight is waited for before
        (`drains_first`).

        Raises Conflict where that version cannot start, UpgradeUnderWay where another one has begun
        less than `LAPSES` ago, and neither taken over nor failed.
        """
        if (now := world.monotonic()) < self._under_way_until:
            raise UpgradeUnderWay
        self._under_way_until, self.failure = now + LAPSES, None
        try:
            found = await examine()
            if self._compatible_from > found.schema:
                raise Conflict(
                    f"version {found.version} is too old for the database, which this one has "
                    "brought on; the one at work goes on"
                )
            drains = self._seat is None or not found.fits
            if self._seat is None:
                self.asked.set()
            elif not self._seat.notify(upgrade=DRAINED if drains else BESIDE):
                raise Conflict("the supervisor has too much to hear at this moment; ask again")
            return {"version": found.version, "drains_first": drains}
        except BaseException:
            self._under_way_until = 0.0
            raise

    def failed(self, why: str) -> None:
        """The new version did not come to serve; this one goes on."""
        self._under_way_until, self.failure = 0.0, why
