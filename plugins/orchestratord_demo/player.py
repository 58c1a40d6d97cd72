"""Plays the story: places its calls, shows what happens, and counts at the end.

The screen has lines that stay, and below them one that says what is waiting. Without a terminal
there are only the lines; NO_COLOR and TERM=dumb take the colours away.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from orchestratord import escape, format_duration
from orchestratord_demo import story
from orchestratord_demo.daemon_process import DemoDaemon, DemoFailed
from orchestratord_demo.receiver import DemoReceiver, ReceivedDelivery
from orchestratord_demo.story import Task

SHORTEST = 20.0
LONGEST = 60.0
"""Seconds that the story takes; what has not happened by then will not."""
STEP = 0.1

LONGEST_PLACE = 60
"""Bytes; the path of a socket has 107 at most, and more is added to it."""

PAGE = 200
"""The newest tasks are asked for all the time, older ones only while they are not done."""

Part = str | tuple[str, str]
"""A text, or a text and its colour: also one of `_STYLES`."""
_STYLES = ("dim", "bold")


def play(config: Path, screen: DemoScreen, *, keep: bool) -> int:
    """Run the demo; its exit code.

    Args:
        config: the example configuration.
        screen: where it is shown.
        keep: go on after the story, until Ctrl-C.
    """
    keys = {
        path: "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
        for path in story.SECRETS
    }
    receiver = DemoReceiver(story.ANSWERS, keys)
    variables = {"DEMO_PORT": str(receiver.port)}
    variables |= {name: keys[path] for path, name in story.SECRETS.items()}
    try:
        with tempfile.TemporaryDirectory(prefix="orchestratord-demo-", dir=place()) as folder:
            daemon = DemoDaemon(Path(folder), config, variables, dashboard=keep)
            return _Demo(daemon, receiver, screen).run(keep)
    finally:
        receiver.close()


def place(usual: str | None = None) -> str:
    """Where the demo's folder is made: the usual place, unless a socket's path would be too long.

    `usual`: by default the folder that the environment names for temporary files.
    """
    usual = usual or tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) <= LONGEST_PLACE else "/tmp"  # noqa: S108


class _Demo:
    def __init__(self, daemon: DemoDaemon, receiver: DemoReceiver, screen: DemoScreen) -> None:
        self._daemon = daemon
        self._receiver = receiver
        self._screen = screen
        self._watch = TaskWatch(daemon, screen)
        self._shown = 0
        self._placed: dict[int, story.StoryCall] = {}
        self._retry_exit_code: int | None = None

    def run(self, keep: bool) -> int:
        """Play the story, count, go on if wanted, stop the daemon."""
        stopped = False
        try:
            self._introduce()
            kept = self._tell()
            if keep:
                self._invite()
                self._go_on()
            code = self._daemon.stop()
            stopped = True
            self._conclude(kept and code == 0, code)
        except DemoFailed as failure:
            self._screen.line((f"The demo failed: {failure}", "red"))
            self._quote_log()
            return 1
        finally:
            self._screen.footer("")
            if not stopped:
                self._daemon.stop()
        if not kept or code != 0:
            self._quote_log()
        return 0 if kept and code == 0 else 1

    def _introduce(self) -> None:
        show = self._screen.line
        show(("orchestratord demo", "bold"))
        show("A daemon on SQLite calls an API that fails now and then, and sends signed webhooks.")
        seconds = self._daemon.wait_until_ready()
        show()
        show(f"  configuration   {self._daemon.config}")
        show(f"  control socket  {self._daemon.socket}")
        show(f"  API, receiver   http://127.0.0.1:{self._receiver.port}")
        show(f"  daemon          ready after {seconds:.1f}s")
        self._screen.begin()

    def _tell(self) -> bool:
        """The story, from the first call to the summary; whether all promises were kept."""
        upcoming = list(story.CALLS)
        while self._screen.seconds < LONGEST:
            while upcoming and upcoming[0].at <= self._screen.seconds:
                self._place(upcoming.pop(0))
            if self._retry_exit_code is None and self._screen.seconds >= story.RETRY_AT:
                self._retry_manually()
            self._look()
            told = not upcoming and self._retry_exit_code is not None
            over = told and not story.unfinished(self._watch.tasks.values())
            if over and self._screen.seconds >= SHORTEST:
                break
            time.sleep(STEP)
        self._screen.footer("")
        done = story.promises(
            self._placed,
            self._watch.tasks,
            self._receiver,
            self._retry_exit_code,
            self._daemon.rows(),
        )
        _show_summary(self._screen, self._watch.tasks, done)
        return all(promise.kept for promise in done)

    def _place(self, call: story.StoryCall) -> None:
        self._screen.heading(call.say)
        self._placed[self._daemon.call(call.endpoint, call.params)] = call

    def _look(self) -> None:
        # What has arrived by now was caused by something that is already in the queue.
        arrived = len(self._receiver.deliveries)
        self._watch.look()
        for delivery in self._receiver.deliveries[self._shown : arrived]:
            _show_delivery(self._screen, delivery)
        self._shown = arrived
        self._screen.footer(self._watch.waiting())

    def _retry_manually(self) -> None:
        number = next(id_ for id_, call in self._placed.items() if call.endpoint == story.RETRIED)
        self._screen.heading("a person looks, and retries the order manually")
        self._screen.event((f"$ orchestratorctl retry {number} --wait", "bold"))
        environ = {**os.environ, "ORCHESTRATORD_SOCKET": str(self._daemon.socket)}
        done = subprocess.run(  # noqa: S603  # this very interpreter
            [sys.executable, "-m", "orchestratorctl", "retry", str(number), "--wait"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environ,
            timeout=LONGEST,
            check=False,
        )
        self._retry_exit_code = done.returncode
        for line in done.stdout.decode(errors="replace").splitlines():
            self._screen.event(("│ ", "dim"), line)

    def _invite(self) -> None:
        show = self._screen.line
        command = Path(sys.executable).with_name("orchestratorctl")
        show()
        show(("The daemon goes on, and the API fails now and then; Ctrl-C ends it.", "bold"))
        if self._daemon.dashboard is not None:
            url, token = self._daemon.dashboard
            show(f"The dashboard is at {url}")
            show(f"  token: {token}")
        show("In another terminal:")
        show(f"  export ORCHESTRATORD_SOCKET={self._daemon.socket}")
        for words in (
            "status",
            "list",
            "call shop/getOrder -p id=7 --wait",
            "call warehouse/saveItem -p id=9 -p name=boots --wait",
            "list --status failed",
            "retry ID --wait",
            "show ID",
            "webhooks",
        ):
            show(f"  {command} {words}")
        show("A change of the configuration is taken over at once:")
        show(f"  $EDITOR {self._daemon.config}/apis/shop/endpoints/getStock.yaml")
        show()

    def _go_on(self) -> None:
        self._receiver.moody = True
        try:
            while True:
                self._look()
                time.sleep(STEP)
        except KeyboardInterrupt:
            self._screen.footer("")
            self._screen.line()

    def _conclude(self, kept: bool, code: int) -> None:
        mark = ("  ok    ", "green") if code == 0 else ("  FAILED", "red")
        self._screen.line(mark, f"  the daemon drained and ended with exit code {code}")
        self._screen.line()
        said, colour = ("Everything", "green") if kept else ("Not everything", "red")
        self._screen.line((f"{said} that was promised happened.", colour))

    def _quote_log(self) -> None:
        lines = self._daemon.log.read_text(errors="replace").splitlines()
        self._screen.line(f"The end of the daemon's log, of {len(lines)} lines:")
        for line in lines[-20:]:
            self._screen.line("  ", line)


class TaskWatch:
    """Follows all tasks through the API, and writes what is new to the screen."""

    def __init__(self, daemon: DemoDaemon, screen: DemoScreen) -> None:
        self.tasks: dict[int, Task] = {}
        """Every task, by its id, as it was last seen."""
        self._daemon = daemon
        self._screen = screen
        self._shown: dict[int, int] = {}

    def look(self) -> None:
        """Ask for the tasks, and show the attempts that were not there before."""
        newest = self._daemon.get(f"/v1/retries?limit={PAGE}")["retries"]
        listed = set(map(_id, newest))
        older = {_id(task) for task in story.unfinished(self.tasks.values())} - listed
        newest += [self._daemon.get(f"/v1/retries/{id_}") for id_ in older]
        for task in sorted(newest, key=_id):
            known = self.tasks.get(task["id"])
            self.tasks[task["id"]] = task
            if known is None or known["updated_at"] != task["updated_at"]:
                self._show(self._daemon.get(f"/v1/retries/{task['id']}"))

    def _show(self, task: Task) -> None:
        # An attempt that has ended while its task still runs was recorded between two looks at
        # the database; the next one shows both.
        log = [
            entry
            for entry in task["attempt_log"]
            if task["status"] != "running" or entry["attempt"] < task["attempts"]
        ]
        seen = self._shown.get(task["id"], 0)
        self._shown[task["id"]] = len(log)
        for entry in log[seen:]:
            last = entry is log[-1]
            delivered = task["kind"] == "webhook" and last and task["status"] == "succeeded"
            if not delivered:  # a delivery is shown as its receiver saw it
                self._attempt(task, entry, last)

    def _attempt(self, task: Task, entry: Mapping[str, Any], last: bool) -> None:
        result, colour = str(entry["status_code"]), "yellow"
        if last and task["status"] == "succeeded":
            colour, rest = "green", f"succeeded at attempt {entry['attempt']}"
        elif entry["delay"] is not None:
            wait = format_duration(round(entry["delay"], 1))
            rest = f"attempt {entry['attempt']} failed, next in {wait}: {entry['why']}"
        else:
            colour, rest = "red", f"failed for good, {task['reason'] or task['status']}"
            if entry["error"]:
                rest += f": {entry['error']}"
        self._screen.event(*_columns(task), (f"{result:<6}", colour), rest)

    def waiting(self) -> str:
        """The footer: what is under way, and what is waiting for how long."""
        texts = []
        for task in self.tasks.values():
            if task["status"] == "running":
                texts.append(f"#{task['id']} {task['endpoint']} under way")
            elif task["status"] == "pending" and task["next_try"]:
                due = datetime.fromisoformat(task["next_try"]).timestamp() - time.time()
                texts.append(f"#{task['id']} {task['endpoint']} in {max(due, 0):.1f}s")
        return f"         waiting: {', '.join(texts)}" if texts else ""


def _id(task: Task) -> int:
    return int(task["id"])


def _columns(task: Task) -> tuple[Part, ...]:
    """The first columns of a line about a task."""
    what = task["endpoint"] if task["kind"] == "call" else f"webhook {task['webhook']}"
    return (f"#{task['id']}".ljust(5), f"{what:<20} ")


def _show_delivery(screen: DemoScreen, delivery: ReceivedDelivery) -> None:
    """A webhook as it arrived at the receiver."""
    signature = ("signature ok", "cyan") if delivery.verified else ("WRONG SIGNATURE", "red")
    screen.event(
        "     ", (f"↳ {delivery.path:<18} ", "cyan"), f"{_gist(delivery.body)}, ", signature
    )
    if delivery.status >= 300:
        screen.event("     ", (f"  the receiver answers {delivery.status}", "yellow"))


def _gist(body: str) -> str:
    """What a payload says, in a few words."""
    document = json.loads(body)
    if "text" in document:
        return f"“{document['text']}”"
    data = document["data"]
    return f"{document['type']} of #{data['task_id']} {data['endpoint']}, {data['status_code']}"


def _show_summary(
    screen: DemoScreen, tasks: Mapping[int, Task], promises: Iterable[story.Promise]
) -> None:
    """The table of the calls, and every promise."""
    screen.line()
    screen.line((f"  {'call':<7}{'endpoint':<22}{'attempts':<10}how it ended", "bold"))
    for task in sorted(tasks.values(), key=_id):
        if task["kind"] != "call":
            continue
        colour = "green" if task["status"] == "succeeded" else "red"
        ended = task["status"] + (f", {task['reason']}" if task["reason"] else "")
        screen.line(
            f"  {'#' + str(task['id']):<7}{task['endpoint']:<22}{task['attempts']:<10}",
            (ended, colour),
        )
    screen.line()
    for promise in promises:
        mark = ("  ok    ", "green") if promise.kept else ("  FAILED", "red")
        screen.line(mark, f"  {promise.text}")


class DemoScreen:
    """Writes to stdout. What comes from elsewhere is escaped here, and nowhere else."""

    def __init__(self) -> None:
        self._stream = sys.stdout
        self._live = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._coloured = self._live and not os.environ.get("NO_COLOR")
        self._begun = time.monotonic()
        self._footer = ""

    def begin(self) -> None:
        """The clock of `event` starts here."""
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since `begin`."""
        return time.monotonic() - self._begun

    def line(self, *parts: Part) -> None:
        """Write one line of texts, or of (text, colour)."""
        painted = "".join(self._paint(part) for part in parts)
        self._stream.write(f"{self._erased()}{painted}\n{self._footer}")
        self._stream.flush()

    def event(self, *parts: Part) -> None:
        """Write one line that begins with the time."""
        self.line((f"{self.seconds:6.1f}s  ", "dim"), *parts)

    def heading(self, text: str) -> None:
        """Write what is about to be seen."""
        self.line()
        self.line((f"{self.seconds:6.1f}s  {text}", "bold"))

    def footer(self, text: str) -> None:
        """Replace the line at the bottom; an empty text takes it away."""
        if not self._live:
            return
        width = shutil.get_terminal_size().columns - 1
        # No line break, and shorter than the terminal: the line can be erased again.
        footer = self._paint((text[:width], "dim")) if text else ""
        if footer != self._footer:
            self._stream.write(self._erased() + footer)
            self._stream.flush()
            self._footer = footer

    def _erased(self) -> str:
        return "\r\x1b[2K" if self._footer else ""

    def _paint(self, part: Part) -> str:
        text, colour = (part, None) if isinstance(part, str) else part
        text = escape(text)
        if colour is None or not self._coloured:
            return text
        style: dict[str, Any] = {colour: True} if colour in _STYLES else {"fg": colour}
        return click.style(text, **style)
