"""The daemon's log: one event, one line, on stderr; no secret, no control character.

Under systemd, where stderr is the journal, a line begins with its priority (`<4>`) and leaves the
time to the journal. The daemon's lines are written by a thread of their own: a stderr that is not
read, such as a full pipe, holds up nothing else.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import math
import os
import re
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import lru_cache
from types import TracebackType
from typing import Any, TextIO

from orchestratord.errors import AWAY, Unreachable
from orchestratord.model.settings import Log
from orchestratord.values import doc_links, world
from orchestratord.values.redact import Redactor

GATHER = 0.02
"""Seconds for which lines below WARNING are gathered: one write for many."""

MOST_QUEUED = 4 << 20
"""Characters of lines that wait for the thread that writes them; what does not fit is dropped."""
LEAVE_WITHIN = 0.8
"""Seconds for which that thread is waited for where the process ends, or forks."""

MAX_TEXT = 8_000
"""Characters of one message, and of the end of a traceback; what receivers answer can be long."""

QUIET = ("asyncio", "httpcore", "httpx", "peewee", "uvicorn", "watchdog", "schedule")
"""Libraries that say little of use below WARNING, some of it with whole URLs or parameters."""

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_SRCFILE: Any = vars(logging)["_srcfile"]
_OURS = re.compile(r"orchestratord(?!\.plugins\.)(?:\.|$)")
"""Loggers of which the documentation explains each warning."""
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PRINTABLE = bytes(range(0x20, 0x7F))
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


class LogHandler(logging.StreamHandler[TextIO]):
    """Writes the records of everything in the process; made by `set_up`."""

    def __init__(self, stream: TextIO, *, journal: bool) -> None:
        """
        Args:
            stream: where lines go.
            journal: whether it is the journal's.
        """
        super().__init__(stream)
        self._journal = journal
        self._json = False
        self._redactor = Redactor()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._gathered: list[str] = []
        self._now, self._start = 0, ""
        """The millisecond of the line that was gathered last, and how it began."""
        self._turn: int | None = None
        """A descriptor; who has locked the file writes, where other processes do so as well."""
        self._apart: int | None = None
        """The stream's descriptor, where a thread writes to it."""
        self._begin_queue()
        self._hooks = (sys.excepthook, threading.excepthook, sys.unraisablehook)

    def adopt(self, settings: Log, redactor: Redactor) -> None:
        """Take over level, format and secrets, at start and at each reload.

        A secret that was known once stays masked.
        """
        self._json = settings.format == "json"
        if self._json:
            doc_links.base()  # while files can be opened
        self._redactor = self._redactor.merged(redactor)
        logging.getLogger().setLevel(settings.level.upper())

    def share_stream(self) -> None:
        """Processes that are forked from now on write to the same stream: no line is to come
        within another, as long ones would in a pipe."""
        self._turn = os.memfd_create("log")

    def write_apart(self) -> None:
        """Have a thread write from now on, which may wait for the reader of the stream."""
        with suppress(OSError, ValueError):
            self._apart = self.stream.fileno()
            # A fork would tear the thread apart: it ends before, and begins anew with a line.
            os.register_at_fork(before=self._leave, after_in_child=self._begin_queue)

    def gather(self, loop: asyncio.AbstractEventLoop) -> None:
        """Write what the running `loop` logs below WARNING a moment later, many lines at a time.

        A daemon logs each attempt; writing each line by itself would let all threads change places
        each time. What is worse than INFO is written at once, after what was gathered.
        """
        self._loop, self._thread = loop, threading.get_ident()

    def write_through(self) -> None:
        """Write each line by itself again, as before `gather`."""
        self._loop = None
        self._pass_on()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write a record. That the database is away is told once, by the writing thread;
        what has to wait for it is told of at DEBUG."""
        errors = [one for one in record.args or () if isinstance(one, Unreachable)]
        away = any(one.code == AWAY for one in errors) and record.levelno < logging.CRITICAL
        return bool(super().filter(record)) and not (away and logging.root.level > logging.DEBUG)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or gather it."""
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        self._gather([line], at_once=record.levelno >= logging.WARNING)

    def put(self, name: str, lines: Sequence[str]) -> bool:
        """Gather lines of level INFO without a record for each; False where it takes one.

        `name` is the logger's.
        """
        loop = self._loop
        if loop is None or self._json or self.filters or self.level > logging.INFO:
            return False
        if threading.get_ident() != self._thread:
            return False
        if self._journal:
            start = "<6>INFO"
        else:
            now = int(world.time() * 1000)
            if now != self._now:
                self._now = now
                self._start = f"{_second(now // 1000)}.{now % 1000:03d}Z INFO"
            start = self._start
        start = f"{start} {name.removeprefix('orchestratord.')}: "
        together = "".join(lines)  # one search for all of them
        if (
            max(map(len, lines)) > MAX_TEXT
            or not _is_printable(together)
            or self._redactor.text(together) != together
        ):
            lines = [escape(_cut(self._redactor.text(line))) for line in lines]
        self._gather([start + f"\n{start}".join(lines)])
        return True

    def flush(self) -> None:
        """Write what was gathered, and wait until all is written, though not for ever."""
        self._pass_on()
        if self._apart is not None:
            self._leave()

    def _gather(self, lines: Sequence[str], *, at_once: bool = False) -> None:
        loop = self._loop
        if loop is None or at_once or threading.get_ident() != self._thread:
            self._pass_on(lines)
            return
        with self.lock or nullcontext():  # a line of another thread takes what was gathered
            if not self._gathered:
                loop.call_later(GATHER, self._pass_on)
            self._gathered += lines

    def _pass_on(self, more: Sequence[str] = ()) -> None:
        """Write what was gathered, and `more`, or have it written."""
        with self.lock or nullcontext(), suppress(OSError, ValueError):  # as in handleError
            lines, self._gathered = [*self._gathered, *more], []
            text = "\n".join([*lines, ""])
            if self._apart is not None:
                self._enqueue(text)
            elif text:
                with self._our_turn():
                    self.stream.write(text)
                    self.stream.flush()

    # -- the thread that writes ----------------------------------------------------------------

    def _begin_queue(self) -> None:
        self._queue: world.SimpleQueue[str] = world.SimpleQueue()
        """What is to be written; an empty text has the thread end."""
        self._writer: world.Thread | None = None
        self._put = self._written = self._dropped = 0
        """Characters, of which the thread alone counts the second; and lines that did not fit."""

    def _enqueue(self, text: str) -> None:
        if sys.is_finalizing():
            return  # no thread runs any more, nor begins
        if len(text) > MOST_QUEUED - (self._put - self._written):
            self._dropped += text.count("\n")
        elif text:
            self._put += len(text)
            self._queue.put(text)
            if self._writer is None or not self._writer.is_alive():
                self._writer = world.Thread(target=self._write, name="log", daemon=True)
                with suppress(RuntimeError):  # none can be had now: a later line tries again
                    self._writer.start()

    def _leave(self) -> None:
        """Have the thread end once it has written all, and wait for that a little."""
        if self._writer is not None and self._writer.is_alive():
            self._queue.put("")
            self._writer.join(LEAVE_WITHIN)

    def _write(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the others
        while (text := self._queue.get()) or not self._queue.empty():
            left = text.encode(self.stream.encoding, "backslashreplace")
            try:
                with self._our_turn():
                    while left:
                        left = left[self._write_some(left) :]
            except OSError:  # it is closed, or on a full disk
                self._dropped += left.count(b"\n")
            self._written += len(text)
            if self._dropped and self._put - self._written < MOST_QUEUED // 2:
                self._log_dropped()

    def _write_some(self, text: bytes) -> int:
        try:
            return os.write(self._apart or 0, text)
        except BlockingIOError:  # a full pipe, to which writes do not wait
            select.select((), (self._apart or 0,), ())
            return 0

    def _log_dropped(self) -> None:
        with self.lock or nullcontext():
            dropped, self._dropped = self._dropped, 0
        _log.warning("%d lines of the log are lost, as they were not read in time", dropped)

    @contextmanager
    def _our_turn(self) -> Iterator[None]:
        if self._turn is None:
            yield
            return
        fcntl.lockf(self._turn, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._turn, fcntl.LOCK_UN)

    def remove(self) -> None:
        """Undo `set_up`."""
        self.write_through()
        logging.getLogger().removeHandler(self)
        logging.captureWarnings(False)
        sys.excepthook, threading.excepthook, sys.unraisablehook = self._hooks
        logging.logThreads = logging.logProcesses = logging.logMultiprocessing = True
        logging._srcfile = _SRCFILE

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, without its end."""
        line = self._object(record) if self._json else self._sentence(record)
        return f"<{priority(record.levelno)}>{line}" if self._journal else line

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A log that cannot be written (its reader is gone, the disk is full) stops nothing."""

    def _sentence(self, record: logging.LogRecord) -> str:
        name = record.name.removeprefix("orchestratord.")
        parts = [] if self._journal else [_time(record)]
        parts += [record.levelname, f"{name}:", escape(self._message(record))]
        if trace := self._trace(record):
            lines = (line.strip() for line in trace.splitlines())
            # Markers below a source line say nothing once they are not below it.
            parts += ["|", escape(" | ".join(line for line in lines if line.strip("^~ ")))]
        return " ".join(parts)

    def _object(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._message(record),
        }
        for name, value in vars(record).items():
            if name not in _OWN and name not in fields:
                fields[self._redactor.text(name)] = self._redactor.value(_plain(value))
        if record.levelno >= logging.WARNING and "help" not in fields and _OURS.match(record.name):
            fields |= {"help": link} if (link := doc_links.message(str(record.msg))) else {}
        if trace := self._trace(record):
            fields["exception"] = trace
        # Everything that a terminal could take for a command is written as \uXXXX.
        return json.dumps(fields, ensure_ascii=True).replace("\x7f", "\\u007f")

    def _message(self, record: logging.LogRecord) -> str:
        try:
            text = record.getMessage()
        except Exception as error:  # a wrong call of the logger, a plugin's for example
            text = f"{record.msg!r} with {record.args!r}: {error}"
        return _cut(self._redactor.text(text))

    def _trace(self, record: logging.LogRecord) -> str:
        text = record.stack_info or ""
        if record.exc_info and record.exc_info[0] is not None:
            text += "".join(traceback.format_exception(*record.exc_info))
        text = self._redactor.text(text.strip())
        return text if len(text) <= MAX_TEXT else f"…{text[-MAX_TEXT:]}"


def set_up(
    settings: Log | None = None,
    redactor: Redactor | None = None,
    *,
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
) -> LogHandler:
    """Send all logs of the process through one handler, warnings and uncaught exceptions too.

    Args:
        settings: level and format; the defaults until the configuration has been read.
        redactor: the secrets that are masked.
        stream: stderr if left out.
        environ: `$JOURNAL_STREAM` says whether stderr is the journal's.
    """
    stream = stream if stream is not None else sys.stderr
    handler = LogHandler(stream, journal=_is_journal(stream, environ))
    handler.adopt(settings or Log(), redactor or Redactor())
    logging.getLogger().addHandler(handler)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    # No format shows which thread, process or line of code a record comes from; to find that out
    # takes longer than to write it. All of these are what logging's documentation advises.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    # An uncaught exception would be printed raw, over many lines.
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable
    return handler


def info(
    log: logging.Logger,
    lines: Sequence[str],
    fields: Callable[..., Mapping[str, Any]],
    about: Iterable[tuple[Any, ...]],
) -> None:
    """Log lines of which there may be thousands a second: `log.info("%s", line)`, in a fraction of
    the time where the daemon's own handler is the only one.

    Args:
        log: whose lines they are; one that is right below `orchestratord`.
        lines: some that are logged at once.
        fields: makes what the JSON format has beside a line.
        about: of what, for each line.
    """
    if not lines or not log.isEnabledFor(logging.INFO):
        return
    handlers = logging.root.handlers
    if (
        len(handlers) == 1
        and isinstance(handlers[0], LogHandler)
        and not (log.handlers or _log.handlers or log.filters)
        and logging.getLogRecordFactory() is logging.LogRecord
        and handlers[0].put(log.name, lines)
    ):
        return
    for line, one in zip(lines, about, strict=True):
        log.info("%s", line, extra=fields(*one))


def priority(level: int) -> int:
    """The syslog priority of a logging level, as journald reads it in `<N>`."""
    return next((number for least, number in _PRIORITIES if level >= least), 7)


def _is_printable(text: str) -> bool:
    """`text.isprintable()`; of ASCII, as nearly all is, in a quarter of the time."""
    if text.isascii():
        return not text.encode().translate(None, _PRINTABLE)
    return text.isprintable()


def escape(text: str) -> str:
    """`text` on one line: whatever is not plainly visible is written as `\\n` or `\\u001b`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _SHORT.get(c) or _code(c) for c in text)


def _code(character: str) -> str:
    return json.dumps(character)[1:-1] if ord(character) != 0x7F else "\\u007f"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text)} characters)"


def _time(record: logging.LogRecord) -> str:
    return f"{_second(int(record.created))}.{int(record.msecs):03d}Z"


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float) or value is None else str(value)


def _is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


_log = logging.getLogger("orchestratord")


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _log.critical(
        "an uncaught exception, %s: %s", kind.__name__, error, exc_info=(kind, error, trace)
    )


def _uncaught_in_thread(uncaught: threading.ExceptHookArgs) -> None:
    error = uncaught.exc_value or uncaught.exc_type()
    name = uncaught.thread.name if uncaught.thread else "?"
    _log.critical(
        "an uncaught exception in thread %s, %s: %s",
        name,
        type(error).__name__,
        error,
        exc_info=error,
    )


def _unraisable(unraisable: Any) -> None:
    error = unraisable.exc_value
    text = unraisable.err_msg or "exception ignored in"
    _log.error(
        "an exception that nothing could catch: %s %r: %s",
        text,
        unraisable.object,
        error,
        exc_info=error,
    )
