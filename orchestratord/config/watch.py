"""Noticing that the config folder changed, however it was changed.

Events of the file system are a hint to look at once, and no more: they come for our own reading,
and do not come for a folder that was replaced, for a network's, or where the system has no watches
left. What counts is a digest of all that is read; it is compared after each burst of events, and
every few seconds besides, with that of what was read last.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from watchdog import events
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from orchestratord.config.folder import SUFFIXES, KnownFiles, read_folder
from orchestratord.plugin.long_work import yield_gil
from orchestratord.values import world

log = logging.getLogger("orchestratord.config.watch")

CHANGED = "file change"
"""The cause that is told after events."""
POLLED = "poll"
"""The cause of a change that no event told of."""

_GLANCE = 1.0
"""Seconds between two looks at whether the folder itself is still the same one."""

_EVENTS = [
    events.DirCreatedEvent, events.DirDeletedEvent, events.DirModifiedEvent, events.DirMovedEvent,
    events.FileClosedEvent, events.FileCreatedEvent, events.FileDeletedEvent,
    events.FileModifiedEvent, events.FileMovedEvent,
]  # fmt: skip
"""All but those that reading causes, our own first of all."""
_WRITING = frozenset({"modified", "closed"})

# watchdog calls it an error where events come in while their observer is being stopped.
logging.getLogger("watchdog.observers.inotify").addFilter(
    lambda record: "thread is inactive" not in record.getMessage()
)
# And it warns where a folder is reported just when it has been found by itself, or is gone again.
warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"watchdog\.observers\.inotify")


class Watcher:
    """Watches one folder in a thread of its own."""

    def __init__(
        self,
        folder: Path,
        changed: Callable[[str], None],
        *,
        known: Callable[[], str] | None = None,
        files: KnownFiles | None = None,
        debounce: float = 0.5,
        poll: float = 10.0,
    ) -> None:
        """
        Args:
            folder: the config folder; it may vanish and come back.
            changed: called with the cause, in the watcher's thread, each time the content changed.
            known: the digest of what was read last; by default of what was there at the last look.
            files: those that were read last; looking costs little then.
            debounce: seconds without an event that end a burst of them; a burst that does not end
                is looked into after ten times as long.
            poll: seconds between two looks without any event.
        """
        self._folder = folder
        self._changed = changed
        self._digest = ""
        self._known = known or (lambda: self._digest)
        self._files = files or KnownFiles()
        self._debounce = debounce
        self._poll = poll
        self._stopping = False
        self._burst = _Burst()
        self._observer: BaseObserver | None = None
        self._watched: tuple[int, int] | None = None
        """Device and inode of the folder that events come from; None while there is none."""
        self._reported = ""
        self._unwatched: list[str] = []
        self._thread = world.Thread(target=self._run, name="config-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch; changes from now on are told."""
        self._digest = self._known() or read_folder(self._folder, self._files).whole
        self._thread.start()

    def stop(self) -> None:
        """End the watching; nothing is told afterwards."""
        with self._burst.woken:
            self._stopping = True
            self._burst.woken.notify()
        if self._thread.is_alive():
            self._thread.join(5)
        self._unwatch()

    # -- the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        # A watch for each of many folders takes its time, in which the first changes may come.
        self._burst.note()
        self._watch()
        while cause := self._wait():
            try:
                self._look(cause)
            except Exception:
                log.exception("cannot check the config folder; the next check follows")

    def _wait(self) -> str | None:
        """Until a burst of events is over, or the time for a poll has come, which of the two; None
        to end."""
        deadline, burst = world.monotonic() + self._poll, self._burst
        with burst.woken:
            while not self._stopping:
                now = world.monotonic()
                due = deadline
                if burst.first is not None:  # what a poll saw now might be half of a change
                    due = min(burst.last + self._debounce, burst.first + 10 * self._debounce)
                if now >= due or (burst.first is None and self._replaced()):
                    cause = POLLED if burst.first is None else CHANGED
                    burst.first = None
                    return cause
                burst.woken.wait(min(due - now, _GLANCE))
            return None

    def _replaced(self) -> bool:
        return _identity(self._folder) != self._watched

    def _look(self, cause: str) -> None:
        if self._replaced() or not self._alive():
            self._watch()
        with yield_gil() as breathe:
            digest = read_folder(self._folder, self._files, breathe).whole
        if digest != self._known():
            self._digest = digest
            self._changed(cause)

    # -- events ----------------------------------------------------------------------------

    def _watch(self) -> None:
        """Have events of the folder as it is now; without them the poll alone serves."""
        self._unwatch()
        self._watched = _identity(self._folder)
        if self._watched is None:
            return
        try:
            observer = Observer()
            handler = _Handler(self._burst, self._files)
            observer.schedule(handler, str(self._folder), recursive=True, event_filter=_EVENTS)
            observer.start()
        except Exception as error:  # no watches left, or whatever else the system says
            self._report(str(self._folder), error)
            return
        self._observer = observer
        self._unwatched = unwatched(self._folder)
        if self._unwatched:
            # watchdog goes on without those for which there was no watch left.
            more = len(self._unwatched) - 1
            others = f" and {more} other folder{'s' * (more > 1)}" if more else ""
            reason = OSError(errno.ENOSPC, "inotify watch limit reached")
            self._report(f"{self._unwatched[0]}{others}", reason)
        elif self._reported:
            log.info("file events come from %s again", self._folder)
            self._reported = ""

    def _report(self, where: str, error: Exception) -> None:
        """Say once that no events come from somewhere."""
        if str(error) != self._reported:
            log.warning(
                "no file events come from %s: %s; the folder is polled every %g s%s",
                where,
                _reason(error),
                self._poll,
                _remedy(error),
            )
        self._reported = str(error)

    def _unwatch(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()
            observer.join(5)

    def _alive(self) -> bool:
        observer = self._observer
        return (
            observer is not None
            and not self._unwatched
            and observer.is_alive()
            and all(emitter.is_alive() for emitter in observer.emitters)
        )


class _Burst:
    """Events that follow each other: from watchdog's thread to the watcher's."""

    def __init__(self) -> None:
        self.woken = world.Condition()
        """Notified of each event."""
        self.first: float | None = None
        """When the present burst began (`world.monotonic`); None while there is none."""
        self.last = 0.0
        """When its last event came."""

    def note(self) -> None:
        """There was an event."""
        with self.woken:
            self.last = world.monotonic()
            if self.first is None:
                self.first = self.last
            self.woken.notify()


class _Handler(events.FileSystemEventHandler):
    """Passes on what may matter. It must not raise: that would end the observer."""

    def __init__(self, burst: _Burst, files: KnownFiles) -> None:
        self._burst = burst
        self._files = files

    def on_any_event(self, event: events.FileSystemEvent) -> None:
        # A database in the folder is written to all the time; files come and go more seldom, and
        # under names that say little: editors rename, a ConfigMap moves `..data`.
        path = os.fsdecode(event.src_path)
        written = event.event_type in _WRITING
        if not written or path.endswith(SUFFIXES) or path in self._files.attached:
            self._burst.note()


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _remedy(error: Exception) -> str:
    """What an operator can do about it."""
    if not isinstance(error, OSError):
        return ""
    limit = {errno.ENOSPC: "max_user_watches", errno.EMFILE: "max_user_instances"}.get(
        error.errno or 0
    )
    return f" (raise fs.inotify.{limit} for events)" if limit else ""


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino


# -- which folders the kernel watches for this process, and which it does not ----------------------

_WATCHED = re.compile(r"^inotify wd:\S+ ino:([0-9a-f]+)", re.MULTILINE)


def unwatched(folder: Path) -> list[str]:
    """The folders below one that nothing in this process watches; none where that is not known."""
    inodes = list(_watched())
    folders = list(_folders(str(folder)))
    # Counted first: in an overlay the kernel knows folders by other numbers than we do.
    if not inodes or len(inodes) > len(folders):
        return []
    known = set(inodes)
    return [path for path, inode in folders if inode not in known]


def _watched() -> Iterator[int]:
    """The inodes that are watched."""
    with suppress(OSError), os.scandir("/proc/self/fd") as handles:
        for handle in handles:
            with suppress(OSError):
                if os.readlink(handle) == "anon_inode:inotify":
                    text = Path(f"/proc/self/fdinfo/{handle.name}").read_text()
                    yield from (int(found, 16) for found in _WATCHED.findall(text))


def _folders(folder: str) -> Iterator[tuple[str, int]]:
    for path, names, _ in os.walk(folder):
        for name in names:
            below = f"{path}/{name}"
            with suppress(OSError):
                # A link is not followed: what it leads to is not in the folder.
                if not os.path.islink(below):
                    yield below, os.stat(below).st_ino
