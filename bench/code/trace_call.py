"""Through how many files one call with a webhook goes, and how often from one to another.

\b
    python -m bench.code.trace_call              the figures
    python -m bench.code.trace_call --files      and each file, with the functions that are entered

A daemon as shipped runs in a process of its own, with one endpoint that has one webhook
(`after_request`), and a receiver on 127.0.0.1 takes both. After some calls that warm it up, several
are made one at a time; what each enters is recorded on all threads, from just before the request to
the API until the delivery is settled. What a part of the daemon does by itself is left out: a timer
or a task that entered nothing but what it also enters while there is no call. The figures are those
of the call with the fewest hops.

A file counts that has a function which was entered, for the first time or again after a wait.
Hops are counted in two ways. In order: in one thread, a function is entered or goes on that is in
another file than the one before it, which is what a reader has to turn to; on a way back nothing is
entered. By calls: a function is entered whose caller is in another file; the caller is the nearest
one of the product, whatever library is between them, and what the loop calls has none.

What stands in values/ and model/ counts apart: it says what things are, and not what happens to
them. Python 3.12 or newer is needed.
"""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import get_ident
from types import CodeType, FrameType

import click

from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until

ROOT = Path(__file__).parents[2]
PRODUCT = (f"{ROOT}/orchestratord/", f"{ROOT}/plugins/")
FROM_LOOP = asyncio.Handle._run.__code__
WARM = 5
CALLS = 7
SETTLED = 0.5
"""Seconds after the receiver has the delivery in which it is settled."""
IDLE = 12.0
"""Seconds in which each part of the daemon has done by itself whatever it does."""
APART = ("orchestratord/values/", "orchestratord/model/")


@dataclass(frozen=True, slots=True)
class Entry:
    """A function that was entered.

    Attributes:
        file: its path from the root.
        name: the function.
        caller: the file of the nearest caller of the product; None where there is none.
        again: it went on after it had waited.
        root: the outermost function of the product below the loop or the thread.
        thread: which one it was in.
    """

    file: str
    name: str
    caller: str | None
    again: bool
    root: str
    thread: int


@dataclass(frozen=True)
class Trace:
    """What one call entered, in order."""

    entries: Sequence[Entry] = field(default_factory=list)

    @cached_property
    def files(self) -> set[str]:
        return {entry.file for entry in self.entries}

    @property
    def functions(self) -> set[tuple[str, str]]:
        return {(entry.file, entry.name) for entry in self.entries}

    def without(self, idle: Trace) -> Trace:
        """This one, but for parts that did no more than they did in an idle time."""
        known = idle._by_root()
        own = {
            root for root, entered in self._by_root().items() if entered - known.get(root, set())
        }
        return Trace([entry for entry in self.entries if entry.root in own])

    def _by_root(self) -> dict[str, set[tuple[str, str]]]:
        found: dict[str, set[tuple[str, str]]] = defaultdict(set)
        for entry in self.entries:
            found[entry.root].add((entry.file, entry.name))
        return found

    def but_apart(self) -> Trace:
        """This one, without values/ and model/."""
        return Trace([entry for entry in self.entries if not apart(entry.file)])

    def hops(self) -> int:
        """How often another file comes in order."""
        last: dict[int, str] = {}
        count = 0
        for entry in self.entries:
            count += last.get(entry.thread, entry.file) != entry.file
            last[entry.thread] = entry.file
        return count

    def calls(self) -> Iterator[Entry]:
        """What was called from another file."""
        for entry in self.entries:
            if not entry.again and entry.caller is not None and entry.caller != entry.file:
                yield entry


def apart(file: str | None) -> bool:
    """Whether a file is of values/ or model/."""
    return file is not None and file.startswith(APART)


# -- in the daemon's process ---------------------------------------------------------------------


class Recorder:
    """Records what is entered between SIGUSR1 and SIGUSR2, and then writes it to `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: list[tuple[str, str, str | None, bool, str, int]] = []
        self._tool = sys.monitoring.PROFILER_ID
        sys.monitoring.use_tool_id(self._tool, "trace_call")
        events = sys.monitoring.events
        sys.monitoring.register_callback(self._tool, events.PY_START, self._entered)
        sys.monitoring.register_callback(self._tool, events.PY_RESUME, self._went_on)
        signal.signal(signal.SIGUSR1, self._begin)
        signal.signal(signal.SIGUSR2, self._end)

    def _begin(self, number: int, frame: FrameType | None) -> None:
        self._seen = []
        events = sys.monitoring.events
        sys.monitoring.set_events(self._tool, events.PY_START | events.PY_RESUME)
        self._path.with_suffix(".begun").touch()

    def _end(self, number: int, frame: FrameType | None) -> None:
        sys.monitoring.set_events(self._tool, 0)
        whole = self._path.with_suffix(".new")
        whole.write_text(json.dumps(self._seen))
        whole.replace(self._path)

    def _entered(self, code: CodeType, offset: int) -> None:
        self._note(code, sys._getframe(1), again=False)

    def _went_on(self, code: CodeType, offset: int) -> None:
        self._note(code, sys._getframe(1), again=True)

    def _note(self, code: CodeType, frame: FrameType | None, again: bool) -> None:
        if not code.co_filename.startswith(PRODUCT):
            return
        while frame is not None and frame.f_code is not code:
            frame = frame.f_back
        caller, root = None, code
        while (frame := frame and frame.f_back) is not None and frame.f_code is not FROM_LOOP:
            if frame.f_code.co_filename.startswith(PRODUCT):
                caller, root = caller or frame.f_code, frame.f_code
        above = None if caller is None else _short(caller)
        origin = f"{_short(root)}:{root.co_qualname}"
        self._seen.append((_short(code), code.co_qualname, above, again, origin, get_ident()))


def _short(code: CodeType) -> str:
    return os.path.relpath(code.co_filename, ROOT)


def inside(path: Path, command: Sequence[str]) -> None:
    """Run `orchestratord` with what follows in a command line that would run it."""
    Recorder(path)
    sys.argv = list(command[command.index("-m") + 1 :])
    runpy.run_module("orchestratord", run_name="__main__")


# -- the measurement -----------------------------------------------------------------------------


def measure(home: Path) -> list[Trace]:
    """A trace of each of some calls."""
    path = home / "trace.json"
    with Receiver() as receiver:
        daemon = Daemon(home / "d", {"PYTHONPATH": str(ROOT)}, egress={"allow": ["127.0.0.0/8"]})
        daemon.wrapper = [sys.executable, "-m", "bench.code.trace_call", "--inside", str(path)]
        daemon.api("shop", receiver.url)
        webhook = {
            "name": "crm", "phase": "after_request", "url": f"{receiver.url}/hook",
            "secret": "whsec_" + "YmVuY2htYXJrLW9mLW9yY2hlc3RyYXRvcmQ=",
        }  # fmt: skip
        daemon.endpoint(
            "shop/getUser", "/users", query={"id": "{{ params.id }}"}, webhooks=[webhook],
            params={"id": {"type": "integer"}},
        )  # fmt: skip
        receiver.on("/users", Answer(200, '{"name": "Ada"}', {"Content-Type": "application/json"}))
        receiver.on("/hook", Answer(204))

        def call() -> None:
            known = len(receiver.received())
            daemon.call("shop/getUser", id=7)
            until(lambda: len(receiver.received()) >= known + 2, "the delivery")
            time.sleep(SETTLED)

        with daemon:
            daemon.start()
            traces = [_recorded(daemon, path, call) for _ in range(WARM + CALLS)]
            idle = _recorded(daemon, path, lambda: time.sleep(IDLE))
            assert daemon.status()["queue"]["succeeded"] == 2 * len(traces)
        return [trace.without(idle) for trace in traces[WARM:]]


def _recorded(daemon: Daemon, path: Path, act: Callable[[], None]) -> Trace:
    """What a daemon enters meanwhile."""
    begun = path.with_suffix(".begun")
    path.unlink(missing_ok=True)
    begun.unlink(missing_ok=True)
    assert daemon.process is not None
    os.kill(daemon.process.pid, signal.SIGUSR1)
    until(begun.exists, "the recording")
    act()
    os.kill(daemon.process.pid, signal.SIGUSR2)
    until(path.exists, "what was recorded")
    return Trace([Entry(*entry) for entry in json.loads(path.read_text())])


def report(trace: Trace, files: bool) -> Iterator[str]:
    own = trace.but_apart()
    calls = list(trace.calls())
    own_calls = [call for call in calls if not apart(call.file) and not apart(call.caller)]
    yield "                           all   without values/ and model/"
    for title, whole, part in (
        ("files", len(trace.files), len(own.files)),
        ("hops in order", trace.hops(), own.hops()),
        ("calls into another file", len(calls), len(own_calls)),
        ("functions", len(trace.functions), len(own.functions)),
    ):
        yield f"{title:<24}{whole:>6}{part:>6}"
    if files:
        names: dict[str, dict[str, None]] = defaultdict(dict)
        for entry in trace.entries:
            names[entry.file][entry.name] = None
        into = Counter(call.file for call in calls)
        for file, entered in sorted(names.items(), key=lambda item: (apart(item[0]), item[0])):
            yield f"{into[file]:>6}  {file}: {', '.join(entered)}"


@click.command(help=__doc__)
@click.option("--files", is_flag=True, help="each file, too")
def main(files: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        traces = measure(Path(folder))
    for line in report(min(traces, key=Trace.hops), files):
        click.echo(line)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(Path(sys.argv[2]), sys.argv[3:])
    else:
        main(prog_name="python -m bench.code.trace_call")
