"""The dashboard: what an operator opens when something is wrong.

Pages are made on the server, so that they are there at once and work without any script; a small
one keeps them up to date and makes their buttons work, over the API that programs use.
`docs/dashboard.md` says what they show.

    page_renderer     what a page is, and its route     assets            styles, scripts, by hash
    attempt_history   the last 24 hours, in memory      charts            drawn from it
    overview_pages    the first page, the action log    throttled_lanes   by what, until when
    task_pages        tasks, one, many, told of         run_pages         a run and its tree
    template_filters  times and numbers, written
    endpoint_pages    endpoints, and calling them       health_pages      schedules and webhooks

Events go into the history; a request goes through the renderer to a page, which asks `Control`.

**Another page** is a function that returns its `DashboardPage`s (`overview_pages` is an example),
a line in `_pages` below, a template in `templates/` that extends `layout.html`, and, if people are
to find it by the navigation, a line there. What a template shows is escaped. The policy of the API
forbids scripts and styles within a page: they stand in files in `static/`, each served under the
hash of its content, as `{{ asset("name.js") }}`; a script of one page goes into `{% block head %}`.
What a page has to write, its script asks of the API (`data-post` on a button may be all it needs).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from orchestratord import Control, Event, Route, hookimpl
from orchestratord_dashboard.attempt_history import AttemptHistory

if TYPE_CHECKING:
    from orchestratord_dashboard.page_renderer import DashboardPage

WARM_AFTER = 30.0
"""Seconds after the start, until which the first page takes a moment longer."""

history = AttemptHistory()


@hookimpl
def observe(events: Sequence[Event]) -> None:
    history.observe(events)


@hookimpl
def register_routes(control: Control) -> Iterable[Route]:
    # What only pages need is not worth the time of commands that only load the plugin.
    from orchestratord_dashboard.page_renderer import PageRenderer

    renderer = PageRenderer(_pages(control), history, control.pages())
    # Not at once: a daemon that starts has better things to do.
    renderer.warm_after(WARM_AFTER)
    return renderer.routes()


def _pages(control: Control) -> Iterable[DashboardPage]:
    from orchestratord_dashboard import (
        endpoint_pages,
        health_pages,
        overview_pages,
        run_pages,
        task_pages,
    )

    yield from overview_pages.pages(control, history)
    yield from task_pages.pages(control)
    yield from task_pages.batch_pages(control)
    yield from run_pages.pages(control)
    yield from endpoint_pages.pages(control, history)
    yield from health_pages.pages(control)
