"""The dashboard: what an operator opens when something is wrong.

Pages are made on the server, so that they are there at once and work without any script; a small
one keeps them up to date and makes their buttons work, over the API that programs use.
`docs/dashboard.md` says what they show.

    site       pages as routes of the API         page       what one page is, and who looks at it
    assets     the style sheet, the script        words      how times and numbers are written
    window     what happened lately, in memory    charts     pictures of it
    overview   the first page                     retries    tasks, one and many
    lanes      which of them wait, for what
    endpoints  endpoints, and calling them        actions    what was done by hand
    webhooks   an endpoint's webhooks, and their editor

**Another page** is a module with a function that returns its `Page`s (`overview` is an example), a
line in `_pages` below, a template in `templates/` that extends `layout.html`, and, if people are to
find it by the navigation, a line there. What a template shows is escaped. The policy of the API
forbids scripts and styles within a page: they stand in files in `static/`, each served under the
hash of its content, as `{{ asset("name.js") }}`; a script of one page goes into `{% block head %}`.
What a page has to write, its script asks of the API (`data-post` on a button may be all it needs).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from orchestratord import Control, Event, Route, hookimpl
from orchestratord_dashboard.window import Window

if TYPE_CHECKING:
    from orchestratord_dashboard.page import Page

WARM_AFTER = 30.0
"""Seconds after the start, until which the first page takes a moment longer."""

window = Window()


@hookimpl
def observe(events: Sequence[Event]) -> None:
    window.observe(events)


@hookimpl
def register_routes(control: Control) -> Iterable[Route]:
    # What only pages need is not worth the time of commands that only load the plugin.
    from orchestratord_dashboard.site import Site

    site = Site(_pages(control), window)
    # Not at once: a daemon that starts has better things to do.
    loop = asyncio.get_running_loop()
    loop.call_later(WARM_AFTER, loop.run_in_executor, None, site.warm)
    return site.routes()


def _pages(control: Control) -> Iterable[Page]:
    from orchestratord_dashboard import actions, endpoints, overview, retries, webhooks

    yield from overview.pages(control, window)
    yield from retries.pages(control)
    yield from endpoints.pages(control, window)
    yield from webhooks.pages(control)
    yield from actions.pages(control)
