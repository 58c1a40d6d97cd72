"""The course of the demo: calls are placed, everything is shown, and the end is counted."""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from orchestratord.cli.demo import story, summary
from orchestratord.cli.demo.daemon import Daemon, DemoFailed
from orchestratord.cli.demo.receiver import Receiver
from orchestratord.cli.demo.screen import Screen
from orchestratord.cli.demo.watch import Watch, show_delivery

SHORTEST = 20.0
LONGEST = 60.0
"""Seconds that the story takes; what has not happened by then will not."""
STEP = 0.1

LONGEST_PLACE = 60
"""Bytes; the path of a socket has 107 at most, and more is added to it."""


def play(config: Path, screen: Screen, *, keep: bool) -> int:
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
    receiver = Receiver(story.ANSWERS, keys)
    variables = {"DEMO_PORT": str(receiver.port)}
    variables |= {name: keys[path] for path, name in story.SECRETS.items()}
    try:
        with tempfile.TemporaryDirectory(prefix="orchestratord-demo-", dir=place()) as folder:
            return _Demo(Daemon(Path(folder), config, variables), receiver, screen).run(keep)
    finally:
        receiver.close()


def place(usual: str | None = None) -> str:
    """Where the demo's folder is made: the usual place, unless a socket's path would be too long.

    `usual`: by default the folder that the environment names for temporary files.
    """
    usual = usual or tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) <= LONGEST_PLACE else "/tmp"  # noqa: S108


class _Retry(NamedTuple):
    exit_code: int
    output: str


class _Demo:
    def __init__(self, daemon: Daemon, receiver: Receiver, screen: Screen) -> None:
        self._daemon = daemon
        self._receiver = receiver
        self._screen = screen
        self._watch = Watch(daemon, screen)
        self._shown = 0
        self._placed: dict[int, story.Call] = {}
        self._retried: _Retry | None = None

    def run(self, keep: bool) -> int:
        """Play the story, count, go on if wanted, stop the daemon."""
        stopped = False
        try:
            self._introduce()
            kept = self._tell()
            if keep:
                self._invite()
                self._go_on()
            self._screen.footer("")
            code = self._daemon.stop()
            stopped = True
            self._conclude(kept and code == 0, code)
        except DemoFailed as failure:
            self._screen.footer("")
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
            if self._retried is None and self._screen.seconds >= story.RETRY_AT:
                self._retry_by_hand()
            self._look()
            told = not upcoming and self._retried is not None and not self._watch.unfinished()
            if told and self._screen.seconds >= SHORTEST:
                break
            time.sleep(STEP)
        self._screen.footer("")
        code = self._retried.exit_code if self._retried else None
        rows = self._daemon.rows()
        done = summary.checks(self._placed, self._watch.tasks, self._receiver, code, rows)
        summary.show(self._screen, self._watch.tasks, done)
        return all(check.kept for check in done)

    def _place(self, call: story.Call) -> None:
        self._screen.heading(call.say)
        number = self._daemon.call(call.endpoint, call.params)
        self._placed[number] = call

    def _look(self) -> None:
        # What has arrived by now was caused by something that is already in the queue.
        arrived = len(self._receiver.deliveries)
        self._watch.look()
        for delivery in self._receiver.deliveries[self._shown : arrived]:
            show_delivery(self._screen, delivery)
        self._shown = arrived
        self._screen.footer(self._watch.waiting())

    def _retry_by_hand(self) -> None:
        number = next(id_ for id_, call in self._placed.items() if call.endpoint == story.RETRIED)
        self._screen.heading("a person looks, and tries the order again by hand")
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
        self._retried = _Retry(done.returncode, done.stdout.decode(errors="replace"))
        for line in self._retried.output.splitlines():
            self._screen.event(("│ ", "dim"), line)

    def _invite(self) -> None:
        show = self._screen.line
        command = Path(sys.executable).with_name("orchestratorctl")
        show()
        show(("The daemon goes on, and the API fails now and then; Ctrl-C ends it.", "bold"))
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
        if kept:
            self._screen.line(("Everything that was promised happened.", "green"))
        else:
            self._screen.line(("Not everything that was promised happened.", "red"))

    def _quote_log(self) -> None:
        lines = self._daemon.log.read_text(errors="replace").splitlines()
        self._screen.line(f"The end of the daemon's log, of {len(lines)} lines:")
        for line in lines[-20:]:
            self._screen.line("  ", line)
