"""`events`: what happens, as it happens."""

from __future__ import annotations

from argparse import Namespace

from orchestratorctl.arguments import EVENT_FILTERS, filters
from orchestratorctl.client import Client
from orchestratorctl.failures import OK
from orchestratorctl.following import Message, follow
from orchestratorctl.happenings import COLOURS, sentence
from orchestratorctl.render import compact, number
from orchestratorctl.screen import Screen
from orchestratorctl.text import cut, escape
from orchestratorctl.times import short_time

_TYPE = 16
"""Characters of the longest type."""


def events(client: Client, screen: Screen, arguments: Namespace) -> int:
    """Follows what happens until it is interrupted, or the daemon is gone for good."""
    is_away = False

    def away() -> None:
        nonlocal is_away
        if not is_away:
            screen.say("The daemon is away; waiting for it.")
        is_away = True

    for message in follow(client, filters(arguments, EVENT_FILTERS), away):
        is_away = False
        if message.type == "missed":
            screen.say(_missed(message.data.get("missed")))
        elif screen.tables:
            screen.lines([_line(message, screen)])
            screen.stdout.flush()
        else:
            screen.document(message.data)
    return OK


def _line(message: Message, screen: Screen) -> str:
    time = short_time(message.data.get("at"))[-8:]
    type_ = compact(message.type)
    text = escape(sentence(message.data))
    if screen.width is not None:
        text = cut(text, max(screen.width - len(time) - _TYPE - 4, 20))
    painted = screen.paint(type_.ljust(_TYPE), COLOURS.get(type_))
    return f"{screen.paint(time, 'dim')}  {painted}  {text}".rstrip()


def _missed(count: object) -> str:
    if count is None:
        return "Some events may have been missed here."
    return f"{number(count)} events were missed here, of all types."
