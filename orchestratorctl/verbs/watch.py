"""`watch`: how the daemon is, on a screen that is drawn again and again."""

from __future__ import annotations

import os
import signal
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from orchestratorctl import facts
from orchestratorctl.client import Client
from orchestratorctl.failures import OK, Lost, NoDaemon, Problem, TimedOut, Usage
from orchestratorctl.limits import waiting_lanes
from orchestratorctl.render import Column, Painted, compact, fields, number, table
from orchestratorctl.screen import Screen
from orchestratorctl.text import cut, escape, wrap
from orchestratorctl.times import coarse, seconds_at, span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

    Document = dict[str, Any]

ANSWER_WITHIN = 10.0
TERMINATED = 143

# To the other screen and back, with the cursor hidden meanwhile.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
# Lines are written over those that stand there: what does not change does not flicker.
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"

_FAILING = (
    Column("FAILING", cut="middle"),
    Column("IN A ROW", right=True),
    Column("LAST", right=True),
    Column("CODE", right=True),
    Column("ERROR", cut="end"),
)
_MOST_FAILING = 8


def watch(client: Client, screen: Screen, arguments: Namespace) -> int:
    """Shows the daemon's status each `interval` seconds, until it is interrupted."""
    document = _ask(client)
    if arguments.once:
        if screen.tables:
            screen.lines(picture(document, screen, time.time()))
        else:
            screen.data(document)
        return OK
    if not screen.tables:
        while True:
            screen.document(document)
            time.sleep(arguments.interval)
            document = _ask(client)
    if not screen.stdout.isatty() or os.environ.get("TERM") == "dumb":
        raise Usage("watch draws on a terminal; elsewhere, use --once")
    with _other_screen(screen):
        trouble = ""
        while True:
            _draw(picture(document, screen, time.time(), trouble), screen)
            time.sleep(arguments.interval)
            try:
                document, trouble = _ask(client), ""
            except (NoDaemon, Lost, TimedOut, Problem) as failure:
                trouble = f"{failure}; what stands below is from before"


def picture(document: Document, screen: Screen, now: float, trouble: str = "") -> list[str]:
    """The lines of one picture.

    Args:
        document: the daemon's status.
        now: seconds since the epoch.
        trouble: why the document is not of this moment.
    """
    config = document.get("config") or {}
    uptime = document.get("uptime")
    head = [f"orchestratord {document.get('version') or ''}".rstrip()]
    head += [f"up {span(uptime)}"] if isinstance(uptime, int | float) else []
    head += [f"{number(config.get('endpoints'))} endpoints"]
    head += [f"generation {compact(config.get('generation'))}"]
    lines = [_line(", ".join(head), "bold", screen)]
    if trouble:
        lines += [screen.paint(line, "red") for line in wrap(escape(trouble), screen.width)]
    if document.get("draining"):
        lines.append(_line("draining: no new task is begun", "yellow", screen))
    if config.get("error"):
        lines.append(_line("the files are in error; see `orchestratorctl status`", "red", screen))
    pairs: list[tuple[str, str | Painted]] = [
        ("queue", facts.queue(document)),
        ("due", facts.due(document, now)),
        ("in flight", facts.in_flight(document)),
        ("per second", _rates(document.get("rates"))),
    ]
    if paused := document.get("paused"):
        pairs.append(("paused", Painted(", ".join(compact(item) for item in paused), "yellow")))
    lines += ["", *fields(pairs, screen)]
    full = [lane for lane in document.get("lanes") or [] if _is_full(lane)]
    lines += _failing(document.get("failing") or [], screen, now)
    lines += waiting_lanes(document, screen, now)
    return lines + (facts.lanes(full, screen, "FULL LANE") or ["", "No lane is full."])


def _line(text: str, colour: str, screen: Screen) -> str:
    return screen.paint(text if screen.width is None else cut(text, screen.width), colour)


def _rates(rates: Any) -> str:
    if not isinstance(rates, dict):
        return "-"
    words = [f"{rate:,.1f} {name}" for name, rate in rates.items() if isinstance(rate, int | float)]
    return ", ".join(words)


def _failing(found: list[Document], screen: Screen, now: float) -> list[str]:
    if not found:
        return ["", "Nothing is failing."]
    rows: list[list[str | Painted]] = []
    for item in found[:_MOST_FAILING]:
        name = " ".join(str(item[part]) for part in ("endpoint", "webhook") if item.get(part))
        last = seconds_at(item.get("last"))
        rows.append(
            [
                Painted(name, "red"),
                number(item.get("failures")),
                "-" if last is None else f"{coarse(now - last)} ago",
                compact(item.get("status_code")),
                compact(item.get("error")),
            ]
        )
    return ["", *table(_FAILING, rows, screen)]


def _is_full(lane: Any) -> bool:
    if not isinstance(lane, dict):
        return False
    limit, count = lane.get("concurrency"), lane.get("in_flight")
    return isinstance(limit, int) and isinstance(count, int) and count >= limit


def _ask(client: Client) -> Document:
    return client.get("/v1/status", timeout=ANSWER_WITHIN)


def _draw(lines: list[str], screen: Screen) -> None:
    try:
        size = os.get_terminal_size(screen.stdout.fileno())
        screen.width, rows = max(size.columns, 20), size.lines
    except (OSError, ValueError):
        rows = 24
    if len(lines) > rows - 1:
        lines = [*lines[: rows - 2], cut("… the screen is too short for more", screen.width or 80)]
    drawn = "".join(f"{line}{_REST_OF_LINE}\r\n" for line in lines)
    screen.stdout.write(f"{_HOME}{drawn}{_REST_OF_SCREEN}")
    screen.stdout.flush()


@contextmanager
def _other_screen(screen: Screen) -> Iterator[None]:
    """Draw on the terminal's other screen, and leave it however this ends."""
    before = signal.signal(signal.SIGTERM, _terminated)
    screen.stdout.write(_ENTER)
    try:
        yield
    finally:
        screen.stdout.write(_LEAVE)
        screen.stdout.flush()
        signal.signal(signal.SIGTERM, before)


def _terminated(number: int, frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)
