"""`status`, `watch`, `events`, `actions` and `reload`: what concerns the whole daemon."""

from __future__ import annotations

import json
import os
import signal
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from orchestratorctl.console import Console
from orchestratorctl.event_text import event_line, missed_line
from orchestratorctl.exit_codes import (
    OK,
    CommandError,
    Lost,
    NoDaemon,
    RequestRefused,
    TimedOut,
    UsageError,
)
from orchestratorctl.formats import compact, cut, error_lines
from orchestratorctl.socket_client import SocketClient, follow
from orchestratorctl.status_text import status_page, watch_page
from orchestratorctl.tables import ACTIONS, show_list
from orchestratorctl.verb_table import filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

ANSWER_WITHIN = 10.0
UPGRADED_WITHIN = 120.0
GONE_FOR = 1.0
"""Seconds without a daemon at the socket after which an upgrade has ended it."""
TERMINATED = 143

# To the other screen and back, with the cursor hidden meanwhile.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
# Lines are written over those that stand there: what does not change does not flicker.
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


def status(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Shows the daemon's configuration, queue, database and plugins."""
    document = client.get("/v1/status")
    console.show(document, lambda: status_page(document, console))
    return OK


def actions(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Lists what people did, the newest first."""
    found = client.get_list("/v1/actions", "actions", {}, arguments.limit)
    show_list(found, "actions", ACTIONS, "The action log is empty.", console)
    return OK


def watch(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Shows the daemon's status each `interval` seconds, until it is interrupted."""
    document = _ask(client)
    if arguments.once:
        console.show(document, lambda: watch_page(document, console))
        return OK
    if not console.tables:
        while True:
            console.document(document)
            time.sleep(arguments.interval)
            document = _ask(client)
    if not console.stdout.isatty() or os.environ.get("TERM") == "dumb":
        raise UsageError("watch draws on a terminal; elsewhere, use --once")
    with _other_screen(console):
        trouble = ""
        while True:
            _draw(watch_page(document, console, trouble), console)
            time.sleep(arguments.interval)
            try:
                document, trouble = _ask(client), ""
            except (NoDaemon, Lost, TimedOut, RequestRefused) as failure:
                trouble = f"{failure}; the picture below is older"


def events(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Follows the events until it is interrupted, or the daemon does not come back."""
    is_away = False

    def away() -> None:
        nonlocal is_away
        if not is_away:
            console.say("The daemon does not answer; waiting for it.")
        is_away = True

    for event in follow(client, filters(arguments), away):
        is_away = False
        if event.type == "missed":
            console.say(missed_line(event.data.get("missed")))
        elif console.tables:
            console.lines([event_line(event.type, event.data, console)])
            console.stdout.flush()
        else:
            console.document(event.data)
    return OK


def reload(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Adopts what the files say now; a bad configuration changes nothing (78)."""
    names = "diff", "accept_removals", "dry_run"
    body: dict[str, Any] = {name: True for name in names if getattr(arguments, name)}
    if arguments.folder is not None:
        body["folder"] = os.path.abspath(arguments.folder)
    answer = client.post("/v1/reload", body or None)
    if not console.tables:
        console.data(answer)
    generation = compact(answer.get("generation"))
    if arguments.dry_run:
        would = "nothing would change" if answer.get("changed") is False else "it would be adopted"
        console.say(f"The configuration is good, and {would}; this was a dry run.")
    elif answer.get("changed") is False:
        console.say(f"Nothing has changed; generation {generation} goes on.")
        if arguments.diff and answer.get("diff"):
            console.say("It differs from the generation before:")
    else:
        console.say(f"Generation {generation} of the configuration is in force.")
    if arguments.diff and console.tables:
        console.lines(list(_diff(answer, console)))
    for line in error_lines(answer.get("warnings") or []):
        console.say(f"warning: {line}")
    for key in answer.get("restart_required") or []:
        console.say(f"{compact(key)} keeps its old value until the daemon is restarted.")
    return OK


def upgrade(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Has the daemon go on as the version that is installed by now, and waits until that works."""
    before = client.get("/v1/status").get("started_at")
    answer = client.post("/v1/upgrade")
    console.say(
        f"Version {compact(answer.get('version'))} takes over"
        + (" once what is in flight has ended." if answer.get("drains_first") else ".")
    )
    end, heard = time.monotonic() + UPGRADED_WITHIN, time.monotonic()
    while time.monotonic() < end:
        time.sleep(0.2)
        try:
            status = client.get("/v1/status")
        except NoDaemon:
            if time.monotonic() > heard + GONE_FOR:
                raise  # the socket is kept from one version to the next
            continue
        except CommandError:
            continue  # one version has closed its connections, and the next one opens its own
        heard = time.monotonic()
        if why := status.get("upgrade_failed"):
            raise CommandError(f"the old version goes on: {compact(why)}")
        if status.get("started_at") != before and (status.get("health") or {}).get("ready"):
            if not console.tables:
                console.data(answer)
            console.say(f"Version {compact(status.get('version'))} works.")
            return OK
    raise TimedOut(
        f"the new version does not work after {UPGRADED_WITHIN:g} s: see the daemon's log"
    )


def _diff(answer: dict[str, Any], console: Console) -> Iterator[str]:
    """What differs, as `diff` would show it: endpoints that came and went, and keys."""
    changes = answer.get("changes") or {}
    for sign, kind, colour in (("-", "removed", "red"), ("+", "added", "green")):
        for endpoint in changes.get(kind) or []:
            yield console.paint(f"{sign} {compact(endpoint)}", colour)
    heading = None
    for item in answer.get("diff") or []:
        name = compact(item.get("endpoint") or "orchestratord.yaml")
        if name != heading:
            heading = name
            yield console.paint(name, "bold")
        if not item.get("key"):
            yield "    a secret, or something else that is not shown"
        for sign, side, colour in (("-", "before", "red"), ("+", "after", "green")):
            if item.get("key") and item.get(side) is not None:
                value = compact(json.dumps(item[side], ensure_ascii=False))
                yield console.paint(f"  {sign} {compact(item['key'])}: {value}", colour)


def _ask(client: SocketClient) -> dict[str, Any]:
    return client.get("/v1/status", timeout=ANSWER_WITHIN)


def _draw(lines: list[str], console: Console) -> None:
    try:
        size = os.get_terminal_size(console.stdout.fileno())
        console.width, rows = max(size.columns, 20), size.lines
    except (OSError, ValueError):
        rows = 24
    if len(lines) > rows - 1:
        lines = [*lines[: rows - 2], cut("… the screen is too short for more", console.width or 80)]
    drawn = "".join(f"{line}{_REST_OF_LINE}\r\n" for line in lines)
    console.stdout.write(f"{_HOME}{drawn}{_REST_OF_SCREEN}")
    console.stdout.flush()


@contextmanager
def _other_screen(console: Console) -> Iterator[None]:
    """Draw on the terminal's other screen, and leave it however this ends."""
    before = signal.signal(signal.SIGTERM, _terminated)
    console.stdout.write(_ENTER)
    try:
        yield
    finally:
        console.stdout.write(_LEAVE)
        console.stdout.flush()
        signal.signal(signal.SIGTERM, before)


def _terminated(number: int, frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)
